"""Which day the list task takes: with the intervals of Airflow's timetables, where clocks change, and by hand."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from airflow.timetables import interval as airflow_interval
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from hypothesis import assume, given
from hypothesis import strategies as st
from pendulum import instance

from callphases.airflow.compat import AirflowFailException
from callphases.airflow.operators import LONGEST_WAIT, ListRecordings, SegmentCalls, TranscribeRecordings
from callphases.errors import BackfillWaits, ConfigurationError
from callphases.local_days import DAY, day_end, last_complete_day, left_out
from doubles import pipeline

ZONES = (
    *("Africa/Cairo", "America/Asuncion", "America/Havana", "America/New_York", "America/Nuuk", "America/Santiago"),
    *("Asia/Beirut", "Atlantic/Azores", "Australia/Lord_Howe", "Europe/Berlin", "Pacific/Apia", "UTC"),
)
DAILY = ("0 0 * * *", "30 0 * * *", "0 2 * * *", "30 2 * * *", "0 6 * * *", "0 23 * * *")
OTHERS = ("0 */6 * * *", "0 * * * *", "0 3 * * MON-FRI", "0 0 * * 0", "0 0 1 * *")
BEGIN = instance(dt.datetime(2000, 1, 1, tzinfo=dt.UTC))


@functools.cache
def week_of_a_change(zone: ZoneInfo) -> st.SearchStrategy[dt.datetime]:
    """Noons in UTC three days before a change of the zone's clocks."""
    noons = [dt.datetime(2011, 1, 1, 12, tzinfo=dt.UTC) + number * DAY for number in range(15 * 365)]
    offsets = [noon.astimezone(zone).utcoffset() for noon in noons]
    changed = [
        noon for noon, (before, after) in zip(noons, itertools.pairwise(offsets), strict=False) if before != after
    ]
    return st.sampled_from(changed or noons[:1]).map(lambda noon: noon - 3 * DAY)


def context(run_type: str, **moments: Any) -> Any:
    run = SimpleNamespace(run_type=run_type, run_after=moments.pop("run_after", None))
    return {"params": {}, "dag_run": run, "run_id": "r", **moments}


def list_task(zone: str, schedule: str = "0 0 * * *") -> ListRecordings:
    return ListRecordings(task_id="list", pipeline=pipeline(timezone=zone, schedule=schedule))


def scheduled(interval: DataInterval, run_type: str = "scheduled") -> Any:
    return context(
        run_type, logical_date=interval.start, data_interval_start=interval.start, data_interval_end=interval.end
    )


def intervals(schedule: str, zone: str, since: dt.datetime, count: int) -> list[DataInterval]:
    """Those of runs with catchup, which are those of a backfill, too."""
    timetable = CronDataIntervalTimetable(schedule, zone)
    restriction = TimeRestriction(instance(since), None, catchup=True)
    found: list[DataInterval] = []
    while len(found) < count:
        last = found[-1] if found else None
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        assert info is not None
        assert info.data_interval is not None
        found.append(info.data_interval)
    return found


@given(st.data(), st.sampled_from(ZONES), st.sampled_from(DAILY + OTHERS))
def test_day_of_a_run_is_over_when_it_is_due(data: st.DataObject, zone: str, schedule: str) -> None:
    local = ZoneInfo(zone)
    for interval in intervals(schedule, zone, data.draw(week_of_a_change(local)), 7):
        day = list_task(zone, schedule).day(scheduled(interval))
        assert day_end(day, local) <= interval.end
        assert day == last_complete_day(interval.end, local)


@given(st.data(), st.sampled_from(ZONES), st.sampled_from(DAILY))
def test_daily_runs_take_each_day_once(data: st.DataObject, zone: str, schedule: str) -> None:
    # Where the clocks skip 23:00, its run is one of the next day, and takes that day's eve: see test_local_days.
    assume((zone, schedule) != ("America/Nuuk", "0 23 * * *"))
    local, begin = ZoneInfo(zone), data.draw(week_of_a_change(ZoneInfo(zone)))
    days = [list_task(zone, schedule).day(scheduled(one)) for one in intervals(schedule, zone, begin, 8)]
    ends = [day_end(day, local) for day in days]
    assert [day_end(day - DAY, local) for day in days[1:]] == ends[:-1], "one begins where the one before ends"


def nights(schedule: str, zone: str, since: dt.datetime, monkeypatch: pytest.MonkeyPatch) -> list[DataInterval]:
    """The runs of six days without catchup, if Airflow always reads the Dag file again just before it makes a run."""
    timetable, found = CronDataIntervalTimetable(schedule, zone), list[DataInterval]()
    now = instance(since)
    restriction = TimeRestriction(BEGIN, None, catchup=False)
    monkeypatch.setattr(airflow_interval, "utcnow", lambda: now)
    while now < since + 6 * DAY:
        last = found[-1] if found else None
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        assert info is not None
        assert info.data_interval is not None
        if info.run_after <= now:
            found.append(info.data_interval)
        now += dt.timedelta(minutes=30)
    return found


@pytest.mark.parametrize(
    ("zone", "schedule", "change"),
    [
        ("Africa/Cairo", "0 0 * * *", dt.date(2026, 4, 24)),
        ("Africa/Cairo", "30 0 * * *", dt.date(2026, 4, 24)),
        ("Asia/Beirut", "0 0 * * *", dt.date(2026, 3, 29)),
        ("America/Havana", "0 0 * * *", dt.date(2026, 3, 8)),
        ("America/Santiago", "0 0 * * *", dt.date(2026, 9, 6)),
        ("Atlantic/Azores", "0 0 * * *", dt.date(2026, 3, 29)),
        ("Europe/Berlin", "0 2 * * *", dt.date(2026, 3, 29)),
        ("Europe/Berlin", "30 2 * * *", dt.date(2026, 3, 29)),
        ("America/New_York", "30 2 * * *", dt.date(2026, 3, 8)),
        ("Pacific/Apia", "0 0 * * *", dt.date(2011, 12, 30)),
        ("Europe/Berlin", "0 0 * * *", dt.date(2026, 3, 29)),
    ],
)
def test_day_whose_run_airflow_leaves_out_is_taken_by_the_next_run(
    zone: str, schedule: str, change: dt.date, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = ZoneInfo(zone)
    since = dt.datetime.combine(change - 3 * DAY, dt.time(12), dt.UTC)
    runs = nights(schedule, zone, since, monkeypatch)
    taken: list[dt.date] = []
    for run in runs:
        taken += [day for day in left_out(run.start, run.end, local) if day not in taken]
        taken.append(last_complete_day(run.end, local))
    taken.pop(0)  # may be a day left out before the first run
    assert [day_end(day - DAY, local) for day in taken[1:]] == [day_end(day, local) for day in taken[:-1]]
    assert change - DAY in taken


@given(st.data(), st.sampled_from(ZONES), st.sampled_from(DAILY + OTHERS), st.integers(0, 8 * 24 * 60))
def test_manual_run_takes_the_last_day_before_its_moment(
    data: st.DataObject, zone: str, schedule: str, minutes: int
) -> None:
    moment = instance(data.draw(week_of_a_change(ZoneInfo(zone)))) + dt.timedelta(minutes=minutes)
    interval = CronDataIntervalTimetable(schedule, zone).infer_manual_data_interval(run_after=moment)
    found = list_task(zone, schedule).day(
        context("manual", logical_date=moment, data_interval_start=interval.start, data_interval_end=interval.end)
    )
    assert found == last_complete_day(moment, ZoneInfo(zone))
    assert found == list_task(zone, schedule).day(context("manual", run_after=moment)), "without a logical date"


@pytest.mark.parametrize(
    ("zone", "moments", "day"),
    [
        # a backfill's run of 2026-08-01
        ("Europe/Berlin", ("2026-07-31T22:00Z", "2026-07-31T22:00Z", "2026-08-01T22:00Z"), "2026-08-01"),
        ("America/New_York", ("2026-08-01T04:00Z", "2026-08-01T04:00Z", "2026-08-02T04:00Z"), "2026-08-01"),
        # every six hours
        ("UTC", ("2026-08-01T00:00Z", "2026-08-01T00:00Z", "2026-08-01T06:00Z"), "2026-07-31"),
        # at 23:00
        ("UTC", ("2026-08-01T23:00Z", "2026-08-01T23:00Z", "2026-08-02T23:00Z"), "2026-08-01"),
        # weekly: scheduled, and by hand on the Thursday after
        ("UTC", ("2026-07-26T00:00Z", "2026-07-26T00:00Z", "2026-08-02T00:00Z"), "2026-08-01"),
        ("UTC", ("2026-08-06T10:00Z", "2026-07-26T00:00Z", "2026-08-02T00:00Z"), "2026-08-05"),
        # dags test … 2026-04-24T09:00:00, with the interval that Airflow makes where midnight is skipped
        ("Africa/Cairo", ("2026-04-24T09:00Z", "2026-04-23T22:00Z", "2026-04-23T22:00Z"), "2026-04-23"),
        # by the API, with an interval like a scheduled run's
        ("UTC", ("2026-08-01T00:00Z", "2026-08-01T00:00Z", "2026-08-02T00:00Z"), "2026-08-01"),
        # no schedule: the interval is the moment
        ("UTC", ("2026-08-01T10:00Z", "2026-08-01T10:00Z", "2026-08-01T10:00Z"), "2026-07-31"),
    ],
)
def test_day_of_a_run(zone: str, moments: tuple[str, str, str], day: str) -> None:
    logical, start, end = (instance(dt.datetime.fromisoformat(moment)) for moment in moments)
    of_run = context("scheduled", logical_date=logical, data_interval_start=start, data_interval_end=end)
    assert str(list_task(zone).day(of_run)) == day


def test_day_that_has_not_begun_is_refused() -> None:
    asked = context("manual", run_after=dt.datetime.now(dt.UTC))
    asked["params"] = {"date": "2999-01-01"}
    with pytest.raises(ConfigurationError, match="2999-01-01 has not begun in Europe/Berlin: run the day once it is"):
        list_task("Europe/Berlin").day(asked)
    with pytest.raises(ConfigurationError, match="has not begun"):
        list_task("UTC").day(context("manual", logical_date=instance(dt.datetime(2999, 1, 1, tzinfo=dt.UTC))))


def test_day_that_is_not_over_is_run_with_a_warning(caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    today = dt.datetime.now(ZoneInfo("Pacific/Kiritimati")).date()
    asked = context("manual", run_after=dt.datetime.now(dt.UTC))
    asked["params"] = {"date": str(today)}
    assert list_task("Pacific/Kiritimati").day(asked) == today
    captured = capfd.readouterr()
    assert f"{today} is not over in Pacific/Kiritimati" in caplog.text + captured.out + captured.err


def test_backfill_with_a_date_is_refused() -> None:
    asked = scheduled(intervals("0 0 * * *", "UTC", dt.datetime(2026, 8, 1, tzinfo=dt.UTC), 1)[0], "backfill")
    asked["params"] = {"date": "2026-08-01"}
    with pytest.raises(AirflowFailException, match="so each of its runs would process that day: cancel it"):
        list_task("UTC").execute(asked)


@pytest.mark.parametrize(("wait_s", "slept_s"), [(1.0, 20.0), (7200.0, 7200.0), (20 * 3600.0, 11 * 3600.0)])
@pytest.mark.parametrize("operator", [TranscribeRecordings, SegmentCalls])
def test_task_of_a_backfill_that_must_wait_gives_its_worker_back_at_once(
    operator: Any, wait_s: float, slept_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(*_: object) -> None:
        raise BackfillWaits("Backfills submit and ask in the hours 20:00-06:00.", wait_s)

    monkeypatch.setattr(operator, "work", waits)
    task = operator(task_id="chunk", pipeline=pipeline(), manifest="s3://warehouse/state/runs/chunk")
    deferrals: list[Any] = []

    def defer(**how: Any) -> None:
        deferrals.append(SimpleNamespace(**how))
        raise EOFError

    monkeypatch.setattr(operator, "defer", lambda self, **how: defer(**how))
    before = dt.datetime.now(dt.UTC)
    with pytest.raises(EOFError):
        task.execute({"run_id": "scheduled__1"})
    [deferred] = deferrals
    sleeps = deferred.trigger.moment - before
    assert slept_s <= sleeps.total_seconds() < slept_s + 30
    assert deferred.timeout == LONGEST_WAIT > sleeps
    assert deferred.method_name == "resume"
