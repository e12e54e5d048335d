"""The Params of runs over several days, and that a backfill has one run for each of its steps."""

from __future__ import annotations

import datetime as dt
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.airflow.ranges import RangeRun, Then, backfill_of, create
from callphases.day_range import DayRange, cut
from callphases.errors import ConfigurationError
from callphases.local_days import DAY

DAYS = st.dates(dt.date(2020, 1, 1), dt.date(2027, 12, 31))
RANGES = st.builds(lambda first, count: DayRange(first, first + count * DAY), DAYS, st.integers(0, 200))
AGAIN, BY = st.sampled_from(["none", "failed", "completed"]), st.sampled_from(["day", "week", "month"])
RUNS = st.builds(
    RangeRun, RANGES, AGAIN, st.one_of(st.none(), st.builds(Then, RANGES, BY, st.booleans()))
)  # fmt: skip
BACKFILL = "20261129T120000-ab12"


@given(RUNS)
def test_params_say_what_the_run_is(run: RangeRun) -> None:
    params = json.loads(json.dumps(run.conf()))
    assert RangeRun.of(params) == run
    assert RangeRun.of({"date": None, "replay": None, "again": "none", "then": None} | params) == run
    assert backfill_of(run.run_id(BACKFILL)) == BACKFILL


@pytest.mark.parametrize("params", [{}, {"date": "2026-11-01"}, {"from": None, "to": ""}, {"again": "none"}])
def test_run_of_one_day_is_no_range(params: dict[str, Any]) -> None:
    assert RangeRun.of(params) is None


OCTOBER = {"from": "2026-10-01", "to": "2026-10-31"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"from": "2026-10-01"}, "from and to belong together"),
        ({"to": "2026-10-01"}, "from and to belong together"),
        ({**OCTOBER, "date": "2026-10-01"}, "give one or the other"),
        ({"from": "2026-10-31", "to": "2026-10-01"}, r"from \(2026-10-31\) is after to \(2026-10-01\)"),
        ({"from": "last week", "to": "2026-10-01"}, "The Param from is no date: 'last week'"),
        ({"again": "failed"}, "The Params again and then are for several days: give from and to, too."),
        ({**OCTOBER, "again": "perhaps"}, "again is 'perhaps': expected one of none, failed, completed"),
        ({**OCTOBER, "then": {"by": "year", **OCTOBER}}, "then is set by callphases backfill: leave it empty"),
        ({**OCTOBER, "then": "more"}, "then is set by callphases backfill: leave it empty"),
        ({**OCTOBER, "then": {"by": "day"}}, "The Param then.from is no date: None"),
    ],
)
def test_params_that_contradict_each_other_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RangeRun.of(params)


class Airflow:
    """Takes each run id once, and keeps the Params."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.waiting: list[str] = []

    def trigger(self, run_id: str, conf: dict[str, Any]) -> bool:
        if run_id in self.runs:
            return False
        self.runs[run_id] = json.loads(json.dumps(conf))
        self.waiting.append(run_id)
        return True


@given(RANGES, BY, AGAIN, st.booleans(), st.integers(1, 12), st.data(), st.randoms(use_true_random=False))
def test_each_step_has_one_run_whichever_run_creates_it(
    days: DayRange, by: Any, again: Any, backwards: bool, at_once: int, data: st.DataObject, order: random.Random
) -> None:
    steps = cut(days, by)
    done = data.draw(st.sets(st.sampled_from(steps)) if again == "none" else st.just(set()))
    ended: list[DayRange] = []

    def is_to_do(step: DayRange) -> bool:
        return step not in done and (again != "none" or step not in ended)

    airflow = Airflow()
    first = RangeRun(days, again, Then(days, by, backwards))
    created = create(first.following(), BACKFILL, is_to_do, airflow.trigger, at_once)
    assert len(created) == min(at_once, len(steps) - len(done))
    while airflow.waiting:
        # They end in any order; and one may be cleared, so that it ends, and creates a run, again.
        run_id = airflow.waiting.pop(order.randrange(len(airflow.waiting)))
        run = RangeRun.of(airflow.runs[run_id])
        assert run is not None
        ended.append(run.days)
        for _ in range(order.choice((1, 1, 1, 2))):
            create(run.following(), backfill_of(run_id), is_to_do, airflow.trigger)
    assert sorted(ended, key=lambda step: step.first) == [step for step in steps if step not in done]


def test_the_last_step_comes_first_backwards() -> None:
    days = DayRange(dt.date(2026, 9, 15), dt.date(2026, 11, 3))
    airflow = Airflow()
    first = RangeRun(days, then=Then(days, "month", backwards=True))
    (november,) = create(first.following(), BACKFILL, lambda step: True, airflow.trigger)
    (october,) = create(november.following(), BACKFILL, lambda step: True, airflow.trigger)
    (september,) = create(october.following(), BACKFILL, lambda step: True, airflow.trigger)
    assert [str(run.days) for run in (november, october, september)] == [
        "2026-11-01 to 2026-11-03",
        "2026-10-01 to 2026-10-31",
        "2026-09-15 to 2026-09-30",
    ]
    assert september.then is None
    assert next(iter(airflow.runs)) == f"archive__2026-11-01_2026-11-03__{BACKFILL}"
