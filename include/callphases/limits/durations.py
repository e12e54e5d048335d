"""Estimates how long a recording is before it is paid for: from its header if that is cheap to read, or its size."""

from __future__ import annotations

import io
import logging
from typing import Any

from tinytag import TinyTag, TinyTagException

from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket

log = logging.getLogger(__name__)

PIECE_BYTES, MOST_PIECES = 1 << 16, 8
"""The size and the number of range requests that a header may take; most formats take one or two."""
BYTES_PER_SECOND = {".wav": 16_000.0, ".flac": 8_000.0}
"""Of telephone audio, in the formats that hardly compress speech."""
LEAST_BYTES_PER_SECOND = 500.0
"""A header that implies less was written before the length was known, as in a stream."""
FALLBACK_BYTES_PER_SECOND = 2_000.0
"""16 kbit/s, the lowest intelligible bit rate: the length of a recording without a header is rather over- than
underestimated."""


def audio_s(bucket: RecordingBucket, recording: Recording) -> float:
    """The length of a recording, in seconds."""
    if recording.size == 0:
        return 0.0
    file = _RangeReader(bucket, recording)
    try:
        duration = TinyTag.get(file_obj=io.BufferedReader(file, PIECE_BYTES), tags=False).duration
    except (TinyTagException, OSError, ValueError) as error:
        log.debug("%s: its header can't be read (%s)", recording.key, type(error).__name__)
        duration = None
    if duration and recording.size / duration >= LEAST_BYTES_PER_SECOND:
        return float(duration)
    suffix = recording.key[recording.key.rfind(".") :].lower()
    return recording.size / BYTES_PER_SECOND.get(suffix, FALLBACK_BYTES_PER_SECOND)


class _RangeReader(io.RawIOBase):
    """A recording as a file object: each read is a range request."""

    def __init__(self, bucket: RecordingBucket, recording: Recording) -> None:
        self._bucket = bucket
        self._recording = recording
        self._position = 0
        self._pieces = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._recording.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._recording.size)
        if end <= self._position:
            return 0
        self._pieces += 1
        if self._pieces > MOST_PIECES:
            raise OSError("reading the header takes too many requests")
        body = self._bucket.byte_range(self._recording.key, self._position, end)
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)
