"""Ranges of days, and the steps of a backfill."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.day_range import By, DayRange, cut, parse_span
from callphases.local_days import DAY

DAYS = st.dates(dt.date(2019, 12, 1), dt.date(2028, 12, 31))
RANGES = st.builds(lambda first, count: DayRange(first, first + count * DAY), DAYS, st.integers(0, 800))


@given(RANGES, st.sampled_from(["day", "week", "month"]))
def test_steps_cover_the_range_without_gap_or_overlap(days: DayRange, by: By) -> None:
    steps = cut(days, by)
    assert [day for step in steps for day in step] == list(days)
    for step in steps:
        if by == "day":
            assert step.first == step.last
        elif by == "week":
            assert len({day.isocalendar()[:2] for day in step}) == 1
        else:
            assert len({(day.year, day.month) for day in step}) == 1
    # None is shorter than its week or month, but at the ends of the range.
    for before, after in itertools.pairwise(steps):
        if by == "week":
            assert after.first.weekday() == 0
        elif by == "month":
            assert after.first.day == 1
        assert before.last + DAY == after.first


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    days = DayRange(dt.date(2024, 2, 28), dt.date(2024, 3, 12))
    assert [str(step) for step in cut(days, "week")] == [
        "2024-02-28 to 2024-03-03",
        "2024-03-04 to 2024-03-10",
        "2024-03-11 to 2024-03-12",
    ]
    assert [str(step) for step in cut(days, "month")] == ["2024-02-28 to 2024-02-29", "2024-03-01 to 2024-03-12"]


@given(st.one_of(DAYS, RANGES))
def test_span_is_parsed_as_it_is_written(span: dt.date | DayRange) -> None:
    assert parse_span(span.isoformat()) == span


@pytest.mark.parametrize("text", ["", "2026-11", "2026-11-01/", "/2026-11-01", "2026-11-01/x"])
def test_text_that_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid isoformat"):
        parse_span(text)
