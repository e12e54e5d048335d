"""MP4, M4A, MOV and 3GP: boxes, of which one has the times of all samples, or each fragment has those of its own."""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from callphases.limits.audio_files.stretches import HEAD_BYTES, LONG_TAIL_BYTES, Audio, File, Part


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
    for name in names:
        found = next((one for one in _boxes(file, box.start, box.end) if one.name == name), None)
        if found is None:
            return None
        box = found
    return box


MOST_SAMPLES = 1_000_000
"""Of a track whose table of sizes is read: 6 hours of AAC."""


class _Mp4Track(NamedTuple):
    number: int
    timescale: int
    duration: int
    channels: int
    sizes: _Box | None


def mp4(file: File, _: bytes) -> Audio | None:
    """Measure an MP4 file."""
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
        part = Part(file, following, file.size - following)
        rest = mp4(part, b"")
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
            return float(bisect_right(ends, left * ends[-1] / whole) / count)
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
