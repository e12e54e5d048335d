"""A calendar in words: what it says of runs that wait."""

from __future__ import annotations

import datetime as dt

import pytest

from archives import days, lease, put_all
from callphases.inspection import calendar_views
from callphases.inspection.calendar import read_calendar
from doubles import Store

pytestmark = pytest.mark.integration
NOW = dt.datetime(2026, 11, 21, 3, tzinfo=dt.UTC)


def test_days_of_a_run_that_waits_are_held_and_not_to_do(s3: Store) -> None:
    put_all(s3.recordings, (f"calls/{day}/a.mp3" for day in days("2026-11-01", "2026-11-03")))
    lease(s3, "days=2026-11-01_2026-11-02")
    lease(s3, "dt=2026-11-01", range="2026-11-01/2026-11-02")
    s3.clock.wait(3600.0)
    found = read_calendar(s3.pipeline(), s3.client, dt.date(2026, 11, 1), dt.date(2026, 11, 3), now=NOW)
    lines = [line.plain for line in calendar_views.lines(found, "support.yaml")]
    assert lines[3].startswith("2026-11 HHT")
    assert "H  2 days held by a run not heard of for ten minutes: it waits, or was killed" in lines
    assert "Pace: the run that holds days was last heard of at 2026-11-21 02:00: it waits, or was killed." in lines
    assert lines[-4:] == [
        "1 day to do: have Airflow run them, unless a backfill in Airflow is on its way to them.",
        "  callphases backfill support.yaml --from 2026-11-03 --to 2026-11-03",
        "2 days held by a run that was last heard of at 2026-11-21 02:00: it may wait for its hours, its dollars or "
        "the provider; if it is not in Airflow any more, begin again.",
        "  callphases backfill support.yaml --from 2026-11-01 --to 2026-11-02",
    ]
    one_line = calendar_views.line(found)
    assert "2 held" in one_line
    assert "nothing is running" not in one_line
