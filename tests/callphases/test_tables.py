"""A day's rows, published: one object for each table, the same again when nothing has changed."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from callphases.errors import AnswerInvalid, BadAudio
from callphases.ledger import answer_key, failed, transcript_key
from callphases.recordings import Recording
from callphases.segmentation import question
from callphases.tables import Published, publish, read_rows
from doubles import DAY, NOON, Store

pytestmark = pytest.mark.integration

UTC_MICROSECONDS = "timestamp[us, tz=UTC]"
LINEAGE = {
    "transcript_id": "string",
    "speech_model": "string",
    "llm_model": "string",
    "prompt_version": "string",
    "schema_version": "int32",
    "run_id": "string",
    "processed_at": UTC_MICROSECONDS,
}
PHASES = {
    "call_id": "string",
    "recording_uri": "string",
    "call_started_at": UTC_MICROSECONDS,
    "phase_index": "int32",
    "phase_name": "string",
    "start_s": "double",
    "end_s": "double",
    "duration_s": "double",
    "share_of_call": "double",
    "start_cue": "int32",
    "end_cue": "int32",
    "word_count": "int32",
    "summary": "string",
    **LINEAGE,
}
CALLS = {
    "call_id": "string",
    "recording_uri": "string",
    "recording_etag": "string",
    "recording_bytes": "int64",
    "call_started_at": UTC_MICROSECONDS,
    "status": "string",
    "failure_class": "string",
    "failure_message": "string",
    "duration_s": "double",
    "language": "string",
    "phase_count": "int32",
    "transcript_id": "string",
    "transcript_uri": "string",
    "speech_model": "string",
    "llm_model": "string",
    "llm_input_tokens": "int64",
    "llm_output_tokens": "int64",
    "speech_usd": "double",
    "llm_usd": "double",
    **{name: LINEAGE[name] for name in ("prompt_version", "schema_version", "run_id", "processed_at")},
}
CALLS_KEY = "tables/calls/dt=2026-11-20/calls.parquet"
PHASES_KEY = "tables/phases/dt=2026-11-20/phases.parquet"


class Desk:
    """A day whose recordings are done as the test says, to publish."""

    def __init__(self, s3: Store) -> None:
        self.s3 = s3
        self.ledger = s3.ledger("run-1")

    def new(self, name: str, body: bytes = b"RIFF") -> Recording:
        return self.s3.put(f"calls/{name}.mp3", body)

    def intended(self, name: str) -> Recording:
        recording = self.new(name)
        key = transcript_key(recording, self.s3.pipeline().transcription)
        self.ledger.write([{"event": "intended", "key": key, "audio_url": "u"}])
        return recording

    def transcribed(self, name: str, body: bytes = b"RIFF", status: str = "completed") -> Recording:
        recording = self.new(name, body)
        event = {
            "event": "transcribed",
            "key": transcript_key(recording, self.s3.pipeline().transcription),
            "status": status,
            "transcript_id": f"t-{name}",
            "transcript_uri": self.s3.state.uri_of(f"transcripts/{name}.json"),
            "audio_s": 10.0,
            "language": "en",
            "speech_model": "universal-2",
            "speech_usd": 0.25,
        }
        self.ledger.write([event])
        return recording

    def completed(self, name: str, body: bytes = b"RIFF", edges: Sequence[float] = (0.0, 2.5, 10.0)) -> Recording:
        recording = self.transcribed(name, body)
        parts = [
            {
                "name": phase_name,
                "start_s": start_s,
                "end_s": end_s,
                "start_cue": number,
                "end_cue": number,
                "word_count": 4,
                "summary": f"{phase_name} of {name}.",
            }
            for number, (phase_name, start_s, end_s) in enumerate(
                zip(("Introduction", "Complaint", "Goodbye"), edges, edges[1:], strict=False), start=1
            )
        ]
        event = {
            "event": "answered",
            "key": self.answer_key(recording),
            "duration_s": edges[-1],
            "phases": parts,
            "llm_model": "claude-sonnet-4-6",
            "llm_input_tokens": 100,
            "llm_output_tokens": 20,
            "llm_usd": 0.5,
            "prompt_version": "1-abc",
        }
        self.ledger.write([event])
        return recording

    def answer_key(self, recording: Recording) -> str:
        pipeline = self.s3.pipeline()
        return answer_key(transcript_key(recording, pipeline.transcription), question(pipeline))

    def unreadable(self, name: str) -> Recording:
        recording = self.new(name)
        key = transcript_key(recording, self.s3.pipeline().transcription)
        self.ledger.write([failed(key, BadAudio("Transcoding failed."), transcript_id=f"t-{name}")])
        return recording

    def unanswered(self, name: str) -> Recording:
        recording = self.transcribed(name)
        self.ledger.write([failed(self.answer_key(recording), AnswerInvalid("No."))])
        return recording

    def publish(self, recordings: Sequence[Recording], /, run_id: str = "run-2", **settings: Any) -> Published:
        return publish(self.s3.tables, self.s3.pipeline(**settings), self.s3.ledger(run_id), recordings)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return read_rows(self.s3.tables, table, DAY)

    def statuses(self) -> dict[str, str]:
        return {
            row["recording_uri"].rsplit("/", 1)[-1].removesuffix(".mp3"): row["status"] for row in self.rows("calls")
        }


@pytest.fixture
def desk(s3: Store) -> Desk:
    return Desk(s3)


def table_at(s3: Store, key: str) -> pa.Table:
    return pq.read_table(io.BytesIO(s3.bytes_of(key)))


# Columns and rows


@pytest.mark.parametrize(("key", "columns"), [(CALLS_KEY, CALLS), (PHASES_KEY, PHASES)])
def test_columns_and_types_are_those_promised(desk: Desk, key: str, columns: dict[str, str]) -> None:
    desk.publish([desk.completed("a"), desk.unreadable("b"), desk.new("c")])
    schema = table_at(desk.s3, key).schema
    assert {field.name: str(field.type) for field in schema} == columns
    assert schema.names == list(columns)


def test_a_completed_call_is_a_row_and_its_phases_are_rows(desk: Desk) -> None:
    recording = desk.completed("a", b"RIFF1234")
    desk.publish([recording])
    (call,) = desk.rows("calls")
    assert call.pop("processed_at").tzinfo is not None
    assert call == {
        "call_id": recording.call_id,
        "recording_uri": recording.uri,
        "recording_etag": recording.etag,
        "recording_bytes": 8,
        "call_started_at": NOON,
        "status": "completed",
        "failure_class": None,
        "failure_message": None,
        "duration_s": 10.0,
        "language": "en",
        "phase_count": 2,
        "transcript_id": "t-a",
        "transcript_uri": desk.s3.state.uri_of("transcripts/a.json"),
        "speech_model": "universal-2",
        "llm_model": "claude-sonnet-4-6",
        "llm_input_tokens": 100,
        "llm_output_tokens": 20,
        "speech_usd": 0.25,
        "llm_usd": 0.5,
        "prompt_version": "1-abc",
        "schema_version": 1,
        "run_id": "run-1",
    }
    phases = desk.rows("phases")
    assert [row["call_id"] for row in phases] == [recording.call_id] * 2
    assert [(row["phase_index"], row["phase_name"], row["start_s"], row["end_s"]) for row in phases] == [
        (0, "Introduction", 0.0, 2.5),
        (1, "Complaint", 2.5, 10.0),
    ]
    assert [(row["duration_s"], row["share_of_call"]) for row in phases] == [(2.5, 0.25), (7.5, 0.75)]
    assert phases[1]["summary"] == "Complaint of a."
    assert phases[1]["run_id"] == "run-1"


def test_a_call_that_lasts_no_time_is_one_whole_phase(desk: Desk) -> None:
    desk.publish([desk.completed("a", edges=(0.0, 0.0))])
    assert [(row["duration_s"], row["share_of_call"]) for row in desk.rows("phases")] == [(0.0, 1.0)]


@pytest.mark.parametrize(
    ("make", "status", "failure_class", "message", "speech_usd"),
    [
        (lambda desk: desk.transcribed("a", status="no_speech"), "no_speech", None, None, 0.25),
        (lambda desk: desk.unreadable("a"), "failed", "bad_audio", "Transcoding failed. Check", None),
        (lambda desk: desk.unanswered("a"), "failed", "answer_invalid", "No. Try another model", 0.25),
        (lambda desk: desk.transcribed("a"), "failed", "unfinished", "The run ended before", 0.25),
        (lambda desk: desk.new("a"), "failed", "unfinished", "The run ended before", None),
        (lambda desk: desk.intended("a"), "failed", "unfinished", "The run ended before", None),
    ],
    ids=["silence", "bad audio", "bad answer", "not answered", "not begun", "answer lost"],
)
def test_whatever_becomes_of_a_recording_it_is_a_row(
    desk: Desk, make: Any, status: str, failure_class: str | None, message: str | None, speech_usd: float | None
) -> None:
    desk.publish([make(desk)])
    (call,) = desk.rows("calls")
    assert (call["status"], call["failure_class"]) == (status, failure_class)
    assert (call["failure_message"] or "").startswith(message or "")
    assert (call["speech_usd"], call["llm_usd"]) == (speech_usd, None)
    assert call["phase_count"] == (0 if status == "no_speech" else None)
    assert desk.rows("phases") == []


def test_a_day_is_counted(desk: Desk) -> None:
    names = ["a", "b"]
    recordings = [
        *(desk.completed(name) for name in names),
        desk.transcribed("c", status="no_speech"),
        desk.unreadable("d"),
        desk.new("e"),
    ]
    assert desk.publish(recordings) == Published(
        listed=5,
        kept=0,
        statuses={"completed": 2, "no_speech": 1, "failed": 2},
        failures={"bad_audio": 1, "unfinished": 1},
        unfinished=1,
        phases=4,
        speech_usd=0.75,
        llm_usd=1.0,
    )


# Objects


def test_a_day_is_one_object_for_each_table(desk: Desk) -> None:
    desk.publish([desk.completed("a"), desk.completed("b")])
    desk.publish([desk.completed("a"), desk.completed("b")])
    assert desk.s3.keys("tables/") == [CALLS_KEY, PHASES_KEY]


def test_a_rerun_gives_the_same_bytes(desk: Desk) -> None:
    recordings = [desk.completed("a"), desk.transcribed("b", status="no_speech"), desk.unreadable("c")]
    desk.publish(recordings)
    before = [desk.s3.bytes_of(key) for key in (CALLS_KEY, PHASES_KEY)]
    desk.publish(list(reversed(recordings)), run_id="run-3")
    assert [desk.s3.bytes_of(key) for key in (CALLS_KEY, PHASES_KEY)] == before


def test_rows_are_in_the_order_of_calls_and_phases(desk: Desk) -> None:
    desk.publish([desk.completed(name) for name in "cab"])
    ids = [row["call_id"] for row in desk.rows("calls")]
    assert ids == sorted(ids)
    order = [(row["call_id"], row["phase_index"]) for row in desk.rows("phases")]
    assert order == sorted(order)


def test_calls_are_there_before_their_phases(desk: Desk) -> None:
    put: list[str] = []
    recording = desk.completed("a")
    desk.s3.client.meta.events.register(
        "provide-client-params.s3.PutObject", lambda params, **_: put.append(params["Key"])
    )
    desk.publish([recording])
    assert put == [CALLS_KEY, PHASES_KEY]


def test_a_day_without_recordings_leaves_no_object(desk: Desk) -> None:
    desk.publish([])
    assert desk.s3.keys("tables/") == []


def test_a_day_that_has_lost_its_recordings_removes_its_objects_where_rows_go_too(desk: Desk) -> None:
    desk.publish([desk.completed("a")])
    counted = desk.publish([], recordings={"when_deleted": "drop"})
    assert desk.s3.keys("tables/") == []
    assert (counted.listed, counted.kept) == (0, 0)


def test_a_day_without_phases_has_no_object_of_phases(desk: Desk) -> None:
    desk.publish([desk.completed("a")])
    desk.publish([desk.unreadable("a")])
    assert desk.s3.keys("tables/") == [CALLS_KEY]


def test_other_days_are_left_alone(desk: Desk) -> None:
    desk.publish([desk.completed("a")])
    tomorrow = desk.s3.ledger(day=DAY + dt.timedelta(days=1))
    publish(desk.s3.tables, desk.s3.pipeline(recordings={"when_deleted": "drop"}), tomorrow, [])
    assert desk.s3.keys("tables/") == [CALLS_KEY, PHASES_KEY]


# What is gone, and what is not finished


@pytest.mark.parametrize(("when_deleted", "left", "phases"), [("keep", {"a", "b"}, 4), ("drop", {"b"}, 2)])
def test_rows_of_a_deleted_recording_stay_or_go(desk: Desk, when_deleted: str, left: set[str], phases: int) -> None:
    both = [desk.completed("a"), desk.completed("b")]
    desk.publish(both)
    counted = desk.publish(both[1:], recordings={"when_deleted": when_deleted})
    assert desk.statuses().keys() == left
    assert len(desk.rows("phases")) == phases
    assert (counted.listed, counted.kept) == (1, len(left) - 1)
    assert (counted.phases, counted.speech_usd, counted.statuses) == (2, 0.25, {"completed": 1})


def test_a_kept_row_is_what_it_was(desk: Desk) -> None:
    recording = desk.completed("a")
    desk.publish([recording])
    before = [desk.s3.bytes_of(key) for key in (CALLS_KEY, PHASES_KEY)]
    for key in desk.s3.keys("state/"):
        desk.s3.client.delete_object(Bucket=desk.s3.warehouse, Key=key)
    desk.publish([])
    assert [desk.s3.bytes_of(key) for key in (CALLS_KEY, PHASES_KEY)] == before


def test_a_run_that_did_not_finish_keeps_the_rows_of_the_same_bytes(desk: Desk) -> None:
    recording = desk.completed("a")
    desk.publish([recording])
    # Another prompt, whose question nobody has answered yet.
    counted = desk.publish([recording], segmentation={"models": ["another"]})
    assert desk.statuses() == {"a": "completed"}
    assert len(desk.rows("phases")) == 2
    assert (counted.unfinished, counted.statuses, counted.failures) == (1, {"completed": 1}, {})


def test_a_run_that_did_not_finish_keeps_no_rows_of_other_bytes(desk: Desk) -> None:
    desk.publish([desk.completed("a", b"first")])
    counted = desk.publish([desk.new("a", b"second")])
    assert desk.statuses() == {"a": "failed"}
    assert desk.rows("phases") == []
    assert (counted.unfinished, counted.failures) == (1, {"unfinished": 1})


def test_a_later_run_replaces_what_was_not_finished(desk: Desk) -> None:
    desk.publish([desk.new("a")])
    desk.publish([desk.completed("a")])
    assert desk.statuses() == {"a": "completed"}


def test_the_cost_of_a_day_is_what_was_used(desk: Desk) -> None:
    counted = desk.publish([desk.completed("a"), desk.unanswered("b"), desk.unreadable("c")])
    assert (counted.speech_usd, counted.llm_usd) == (0.5, 0.5)


# Reading


def test_a_warehouse_reads_a_day_and_its_date_from_the_path(desk: Desk, tmp_path: Path) -> None:
    desk.publish([desk.completed("a"), desk.completed("b")])
    for key in desk.s3.keys("tables/"):
        path = tmp_path / key
        path.parent.mkdir(parents=True)
        path.write_bytes(desk.s3.bytes_of(key))
    found = duckdb.sql(
        f"SELECT dt, phase_name, count(*), sum(duration_s), min(call_started_at AT TIME ZONE 'UTC') "
        f"FROM read_parquet('{tmp_path}/tables/phases/*/*.parquet', hive_partitioning = true) "
        f"WHERE dt = DATE '2026-11-20' GROUP BY ALL ORDER BY phase_name"
    ).fetchall()
    noon = NOON.replace(tzinfo=None)
    assert found == [(DAY, "Complaint", 2, 15.0, noon), (DAY, "Introduction", 2, 5.0, noon)]
    assert "dt" not in table_at(desk.s3, PHASES_KEY).schema.names


def test_rows_are_read_from_a_copy_as_from_the_bucket(desk: Desk, tmp_path: Path) -> None:
    desk.publish([desk.completed("a")])
    path = tmp_path / CALLS_KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(desk.s3.bytes_of(CALLS_KEY))
    assert read_rows(tmp_path / "tables", "calls", DAY) == desk.rows("calls")
    assert read_rows(tmp_path / "tables", "phases", DAY) == []
    assert read_rows(desk.s3.tables, "phases", DAY + dt.timedelta(days=1)) == []
