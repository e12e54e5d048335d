"""Formats of times: which are refused, with what advice, and what the others read."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases import time_formats

BERLIN = ZoneInfo("Europe/Berlin")
ACCEPTED = [
    *("%Y%m%dT%H%M%S", "%Y-%m-%d_%H-%M", "%Y/%m/%d/%H", "%Y%m%d%H%M%S%f", "%d.%m.%y %H:%M", "%y%m%d-%H%M%S"),
    *("%m-%d-%Y %I_%M_%S %p", "%b %d %Y %I%p", "%A, %d %B %Y %H:%M", "%Y%j%H%M", "%G-W%V-%u %H", "%Y-%U-%w %H", "%c"),
    *("%Y-%m-%dT%H:%M:%S%z", "%Y%m%dT%H:%M_%Z", "%Y-%m-%dT%H:%M:%SZ", "%Y年%m月%d日 %H時%M分", "100%%%Y%m%d%H"),
]
DATES = ["%Y%m%d", "%d-%b-%y", "%Y%j", "%G%V%u", "%x", "%Y-%m-%dZ"]


@pytest.mark.parametrize(
    ("format", "told"),
    [
        # No date, or not a whole one.
        ("%H%M%S", "expected a date with its year"),
        ("%m%d%H%M", "expected a date with its year"),
        ("%B %d", "expected a date with its year"),
        ("%Y%m", "expected a date with year, month and day"),
        ("%Y-W%W", "expected a date with year, month and day"),
        ("%Y %H:%M", "expected a date with year, month and day"),
        ("%G-%V", "must be used with"),
        # A time of day that can't be told.
        ("%Y%m%d %I%M", "expected %H, or %p in addition"),
        ("%Y%m%d %H%M %p", "expected %I instead of %H: strptime ignores %p without it; this may be %Y%m%d %I%M %p"),
        ("%Y%m%d %p", "expected %I instead of %H"),
        ("%Y%m%d %M%S", "expected a time of day from its hour on: 22:47:58 is read as 00:47:58"),
        ("%Y%m%d %H%S", "expected a time of day from its hour on: 22:47:58 is read as 22:00:58"),
        # The patterns of other languages.
        ("yyyy/MM/dd/HHmmss", "this may be %Y/%m/%d/%H%M%S"),
        ("yyyyMMdd'T'HHmmssXXX", "this may be %Y%m%dT%H%M%S%z"),
        ("dd.MM.yy hh:mm a", "this may be %d.%m.%y %I:%M %p"),
        ("YYYY-MM-DD HH:mm:ss.SSS", "this may be %Y-%m-%d %H:%M:%S.%f"),
        ("YYYYMMDDHHMMSS", "this may be %Y%m%d%H%M%S"),
        ("dd-MMM-yyyy", "this may be %d-%b-%Y"),
        ("Ymd_His", "expected a strptime format such as %Y%m%dT%H%M%S, or epoch"),
        ("20060102T150405", "expected a strptime format such as"),
        ("date", "expected a strptime format such as"),
        ("100%%", "expected a strptime format such as"),
        ("", "expected a strptime format such as"),
        # Directives that only strftime has, or other programs.
        ("%s", "for seconds or milliseconds since 1970 write epoch"),
        ("%F %T", "strptime does not read %F; this may be %Y-%m-%d %H:%M:%S"),
        ("%Y-%m-%d %H:%i:%s", "strptime does not read %i; this may be %Y-%m-%d %H:%M:%S"),
        ("%Y-%-m-%-d", "strptime does not read %-; this may be %Y-%m-%d"),
        ("%C%y%m%d", "strptime does not read %C; this may be %Y%m%d"),
        ("%Y%m%dT%H%M%:z", "strptime does not read %:; this may be %Y%m%dT%H%M%z"),
        ("%Y%m%d%Q", "strptime does not read %Q"),
        ("%Y%m%d%", "strptime does not read %"),
        ("%Y/%Y%m%d", "strptime can't use it: redefinition of group name 'Y'"),
    ],
)
def test_format_that_would_be_misread_is_refused_with_advice(format: str, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        time_formats.check(format)
    assert told in str(error.value)


@pytest.mark.parametrize("format", [*ACCEPTED, *DATES, "epoch"])
def test_other_formats_are_accepted(format: str) -> None:
    time_formats.check(format)
    assert time_formats.is_date_only(format) == (format in DATES)


@given(
    st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2068, 12, 30), allow_imaginary=False),
    st.sampled_from(ACCEPTED + DATES),
)
def test_accepted_format_reads_what_it_writes(moment: dt.datetime, format: str) -> None:
    """To its own precision: writing what was read gives the same text."""
    text = moment.replace(tzinfo=dt.UTC).strftime(format)
    read = time_formats.parse(text, format, dt.UTC)
    assert read.strftime(format) == text
    assert read <= moment.replace(tzinfo=dt.UTC) < read + dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "format", "utc"),
    [
        ("20260701T2230", "%Y%m%dT%H%M", "2026-07-01T20:30"),
        ("20260701T22:30_UTC", "%Y%m%dT%H:%M_%Z", "2026-07-01T22:30"),
        ("20260701T22:30_gmt", "%Y%m%dT%H:%M_%Z", "2026-07-01T22:30"),
        ("20260701T22:30Z", "%Y%m%dT%H:%M%Z", "2026-07-01T22:30"),
        ("20260701T22:30 GMT+0300", "%Y%m%dT%H:%M %Z%z", "2026-07-01T19:30"),
        ("100%Z 20260701T22:30 UTC", "100%%Z %Y%m%dT%H:%M %Z", "2026-07-01T22:30"),
        ("20260701T2230+0300", "%Y%m%dT%H%M%z", "2026-07-01T19:30"),
        ("20260701T2230+03:00", "%Y%m%dT%H%M%z", "2026-07-01T19:30"),
        ("20260701T2230+03", "%Y%m%dT%H%M%z", "2026-07-01T19:30"),
        ("20260701T2230-0930", "%Y%m%dT%H%M%z", "2026-07-02T08:00"),
        ("20260701T2230Z", "%Y%m%dT%H%M%z", "2026-07-01T22:30"),
        ("20260701t2230z", "%Y%m%dT%H%M%z", "2026-07-01T22:30"),
        ("2230+0300 on 20260701", "%H%M%z on %Y%m%d", "2026-07-01T19:30"),
        # Spelled out in the format.
        ("2026-07-01T22:30:00Z", "%Y-%m-%dT%H:%M:%SZ", "2026-07-01T22:30"),
        ("2026-07-01 22:30 UTC", "%Y-%m-%d %H:%M UTC", "2026-07-01T22:30"),
        ("20260701T2230_GMT_7", "%Y%m%dT%H%M_GMT_7", "2026-07-01T22:30"),
        ("20260701T2230+0000", "%Y%m%dT%H%M+0000", "2026-07-01T22:30"),
        ("20260701T2230Zurich", "%Y%m%dT%H%MZurich", "2026-07-01T20:30"),
        # Since 1970.
        ("1782945000", "epoch", "2026-07-01T22:30"),
        ("1782945000000", "epoch", "2026-07-01T22:30"),
        # A summer's day, an hour that is skipped, and one that occurs twice.
        ("20260701", "%Y%m%d", "2026-06-30T22:00"),
        ("202603290230", "%Y%m%d%H%M", "2026-03-29T01:30"),
        ("202610250230", "%Y%m%d%H%M", "2026-10-25T00:30"),
        # Two digits of a year.
        ("681231T1200", "%y%m%dT%H%M", "2068-12-31T11:00"),
        ("690101T1200", "%y%m%dT%H%M", "1969-01-01T11:00"),
    ],
)
def test_text_is_read_in_utc(text: str, format: str, utc: str) -> None:
    time_formats.check(format)
    assert time_formats.parse(text, format, BERLIN) == dt.datetime.fromisoformat(f"{utc}+00:00")


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("20260701T22:30_CEST", "%Y%m%dT%H:%M_%Z"),
        ("20260701T22:30_EST", "%Y%m%dT%H:%M_%Z"),
        ("20260701T2230", "%Y%m%dT%H%M%z"),
        ("20260230", "%Y%m%d"),
        ("20261119T240000", "%Y%m%dT%H%M%S"),
        ("20261231T235960", "%Y%m%dT%H%M%S"),
        ("178294500", "epoch"),
        ("17829450000", "epoch"),
        ("1_782_945_000", "epoch"),
        ("١٧٨٢٩٤٥٠٠٠", "epoch"),
        ("00010101T0000", "%Y%m%dT%H%M"),
        ("99991231T2359-0100", "%Y%m%dT%H%M%z"),
        ("", "%Y%m%d"),
    ],
)
def test_text_that_is_not_of_the_format_is_an_error(text: str, format: str) -> None:
    time_formats.check(format)
    with pytest.raises(ValueError, match=r"."):
        time_formats.parse(text, format, BERLIN)


@pytest.mark.parametrize(
    ("zone", "skipped", "read"),
    [
        ("Africa/Cairo", "20260424T0000", "2026-04-24T01:00+03:00"),
        ("America/Sao_Paulo", "20171015T0030", "2017-10-15T01:30-02:00"),
        ("Pacific/Apia", "20111230T1200", "2011-12-31T12:00+14:00"),
    ],
)
def test_skipped_local_time_counts_as_that_much_later(zone: str, skipped: str, read: str) -> None:
    local = time_formats.parse(skipped, "%Y%m%dT%H%M", ZoneInfo(zone)).astimezone(ZoneInfo(zone))
    assert local.isoformat(timespec="minutes") == read


@pytest.mark.parametrize(
    ("format", "names"),
    [("%Y%m%dT%H%M", False), ("%Y%m%dT%H%M%z", True), ("%Y%m%dT%H%M %Z", True), ("%Y%m%dT%HZ", True), ("epoch", True)],
)
def test_zone_is_named_by_the_text_or_not(format: str, names: bool) -> None:
    assert time_formats.names_zone(format) == names
