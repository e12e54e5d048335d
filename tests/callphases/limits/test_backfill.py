"""The hours of backfills, over days with clock changes too, and what nights leave them."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.limits.backfill import backfill_jobs, backfill_questions, first_open
from callphases.pipeline import BackfillLimits
from doubles import pipeline

BERLIN, CAIRO, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("Africa/Cairo"), ZoneInfo("America/New_York")


def opens(hours: str | None, moment: str, zone: ZoneInfo) -> str:
    at = dt.datetime.fromisoformat(moment)
    at = at.replace(tzinfo=zone) if at.tzinfo is None else at
    opens = first_open(BackfillLimits(hours=hours).open_hours, at.astimezone(dt.UTC), zone)
    return f"{opens.astimezone(zone):%Y-%m-%dT%H:%M:%S%z}"


@pytest.mark.parametrize(
    ("hours", "moment", "zone", "expected"),
    [
        ("20:00-06:00", "2026-11-20T19:59:30", BERLIN, "2026-11-20T20:00:00+0100"),
        ("20:00-06:00", "2026-11-20T20:00:00", BERLIN, "2026-11-20T20:00:00+0100"),
        ("20:00-06:00", "2026-11-21T05:59:59", BERLIN, "2026-11-21T05:59:59+0100"),
        ("20:00-06:00", "2026-11-21T06:00:00", BERLIN, "2026-11-21T20:00:00+0100"),
        ("09:00-17:00", "2026-11-21T17:00:00", BERLIN, "2026-11-22T09:00:00+0100"),
        ("20:00-24:00", "2026-11-21T00:00:00", BERLIN, "2026-11-21T20:00:00+0100"),
        ("00:00-06:00", "2026-11-20T23:00:00", NEW_YORK, "2026-11-21T00:00:00-0500"),
        (None, "2026-11-21T12:00:00", BERLIN, "2026-11-21T12:00:00+0100"),
        # The clocks skip 02:00 to 03:00 on 2026-03-29, and show it twice on 2026-10-25.
        ("02:30-05:00", "2026-03-29T01:59:00", BERLIN, "2026-03-29T03:00:00+0200"),
        ("02:10-02:50", "2026-03-29T01:00:00", BERLIN, "2026-03-30T02:10:00+0200"),
        ("02:10-02:50", "2026-10-25T01:00:00", BERLIN, "2026-10-25T02:10:00+0200"),
        ("02:10-02:50", "2026-10-25T00:50:00+00:00", BERLIN, "2026-10-25T02:10:00+0100"),
        ("20:00-06:00", "2026-10-25T19:00:00", BERLIN, "2026-10-25T20:00:00+0100"),
        # Cairo skips 00:00 to 01:00 on 2026-04-24.
        ("00:00-06:00", "2026-04-23T22:00:00", CAIRO, "2026-04-24T01:00:00+0300"),
    ],
)
def test_backfill_waits_for_its_hours(hours: str | None, moment: str, zone: ZoneInfo, expected: str) -> None:
    assert opens(hours, moment, zone) == expected


TIMES = st.times().map(lambda time: time.replace(second=0, microsecond=0))


@given(
    st.tuples(TIMES, TIMES).filter(lambda times: times[0] != times[1]),
    st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2027, 1, 1), timezones=st.just(dt.UTC)),
    st.sampled_from([BERLIN, CAIRO, NEW_YORK, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kathmandu")]),
)
def test_first_open_moment_is_within_the_hours_and_none_before_is(
    hours: tuple[dt.time, dt.time], moment: dt.datetime, zone: ZoneInfo
) -> None:
    def is_open(at: dt.datetime) -> bool:
        shown, (start, end) = at.astimezone(zone).time(), hours
        minutes = (shown.hour - start.hour) * 60 + shown.minute - start.minute
        length = (end.hour - start.hour) * 60 + end.minute - start.minute
        return minutes % 1440 < length % 1440

    opens = first_open(hours, moment, zone)
    assert is_open(opens)
    assert moment <= opens
    assert opens == moment or not is_open(opens - dt.timedelta(seconds=1))
    steps = int((opens - moment) / dt.timedelta(minutes=7))
    assert not any(is_open(moment + number * dt.timedelta(minutes=7)) for number in range(steps))


@pytest.mark.parametrize(
    ("schedule", "limits", "jobs", "questions"),
    [
        ("0 0 * * *", {}, 180, 27),
        (None, {}, 200, 30),
        ("0 0 * * *", {"backfill": {"transcriptions_at_once": 40}}, 40, 27),
        (None, {"transcriptions_at_once": 30, "backfill": {"transcriptions_at_once": 40}}, 30, 30),
        ("0 0 * * *", {"transcriptions_at_once": 1, "llm_requests_per_minute": 1}, 1, 1),
    ],
)
def test_nights_are_left_a_part_of_each_limit(
    schedule: str | None, limits: dict[str, object], jobs: int, questions: int
) -> None:
    one = pipeline(schedule=schedule, limits=limits)
    assert (backfill_jobs(one), backfill_questions(one)) == (jobs, questions)
