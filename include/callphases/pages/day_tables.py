"""A day's tables as pages need them: few columns, in the order of the calls, kept while the day stays as it is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
from pyarrow import compute

from callphases.errors import ConfigurationError
from callphases.pages.arrow import int32, int32s, strings
from callphases.pages.kept import Kept
from callphases.pages.pipelines import Stores
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import read_table
from callphases.tables.schema import CALLS, PHASES, no_rows, object_name

pc: Any = compute  # the stubs know it as far narrower than it is

MOST_BYTES = 96 << 20
"""Of a day's two objects. A day of 10,000 calls has some 4 MB; what is read of a page takes a few times as much memory
as the objects."""
KEPT_BYTES = 48 << 20
"""Of days' tables in memory; a day of 10,000 calls takes some 5 MB."""

_CALLS = [
    *("call_id", "recording_uri", "call_started_at", "status", "failure_class", "duration_s", "phase_count"),
    *("speech_model", "llm_model", "speech_usd", "llm_usd", "warnings"),
]
_PHASES = ["call_id", "phase_index", "phase_name", "start_s", "end_s"]

_kept: Kept[DayTables] = Kept(KEPT_BYTES)
_found: Kept[Any] = Kept(KEPT_BYTES >> 4)


@dataclass(frozen=True)
class DayVersion:
    """Which objects a day's tables are.

    Attributes:
        place: ``output.tables``.
        own: names of the pipeline's own columns.
        zone: of the pipeline.
        etags: of the objects of ``calls`` and ``phases``; None for one that is not there.
    """

    place: str
    day: dt.date
    own: tuple[str, ...]
    zone: str
    etags: tuple[str | None, str | None]


@dataclass(frozen=True)
class PhaseTotals:
    """A phase over the day: in how many calls, and how long in all of them together."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class DayTables:
    """The tables of a day.

    Attributes:
        calls: in the order of their start.
        phases: in the order of the calls and within each; ``of`` is the row of the call in ``calls``, ``name`` a number
            in ``phase_names``, then ``start_s`` and ``end_s``.
        phase_names: in the order in which they first appear.
        own: the pipeline's own columns that the day has; timestamps in the pipeline's zone.
    """

    calls: pa.Table
    phases: pa.Table
    phase_names: list[str]
    own: list[str]
    _counts: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return int(self.calls.nbytes + self.phases.nbytes)

    def counts(self, column: str) -> dict[str, int]:
        """How many calls have each value of a column, as text, the most frequent first."""
        if column not in self._counts:
            self._counts[column] = counted(as_text(self.calls[column]))
        return self._counts[column]

    @cached_property
    def rows(self) -> Any:
        """The numbers of the rows of ``calls``."""
        return int32s(range(len(self.calls)))

    @cached_property
    def phase_totals(self) -> list[PhaseTotals]:
        """Of each phase, in the order of ``phase_names``."""
        lengths = pc.subtract(self.phases["end_s"], self.phases["start_s"])
        found = []
        for number, name in enumerate(self.phase_names):
            is_it = pc.equal(self.phases["name"], int32(number))
            calls = len(pc.unique(self.phases["of"].filter(is_it)))
            found.append(PhaseTotals(name, calls, float(pc.sum(lengths.filter(is_it)).as_py() or 0.0)))
        return found

    @cached_property
    def usd(self) -> tuple[float | None, float | None]:
        """What the day's calls cost, as far as prices are known: speech, and language models. None if no price is."""
        speech, llm = (pc.sum(self.calls[name]).as_py() for name in ("speech_usd", "llm_usd"))
        return speech, llm


def as_text(column: Any) -> Any:
    """A column's values as text, as they are written in the filter."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_timestamp(kind):
        return pc.strftime(column.cast(pa.timestamp("s", tz=kind.tz), safe=False), format="%Y-%m-%d %H:%M:%S")
    return column.cast(pa.string())


def counted(texts: Any) -> dict[str, int]:
    """How often each value occurs, the most frequent first; null is none."""
    values = {one["values"]: one["counts"] for one in pc.value_counts(texts.drop_null()).to_pylist()}
    return dict(sorted(values.items(), key=lambda item: (-item[1], item[0])))


def day_version(stores: Stores, day: dt.date) -> DayVersion | None:
    """Which objects a day's tables are at the moment; None if the day is not published.

    Raises:
        ConfigurationError: the tables can't be read, or are too large for a page.
        ServiceUnavailable: S3 does not answer.
    """
    tables = stores.tables
    calls, phases = (tables.version(object_name(table, day)) for table in ("calls", "phases"))
    if calls is None:
        return None
    size = calls.size + (phases.size if phases else 0)
    if size > MOST_BYTES:
        raise ConfigurationError(
            f"{day}: the tables have {size >> 20} MB, and pages show days of up to {MOST_BYTES >> 20} MB, as these "
            "share the API server with Airflow. Query the tables instead, or use callphases show."
        )
    own = tuple(stores.pipeline.recordings.columns)
    return DayVersion(tables.uri, day, own, stores.pipeline.timezone, (calls.etag, phases.etag if phases else None))


def day_tables(tables: ObjectPrefix, version: DayVersion) -> DayTables:
    """The tables of a day, read if they are not those that are kept. They may be newer than ``version``.

    Raises:
        ConfigurationError: an object is no table of callphases, or can't be read.
        ServiceUnavailable: S3 does not answer.
    """
    found = _kept.get(version)
    if found is None:
        try:
            found = _read(tables, version)
        except (pa.ArrowException, OSError) as error:
            raise ConfigurationError(
                f"{tables.uri}: {version.day} can't be read as tables of calls and phases: {type(error).__name__}"
            ) from None
        _kept.keep(version, found, found.size)
    return found


def said(tables: ObjectPrefix, version: DayVersion, text: str) -> Any:
    """Ids of the calls that have a text in a summary or in the failure message. Raises as ``day_tables``."""
    key = version, text.casefold()
    found = _found.get(key)
    if found is None:
        ids = [strings([])]
        for table, column in (("calls", "failure_message"), ("phases", "summary")):
            read = _columns(tables, table, version.day, ["call_id", column])
            if read is not None:
                has = pc.match_substring(read[column], text, ignore_case=True)
                ids += read["call_id"].filter(has).chunks
        found = pc.unique(pa.chunked_array(ids))
        _found.keep(key, found, found.nbytes + 200)
    return found


def _read(tables: ObjectPrefix, version: DayVersion) -> DayTables:
    calls = _columns(tables, "calls", version.day, [*_CALLS, *version.own])
    phases = _columns(tables, "phases", version.day, _PHASES)
    if calls is None:
        raise ConfigurationError(f"{tables.uri}: {version.day} has just been deleted: load the page again.")
    if phases is None:
        phases = no_rows(pa.schema([(name, pa.string()) for name in _PHASES]))
    return in_order(calls, phases, version.own, version.zone)


def tables_of_rows(calls: Sequence[Mapping[str, Any]], zone: str) -> DayTables:
    """A day of rows of ``calls``, each with its ``phases``; columns that are not ours are the pipeline's own.

    ``zone`` is the pipeline's.
    """
    own = list(dict.fromkeys(name for call in calls for name in call if name not in {"dt", "phases", *CALLS.names}))
    ours = [{name: call[name] for name in _CALLS} for call in calls]
    phases = [{name: phase[name] for name in _PHASES} for call in calls for phase in call["phases"]]
    table = pa.Table.from_pylist(ours, pa.schema([CALLS.field(name) for name in _CALLS]))
    for name in own:
        table = table.append_column(name, pa.array([call.get(name) for call in calls]))
    phases_table = pa.Table.from_pylist(phases, pa.schema([PHASES.field(name) for name in _PHASES]))
    return in_order(table, phases_table, own, zone)


def in_order(calls: pa.Table, phases: pa.Table, own: Iterable[str], zone: str) -> DayTables:
    """The columns of a day that pages need, in order."""
    own = [name for name in own if name in calls.column_names]
    for name in own:
        kind = calls[name].type
        if pa.types.is_timestamp(kind) and kind.tz:
            local = calls[name].cast(pa.timestamp(kind.unit, tz=zone))
            calls = calls.set_column(calls.column_names.index(name), name, local)
    calls = calls.sort_by([("call_started_at", "ascending"), ("call_id", "ascending")]).combine_chunks()
    return DayTables(calls, *_in_order(calls, phases), own)


def _in_order(calls: pa.Table, phases: pa.Table) -> tuple[pa.Table, list[str]]:
    """``DayTables.phases`` and ``phase_names``."""
    of = pc.index_in(phases["call_id"], calls["call_id"].combine_chunks()).combine_chunks()
    names = phases["phase_name"].combine_chunks().fill_null("").dictionary_encode()
    found = pa.table(
        {
            "of": of.cast(pa.int32()),
            "index": phases["phase_index"].combine_chunks().cast(pa.int32()),
            "name": names.indices.cast(pa.int32()),
            "start_s": phases["start_s"].combine_chunks().cast(pa.float64()),
            "end_s": phases["end_s"].combine_chunks().cast(pa.float64()),
        }
    )
    # A phase of a call that the table calls lacks, as between two PUTs of a run that drops calls, is left out.
    found = found.filter(pc.is_valid(found["of"]))
    order = pc.sort_indices(found, [("of", "ascending"), ("index", "ascending")])
    return found.take(order).combine_chunks().drop_columns(["index"]), [
        str(name) for name in names.dictionary.to_pylist()
    ]


def _columns(tables: ObjectPrefix, table: str, day: dt.date, only: Sequence[str]) -> pa.Table | None:
    body = tables.get(object_name(table, day))
    return None if body is None else read_table(body, table, list(only))
