"""What the last publication of each day came to, a month of days in one object.

With it a year of days is read by a dozen requests. It follows from the ledger and the tables, and replaces neither: a
day that is not in it may be published nevertheless, by a version before this one.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from zoneinfo import ZoneInfo

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.day_range import Again, DayRange
from callphases.local_days import exists
from callphases.state import layout
from callphases.state.shared_document import SharedDocument
from callphases.state.storage import ObjectPrefix

READERS = 8


@dataclass(frozen=True)
class DaySummary:
    """The last publication of a day.

    Attributes:
        day: of the calls.
        published_at: when, in UTC.
        run_id: the run that published it.
        listed: recordings of the day in the bucket.
        kept: rows of recordings that are not in the bucket any more.
        statuses, failures: rows by ``status`` and by ``failure_class``.
        unfinished: recordings that the run did not get to the end of.
        audio_s: the length of all rows' recordings, in seconds.
        speech_usd, llm_usd: what the day's rows cost.
        stopped: why the run was stopped before it was finished; None if it was not.
        began_at: when that run began to list its days, in UTC; None if an earlier version has published.
        phase_s: seconds of all rows' phases by name, kept ones too; empty if an earlier version has published.
        lineage: all rows, kept ones too, by ``prompt_version``, ``speech_model`` and ``llm_model``: column → value →
            rows; empty if an earlier version has published.
    """

    day: dt.date
    published_at: dt.datetime
    run_id: str
    listed: int
    kept: int
    statuses: dict[str, int]
    failures: dict[str, int]
    unfinished: int
    audio_s: float
    speech_usd: float
    llm_usd: float
    stopped: str | None = None
    began_at: dt.datetime | None = None
    phase_s: dict[str, float] = field(default_factory=dict)
    lineage: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether the run got to the end of every recording, be it a failure."""
        return not self.unfinished and self.stopped is None


def record(state: ObjectPrefix, summaries: Iterable[DaySummary], clock: Clock = SYSTEM_CLOCK) -> None:
    """Write the summaries of days, over those that there are: one conditional write a month.

    Raises:
        ServiceUnavailable: the store does not answer, or other runs were faster each time.
    """
    by_month = defaultdict[str, dict[str, Any]](dict)
    for one in summaries:
        by_month[f"{one.day:%Y-%m}"][str(one.day)] = _document(one)
    for month, days in by_month.items():

        def update(document: dict[str, Any], days: dict[str, Any] = days) -> bool:
            document["days"] = {**document.get("days", {}), **days}
            return True

        SharedDocument(state, layout.summaries(month), clock).change(update)


def read_summaries(state: ObjectPrefix, first: dt.date, last: dt.date) -> dict[dt.date, DaySummary]:
    """The summaries of the days from ``first`` to ``last``, in order: one request a month.

    Raises:
        ServiceUnavailable: the store does not answer.
    """
    found: dict[dt.date, DaySummary] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for body in pool.map(state.get, map(layout.summaries, _months(first, last))):
            for day, document in json.loads(body or b"{}").get("days", {}).items():
                if first <= dt.date.fromisoformat(day) <= last:
                    found[dt.date.fromisoformat(day)] = _summary(day, document)
    return dict(sorted(found.items()))


def days_to_do(state: ObjectPrefix, days: DayRange, again: Again, zone: ZoneInfo) -> list[dt.date]:
    """Those of the days, as far as ``zone`` has them, that are not done or that ``again`` says are to be run again.

    Raises:
        ServiceUnavailable: the store does not answer.
    """
    summaries = {} if again == "completed" else read_summaries(state, days.first, days.last)
    done = {day for day, one in summaries.items() if one.is_done and (again == "none" or "failed" not in one.statuses)}
    return [day for day in days if day not in done and exists(day, zone)]


def _months(first: dt.date, last: dt.date) -> Iterator[str]:
    month = first.replace(day=1)
    while month <= last:
        yield f"{month:%Y-%m}"
        month = (month + dt.timedelta(days=31)).replace(day=1)


def _document(one: DaySummary) -> dict[str, Any]:
    began = one.began_at.isoformat() if one.began_at is not None else None
    document = {**asdict(one), "published_at": one.published_at.isoformat(), "began_at": began}
    del document["day"]
    return document


def _summary(day: str, document: dict[str, Any]) -> DaySummary:
    known = {one.name for one in fields(DaySummary)}
    values = {name: value for name, value in document.items() if name in known}
    at = dt.datetime.fromisoformat(document["published_at"])
    began = dt.datetime.fromisoformat(document["began_at"]) if document.get("began_at") else None
    return DaySummary(**{**values, "day": dt.date.fromisoformat(day), "published_at": at, "began_at": began})
