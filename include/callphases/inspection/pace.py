"""How fast an archive is processed, from when the runs of its days began and published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from callphases.state.summaries import DaySummary

GAP = dt.timedelta(hours=6)
"""Between the publications of one stretch of work, no longer than this passes without a run."""
WINDOW = dt.timedelta(days=2)
"""How long before the latest publication others still count."""


@dataclass(frozen=True)
class Pace:
    """What was done over a stretch of work that may go on.

    Attributes:
        since, until: when the first run of the stretch began, and the last publication.
        recordings_per_hour, usd_per_hour: over that time; None if it is not known when the runs began.
    """

    since: dt.datetime
    until: dt.datetime
    recordings_per_hour: float | None
    usd_per_hour: float | None

    def is_current(self, now: dt.datetime) -> bool:
        """Whether what goes on now may be of the same stretch of work."""
        return now - self.until <= GAP


def pace_of(summaries: Iterable[DaySummary], now: dt.datetime) -> Pace | None:
    """The pace of the latest stretch of work; None if nothing was published.

    The time runs from the beginning of the first run, whether runs go side by side or one after the other: a run of
    many days publishes all of them at its end. Work that is not published yet does not count, though its time does.
    """
    published = sorted((one for one in summaries if one.published_at <= now), key=lambda one: one.published_at)
    if not published:
        return None
    until = since = published[-1].published_at
    stretch: list[DaySummary] = []
    for one in reversed(published):
        if since - one.published_at > GAP or until - one.published_at > WINDOW:
            break
        if one.began_at is not None:
            stretch.append(one)
            since = min(since, one.began_at)
    hours = (until - since) / dt.timedelta(hours=1)
    if not hours:
        return Pace(since, until, None, None)
    usd = sum(one.speech_usd + one.llm_usd for one in stretch)
    return Pace(since, until, sum(one.listed for one in stretch) / hours, usd / hours)
