"""Converted recordings on this machine's disk: made once, kept while they are used, private to the server's user."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO

from callphases.pages.conversion import NotConvertible

MOST_BYTES = 1 << 30
"""Of all kept recordings; those that were not listened to for the longest time go first."""
AT_ONCE = 2
"""Conversions of a server process at the same time."""
MOST_WAITING = 8
"""Requests of a server process that wait for one; each takes one of ``threads.COUNT``."""
WAIT_S = 20.0
"""How long such a request waits."""
UNUSED_S = 3600
"""After how long without a listener a recording is removed; also of a conversion whose process was killed."""
_MOST_REFUSED = 1000
_HEADER_BYTES = 44


class Busy(Exception):
    """Other recordings are being converted."""


class WavCache:
    """WAV files in a folder, which is created when it is needed. Thread-safe; processes can share a folder."""

    def __init__(
        self, folder: Path, *, most_bytes: int = MOST_BYTES, at_once: int = AT_ONCE, wait_s: float = WAIT_S
    ) -> None:
        self._folder, self._most_bytes, self._wait_s = folder, most_bytes, wait_s
        self._slots = threading.Semaphore(at_once)
        self._waiting = threading.Semaphore(MOST_WAITING)
        self._lock = threading.Lock()
        self._cleaning: threading.Timer | None = None
        self._making: dict[str, Future[None]] = {}
        self._refused: dict[str, str] = {}

    def open(self, uri: str, etag: str, make: Callable[[Path, Path], None]) -> BinaryIO:
        """A converted recording, opened for reading; it may be removed from the folder meanwhile.

        Args:
            uri: of the recording.
            etag: of the recording.
            make: called with an empty folder for its own use and the file to write. Recordings that it raises
                NotConvertible for are remembered.

        Raises:
            Busy: too many others are being converted.
            NotConvertible: as ``make`` raises it, or has raised it before.
            OSError: the folder can't be used; and whatever else ``make`` raises.
        """
        name = hashlib.sha256(f"{uri}\0{etag}".encode()).hexdigest() + ".wav"
        self._prepare()
        while (found := self._opened(name)) is None:
            with self._lock:
                if name in self._refused:
                    raise NotConvertible(self._refused[name])
                other = self._making.get(name)
                if other is None:
                    ours = self._making[name] = Future()
            if other is not None:
                self._wait(lambda one=other: one.result(self._wait_s))  # type: ignore[misc]
                continue
            try:
                self._make(name, make)
            except BaseException as error:
                self._remember(name, error)
                ours.set_exception(error)
                raise
            else:
                ours.set_result(None)
            finally:
                with self._lock:
                    del self._making[name]
        return found

    def _wait(self, wait: Callable[[], object]) -> None:
        if not self._waiting.acquire(blocking=False):
            raise Busy
        try:
            if wait() is False:
                raise Busy
        except TimeoutError:
            raise Busy from None
        finally:
            self._waiting.release()

    def _remember(self, name: str, error: BaseException) -> None:
        if isinstance(error, NotConvertible):
            with self._lock:
                if len(self._refused) >= _MOST_REFUSED:
                    del self._refused[next(iter(self._refused))]
                self._refused[name] = str(error)

    def _make(self, name: str, make: Callable[[Path, Path], None]) -> None:
        if not self._slots.acquire(blocking=False):
            self._wait(lambda: self._slots.acquire(timeout=self._wait_s))
        try:
            if (self._folder / name).exists():  # made since it was looked for
                return
            with tempfile.TemporaryDirectory(prefix="making-", dir=self._folder) as scratch:
                target = Path(scratch) / name
                make(Path(scratch), target)
                target.chmod(0o600)
                target.replace(self._folder / name)
        finally:
            self._slots.release()
        self._clean_up(name)
        self._clean_up_later()

    def _prepare(self) -> None:
        """Create the folder, or check that it is nobody else's: the system's folder for such files is everybody's."""
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(mode=0o700, parents=True)
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise OSError(f"{self._folder} is not a private folder of the server's user: remove it, or set TMPDIR")

    def _opened(self, name: str) -> BinaryIO | None:
        """A kept file; None if there is none, or only a part of one, as a machine that lost power may leave."""
        path = self._folder / name
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        stated = int.from_bytes(file.read(_HEADER_BYTES)[4:8], "little") + 8
        if stated != os.fstat(file.fileno()).st_size or stated < _HEADER_BYTES:
            file.close()
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
        return file

    def _clean_up_later(self) -> None:
        """Clean up now and then, as long as there is something: nobody may listen again."""
        with self._lock:
            if self._cleaning is not None and self._cleaning.is_alive():
                return
            self._cleaning = threading.Timer(UNUSED_S / 4, self._clean_up_again)
            self._cleaning.daemon = True
            self._cleaning.start()

    def _clean_up_again(self) -> None:
        self._clean_up()
        if any(self._folder.iterdir()):
            self._cleaning = None
            self._clean_up_later()

    def _clean_up(self, newest: str | None = None) -> None:
        """Remove what nobody has used for an hour; of too much, also what was not used for the longest time."""
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process removes them too
                details = path.stat()
                found.append((details.st_mtime, details.st_size, path))
        oldest = time.time() - UNUSED_S
        left = 0
        for used_at, size, path in sorted(found, key=lambda one: (one[2].name == newest, one[0]), reverse=True):
            if path.is_dir():
                if used_at < oldest:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            left += size
            if (left > self._most_bytes or used_at < oldest) and path.name != newest:
                path.unlink(missing_ok=True)


@functools.cache
def machine_cache() -> WavCache:
    """The cache of this user on this machine, below the system's folder for temporary files."""
    return WavCache(Path(tempfile.gettempdir()) / f"callphases-audio-{os.getuid()}")
