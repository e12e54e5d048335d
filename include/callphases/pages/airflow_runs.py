"""What Airflow knows of a run: its state, the days of its calls, what it has come to, and which tasks have failed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from callphases.airflow.report import DAY, PROBLEM, Report, counts, fallbacks
from callphases.day_range import DayRange
from callphases.errors import CallphasesError
from callphases.pages.day_page import local
from callphases.pipeline import Pipeline

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

MOST_FAILED_TASKS = 20
MOST_DAYS = 1000
"""Of a run; more than three years are an archive in one run."""
_PARAMS = ("date", "from", "to", "replay", "again")
_TASKS = ("list", "calls.transcribe", "calls.segment", "publish", "verify")


@dataclass(frozen=True)
class TaskProgress:
    """How many instances of a task are in each state, such as ``{"success": 3, "running": 1}``."""

    task_id: str
    states: dict[str, int]


@dataclass(frozen=True)
class FailedTask:
    """A task instance that has failed. ``label`` is what the grid shows of a chunk."""

    task_id: str
    map_index: int
    label: str
    problem: str


@dataclass(frozen=True)
class LateDay:
    """An earlier day that changed after it was published, and that the run has published again."""

    day: dt.date
    counts: str


@dataclass(frozen=True)
class Run:
    """A run of a pipeline.

    Attributes:
        state: Airflow's, such as ``running``.
        params: that it was given, as text; without ``calls``.
        calls: ids of the calls that it was to try again, all of the day ``params["date"]``.
        user: who triggered it; None for Airflow itself.
        began_at, ended_at: in the pipeline's zone; None if it has not.
        is_listed: it has listed its calls.
        days: of its calls, those that it is to list if it has not; at most ``MOST_DAYS``.
        late: other days that it has published again.
        report: what it has come to, or what is known of it so far.
        usd: what it has spent; None if it has not published.
        budget_usd: ``budget.usd_per_run``.
        stopped: why it was stopped; empty if it was not.
        fallbacks: sentences about models that answered instead of the first.
        tasks: in their order; those that do not exist yet are left out.
        failed: the first of the failed task instances.
    """

    run_id: str
    state: str
    params: dict[str, str]
    calls: list[str]
    user: str | None
    began_at: dt.datetime | None
    ended_at: dt.datetime | None
    is_listed: bool
    days: list[dt.date]
    late: list[LateDay]
    report: str
    usd: float | None
    budget_usd: float | None
    stopped: str
    fallbacks: list[str]
    tasks: list[TaskProgress]
    failed: list[FailedTask]

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in ("success", "failed")


def run_of(pipeline: Pipeline, run_id: str) -> Run | None:
    """A run of the pipeline's Dag, from Airflow's database; None if there is none."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    from callphases.airflow.listener import stored_xcoms

    task = TaskInstance.__table__.c
    is_of_run = (task.dag_id == pipeline.dag_id) & (task.run_id == run_id)
    with create_session(scoped=False) as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == pipeline.dag_id, DagRun.run_id == run_id))
        if run is None:
            return None
        xcoms = stored_xcoms(session, pipeline.dag_id, run_id)
        states: dict[str, dict[str, int]] = {}
        counted = select(task.task_id, task.state, func.count()).where(is_of_run).group_by(task.task_id, task.state)
        for task_id, state, count in session.execute(counted):
            states.setdefault(task_id, {})[str(state or "not started")] = count
        failed = session.execute(
            select(task.task_id, task.map_index, task.rendered_map_index)
            .where(is_of_run & (task.state == "failed"))
            .order_by(task.task_id, task.map_index)
            .limit(MOST_FAILED_TASKS)
        ).all()
    published = _published(xcoms)
    conf = run.conf if isinstance(run.conf, dict) else {}
    params, calls = _params(conf), conf.get("calls")
    is_over = str(run.state) in ("success", "failed")
    return Run(
        run_id=run_id,
        state=str(run.state),
        params=params,
        calls=[one for one in calls if isinstance(one, str)] if "date" in params and isinstance(calls, list) else [],
        user=run.triggering_user_name,
        began_at=local(run.start_date, pipeline.zone),
        ended_at=local(run.end_date, pipeline.zone),
        is_listed=bool(published or xcoms.get(("list", DAY))),
        days=_days(published, xcoms) or _due(run, pipeline),
        late=[LateDay(dt.date.fromisoformat(day["dt"]), counts(day)) for day in published.get("late", [])],
        report=_report(str(run.state), published, xcoms) if is_over else "",
        usd=published["run_speech_usd"] + published["run_llm_usd"] if published else None,
        budget_usd=pipeline.budget.usd_per_run,
        stopped=published.get("stopped") or "",
        fallbacks=fallbacks(pipeline, published) if published else [],
        tasks=[TaskProgress(name, states[name]) for name in _TASKS if name in states],
        failed=[
            FailedTask(name, index, label or "", str(xcoms.get((name, PROBLEM)) or "")) for name, index, label in failed
        ],
    )


def _params(conf: Mapping[str, Any]) -> dict[str, str]:
    """Our Params as text; what else somebody has given a run is not for pages."""
    given = {name: value for name in _PARAMS if (value := conf.get(name))}
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in given.items()
    }


def unfinished(dag_id: str, beginning: str) -> str | None:
    """The last run whose id begins so and that waits or runs; None if there is none."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        found: str | None = session.scalar(
            select(DagRun.run_id)
            .where(DagRun.dag_id == dag_id, DagRun.state.in_(("queued", "running")))
            .where(DagRun.run_id.startswith(beginning, autoescape=True))
            .order_by(DagRun.id.desc())
            .limit(1)
        )
        return found


def _days(published: Mapping[str, Any], xcoms: Mapping[tuple[str, str], Any]) -> list[dt.date]:
    """The days of a run: those that it has published, else those that it was to list."""
    if (of_range := published.get("days")) is not None:
        return [dt.date.fromisoformat(day) for day in of_range]
    text = published.get("dt") or xcoms.get(("list", DAY))
    first, _, last = str(text).partition(" to ")
    try:
        return _of_range(DayRange(dt.date.fromisoformat(first), dt.date.fromisoformat(last or first)))
    except ValueError:  # there is no such XCom, or somebody has written another
        return []


def _due(run: DagRun, pipeline: Pipeline) -> list[dt.date]:
    """The days that a run is to list, or has listed before its XComs were deleted."""
    from callphases.airflow.schedule import span_of_dag_run

    try:
        span = span_of_dag_run(run, pipeline.zone)
    except (CallphasesError, ValueError, TypeError):  # its Params are no dates
        return []
    return _of_range(span) if isinstance(span, DayRange) else [span]


def _of_range(days: DayRange) -> list[dt.date]:
    return list(islice(days, MOST_DAYS))


def _published(xcoms: Mapping[tuple[str, str], Any]) -> Mapping[str, Any]:
    """What ``publish`` has returned; empty if it has not, or if somebody has written something else in its place."""
    found: Any = xcoms.get(("publish", "return_value"))
    try:
        for day in (found, *found.get("late", [])):
            counts(day)
            dt.date.fromisoformat(day["dt"].partition(" to ")[0])
        [dt.date.fromisoformat(day) for day in found.get("days") or []]
        float(found["run_speech_usd"] + found["run_llm_usd"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    return cast(Mapping[str, Any], found)


def _report(state: str, published: Mapping[str, Any], xcoms: Mapping[tuple[str, str], Any]) -> str:
    if state == "success" and not published:
        return "What the run came to is no longer known: its XComs were deleted."
    known = {**xcoms, ("publish", "return_value"): published}
    return Report.of(lambda name, key: known.get((name, key)), lambda: None).text
