"""The notes of Dag runs: the day of the calls while a run is on, and at its end what ``verify`` said.

Airflow labels runs by when they are due, a day after the calls. A task can't set the note of its Dag run, so the
scheduler does, which calls this listener with the run and an open session when the run's state changes. It takes the
text from the run's XComs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

_TASKS = ("list", "publish", "verify")


@hookimpl
def on_dag_run_running(dag_run: DagRun, msg: str) -> None:  # noqa: ARG001
    """Note the day, if nobody has noted anything."""
    _note(dag_run, is_over=False)


@hookimpl
def on_dag_run_success(dag_run: DagRun, msg: str) -> None:  # noqa: ARG001
    """Note what the run has come to."""
    _note(dag_run, is_over=True)


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:  # noqa: ARG001
    """Note what the run has come to."""
    _note(dag_run, is_over=True)


def _note(dag_run: DagRun, *, is_over: bool) -> None:
    if not dag_run.dag_id.startswith("call_phases_"):
        return
    from sqlalchemy.orm import object_session

    from callphases.airflow.report import Report, noted

    text: str | None
    try:
        if is_over:
            session = object_session(dag_run)
            found = stored_xcoms(session, dag_run.dag_id, dag_run.run_id) if session is not None else {}
            if not found:
                return  # nothing is known of the run, or it is one of somebody else's Dag whose id begins like ours
            text = Report.of(lambda task, key: found.get((task, key)), lambda: _day(dag_run)).text
        else:
            text = _day(dag_run)
        if text:
            dag_run.note = noted(text, dag_run.note)
    except Exception as error:  # whatever it is, the scheduler goes on
        log.warning("The note of %s, %s, is not set: %s", dag_run.dag_id, dag_run.run_id, type(error).__name__)


def stored_xcoms(session: Session, dag_id: str, run_id: str) -> dict[tuple[str, str], Any]:
    """The XComs of a run that its report is made of, by task and key, read from Airflow's database."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    from callphases.airflow.report import DAY, NOTE, PROBLEM

    query = select(XComModel).where(
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.task_id.in_(_TASKS),
        XComModel.key.in_((DAY, NOTE, PROBLEM, "return_value")),
    )
    with session.no_autoflush:
        rows = session.scalars(query).all()
    return {(row.task_id, row.key): XComModel.deserialize_value(row) for row in rows}


def _day(dag_run: DagRun) -> str | None:
    """The day of a run that begins; None if the Dag has no schedule, as the time zone is not known then."""
    from callphases.airflow.schedule import span_of_dag_run

    zone = dag_run.get_dag().timetable.serialize().get("timezone")
    if not isinstance(zone, str):
        conf = dag_run.conf or {}
        if conf.get("date"):
            return str(conf["date"])
        return " to ".join(str(conf[name]) for name in ("from", "to") if conf.get(name)) or None
    return str(span_of_dag_run(dag_run, ZoneInfo(zone)))
