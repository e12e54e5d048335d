"""Provides audio files: downloads over HTTP(S) without changes to the URL, and uploads to this server."""

import asyncio
import contextlib
import functools
import http.client
import re
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from speechbox.engines import JobError

MAX_BYTES = 5 * 1000**3
MAX_REDIRECTS = 5
TIMEOUT_S = 30.0
PARALLEL_DOWNLOADS = 16
_CHUNK_BYTES = 1 << 20
_UPLOAD_PATH = re.compile(r"/upload/([0-9a-f]{32})")
#: Characters that a request line must not contain; all others are sent unchanged.
_ILLEGAL_IN_REQUEST_LINE = re.compile(r"[^\x21-\x7e]")


class _DownloadError(Exception):
    pass


class AudioSource:
    """Provides audio files as local paths.

    `requests` and `httpx` normalize URLs, which breaks the signatures of presigned ones (keys with `//`, quotes or
    `%2B`); the standard library's client sends paths unchanged.
    """

    def __init__(self, data_dir: Path, max_bytes: int = MAX_BYTES) -> None:
        self.uploads = data_dir / "uploads"
        self._downloads = data_dir / "downloads"
        self._max_bytes = max_bytes
        for folder in (self.uploads, self._downloads):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in [*self._downloads.iterdir(), *self.uploads.glob("*.part")]:
            leftover.unlink()
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(PARALLEL_DOWNLOADS, thread_name_prefix="download")

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Path]:
        """Provide the file behind the URL inside the context; raises `JobError` if there is none."""
        uploaded = self.uploaded(url)
        if uploaded is not None:
            yield uploaded
            return
        with tempfile.NamedTemporaryFile(dir=self._downloads) as file:
            await self._download(url, file.write)
            file.flush()
            yield Path(file.name)

    async def check(self, url: str) -> None:
        """Download the file behind the URL and discard it; raises `JobError` if there is none."""
        if self.uploaded(url) is None:
            await self._download(url, len)

    def uploaded(self, url: str) -> Path | None:
        """Return the file that POST /v2/upload stored under this URL, if it still exists."""
        match = _UPLOAD_PATH.fullmatch(urlsplit(url).path)
        path = self.uploads / match[1] if match else None
        return path if path and path.is_file() else None

    def close(self) -> None:
        """Abort all downloads."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _download(self, url: str, take: Callable[[bytes], object]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._follow, url, take)
        except (_DownloadError, OSError, http.client.HTTPException, ValueError) as error:
            raise JobError(
                f"Download error, unable to download {without_query(url)}. "
                "Please make sure the file exists and is accessible from the internet."
            ) from error

    def _follow(self, url: str, take: Callable[[bytes], object]) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            connection, target = connect(url)
            with contextlib.closing(connection):
                connection.request("GET", target, headers={"User-Agent": "speechbox", "Accept": "*/*"})
                response = connection.getresponse()
                if response.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, response.getheader("Location") or "")
                    continue
                if response.status != 200:
                    raise _DownloadError(f"status {response.status}")
                self._read(response, take)
                return
        raise _DownloadError("too many redirects")

    def _read(self, response: http.client.HTTPResponse, take: Callable[[bytes], object]) -> None:
        expected = response.length  # None for a chunked response
        received = 0
        while chunk := response.read(_CHUNK_BYTES):
            received += len(chunk)
            if self._closed.is_set():
                raise _DownloadError("the server is stopping")
            if received > self._max_bytes:
                raise _DownloadError("the file is too large")
            take(chunk)
        # read(n) does not raise an error if the connection is lost.
        if expected is not None and received != expected:
            raise _DownloadError("the connection was lost")


@functools.cache
def _tls() -> ssl.SSLContext:
    """Create a TLS context; cached, because loading the certificates takes longer than most downloads."""
    return ssl.create_default_context()


def without_query(url: str) -> str:
    """Return the URL without its query, which may contain a signature, for messages and logs."""
    return re.split(r"[?#]", url, maxsplit=1)[0]


def connect(url: str, timeout_s: float = TIMEOUT_S) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection for the URL, and the request target exactly as in the URL.

    Only characters that HTTP does not allow in a request line (spaces, control and non-ASCII characters) are
    percent-encoded.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("only http and https URLs with a host can be fetched")
    # urlsplit() drops tabs, newlines and an empty query, so take the target from the URL itself.
    target = re.sub(r"^[a-z]+://[^/?#]*", "", url.strip(), count=1, flags=re.IGNORECASE).split("#", 1)[0]
    target = _ILLEGAL_IN_REQUEST_LINE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), target)
    if not target.startswith("/"):
        target = "/" + target
    connection = (
        http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=_tls())
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    )
    return connection, target
