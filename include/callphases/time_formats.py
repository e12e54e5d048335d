"""Times in keys and in columns: which formats are accepted, and how they are read.

A format is one of ``strptime``'s, or ``epoch``. ``strptime`` fills in what a format lacks (the year 1900, midnight) and
ignores what it can't use (``%p`` beside ``%H``, the zone of ``%Z``), so a format is accepted only if it reads back what
it has written.
"""

from __future__ import annotations

import datetime as dt
import re

EPOCH = "epoch"
"""Seconds since 1970 in ten digits, or milliseconds in thirteen: what these are from 2001 to 2286."""
UTC_NAMES = ("UTC", "GMT", "Z")
"""What ``%Z`` reads. Other names are not unique: IST is the time of India, of Israel and of Ireland."""
SAYS_UTC = r"[ _-]?(?:UTC|GMT|Z)(?![A-Za-z0-9])|[ _]?\+00:?00(?!\d)"
"""Behind a time: that it is in UTC."""
EXAMPLE = "%Y%m%dT%H%M%S"
# Python's own fromisoformat() also reads 2026-W47-5, for example.
_ISO_8601 = re.compile(
    r"\d{4}-\d\d-\d\d([T ]([01]\d|2[0-3]):\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
    r"|\d{8}T([01]\d|2[0-3])\d\d(\d\d)?(Z|[+-]\d\d(\d\d)?)?",
    re.ASCII,
)

# The directives that strptime documents for Python 3.11; later versions add some.
_DIRECTIVES = frozenset("aAwdbBmyYHIpMSfzZjUWcxXGuV%")
_WITH_YEAR = frozenset("yYGcx")
# What others write for the same: strftime of GNU, Ruby, MySQL.
_ELSEWHERE = {
    "C%y": "%Y", "D": "%m/%d/%y", "F": "%Y-%m-%d", "L": "%f", "N": "%f", "P": "%p", "R": "%H:%M", "T": "%H:%M:%S",
    "e": "%d", "h": "%b", "i": "%M", "k": "%H", "l": "%I", "s": "%S",
}  # fmt: skip
# Letters of Java's and JavaScript's date patterns.
_LETTERS = [
    (r"yyyy|YYYY|uuuu", "%Y"), (r"yy|YY", "%y"), ("MMMM", "%B"), ("MMM", "%b"), (r"(?<=HH)MM|(?<=HH[:._-])MM", "%M"),
    ("MM", "%m"), (r"dd|DD", "%d"), ("HH", "%H"), ("hh", "%I"), ("mm", "%M"), (r"S{3,}", "%f"), (r"ss|SS", "%S"),
    (r"'([^'%]*)'", r"\1"), (r"(?<![a-zA-Z%])[aA](?![a-zA-Z])", "%p"), (r"X+|(?<![%a-zA-Z])Z+", "%z"),
]  # fmt: skip
_PROBES = [
    dt.datetime(2026, 11, 19, 22, 47, 58, 123456, dt.UTC),
    dt.datetime(2024, 2, 29, 13, 5, 9, 70_000, dt.UTC),
    dt.datetime(1999, 1, 2, 0, 30, 1, 999_999, dt.UTC),
    dt.datetime(2012, 12, 31, 12, 10, 59, 1, dt.UTC),
]
_PRECISIONS = [
    dt.timedelta(microseconds=1),
    dt.timedelta(seconds=1),
    dt.timedelta(minutes=1),
    dt.timedelta(hours=1),
    dt.timedelta(days=1),
]
_1970 = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def check(format: str) -> None:
    """Check that a format gives a date and, if it gives a time of day, the whole of it.

    A date alone is accepted, as are times without seconds or minutes. ``%y`` means 1969 to 2068, as POSIX has it.

    Raises:
        ValueError: says what is missing, and what would be right where that can be told.
    """
    if (problem := _problem(format)) is None:
        return
    if format == "%s":
        raise ValueError(f"strptime does not read %s; for seconds or milliseconds since 1970 write {EPOCH}")
    right = next((one for one in (_respelled(format), _from_letters(format)) if _problem(one) is None), None)
    raise ValueError(problem if right is None else f"{problem}; this may be {right}")


def is_date_only(format: str) -> bool:
    """Whether an accepted format gives a date without a time of day."""
    return format != EPOCH and all(_strptime(probe.strftime(format), format).hour == 0 for probe in _PROBES)


def names_zone(format: str) -> bool:
    """Whether the text itself says which zone it is in."""
    return format == EPOCH or _strptime(_PROBES[0].strftime(format), format).tzinfo is not None


def parse(text: str, format: str, zone: dt.tzinfo) -> dt.datetime:
    """The time that ``text`` gives, in UTC; see ``in_utc``.

    ``%z`` reads +0200, +02:00 and Z, and at the end of the text also +02 and z; ``%Z`` reads ``UTC_NAMES``. A Z, UTC
    or GMT that a format spells out after the time of day has the same meaning: the time is in UTC.

    Raises:
        ValueError: the text is not of the format.
    """
    if re.search(r"(?![0-9])\d", text):  # strptime reads the digits of every script
        raise ValueError("expected the digits 0 to 9")
    if format != EPOCH:
        return in_utc(_strptime(text, format), zone)
    if re.fullmatch(r"[0-9]{10}|[0-9]{13}", text) is None:
        raise ValueError("expected ten or thirteen digits")
    return _1970 + dt.timedelta(milliseconds=int(text.ljust(13, "0")))


def parse_iso(text: str, zone: dt.tzinfo) -> dt.datetime:
    """The time that a text of ISO 8601 gives, in UTC: a calendar date, alone or with a time; see ``in_utc``.

    Raises:
        ValueError: the text is none.
    """
    if _ISO_8601.fullmatch(text) is None:
        raise ValueError("expected a date of ISO 8601")
    return in_utc(dt.datetime.fromisoformat(text), zone)


def in_utc(moment: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    """``moment`` in UTC; a local time, without an offset, is in ``zone``.

    A local time that the clocks skip counts as that much later (02:30 as 03:30). Of one that occurs twice, the first
    is meant. This is what ``fold=0`` means in Python (PEP 495).

    Raises:
        ValueError: in UTC, the year would be 0 or 10000.
    """
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("year out of range") from None


def _directives(format: str) -> set[str]:
    return set(re.findall(r"%(.?)", format, re.DOTALL))


def _strptime(text: str, format: str) -> dt.datetime:
    moment = _without_spelled_zone(text, format)
    is_utc = re.search(rf"%[HMSfpcX](?:{SAYS_UTC})", format) is not None
    return moment.replace(tzinfo=dt.UTC) if is_utc and moment.tzinfo is None else moment


def _without_spelled_zone(text: str, format: str) -> dt.datetime:
    if format.endswith("%z"):
        text = re.sub(r"z$", "Z", re.sub(r"([+-]\d\d)$", r"\1:00", text))
    if "Z" not in _directives(format):
        return dt.datetime.strptime(text, format)
    for name in UTC_NAMES:
        named = re.sub("%(.)", lambda found: name if found[1] == "Z" else found[0], format, flags=re.DOTALL)  # noqa: B023
        try:
            moment = dt.datetime.strptime(text, named)
        except ValueError:
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    raise ValueError(f"expected one of {', '.join(UTC_NAMES)} for %Z")


def _problem(format: str) -> str | None:
    """What is wrong with a format, or None."""
    directives = _directives(format)
    if format == EPOCH:
        return None
    if not directives - {"%"}:
        return f"expected a strptime format such as {EXAMPLE}, or {EPOCH}"
    if unknown := sorted(directives - _DIRECTIVES):
        return f"strptime does not read %{unknown[0]}"
    if directives.isdisjoint(_WITH_YEAR):
        return "expected a date with its year (a group can span folders); without one, strptime takes 1900"
    if "p" in directives and "I" not in directives:
        return "expected %I instead of %H: strptime ignores %p without it"
    if "I" in directives and "p" not in directives:
        return "expected %H, or %p in addition: %I is an hour from 1 to 12"
    try:
        read = [_strptime(probe.strftime(format), format).replace(tzinfo=dt.UTC) for probe in _PROBES]
    except (ValueError, re.error) as error:
        return f"strptime can't use it: {error}"
    if any(one.date() != probe.date() for one, probe in zip(read, _PROBES, strict=True)):
        return "expected a date with year, month and day"
    for precision in _PRECISIONS:
        if read == [probe - (probe - _1970) % precision for probe in _PROBES]:
            return None
    return f"expected a time of day from its hour on: {_PROBES[0]:%H:%M:%S} is read as {read[0]:%H:%M:%S}"


def _respelled(format: str) -> str:
    """The format with the directives that strptime has for those of other programs."""
    plain = re.sub(r"%[-_0^#:EO]([a-zA-Z])", r"%\1", format)
    plain = re.sub(r"%(C%y|[a-zA-Z%])", lambda found: _ELSEWHERE.get(found[1], found[0]), plain)
    return plain.replace("%H", "%I") if "%p" in plain and "%I" not in plain else plain


def _from_letters(format: str) -> str:
    """The format where it is a pattern such as yyyy-MM-dd."""
    for letters, directive in _LETTERS:
        format = re.sub(letters, directive, format)
    return format
