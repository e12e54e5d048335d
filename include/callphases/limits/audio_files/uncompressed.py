"""WAV, Sony Wave64, AIFF, AU and CAF: files whose samples, or blocks of them, have a fixed size."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from callphases.limits.audio_files.frames import framed
from callphases.limits.audio_files.stretches import HEAD_BYTES, TOLERANCE, Audio, File, Part


class _Format(NamedTuple):
    encoding: int
    channels: int
    rate: int
    average: int
    block: int
    bits: int
    block_samples: int


_OF_FIXED_SIZE = frozenset({1, 3, 6, 7, 0xFFFE})
"""Encodings whose samples have a fixed size: PCM, float, A-law, µ-law, extensible."""
_MP3_IN_WAV = 0x55
_UNKNOWN_SIZE = 0x7FFF_0000
"""From here on, sizes of chunks mean that a recorder did not know the length."""
_CHUNK_NAME = re.compile(rb"[A-Za-z0-9_ -]{4}")
_MOST_CHUNKS = 40


def wav(file: File, _: bytes) -> Audio | None:
    """Measure a WAV file."""
    place, form, samples = 12, None, 0
    for _number in range(_MOST_CHUNKS):
        name, size = struct.unpack("<4sI", file.read(place, 8))
        if name == b"fmt ":
            form = _wav_format(file.read(place + 8, min(size, 40)))
        elif name == b"fact" and size >= 4:
            (samples,) = struct.unpack("<I", file.read(place + 8, 4))
        elif name == b"data":
            break
        place += 8 + size + size % 2
    else:
        return None
    if form is None or not form.rate or not form.channels:
        return None
    start = place + 8
    length = _wav_audio_bytes(file, start, size)
    if form.encoding == _MP3_IN_WAV:
        found = framed(Part(file, start, length), file.read(start, HEAD_BYTES))
        if found is not None:
            return found
    seconds = length / _wav_bytes_per_second(form)
    is_whole = length == size
    if form.encoding not in _OF_FIXED_SIZE and is_whole and 0.9 < samples / form.rate / (seconds or 1) < 1.1:
        seconds = samples / form.rate  # the last block is padded
    return Audio(seconds, form.channels, max(file.size - start, 0) / _wav_bytes_per_second(form))


def _wav_format(body: bytes) -> _Format:
    encoding, channels, rate, average, block, bits = struct.unpack_from("<HHIIHH", body)
    block_samples = struct.unpack_from("<H", body, 18)[0] if encoding in (2, 0x11, 0x31) and len(body) >= 20 else 0
    return _Format(encoding, channels, rate, average, block, bits, block_samples)


def _wav_bytes_per_second(form: _Format) -> float:
    if form.encoding in _OF_FIXED_SIZE:
        return form.channels * form.rate * max(form.bits, 8) / 8
    if form.block and form.block_samples:
        return form.block / form.block_samples * form.rate
    return float(form.average)


def _wav_audio_bytes(file: File, start: int, stated: int) -> int:
    """The bytes of audio from ``start`` on, where the header states ``stated``."""
    there = max(file.size - start, 0)
    if not stated or stated >= _UNKNOWN_SIZE or stated >= there:
        return there
    after = there - stated
    if after <= max(stated * TOLERANCE, 8):
        return stated
    for place in (start + stated, start + stated + 1):
        following = file.read(place, 8)
        if len(following) == 8 and _CHUNK_NAME.match(following) and following[:4] != b"RIFF":
            (size,) = struct.unpack("<I", following[4:])
            if size <= file.size - place - 8:
                return stated
    return there


def aiff(file: File, head: bytes) -> Audio | None:
    """Measure an AIFF file."""
    place = 12
    channels, frames, rate, bits = 1, 0, 0.0, 16
    for _ in range(_MOST_CHUNKS):
        read = file.read(place, 8)
        if len(read) < 8:
            break
        name, size = struct.unpack(">4sI", read)
        if name == b"COMM":
            channels, frames, bits, exponent, mantissa = struct.unpack(">hLhHQ", file.read(place + 8, 18))
            rate = mantissa * 2.0 ** (exponent - 16383 - 63)
        elif name == b"SSND":
            there = max(file.size - place - 16, 0)
            whole = frames * channels * bits / 8
            if head[8:12] == b"AIFF" and rate and (not frames or whole > there):
                return Audio(there / (channels * bits / 8 * rate), channels)
            break
        place += 8 + size + size % 2
    return Audio(frames / rate, channels) if rate else None


_AU_BITS = {1: 8, 2: 8, 3: 16, 4: 24, 5: 32, 6: 32, 7: 64, 27: 8}


def au(file: File, head: bytes) -> Audio | None:
    """Measure an AU file."""
    start, stated, encoding, rate, channels = struct.unpack_from(">5I", head, 4)
    if encoding not in _AU_BITS or not rate or not channels:
        return None
    there = max(file.size - start, 0)
    length = there if stated in (0, 0xFFFFFFFF) else min(stated, there)
    return Audio(length / (rate * channels * _AU_BITS[encoding] / 8), channels)


def caf(file: File, _: bytes) -> Audio | None:
    """Measure a CAF file."""
    place, rate, packet_bytes, packet_frames, channels, frames = 8, 0.0, 0, 0, 1, 0
    for _number in range(_MOST_CHUNKS):
        read = file.read(place, 12)
        if len(read) < 12:
            break
        name, size = struct.unpack(">4sq", read)
        if name == b"desc":
            rate, _kind, _flags, packet_bytes, packet_frames, channels = struct.unpack(
                ">d4sIIII", file.read(place + 12, 28)
            )
        elif name == b"pakt":
            _packets, frames = struct.unpack(">qq", file.read(place + 12, 16))
        elif name == b"data" and packet_bytes and packet_frames and rate:
            there = max(file.size - place - 16, 0)
            length = there if size < 0 else min(size - 4, there)
            return Audio(length / packet_bytes * packet_frames / rate, channels)
        if size < 0:
            break
        place += 12 + size
    return Audio(frames / rate, channels) if rate else None


def w64(file: File, _: bytes) -> Audio | None:
    """Measure a Wave64 file."""
    place, form = 40, None
    for _number in range(_MOST_CHUNKS):
        read = file.read(place, 24)
        name, size = read[:4], int.from_bytes(read[16:24], "little")
        if size < 24:
            break
        if name == b"fmt ":
            form = _wav_format(file.read(place + 24, 40))
        elif name == b"data" and form is not None:
            return Audio(min(size - 24, max(file.size - place - 24, 0)) / _wav_bytes_per_second(form), form.channels)
        place += size + -size % 8
    return None
