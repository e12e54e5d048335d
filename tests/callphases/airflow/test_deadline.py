"""The alert of a night that is late: at the right moment, and to the one who is to know."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from callphases.airflow.deadline import deadline_alert, tables_are_late
from doubles import pipeline

NIGHT = {"dag_run": {"dag_run_id": "scheduled__2026-11-20T00:00:00+00:00", "run_type": "scheduled"}}
told: list[tuple[str, dict[str, Any]]] = []


def tell(message: str, context: dict[str, Any]) -> None:
    told.append((message, context))


async def tell_later(message: str, context: dict[str, Any]) -> None:
    await asyncio.sleep(0)
    told.append((message, context))


@pytest.fixture(autouse=True)
def nobody_told() -> None:
    told.clear()


def test_without_a_deadline_there_is_no_alert() -> None:
    assert deadline_alert(pipeline()) is None


@pytest.mark.parametrize(
    ("schedule", "by", "hours"),
    [("0 0 * * *", "06:00", 30), ("@daily", "06:30", 30.5), ("30 5 * * *", "06:00", 24.5), ("0 22 * * *", "06:00", 32)],
)
def test_the_tables_are_due_at_that_time_after_the_run_may_begin(schedule: str, by: str, hours: float) -> None:
    alert = deadline_alert(pipeline(schedule=schedule, deadline={"by": by}))
    assert alert is not None
    assert alert.interval == dt.timedelta(hours=hours)
    assert alert.callback.path == "callphases.airflow.deadline.tables_are_late"


@pytest.mark.parametrize("function", ["tell", "tell_later"])
def test_whom_the_file_names_is_told(function: str, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(tables_are_late("support", "06:00", f"{__name__}.{function}", NIGHT))
    [(message, context)] = told
    assert message.startswith("The tables of support are not there by 06:00: the run scheduled__2026-11-20")
    assert context == NIGHT
    assert message in caplog.text


def test_without_a_function_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(tables_are_late("support", "06:00", None, NIGHT))
    assert "not there by 06:00" in caplog.text


def test_a_backfill_of_days_long_past_alerts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    backfill = {"dag_run": {**NIGHT["dag_run"], "run_type": "backfill"}}
    asyncio.run(tables_are_late("support", "06:00", f"{__name__}.tell", backfill))
    assert told == []
    assert caplog.text == ""
