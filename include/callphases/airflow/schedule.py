"""The timetable of a pipeline's Dag."""

from __future__ import annotations

from callphases.airflow.compat import CronDataIntervalTimetable
from callphases.pipeline import DagSettings


def timetable(settings: DagSettings) -> CronDataIntervalTimetable | None:
    """A run at each time of the schedule, for the interval since the time before; None if there is no schedule."""
    return None if settings.cron is None else CronDataIntervalTimetable(settings.cron, timezone=settings.timezone)
