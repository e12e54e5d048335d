"""Tags of an audio file, read from its head with a few range requests."""

from __future__ import annotations

import io
import re
import struct
from typing import BinaryIO

from tinytag import TinyTag, TinyTagException

from callphases.state.bucket import RangeReader, RecordingBucket

PIECE_BYTES, MOST_PIECES = 1 << 16, 16
"""The size and the number of range requests that tags may take; most files take one or two, with pictures more."""
DATE, BEXT = "date", "bext"
_NAMES = {DATE: "year"}
"""Our names of tags where TinyTag has another: its year is whatever the file says, also a time."""
_BEXT_DATE, _BEXT_TIME = slice(320, 330), slice(330, 338)
"""Where OriginationDate and OriginationTime are in a bext chunk: EBU Tech 3285, section 2.3."""


def audio_tag(bucket: RecordingBucket, key: str, size: int, name: str) -> str | None:
    """The value of a tag; None if the file has none.

    Args:
        bucket: that has the file.
        key: the file's.
        size: the file's, in bytes.
        name: ``DATE``, ``BEXT``, or as TinyTag calls it; case does not matter.

    Raises:
        OSError: the file can't be read, or is no audio file.
    """
    file = io.BufferedReader(RangeReader(bucket, key, size, MOST_PIECES), PIECE_BYTES)
    name = name.lower()
    try:
        if name == BEXT:
            return _origination(file)
        tags = TinyTag.get(file_obj=file, duration=False).as_dict()
    except (TinyTagException, ValueError, struct.error) as error:
        raise OSError(f"its tags can't be read ({type(error).__name__})") from None
    ours = _NAMES.get(name, name)
    found = tags.get(ours, tags.get(f"_{ours}"))  # a user-defined tag of ID3 that has a standard one's name
    if isinstance(found, list):
        found = found[0] if found else None
    return None if found in (None, "") else str(found)


def _origination(file: BinaryIO) -> str | None:
    """Date and time of a WAV file's bext chunk, as in ISO 8601; EBU Tech 3285 allows other signs between digits."""
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        return None
    while len(chunk := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        if name == b"bext":
            content = file.read(_BEXT_TIME.stop)
            digits = re.findall(rb"\d+", content[_BEXT_DATE] + b" " + content[_BEXT_TIME])
            if [len(one) for one in digits] != [4, 2, 2, 2, 2, 2]:
                return None
            year, month, day, hour, minute, second = (one.decode() for one in digits)
            return f"{year}-{month}-{day}T{hour}:{minute}:{second}"
        file.seek(size + size % 2, io.SEEK_CUR)
    return None
