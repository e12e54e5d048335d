"""How long a recording is, before it is paid for: from its header where that is cheap to read, else from its size."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from tinytag import TinyTag, TinyTagException

from callphases.recordings import Recording

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

PIECE_BYTES, MOST_PIECES = 1 << 16, 8
"""A header is read with range requests of this size; one or two, but for formats that tell their length nowhere."""
BYTES_A_SECOND = {".wav": 16_000.0, ".flac": 8_000.0}
"""Of telephone audio, in the formats that don't compress speech by much."""
LEAST_BYTES_A_SECOND = 500.0
"""A header that tells of less was written before the length was known, as in a stream."""
SMALLEST_BYTES_A_SECOND = 2_000.0
"""16 kbit/s, at which speech is still understood: what has no header to read is taken to be long rather than short."""


def audio_s(s3: S3Client, recording: Recording) -> float:
    """The length of a recording, in seconds."""
    if recording.size == 0:
        return 0.0
    raw = _Ranges(s3, recording)
    try:
        duration = TinyTag.get(file_obj=io.BufferedReader(raw, PIECE_BYTES), tags=False).duration
    except (TinyTagException, ClientError, BotoCoreError, OSError, ValueError) as error:
        log.debug("%s: its header says nothing (%s)", recording.key, type(error).__name__)
        duration = None
    if duration and recording.size / duration >= LEAST_BYTES_A_SECOND:
        return float(duration)
    suffix = recording.key[recording.key.rfind(".") :].lower()
    return recording.size / BYTES_A_SECOND.get(suffix, SMALLEST_BYTES_A_SECOND)


class _Ranges(io.RawIOBase):
    """An object of S3 as a file: each read is a range request."""

    def __init__(self, s3: S3Client, recording: Recording) -> None:
        self._s3 = s3
        self._recording = recording
        self._at = 0
        self._pieces = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._recording.size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._recording.size)
        if end <= self._at:
            return 0
        self._pieces += 1
        if self._pieces > MOST_PIECES:
            raise OSError("too many requests for one length")
        body = self._s3.get_object(
            Bucket=self._recording.bucket, Key=self._recording.key, Range=f"bytes={self._at}-{end - 1}"
        )["Body"].read()
        buffer[: len(body)] = body
        self._at += len(body)
        return len(body)
