"""A figure that was measured, and the target that it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """What a figure should be at most, or at least."""

    sense: Literal["≤", "≥"]
    value: float

    def met_by(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value <= self.value if self.sense == "≤" else value >= self.value

    def __str__(self) -> str:
        return f"{self.sense} {number(self.value)}"


@dataclass(frozen=True)
class Figure:
    """One line of the table. ``value`` is None where it could not be measured; ``note`` says what to know about it."""

    name: str
    value: float | None
    unit: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or nothing where there is no target or no value."""
        if self.target is None or self.value is None:
            return ""
        return "met" if self.target.met_by(self.value) else "missed"


def at_most(value: float) -> Target:
    """A target from above."""
    return Target("≤", value)


def at_least(value: float) -> Target:
    """A target from below."""
    return Target("≥", value)


def number(value: float | None) -> str:
    """A value with as many digits as say something."""
    if value is None:
        return "–"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
