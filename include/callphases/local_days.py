"""Days in a time zone: when one is over, and which was the last complete one at a moment.

Where clocks change at midnight a day begins later than 00:00, or 00:00 comes twice. A zone that moves across the date
line leaves out a whole day (Pacific/Apia had no 2011-12-30).
"""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

DAY = dt.timedelta(days=1)


def day_end(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    """The moment in UTC from which on ``day`` is over: no later moment has that date or an earlier one.

    Exact for every zone from 1970 on, as no clock has been put forward from before midnight to after it.
    """
    midnight = dt.datetime.combine(day + DAY, dt.time(), zone)
    # Two different moments if the clocks change then. In a gap the later one is that of the change.
    first, second = sorted(midnight.replace(fold=fold).astimezone(dt.UTC) for fold in (0, 1))
    before_second = (second - dt.timedelta(microseconds=1)).astimezone(zone)
    return second if before_second.date() <= day else first


def exists(day: dt.date, zone: ZoneInfo) -> bool:
    """Whether any moment has the date ``day``."""
    return day_end(day - DAY, zone) < day_end(day, zone)


def last_complete_day(moment: dt.datetime, zone: ZoneInfo) -> dt.date:
    """The latest day that is over at ``moment``, which is aware of its zone."""
    day = moment.astimezone(zone).date() - DAY
    while day_end(day, zone) > moment or not exists(day, zone):
        day -= DAY
    return day


def left_out(start: dt.datetime, end: dt.datetime, zone: ZoneInfo) -> list[dt.date]:
    """The days before that of a daily run that perhaps no run has had, because clocks were put forward.

    If the clocks skip the time of a schedule, Airflow runs it an hour later. If it has not made that run by the time
    that it next reads the Dag file, it leaves the run out (without ``catchup``, CronDataIntervalTimetable of 3.3 takes
    the run's start for its end). A schedule in the last hour of a day may also be run after midnight, one day further.

    Args:
        start: of the run's data interval, when the run before should have begun.
        end: of the run's data interval.
        zone: of the days and of the schedule.
    """
    first = last_complete_day(start, zone)
    if not _was_put_off(start, zone):
        first += DAY
    count = (last_complete_day(end, zone) - first).days
    return [day for number in range(count) if exists(day := first + number * DAY, zone)]


def _was_put_off(moment: dt.datetime, zone: ZoneInfo) -> bool:
    """Whether ``moment`` is so soon after the clocks were put forward that it may stand for a time that they skip."""
    offset = _offset(moment, zone)
    skipped = offset - _offset(moment - DAY, zone)
    return skipped > dt.timedelta() and _offset(moment - skipped, zone) != offset


def _offset(moment: dt.datetime, zone: ZoneInfo) -> dt.timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
