"""How phases look on a page: their letters, colors and patterns, and their place on the time axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from callphases.inspection.strips import COLORS, phase_letters
from callphases.pipeline import OTHER

PATTERNS = 4
"""Patterns in ``parts.html``, the first of which is none: so many times seven phases differ by color and pattern."""
LETTER_FROM = 3.0
"""The share of the axis, in percent, that a letter needs: with less, it would be wider than its phase at 400 px."""
_STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800]
_MOST_STEPS = 6


class Phase(Protocol):
    """What a strip is drawn of."""

    @property
    def name(self) -> str:
        """From the pipeline's list, or ``Other``."""

    @property
    def start_s(self) -> float:
        """From the start of the call."""

    @property
    def end_s(self) -> float:
        """From the start of the call."""


@dataclass(frozen=True)
class Mark:
    """How a phase is shown: a letter, and ``classes`` of ``pages.css`` for its color; ``pattern`` is 0 for none."""

    letter: str
    classes: str
    pattern: int


@dataclass(frozen=True)
class Segment:
    """A phase in a strip; ``x``, ``width`` and ``middle`` are percent of the strip's width."""

    index: int
    phase: Phase
    mark: Mark
    x: float
    width: float

    @property
    def middle(self) -> float:
        """Where the letter is."""
        return self.x + self.width / 2

    @property
    def lettered(self) -> bool:
        """Whether the letter fits."""
        return self.width >= LETTER_FROM


def phase_marks(names: Iterable[str]) -> dict[str, Mark]:
    """A mark for each name, in order; the same names in the same order have the same marks. ``Other`` is last.

    Colors and letters are those of ``callphases show``.
    """
    found = list(dict.fromkeys(names))
    ordered = [name for name in found if name != OTHER] + [OTHER] * (OTHER in found)
    letters = phase_letters(ordered)
    return {name: _mark(number, name, letters[name]) for number, name in enumerate(ordered)}


def _mark(number: int, name: str, letter: str) -> Mark:
    if name == OTHER:
        return Mark(letter, "other", 0)
    return Mark(letter, f"p{number % len(COLORS)}", number // len(COLORS) % PATTERNS)


def segments(phases: Iterable[Phase], axis_s: float, marks: Mapping[str, Mark]) -> Iterator[Segment]:
    """The phases on an axis of ``axis_s`` seconds."""
    for index, phase in enumerate(phases):
        x, end = (
            min(max(100 * second / axis_s, 0), 100) if axis_s > 0 else 0 for second in (phase.start_s, phase.end_s)
        )
        yield Segment(index, phase, marks[phase.name], x, max(end - x, 0))


def ticks(axis_s: float) -> list[float]:
    """The seconds to write below an axis, from 0: at most seven, at round steps."""
    step = next((one for one in _STEPS_S if axis_s <= one * _MOST_STEPS), max(axis_s / _MOST_STEPS, 1))
    return [number * step for number in range(int(axis_s // step) + 1)]
