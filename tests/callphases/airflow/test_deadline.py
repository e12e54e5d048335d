"""The deadline alert: when it is due, and who is notified."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from callphases.airflow.compat import HAS_DEADLINES
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


def test_no_deadline_means_no_alert() -> None:
    assert deadline_alert(pipeline()) is None


def test_deadline_has_no_effect_but_a_warning_before_3_2(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("callphases.airflow.deadline.HAS_DEADLINES", False)
    assert deadline_alert(pipeline(deadline={"by": "06:00"})) is None
    assert "it needs Airflow 3.2 or newer" in caplog.text


@pytest.mark.skipif(not HAS_DEADLINES, reason="Airflow 3.1 has no use of deadlines")
@pytest.mark.parametrize(
    ("schedule", "by", "hours"),
    [("0 0 * * *", "06:00", 30), ("@daily", "06:30", 30.5), ("30 5 * * *", "06:00", 24.5), ("0 22 * * *", "06:00", 32)],
)
def test_interval_runs_from_the_data_interval_to_the_deadline(schedule: str, by: str, hours: float) -> None:
    alert = deadline_alert(pipeline(schedule=schedule, deadline={"by": by}))
    assert alert is not None
    assert alert.interval == dt.timedelta(hours=hours)
    assert alert.callback.path == "callphases.airflow.deadline.tables_are_late"


@pytest.mark.parametrize("function", ["tell", "tell_later"])
def test_notify_function_is_called(function: str, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(tables_are_late("support", "06:00", f"{__name__}.{function}", NIGHT))
    [(message, context)] = told
    assert message.startswith("The tables of support were not published by 06:00: the run scheduled__2026-11-20")
    assert context == NIGHT
    assert message in caplog.text


def test_missed_deadline_is_logged_without_a_function(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(tables_are_late("support", "06:00", None, NIGHT))
    assert "not published by 06:00" in caplog.text


def test_backfill_does_not_alert(caplog: pytest.LogCaptureFixture) -> None:
    backfill = {"dag_run": {**NIGHT["dag_run"], "run_type": "backfill"}}
    asyncio.run(tables_are_late("support", "06:00", f"{__name__}.tell", backfill))
    assert told == []
    assert caplog.text == ""
