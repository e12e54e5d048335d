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


def published(number: int, minutes_ago: float, took: float | None = 10, listed: int = 10) -> DaySummary:
    """A day that was published some minutes ago by a run that took as long as this, in minutes."""
    at = NOW - dt.timedelta(minutes=minutes_ago)
    began = at - dt.timedelta(minutes=took) if took is not None else None
    return summary(MONTH[number], published_at=at, began_at=began, listed=listed)


def test_pace_is_measured_from_the_beginning_of_the_first_run() -> None:
    found = pace_of([published(0, 60), published(1, 50), published(2, 40)], NOW)
    assert found == Pace(
        NOW - dt.timedelta(minutes=70), NOW - dt.timedelta(minutes=40), pytest.approx(60), pytest.approx(3 * 0.4 / 0.5)
    )


def test_runs_side_by_side_that_publish_all_of_their_days_at_the_end() -> None:
    months = [published(number, 5 + number / 1000, 6.7, 107) for number in range(5)]
    months += [published(number, 5.3 + number / 1000, 6.4, 107) for number in range(5, 10)]
    found = pace_of(months, NOW)
    assert found is not None
    assert found.recordings_per_hour == pytest.approx(1070 / 6.7 * 60, rel=0.01)


def test_pace_is_not_known_if_it_is_not_known_when_the_runs_began() -> None:
    assert pace_of([published(0, 60, None), published(1, 40, None)], NOW) == Pace(
        NOW - dt.timedelta(minutes=40), NOW - dt.timedelta(minutes=40), None, None
    )


def test_run_that_takes_long_is_of_the_same_stretch_as_what_was_published_before_it_began() -> None:
    found = pace_of([published(0, 15 * 60, 60), published(1, 60, 13 * 60, 130)], NOW)
    assert found is not None
    assert found.recordings_per_hour == pytest.approx(140 / 15)


def test_earlier_work_does_not_count() -> None:
    nights = [published(number, 60 * 24 * (10 - number)) for number in range(10)]
    assert pace_of([*nights, published(10, 20), published(11, 10)], NOW) == pace_of(
        [published(10, 20), published(11, 10)], NOW
    )


def test_nothing_is_known_before_anything_is_published() -> None:
    assert pace_of([], NOW) is None
    assert pace_of([published(0, -5)], NOW) is None, "by another clock, which is ahead"


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.floats(0, 5000), st.none() | st.floats(0, 5000), st.integers(0, 1000)),
        min_size=1,
    )
)
def test_pace_is_never_faster_than_all_that_was_published_in_its_time(
    some: list[tuple[int, float, float | None, int]],
) -> None:
    summaries = [published(*one) for one in some]
    found = pace_of(summaries, NOW)
    assert found is not None
    assert found.since <= found.until <= NOW
    if found.recordings_per_hour is not None:
        hours = (found.until - found.since) / dt.timedelta(hours=1)
        assert 0 <= found.recordings_per_hour * hours <= sum(one.listed for one in summaries) + 1e-6
