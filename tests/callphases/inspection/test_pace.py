"""The pace of an archive, from when its days were published."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archives import days, summary
from callphases.inspection.pace import Pace, pace_of
from callphases.state.summaries import DaySummary

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
MONTH = days("2026-10-01", "2026-10-31")


def published(number: int, minutes_ago: float, run_id: str = "", listed: int = 10) -> DaySummary:
    at = NOW - dt.timedelta(minutes=minutes_ago)
    return summary(MONTH[number], published_at=at, run_id=run_id or f"run-{number}", listed=listed)


def test_pace_counts_what_was_done_between_publications() -> None:
    found = pace_of([published(0, 60), published(1, 40), published(2, 30)], NOW)
    assert found == Pace(
        NOW - dt.timedelta(minutes=60), NOW - dt.timedelta(minutes=30), 40.0, pytest.approx(2 * 0.4 / 0.5)
    )


def test_days_that_a_run_publishes_at_once_mark_one_moment() -> None:
    first = [published(number, 120 - number / 10, "run-a") for number in range(10)]
    second = [published(number, 60 - number / 10, "run-b") for number in range(10, 20)]
    assert pace_of(first, NOW) == Pace(first[-1].published_at, first[-1].published_at, None, None)
    found = pace_of(first + second, NOW)
    assert found is not None
    assert found.recordings_per_hour == pytest.approx(100, rel=0.02)


def test_days_that_a_run_publishes_one_after_the_other_show_its_pace() -> None:
    found = pace_of([published(number, 60 - 10 * number, "run-a") for number in range(4)], NOW)
    assert found is not None
    assert found.recordings_per_hour == pytest.approx(60)


def test_earlier_work_does_not_count() -> None:
    nights = [published(number, 60 * 24 * (10 - number)) for number in range(10)]
    assert pace_of([*nights, published(10, 20), published(11, 10)], NOW) == pace_of(
        [published(10, 20), published(11, 10)], NOW
    )


def test_nothing_is_known_before_anything_is_published() -> None:
    assert pace_of([], NOW) is None
    assert pace_of([published(0, -5)], NOW) is None, "by another clock, which is ahead"


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 5000), st.integers(0, 1000)), min_size=1))
def test_pace_is_never_faster_than_all_that_was_published_in_its_time(some: list[tuple[int, float, int]]) -> None:
    summaries = [published(number, ago, f"{number}-{ago}", listed) for number, ago, listed in some]
    found = pace_of(summaries, NOW)
    assert found is not None
    assert found.since <= found.until <= NOW
    if found.recordings_per_hour is not None:
        hours = (found.until - found.since) / dt.timedelta(hours=1)
        assert 0 <= found.recordings_per_hour * hours <= sum(one.listed for one in summaries) + 1e-6
