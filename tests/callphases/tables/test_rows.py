"""Tests of a published day's rows: one object for each table, with the same bytes if nothing has changed."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from callphases.errors import AnswerInvalid, BadAudio, CallFailure
from callphases.recordings import Recording
from callphases.state.events import (
    Answered,
    Event,
    Intended,
    ModelUsage,
    Stopped,
    Submitted,
    Transcribed,
    Withdrawn,
    failed,
)
from callphases.state.keys import RecordingKeys, stop_key, transcript_key
from callphases.state.manifests import DayList
from callphases.tables.parts import PartWriter
from callphases.tables.publishing import Published, publish
from callphases.tables.reading import read_rows
from callphases.tables.schema import object_name
from doubles import DAY, LONG_AGO, NOON, Store

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
TALK = {
    "turn_count": "int32",
    "silence_s": "double",
    "speaker_1": "string",
    "speaker_1_talk_s": "double",
    "speaker_1_talk_share": "double",
    "speaker_2": "string",
    "speaker_2_talk_s": "double",
    "speaker_2_talk_share": "double",
    "other_talk_s": "double",
    "interruption_count": "int32",
    "words_per_minute": "double",
    "confidence": "double",
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
    **TALK,
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
    **TALK,
    "warnings": "string",
}
CALLS_KEY = "tables/calls/dt=2026-11-20/calls.parquet"
PHASES_KEY = "tables/phases/dt=2026-11-20/phases.parquet"


INTENDED, SUBMITTED = Intended(key="", audio_url="u"), Submitted(key="", transcript_id="t")


class Publisher:
    """Puts recordings and their ledger events in the store, and publishes the day."""

    def __init__(self, s3: Store) -> None:
        self.s3 = s3

    def knows(self, recording: Recording, event: Event, **more: Any) -> None:
        """Let the ledger hold an event of a recording, of its transcript where it has no key of its own."""
        key = event.key or self.key(recording)
        self.s3.knows(replace(event, key=key, recording=recording.key), **{"run_id": "run-1", **more})

    def new(self, name: str, body: bytes = b"RIFF") -> Recording:
        return self.s3.put(f"calls/{name}.mp3", body)

    def begun(self, name: str, event: Event) -> Recording:
        recording = self.new(name)
        self.knows(recording, event)
        return recording

    def transcribed(
        self, name: str, body: bytes = b"RIFF", status: Any = "completed", warnings: str | None = None
    ) -> Recording:
        recording = self.new(name, body)
        event = Transcribed(
            key="",
            status=status,
            transcript_id=f"t-{name}",
            transcript_uri=self.s3.state.uri_of(f"transcripts/{name}.json"),
            audio_s=10.0,
            language="en",
            speech_model="universal-2",
            speech_usd=0.25,
            warnings=warnings,
        )
        self.knows(recording, event)
        return recording

    def completed(
        self,
        name: str,
        body: bytes = b"RIFF",
        edges: Sequence[float] = (0.0, 2.5, 10.0),
        talk: Sequence[dict[str, Any]] = (),
    ) -> Recording:
        """``talk``: statistics of the call and of each of its phases; an earlier version recorded none."""
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
        for part, said in zip(parts, talk[1:], strict=False):
            part["talk"] = said
        event = Answered(
            key=self.answer_key(recording),
            duration_s=edges[-1],
            phases=parts,
            talk=talk[0] if talk else {},
            prompt_version="1-abc",
            usage=ModelUsage(llm_model="claude-sonnet-4-6", llm_input_tokens=100, llm_output_tokens=20, llm_usd=0.5),
        )
        self.knows(recording, event)
        return recording

    def answer_key(self, recording: Recording) -> str:
        return RecordingKeys(self.s3.pipeline()).answer(self.key(recording))

    def unreadable(self, name: str) -> Recording:
        recording = self.new(name)
        self.knows(recording, failed("", BadAudio("Transcoding failed."), "", transcript_id=f"t-{name}"))
        return recording

    def unanswered(self, name: str, warnings: str | None = None, **tokens: Any) -> Recording:
        recording = self.transcribed(name, warnings=warnings)
        failure = failed(
            self.answer_key(recording), AnswerInvalid("No."), "", usage=ModelUsage(**tokens) if tokens else None
        )
        self.knows(recording, failure)
        return recording

    def stopped(self, recording: Recording, failure_class: str, run_id: str) -> Recording:
        """Let a run record why it did not finish a recording."""
        key, message = stop_key(self.key(recording)), f"Why: {failure_class}."
        self.knows(recording, Stopped(key=key, failure_class=failure_class, failure_message=message), run_id=run_id)
        return recording

    def key(self, recording: Recording) -> str:
        return transcript_key(recording, self.s3.pipeline().transcription)

    def publish(
        self,
        recordings: Sequence[Recording],
        /,
        run_id: str = "run-2",
        since: dt.datetime = LONG_AGO,
        day: dt.date = DAY,
        **settings: Any,
    ) -> Published:
        """Publish as a run whose only task has written the rows of all recordings."""
        pipeline, known = self.s3.pipeline(**settings), self.s3.known(day)
        listed = DayList(
            day, run_id, run_id, fencing_token=1, listed_at=since, listed=len(recordings), chunks=1, rest=0
        )
        writer = PartWriter(self.s3.state, pipeline, listed, listed.day)
        for one in recordings:
            writer.add(one, known)
        writer.write("chunk-0000")
        return publish(self.s3.tables, self.s3.state, pipeline, listed, missing=lambda chunk: [])

    def rows(self, table: str) -> list[dict[str, Any]]:
        return read_rows(self.s3.tables, table, DAY)

    def statuses(self) -> dict[str, str]:
        return {
            row["recording_uri"].rsplit("/", 1)[-1].removesuffix(".mp3"): row["status"] for row in self.rows("calls")
        }


@pytest.fixture
def publisher(s3: Store) -> Publisher:
    return Publisher(s3)


def table_at(s3: Store, key: str) -> pa.Table:
    return pq.read_table(io.BytesIO(s3.bytes_of(key)))


# Columns and rows


@pytest.mark.parametrize(("key", "columns"), [(CALLS_KEY, CALLS), (PHASES_KEY, PHASES)])
def test_columns_and_types_are_those_documented(publisher: Publisher, key: str, columns: dict[str, str]) -> None:
    publisher.publish([publisher.completed("a"), publisher.unreadable("b"), publisher.new("c")])
    schema = table_at(publisher.s3, key).schema
    assert {field.name: str(field.type) for field in schema} == columns
    assert schema.names == list(columns)


def test_call_row_adds_up_the_questions_of_all_runs(publisher: Publisher) -> None:
    key = publisher.answer_key(publisher.transcribed("a"))
    spent = {"llm_model": "claude-sonnet-4-6", "llm_input_tokens": 30, "llm_output_tokens": 5, "llm_usd": 0.25}
    publisher.knows(publisher.transcribed("a"), failed(key, AnswerInvalid("no phases"), "", usage=ModelUsage(**spent)))
    recording = publisher.completed("a")
    publisher.publish([recording])
    (call,) = publisher.rows("calls")
    assert (call["llm_input_tokens"], call["status"]) == (130, "completed")
    assert call["llm_usd"] > 0.25


def test_completed_call_has_a_row_and_a_row_for_each_phase(publisher: Publisher) -> None:
    recording = publisher.completed("a", b"RIFF1234")
    publisher.publish([recording])
    (call,) = publisher.rows("calls")
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
        "transcript_uri": publisher.s3.state.uri_of("transcripts/a.json"),
        "speech_model": "universal-2",
        "llm_model": "claude-sonnet-4-6",
        "llm_input_tokens": 100,
        "llm_output_tokens": 20,
        "speech_usd": 0.25,
        "llm_usd": 0.5,
        "prompt_version": "1-abc",
        "schema_version": 3,
        "run_id": "run-1",
        **dict.fromkeys(TALK),
        "warnings": None,
    }
    phases = publisher.rows("phases")
    assert [row["call_id"] for row in phases] == [recording.call_id] * 2
    assert [(row["phase_index"], row["phase_name"], row["start_s"], row["end_s"]) for row in phases] == [
        (0, "Introduction", 0.0, 2.5),
        (1, "Complaint", 2.5, 10.0),
    ]
    assert [(row["duration_s"], row["share_of_call"]) for row in phases] == [(2.5, 0.25), (7.5, 0.75)]
    assert phases[1]["summary"] == "Complaint of a."
    assert phases[1]["run_id"] == "run-1"


TALK_OF_CALL = {
    "speakers": ["B", "A"],
    "spoken_s": 8.0,
    "talk_s": [6.0, 2.5],
    "turn_count": 5,
    "interruption_count": 1,
    "words_per_minute": 120.5,
    "confidence": 0.9375,
}
TALK_OF_PHASE = {"spoken_s": 2.0, "talk_s": [2.0, 0.0], "other_s": 0.5, "turn_count": 4, "interruption_count": 0}


def test_talk_statistics_are_in_the_rows_of_the_call_and_of_its_phases(publisher: Publisher) -> None:
    publisher.publish(
        [publisher.completed("a", talk=[TALK_OF_CALL, TALK_OF_PHASE, {"spoken_s": 0.0, "talk_s": [0.0, 0.0]}])]
    )
    (call,) = publisher.rows("calls")
    found = [{name: row[name] for name in TALK} for row in (call, *publisher.rows("phases"))]
    assert [list(one.values()) for one in found] == [
        [5, 2.0, "B", 6.0, 0.75, "A", 2.5, 0.3125, 0.0, 1, 120.5, 0.9375],
        [4, 0.5, "B", 2.0, 1.0, "A", 0.0, 0.0, 0.5, 0, None, None],
        [None, 7.5, "B", 0.0, None, "A", 0.0, None, 0.0, None, None, None],
    ]


def test_call_without_speech_is_all_silence(publisher: Publisher) -> None:
    publisher.publish([publisher.transcribed("a", status="no_speech"), publisher.unanswered("b")])
    for row in publisher.rows("calls"):
        silence_s = row["duration_s"] if row["status"] == "no_speech" else None
        assert {name: row[name] for name in TALK} == dict.fromkeys(TALK) | {"silence_s": silence_s}


def test_warnings_of_the_service_are_in_the_row_of_any_call_with_a_transcript(publisher: Publisher) -> None:
    silent = publisher.transcribed("a", status="no_speech", warnings="Low volume.")
    unanswered = publisher.unanswered("b", warnings="decoded 7.9 s of 8.1 s stated; Low volume.")
    publisher.publish([silent, unanswered, publisher.completed("c"), publisher.unreadable("d"), publisher.new("e")])
    assert {row["recording_uri"][-5]: row["warnings"] for row in publisher.rows("calls")} == {
        "a": "Low volume.",
        "b": "decoded 7.9 s of 8.1 s stated; Low volume.",
        **dict.fromkeys("cde"),
    }


def test_call_of_zero_length_is_one_phase_with_the_whole_share(publisher: Publisher) -> None:
    publisher.publish([publisher.completed("a", edges=(0.0, 0.0))])
    assert [(row["duration_s"], row["share_of_call"]) for row in publisher.rows("phases")] == [(0.0, 1.0)]


@pytest.mark.parametrize(
    ("make", "status", "failure_class", "message", "speech_usd"),
    [
        (lambda publisher: publisher.transcribed("a", status="no_speech"), "no_speech", None, None, 0.25),
        (lambda publisher: publisher.unreadable("a"), "failed", "bad_audio", "Transcoding failed. Check", None),
        (lambda publisher: publisher.unanswered("a"), "failed", "answer_invalid", "No. Try another model", 0.25),
        (lambda publisher: publisher.transcribed("a"), "failed", "unfinished", "Not done. The log of the run", 0.25),
        (lambda publisher: publisher.new("a"), "failed", "unfinished", "Not done. The log of the run", None),
        (
            lambda publisher: publisher.begun("a", INTENDED),
            "failed",
            "unfinished",
            "Not done. The log of the run",
            None,
        ),
        (
            lambda publisher: publisher.begun("a", Withdrawn(key="")),
            "failed",
            "unfinished",
            "Not done. The log of the run",
            None,
        ),
        (
            lambda publisher: publisher.begun("a", SUBMITTED),
            "failed",
            "unfinished",
            "Not done. The log of the run",
            None,
        ),
    ],
    ids=[
        "no speech",
        "bad audio",
        "invalid answer",
        "not answered",
        "not begun",
        "intended",
        "withdrawn",
        "submitted",
    ],
)
def test_recording_without_phases_has_a_row_with_status_and_failure(
    publisher: Publisher,
    make: Any,
    status: str,
    failure_class: str | None,
    message: str | None,
    speech_usd: float | None,
) -> None:
    publisher.publish([make(publisher)])
    (call,) = publisher.rows("calls")
    assert (call["status"], call["failure_class"]) == (status, failure_class)
    assert (call["failure_message"] or "").startswith(message or "")
    assert (call["speech_usd"], call["llm_usd"]) == (speech_usd, None)
    assert call["phase_count"] == (0 if status == "no_speech" else None)
    assert publisher.rows("phases") == []


def test_publishing_returns_the_counts_and_costs_of_the_day(publisher: Publisher) -> None:
    names = ["a", "b"]
    recordings = [
        *(publisher.completed(name) for name in names),
        publisher.transcribed("c", status="no_speech"),
        publisher.unreadable("d"),
        publisher.new("e"),
    ]
    published = publisher.publish(recordings)
    assert {table: one["rows"] for table, one in published.objects.items()} == {"calls": 5, "phases": 4}
    (prompt_version,) = {row["prompt_version"] for row in publisher.rows("calls")} - {None}
    assert replace(published, objects={}) == Published(
        listed=5,
        kept=0,
        statuses={"completed": 2, "no_speech": 1, "failed": 2},
        failures={"bad_audio": 1, "unfinished": 1},
        unfinished=1,
        phases=4,
        audio_s=sum(row["duration_s"] or 0 for row in publisher.rows("calls")),
        speech_models={"universal-2": 3},
        llm_models={"claude-sonnet-4-6": 2},
        speech_usd=0.75,
        llm_usd=1.0,
        run_speech_usd=0,
        run_llm_usd=0,
        phase_s={"Complaint": 15.0, "Introduction": 5.0},
        lineage={
            "prompt_version": {prompt_version: 2},
            "speech_model": {"universal-2": 3},
            "llm_model": {"claude-sonnet-4-6": 2},
        },
    )


def test_run_cost_is_what_the_run_itself_spent_since_it_listed_the_day(publisher: Publisher) -> None:
    recordings = [publisher.completed("a"), publisher.completed("b")]
    publisher.knows(
        recordings[0],
        Transcribed(key="", status="completed", transcript_id="t", speech_usd=3.0),
        run_id="run-2",
        at=dt.datetime(1999, 1, 1, tzinfo=dt.UTC),
    )
    published = publisher.publish(recordings, run_id="run-1")
    assert (published.run_speech_usd, published.run_llm_usd) == (0.5, 1.0)
    published = publisher.publish(recordings, run_id="run-2")
    assert (published.run_speech_usd, published.run_llm_usd) == (0, 0)
    assert (published.speech_usd, published.llm_usd) == (0.5, 1.0)


def test_failed_answer_keeps_its_tokens_and_cost(publisher: Publisher) -> None:
    took = {
        "llm_model": "claude-haiku-4-5-20251001",
        "llm_input_tokens": 300,
        "llm_output_tokens": 60,
        "llm_usd": 0.0006,
    }
    published = publisher.publish([publisher.unanswered("a", **took)])
    (call,) = publisher.rows("calls")
    assert {name: call[name] for name in took} == took
    assert (call["status"], call["transcript_id"], call["speech_usd"]) == ("failed", "t-a", 0.25)
    assert published.llm_usd == 0.0006


# Objects


def test_day_is_one_object_for_each_table(publisher: Publisher) -> None:
    publisher.publish([publisher.completed("a"), publisher.completed("b")])
    publisher.publish([publisher.completed("a"), publisher.completed("b")])
    assert publisher.s3.keys("tables/") == [CALLS_KEY, PHASES_KEY]


def test_rerun_writes_the_same_bytes(publisher: Publisher) -> None:
    recordings = [publisher.completed("a"), publisher.transcribed("b", status="no_speech"), publisher.unreadable("c")]
    publisher.publish(recordings)
    before = [publisher.s3.bytes_of(key) for key in (CALLS_KEY, PHASES_KEY)]
    publisher.publish(list(reversed(recordings)), run_id="run-3")
    assert [publisher.s3.bytes_of(key) for key in (CALLS_KEY, PHASES_KEY)] == before


def test_rows_are_sorted_by_call_and_phase(publisher: Publisher) -> None:
    publisher.publish([publisher.completed(name) for name in "cab"])
    ids = [row["call_id"] for row in publisher.rows("calls")]
    assert ids == sorted(ids)
    order = [(row["call_id"], row["phase_index"]) for row in publisher.rows("phases")]
    assert order == sorted(order)


def test_calls_are_written_before_their_phases(publisher: Publisher) -> None:
    put: list[str] = []
    recording = publisher.completed("a")
    publisher.s3.client.meta.events.register(
        "provide-client-params.s3.PutObject", lambda params, **_: put.append(params["Key"])
    )
    publisher.publish([recording])
    assert [key for key in put if key.startswith("tables/")] == [CALLS_KEY, PHASES_KEY]


def test_day_without_recordings_has_no_object(publisher: Publisher) -> None:
    publisher.publish([])
    assert publisher.s3.keys("tables/") == []


def test_day_whose_recordings_are_all_deleted_loses_its_objects_with_drop(publisher: Publisher) -> None:
    publisher.publish([publisher.completed("a")])
    counted = publisher.publish([], recordings={"when_deleted": "drop"})
    assert publisher.s3.keys("tables/") == []
    assert (counted.listed, counted.kept) == (0, 0)


def test_day_without_phases_has_no_phases_object(publisher: Publisher) -> None:
    publisher.publish([publisher.completed("a", b"other bytes")])
    publisher.publish([publisher.unreadable("a")])
    assert publisher.s3.keys("tables/") == [CALLS_KEY]


def test_other_days_are_not_changed(publisher: Publisher) -> None:
    publisher.publish([publisher.completed("a")])
    publisher.publish([], day=DAY + dt.timedelta(days=1), recordings={"when_deleted": "drop"})
    assert publisher.s3.keys("tables/") == [CALLS_KEY, PHASES_KEY]


# Deleted recordings, and unfinished ones


@pytest.mark.parametrize(("when_deleted", "left", "phases"), [("keep", {"a", "b"}, 4), ("drop", {"b"}, 2)])
def test_rows_of_a_deleted_recording_are_kept_or_dropped_as_configured(
    publisher: Publisher, when_deleted: str, left: set[str], phases: int
) -> None:
    both = [publisher.completed("a"), publisher.completed("b")]
    publisher.publish(both)
    counted = publisher.publish(both[1:], recordings={"when_deleted": when_deleted})
    assert publisher.statuses().keys() == left
    assert len(publisher.rows("phases")) == phases
    assert (counted.listed, counted.kept) == (1, len(left) - 1)
    assert (counted.phases, counted.speech_usd, counted.statuses) == (2, 0.25, {"completed": 1})


def test_kept_row_is_unchanged_without_the_state_area(publisher: Publisher) -> None:
    recording = publisher.completed("a")
    publisher.publish([recording])
    before = [publisher.s3.bytes_of(key) for key in (CALLS_KEY, PHASES_KEY)]
    for key in publisher.s3.keys("state/"):
        publisher.s3.client.delete_object(Bucket=publisher.s3.warehouse, Key=key)
    publisher.publish([])
    assert [publisher.s3.bytes_of(key) for key in (CALLS_KEY, PHASES_KEY)] == before


def test_unfinished_run_keeps_the_rows_of_a_recording_with_the_same_etag(publisher: Publisher) -> None:
    recording = publisher.completed("a")
    publisher.publish([recording])
    # Another prompt, whose question nobody has answered yet.
    counted = publisher.publish([recording], segmentation={"models": ["another"]})
    assert publisher.statuses() == {"a": "completed"}
    assert len(publisher.rows("phases")) == 2
    assert (counted.unfinished, counted.statuses, counted.failures) == (1, {"completed": 1}, {})


def test_unfinished_run_replaces_the_rows_of_a_recording_with_a_new_etag(publisher: Publisher) -> None:
    publisher.publish([publisher.completed("a", b"first")])
    counted = publisher.publish([publisher.new("a", b"second")])
    assert publisher.statuses() == {"a": "failed"}
    assert publisher.rows("phases") == []
    assert (counted.unfinished, counted.failures) == (1, {"unfinished": 1})


def test_later_run_replaces_an_unfinished_row(publisher: Publisher) -> None:
    publisher.publish([publisher.new("a")])
    publisher.publish([publisher.completed("a")])
    assert publisher.statuses() == {"a": "completed"}


@pytest.mark.parametrize("failure_class", ["balance", "auth", "model_retired", "service_unavailable", "throttled_out"])
def test_recording_that_a_stopped_run_did_not_reach_has_the_reason(publisher: Publisher, failure_class: str) -> None:
    counted = publisher.publish(
        [publisher.stopped(publisher.new("a"), failure_class, "run-2"), publisher.completed("b")], run_id="run-2"
    )
    (call,) = [row for row in publisher.rows("calls") if row["status"] == "failed"]
    assert (call["failure_class"], call["failure_message"]) == (failure_class, f"Why: {failure_class}.")
    assert call["run_id"] == "run-2"
    assert (counted.unfinished, counted.failures) == (1, {failure_class: 1})


def test_stop_reason_of_an_earlier_run_lasts_until_a_later_run_submits(publisher: Publisher) -> None:
    recording = publisher.stopped(publisher.new("a"), "balance", "run-1")
    assert publisher.publish([recording], run_id="run-2").failures == {"balance": 1}
    publisher.knows(recording, Submitted(key="", transcript_id="t"), run_id="run-3", fencing_token=2)
    assert publisher.publish([recording], run_id="run-3").failures == {"unfinished": 1}


@pytest.mark.parametrize(
    "make", [lambda publisher: publisher.completed("a"), lambda publisher: publisher.unreadable("a")]
)
def test_finished_recording_does_not_show_a_stop_reason(publisher: Publisher, make: Any) -> None:
    recording = publisher.stopped(make(publisher), "balance", "run-2")
    counted = publisher.publish([recording], run_id="run-2")
    assert "balance" not in [row["failure_class"] for row in publisher.rows("calls")]
    assert counted.unfinished == 0


def test_stopped_run_keeps_the_rows_of_a_recording_with_the_same_etag(publisher: Publisher) -> None:
    recording = publisher.completed("a")
    publisher.publish([recording])
    counted = publisher.publish(
        [publisher.stopped(recording, "balance", "run-3")], run_id="run-3", segmentation={"models": ["x"]}
    )
    assert publisher.statuses() == {"a": "completed"}
    assert (counted.unfinished, counted.failures) == (1, {})


@pytest.mark.parametrize("run_id", ["run-1", "run-2"])
def test_recording_over_the_budget_is_a_finished_failure(publisher: Publisher, run_id: str) -> None:
    counted = publisher.publish(
        [publisher.stopped(publisher.new("a"), "budget", "run-1"), publisher.completed("b")], run_id=run_id
    )
    (call,) = [row for row in publisher.rows("calls") if row["status"] == "failed"]
    assert (call["failure_class"], call["run_id"]) == ("budget", "run-1")
    assert (counted.unfinished, counted.failures) == (0, {"budget": 1})


def test_recording_over_the_budget_that_a_later_run_submits_is_unfinished(publisher: Publisher) -> None:
    recording = publisher.stopped(publisher.new("a"), "budget", "run-1")
    publisher.knows(recording, Submitted(key="", transcript_id="t"), run_id="run-2", fencing_token=2)
    counted = publisher.publish([recording], run_id="run-2")
    assert (counted.unfinished, counted.failures) == (1, {"unfinished": 1})


def test_failure_to_be_retried_in_the_same_run_is_unfinished(publisher: Publisher) -> None:
    recording = publisher.new("a")
    publisher.knows(recording, failed("", CallFailure("Server error."), "", again=True))
    assert publisher.publish([recording]).unfinished == 1


def test_cost_of_a_day_leaves_out_failed_transcriptions(publisher: Publisher) -> None:
    counted = publisher.publish([publisher.completed("a"), publisher.unanswered("b"), publisher.unreadable("c")])
    assert (counted.speech_usd, counted.llm_usd) == (0.5, 0.5)


# Reading


def test_duckdb_reads_a_day_and_its_date_from_the_path(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish([publisher.completed("a"), publisher.completed("b")])
    for key in publisher.s3.keys("tables/"):
        path = tmp_path / key
        path.parent.mkdir(parents=True)
        path.write_bytes(publisher.s3.bytes_of(key))
    found = duckdb.sql(
        f"SELECT dt, phase_name, count(*), sum(duration_s), min(call_started_at AT TIME ZONE 'UTC') "
        f"FROM read_parquet('{tmp_path}/tables/phases/*/*.parquet', hive_partitioning = true) "
        f"WHERE dt = DATE '2026-11-20' GROUP BY ALL ORDER BY phase_name"
    ).fetchall()
    noon = NOON.replace(tzinfo=None)
    assert found == [(DAY, "Complaint", 2, 15.0, noon), (DAY, "Introduction", 2, 5.0, noon)]
    assert "dt" not in table_at(publisher.s3, PHASES_KEY).schema.names


@pytest.mark.parametrize("older", [DAY, DAY + dt.timedelta(days=1)], ids=["the first day", "the last day"])
def test_days_of_version_1_are_read_together_with_later_ones(
    publisher: Publisher, tmp_path: Path, older: dt.date
) -> None:
    publisher.publish([publisher.completed("a", talk=[TALK_OF_CALL, TALK_OF_PHASE, TALK_OF_PHASE])])
    new = pq.read_table(io.BytesIO(publisher.s3.bytes_of(CALLS_KEY)), partitioning=None)
    for day in (DAY, DAY + dt.timedelta(days=1)):
        path = tmp_path / object_name("calls", day)
        path.parent.mkdir(parents=True)
        pq.write_table(new.drop_columns(list(TALK)) if day == older else new, path)
    found = duckdb.sql(
        f"SELECT dt = DATE '{older}', sum(turn_count) "
        f"FROM read_parquet('{tmp_path}/calls/*/*.parquet', hive_partitioning = true, union_by_name = true) GROUP BY 1"
    ).fetchall()
    assert sorted(found) == [(False, 5), (True, None)]
    (row,) = read_rows(tmp_path, "calls", older)
    assert (row["duration_s"], row["turn_count"], row["speaker_1"]) == (10.0, None, None)


def test_rows_of_a_local_copy_are_those_of_the_bucket(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish([publisher.completed("a")])
    path = tmp_path / CALLS_KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(publisher.s3.bytes_of(CALLS_KEY))
    assert read_rows(tmp_path / "tables", "calls", DAY) == publisher.rows("calls")
    assert read_rows(tmp_path / "tables", "phases", DAY) == []
    assert read_rows(publisher.s3.tables, "phases", DAY + dt.timedelta(days=1)) == []
