"""Prefixes with a date: which are refused, which are a day's own, and what is listed around a day."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callphases import date_prefixes
from callphases.date_prefixes import FIRST, LAST
from prefixes import DAILY, NOT_DAILY

DAYS = st.dates(FIRST, LAST)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        *((one, "to be a whole folder") for one in ("a{any}/", "{any}", "{any}{date}/")),
        *((one, "as its only placeholder") for one in ("{day}/", "{}/", "{date/", "{date.year}/", "{date[0]}", "{0}")),
        *((one, "as its only placeholder") for one in ("{date!s}", "{date!r:>20}", "{date:%Y/{date}}", "{date}{x}")),
        ("in/{date:yyyy/MM/dd}/", "expected {date:%Y/%m/%d}"),
        ("in/{date:YYYYMMDD}/", "expected {date:%Y%m%d}"),
        ("in/{date:today}/", "expected {date:%Y/%m/%d}"),
        ("in/{date:%Y/%m/%d/%H}/", "%H is a time of day"),
        ("in/{date:%Y/%m/%d}/{date:%M}", "%M is a time of day"),
        ("in/{date:%c}/", "%c is a time of day"),
        ("in/{date:%s}/", "%s is a time of day"),
        ("in/{date:%-H}/", "%H is a time of day"),
        ("in/{date:%Y%Q}/", "strftime has no %Q"),
        ("in/{date:%Y%Ey}/", "strftime has no %E"),
        ("in/{date:%Y%}/", "strftime has no %"),
    ],
)
def test_prefix_that_can_not_be_meant_is_refused(template: str, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        date_prefixes.check(template)
    assert told in str(error.value)


@pytest.mark.parametrize("template", DAILY)
def test_prefix_of_a_day_alone_is_daily(template: str) -> None:
    date_prefixes.check(template)
    assert date_prefixes.is_daily(template)


@pytest.mark.parametrize("template", NOT_DAILY)
def test_prefix_of_several_days_or_a_part_of_another_is_not_daily(template: str) -> None:
    date_prefixes.check(template)
    assert not date_prefixes.is_daily(template)


@given(st.sampled_from(DAILY), DAYS, DAYS)
def test_daily_prefixes_have_no_key_in_common(template: str, one: dt.date, other: dt.date) -> None:
    first, second = template.format(date=one), template.format(date=other)
    assert first.startswith(second) == (one == other)


@settings(max_examples=40)
@given(st.sampled_from(NOT_DAILY), DAYS, DAYS, st.integers(0, 40))
def test_prefixes_to_list_cover_the_days_around_and_are_disjoint(
    template: str, day: dt.date, other: dt.date, days: int
) -> None:
    found = date_prefixes.around(template, day, days)
    assert list(found) == sorted(found)
    for near in (day, day - dt.timedelta(days=days), day + dt.timedelta(days=days)):
        if FIRST <= near <= LAST:
            assert template.format(date=near).startswith(found)
    for prefix in found:
        for another in (*found, *date_prefixes.around(template, other, days)):
            assert prefix == another or not prefix.startswith(another), "no key is below both"


@pytest.mark.parametrize(
    ("template", "days", "found"),
    [
        ("in/", 3, ("in/",)),
        ("odd{{brace}}/", 1, ("odd{brace}/",)),
        ("in/{date:%Y/%m/}", 1, ("in/2026/11/",)),
        ("in/{date:%Y/%m/}", 11, ("in/2026/11/", "in/2026/12/")),
        ("in/{date:%G-%V}/", 1, ("in/2026-47/",)),
        ("in/{date:%G-%V}/", 3, ("in/2026-47/", "in/2026-48/")),
        ("in/{date:%Y-%m-%-d}", 1, ("in/2026-11-1", "in/2026-11-2")),
    ],
)
def test_only_the_periods_concerned_are_listed(template: str, days: int, found: tuple[str, ...]) -> None:
    assert date_prefixes.around(template, dt.date(2026, 11, 20), days) == found


def test_days_out_of_range_have_no_prefix_with_a_date() -> None:
    assert date_prefixes.around("in/{date:%y%m}", FIRST - dt.timedelta(days=1), 3) == ()
    assert date_prefixes.around("in/{date:%y%m}", dt.date.max, 3) == ()
    assert date_prefixes.around("in/{date:%y%m}", LAST, 3) == ("in/6912",)
    assert date_prefixes.around("in/", dt.date.max, 3) == ("in/",)


def test_keys_of_any_folder_and_with_any_zero_are_told_from_others() -> None:
    prefix = date_prefixes.of_day("{any}/month={zero}{date:%-m}/", dt.date(2026, 3, 5))
    assert prefix == "{any}/month={zero}3/"
    assert date_prefixes.is_daily("{any}/{date}/")
    assert not date_prefixes.has_date("{any}/month={zero}/")
    for key, does in {"a/month=3/x": True, "a/month=03/x": True, "a/b/month=3/x": False, "a/month=13/": False}.items():
        assert date_prefixes.begins(key, ("x/", prefix)) == does
    assert date_prefixes.spellings("day={zero}12/{zero}1/") == ["day=12/01/", "day=12/1/"]
