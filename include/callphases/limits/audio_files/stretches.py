"""A file of audio that is read in stretches, and what is found out about it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

HEAD_BYTES = 1 << 16
"""What is read of the start of a file, and of its end where that tells more."""
LONG_TAIL_BYTES = 1 << 18
"""What is read of the end of a file whose fragments or clusters are large."""
WINDOWS = 16
"""Stretches of ``HEAD_BYTES`` of a file without a header, whose frames tell its bytes per second."""
WHOLE_BYTES = 1 << 22
"""A file without a header and with a rate that varies is read as a whole up to this size."""
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


@dataclass(frozen=True)
class Part:
    """A part of a file as a file."""

    file: File
    start: int
    size: int

    def read(self, start: int, length: int) -> bytes:
        """See ``File``."""
        return self.file.read(self.start + start, min(length, max(self.size - start, 0)))


def seconds_per_byte(file: File, begin: int, end: int, window: Callable[[bytes], tuple[float, int]]) -> float:
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
