"""The page of a day: its calls as strips of phases, filtered, sorted and cut into pages; their costs and failures."""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
from pyarrow import compute

from callphases.airflow.report import fallbacks
from callphases.errors import REMEDIES, failure_classes
from callphases.pages.arrow import float64, float64s, int32, null, string
from callphases.pages.day_query import LENGTH, OWN, SHARE, STARTED, Query, is_askable, length_text
from callphases.pages.day_tables import DayTables, DayVersion, as_text, day_tables, said
from callphases.pages.pipelines import Stores
from callphases.pipeline import Pipeline

pc: Any = compute  # the stubs know it as far narrower than it is

CALLS_A_PAGE = 60
MOST_CHOICES = 50
"""Values of an own column in a list to choose from; if there are more, they are typed."""
MOST_OWN = 3
"""Own columns in the table; by the others calls can be filtered, and the page of a call shows them."""
MOST_FACETS = 6
"""Own columns in the filter; the others are folded away."""
MOST_WARNINGS = 10
LONG_TAIL = 3.0
"""If the longest call is more than this many times as long as 98 of 100 calls, the axis is for those."""
_READ = ["summaries", "failure messages"]
_AXES_S = [
    *(10, 20, 30, 60, 120, 180, 300, 420, 600, 900, 1200, 1800, 2700),
    *(3600, 5400, 7200, 10800, 14400, 21600, 28800, 43200, 86400),
]


@dataclass(frozen=True)
class PhaseOfCall:
    """A phase in a strip; ``summary`` is None where it is not shown."""

    name: str
    start_s: float
    end_s: float
    summary: str | None = None


@dataclass(frozen=True)
class CallOfDay:
    """A call on the page.

    Attributes:
        started_at: in the pipeline's zone; None in tables that others have written without it.
        usd: what it cost; None if that is not known.
        own: the values of ``DayPage.own``, as text.
        is_longer: than the axis of the strips.
    """

    call_id: str
    name: str
    started_at: dt.datetime | None
    status: str
    failure_class: str | None
    duration_s: float | None
    usd: float | None
    own: list[str]
    phases: list[PhaseOfCall]
    is_longer: bool


@dataclass(frozen=True)
class Failures:
    """Failed calls of a class, and what to do about them. ``is_known``: this version has the class."""

    failure_class: str
    count: int
    remedy: str
    is_known: bool


@dataclass(frozen=True)
class Choice:
    """A value to filter by, and how many of the day's calls have it."""

    value: str
    count: int


@dataclass(frozen=True)
class Facet:
    """An own column to filter by. ``choices`` is empty where the column has too many values for a list."""

    column: str
    parameter: str
    value: str
    choices: list[Choice]


@dataclass(frozen=True)
class Header:
    """A column of the table.

    Attributes:
        address: of the page sorted by it.
        order: ``ascending`` or ``descending`` if the page is sorted by it, else empty.
    """

    title: str
    address: str
    order: str


@dataclass(frozen=True)
class PhaseOfDay:
    """A phase over the day.

    Attributes:
        calls: how many have it.
        seconds: in all of them together.
        share: of all phases' seconds.
        by_length, by_share: addresses of the page sorted by the phase's length, or by its share of the call.
    """

    name: str
    calls: int
    seconds: float
    share: float
    by_length: str
    by_share: str


@dataclass(frozen=True)
class DayPage:
    """What the page shows of a published day.

    Attributes:
        total: calls of the day.
        found: those that the filter lets through.
        calls: the page's.
        min_text, max_text: the query's, as a reader writes them.
        page, pages: from 1 on.
        own: names of the own columns in the table.
        axis_s: the end of the strips' time axis.
        facets, more_facets: own columns to filter by; the second are folded away.
        searched: what a text is looked for in.
        notes: what of the query is not understood.
        warnings: texts of ``calls.warnings`` with their counts, for who may read what services say of calls.
        speech_usd, llm_usd: what the day's calls cost, as far as it is known; None if no price is.
        speech_models, llm_models: those that answered, with counts of calls.
        fallbacks: sentences about models that answered instead of the first.
        previous, next: addresses of pages, empty if there is none.
    """

    day: dt.date
    zone: str
    query: Query
    min_text: str
    max_text: str
    notes: list[str]
    total: int
    found: int
    calls: list[CallOfDay]
    page: int
    pages: int
    first: str
    previous: str
    next: str
    last: str
    own: list[str]
    headers: list[Header]
    axis_s: float
    phase_names: list[str]
    phases: list[PhaseOfDay]
    statuses: list[Choice]
    failures: list[Failures]
    facets: list[Facet]
    more_facets: list[Facet]
    searched: str
    warnings: list[Choice]
    speech_usd: float | None
    llm_usd: float | None
    budget_usd: float | None
    speech_models: dict[str, int]
    llm_models: dict[str, int]
    fallbacks: list[str]

    @property
    def usd(self) -> float | None:
        """What the day's calls cost, as far as it is known; None if no price is."""
        known = [one for one in (self.speech_usd, self.llm_usd) if one is not None]
        return sum(known) if known else None


def day_page(
    stores: Stores, version: DayVersion, parameters: Iterable[tuple[str, str]], *, may_read: bool = False
) -> DayPage:
    """The page of a published day.

    Args:
        stores: of the pipeline.
        version: of the day's tables.
        parameters: of the page's address.
        may_read: whether summaries and failure messages may be searched, and warnings shown.

    Raises:
        ConfigurationError, ServiceUnavailable: the tables can't be read.
    """
    of = day_tables(stores.tables, version)
    query, notes = Query.parse(parameters, of.own)
    rows = _sorted(of, query, _filtered(stores, version, of, query, may_read=may_read))
    shown = _Shown(rows, CALLS_A_PAGE, of.own[:MOST_OWN], may_read)
    return _page(of, version.day, query, notes, shown, stores.pipeline)


def whole_day(of: DayTables, day: dt.date, pipeline: Pipeline | None) -> DayPage:
    """The page of all calls of a day, for a file; without a pipeline, times are in UTC."""
    return _page(of, day, Query(), [], _Shown(of.rows, max(len(of.calls), 1), of.own, True), pipeline)


@dataclass(frozen=True)
class _Shown:
    """What is shown of a day: rows of ``calls`` in their order, how many a page, which own columns."""

    rows: Any
    a_page: int
    own: list[str]
    may_read: bool


def _page(
    of: DayTables, day: dt.date, query: Query, notes: list[str], shown: _Shown, pipeline: Pipeline | None
) -> DayPage:
    rows, own = shown.rows, shown.own
    zone = pipeline.zone if pipeline else ZoneInfo("UTC")
    pages = max(-(-len(rows) // shown.a_page), 1)
    page = min(query.page, pages)
    axis_s = axis_of(of.calls["duration_s"].take(rows))
    calls = _calls(of, rows.slice((page - 1) * shown.a_page, shown.a_page), own, axis_s, zone)
    names = _in_pipelines_order(of.phase_names, [phase.name for phase in pipeline.phases] if pipeline else [])
    totals = sorted(of.phase_totals, key=lambda one: names.index(one.name))
    speech_models, llm_models = of.counts("speech_model"), of.counts("llm_model")
    speech_usd, llm_usd = of.usd
    seconds = sum(phase.seconds for phase in totals)
    facets = [_facet(of, query, name) for name in of.own]
    answered = {"dt": day, "run_speech_models": speech_models, "run_llm_models": llm_models}
    return DayPage(
        day=day,
        zone=zone.key,
        query=query,
        min_text=length_text(query.min_s),
        max_text=length_text(query.max_s),
        notes=notes,
        total=len(of.calls),
        found=len(rows),
        calls=calls,
        page=page,
        pages=pages,
        first=query.address() if page > 1 else "",
        previous=query.address(page=page - 1) if page > 1 else "",
        next=query.address(page=page + 1) if page < pages else "",
        last=query.address(page=pages) if page < pages else "",
        own=own,
        headers=_headers(query, own),
        axis_s=axis_s,
        phase_names=names,
        phases=[
            PhaseOfDay(
                one.name,
                one.calls,
                one.seconds,
                one.seconds / seconds if seconds else 0.0,
                query.address(sort=LENGTH + one.name, descending=True),
                query.address(sort=SHARE + one.name, descending=True),
            )
            for one in totals
        ],
        statuses=_choices(of.counts("status")),
        failures=[
            Failures(name, count, REMEDIES.get(name, "see the failure message of the call"), name in failure_classes())
            for name, count in of.counts("failure_class").items()
        ],
        facets=facets[:MOST_FACETS],
        more_facets=facets[MOST_FACETS:],
        searched=", ".join(["names of recordings", "call ids", *of.own, *(_READ if shown.may_read else [])]),
        warnings=_choices(of.counts("warnings"))[:MOST_WARNINGS] if shown.may_read else [],
        speech_usd=speech_usd,
        llm_usd=llm_usd,
        budget_usd=pipeline.budget.usd_per_run if pipeline else None,
        speech_models=speech_models,
        llm_models=llm_models,
        fallbacks=fallbacks(pipeline, answered) if pipeline else [],
    )


def axis_of(durations_s: Any) -> float:
    """The end of the time axis for calls of these lengths: a round number that the longest fits into.

    Where a few calls are far longer than the others, which would be too small to see, it fits 98 of 100.
    """
    longest = pc.max(durations_s).as_py() or 0.0
    most = pc.quantile(durations_s.drop_null(), 0.98)[0].as_py() if longest else 0.0
    if most and longest > LONG_TAIL * most:
        longest = most
    return float(next((axis for axis in _AXES_S if axis >= longest), -(-longest // 86400) * 86400))


def _filtered(stores: Stores, version: DayVersion, of: DayTables, query: Query, *, may_read: bool) -> Any:
    """The calls that the filter lets through: rows of ``calls``, in their order."""
    calls, conditions = of.calls, []
    if query.status is not None:
        conditions.append(pc.equal(calls["status"], string(query.status)))
    if query.failure_class is not None:
        conditions.append(pc.equal(calls["failure_class"], string(query.failure_class)))
    if query.min_s is not None:
        conditions.append(pc.greater_equal(calls["duration_s"], float64(query.min_s)))
    if query.max_s is not None:
        conditions.append(pc.less_equal(calls["duration_s"], float64(query.max_s)))
    for name, value in query.own:
        conditions.append(pc.equal(as_text(calls[name]), string(value)))
    if query.phase is not None:
        conditions.append(pc.is_in(of.rows, pc.unique(_of_phase(of, query.phase)["of"])))
    if query.text:
        texts = [calls["recording_uri"], calls["call_id"], *(as_text(calls[name]) for name in of.own)]
        has = [pc.match_substring(one, query.text, ignore_case=True) for one in texts]
        if may_read:
            has.append(pc.is_in(calls["call_id"], said(stores.tables, version, query.text)))
        conditions.append(functools.reduce(pc.or_kleene, has))
    if not conditions:
        return of.rows
    # Null, as where a call has no length, lets no call through. In one piece: Arrow 24 crashes with a column of none.
    return pc.indices_nonzero(_one(functools.reduce(pc.and_kleene, conditions))).cast(pa.int32())


def _of_phase(of: DayTables, name: str) -> pa.Table:
    """The rows of ``phases`` with a name."""
    number = of.phase_names.index(name) if name in of.phase_names else -1
    return of.phases.filter(pc.equal(of.phases["name"], int32(number)))


def _sorted(of: DayTables, query: Query, rows: Any) -> Any:
    """Rows of ``calls`` in the order of the query; those that have no value come last, equal ones by their start."""
    order = "descending" if query.descending else "ascending"
    if query.sort == STARTED and not query.descending:
        return rows
    keys = _sort_keys(of, query.sort).take(rows)
    # Stable, as Arrow documents it.
    return rows.take(pc.array_sort_indices(keys, order))


def _sort_keys(of: DayTables, sort: str) -> Any:
    calls = of.calls
    if sort.startswith(OWN):
        column = _one(calls[sort.removeprefix(OWN)])
        return column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column  # Arrow does not sort booleans
    if sort.startswith((LENGTH, SHARE)):
        return _of_each_call(of, sort.partition(".")[2], is_share=sort.startswith(SHARE))
    if sort == "name":
        return _one(pc.ascii_lower(pc.replace_substring_regex(calls["recording_uri"], ".*/", "")))
    if sort == "cost":
        return _one(usd_of(calls))
    column = {STARTED: "call_started_at", "duration": "duration_s", "phases": "phase_count"}.get(sort, sort)
    return _one(calls[column])


def _one(column: Any) -> Any:
    """A column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def usd_of(calls: pa.Table) -> Any:
    """What each call cost: null if neither cost is known."""
    known = pc.or_(pc.is_valid(calls["speech_usd"]), pc.is_valid(calls["llm_usd"]))
    speech_usd, llm_usd = (pc.coalesce(calls[name], float64(0.0)) for name in ("speech_usd", "llm_usd"))
    return pc.if_else(known, pc.add(speech_usd, llm_usd), null(pa.float64()))


def _of_each_call(of: DayTables, phase: str, *, is_share: bool) -> Any:
    """How long a phase is in each call, in seconds or as a share of the call; null for calls without it."""
    found = [math.nan] * len(of.calls)
    rows: Any = _of_phase(of, phase)
    lengths = pc.subtract(rows["end_s"], rows["start_s"]).to_pylist()
    for row, length_s in zip(rows["of"].to_pylist(), lengths, strict=True):
        found[row] = length_s if math.isnan(found[row]) else found[row] + length_s
    lengths_s = float64s(found)
    if is_share:
        lengths_s = pc.divide(lengths_s, _one(of.calls["duration_s"]))
    return pc.if_else(pc.is_finite(lengths_s), lengths_s, null(pa.float64()))


def _calls(of: DayTables, rows: Any, own: list[str], axis_s: float, zone: dt.tzinfo) -> list[CallOfDay]:
    phases: dict[int, list[PhaseOfCall]] = {row: [] for row in rows.to_pylist()}
    for phase in of.phases.filter(pc.is_in(of.phases["of"], rows)).to_pylist():
        phases[phase["of"]].append(PhaseOfCall(of.phase_names[phase["name"]], phase["start_s"], phase["end_s"]))
    calls = of.calls.take(rows)
    texts = [as_text(calls[name]).to_pylist() for name in own]
    usd = usd_of(calls).to_pylist()
    return [
        CallOfDay(
            call_id=call["call_id"],
            name=name_of(call),
            started_at=local(call["call_started_at"], zone),
            status=call["status"],
            failure_class=call["failure_class"],
            duration_s=call["duration_s"],
            usd=usd[number],
            own=[column[number] or "" for column in texts],
            phases=parts,
            is_longer=(call["duration_s"] or 0.0) > axis_s,
        )
        for number, (call, parts) in enumerate(zip(calls.to_pylist(), phases.values(), strict=True))
    ]


def name_of(call: Mapping[str, Any]) -> str:
    """What a call is called: its recording without folders."""
    return (call["recording_uri"] or "").rpartition("/")[2] or str(call["call_id"])


def local(moment: dt.datetime | None, zone: dt.tzinfo) -> dt.datetime | None:
    """A moment in a zone."""
    return moment.astimezone(zone) if moment else None


def _headers(query: Query, own: Sequence[str]) -> list[Header]:
    sorts = [("Call", "name"), ("Started", STARTED), ("Length", "duration"), ("Status", "status"), ("Phases", "phases")]
    sorts += [("Cost", "cost"), *((name, OWN + name) for name in own)]
    order = "descending" if query.descending else "ascending"
    return [Header(title, query.sorted_by(sort), order if query.sort == sort else "") for title, sort in sorts]


def _choices(counts: dict[str, int]) -> list[Choice]:
    return [Choice(value, count) for value, count in counts.items()]


def _facet(of: DayTables, query: Query, column: str) -> Facet:
    counts = of.counts(column)
    return Facet(
        column,
        OWN + column,
        query.own_value(column),
        [one for one in _choices(counts) if is_askable(one.value)] if len(counts) <= MOST_CHOICES else [],
    )


def _in_pipelines_order(found: Sequence[str], defined: Sequence[str]) -> list[str]:
    """Names of phases: those of the pipeline in its order, then others."""
    return [*(name for name in defined if name in found), *(name for name in found if name not in defined)]
