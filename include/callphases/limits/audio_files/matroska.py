"""Matroska and WebM: elements, of which clusters hold blocks with their times."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from callphases.limits.audio_files.stretches import HEAD_BYTES, LONG_TAIL_BYTES, TOLERANCE, Audio, File, Part

_EBML, _SEGMENT, _INFO, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
_TIMECODE_SCALE, _DURATION, _TIME, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0x2AD7B1, 0x4489, 0xE7, 0xA3, 0xA0, 0xA1
_TRACK_ENTRY, _TRACK_NUMBER, _TRACK_TYPE, _TRACK_AUDIO, _CHANNELS = 0xAE, 0xD7, 0x83, 0xE1, 0x9F
_AUDIO_TRACK = 2


class _Element(NamedTuple):
    number: int
    start: int
    end: int
    is_endless: bool


def _elements(data: bytes, place: int, end: int) -> Iterator[_Element]:
    while place < end:
        width = 9 - data[place].bit_length() if data[place] else 9
        if width > 4 or place + width >= end:
            return
        number = int.from_bytes(data[place : place + width], "big")
        place += width
        width = 9 - data[place].bit_length() if data[place] else 9
        if width > 8 or place + width > end:
            return
        size = int.from_bytes(data[place : place + width], "big") & (1 << 7 * width) - 1
        place += width
        is_endless = size == (1 << 7 * width) - 1
        yield _Element(number, place, end if is_endless else place + size, is_endless)
        if is_endless:
            return
        place += size


def _inside(data: bytes, element: _Element) -> Iterator[_Element]:
    return _elements(data, element.start, min(element.end, len(data)))


def _uint(data: bytes, element: _Element) -> int:
    return int.from_bytes(data[element.start : element.end], "big")


def matroska(file: File, head: bytes) -> Audio | None:
    """Measure a Matroska or WebM file."""
    segment = next((one for one in _elements(head, 0, len(head)) if one.number == _SEGMENT), None)
    if segment is None:
        return None
    scale, stated, sound, channels = 1_000_000, 0.0, 0, 1
    for element in _inside(head, segment):
        if element.number == _INFO:
            for one in _inside(head, element):
                if one.number == _TIMECODE_SCALE:
                    scale = _uint(head, one)
                elif one.number == _DURATION:
                    body = head[one.start : one.end]
                    (stated,) = struct.unpack(">f" if len(body) == 4 else ">d", body)
        elif element.number == _TRACKS:
            for one in _inside(head, element):
                values = {part.number: part for part in _inside(head, one)}
                if _TRACK_TYPE in values and _uint(head, values[_TRACK_TYPE]) == _AUDIO_TRACK and not sound:
                    sound = _uint(head, values[_TRACK_NUMBER])
                    if _TRACK_AUDIO in values:
                        of_audio = {part.number: part for part in _inside(head, values[_TRACK_AUDIO])}
                        channels = _uint(head, of_audio[_CHANNELS]) if _CHANNELS in of_audio else 1
    if not sound:
        return Audio(0.0)
    seconds = stated * scale / 1e9
    if not segment.is_endless and file.read(segment.end, 4) == _EBML.to_bytes(4, "big"):
        part = Part(file, segment.end, file.size - segment.end)
        rest = matroska(part, part.read(0, HEAD_BYTES))
        return Audio(seconds + (rest.seconds if rest is not None else 0.0), channels)
    last_s = _last_block_s(file, sound, scale)
    if last_s is not None and abs(last_s - seconds) > max(1.0, TOLERANCE * seconds):
        return Audio(last_s, channels)
    return Audio(seconds, channels)


def _last_block_s(file: File, track: int, scale: int) -> float | None:
    """When the last block of a track begins, by the last clusters of the file."""
    mark = _CLUSTER.to_bytes(4, "big")
    for size in (HEAD_BYTES, LONG_TAIL_BYTES, 4 * LONG_TAIL_BYTES):
        begin = max(file.size - size, 0)
        tail = file.read(begin, size)
        places = [found.start() for found in re.finditer(re.escape(mark), tail)]
        for place in reversed(places):
            cluster = next(_elements(tail, place, len(tail)), None)
            times = [] if cluster is None else list(_block_times(tail, cluster, track))
            if times:
                return max(times) * scale / 1e9
        if begin == 0:
            break
    return None


def _block_times(data: bytes, cluster: _Element, track: int) -> Iterator[int]:
    time = None
    for element in _inside(data, cluster):
        if element.number == _TIME:
            time = _uint(data, element)
        blocks = [element] if element.number == _SIMPLE_BLOCK else []
        if element.number == _BLOCK_GROUP:
            blocks = [one for one in _inside(data, element) if one.number == _BLOCK]
        for block in blocks:
            if time is not None and block.start + 3 <= len(data) and data[block.start] & 0x7F == track:
                yield time + struct.unpack_from(">h", data, block.start + 1)[0]
