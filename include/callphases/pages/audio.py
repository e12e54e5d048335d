"""The audio of a call for a browser: by a redirect to the bucket, or in pieces through the server.

What browsers don't play is converted on the way, and comes through the server whatever the setting says.

Who may listen is decided before, in ``app``, which turns what these functions return into a response.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import urlsplit

from callphases.errors import AccessDenied, Archived, CallphasesError, RecordingGone
from callphases.limits.audio_files.stretches import HEAD_BYTES
from callphases.pages import conversion
from callphases.pages.audio_formats import Format, format_of
from callphases.pages.byte_ranges import NotSatisfiable, Span, asked_span
from callphases.pages.conversion import NotConvertible
from callphases.pages.wav_cache import Busy, WavCache, machine_cache
from callphases.state.bucket import Opening, RecordingBucket

URL_LIFE_S = 300
"""Of a presigned URL: long enough to begin, too short to be passed on."""
PIECE_BYTES = 256 << 10
"""What of a recording is in memory at a time, and one GET request of a stream: players that are paused hold some."""
_OURS = {
    "Cache-Control": "private, no-store",
    "Content-Disposition": "inline",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer. A redirect that a browser kept would lead to a URL that is no longer valid."""


@dataclass(frozen=True)
class Asked:
    """What a request asks for: the values of its headers Range and If-Range, and whether it is a HEAD."""

    range: str | None = None
    if_range: str | None = None
    is_head: bool = False


@dataclass(frozen=True)
class Redirect:
    """A redirect (302) to a URL, which belongs into no log.

    ``is_other_version``: the recording was replaced after the table's row was written, and the row is about another.
    """

    url: str = field(repr=False)
    is_other_version: bool
    status: int = 302
    headers: dict[str, str] = field(default_factory=lambda: dict(_OURS))


class Body:
    """The bytes of an answer in pieces.

    ``close`` frees what they come from. The end does so too, and so does an error: whatever ``read`` raises, which
    comes too late to be told to the browser.
    """

    def __init__(self, span: Span, read: Callable[[int, int], bytes], close: Callable[[], None] = lambda: None) -> None:
        self._place, self._end, self._read, self._close = span.start, span.end, read, close
        if not span.length:
            self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._place >= self._end:
            raise StopIteration
        try:
            piece = self._read(self._place, min(self._place + PIECE_BYTES, self._end))
        except BaseException:
            self.close()
            raise
        self._place += len(piece)
        if self._place >= self._end or not piece:
            self.close()
        return piece

    def close(self) -> None:
        """Free what the bytes come from; nothing comes after it."""
        self._place = self._end
        self._close()


@dataclass(frozen=True)
class Stream:
    """An answer with bytes: 200, 206 or 416. ``is_other_version``: as in ``Redirect``."""

    status: int
    headers: dict[str, str]
    body: Body
    is_other_version: bool


@dataclass(frozen=True)
class Unavailable:
    """Why there is nothing to listen to, in a sentence or two for whoever wants to, and the status of the answer."""

    status: int
    message: str
    headers: dict[str, str] = field(default_factory=lambda: dict(_OURS))


_OFF = Unavailable(404, "Recordings can't be played here: the pipeline file has pages.audio: off.")
_EMPTY = Unavailable(415, "The recording is empty: the object in the bucket has no bytes.")


def audio_of(
    bucket: RecordingBucket,
    key: str,
    etag: str,
    how: Literal["redirect", "stream", "off"],
    asked: Asked,
    *,
    cache: WavCache | None = None,
) -> Redirect | Stream | Unavailable:
    """The audio of a recording. Takes a request to S3 or a few, and a conversion the first time if it needs one.

    Args:
        bucket: that has the recording.
        key: of the recording.
        etag: the recording's in its row of the table ``calls``, without quotes.
        how: the setting ``pages.audio``.
        asked: what the browser asks for.
        cache: where converted recordings are kept; by default this machine's.
    """
    if how == "off":
        return _OFF
    try:
        opening = bucket.opening(key, HEAD_BYTES)
        if not opening.size:
            return _EMPTY
        recording = _Recording(bucket, key, opening)
        form = format_of(recording, key)
        is_other = opening.etag != etag
        if form.plays_as is None:
            return _converted(recording, form, asked, machine_cache() if cache is None else cache, is_other)
        # The URL is for GET: S3 refuses a HEAD of it.
        if how == "redirect" and not asked.is_head:
            return Redirect(bucket.presigned_url(key, URL_LIFE_S, content_type=form.plays_as), is_other)
    except (CallphasesError, OSError) as error:
        return _unavailable(error)
    return _streamed(
        asked, form.plays_as, f'"{opening.etag}"', opening.size, lambda span: Body(span, recording.part), is_other
    )


def state_of(
    bucket: RecordingBucket, key: str, etag: str, how: Literal["redirect", "stream", "off"]
) -> Unavailable | bool:
    """Why a recording can't be heard, else whether the bucket has another version of it, with one request for a byte.

    What only its format tells is left to ``audio_of``. The arguments are as there.
    """
    if how == "off":
        return _OFF
    try:
        opening = bucket.opening(key, 1)
    except (CallphasesError, OSError) as error:
        return _unavailable(error)
    return opening.etag != etag if opening.size else _EMPTY


def origin_of(bucket: RecordingBucket) -> str:
    """Where redirects lead to, such as ``https://recordings.s3.eu-central-1.amazonaws.com``, for the policy of pages.

    Raises:
        ConfigurationError, ServiceUnavailable: no URL can be signed, since the AWS connection has no credentials.
    """
    parts = urlsplit(bucket.presigned_url("any", URL_LIFE_S))
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True)
class _Recording:
    """A recording as ``audio_files.File``, whose head is known."""

    bucket: RecordingBucket
    key: str
    opening: Opening

    @property
    def size(self) -> int:
        return self.opening.size

    def read(self, start: int, length: int) -> bytes:
        end = min(start + length, self.size)
        if start >= end:
            return b""
        if end <= len(self.opening.head):
            return self.opening.head[start:end]
        return self.part(start, end)

    def part(self, start: int, end: int) -> bytes:
        return self.bucket.part(self.key, self.opening.etag, start, end)


def _converted(
    recording: _Recording, form: Format, asked: Asked, cache: WavCache, is_other: bool
) -> Stream | Unavailable:
    if not conversion.is_possible():
        return Unavailable(
            501,
            "Browsers don't play this recording's format. To convert it, install the extra audio where Airflow's API "
            "server runs: pip install 'callphases[audio]'.",
        )
    if recording.size > conversion.MOST_SOURCE_BYTES:
        return Unavailable(
            413,
            f"Browsers don't play this recording's format, and with {recording.size >> 20} MiB it is too large to be "
            f"converted: the most is {conversion.MOST_SOURCE_BYTES >> 20} MiB.",
        )

    def make(scratch: Path, target: Path) -> None:
        source = scratch / "recording"
        with source.open("wb") as file:
            for start in range(0, recording.size, PIECE_BYTES):
                file.write(recording.part(start, min(start + PIECE_BYTES, recording.size)))
        conversion.convert(source, target, form.demuxer, form.options)

    try:
        file = cache.open(f"s3://{recording.bucket.name}/{recording.key}", recording.opening.etag, make)
    except NotConvertible as problem:
        return Unavailable(415, f"Browsers don't play this recording's format, and it can't be converted. {problem}")
    except Busy:
        return Unavailable(
            503,
            "Other recordings are being converted for the browser: try again in a moment.",
            {**_OURS, "Retry-After": "10"},
        )
    except OSError as error:  # such as a full disk
        reason = error.strerror or str(error)
        return Unavailable(
            503,
            f"The server can't keep the converted recording ({reason}): check the folder for temporary files (TMPDIR) "
            "of Airflow's API server.",
        )
    etag = f'"{recording.opening.etag}-wav"'
    return _streamed(
        asked, "audio/wav", etag, os.fstat(file.fileno()).st_size, lambda span: _file_body(span, file), is_other
    )


def _file_body(span: Span, file: BinaryIO) -> Body:
    return Body(span, lambda start, end: os.pread(file.fileno(), end - start, start), file.close)


def _streamed(
    asked: Asked, media_type: str, etag: str, size: int, body_of: Callable[[Span], Body], is_other: bool
) -> Stream:
    headers = {**_OURS, "Accept-Ranges": "bytes", "Content-Type": media_type, "ETag": etag}
    try:
        span = asked_span(asked.range, asked.if_range, etag, size)
    except NotSatisfiable:
        headers |= {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
        return Stream(416, headers, body_of(Span(0, 0)), is_other)
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    status, span = (200, Span(0, size)) if span is None else (206, span)
    headers["Content-Length"] = str(span.length)
    return Stream(status, headers, body_of(Span(0, 0) if asked.is_head else span), is_other)


def _unavailable(error: Exception) -> Unavailable:
    match error:
        case RecordingGone():
            return Unavailable(
                404,
                "The recording is no longer in the bucket: it was deleted, perhaps by a lifecycle rule, after the day "
                "was processed.",
            )
        case Archived():
            return Unavailable(
                409, "The recording is in an archive of S3. It plays once it is restored (s3:RestoreObject)."
            )
        case AccessDenied():
            return Unavailable(502, f"The AWS connection of the pipeline may not read the recording. {error}")
    return Unavailable(502 if isinstance(error, CallphasesError) else 503, f"The recording can't be read. {error}")
