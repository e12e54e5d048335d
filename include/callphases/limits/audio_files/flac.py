"""FLAC: frames that say which they are."""

from __future__ import annotations

import itertools
import re
import struct

from callphases.limits.audio_files.stretches import HEAD_BYTES, Audio, File

_FLAC_HZ = (0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)


def flac(file: File, head: bytes) -> Audio | None:
    """Measure a FLAC file."""
    start = head.find(b"fLaC")
    smallest, largest = struct.unpack_from(">HH", head, start + 8)
    packed = int.from_bytes(head[start + 18 : start + 26], "big")
    rate, channels, total = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    if not rate:
        return None
    tail = file.read(max(file.size - HEAD_BYTES, 0), HEAD_BYTES)
    ends = [
        end
        for place in (found.start() for found in re.finditer(rb"\xff[\xf8\xf9]", tail))
        if (end := _flac_frame_end(tail[place : place + 16], rate, largest, smallest == largest)) is not None
    ]
    if not ends:
        return Audio(total / rate, channels)
    if total and any(abs(end - total) <= largest for end in ends[-3:]):
        return Audio(total / rate, channels)
    # Two frames in a row say the same; one alone may be chance.
    steps = [other for one, other in itertools.pairwise(ends) if 0 < other - one <= largest]
    return Audio((steps[-1] if steps else total or ends[-1]) / rate, channels)


def _flac_frame_end(head: bytes, rate: int, largest: int, is_fixed: bool) -> int | None:
    """The samples of the stream up to the end of a frame, by its header."""
    if len(head) < 16:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    if size_code == 0 or rate_code == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    if 0 < rate_code < len(_FLAC_HZ) and _FLAC_HZ[rate_code] != rate:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()
    if ones == 1 or ones > 7:
        return None
    number, place = (head[4] & 0x7F >> ones) if ones else head[4], 5
    for byte in head[5 : 5 + max(ones - 1, 0)]:
        if byte >> 6 != 2:
            return None
        number, place = number << 6 | byte & 0x3F, place + 1
    if size_code == 6:
        samples, place = head[place] + 1, place + 1
    elif size_code == 7:
        samples, place = int.from_bytes(head[place : place + 2], "big") + 1, place + 2
    else:
        samples = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    place += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if _crc8(head[:place]) != head[place] or samples > largest:
        return None
    return (number if head[1] & 1 else number * (largest if is_fixed else samples)) + samples


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ 0x107 if crc & 0x80 else crc << 1
    return crc
