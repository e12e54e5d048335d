"""Plans that are kept, and what each day has by all of them."""

from __future__ import annotations

import datetime as dt

import pytest

from callphases.day_range import DayRange
from callphases.planning.saved import MonthCost, SavedPlan, planned, read_plan, write_plan
from callphases.planning.survey import DayCount
from callphases.state import layout
from doubles import NOON, Store

pytestmark = pytest.mark.integration

NOVEMBER = DayRange(dt.date(2026, 11, 1), dt.date(2026, 11, 30))


def saved(days: DayRange, hours: int, **by_day: int) -> SavedPlan:
    counts = {
        dt.date.fromisoformat(f"2026-11-{day[1:]}"): DayCount(count, 100 * count) for day, count in by_day.items()
    }
    at = NOON + dt.timedelta(hours=hours)
    return SavedPlan(days, "support", at, {"2026-11": MonthCost(60.0, 0.5, 0.25)}, counts)


def test_plan_is_read_as_it_was_written(s3: Store) -> None:
    plan = saved(NOVEMBER, 0, d01=3, d30=1)
    write_plan(s3.state, plan)
    assert read_plan(s3.state, NOVEMBER) == plan
    assert read_plan(s3.state, DayRange(NOVEMBER.first, NOVEMBER.first)) is None
    assert s3.keys() == ["state/plans/2026-11-01_2026-11-30.json"]


def test_latest_plan_of_a_day_counts(s3: Store) -> None:
    write_plan(s3.state, saved(NOVEMBER, 0, d01=3, d02=2, d30=1))
    write_plan(s3.state, saved(DayRange(dt.date(2026, 11, 1), dt.date(2026, 11, 2)), 1, d02=5))
    kept = planned(s3.state)
    assert kept is not None
    assert {day.day: one.recordings for day, one in kept.days.items() if one.recordings} == {2: 5, 30: 1}
    assert set(kept.days) == set(NOVEMBER), "days without recordings are known to have none"
    assert kept.usd_per_recording == 0.75 / 5


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"from": 1}'])
def test_plan_that_can_not_be_understood_is_none(s3: Store, body: bytes) -> None:
    s3.state.put(layout.plan(NOVEMBER), body)
    assert read_plan(s3.state, NOVEMBER) is None
    assert planned(s3.state) is None
