"""A day's parts and its previously published rows → the day's object of each table, in bounded memory.

Rows go through in ranges of ``call_id``. Each object is replaced by one PUT; a day without rows has none. The same rows
give the same bytes, however they were cut into parts.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import tempfile
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from callphases.errors import ConfigurationError, OverBudget
from callphases.pipeline import RESERVED_COLUMNS, Pipeline
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.ledger import LedgerView
from callphases.state.manifests import DayList
from callphases.state.storage import ObjectPrefix
from callphases.tables.parts import PartWriter, part_schema, read_part, recordings_of
from callphases.tables.ranges import Ranges, borders
from callphases.tables.schema import SCHEMAS, no_rows, object_name, schema_of

CALLS_IN_A_RANGE = 8_192
"""Calls in memory at once, in a few copies: with four phases a call, some 33,000 rows of ``phases``."""
ROW_GROUPS = 16
"""Per day: a query for one call reads some 6 % of the file and its footer. More groups make the footer long."""
ROW_GROUP_CALLS = (512, 8_192)
"""Minimum and maximum. More rows at a time take more memory and save no time."""
PHASES_A_CALL = 4
QUICK_CALLS = 30_000
"""Days with more calls use fast compression; smaller days compress a tenth better, for 0.2 ms a call."""
LEVEL, SUMMARY_LEVEL, QUICK_LEVEL = 15, 17, 1
"""Of zstd. Higher levels take several times as long for another two or three percent."""
PARTS_AHEAD = 8
RANGES_AHEAD = 2
OLD_ROWS_AT_ONCE = 65_536

_FEW_VALUES = [
    *("status", "failure_class", "failure_message", "language", "phase_count", "phase_index", "phase_name"),
    *("speech_model", "llm_model", "prompt_version", "schema_version", "run_id"),
    *("turn_count", "speaker_1", "speaker_2", "interruption_count", "warnings"),
]
"""Columns to encode with a dictionary. In others it fills up before the row group ends, and only takes time."""

LINEAGE = ("prompt_version", "speech_model", "llm_model")
"""Columns of ``calls`` that say how a call was made."""

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Published:
    """A published day: counts of recordings by status and failure class, and costs.

    ``kept`` counts recordings that are in the tables and not in the bucket any more, ``unfinished`` those that this run
    did not get to the end of, whatever is published of them. ``audio_s`` is the length of all. ``speech_models`` and
    ``llm_models`` count the models that really answered. Costs are in US dollars: of the day's rows, and of this run
    alone. With a budget, the run's include ``run_estimated_usd`` for what the models cost whose prices are not known.
    """

    listed: int
    kept: int
    statuses: dict[str, int]
    failures: dict[str, int]
    unfinished: int
    phases: int
    audio_s: float
    speech_models: dict[str, int]
    llm_models: dict[str, int]
    speech_usd: float
    llm_usd: float
    run_speech_usd: float
    run_llm_usd: float
    run_estimated_usd: float = 0.0
    stopped: str | None = None
    """Why the run was stopped before it was finished; None if it was not."""
    run_speech_models: dict[str, int] = field(default_factory=dict)
    run_llm_models: dict[str, int] = field(default_factory=dict)
    """The models of the rows that this run alone has made."""
    objects: dict[str, dict[str, int]] = field(default_factory=dict)
    """``rows`` and ``bytes`` of the day's object of each table, with kept rows; a table without rows has none."""
    phase_s: dict[str, float] = field(default_factory=dict)
    """Seconds of each phase by its name, to the millisecond, with kept rows."""
    lineage: dict[str, dict[str, int]] = field(default_factory=dict)
    """Calls by each of ``LINEAGE``, with kept rows: column → value → calls. Null is not counted."""


def publish(
    tables: ObjectPrefix,
    state: ObjectPrefix,
    pipeline: Pipeline,
    day: DayList,
    missing: Callable[[str], Iterable[tuple[Recording, LedgerView]]],
    known: LedgerView | None = None,
    drop: Callable[[pa.Table], None] = lambda _: None,
) -> Published:
    """Publish the rows of all recordings listed for a day.

    Rows of a recording that is not listed any more stay, unless ``recordings.when_deleted`` is ``drop``. Rows of a
    recording that this run could not finish, or not pay for, stay as they are, where there are rows of the same bytes.

    Args:
        tables: ``output.tables``.
        state: ``output.state``, with the run's parts.
        pipeline: the pipeline.
        day: as it was listed.
        missing: gives the recordings of a chunk whose task has left no part, with what is known of each.
        known: of the whole day, where parts may be out of date; their rows are then made anew.
        drop: is given rows of ``calls`` that are about to go, as their recordings are not listed any more.

    Raises:
        ConfigurationError, ServiceUnavailable: the tables are as they were, or ``calls`` alone is new.
    """
    with (
        _lean_memory(),
        tempfile.TemporaryDirectory(prefix="callphases-") as name,
        ThreadPoolExecutor(len(SCHEMAS)) as encoder,
        ThreadPoolExecutor(1) as disk,
    ):
        folder = Path(name)
        calls_schema, phases_schema = (schema_of(table, pipeline) for table in SCHEMAS)
        old_calls = _Old(tables, "calls", calls_schema, day.day, folder)
        old_phases = _Old(tables, "phases", phases_schema, day.day, folder)
        ends = borders(max(math.ceil((day.listed + old_calls.count()) / CALLS_IN_A_RANGE), 1))
        most_calls, keep = max(day.listed, old_calls.count()), pipeline.recordings.when_deleted == "keep"
        new = Ranges(folder, part_schema(pipeline), ends, disk)
        for part in _parts(state, pipeline, day, missing, known):
            new.add(part)
        sorted_ranges = _ahead(lambda number: _in_order(new.read(number)), range(len(ends) + 1), RANGES_AHEAD)
        counts = _Counts(day.run_id)
        calls_file = _New("calls", calls_schema, folder, encoder, most_calls)
        phases_file = _New("phases", phases_schema, folder, encoder, most_calls)
        # Of calls too, with those that are dropped: for the moment until their phases are gone.
        last_file = None if keep else _New("calls", calls_schema, folder / "last", encoder, most_calls)
        dropped = 0
        for rows, end in zip(sorted_ranges, [*ends, None], strict=True):
            merged = _merge(rows, old_calls.until(end), keep)
            counts.count(merged)
            calls, phases = merged.tables(calls_schema, old_phases, end)
            counts.count_rows(calls, phases)
            calls_file.write(calls)
            phases_file.write(phases)
            if last_file is not None:
                last_file.write(pa.concat_tables([calls, merged.dropped]).sort_by("call_id"))
            if merged.dropped.num_rows:
                dropped += merged.dropped.num_rows
                drop(merged.dropped)
        # Calls before phases: a reader between the PUTs then sees no phase of a call that ``calls`` does not know.
        # Where calls go, their phases go before them.
        if last_file is not None and dropped:
            last_file.replace(tables, day.day)
            phases_file.replace(tables, day.day)
            calls_file.replace(tables, day.day)
        else:
            calls_file.replace(tables, day.day)
            phases_file.replace(tables, day.day)
    objects = {one.table: {"rows": one.rows, "bytes": one.size} for one in (calls_file, phases_file) if one.rows}
    return replace(counts.published(day.listed), objects=objects)


@contextlib.contextmanager
def _lean_memory() -> Iterator[None]:
    """Allocate Arrow's memory from a pool that grows in small steps. In a process that publishes one day and exits, the
    first touch of the default pool's pages took as long as everything else."""
    before = pa.default_memory_pool()
    try:
        pool = pa.jemalloc_memory_pool()
    except NotImplementedError:  # not in every build
        pool = pa.system_memory_pool()
    pa.set_memory_pool(pool)
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _parts(
    state: ObjectPrefix,
    pipeline: Pipeline,
    day: DayList,
    missing: Callable[[str], Iterable[tuple[Recording, LedgerView]]],
    known: LedgerView | None,
) -> Iterator[pa.Table]:
    """The rows of all listed recordings, part by part."""
    schema = part_schema(pipeline)
    writer = PartWriter(state, pipeline, day, day.day)
    chunks = range(day.first_chunk, day.first_chunk + day.chunks)
    names = [layout.part_name(layout.CHUNK, number) for number in chunks]
    names += [layout.part_name(layout.REST, number) for number in range(day.rest)]
    for name, part in zip(names, _ahead(lambda name: read_part(state, day, name), names, PARTS_AHEAD), strict=True):
        if part is not None and known is None:
            # A pipeline file may have been changed while the run was on.
            yield part if part.schema.equals(schema) else _as(schema, part)
            continue
        if part is None and not layout.is_chunk(name):
            uri = state.uri_of(layout.part(day.day, day.run_token, name))
            raise ConfigurationError(f"{uri}: these rows are gone from output.state; clear the run's first task.")
        left = missing(name) if part is None or known is None else ((one, known) for one in recordings_of(part))
        for recording, known_of_it in left:
            writer.add(recording, known_of_it)
        yield writer.take()


def _ahead(make: Callable[[_Item], _Made], items: Iterable[_Item], ahead: int) -> Iterator[_Made]:
    """``map`` on threads, at most ``ahead`` results ahead of the caller."""
    with ThreadPoolExecutor(ahead) as pool:
        coming: deque[Future[_Made]] = deque()
        for item in items:
            coming.append(pool.submit(make, item))
            if len(coming) > ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


@dataclass
class _Merged:
    """The calls of a range: new rows; old rows that replace unfinished new ones, are kept, or are dropped."""

    new: pa.Table
    stay: pa.Table
    kept: pa.Table
    dropped: pa.Table
    unfinished: int
    run_speech_usd: float
    run_llm_usd: float
    run_estimated_usd: float

    def tables(self, calls_schema: pa.Schema, old_phases: _Old, end: str | None) -> tuple[pa.Table, pa.Table]:
        """The range's rows of both tables."""
        calls, phases = self.new.select(calls_schema.names), _phases(self.new, old_phases.schema)
        old = pa.concat_tables([self.stay, self.kept])
        if old.num_rows == 0:
            return calls, phases
        calls = pa.concat_tables([calls, old])
        phases = pa.concat_tables([phases, old_phases.until(end, old["call_id"].combine_chunks())])
        return calls.sort_by("call_id"), phases.sort_by([("call_id", "ascending"), ("phase_index", "ascending")])


def _merge(new: pa.Table, old: pa.Table, keep: bool) -> _Merged:
    stay = _staying(new, old)
    gone = old.filter(pc.invert(pc.is_in(old["call_id"], new["call_id"].combine_chunks())))
    return _Merged(
        new=new.filter(pc.invert(pc.is_in(new["call_id"], stay))) if len(stay) else new,
        stay=old.filter(pc.is_in(old["call_id"], stay)),
        kept=gone if keep else gone.slice(0, 0),
        dropped=gone.slice(0, 0) if keep else gone,
        unfinished=new.num_rows - (pc.sum(new["finished"]).as_py() or 0),
        run_speech_usd=pc.sum(new["run_speech_usd"]).as_py() or 0.0,
        run_llm_usd=pc.sum(new["run_llm_usd"]).as_py() or 0.0,
        run_estimated_usd=pc.sum(new["_estimated_usd"]).as_py() or 0.0,
    )


def _in_order(part: pa.Table) -> pa.Table:
    """Sort by ``call_id``. Should a call have two rows, the later part's wins."""
    whole = part.combine_chunks()
    whole = whole.take(pc.sort_indices(whole["call_id"].combine_chunks()))  # a stable sort
    ids = whole["call_id"].combine_chunks()
    if len(ids) < 2:
        return whole
    is_last = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
    if pc.all(is_last).as_py():
        return whole
    return whole.filter(pa.concat_arrays([is_last, pa.array([True])]))


def _staying(new: pa.Table, old: pa.Table) -> pa.Array[Any]:
    """Ids of calls whose old rows stay: the new ones are unfinished, the old ones of the same bytes and no failures."""
    if old.num_rows == 0:
        return pa.nulls(0, pa.string())
    over_budget = pc.is_in(new["failure_class"], pa.array([OverBudget.failure_class]))
    unsure = new.filter(pc.or_(pc.invert(new["finished"]), over_budget))
    etags = dict(zip(unsure["call_id"].to_pylist(), unsure["recording_etag"].to_pylist(), strict=True))
    before = old.select(["call_id", "recording_etag", "status"]).filter(
        pc.is_in(old["call_id"], unsure["call_id"].combine_chunks())
    )
    good = [
        row["call_id"]
        for row in before.to_pylist()
        if row["recording_etag"] == etags[row["call_id"]] and row["status"] != "failed"
    ]
    return pa.array(good, pa.string())


def _phases(calls: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows of ``phases`` in the rows of a part."""
    batches = calls.combine_chunks().to_batches()
    if not batches:
        return no_rows(schema)
    lists: Any = batches[0]["phases"]
    own = lists.flatten()
    columns = dict(zip((column.name for column in own.type), own.flatten(), strict=True))
    of_call = batches[0].select([name for name in schema.names if name not in columns])
    of_call = of_call.take(pc.list_parent_indices(lists))
    columns |= dict(zip(of_call.column_names, of_call.columns, strict=True))
    rows = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
    return pa.Table.from_batches([rows])


class _Old:
    """A day of a table as it was published before, read once from start to end."""

    def __init__(self, tables: ObjectPrefix, table: str, schema: pa.Schema, day: dt.date, folder: Path) -> None:
        self.schema = schema
        self._tables, self._table, self._name = tables, table, object_name(table, day)
        self._path = folder / f"old-{table}.parquet"
        self._file: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._rest = no_rows(self.schema)

    def count(self) -> int:
        """The number of rows."""
        self._open()
        return self._file.metadata.num_rows if self._file is not None else 0

    def until(self, end: str | None, only: pa.Array[Any] | None = None) -> pa.Table:
        """The next rows whose ``call_id`` is before ``end``; only those of the calls ``only``, if given."""
        found = [no_rows(self.schema)]
        while self._rest.num_rows or self._advance():
            ids: Any = self._rest["call_id"]
            count = self._rest.num_rows if end is None else bisect_left(ids, end, key=lambda one: one.as_py())
            rows, self._rest = self._rest.slice(0, count), self._rest.slice(count)
            found.append(rows if only is None else rows.filter(pc.is_in(rows["call_id"], only)))
            if self._rest.num_rows:
                break
        return pa.concat_tables(found)

    def _advance(self) -> bool:
        batch = next(self._open(), None)
        if batch is not None:
            self._rest = _as(self.schema, pa.Table.from_batches([batch]))
        return batch is not None

    def _open(self) -> Iterator[pa.RecordBatch]:
        if self._batches is None:
            if self._tables.fetch(self._name, self._path):
                self._file = pq.ParquetFile(self._path)
                self._batches = self._file.iter_batches(OLD_ROWS_AT_ONCE, use_threads=False)
            else:
                self._batches = iter(())
        return self._batches


def _as(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """Fit a table to ``schema``: an older version or pipeline file may have had other columns."""
    return pa.Table.from_arrays([_column(table, column) for column in schema], schema=schema)


def _column(table: pa.Table, column: pa.Field[Any]) -> Any:
    if column.name not in table.column_names:
        return pa.nulls(table.num_rows, column.type)
    try:
        return table[column.name].cast(column.type)
    except pa.ArrowException:
        if column.name in RESERVED_COLUMNS:
            raise
        return pa.nulls(table.num_rows, column.type)  # the pipeline file has given one of its own another type


class _New:
    """Writes a day of a table from sorted rows; ``calls`` is about how many calls it has."""

    def __init__(self, table: str, schema: pa.Schema, folder: Path, encoder: ThreadPoolExecutor, calls: int) -> None:
        folder.mkdir(exist_ok=True)
        self.table, self.size = table, 0
        self._path, self._encoder = folder / f"{table}.parquet", encoder
        own = set(schema.names) - set(SCHEMAS[table].names)  # queues, agents: few in a night, too
        few: Any = [name for name in schema.names if name in own.union(_FEW_VALUES)]  # the stubs know it as a bool
        levels: Any = dict.fromkeys(schema.names, LEVEL if calls <= QUICK_CALLS else QUICK_LEVEL)
        if "summary" in levels and calls <= QUICK_CALLS:
            levels["summary"] = SUMMARY_LEVEL
        self._file = pq.ParquetWriter(
            self._path, schema, compression="zstd", compression_level=levels, use_dictionary=few
        )
        at_least, at_most = ROW_GROUP_CALLS
        self._group_rows = min(max(calls // ROW_GROUPS, at_least), at_most) * (
            PHASES_A_CALL if table == "phases" else 1
        )
        self._waiting = no_rows(schema)
        self._encoding: Future[None] | None = None
        self.rows = 0

    def write(self, rows: pa.Table) -> None:
        """Add the next rows."""
        self._waiting = pa.concat_tables([self._waiting, rows])
        while self._waiting.num_rows >= self._group_rows:
            self._encode(self._waiting.slice(0, self._group_rows))
            self._waiting = self._waiting.slice(self._group_rows)

    def replace(self, tables: ObjectPrefix, day: dt.date) -> None:
        """Replace the day's object, or delete it if there are no rows."""
        if self._waiting.num_rows:
            self._encode(self._waiting)
        if self._encoding is not None:
            self._encoding.result()
        self._file.close()
        name = object_name(self.table, day)
        self.size = self._path.stat().st_size if self.rows else 0
        if self.rows:
            tables.put_file(name, self._path, "application/vnd.apache.parquet")
        else:
            tables.delete(name)

    def _encode(self, rows: pa.Table) -> None:
        """Write a row group on the encoder's thread. Chunks are combined first, as they would show in the bytes."""
        whole = rows.combine_chunks()
        if self._encoding is not None:
            self._encoding.result()
        self.rows += whole.num_rows
        self._encoding = self._encoder.submit(lambda: self._file.write_table(whole, whole.num_rows))


@dataclass
class _Counts:
    """Adds up the figures of ``Published``, range by range."""

    run_id: str
    kept: int = 0
    unfinished: int = 0
    phases: int = 0
    audio_s: float = 0.0
    speech_usd: float = 0.0
    llm_usd: float = 0.0
    run_speech_usd: float = 0.0
    run_llm_usd: float = 0.0
    run_estimated_usd: float = 0.0
    values: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("status", "failure_class", "speech_model", "llm_model")}
    )
    run_models: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("speech_model", "llm_model")}
    )
    phase_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    lineage: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in LINEAGE})

    def count(self, merged: _Merged) -> None:
        """Count the calls of a range; kept ones only count as kept."""
        self.kept += merged.kept.num_rows
        self.unfinished += merged.unfinished
        self.run_speech_usd += merged.run_speech_usd
        self.run_llm_usd += merged.run_llm_usd
        self.run_estimated_usd += merged.run_estimated_usd
        for calls in (merged.new, merged.stay):
            self.phases += pc.sum(calls["phase_count"]).as_py() or 0
            self.audio_s += pc.sum(calls["duration_s"]).as_py() or 0.0
            self.speech_usd += pc.sum(calls["speech_usd"]).as_py() or 0.0
            self.llm_usd += pc.sum(calls["llm_usd"]).as_py() or 0.0
            for name, counter in self.values.items():
                counter.update(_counted(calls[name]))
        of_run = merged.new.filter(pc.equal(merged.new["run_id"], pa.scalar(self.run_id)))
        for name, counter in self.run_models.items():
            counter.update(_counted(of_run[name]))

    def count_rows(self, calls: pa.Table, phases: pa.Table) -> None:
        """Count the rows of a range as they are published, kept ones too."""
        for name, counter in self.lineage.items():
            counter.update(_counted(calls[name]))
        by_name = phases.group_by("phase_name", use_threads=False).aggregate([("duration_s", "sum")])
        for row in by_name.to_pylist():
            self.phase_s[row["phase_name"]] += row["duration_s_sum"] or 0.0

    def published(self, listed: int) -> Published:
        """The sums."""
        return Published(
            listed=listed,
            kept=self.kept,
            statuses=dict(self.values["status"]),
            failures=dict(self.values["failure_class"]),
            unfinished=self.unfinished,
            phases=self.phases,
            audio_s=self.audio_s,
            speech_models=dict(self.values["speech_model"]),
            llm_models=dict(self.values["llm_model"]),
            speech_usd=self.speech_usd,
            llm_usd=self.llm_usd,
            run_speech_usd=self.run_speech_usd,
            run_llm_usd=self.run_llm_usd,
            run_estimated_usd=self.run_estimated_usd,
            run_speech_models=dict(self.run_models["speech_model"]),
            run_llm_models=dict(self.run_models["llm_model"]),
            phase_s={name: round(seconds, 3) for name, seconds in sorted(self.phase_s.items())},
            lineage={name: dict(counter) for name, counter in self.lineage.items()},
        )


def _counted(values: Any) -> dict[str, int]:
    """How often each value occurs; null is none."""
    found: Any = pc.value_counts(values.drop_null())
    return {one["values"]: one["counts"] for one in found.to_pylist()}
