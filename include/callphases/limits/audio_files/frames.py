"""MP3, AAC and AMR without a container: frames, one after the other."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from callphases.limits.audio_files.stretches import HEAD_BYTES, TOLERANCE, Audio, File, seconds_per_byte

LEAST_COVERED = 0.2
"""Frames that make up less of what was read are chance."""
CHAIN = 3
"""Frames in a row that no other bytes are taken for."""


class _Frame(NamedTuple):
    size: int
    samples: int
    rate: int
    channels: int
    kind: tuple[int, ...]
    """What frames of one stream have in common."""


_MP3_KBIT = {
    (3, 3): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""By version (3: MPEG 1, 2: MPEG 2 and 2.5) and layer as its bits (3: I, 2: II, 1: III)."""
_MP3_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_AAC_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


def _frame(data: bytes, place: int) -> _Frame | None:
    """The frame of MP3 or of AAC (ADTS) that begins at ``place``."""
    if place + 7 > len(data) or data[place] != 0xFF or data[place + 1] & 0xE0 != 0xE0:
        return None
    one, two, three = data[place + 1 : place + 4]
    version, layer = one >> 3 & 3, one >> 1 & 3
    if layer == 0:
        code = two >> 2 & 15
        size = (three & 3) << 11 | data[place + 4] << 3 | data[place + 5] >> 5
        if one & 0xF0 != 0xF0 or code >= len(_AAC_HZ) or size < 8:
            return None
        channels = (two & 1) << 2 | three >> 6
        return _Frame(size, 1024 * ((data[place + 6] & 3) + 1), _AAC_HZ[code], channels or 1, (0, code))
    rate_code, bit_code = two >> 2 & 3, two >> 4
    if version == 1 or rate_code == 3 or bit_code in (0, 15):
        return None
    kbit = _MP3_KBIT[3 if version == 3 else 2, layer][bit_code]
    rate = _MP3_HZ[version][rate_code]
    padding = two >> 1 & 1
    if layer == 3:
        return _Frame((12_000 * kbit // rate + padding) * 4, 384, rate, 1 + (three >> 6 != 3), (version, layer))
    samples = 576 if layer == 1 and version != 3 else 1152
    size = samples // 8 * 1000 * kbit // rate + padding
    return _Frame(size, samples, rate, 1 + (three >> 6 != 3), (version, layer))


def _chain(data: bytes, place: int = 0, *, is_all: bool = False) -> int | None:
    """Where frames begin that follow each other; with ``is_all``, ``data`` may end after fewer of them."""
    while (place := data.find(b"\xff", place)) != -1:
        at, count, kind = place, 0, None
        while count < CHAIN and (frame := _frame(data, at)) is not None and kind in (None, frame.kind):
            at, count, kind = at + frame.size, count + 1, frame.kind
        if count == CHAIN or (is_all and count and abs(at - len(data)) <= 4):
            return place
        place += 1
    return None


def _frames(data: bytes, *, is_all: bool = False) -> Iterator[_Frame]:
    """The frames in ``data`` that are whole, past what is none."""
    place = _chain(data, is_all=is_all)
    while place is not None:
        while (frame := _frame(data, place)) is not None and place + frame.size <= len(data):
            yield frame
            place += frame.size
        if frame is not None:
            return
        place = _chain(data, place + 1)


def framed(file: File, head: bytes) -> Audio | None:
    """Measure a file of MP3 or AAC; None if it has no frames."""
    start = _tag_end(file, head)
    data = head[start:] if start < HEAD_BYTES // 2 else file.read(start, HEAD_BYTES)
    first = _chain(data, is_all=file.size - start <= len(data))
    if first is None:
        return None
    frame = _frame(data, first)
    assert frame is not None
    begin, end = start + first, file.size
    counted = _counted_frames(data[first : first + frame.size])
    trimmed = counted.trimmed / frame.rate if counted is not None else 0.0
    if counted is not None and counted.frames and _agrees(counted, end - begin, frame):
        return Audio(max(counted.frames * frame.samples / frame.rate - trimmed, 0.0), frame.channels)
    if end - begin > HEAD_BYTES:
        per_byte = seconds_per_byte(file, begin, end, _window_of_frames)
        return Audio((end - begin) * per_byte, frame.channels) if per_byte else None
    found = list(_frames(file.read(begin, end - begin), is_all=True))
    if sum(one.size for one in found) < LEAST_COVERED * (end - begin):
        return None
    seconds = sum(one.samples / one.rate for one in found[counted is not None :])
    return Audio(max(seconds - trimmed, 0.0), frame.channels)


def _tag_end(file: File, head: bytes) -> int:
    """Where ID3 tags at the start of a file end."""
    place = 0
    while (tag := head[place : place + 10] if place + 10 <= len(head) else file.read(place, 10))[:3] == b"ID3":
        if len(tag) < 10:
            break
        size = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
        place += 10 + size + (10 if tag[5] & 0x10 else 0)
    return place


class _Counted(NamedTuple):
    frames: int
    size: int
    trimmed: int
    """Samples at both ends that decoders leave out."""


def _counted_frames(frame: bytes) -> _Counted | None:
    """What the first frame of an MP3 says of the number of the others, and of their bytes."""
    if (place := frame.find(b"VBRI", 0, 64)) != -1:
        size, frames = struct.unpack_from(">II", frame, place + 10)
        return _Counted(frames, size, 0)
    place = max(frame.find(b"Xing", 0, 64), frame.find(b"Info", 0, 64))
    if place == -1 or len(frame) < place + 16:
        return None
    (flags,) = struct.unpack_from(">I", frame, place + 4)
    values = iter(struct.unpack_from(">II", frame, place + 8))
    frames = next(values) if flags & 1 else 0
    size = next(values) if flags & 2 else 0
    encoder = place + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2
    trimmed = 0
    if frame[encoder : encoder + 4] in (b"LAME", b"Lavf", b"Lavc") and len(frame) >= encoder + 24:
        one, two, three = frame[encoder + 21 : encoder + 24]
        trimmed = (one << 4 | two >> 4) + ((two & 15) << 8 | three)
    return _Counted(frames, size, trimmed)


def _agrees(counted: _Counted, length: int, frame: _Frame) -> bool:
    """Whether the number of frames can be that of a file of ``length`` bytes."""
    if counted.size:
        return abs(counted.size - length) <= max(TOLERANCE * length, 4096)
    return 1_000 <= length / (counted.frames * frame.samples / frame.rate) <= 40_000


def _window_of_frames(data: bytes) -> tuple[float, int]:
    seconds, size = 0.0, 0
    for frame in _frames(data):
        seconds, size = seconds + frame.samples / frame.rate, size + frame.size
    return (seconds, size) if size >= LEAST_COVERED * len(data) else (0.0, 0)


_AMR_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
_AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)


def amr(file: File, head: bytes) -> Audio | None:
    """Measure an AMR file, by its first frames."""
    sizes, place = (_AMR_WB_BYTES, 9) if head.startswith(b"#!AMR-WB\n") else (_AMR_BYTES, 6)
    begin, count = place, 0
    while place < len(head):
        place += sizes[head[place] >> 3 & 15]
        count += 1
    return Audio(count * 0.02 * (file.size - begin) / max(place - begin, 1))
