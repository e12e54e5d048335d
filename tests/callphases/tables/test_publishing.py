"""Tests of merging parts with old tables: which rows are published, and the same bytes for the same rows."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from callphases.errors import ConfigurationError
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.events import Transcribed
from callphases.state.keys import transcript_key
from callphases.state.ledger import LedgerView
from callphases.state.manifests import DayList
from callphases.tables.parts import part_schema
from callphases.tables.publishing import Published, publish
from callphases.tables.schema import CALLS, PHASES, SCHEMA_VERSION, SCHEMAS, object_name
from doubles import DAY, LONG_AGO, NOON, pipeline

Row = dict[str, Any]


@dataclass
class MemoryPrefix:
    """An ``ObjectPrefix`` in memory; ``done`` lists its writes and deletions."""

    objects: dict[str, bytes] = field(default_factory=dict)
    done: list[tuple[str, str]] = field(default_factory=list)

    def uri_of(self, name: str) -> str:
        return f"s3://warehouse/state/{name}"

    def get(self, name: str) -> bytes | None:
        return self.objects.get(name)

    def fetch(self, name: str, path: Path) -> bool:
        if name in self.objects:
            path.write_bytes(self.objects[name])
        return name in self.objects

    def put_file(self, name: str, path: Path, content_type: str) -> None:
        self.done.append(("put", name))
        self.objects[name] = path.read_bytes()

    def delete(self, name: str) -> None:
        self.done.append(("delete", name))
        self.objects.pop(name, None)

    def put_part(self, name: str, rows: Sequence[Row]) -> None:
        buffer = io.BytesIO()
        schema = part_schema(pipeline())
        with ipc.new_file(buffer, schema) as file:
            file.write_table(pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["call_id"])), schema=schema))
        self.objects[layout.part(DAY, "run-1", name)] = buffer.getvalue()

    def publish_before(self, table: str, rows: Sequence[Row]) -> None:
        if rows:
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMAS[table]), buffer)
            self.objects[object_name(table, DAY)] = buffer.getvalue()

    def rows(self, table: str) -> list[Row]:
        body = self.objects.get(object_name(table, DAY))
        return [] if body is None else pq.read_table(io.BytesIO(body)).to_pylist()

    def published(self) -> list[bytes | None]:
        return [self.objects.get(object_name(table, DAY)) for table in SCHEMAS]


TALK: Row = {
    "turn_count": 1,
    "silence_s": 0.25,
    "speaker_1_talk_s": 0.75,
    "speaker_1_talk_share": 1.0,
    "speaker_2_talk_s": None,
    "speaker_2_talk_share": None,
    "other_talk_s": 0.0,
    "interruption_count": 0,
    "words_per_minute": 150.0,
    "confidence": 0.875,
}


def recording(name: str) -> Recording:
    return Recording("recordings", f"calls/{name}.mp3", "e1", 8, NOON)


def call(name: str, **changes: Any) -> Row:
    """A row of a part, of a call with a phase."""
    one = recording(name)
    row = {
        "call_id": one.call_id,
        "recording_uri": one.uri,
        "recording_etag": one.etag,
        "recording_bytes": one.size,
        "call_started_at": NOON,
        "status": "completed",
        "failure_class": None,
        "failure_message": None,
        "duration_s": 8.0,
        "language": "en",
        "phase_count": 1,
        "transcript_id": f"t-{name}",
        "transcript_uri": None,
        "speech_model": "universal-2",
        "llm_model": "claude-sonnet-4-6",
        "llm_input_tokens": 10,
        "llm_output_tokens": 1,
        "speech_usd": 0.25,
        "llm_usd": 0.5,
        "prompt_version": "1-abc",
        "schema_version": SCHEMA_VERSION,
        "run_id": "run-1",
        "processed_at": NOON,
        "finished": True,
        "run_speech_usd": 0.25,
        "run_llm_usd": 0.5,
        "phases": None,
        "speaker_1": "A",
        "speaker_2": None,
        **TALK,
        "warnings": "Low volume.",
    } | changes
    phases = [
        {
            "phase_index": number,
            "phase_name": "Other",
            "start_s": float(number),
            "end_s": number + 1.0,
            "duration_s": 1.0,
            "share_of_call": 0.125,
            "start_cue": 1,
            "end_cue": 1,
            "word_count": 3,
            "summary": f"{row['run_id']} of {name}.",
            **TALK,
        }
        for number in range(row["phase_count"] or 0)
    ]
    return row | {"phases": phases}


def in_calls(row: Row) -> Row:
    return {name: row[name] for name in CALLS.names}


def in_phases(row: Row) -> list[Row]:
    return [{name: {**row, **phase}[name] for name in PHASES.names} for phase in row["phases"]]


def run(
    tables: MemoryPrefix,
    state: MemoryPrefix,
    listed: int,
    chunks: int,
    rest: int = 0,
    when_deleted: str = "keep",
    known: LedgerView | None = None,
    **left: list[tuple[Recording, LedgerView]],
) -> Published:
    day = DayList(DAY, "run-1", "run-1", fencing_token=1, listed_at=LONG_AGO, listed=listed, chunks=chunks, rest=rest)
    settings = pipeline(recordings={"when_deleted": when_deleted})
    return publish(tables, state, settings, day, lambda name: left[name.replace("-", "_")], known)  # type: ignore[arg-type]


# The rules


@dataclass
class Case:
    """A call: its row of this run, if it was listed, and its row that was published before, if any."""

    listed: Row | None
    part: int
    before: Row | None


FACTS = st.fixed_dictionaries(
    {
        "recording_etag": st.sampled_from(["e1", "e2"]),
        "status": st.sampled_from(["completed", "no_speech", "failed"]),
        "failure_class": st.sampled_from([None, "budget", "balance"]),
        "phase_count": st.sampled_from([None, 0, 1, 3]),
        "speech_usd": st.sampled_from([None, 0.25]),
        "llm_model": st.sampled_from([None, "claude-sonnet-4-6", "claude-haiku-4-5-20251001"]),
    }
)
PARTS = 4


@st.composite
def days(draw: st.DrawFn) -> list[Case]:
    cases: list[Case] = []
    for number in range(draw(st.integers(0, 14))):
        listed = call(f"{number}", finished=draw(st.booleans()), **draw(FACTS)) if draw(st.booleans()) else None
        before = call(f"{number}", run_id="run-0", **draw(FACTS)) if draw(st.booleans()) else None
        cases.append(Case(listed, draw(st.integers(0, PARTS - 1)), before))
    return cases


def by_the_rules(cases: Sequence[Case], when_deleted: str) -> tuple[list[Row], list[Row], Published]:
    """The expected rows and counts, by a simple implementation of the rules."""
    of_listed: list[Row] = []
    kept: list[Row] = []
    unfinished = 0
    for case in cases:
        new, old = case.listed, case.before
        if new is None:
            if old is not None and when_deleted == "keep":
                kept.append(old)
            continue
        unfinished += not new["finished"]
        is_better = old is not None and old["status"] != "failed" and old["recording_etag"] == new["recording_etag"]
        is_unsure = not new["finished"] or new["failure_class"] == "budget"
        of_listed.append(old if old is not None and is_better and is_unsure else new)
    rows = sorted([*of_listed, *kept], key=lambda row: str(row["call_id"]))
    listed = [case.listed for case in cases if case.listed is not None]
    counts = {
        name: dict(Counter(row[column] for row in of_listed if row[column]))
        for name, column in {
            "statuses": "status",
            "failures": "failure_class",
            "speech_models": "speech_model",
            "llm_models": "llm_model",
        }.items()
    }
    # What was published before is of another run.
    counts |= {
        f"run_{name}s": dict(Counter(row[name] for row in of_listed if row[name] and row["run_id"] == "run-1"))
        for name in ("speech_model", "llm_model")
    }
    published = Published(
        listed=len(listed),
        kept=len(kept),
        unfinished=unfinished,
        phases=sum(row["phase_count"] or 0 for row in of_listed),
        audio_s=sum(row["duration_s"] or 0 for row in of_listed),
        speech_usd=sum(row["speech_usd"] or 0 for row in of_listed),
        llm_usd=sum(row["llm_usd"] or 0 for row in of_listed),
        run_speech_usd=sum(row["run_speech_usd"] for row in listed),
        run_llm_usd=sum(row["run_llm_usd"] for row in listed),
        **counts,  # type: ignore[arg-type]
    )
    return [in_calls(row) for row in rows], [phase for row in rows for phase in in_phases(row)], published


def before(cases: Sequence[Case]) -> MemoryPrefix:
    tables = MemoryPrefix()
    old = sorted((case.before for case in cases if case.before is not None), key=lambda row: str(row["call_id"]))
    tables.publish_before("calls", [in_calls(row) for row in old])
    tables.publish_before("phases", [phase for row in old for phase in in_phases(row)])
    return tables


@contextmanager
def cut_small(held_bytes: int) -> Iterator[None]:
    with (
        patch("callphases.tables.publishing.CALLS_IN_A_RANGE", 3),
        patch("callphases.tables.publishing.OLD_ROWS_AT_ONCE", 2),
        patch("callphases.tables.ranges.HELD_BYTES", held_bytes),
    ):
        yield


@settings(max_examples=40)  # a fifth of a second each
@given(days(), st.sampled_from(["keep", "drop"]), st.sampled_from([0, 2_000, 1 << 20]))
def test_day_follows_the_rules_with_any_number_of_parts_and_ranges(
    cases: list[Case], when_deleted: str, held: int
) -> None:
    calls, phases, published = by_the_rules(cases, when_deleted)
    listed = [case.listed for case in cases if case.listed is not None]
    whole, cut = MemoryPrefix(), MemoryPrefix()
    whole.put_part("chunk-0000", listed)
    for part in range(PARTS):
        cut.put_part(
            f"chunk-{part:04d}", [case.listed for case in cases if case.listed is not None and case.part == part]
        )
    with patch("callphases.tables.publishing.ROW_GROUP_CALLS", (1, 1)):
        at_once, in_pieces = before(cases), before(cases)
        found = run(at_once, whole, len(listed), 1, when_deleted=when_deleted)
        with cut_small(held):
            assert run(in_pieces, cut, len(listed), PARTS, when_deleted=when_deleted) == found
        assert replace(found, objects={}) == published
        rows_of = {"calls": len(calls), "phases": len(phases)}
        assert {table: one["rows"] for table, one in found.objects.items()} == {
            table: rows for table, rows in rows_of.items() if rows
        }
        assert (in_pieces.rows("calls"), in_pieces.rows("phases")) == (calls, phases)
        assert in_pieces.published() == at_once.published()

        # Publishing again changes nothing.
        with cut_small(held):
            run(at_once, cut, len(listed), PARTS, when_deleted=when_deleted)
        assert at_once.published() == in_pieces.published()


def test_bytes_do_not_depend_on_how_rows_were_divided_in_memory() -> None:
    """Ends of Arrow chunks can affect ends of Parquet pages, which have thousands of rows: hence so many calls."""
    rows = [call(f"{number:080}", phase_count=15) for number in range(3000)]
    at_once, in_pieces, whole, cut = MemoryPrefix(), MemoryPrefix(), MemoryPrefix(), MemoryPrefix()
    whole.put_part("chunk-0000", rows)
    for part in range(3):
        cut.put_part(f"chunk-{part:04d}", rows[part::3])
    run(at_once, whole, len(rows), 1)
    with patch("callphases.tables.publishing.CALLS_IN_A_RANGE", 500):
        run(in_pieces, cut, len(rows), 3)
    assert in_pieces.published() == at_once.published()


def test_all_row_groups_but_the_last_have_the_same_size() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    for part in range(3):
        state.put_part(f"chunk-{part:04d}", [call(f"{part}-{number}", phase_count=3) for number in range(5)])
    with patch("callphases.tables.publishing.ROW_GROUP_CALLS", (10, 10)), cut_small(0):
        run(tables, state, 15, 3)
    for table, sizes in {"calls": [10, 5], "phases": [40, 5]}.items():
        file = pq.ParquetFile(io.BytesIO(tables.objects[object_name(table, DAY)]))
        assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == sizes


def test_query_for_one_call_reads_a_small_part_of_the_file() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    ids = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(10_000)]
    state.put_part("chunk-0000", [call(one, phase_count=4) for one in sorted(ids)])
    run(tables, state, 10_000, 1)
    for table in ("calls", "phases"):
        body = tables.objects[object_name(table, DAY)]
        footer = pq.ParquetFile(io.BytesIO(body)).metadata
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        edges = [groups[0].column(0).statistics.min, *(group.column(0).statistics.max for group in groups)]
        assert edges == sorted(edges), "row groups are in the order of call_id"
        sizes = [
            sum(group.column(place).total_compressed_size for place in range(footer.num_columns)) for group in groups
        ]
        assert max(sizes) < 0.1 * sum(sizes)


def test_phases_never_have_a_call_that_is_not_in_calls() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    state.put_part("chunk-0000", [call("a"), call("b")])
    run(tables, state, 2, 1)
    names = [object_name(table, DAY) for table in ("calls", "phases")]
    assert tables.done == [("put", names[0]), ("put", names[1])]
    seen: list[tuple[set[str], set[str]]] = []
    put_file, delete = tables.put_file, tables.delete

    def look() -> None:
        calls, phases = ({row["call_id"] for row in tables.rows(table)} for table in ("calls", "phases"))
        assert phases <= calls
        seen.append((calls, phases))

    with (
        patch.object(tables, "put_file", lambda *given: (put_file(*given), look())),
        patch.object(tables, "delete", lambda *given: (delete(*given), look())),
    ):
        other = MemoryPrefix()
        other.put_part("chunk-0000", [call("b"), call("c")])
        run(tables, other, 2, 1, when_deleted="drop")
        run(tables, MemoryPrefix(), 0, 0, when_deleted="drop")
    # How many calls and phases a reader sees after each step.
    assert [tuple(map(len, pair)) for pair in seen] == [(3, 2), (3, 2), (2, 2), (2, 2), (2, 0), (0, 0)]
    assert seen[0][1] != seen[1][1]


def test_old_phases_are_not_read_if_no_old_row_is_kept() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    state.put_part("chunk-0000", [call("a")])
    run(tables, state, 1, 1)
    tables.objects[object_name("phases", DAY)] = b"not a table"
    run(tables, state, 1, 1)
    assert len(tables.rows("phases")) == 1


def test_later_part_wins_if_two_parts_have_the_same_call() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    state.put_part("chunk-0000", [call("a", run_id="first"), call("b")])
    state.put_part("rest-0000", [call("a", run_id="second", phase_count=2)])
    published = run(tables, state, 2, 1, rest=1)
    assert {row["transcript_id"]: row["run_id"] for row in tables.rows("calls")} == {"t-a": "second", "t-b": "run-1"}
    assert len(tables.rows("phases")) == published.phases == 3
    assert published.statuses == {"completed": 2}


def test_columns_missing_in_an_old_table_are_null() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    buffer = io.BytesIO()
    old = pa.Table.from_pylist([in_calls(call("gone"))], schema=CALLS).drop_columns(["language", "llm_usd"])
    pq.write_table(old.append_column("more", pa.array([1])), buffer)
    tables.objects[object_name("calls", DAY)] = buffer.getvalue()
    state.put_part("chunk-0000", [call("a")])
    assert run(tables, state, 1, 1).kept == 1
    (row,) = [row for row in tables.rows("calls") if row["transcript_id"] == "t-gone"]
    assert row == in_calls(call("gone", language=None, llm_usd=None))


def test_rows_of_version_1_are_kept_together_with_new_rows() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    new_columns = ["speaker_1", "speaker_2", *TALK, "warnings"]
    old, new = call("gone", schema_version=1, phase_count=2), call("a")
    for table, rows in {"calls": [in_calls(old)], "phases": in_phases(old)}.items():
        buffer = io.BytesIO()
        columns = [name for name in SCHEMAS[table].names if name not in new_columns]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[table]).select(columns), buffer)
        tables.objects[object_name(table, DAY)] = buffer.getvalue()
    state.put_part("chunk-0000", [new])
    assert run(tables, state, 1, 1).kept == 1
    without = old | dict.fromkeys(new_columns)
    without["phases"] = [phase | dict.fromkeys(TALK) for phase in old["phases"]]
    by_call = sorted([new, without], key=lambda row: str(row["call_id"]))
    assert tables.rows("calls") == [in_calls(row) for row in by_call]
    assert tables.rows("phases") == [phase for row in by_call for phase in in_phases(row)]


def test_calls_of_version_2_are_kept_without_warnings() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    old, new = call("gone", schema_version=2), call("a")
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([in_calls(old)], schema=CALLS).drop_columns("warnings"), buffer)
    tables.objects[object_name("calls", DAY)] = buffer.getvalue()
    state.put_part("chunk-0000", [new])
    assert run(tables, state, 1, 1).kept == 1
    rows = [in_calls(row) for row in (new, old | {"warnings": None})]
    assert tables.rows("calls") == sorted(rows, key=lambda row: str(row["call_id"]))


@pytest.mark.parametrize("table", ["calls", "phases"])
def test_object_metadata_has_the_schema_version(table: str) -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    state.put_part("chunk-0000", [call("a")])
    run(tables, state, 1, 1)
    schema = pq.read_schema(io.BytesIO(tables.objects[object_name(table, DAY)]))
    assert schema.equals(SCHEMAS[table])
    assert schema.metadata == {b"schema_version": b"3"}


# Parts that are missing or out of date


def silent_recording(name: str) -> tuple[Recording, LedgerView]:
    """A recording, and a ledger in which a run found it to have no speech."""
    one = recording(name)
    event = Transcribed(
        key=transcript_key(one, pipeline().transcription),
        recording=one.key,
        status="no_speech",
        transcript_id=f"t-{name}",
        audio_s=8.0,
        speech_usd=0.25,
        run_id="run-1",
        at=dt.datetime.now(dt.UTC),
        fencing_token=1,
    )
    return one, LedgerView([event])


def test_missing_part_of_a_chunk_is_made_from_the_ledger() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    state.put_part("chunk-0001", [call("a")])
    published = run(tables, state, 3, 2, chunk_0000=[silent_recording("b"), (recording("c"), LedgerView())])
    assert published.statuses == {"completed": 1, "no_speech": 1, "failed": 1}
    assert (published.failures, published.unfinished) == ({"unfinished": 1}, 1)
    assert (published.run_speech_usd, published.run_llm_usd) == (0.5, 0.5)


def test_missing_part_of_the_listing_is_an_error() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    with pytest.raises(
        ConfigurationError, match=r"rows/rest-0000\.arrow: these rows are gone.*clear the run's first task"
    ):
        run(tables, state, 1, 0, rest=1)
    assert tables.done == []


def test_out_of_date_parts_are_made_again_from_the_ledger() -> None:
    tables, state = MemoryPrefix(), MemoryPrefix()
    unfinished = {"finished": False, "status": "failed", "failure_class": "unfinished", "phase_count": None}
    state.put_part("chunk-0000", [call("a", **unfinished)])
    state.put_part("rest-0000", [call("b", **unfinished)])
    known = LedgerView()
    for name in "abc":
        known.learn(silent_recording(name)[1].all())
    published = run(tables, state, 3, 2, rest=1, known=known, chunk_0001=[(recording("c"), known)])
    assert (published.statuses, published.unfinished) == ({"no_speech": 3}, 0)
    assert {row["recording_etag"] for row in tables.rows("calls")} == {"e1"}
    assert {row["call_started_at"] for row in tables.rows("calls")} == {NOON}
