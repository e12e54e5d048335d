"""The page of a day: its calls as strips of phases, filtered, sorted, and cut into pages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import read_table_day

CALLS_A_PAGE = 100

_CALL_COLUMNS = ["call_id", "recording_uri", "call_started_at", "status", "failure_class", "duration_s"]
_PHASE_COLUMNS = ["call_id", "phase_index", "phase_name", "start_s", "end_s"]


@dataclass(frozen=True)
class PhaseOfCall:
    """A phase in a strip."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class CallOfDay:
    """A call on the page; ``started_at`` is in the pipeline's zone."""

    call_id: str
    name: str
    started_at: dt.datetime
    status: str
    failure_class: str | None
    duration_s: float | None
    phases: list[PhaseOfCall]


@dataclass(frozen=True)
class DayPage:
    """What the page shows: ``calls`` of ``total`` that the filter left."""

    day: dt.date
    total: int
    calls: list[CallOfDay]


def day_page(tables: ObjectPrefix, day: dt.date, zone: ZoneInfo) -> DayPage | None:
    """The page of a day; None if it is not published.

    Raises:
        ConfigurationError, ServiceUnavailable: the tables can't be read.
    """
    calls = read_table_day(tables, "calls", day, _CALL_COLUMNS)
    if calls is None:
        return None
    rows = (
        calls.sort_by([("call_started_at", "ascending"), ("call_id", "ascending")]).slice(0, CALLS_A_PAGE).to_pylist()
    )
    phases = read_table_day(tables, "phases", day, _PHASE_COLUMNS)
    of_call: dict[str, list[PhaseOfCall]] = {row["call_id"]: [] for row in rows}
    for phase in [] if phases is None else sorted(phases.to_pylist(), key=lambda row: row["phase_index"]):
        if phase["call_id"] in of_call:
            of_call[phase["call_id"]].append(PhaseOfCall(phase["phase_name"], phase["start_s"], phase["end_s"]))
    return DayPage(day, len(calls), [_call(row, of_call[row["call_id"]], zone) for row in rows])


def _call(row: Mapping[str, Any], phases: list[PhaseOfCall], zone: ZoneInfo) -> CallOfDay:
    return CallOfDay(
        call_id=row["call_id"],
        name=row["recording_uri"].rpartition("/")[2],
        started_at=row["call_started_at"].astimezone(zone),
        status=row["status"],
        failure_class=row["failure_class"],
        duration_s=row["duration_s"],
        phases=phases,
    )
