"""Prefixes with a date: which are accepted, which days they stand for, and what to list for a day."""

from __future__ import annotations

import datetime as dt
import re
import string
from bisect import bisect_right
from functools import lru_cache

FIRST, LAST = dt.date(1970, 1, 1), dt.date(2069, 12, 31)
"""The days that a prefix with a date has a prefix for: one century, so that ``%y`` is unique."""

# Directives of a date's strftime, without those of a time of day, which a date always has as midnight.
_OF_DATE = frozenset("aAbBCdDeFgGhjmuUVwWxyY%")
_OF_TIME = frozenset("cfHIklMnNpPrRsStTXzZ")
_DIRECTIVE = re.compile(r"%[-_0^#]?(.?)", re.DOTALL)
_LETTERS = [(r"yyyy|YYYY", "%Y"), (r"yy|YY", "%y"), ("MM", "%m"), (r"dd|DD", "%d")]


def check(template: str) -> None:
    """Check that a prefix has no placeholder but ``{date}``, and that each gives a date.

    Raises:
        ValueError: says what is wrong, and what would be right.
    """
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
        template.format(date=FIRST)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        fields = [("", "?", "", None)]
    for _, name, spec, conversion in fields:
        if name != "date" or conversion is not None or "{" in (spec or ""):
            raise ValueError("expected text with {date:…} as its only placeholder, such as support/{date:%Y/%m/%d}/")
        _check_date(spec or "%Y-%m-%d")


def _check_date(spec: str) -> None:
    directives = _DIRECTIVE.findall(spec)
    if not set(directives) - {"%"}:
        for letters, directive in _LETTERS:
            spec = re.sub(letters, directive, spec)
        right = spec if "%" in spec else "%Y/%m/%d"
        raise ValueError(f"a {{date:…}} without a directive is the same for all days; expected {{date:{right}}}")
    for directive in directives:
        if directive in _OF_TIME:
            raise ValueError(
                f"%{directive} is a time of day, which is always midnight in {{date}}; expected only the date, with "
                "all of its hours below it"
            )
        if directive not in _OF_DATE:
            raise ValueError(f"strftime has no %{directive}; expected a date such as {{date:%Y/%m/%d}}")


def has_date(template: str) -> bool:
    """Whether the prefix has a placeholder."""
    return any(name is not None for _, name, _, _ in string.Formatter().parse(template))


def is_daily(template: str) -> bool:
    """Whether each day has a prefix of its own, with which no other day's prefix begins.

    ``in/{date:%Y-%m-%-d}`` is not daily: in/2026-11-1 is the beginning of in/2026-11-19. With a / at its end, it is.
    """
    return len(_separate(template)) == LAST.toordinal() - FIRST.toordinal() + 1


@lru_cache(maxsize=4096)
def around(template: str, day: dt.date, days: int) -> tuple[str, ...]:
    """The prefixes from ``days`` days before a day to as many after it; none for a day out of range.

    A prefix that begins with that of another day is replaced by it, so whatever the day, a key is below only one.
    """
    if not has_date(template):
        return _separate(template)
    if not FIRST <= day <= LAST:
        return ()
    first, last = max(day.toordinal() - days, FIRST.toordinal()), min(day.toordinal() + days, LAST.toordinal())
    prefixes = {template.format(date=dt.date.fromordinal(number)) for number in range(first, last + 1)}
    separate = _separate(template)
    # The last that does not come after a prefix is the prefix itself, or its beginning.
    return tuple(sorted({separate[bisect_right(separate, prefix) - 1] for prefix in prefixes}))


@lru_cache(maxsize=8)
def _separate(template: str) -> tuple[str, ...]:
    """The prefixes of all days, in order, without those that begin with that of another day."""
    days = range(FIRST.toordinal(), LAST.toordinal() + 1)
    found: list[str] = []
    for prefix in sorted({template.format(date=dt.date.fromordinal(number)) for number in days}):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return tuple(found)
