"""Prefixes with a date: which are accepted, which days they stand for, and what to list for a day.

Besides ``{date:…}``, a prefix may have ``{any}`` for any one folder, and ``{zero}`` for a zero that may precede a
digit. The prefix of a day still has these two; what they stand for in a bucket is found with LIST requests.
"""

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
ANY_FOLDER, ANY_ZERO = "{any}", "{zero}"
_ZERO_OF_ONE_DIGIT = re.compile(r"(?<!\d)\{zero\}(?=\d(?!\d))")


def check(template: str) -> None:
    """Check that a prefix has no placeholder but ``{date}``, and that each gives a date.

    Raises:
        ValueError: says what is wrong, and what would be right.
    """
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
        of_day(template, FIRST)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        fields = [("", "?", "", None)]
    if re.search(r"[^/]\{any\}|\{any\}(?!/)", template):
        raise ValueError(f"expected {ANY_FOLDER} to be a whole folder, such as connect/{ANY_FOLDER}/CallRecordings/")
    for _, name, spec, conversion in fields:
        if f"{{{name}}}" in (ANY_FOLDER, ANY_ZERO) and not spec and conversion is None:
            continue
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
    return any(name == "date" for _, name, _, _ in string.Formatter().parse(template))


def of_day(template: str, day: dt.date) -> str:
    """The prefix of a day; of a template without a date, that of all days."""
    return template.format(date=day, any=ANY_FOLDER, zero=ANY_ZERO)


def is_pattern(prefix: str) -> bool:
    """Whether a day's prefix stands for several, which depend on what is in the bucket."""
    return ANY_FOLDER in prefix or ANY_ZERO in prefix


def spellings(prefix: str) -> list[str]:
    """A day's prefix with and without each zero that may be there, in order."""
    found = [prefix]
    while any(ANY_ZERO in one for one in found):
        # Only a number of one digit has a zero in front of it.
        zeros = [("0", "") if _ZERO_OF_ONE_DIGIT.match(one, one.index(ANY_ZERO)) else ("",) for one in found]
        found = [one.replace(ANY_ZERO, zero, 1) for one, these in zip(found, zeros, strict=True) for zero in these]
    return sorted(found)


def begins(key: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a key begins with one of some days' prefixes."""
    if not any(map(is_pattern, prefixes)):
        return key.startswith(prefixes)
    return any(_pattern(prefix).match(key) for prefix in prefixes)


@lru_cache(maxsize=4096)
def _pattern(prefix: str) -> re.Pattern[str]:
    folder, alternatives = re.escape(ANY_FOLDER), map(re.escape, spellings(prefix))
    return re.compile("|".join(one.replace(folder, "[^/]+") for one in alternatives))


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
    prefixes = {of_day(template, dt.date.fromordinal(number)) for number in range(first, last + 1)}
    separate = _separate(template)
    # The last that does not come after a prefix is the prefix itself, or its beginning.
    return tuple(sorted({separate[bisect_right(separate, prefix) - 1] for prefix in prefixes}))


@lru_cache(maxsize=8)
def _separate(template: str) -> tuple[str, ...]:
    """The prefixes of all days, in order, without those that begin with that of another day."""
    days = range(FIRST.toordinal(), LAST.toordinal() + 1)
    found: list[str] = []
    for prefix in sorted({of_day(template, dt.date.fromordinal(number)) for number in days}):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return tuple(found)
