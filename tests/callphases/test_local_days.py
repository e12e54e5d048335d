"""Days in zones: when they are over, and which is the last complete one, also where clocks change at midnight."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.local_days import DAY, day_end, exists, last_complete_day, left_out

ODD_ZONES = (
    # gaps or overlaps at midnight
    *("Africa/Cairo", "America/Asuncion", "America/Havana", "America/Nuuk", "America/Santiago"),
    *("America/Scoresbysund", "Asia/Amman", "Asia/Beirut", "Asia/Gaza", "Asia/Tehran", "Atlantic/Azores"),
    # across midnight, at 00:01 and 02:00; days left out; half an hour; two hours
    *("America/St_Johns", "Antarctica/Casey", "Pacific/Apia", "Pacific/Kwajalein"),
    *("Australia/Lord_Howe", "Antarctica/Troll", "Europe/Berlin", "America/New_York", "UTC"),
)
MINUTE = dt.timedelta(minutes=1)

zones = st.sampled_from(ODD_ZONES).map(ZoneInfo)
moments = st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2037, 1, 1), timezones=st.just(dt.UTC))


@st.composite
def moments_near_midnight(draw: st.DrawFn) -> tuple[dt.datetime, ZoneInfo]:
    """A moment within three hours of midnight, often of a day on which the clocks change."""
    zone, moment = draw(zones), draw(moments)
    if draw(st.booleans()):
        while moment.astimezone(zone).utcoffset() == (moment + DAY).astimezone(zone).utcoffset():
            moment += DAY
            if moment.year > 2036:
                break
    midnight = dt.datetime.combine(moment.astimezone(zone).date() + DAY, dt.time(), zone).astimezone(dt.UTC)
    return midnight + draw(st.integers(-180, 180)) * MINUTE, zone


@given(moments_near_midnight())
def test_last_complete_day_is_over_and_the_next_is_not(case: tuple[dt.datetime, ZoneInfo]) -> None:
    moment, zone = case
    day = last_complete_day(moment, zone)
    dates = {minutes: (moment + minutes * MINUTE).astimezone(zone).date() for minutes in range(-3000, 1500)}
    later = {date for minutes, date in dates.items() if minutes >= 0}
    earlier = {date for minutes, date in dates.items() if minutes < 0}
    assert min(later) > day, "it goes on"
    assert day in earlier, "it was never"
    assert not {date for date in earlier if day < date < min(later)}, "a later one is over"


@given(moments_near_midnight())
def test_a_day_ends_with_its_last_minute(case: tuple[dt.datetime, ZoneInfo]) -> None:
    moment, zone = case
    day = moment.astimezone(zone).date()
    end = day_end(day, zone)
    assert (end - MINUTE).astimezone(zone).date() <= day
    assert all((end + minutes * MINUTE).astimezone(zone).date() > day for minutes in range(0, 300, 5))
    assert exists(day, zone)


@pytest.mark.parametrize(
    ("zone", "moment", "day"),
    [
        ("UTC", "2026-11-21T00:00+00:00", "2026-11-20"),
        ("UTC", "2026-11-20T23:59+00:00", "2026-11-19"),
        ("Africa/Cairo", "2026-04-24T09:00+03:00", "2026-04-23"),
        ("Africa/Cairo", "2026-04-24T01:00+03:00", "2026-04-23"),
        ("Africa/Cairo", "2026-04-23T23:59+02:00", "2026-04-22"),
        ("America/Havana", "2026-11-01T00:30-04:00", "2026-10-31"),
        ("America/Havana", "2026-11-01T00:30-05:00", "2026-10-31"),
        ("America/Santiago", "2026-04-04T23:30-03:00", "2026-04-03"),
        ("America/Santiago", "2026-04-04T23:30-04:00", "2026-04-03"),
        ("America/St_Johns", "2010-11-07T00:00-02:30", "2010-11-05"),
        ("America/St_Johns", "2010-11-07T00:00-03:30", "2010-11-06"),
        ("Pacific/Apia", "2011-12-31T06:00+14:00", "2011-12-29"),
        ("Pacific/Apia", "2012-01-01T00:00+14:00", "2011-12-31"),
    ],
)
def test_last_complete_day_where_clocks_change(zone: str, moment: str, day: str) -> None:
    assert str(last_complete_day(dt.datetime.fromisoformat(moment), ZoneInfo(zone))) == day


def test_day_that_a_zone_leaves_out_does_not_exist() -> None:
    apia = ZoneInfo("Pacific/Apia")
    days = [dt.date(2011, 12, 29) + number * DAY for number in range(3)]
    assert [exists(day, apia) for day in days] == [True, False, True]


@pytest.mark.parametrize(
    ("zone", "start", "end", "days"),
    [
        ("Africa/Cairo", "2026-04-23T00:00+02:00", "2026-04-24T01:00+03:00", []),
        ("Africa/Cairo", "2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00", ["2026-04-23"]),
        ("Africa/Cairo", "2026-04-25T00:00+03:00", "2026-04-26T00:00+03:00", []),
        ("Europe/Berlin", "2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00", ["2026-03-28"]),
        ("Europe/Berlin", "2026-03-29T06:00+02:00", "2026-03-30T06:00+02:00", []),
        ("Europe/Berlin", "2026-10-25T02:30+01:00", "2026-10-26T02:30+01:00", []),
        ("Australia/Lord_Howe", "2026-10-04T02:45+11:00", "2026-10-05T02:15+11:00", ["2026-10-03"]),
        # 23:30 of the 28th is skipped, so its run is one of the 29th, and takes the 28th.
        ("America/Nuuk", "2026-03-27T23:30-02:00", "2026-03-29T00:30-01:00", ["2026-03-27"]),
        ("America/Nuuk", "2026-03-29T00:30-01:00", "2026-03-29T23:30-01:00", []),
        ("Pacific/Apia", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00", ["2011-12-29"]),
        ("UTC", "2026-11-20T00:00+00:00", "2026-11-21T00:00+00:00", []),
    ],
)
def test_left_out_days_are_those_whose_run_the_clocks_skip(zone: str, start: str, end: str, days: list[str]) -> None:
    interval = dt.datetime.fromisoformat(start), dt.datetime.fromisoformat(end)
    assert list(map(str, left_out(*interval, ZoneInfo(zone)))) == days
