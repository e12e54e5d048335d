"""Backfills of whole local days: which of Airflow's runs process them, and the command that creates these runs.

``airflow backfill create`` takes moments, and reads a date as midnight in Airflow's ``[core] default_timezone`` (UTC
unless it is set). It creates the runs whose data interval starts from the first moment to the second, both included.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.models.backfill import Backfill, BackfillDagRun
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.utils.session import create_session
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from callphases.errors import ConfigurationError
from callphases.local_days import DAY, day_end, exists, last_complete_day
from callphases.pipeline import DagSettings

if TYPE_CHECKING:
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.timetables.base import DataInterval
    from sqlalchemy.orm import Session

LONGEST_INTERVAL = 400 * DAY
"""Between two runs of a schedule that is not daily; a yearly one's is the longest."""


@dataclass(frozen=True)
class BackfillPlan:
    """The runs of a backfill.

    Attributes:
        dag_id: the pipeline's Dag.
        days: the days that they process, without those that the zone doesn't have.
        runs: how many there are; more than ``days`` if the schedule has several a day.
        from_date, to_date: the moments to give to Airflow, in the pipeline's zone: the start of the first run's data
            interval (or a second before it), and that of the last one's.
    """

    dag_id: str
    days: list[dt.date]
    runs: int
    from_date: dt.datetime
    to_date: dt.datetime

    def arguments(self) -> list[str]:
        """The arguments of ``airflow`` that create the backfill."""
        from_date, to_date = self.from_date.isoformat(), self.to_date.isoformat()
        return ["backfill", "create", "--dag-id", self.dag_id, "--from-date", from_date, "--to-date", to_date]


def plan(settings: DagSettings, first: dt.date, last: dt.date) -> BackfillPlan:
    """The runs that process the days from ``first`` to ``last``, both included.

    Raises:
        ConfigurationError: Airflow's database or its Dag can't be used as it is, or there is not a run for each day.
    """
    zone, now = settings.zone, dt.datetime.now(dt.UTC)
    if first > last:
        raise ConfigurationError(f"--from {first} is after --to {last}.")
    if day_end(last, zone) > now:
        raise ConfigurationError(f"{last} is not over in {zone.key}: give an earlier day to --to.")
    dag = _dag(settings)
    days = [day for number in range((last - first).days + 1) if exists(day := first + number * DAY, zone)]
    since = day_end(first, zone) - (3 * DAY if settings.time_of_day is not None else LONGEST_INTERVAL)
    # Airflow, too, leaves out the runs that are not due.
    day_of = {
        interval.start: last_complete_day(interval.end, zone)
        for interval in _intervals(dag, since, day_end(last + DAY, zone))
        if interval.end < now
    }
    starts = [start for start, day in day_of.items() if first <= day <= last]
    if missing := sorted(set(days).difference(day_of.values())):
        trigger = f'airflow dags trigger {settings.dag_id} --conf \'{{"date": "{missing[0]}"}}\''
        raise ConfigurationError(
            f"A backfill makes only runs of the schedule, and {settings.schedule!r} has none, or not yet, for "
            f"{len(missing)} of {len(days)} days, such as {missing[0]}. To run that day: {trigger}"
        )
    if not days:
        raise ConfigurationError(f"{zone.key} has no {first}.")
    begin, end = starts[0].timestamp(), starts[-1].timestamp()
    # Airflow leaves out a run that starts at the first moment, if the clocks skip the time of the next run.
    if [interval.start for interval in _intervals(dag, starts[0], starts[-1])] != starts:
        begin -= 1
    from_date, to_date = (dt.datetime.fromtimestamp(moment, zone) for moment in (begin, end))
    return BackfillPlan(settings.dag_id, days, len(starts), from_date, to_date)


def earlier_runs(plan: BackfillPlan) -> dict[str, int]:
    """How many scheduled runs and runs of backfills there are for the days, by their state."""
    with _database() as session:
        states = session.scalars(
            select(DagRun.state).where(
                DagRun.dag_id == plan.dag_id,
                DagRun.logical_date.between(plan.from_date, plan.to_date),
                DagRun.run_type.in_(("scheduled", "backfill")),
            )
        )
        return Counter(str(state) for state in states)


def check_runs_can_start(plan: BackfillPlan) -> None:
    """Check that Airflow would start the runs of a backfill.

    Raises:
        ConfigurationError: the Dag is paused, or another backfill of it is running.
    """
    dag_id = plan.dag_id
    with _database() as session:
        is_paused = session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag_id))
        unfinished = select(Backfill.id).where(Backfill.dag_id == dag_id, Backfill.completed_at.is_(None))
        is_running = session.scalar(unfinished.limit(1)) is not None
    if is_paused:
        raise ConfigurationError(
            f"The Dag {dag_id} is paused, and Airflow would not start its runs: airflow dags unpause {dag_id}"
        )
    if is_running:
        raise ConfigurationError(
            f"Another backfill of {dag_id} is running, and Airflow runs one at a time: wait for it, or cancel it."
        )


def create(plan: BackfillPlan, *options: str) -> None:
    """Have Airflow create a backfill; ``options`` are those of its command. It prints to standard output.

    Raises:
        ConfigurationError: Airflow refuses.
    """
    from airflow.cli.cli_parser import get_parser

    arguments = get_parser().parse_args([*plan.arguments(), *options])
    try:
        arguments.func(arguments)
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"Airflow did not create the backfill: {type(error).__name__}: {error}") from None


def created(plan: BackfillPlan) -> tuple[int, dict[str, int]]:
    """Of the latest backfill of a Dag: how many runs it has, and how many it does not have, by Airflow's reason."""
    with _database() as session:
        latest = select(func.max(Backfill.id)).where(Backfill.dag_id == plan.dag_id).scalar_subquery()
        reasons = session.scalars(select(BackfillDagRun.exception_reason).where(BackfillDagRun.backfill_id == latest))
        counts = Counter(reasons)
    return counts.pop(None, 0), {str(reason): count for reason, count in counts.items()}


@contextlib.contextmanager
def _database() -> Iterator[Session]:
    try:
        with create_session() as session:
            yield session
    except DBAPIError as error:
        raise ConfigurationError(
            f"Airflow's database can't be used ({type(error).__name__}): run this where airflow db check succeeds, and "
            "with the same settings (AIRFLOW_HOME, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN)."
        ) from None


def _dag(settings: DagSettings) -> SerializedDAG:
    """The Dag as Airflow's scheduler knows it."""
    if settings.cron is None:
        raise ConfigurationError(
            f"The pipeline {settings.pipeline} has no schedule, and a backfill makes only runs of a schedule: set "
            "schedule, or run each day with airflow dags trigger."
        )
    dag_id = settings.dag_id
    with _database() as session:
        is_stale = session.scalar(select(DagModel.is_stale).where(DagModel.dag_id == dag_id))
        dag = None if is_stale else SerializedDagModel.get_dag(dag_id, session=session)
    if dag is None:
        raise ConfigurationError(
            f"Airflow has no Dag {dag_id}: check that the file is in the folder that its Dag processor reads "
            "(CALLPHASES_PIPELINES), and wait until it has read the file."
        )
    if CronDataIntervalTimetable(settings.cron, settings.timezone) != dag.timetable:
        raise ConfigurationError(
            f"The Dag {dag_id} has another schedule or time zone than the file. Airflow's Dag processor reads another "
            "file, or has not read this one since it was changed."
        )
    return dag


def _intervals(dag: SerializedDAG, earliest: dt.datetime, latest: dt.datetime) -> list[DataInterval]:
    """The data intervals that start from ``earliest`` to ``latest``, as a backfill finds them."""
    runs = dag.iter_dagrun_infos_between(earliest, latest)
    return [run.data_interval for run in runs if run.data_interval is not None]
