"""Which day a whole run processes, by ``dag.test()``."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pendulum import DateTime, instance

from callphases.airflow.operators import ListRecordings
from callphases.local_days import DAY, last_complete_day
from night import Night

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("zone", "moment", "day"),
    [
        ("UTC", "2026-11-21T00:00Z", "2026-11-20"),
        ("Africa/Cairo", "2026-04-24T09:00Z", "2026-04-23"),
        ("America/New_York", "2026-11-21T00:00Z", "2026-11-19"),
        ("Europe/Berlin", None, None),
    ],
)
def test_dags_test_takes_the_last_complete_day(night: Night, zone: str, moment: str | None, day: str | None) -> None:
    when = dt.datetime.fromisoformat(moment) if moment else dt.datetime.now(dt.UTC)
    expected = day or str(last_complete_day(when, ZoneInfo(zone)))
    night.pipeline(timezone=zone)
    for number in range(-1, 3):
        night.put(f"calls/{dt.date.fromisoformat(expected) + number * DAY}/one.wav")
    assert night.run(None, logical_date=instance(when)) == "success"
    assert [one["recording_uri"] for one in night.table("calls", expected)] == [
        f"s3://recordings/calls/{expected}/one.wav"
    ]
    assert night.submitted() == 1


def test_scheduled_run_takes_a_day_that_airflow_left_out(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.pipeline(timezone="Africa/Cairo")
    for number in range(4):
        night.put(f"calls/2026-04-2{2 + number}/one.wav")
    start, end = (instance(dt.datetime(2026, 4, day, hour, tzinfo=dt.UTC)) for day, hour in ((23, 22), (24, 21)))
    scheduled = {
        "dag_run": SimpleNamespace(run_type="scheduled", run_after=end),
        "params": {},
        **{"logical_date": start, "data_interval_start": start, "data_interval_end": end},
    }

    def work_as_scheduled(task: ListRecordings, context: Any) -> Any:
        return work(task, {"run_id": context["run_id"], "ti": context["ti"], **scheduled})

    work: Any = ListRecordings.work
    monkeypatch.setattr(ListRecordings, "work", work_as_scheduled)
    assert night.run(None, logical_date=DateTime(2026, 4, 25, tzinfo=dt.UTC)) == "success"
    assert [len(night.table("calls", f"2026-04-2{2 + number}")) for number in range(4)] == [0, 1, 1, 0]
    assert night.run(None, logical_date=DateTime(2026, 4, 25, 1, tzinfo=dt.UTC)) == "success"
    assert night.submitted() == 2
