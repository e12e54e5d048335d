"""Estimates how long a recording is before it is paid for: from its header if that is plausible, or its size."""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass

from tinytag import TinyTag, TinyTagException

from callphases.recordings import Recording
from callphases.state.bucket import RangeReader, RecordingBucket

log = logging.getLogger(__name__)

PIECE_BYTES, MOST_PIECES = 1 << 16, 8
"""The size and the number of range requests that a header may take; most formats take one or two."""
BYTES_PER_SECOND = {".wav": 16_000.0, ".flac": 8_000.0}
"""Of telephone audio, in the formats that hardly compress speech."""
FALLBACK_BYTES_PER_SECOND = 2_000.0
"""16 kbit/s, the lowest intelligible bit rate: the length of a recording without a header is rather over- than
underestimated."""
LEAST_BYTES_PER_SECOND = 500.0
"""A header that implies less was written before the length was known, as in a stream."""
MOST_BYTES_PER_SECOND = 64_000.0
"""512 kbit/s, more than any speech codec and MP3, AAC or Opus in use. A header that implies more states too little, as
one that was written for the first part of a file does."""
MOST_BYTES_PER_SECOND_OF_VIDEO = 1_250_000.0
"""10 Mbit/s, for containers that may hold pictures too."""
VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".mkv", ".mov"})
TOLERANCE = 1.15
"""By how much tags and covers may make a file larger than what its length and its bit rate give."""
DENSEST_BYTES_PER_SECOND = 1_000.0
"""8 kbit/s, the lowest bit rate of MP3: no header is needed to say that a file is not longer than this allows."""


_UNCOMPRESSED = frozenset({1, 3, 6, 7, 0xFFFE})
"""Encodings of WAV whose samples have a fixed size: PCM, float, A-law, µ-law, extensible."""


@dataclass(frozen=True)
class Length:
    """How long a recording is thought to be, and how long its size allows it to be, in seconds."""

    expected_s: float
    most_s: float


def audio_length(bucket: RecordingBucket, recording: Recording) -> Length:
    """The length of a recording, from its header where that fits the size; it takes some range requests."""
    size = recording.size
    if size == 0:
        return Length(0.0, 0.0)
    suffix = recording.key[recording.key.rfind(".") :].lower()
    file = RangeReader(bucket, recording.key, recording.size, MOST_PIECES)
    tag = TinyTag()
    try:
        tag = TinyTag.get(file_obj=io.BufferedReader(file, PIECE_BYTES), tags=False)
    except (TinyTagException, OSError, ValueError) as error:
        log.debug("%s: its header can't be read (%s)", recording.key, type(error).__name__)
    rate = BYTES_PER_SECOND.get(".flac" if tag.bitdepth else suffix, FALLBACK_BYTES_PER_SECOND)
    by_size = Length(size / rate, size / DENSEST_BYTES_PER_SECOND)
    stated_s = float(tag.duration or 0.0)
    if (wav_rate := _wav_bytes_per_second(file.head)) is not None:
        # Its samples have a fixed size, so the file's size tells the length better than the header does.
        most_s = size / wav_rate
        return Length(stated_s if most_s <= stated_s * TOLERANCE and stated_s <= most_s else most_s, most_s)
    if stated_s and _is_plausible(size, stated_s, tag, suffix):
        return Length(stated_s, max(stated_s, by_size.most_s))
    return by_size


def _wav_bytes_per_second(head: bytes) -> float | None:
    """What a second takes in a WAV file, by its format chunk; None for any other file, and where that is nonsense."""
    place = head.find(b"fmt ")
    if head[:4] not in (b"RIFF", b"RF64") or not 0 < place <= len(head) - 24:
        return None
    encoding, channels, rate, average, _, bits = struct.unpack_from("<HHIIHH", head, place + 8)
    bytes_per_second = channels * rate * bits / 8 if encoding in _UNCOMPRESSED else float(average)
    return bytes_per_second if bytes_per_second >= LEAST_BYTES_PER_SECOND else None


def _is_plausible(size: int, stated_s: float, tag: TinyTag, suffix: str) -> bool:
    """Whether a file of ``size`` bytes, other than WAV, can be ``stated_s`` seconds long."""
    may_be_video = suffix in VIDEO_SUFFIXES
    samples_per_second = (tag.samplerate or 0) * (tag.channels or 0)
    decoded = samples_per_second * (tag.bitdepth or 16) / 8
    stated = decoded if tag.bitdepth else (tag.bitrate or 0.0) * 125  # kbit/s
    if stated and not may_be_video and size > stated * stated_s * TOLERANCE:
        return False
    most = MOST_BYTES_PER_SECOND_OF_VIDEO
    if not may_be_video:  # compressed audio is not larger than what it is decoded to
        most = decoded if tag.bitdepth else min(decoded or MOST_BYTES_PER_SECOND, MOST_BYTES_PER_SECOND)
    return LEAST_BYTES_PER_SECOND * stated_s <= size <= most * stated_s * TOLERANCE
