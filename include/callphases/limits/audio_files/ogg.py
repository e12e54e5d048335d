"""Ogg: Opus, Vorbis, Speex and FLAC in pages, each of which says where in the stream it ends."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from callphases.limits.audio_files.stretches import HEAD_BYTES, Audio, File, seconds_per_byte


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


def ogg(file: File, head: bytes) -> Audio | None:
    """Measure an Ogg file."""
    begun = list(itertools.takewhile(lambda page: page.begins, _pages(head)))
    streams = ((page.serial, _ogg_rate(page.body)) for page in begun)
    serial, sound = next((one for one in streams if one[1] is not None), (0, None))
    if sound is None:
        return Audio(0.0) if begun else None
    rate, skipped, channels = sound
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

        return Audio(file.size * seconds_per_byte(file, 0, file.size, window), channels)
    return Audio(max(last.position - skipped - _ogg_start(head, serial, rate), 0) / rate, channels)


def _bytes_per_page(data: bytes) -> float:
    places = [page.place for page in _pages(data)]
    return (places[-1] - places[0]) / (len(places) - 1) if len(places) > 1 else float(len(data))


def _ogg_start(head: bytes, serial: int, rate: int) -> int:
    """The position that a stream begins at: more than a minute where it was cut out of a longer one."""
    first = next((page.position for page in _pages(head) if page.serial == serial and page.position), 0)
    return first if rate * 60 < first != _NO_POSITION else 0
