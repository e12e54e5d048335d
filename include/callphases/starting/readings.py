"""All ways to read a date or a time in a key.

A key is taken as runs of digits with text between them. Layouts of dates and of times of day are laid over consecutive
runs; a reading is one that gives a date that exists. Most are wrong: which one is right shows over many keys.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from callphases import time_formats

EARLIEST = dt.datetime(1995, 1, 1)
"""No call in a bucket is older; S3 is of 2006, and archives that were moved there are not much older."""
SLACK = dt.timedelta(days=2)
"""How far a date may be after the upload: clocks, zones, and uploads that were dated."""


class Part(NamedTuple):
    """One directive of a reading: which, and where in the key."""

    directive: str
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """One way to read a date or a time in a key.

    Attributes:
        format: for strptime, or ``epoch``. It includes the text between the parts.
        parts: the directives, from left to right.
        moment: what is read; without a zone.
        zone: the offset that the key itself gives, or UTC; None if it gives none.
        end: of the reading, with a zone that ``format`` includes.
    """

    format: str
    parts: tuple[Part, ...]
    moment: dt.datetime
    zone: str | None = None
    end: int = field(default=0)

    @property
    def start(self) -> int:
        """Where in the key it starts."""
        return self.parts[0].start

    @property
    def precision(self) -> int:
        """0: a date; 1, 2, 3: a time to the hour, the minute, the second."""
        if self.format == time_formats.EPOCH:
            return 3
        return max({"H": 1, "I": 1, "M": 2, "S": 3}.get(part.directive[-1], 0) for part in self.parts)


# Each string covers one run of digits. A directive alone in its run may have one digit less.
_DATES: tuple[tuple[str, ...], ...] = (
    ("%Y%m%d",), ("%Y", "%m", "%d"), ("%Y%m", "%d"), ("%Y", "%m%d"),
    ("%d%m%Y",), ("%m%d%Y",), ("%d", "%m", "%Y"), ("%m", "%d", "%Y"),
    ("%y%m%d",), ("%y", "%m", "%d"), ("%d", "%m", "%y"), ("%m", "%d", "%y"),
    ("%Y", "%j"), ("%Y%j",),
)  # fmt: skip
_DATES_WITH_NAMES = (("%Y", "%b", "%d"), ("%d", "%b", "%Y"), ("%b", "%d", "%Y"))
_MONTHS = (("%Y", "%m"), ("%Y%m",), ("%Y", "%b"), ("%Y",))
_TIMES = (("%H%M%S",), ("%H", "%M", "%S"), ("%H%M",), ("%H", "%M"), ("%H",))
_WIDTHS = {"%Y": 4, "%j": 3}
_MONTH_NAMES = {name: number for number in range(1, 13) for name in (f"{dt.date(2000, number, 1):%B}".lower(),)}
_SHORT_NAMES = {name[:3]: number for name, number in _MONTH_NAMES.items()}
_BETWEEN = re.compile(r"[^/]{0,12}(?:/[^/]{0,16})?")
"""What may be between two parts of a date, or a date and its time: such as "-", "/", "/month=", "-UTC/"."""
_IN_TIME = re.compile(r"[^A-Za-z0-9/]|%3A|h|m|min|/(?:(?:minute|min|mm|m|second|sec|ss|s)[=_-]?)?", re.IGNORECASE)
"""What may be between hours, minutes and seconds."""
_HOUR_FOLDER = re.compile(r"/(?:(?:hour|hr|h|hh)[=_-]?)?", re.IGNORECASE)
_UTC = re.compile(rf"(?:[.,-]\d{{1,6}})?(?:{time_formats.SAYS_UTC})")
"""Behind a time, perhaps with a fraction of a second between, which ``format`` leaves out."""
_OFFSET = re.compile(r"[+-](?:0\d|1[0-4]):?(?:00|15|30|45)(?!\d)")
_HALF = re.compile(r"[ _-]?[AaPp][Mm](?![A-Za-z])")


class _Run(NamedTuple):
    text: str
    start: int
    end: int
    is_name: bool = False


def readings(key: str, latest: dt.datetime) -> Iterator[Reading]:
    """All ways to read a date, with or without a time of day, in a key.

    Args:
        key: of a recording.
        latest: nothing is read that is after it; no zone.
    """
    runs, named = _runs(key)
    for first, run in enumerate(runs):
        if len(run.text) in (10, 13):
            moment = dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=int(run.text.ljust(13, "0")))
            if EARLIEST <= moment <= latest:
                yield Reading(time_formats.EPOCH, (Part("epoch", run.start, run.end),), moment, "UTC", run.end)
        for date in _DATES:
            yield from _with_times(key, runs, first, date, latest)
    for first in range(len(named)):
        for date in _DATES_WITH_NAMES:
            yield from _with_times(key, named, first, date, latest)


def months(key: str, latest: dt.datetime) -> Iterator[Reading]:
    """All ways to read a month or a year in the folders of a key, as the first of it."""
    folder = key[: key.rfind("/") + 1]
    runs, named = _runs(folder)
    for month in _MONTHS:
        found = named if "%b" in month else runs
        for first in range(len(found)):
            yield from _reading(folder, found, first, month, latest)


_NAMES = "|".join([*_MONTH_NAMES, *_SHORT_NAMES])
_RUN = re.compile(rf"%[0-9A-F]{{2}}|(?P<digits>[0-9]+)|(?<![A-Za-z])(?P<name>{_NAMES})(?![A-Za-z])", re.IGNORECASE)


def _runs(key: str) -> tuple[list[_Run], list[_Run]]:
    """The runs of digits, and the same with the names of months; the second is empty if there is no such name.

    The digits of an escaped character, such as %3A, are none of them.
    """
    found = [
        _Run(one[0], one.start(), one.end(), one["name"] is not None) for one in _RUN.finditer(key) if one[0][0] != "%"
    ]
    digits = [run for run in found if not run.is_name]
    return digits, found if len(digits) < len(found) else []


def _with_times(
    key: str, runs: Sequence[_Run], first: int, date: tuple[str, ...], latest: dt.datetime
) -> Iterator[Reading]:
    if not _fits(runs[first : first + len(date) - 1], date[:-1]):
        return
    yield from _reading(key, runs, first, date, latest)
    for time in _TIMES:
        yield from _reading(key, runs, first, (*date, *time), latest, len(date))
        if len(time) == 1:
            yield from _reading(key, runs, first, (*date[:-1], date[-1] + time[0]), latest, len(date))
    yield from _reading(key, runs, first, (*date[:-1], date[-1] + "%H%M%S%f"), latest, len(date))


def _reading(
    key: str, runs: Sequence[_Run], first: int, layout: tuple[str, ...], latest: dt.datetime, of_date: int = 9
) -> Iterator[Reading]:
    """The readings of one layout from one run on: one, none, or one with and one without a zone.

    ``of_date`` is how many runs belong to the date; the others to the time of day.
    """
    covered = runs[first : first + len(layout)]
    if not _fits(covered, layout):
        return
    values: dict[str, int] = {}
    parts: list[Part] = []
    format = ""
    gaps = {key[one.end : other.start] for one, other in itertools.pairwise(covered[:of_date])}
    if layout[0] in ("%d", "%m", "%y") and "%b" not in layout and not _is_uniform(gaps):
        return
    for number, (run, shape) in enumerate(zip(covered, layout, strict=True)):
        if number:
            between = key[covered[number - 1].end : run.start]
            if not _may_be_between(key, between, run, layout, number, of_date):
                return
            format += between.replace("%", "%%")
        read = _parts(run, shape)
        if read is None:
            return
        values.update({directive: value for directive, value, _ in read})
        at = run.start
        for directive, _, width in read:
            parts.append(Part(directive, at, at + width))
            at += width
        format += "".join(directive for directive, _, _ in read)
    end = covered[-1].end
    if "%H" in values and (half := _HALF.match(key, end)) is not None:
        if not 1 <= values["%H"] <= 12:
            return
        values["%H"] = values["%H"] % 12 + (12 if half[0].strip(" _-")[0] in "pP" else 0)
        parts = [Part("%I", *part[1:]) if part.directive == "%H" else part for part in parts]
        format = format.replace("%H", "%I") + half[0][:-2] + "%p"
        parts.append(Part("%p", half.end() - 2, half.end()))
        end = half.end()
    moment = _moment(values)
    if moment is None or not EARLIEST <= moment <= latest:
        return
    zone = "UTC" if "%H" in values and _UTC.match(key, end) else None
    if "%H" in values and zone is None and (offset := _OFFSET.match(key, end)) is not None:
        with_zone = (*parts, Part("%z", end, offset.end()))
        yield Reading(format + "%z", with_zone, moment, offset[0], offset.end())
    yield Reading(format, tuple(parts), moment, zone, end)


def _fits(runs: Sequence[_Run], layout: tuple[str, ...]) -> bool:
    """Whether runs have the lengths of a layout; a quick look, since most have not."""
    return len(runs) == len(layout) and all(
        run.is_name == (shape == "%b") and (run.is_name or len(run.text) in _lengths(shape))
        for run, shape in zip(runs, layout, strict=True)
    )


@lru_cache(maxsize=256)
def _lengths(shape: str) -> frozenset[int]:
    directives = re.findall(r"%.", shape)
    length = sum(_WIDTHS.get(one, 2) for one in directives)
    if directives[-1] == "%f":
        return frozenset((length + 1, length + 4))  # milliseconds or microseconds
    return frozenset((1, 2)) if shape in ("%m", "%d", "%H") else frozenset((length,))


def _may_be_between(key: str, between: str, run: _Run, layout: tuple[str, ...], number: int, of_date: int) -> bool:
    if number == of_date and layout[number] == "%H" and len(layout) == number + 1:
        # An hour alone is one only as a folder: other short numbers are common.
        return _HOUR_FOLDER.fullmatch(between) is not None and key[run.end : run.end + 1] == "/"
    if number <= of_date:
        return _BETWEEN.fullmatch(between) is not None
    return _IN_TIME.fullmatch(between) is not None and (len(run.text) == 2 or "/" in between or "h" in between)


def _is_uniform(gaps: set[str]) -> bool:
    """Whether the gaps of a date that does not begin with its year are as in 20.11.2026, or day=20/month=11/…"""
    return (len(gaps) < 2 and all(len(gap) == 1 for gap in gaps)) or all("=" in gap for gap in gaps)


def _parts(run: _Run, shape: str) -> list[tuple[str, int, int]] | None:
    """The directives of a run, each with its value and its width; None if it is not of the shape."""
    directives = re.findall(r"%.", shape)
    if run.is_name or shape == "%b":
        if shape != "%b" or not run.is_name:
            return None
        name = run.text.lower()
        full = name in _MONTH_NAMES and name not in _SHORT_NAMES
        number = _MONTH_NAMES[name] if full else _SHORT_NAMES[name]
        return [("%B" if full else "%b", number, len(name))]
    widths = [_WIDTHS.get(one, 2) for one in directives]
    if directives[-1] == "%f":
        widths[-1] = len(run.text) - sum(widths[:-1])
        if widths[-1] not in (3, 6):
            return None
    elif shape in ("%m", "%d", "%H") and len(run.text) == 1:
        widths = [1]
    if sum(widths) != len(run.text):
        return None
    found, at = [], 0
    for directive, width in zip(directives, widths, strict=True):
        found.append((directive, int(run.text[at : at + width]), width))
        at += width
    return found


def _moment(values: dict[str, int]) -> dt.datetime | None:
    year = values["%Y"] if "%Y" in values else values["%y"] + (2000 if values["%y"] < 69 else 1900)
    month = next((values[one] for one in ("%m", "%b", "%B") if one in values), 1)
    try:
        hour, minute, second = (values.get(one, 0) for one in ("%H", "%M", "%S"))
        moment = dt.datetime(year, month, values.get("%d", 1), hour, minute, second)
        moment += dt.timedelta(days=values["%j"] - 1) if values.get("%j") else dt.timedelta(0)
    except (ValueError, OverflowError):
        return None
    return moment if moment.year == year and values.get("%j") != 0 else None
