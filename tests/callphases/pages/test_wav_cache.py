"""Converted recordings on disk: made once, bounded, private, whole."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from callphases.pages import wav_cache as module
from callphases.pages.conversion import NotConvertible
from callphases.pages.wav_cache import Busy, WavCache

Make = Callable[[Path, Path], None]


def sound(size: int = 1000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as one:
        one.setnchannels(1)
        one.setsampwidth(2)
        one.setframerate(8000)
        one.writeframes(bytes(size))
    return file.getvalue()


def makes(calls: list[Path], size: int = 1000) -> Make:
    def make(scratch: Path, target: Path) -> None:
        calls.append(scratch)
        (scratch / "source").write_bytes(b"x")
        target.write_bytes(sound(size))

    return make


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(cache: WavCache, uri: str, make: Make, etag: str = "e1") -> bytes:
    with cache.open(uri, etag, make) as file:
        file.seek(0)
        return file.read()


def test_recording_is_made_once_for_each_version(tmp_path: Path) -> None:
    calls: list[Path] = []
    cache = WavCache(tmp_path / "kept")
    for etag in ("e1", "e1", "e2", "e1"):
        assert read(cache, "s3://b/Ann Smith.wav", makes(calls), etag) == sound()
    assert len(calls) == 2
    assert not any(path.exists() for path in calls)
    assert read(WavCache(tmp_path / "kept"), "s3://b/Ann Smith.wav", makes(calls)) == sound()
    assert len(calls) == 2, "another process finds it"


def test_files_are_private_and_their_names_say_nothing(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        read(WavCache(tmp_path / "kept"), "s3://b/Ann Smith.wav", makes([]))
    finally:
        os.umask(old)
    (path,) = (tmp_path / "kept").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len(path.stem) == 64
    assert set(path.stem) <= set("0123456789abcdef")


def test_listeners_at_the_same_time_share_one_conversion(tmp_path: Path) -> None:
    cache, calls, go = WavCache(tmp_path / "kept"), [], threading.Event()

    def make(scratch: Path, target: Path) -> None:
        assert go.wait(10)
        makes(calls)(scratch, target)

    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(read, cache, "s3://b/a.wav", make) for _ in range(6)]
        go.set()
        assert {answer.result() for answer in answers} == {sound()}
    assert len(calls) == 1


def test_third_conversion_waits_for_one_of_two_and_is_told_so(tmp_path: Path) -> None:
    cache, go, begun = WavCache(tmp_path / "kept", wait_s=0.05), threading.Event(), threading.Barrier(3)

    def make(scratch: Path, target: Path) -> None:
        begun.wait(10)
        assert go.wait(10)
        target.write_bytes(sound())

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(read, cache, uri, make) for uri in ("s3://b/1", "s3://b/2")]
        begun.wait(10)
        with pytest.raises(Busy):
            read(cache, "s3://b/3", makes([]))
        with pytest.raises(Busy):
            read(cache, "s3://b/1", makes([]))
        go.set()
        assert [other.result() for other in others] == [sound(), sound()]
    assert read(cache, "s3://b/3", makes([])) == sound()


def test_only_so_many_requests_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.pages.wav_cache.MOST_WAITING", 0)
    cache, go, begun = WavCache(tmp_path / "kept", at_once=1), threading.Event(), threading.Event()

    def make(scratch: Path, target: Path) -> None:
        begun.set()
        assert go.wait(10)
        target.write_bytes(sound())

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(read, cache, "s3://b/1", make)
        assert begun.wait(10)
        with pytest.raises(Busy):
            read(cache, "s3://b/2", makes([]))
        go.set()
        other.result()


def test_recording_not_listened_to_for_longest_goes_first(tmp_path: Path) -> None:
    cache, calls = WavCache(tmp_path / "kept", most_bytes=2 * len(sound()) + 10), []
    for number, uri in enumerate(["s3://b/1", "s3://b/2"]):
        read(cache, uri, makes(calls))
        for path in (tmp_path / "kept").iterdir():
            os.utime(path, (time.time() - 100 + number,) * 2)
    read(cache, "s3://b/1", makes(calls))
    read(cache, "s3://b/3", makes(calls))
    assert len(names(tmp_path / "kept")) == 2
    read(cache, "s3://b/1", makes(calls))
    assert len(calls) == 3, "it was used, so it stays"
    read(cache, "s3://b/2", makes(calls))
    assert len(calls) == 4


def test_recording_that_nobody_listens_to_any_more_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNUSED_S", 0.2)
    read(WavCache(tmp_path / "kept"), "s3://b/1", makes([]))
    assert len(names(tmp_path / "kept")) == 1
    give_up = time.monotonic() + 20
    while names(tmp_path / "kept"):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_recording_larger_than_the_cache_is_served_and_stays_until_the_next(tmp_path: Path) -> None:
    cache = WavCache(tmp_path / "kept", most_bytes=10)
    assert read(cache, "s3://b/1", makes([], 5000)) == sound(5000)
    assert len(names(tmp_path / "kept")) == 1
    read(cache, "s3://b/2", makes([]))
    assert len(names(tmp_path / "kept")) == 1


def test_open_file_can_be_read_after_it_was_removed(tmp_path: Path) -> None:
    cache = WavCache(tmp_path / "kept", most_bytes=10)
    with cache.open("s3://b/1", "e1", makes([])) as file:
        read(cache, "s3://b/2", makes([]))
        file.seek(0)
        assert file.read() == sound()


@pytest.mark.parametrize("left", [b"", sound()[:30], sound()[:-1], sound() + b"x"])
def test_part_of_a_file_is_made_again(tmp_path: Path, left: bytes) -> None:
    cache, calls = WavCache(tmp_path / "kept"), []
    read(cache, "s3://b/1", makes(calls))
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(left)
    assert read(cache, "s3://b/1", makes(calls)) == sound()
    assert len(calls) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from callphases.pages.wav_cache import WavCache

def make(scratch, target):
    target.write_bytes(b"RIFF" + bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)

WavCache(Path(sys.argv[1])).open("s3://b/1", "e1", make)
"""


def test_killed_process_leaves_nothing_that_is_served(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == -signal.SIGKILL
    assert len(names(folder)) == 1, "the folder of the conversion"
    assert read(WavCache(folder), "s3://b/1", makes([])) == sound()


def test_what_a_killed_process_left_is_neither_served_nor_kept(tmp_path: Path) -> None:
    cache = WavCache(tmp_path / "kept")
    read(cache, "s3://b/1", makes([]))
    (name,) = names(tmp_path / "kept")
    for folder, age in (("making-old", 0), ("making-new", None)):
        (tmp_path / "kept" / folder).mkdir()
        (tmp_path / "kept" / folder / name).write_bytes(sound()[:200])
        if age is not None:
            os.utime(tmp_path / "kept" / folder, (age, age))
    read(cache, "s3://b/2", makes([]))
    assert [one for one in names(tmp_path / "kept") if one.startswith("making")] == ["making-new"]
    assert read(cache, "s3://b/1", makes([])) == sound()


def test_failure_leaves_nothing_and_the_next_request_tries_again(tmp_path: Path) -> None:
    cache = WavCache(tmp_path / "kept")

    def fails(scratch: Path, target: Path) -> None:
        target.write_bytes(sound()[:100])
        raise OSError("no space")

    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            read(cache, "s3://b/1", fails)
    assert names(tmp_path / "kept") == []
    assert read(cache, "s3://b/1", makes([])) == sound()


def test_recording_that_cannot_be_converted_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.pages.wav_cache._MOST_REFUSED", 1)
    cache, tries = WavCache(tmp_path / "kept"), []

    def refuses(scratch: Path, target: Path) -> None:
        tries.append(target)
        raise NotConvertible("It is no audio.")

    for uri in ("s3://b/1", "s3://b/1", "s3://b/2", "s3://b/1"):
        with pytest.raises(NotConvertible, match="no audio"):
            read(cache, uri, refuses)
    assert len(tries) == 3, "of those refused, the last ones are remembered"


def test_folder_of_others_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_bytes(b"")
    for name in ("open", "link", "file"):
        with pytest.raises(OSError, match="TMPDIR"):
            WavCache(tmp_path / name).open("s3://b/1", "e1", makes([]))
