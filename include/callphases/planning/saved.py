"""What an archive was expected to cost, kept in the state area, to compare with what it did cost.

``plans/<first>_<last>.json`` (see ``state/layout.py``) is one JSON object::

    {"from": "2026-09-01", "to": "2026-11-30", "pipeline": "support_calls",
     "planned_at": "2026-11-29T17:00:00+00:00", "measured": 3000,
     "months": {"2026-09": {"audio_s": 7200.0, "speech_usd": 0.46, "llm_usd": 0.3}},
     "days": {"2026-09-01": {"recordings": 20, "bytes": 31250000, "unreadable": 0}}}

``months`` is what all of a month's recordings were expected to come to, with what was paid for already. It stays as it
was first planned as soon as anything has been paid for since; ``days`` are those of the last plan, only days with
recordings. ``unreadable`` recordings have to be restored from an archived storage class.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass, field

from callphases.day_range import DayRange
from callphases.inspection import day_counts
from callphases.inspection.day_counts import Planned
from callphases.planning.survey import DayCount
from callphases.state import layout
from callphases.state.storage import ObjectPrefix


@dataclass(frozen=True)
class MonthCost:
    """What a month's recordings come to: seconds of audio, and US dollars."""

    audio_s: float
    speech_usd: float
    llm_usd: float

    @property
    def usd(self) -> float:
        """For both services."""
        return self.speech_usd + self.llm_usd


@dataclass(frozen=True)
class SavedPlan:
    """A plan as it is kept; see the module."""

    days: DayRange
    pipeline: str
    planned_at: dt.datetime
    months: dict[str, MonthCost]
    by_day: dict[dt.date, DayCount] = field(default_factory=dict)
    measured: int = 0


def write_plan(state: ObjectPrefix, plan: SavedPlan) -> None:
    """Keep a plan, in place of that of the same days.

    Raises:
        ConfigurationError, ServiceUnavailable: the state area can't be written.
    """
    document = {
        "from": str(plan.days.first),
        "to": str(plan.days.last),
        "pipeline": plan.pipeline,
        "planned_at": plan.planned_at.isoformat(),
        "measured": plan.measured,
        "months": {month: asdict(one) for month, one in sorted(plan.months.items())},
        "days": {str(day): asdict(one) for day, one in sorted(plan.by_day.items())},
    }
    state.put(layout.plan(plan.days), json.dumps(document).encode())


def read_plan(state: ObjectPrefix, days: DayRange) -> SavedPlan | None:
    """The plan of exactly these days; None if there is none, or it can't be understood.

    Raises:
        ConfigurationError, ServiceUnavailable: the state area can't be read.
    """
    return _parsed(state.get(layout.plan(days)))


def planned(state: ObjectPrefix) -> Planned | None:
    """What all plans that are kept say together, of a day in several the latest; None if there is none.

    One LIST request, and one GET for each plan.

    Raises:
        ConfigurationError, ServiceUnavailable: the state area can't be read.
    """
    plans = [plan for name in state.names(layout.PLANS) if (plan := _parsed(state.get(name))) is not None]
    if not plans:
        return None
    plans.sort(key=lambda one: one.planned_at)
    none = DayCount(0, 0, 0)
    counts = {day: plan.by_day.get(day, none) for plan in plans for day in plan.days}
    latest = plans[-1]
    recordings = sum(one.recordings for one in latest.by_day.values())
    usd = sum(one.usd for one in latest.months.values())
    return Planned(
        {day: day_counts.DayCount(one.recordings, one.unreadable) for day, one in sorted(counts.items())},
        usd / recordings if recordings else None,
        latest.planned_at,
    )


def _parsed(body: bytes | None) -> SavedPlan | None:
    try:
        document = json.loads(body or b"")
        return SavedPlan(
            DayRange(dt.date.fromisoformat(document["from"]), dt.date.fromisoformat(document["to"])),
            document["pipeline"],
            dt.datetime.fromisoformat(document["planned_at"]),
            {month: MonthCost(**one) for month, one in document["months"].items()},
            {dt.date.fromisoformat(day): DayCount(**one) for day, one in document["days"].items()},
            document.get("measured", 0),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
