"""The notes of Dag runs, with the scheduler's objects; ``tests/e2e/test_scheduler.py`` has the scheduler itself."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest

from callphases.airflow import listener
from callphases.airflow.plugin import CallphasesPlugin
from callphases.airflow.report import NOTE, PROBLEM

MIDNIGHT = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)


def dag_run(zone: str | None = "UTC", **changes: Any) -> Any:
    dag = SimpleNamespace(timetable=SimpleNamespace(serialize=lambda: {} if zone is None else {"timezone": zone}))
    values = {
        "dag_id": "call_phases_support",
        "run_id": "run-1",
        "conf": {},
        "note": None,
        "logical_date": MIDNIGHT,
        "data_interval_start": MIDNIGHT,
        "data_interval_end": MIDNIGHT + dt.timedelta(days=1),
        "run_after": MIDNIGHT + dt.timedelta(days=1),
        "get_dag": lambda: dag,
    }
    return SimpleNamespace(**{**values, **changes})


def ended(run: Any, monkeypatch: pytest.MonkeyPatch, **xcoms: Any) -> str | None:
    found = {("verify", NOTE): xcoms.get("verify"), ("list", PROBLEM): xcoms.get("list")}
    monkeypatch.setattr("sqlalchemy.orm.object_session", lambda one: "session")
    monkeypatch.setattr(listener, "stored_xcoms", lambda *_: {key: one for key, one in found.items() if one})
    listener.on_dag_run_failed(dag_run=run, msg="")
    note: str | None = run.note
    return note


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, "2026-11-20"),
        ({"zone": "America/New_York"}, "2026-11-19"),
        ({"conf": {"date": "2025-01-01"}}, "2025-01-01"),
        ({"conf": None}, "2026-11-20"),
        ({"zone": None}, None),
        ({"zone": None, "conf": {"date": "2025-01-01"}}, "2025-01-01"),
        ({"note": "For Ada."}, "2026-11-20\n\nFor Ada."),
        ({"dag_id": "another"}, None),
        ({"conf": {"date": "soon"}}, None),
    ],
)
def test_run_that_begins_is_noted_with_the_day_of_its_calls(changes: dict[str, Any], note: str | None) -> None:
    run = dag_run(**changes)
    listener.on_dag_run_running(dag_run=run, msg="")
    assert run.note == note


def test_run_that_ends_is_noted_with_what_verify_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "2026-11-20: 1 listed = 1 completed. $0.00 spent by this run."
    assert ended(dag_run(note="2026-11-20"), monkeypatch, verify=said) == said


def test_run_that_could_not_list_is_noted_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(dag_run(note="2026-11-20"), monkeypatch, list="Wrong key.") == "2026-11-20: not published. Wrong key."


def test_run_of_which_nothing_is_known_keeps_its_note(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(dag_run(note="2026-11-20"), monkeypatch) == "2026-11-20"


def test_error_does_not_reach_the_scheduler(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("sqlalchemy.orm.object_session", lambda one: "session")
    monkeypatch.setattr(listener, "stored_xcoms", lambda *_: 1 / 0)
    listener.on_dag_run_success(dag_run=dag_run(), msg="")
    assert "The note of call_phases_support, run-1, is not set: ZeroDivisionError" in caplog.text


def test_plugin_has_the_listener_and_nothing_else() -> None:
    assert CallphasesPlugin.listeners == [listener]
    assert not CallphasesPlugin.fastapi_apps
