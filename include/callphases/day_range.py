"""Ranges of days, and how a long one is cut into those of single runs."""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from callphases.local_days import DAY

By = Literal["day", "week", "month"]
Again = Literal["none", "failed", "completed"]
"""Which published days a run over several runs again: none of those that are done, those with failed calls, or all."""


@dataclass(frozen=True)
class DayRange:
    """The days from ``first`` to ``last``, both included."""

    first: dt.date
    last: dt.date

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"

    def __iter__(self) -> Iterator[dt.date]:
        return (self.first + number * DAY for number in range((self.last - self.first).days + 1))

    def isoformat(self) -> str:
        """As an interval of ISO 8601: ``2026-11-01/2026-11-30``."""
        return f"{self.first}/{self.last}"


Span = dt.date | DayRange
"""What a run works on: a day, or the days of a range."""


def parse_span(text: str) -> Span:
    """The inverse of ``isoformat``.

    Raises:
        ValueError: it is neither a date nor an interval of two.
    """
    first, separator, last = text.partition("/")
    if not separator:
        return dt.date.fromisoformat(text)
    return DayRange(dt.date.fromisoformat(first), dt.date.fromisoformat(last))


def cut(days: DayRange, by: By) -> list[DayRange]:
    """The days, weeks (from Monday) or months of a range; the first and the last may be parts of one."""
    steps: list[DayRange] = []
    first = days.first
    while first <= days.last:
        last = min(_last_day(first, by), days.last)
        steps.append(DayRange(first, last))
        first = last + DAY
    return steps


def _last_day(day: dt.date, by: By) -> dt.date:
    if by == "day":
        return day
    if by == "week":
        return day + (6 - day.weekday()) * DAY
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])
