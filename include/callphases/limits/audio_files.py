"""How many seconds of audio a file holds, found from its structure, of which only some stretches are read.

What a header states is compared with what the file shows: where its audio ends, the time that its last packets have, the
frames in some places of it. So files that were cut, continued, or written without knowing their length are measured
too. A file is recognized by its content, never by its name.

The formats are those of recorders and of FFmpeg's common containers, by their public specifications: RIFF and its
registered encodings, ISO 11172-3 and 13818-3 (MP3), 13818-7 (ADTS), RFC 3533 (Ogg), RFC 7845 (Opus), RFC 9639 (FLAC),
ISO 14496-12 (MP4), RFC 8794 and 9559 (Matroska), RFC 4867 (AMR), AIFF and Sun's AU.
"""

from __future__ import annotations

import itertools
import random
import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

HEAD_BYTES = 1 << 16
"""What is read of the start of a file, and of its end where that tells more."""
LONG_TAIL_BYTES = 1 << 18
"""What is read of the end of a file whose fragments or clusters are large."""
WINDOWS = 16
"""Stretches of ``HEAD_BYTES`` of a file without a header, whose frames tell its bytes per second."""
WHOLE_BYTES = 1 << 22
"""A file without a header and with a rate that varies is read as a whole up to this size."""
LEAST_COVERED = 0.2
"""Frames that make up less of what was read are chance."""
CHAIN = 3
"""Frames in a row that no other bytes are taken for."""
TOLERANCE = 0.01
"""Share of a file by which its size may differ from what its header states."""


class File(Protocol):
    """A file that is read in stretches."""

    @property
    def size(self) -> int:
        """In bytes."""

    def read(self, start: int, length: int) -> bytes:
        """The bytes from ``start`` on, fewer at the end of the file."""


@dataclass(frozen=True)
class Audio:
    """What a file holds.

    Attributes:
        seconds: of audio; 0 where there is a header but no audio, or none that can be decoded.
        channels: of the audio.
        most_seconds: if all bytes behind the header were audio; 0 where the format does not tell.
    """

    seconds: float
    channels: int = 1
    most_seconds: float = 0.0


def audio_in(file: File) -> Audio | None:
    """What a file holds; None if it is not of a known format.

    Raises:
        OSError: a stretch can't be read.
    """
    head = file.read(0, HEAD_BYTES)
    for begins, measure in _KINDS:
        if begins.match(head):
            try:
                return measure(file, head)
            except (struct.error, IndexError, ZeroDivisionError, OverflowError):
                return None
    return _framed(file, head)


# WAV


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


def _wav(file: File, head: bytes) -> Audio | None:
    place, form, samples = 12, None, 0
    for _ in range(_MOST_CHUNKS):
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
        found = _framed(_Part(file, start, length), file.read(start, HEAD_BYTES))
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


@dataclass(frozen=True)
class _Part:
    """A part of a file as a file."""

    file: File
    start: int
    size: int

    def read(self, start: int, length: int) -> bytes:
        """See ``File``."""
        return self.file.read(self.start + start, min(length, max(self.size - start, 0)))


# AIFF, AU


def _aiff(file: File, head: bytes) -> Audio | None:
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


def _au(file: File, head: bytes) -> Audio | None:
    start, stated, encoding, rate, channels = struct.unpack_from(">5I", head, 4)
    if encoding not in _AU_BITS or not rate or not channels:
        return None
    there = max(file.size - start, 0)
    length = there if stated in (0, 0xFFFFFFFF) else min(stated, there)
    return Audio(length / (rate * channels * _AU_BITS[encoding] / 8), channels)


# CAF, W64


def _caf(file: File, _: bytes) -> Audio | None:
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


def _w64(file: File, _: bytes) -> Audio | None:
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


# MP3 and AAC without a container


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


def _framed(file: File, head: bytes) -> Audio | None:
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
        per_byte = _seconds_per_byte(file, begin, end, _window_of_frames)
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


def _seconds_per_byte(file: File, begin: int, end: int, window: Callable[[bytes], tuple[float, int]]) -> float:
    """The mean over places all over a file; ``window`` gives the seconds and the bytes of what was read.

    A file whose first, middle and last stretch have the same rate is taken to have it throughout.
    """
    chance = random.Random(end)  # noqa: S311 - the same file is measured alike each time
    count = max(min(WINDOWS, (end - begin) // HEAD_BYTES), 1)
    width = (end - begin) / count
    # At random within equal parts: what recurs in a call has no influence.
    places = [begin + round(width * number + chance.random() * max(width - HEAD_BYTES, 0)) for number in range(count)]
    rates: list[float] = []
    order = list(dict.fromkeys([0, count // 2, count - 1, *range(count)]))
    for number in order:
        seconds, length = window(file.read(places[number], min(HEAD_BYTES, end - places[number])))
        if length:
            rates.append(seconds / length)
        if number != order[:3][-1]:
            continue
        if len(rates) == 3 and max(rates) - min(rates) <= 0.002 * max(rates):
            break
        if end - begin <= WHOLE_BYTES:
            seconds, length = window(file.read(begin, end - begin))
            return seconds / length if length else 0.0
    return sum(rates) / len(rates) if rates else 0.0


# AMR

_AMR_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
_AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)


def _amr(file: File, head: bytes) -> Audio | None:
    sizes, place = (_AMR_WB_BYTES, 9) if head.startswith(b"#!AMR-WB\n") else (_AMR_BYTES, 6)
    begin, count = place, 0
    while place < len(head):
        place += sizes[head[place] >> 3 & 15]
        count += 1
    return Audio(count * 0.02 * (file.size - begin) / max(place - begin, 1))


# Ogg


class _Page(NamedTuple):
    place: int
    serial: int
    position: int
    number: int
    begins: bool
    body: bytes


_NO_POSITION = 0xFFFF_FFFF_FFFF_FFFF
MOST_PAGES_OFF = 1.4
"""A file that is larger, by this factor, than its number of pages says is several files."""


def _pages(data: bytes) -> Iterator[_Page]:
    """The pages that begin in ``data``; the last may be cut."""
    place = 0
    while (place := data.find(b"OggS\0", place)) != -1 and place + 27 <= len(data):
        kind, position, serial, number, _, count = struct.unpack_from("<BQIIIB", data, place + 5)
        lacing = data[place + 27 : place + 27 + count]
        body = place + 27 + count
        size = sum(lacing)
        if len(lacing) < count or body + size > len(data):
            position = _NO_POSITION  # its audio is not there
        yield _Page(place, serial, position, number, bool(kind & 2), data[body : body + size])
        place = (
            body + size if len(lacing) == count and data[body + size : body + size + 4] in (b"OggS", b"") else place + 5
        )


def _ogg_rate(body: bytes) -> tuple[int, int, int] | None:
    """Samples per second, samples to skip, and channels, by the first page of a stream of sound."""
    if body.startswith(b"OpusHead"):
        return 48_000, struct.unpack_from("<H", body, 10)[0], body[9]
    if body.startswith(b"\x01vorbis"):
        channels, rate = struct.unpack_from("<BI", body, 11)
        return rate, 0, channels
    if body.startswith(b"Speex   "):
        rate, _, _, channels = struct.unpack_from("<IIII", body, 36)
        return rate, 0, channels
    if body.startswith(b"\x7fFLAC"):
        packed = int.from_bytes(body[27:35], "big")
        return packed >> 44, 0, (packed >> 41 & 7) + 1
    return None


def _ogg(file: File, head: bytes) -> Audio | None:
    begun = list(itertools.takewhile(lambda page: page.begins, _pages(head)))
    sound = next(((page.serial, rate) for page in begun if (rate := _ogg_rate(page.body)) is not None), None)
    if sound is None:
        return Audio(0.0) if begun else None
    serial, (rate, skipped, channels) = sound
    if not rate:
        return None
    tail = file.read(max(file.size - HEAD_BYTES - 1024, 0), HEAD_BYTES + 1024)
    pages = [page for page in _pages(tail) if page.position != _NO_POSITION]
    known = {page.serial for page in begun}
    last = next((page for page in reversed(pages) if page.serial == serial), None)
    is_one = all(page.serial in known for page in pages)
    if is_one and last is not None and file.size > HEAD_BYTES:
        # Recorders may give all their files the same serial number.
        per_page = max(_bytes_per_page(head), _bytes_per_page(tail))
        is_one = file.size <= MOST_PAGES_OFF * per_page * (last.number + 2) * len(begun)
    if not is_one or last is None:  # files one after the other

        def window(data: bytes) -> tuple[float, int]:
            seconds, size = 0.0, 0
            for one, other in itertools.pairwise(page for page in _pages(data) if page.position != _NO_POSITION):
                if one.serial == other.serial and 0 <= other.position - one.position < 60 * rate:
                    seconds += (other.position - one.position) / rate
                    size += other.place - one.place
            return seconds, size

        return Audio(file.size * _seconds_per_byte(file, 0, file.size, window), channels)
    return Audio(max(last.position - skipped - _ogg_start(head, serial, rate), 0) / rate, channels)


def _bytes_per_page(data: bytes) -> float:
    places = [page.place for page in _pages(data)]
    return (places[-1] - places[0]) / (len(places) - 1) if len(places) > 1 else float(len(data))


def _ogg_start(head: bytes, serial: int, rate: int) -> int:
    """The position that a stream begins at: more than a minute where it was cut out of a longer one."""
    first = next((page.position for page in _pages(head) if page.serial == serial and page.position), 0)
    return first if rate * 60 < first != _NO_POSITION else 0


# FLAC

_FLAC_HZ = (0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)


def _flac(file: File, head: bytes) -> Audio | None:
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


# MP4


class _Box(NamedTuple):
    name: bytes
    start: int
    """Of its content."""
    end: int


def _boxes(file: File, place: int, end: int, most: int = 200) -> Iterator[_Box]:
    for _ in range(most):
        head = file.read(place, 16)
        if place + 8 > end or len(head) < 8:
            return
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        start = place + 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), place + 16
        elif size == 0:
            size = end - place
        if size < start - place:
            return
        yield _Box(name, start, place + size)
        place += size


def _child(file: File, box: _Box, *names: bytes) -> _Box | None:
    found: _Box | None = box
    for name in names:
        found = next((one for one in _boxes(file, found.start, found.end) if one.name == name), None)
        if found is None:
            return None
    return found


MOST_SAMPLES = 1_000_000
"""Of a track whose table of sizes is read: 6 hours of AAC."""


class _Mp4Track(NamedTuple):
    number: int
    timescale: int
    duration: int
    channels: int
    sizes: _Box | None


def _mp4(file: File, head: bytes) -> Audio | None:
    moov, media, is_cut = None, 0, 0
    for box in _boxes(file, 0, file.size):
        if box.name == b"moov":
            moov = box
        elif box.name == b"mdat":
            media, is_cut = max(media, box.end - box.start), max(is_cut, box.end - file.size)
        if moov is not None and (media or box.name == b"moof"):
            break
    if moov is None or moov.end > file.size:
        return Audio(0.0)  # nothing can be decoded without it
    tracks = [
        track
        for box in _boxes(file, moov.start, moov.end)
        if box.name == b"trak" and (track := _mp4_track(file, box)) is not None
    ]
    if not tracks:
        return Audio(0.0)
    track = max(tracks, key=lambda one: one.duration / one.timescale)
    seconds = track.duration / track.timescale
    if _child(file, moov, b"mvex") is not None:
        seconds = max(_fragments_end_s(file, track, moov), seconds if not media else 0.0) or seconds
    elif is_cut > 0:
        seconds *= _share_left(file, track.sizes, media - is_cut, media)
    following = _next_mp4(file, moov)
    if following is not None:
        rest = audio_in(_Part(file, following, file.size - following))
        seconds += rest.seconds if rest is not None else 0.0
    return Audio(seconds, track.channels)


def _next_mp4(file: File, moov: _Box) -> int | None:
    """Where another file begins behind this one."""
    boxes = _boxes(file, moov.end, file.size, most=8)
    return next((box.start - 8 for box in boxes if box.name == b"ftyp"), None)


def _share_left(file: File, sizes: _Box | None, left: int, whole: int) -> float:
    """The share of a track's samples that are in the first ``left`` of ``whole`` bytes of all tracks."""
    if sizes is not None:
        each, count = struct.unpack(">II", file.read(sizes.start + 4, 8))
        table = b"" if each or count > MOST_SAMPLES else file.read(sizes.start + 12, 4 * count)
        if table and len(table) == 4 * count:
            ends = list(itertools.accumulate(size for (size,) in struct.iter_unpack(">I", table)))
            return bisect_right(ends, left * ends[-1] / whole) / count
    return max(left / whole, 0.0)


def _mp4_track(file: File, trak: _Box) -> _Mp4Track | None:
    media = _child(file, trak, b"mdia")
    header = _child(file, trak, b"tkhd")
    if media is None or header is None:
        return None
    handler, times = _child(file, media, b"hdlr"), _child(file, media, b"mdhd")
    if handler is None or times is None or file.read(handler.start + 8, 4) != b"soun":
        return None
    number = int.from_bytes(file.read(header.start + (20 if file.read(header.start, 1) == b"\1" else 12), 4), "big")
    body = file.read(times.start, 32)
    timescale, duration = struct.unpack_from(">IQ", body, 20) if body[0] == 1 else struct.unpack_from(">II", body, 12)
    if not timescale:
        return None
    if duration in (0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF):
        duration = 0
    table = _child(file, media, b"minf", b"stbl")
    entries = None if table is None else _child(file, table, b"stsd")
    channels = 1 if entries is None else int.from_bytes(file.read(entries.start + 32, 2), "big") or 1
    counted = None if table is None else _child(file, table, b"stts")
    if counted is not None and (by_samples := _time_of_samples(file.read(counted.start, 4096))):
        duration = by_samples
    sizes = None if table is None else _child(file, table, b"stsz")
    return _Mp4Track(number, timescale, duration, channels, sizes)


def _time_of_samples(body: bytes) -> int:
    """What the table of the samples' durations adds up to; 0 if it is longer than ``body``."""
    (count,) = struct.unpack_from(">I", body, 4)
    if 8 + 8 * count > len(body):
        return 0
    return sum(number * each for number, each in struct.iter_unpack(">II", body[8 : 8 + 8 * count]))


def _fragments_end_s(file: File, track: _Mp4Track, moov: _Box) -> float:
    """When the last fragment ends; the time of each fragment counts from the start of the first."""
    default = 0
    extends = _child(file, moov, b"mvex")
    for box in _boxes(file, extends.start, extends.end) if extends is not None else ():
        number, _, duration = struct.unpack(">III", file.read(box.start + 4, 12))
        default = duration if box.name == b"trex" and number == track.number else default
    for size in (HEAD_BYTES, LONG_TAIL_BYTES):
        begin = max(file.size - size, 0)
        tail = file.read(begin, size)
        place = len(tail)
        while (place := tail.rfind(b"moof", 0, place)) != -1:
            fragment = _Box(
                b"moof", begin + place + 4, begin + place - 4 + int.from_bytes(tail[place - 4 : place], "big")
            )
            if place >= 4 and fragment.end <= file.size and (end := _fragment_end(file, fragment, track, default)):
                return end / track.timescale
    # Fragments that are larger than that: those at the start tell how much of the file a second takes.
    end = 0
    last = 0
    for box in _boxes(file, moov.end, file.size, most=12):
        if box.name == b"moof":
            end, last = _fragment_end(file, box, track, default) or end, box.end
        elif box.name == b"mdat":
            last = min(box.end, file.size)
    return end / track.timescale * (file.size - moov.end) / max(last - moov.end, 1)


def _fragment_end(file: File, moof: _Box, track: _Mp4Track, default: int) -> int:
    for traf in _boxes(file, moof.start, moof.end):
        header = _child(file, traf, b"tfhd") if traf.name == b"traf" else None
        if header is None:
            continue
        body = file.read(header.start, 32)
        flags, number = struct.unpack_from(">II", body)
        if number != track.number:
            continue
        each = default
        if flags & 8:
            place = 8 + 8 * bool(flags & 1) + 4 * bool(flags & 2)
            (each,) = struct.unpack_from(">I", body, place)
        base = _child(file, traf, b"tfdt")
        if base is None:
            return 0
        body = file.read(base.start, 12)
        (time,) = struct.unpack_from(">Q" if body[0] == 1 else ">I", body, 4)
        runs = (box for box in _boxes(file, traf.start, traf.end) if box.name == b"trun")
        lasts = sum(_run_duration(file, box, each) for box in runs)
        media = next(_boxes(file, moof.end, file.size), None)
        if media is not None and media.end > file.size:
            lasts = lasts * (file.size - media.start) // (media.end - media.start)
        return int(time) + lasts
    return 0


def _run_duration(file: File, run: _Box, each: int) -> int:
    flags, count = struct.unpack(">II", file.read(run.start, 8))
    if not flags & 0x100:
        return int(count * each)
    width = 4 * sum(bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
    place = 8 + 4 * bool(flags & 1) + 4 * bool(flags & 4)
    body = file.read(run.start + place, count * width)
    return sum(int.from_bytes(body[at : at + 4], "big") for at in range(0, len(body), width))


# Matroska and WebM

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


def _matroska(file: File, head: bytes) -> Audio | None:
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
        rest = audio_in(_Part(file, segment.end, file.size - segment.end))
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


_KINDS: tuple[tuple[re.Pattern[bytes], Callable[[File, bytes], Audio | None]], ...] = tuple(
    (re.compile(begins, re.DOTALL), measure)
    for begins, measure in (
        (rb"(?:RIFF|RF64).{4}WAVE", _wav),
        (rb"FORM.{4}AIF[FC]", _aiff),
        (rb"\.snd", _au),
        (rb"caff", _caf),
        (rb"riff\x2e\x91\xcf\x11", _w64),
        (rb"#!AMR(?:-WB)?\n", _amr),
        (rb"OggS", _ogg),
        (rb"fLaC", _flac),
        (rb".{4}(?:ftyp|moov|mdat|free|skip|wide|moof)", _mp4),
        (rb"\x1a\x45\xdf\xa3", _matroska),
    )
)
