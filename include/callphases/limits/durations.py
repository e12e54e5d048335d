"""Estimates how long a recording is before it is paid for: from what its file shows, or else from its size."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field
from typing import Any

from tinytag import TinyTag, TinyTagException

from callphases.limits.audio_files import audio_in
from callphases.limits.audio_files.stretches import HEAD_BYTES, Audio
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket

log = logging.getLogger(__name__)

PIECE_BYTES = HEAD_BYTES
LEAST_BYTES = 1 << 13
"""The least that a range request asks for."""
MOST_REQUESTS = 32
"""The number of range requests that a recording may take; most formats take one or two."""
BYTES_PER_SECOND = {".wav": 16_000.0, ".flac": 8_000.0}
"""Of telephone audio, in the formats that hardly compress speech."""
FALLBACK_BYTES_PER_SECOND = 2_000.0
"""16 kbit/s, the lowest intelligible bit rate: the length of a recording without a header is rather over- than
underestimated."""
DENSEST_BYTES_PER_SECOND = 1_000.0
"""8 kbit/s, the lowest bit rate of MP3: no header is needed to say that a file is not longer than this allows."""
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
"""What files of Windows Media begin with; tinytag reads them."""


@dataclass(frozen=True)
class Length:
    """How long a recording is thought to be, and how long its size allows it to be, in seconds."""

    expected_s: float
    most_s: float


def audio_length(bucket: RecordingBucket, recording: Recording) -> Length:
    """The length of a recording, by its size if its file does not tell; it takes some range requests."""
    size = recording.size
    if size == 0:
        return Length(0.0, 0.0)
    try:
        found = audio_of(bucket, recording)
    except OSError as error:
        log.debug("%s: it can't be read (%s)", recording.key, type(error).__name__)
        found = None
    if found is None or not found.seconds:
        return length_by_size(recording)
    return Length(found.seconds, max(found.seconds, found.most_seconds or size / DENSEST_BYTES_PER_SECOND))


def length_by_size(recording: Recording) -> Length:
    """The length of a recording without a look at its file."""
    suffix = recording.key[recording.key.rfind(".") :].lower()
    rate = BYTES_PER_SECOND.get(suffix, FALLBACK_BYTES_PER_SECOND)
    return Length(recording.size / rate, recording.size / DENSEST_BYTES_PER_SECOND)


def audio_of(bucket: RecordingBucket, recording: Recording) -> Audio | None:
    """What a recording holds; None if its file is not one of audio. It takes some range requests.

    Raises:
        OSError: S3 does not return its bytes, or it takes too many requests.
    """
    stretches = _Stretches(bucket, recording)
    if stretches.read(0, len(_ASF)) != _ASF:
        return audio_in(stretches)
    try:
        tag = TinyTag.get(file_obj=io.BufferedReader(_Readable(stretches), LEAST_BYTES), tags=False)
    except (TinyTagException, ValueError):
        return None
    return Audio(tag.duration, tag.channels or 1) if tag.duration else None


@dataclass
class _Stretches:
    """A recording as ``audio_files.File``; keeps what it has read."""

    bucket: RecordingBucket
    recording: Recording
    _read: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.recording.size

    def read(self, start: int, length: int) -> bytes:
        """The bytes from ``start`` on, by a range request unless they are known."""
        end = min(start + length, self.size)
        if start >= end:
            return b""
        length = max(length, HEAD_BYTES) if start == 0 else length
        for place, body in self._read:
            if place <= start and end <= place + len(body):
                return body[start - place : end - place]
        if len(self._read) == MOST_REQUESTS:
            raise OSError("finding its length takes too many requests")
        body = self.bucket.byte_range(self.recording.key, start, min(start + max(length, LEAST_BYTES), self.size))
        self._read.append((start, body))
        return body[: end - start]


class _Readable(io.RawIOBase):
    """Stretches as a file object."""

    def __init__(self, stretches: _Stretches) -> None:
        self._stretches, self._position = stretches, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stretches.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        body = self._stretches.read(self._position, len(buffer))
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)
