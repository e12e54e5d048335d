"""The timetable of a pipeline's Dag, and the day that a run of it processes."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

from callphases.airflow.compat import CronDataIntervalTimetable
from callphases.airflow.ranges import RangeRun
from callphases.day_range import Span
from callphases.local_days import last_complete_day
from callphases.pipeline import DagSettings


def timetable(settings: DagSettings) -> CronDataIntervalTimetable | None:
    """A run at each time of the schedule, for the interval since the time before; None if there is no schedule."""
    return None if settings.cron is None else CronDataIntervalTimetable(settings.cron, timezone=settings.timezone)


def span_of_dag_run(run: Any, zone: ZoneInfo) -> Span:
    """The day that a Dag run processes, or the days, from Airflow's object of it.

    Raises:
        ConfigurationError, ValueError: its Params are no dates.
    """
    conf = run.conf or {}
    if (of_range := RangeRun.of(conf)) is not None:
        return of_range.days
    return day_of_run(
        conf.get("date"), run.logical_date, (run.data_interval_start, run.data_interval_end), run.run_after, zone
    )


def day_of_run(
    asked: str | None,
    logical_date: dt.datetime | None,
    interval: tuple[dt.datetime | None, dt.datetime | None],
    run_after: dt.datetime,
    zone: ZoneInfo,
) -> dt.date:
    """The day to process: the one that was asked for, else the last that is complete when the run may begin.

    Args:
        asked: the Param ``date``.
        logical_date: of the run, as the others.
        interval: the start and the end of its data interval.
        run_after: the moment from which it may run.
        zone: of the pipeline's days.

    Raises:
        ValueError: ``asked`` is no date.
    """
    if asked:
        return dt.date.fromisoformat(asked[:10])
    start, end = interval
    # The logical date of a scheduled run, and of a backfill's, is the start of its interval. That of a run triggered by
    # hand is any moment, or there is none; its interval is one that ended before.
    if end is not None and logical_date in (None, start):
        return last_complete_day(end, zone)
    return last_complete_day(logical_date or run_after, zone)
