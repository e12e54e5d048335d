"""How fast an archive is processed, from when its days were published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from callphases.state.summaries import DaySummary

GAP = dt.timedelta(hours=2)
"""Publications that are further apart than this are not of the same stretch of work."""
WINDOW = dt.timedelta(days=2)
"""The longest stretch that the pace is measured over."""


@dataclass(frozen=True)
class Pace:
    """What was done over a stretch of work that may go on.

    Attributes:
        since, until: the publications that it is measured between.
        recordings_per_hour, usd_per_hour: over that time; None if all was published at once, by one run.
    """

    since: dt.datetime
    until: dt.datetime
    recordings_per_hour: float | None
    usd_per_hour: float | None

    def is_current(self, now: dt.datetime) -> bool:
        """Whether so little time has passed since that the work may go on."""
        return now - self.until <= GAP


def pace_of(summaries: Iterable[DaySummary], now: dt.datetime) -> Pace | None:
    """The pace of the latest stretch of publications; None if nothing was published.

    What a run of several days publishes counts at the moment of its last day. What came first only marks the beginning
    of the time: when the work on it began is not known.
    """
    by_run: dict[str, list[DaySummary]] = {}
    for one in summaries:
        if one.published_at <= now:
            by_run.setdefault(one.run_id, []).append(one)
    runs = [(max(one.published_at for one in of_run), of_run) for of_run in by_run.values()]
    runs.sort(key=lambda run: run[0], reverse=True)
    if not runs:
        return None
    until = since = runs[0][0]
    stretch: list[list[DaySummary]] = []
    for at, of_run in runs:
        if since - at > GAP or until - at > WINDOW:
            break
        stretch.append(of_run)
        since = at
    hours = (until - since) / dt.timedelta(hours=1)
    if not hours:
        return Pace(since, until, None, None)
    counted = [one for of_run in stretch[:-1] for one in of_run]
    recordings = sum(one.listed for one in counted)
    usd = sum(one.speech_usd + one.llm_usd for one in counted)
    return Pace(since, until, recordings / hours, usd / hours)
