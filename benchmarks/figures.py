"""Measured figures and their targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """A maximum or minimum for a figure."""

    sense: Literal["≤", "≥"]
    value: float

    def met_by(self, value: float) -> bool:
        """Whether a value meets the target."""
        return value <= self.value if self.sense == "≤" else value >= self.value

    def __str__(self) -> str:
        return f"{self.sense} {number(self.value)}"


@dataclass(frozen=True)
class Figure:
    """One line of the table; ``value`` is None if it could not be measured."""

    name: str
    value: float | None
    unit: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or empty without a target or a value."""
        if self.target is None or self.value is None:
            return ""
        return "met" if self.target.met_by(self.value) else "missed"


def at_most(value: float) -> Target:
    """Create a target with a maximum."""
    return Target("≤", value)


def at_least(value: float) -> Target:
    """Create a target with a minimum."""
    return Target("≥", value)


def number(value: float | None) -> str:
    """Format a value with three significant digits, or all digits of its integer part."""
    if value is None:
        return "–"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
