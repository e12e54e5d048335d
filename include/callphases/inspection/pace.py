"""How fast an archive is processed, from when its days were published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from callphases.state.summaries import DaySummary

GAP = dt.timedelta(hours=6)
"""Publications that are further apart than this are not of the same stretch of work. A run of a month of days publishes
after hours; nights are a day apart."""
AT_ONCE = dt.timedelta(minutes=2)
"""A run that publishes days in shorter intervals than this had done the work on them before."""
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
        """Whether what goes on now may be of the same stretch of work."""
        return now - self.until <= GAP


def pace_of(summaries: Iterable[DaySummary], now: dt.datetime) -> Pace | None:
    """The pace of the latest stretch of publications; None if nothing was published.

    What a run publishes at once counts at the moment of its last day. What came first only marks the beginning of the
    time: when the work on it began is not known.
    """
    batches = sorted(_batches(one for one in summaries if one.published_at <= now), key=_at, reverse=True)
    if not batches:
        return None
    until = since = _at(batches[0])
    stretch: list[list[DaySummary]] = []
    for batch in batches:
        if since - _at(batch) > GAP or until - _at(batch) > WINDOW:
            break
        stretch.append(batch)
        since = _at(batch)
    hours = (until - since) / dt.timedelta(hours=1)
    if not hours:
        return Pace(since, until, None, None)
    counted = [one for batch in stretch[:-1] for one in batch]
    recordings = sum(one.listed for one in counted)
    usd = sum(one.speech_usd + one.llm_usd for one in counted)
    return Pace(since, until, recordings / hours, usd / hours)


def _batches(summaries: Iterable[DaySummary]) -> Iterator[list[DaySummary]]:
    """What each run has published at once, which is one day for most runs."""
    batch: list[DaySummary] = []
    for one in sorted(summaries, key=lambda one: (one.run_id, one.published_at)):
        if batch and (one.run_id != batch[-1].run_id or one.published_at - batch[-1].published_at > AT_ONCE):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _at(batch: Sequence[DaySummary]) -> dt.datetime:
    return batch[-1].published_at
