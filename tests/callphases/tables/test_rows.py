"""A day's rows, published: one object for each table, the same again when nothing has changed."""

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
}
CALLS_KEY = "tables/calls/dt=2026-11-20/calls.parquet"
PHASES_KEY = "tables/phases/dt=2026-11-20/phases.parquet"


INTENDED, SUBMITTED = Intended(key="", audio_url="u"), Submitted(key="", transcript_id="t")


class Desk:
    """A day whose recordings are done as the test says, to publish."""

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

    def transcribed(self, name: str, body: bytes = b"RIFF", status: Any = "completed") -> Recording:
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
        """``talk``: what is said of the call, and of each of its phases; of none by an earlier version."""
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

    def unanswered(self, name: str, **tokens: Any) -> Recording:
        recording = self.transcribed(name)
        failure = failed(
            self.answer_key(recording), AnswerInvalid("No."), "", usage=ModelUsage(**tokens) if tokens else None
        )
        self.knows(recording, failure)
        return recording

    def stopped(self, recording: Recording, failure_class: str, run_id: str) -> Recording:
        """A run has told why it did not finish a recording."""
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
        """Publish as a run does whose one task has left the rows of all recordings."""
        pipeline, known = self.s3.pipeline(**settings), self.s3.known(day)
        listed = DayList(
            day, run_id, run_id, fencing_token=1, listed_at=since, listed=len(recordings), chunks=1, rest=0
        )
        writer = PartWriter(self.s3.state, pipeline, listed)
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


def test_a_call_costs_what_all_runs_have_asked_about_it(desk: Desk) -> None:
    key = desk.answer_key(desk.transcribed("a"))
    in_vain = {"llm_model": "claude-sonnet-4-6", "llm_input_tokens": 30, "llm_output_tokens": 5, "llm_usd": 0.25}
    desk.knows(desk.transcribed("a"), failed(key, AnswerInvalid("no phases"), "", usage=ModelUsage(**in_vain)))
    recording = desk.completed("a")
    desk.publish([recording])
    (call,) = desk.rows("calls")
    assert (call["llm_input_tokens"], call["status"]) == (130, "completed")
    assert call["llm_usd"] > 0.25


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
        "schema_version": 2,
        "run_id": "run-1",
        **dict.fromkeys(TALK),
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


SAID_OF_CALL = {
    "speakers": ["B", "A"],
    "spoken_s": 8.0,
    "talk_s": [6.0, 2.5],
    "turn_count": 5,
    "interruption_count": 1,
    "words_per_minute": 120.5,
    "confidence": 0.9375,
}
SAID_OF_FIRST = {"spoken_s": 2.0, "talk_s": [2.0, 0.0], "other_s": 0.5, "turn_count": 4, "interruption_count": 0}


def test_who_talks_is_in_the_row_of_the_call_and_in_those_of_its_phases(desk: Desk) -> None:
    desk.publish([desk.completed("a", talk=[SAID_OF_CALL, SAID_OF_FIRST, {"spoken_s": 0.0, "talk_s": [0.0, 0.0]}])])
    (call,) = desk.rows("calls")
    found = [{name: row[name] for name in TALK} for row in (call, *desk.rows("phases"))]
    assert [list(one.values()) for one in found] == [
        [5, 2.0, "B", 6.0, 0.75, "A", 2.5, 0.3125, 0.0, 1, 120.5, 0.9375],
        [4, 0.5, "B", 2.0, 1.0, "A", 0.0, 0.0, 0.5, 0, None, None],
        [None, 7.5, "B", 0.0, None, "A", 0.0, None, 0.0, None, None, None],
    ]


def test_where_nobody_speaks_all_is_silence(desk: Desk) -> None:
    desk.publish([desk.transcribed("a", status="no_speech"), desk.unanswered("b")])
    for row in desk.rows("calls"):
        silence_s = row["duration_s"] if row["status"] == "no_speech" else None
        assert {name: row[name] for name in TALK} == dict.fromkeys(TALK) | {"silence_s": silence_s}


def test_a_call_that_lasts_no_time_is_one_whole_phase(desk: Desk) -> None:
    desk.publish([desk.completed("a", edges=(0.0, 0.0))])
    assert [(row["duration_s"], row["share_of_call"]) for row in desk.rows("phases")] == [(0.0, 1.0)]


@pytest.mark.parametrize(
    ("make", "status", "failure_class", "message", "speech_usd"),
    [
        (lambda desk: desk.transcribed("a", status="no_speech"), "no_speech", None, None, 0.25),
        (lambda desk: desk.unreadable("a"), "failed", "bad_audio", "Transcoding failed. Check", None),
        (lambda desk: desk.unanswered("a"), "failed", "answer_invalid", "No. Try another model", 0.25),
        (lambda desk: desk.transcribed("a"), "failed", "unfinished", "Not done. The log of the run", 0.25),
        (lambda desk: desk.new("a"), "failed", "unfinished", "Not done. The log of the run", None),
        (
            lambda desk: desk.begun("a", INTENDED),
            "failed",
            "unfinished",
            "Not done. The log of the run",
            None,
        ),
        (lambda desk: desk.begun("a", Withdrawn(key="")), "failed", "unfinished", "Not done. The log of the run", None),
        (
            lambda desk: desk.begun("a", SUBMITTED),
            "failed",
            "unfinished",
            "Not done. The log of the run",
            None,
        ),
    ],
    ids=[
        "silence",
        "bad audio",
        "bad answer",
        "not answered",
        "not begun",
        "answer lost",
        "not sent",
        "under way",
    ],
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
        speech_models={"universal-2": 3},
        llm_models={"claude-sonnet-4-6": 2},
        speech_usd=0.75,
        llm_usd=1.0,
        run_speech_usd=0,
        run_llm_usd=0,
    )


def test_what_a_run_has_spent_is_its_own_since_it_listed_the_day(desk: Desk) -> None:
    recordings = [desk.completed("a"), desk.completed("b")]
    desk.knows(
        recordings[0],
        Transcribed(key="", status="completed", transcript_id="t", speech_usd=3.0),
        run_id="run-2",
        at=dt.datetime(1999, 1, 1, tzinfo=dt.UTC),
    )
    published = desk.publish(recordings, run_id="run-1")
    assert (published.run_speech_usd, published.run_llm_usd) == (0.5, 1.0)
    published = desk.publish(recordings, run_id="run-2")
    assert (published.run_speech_usd, published.run_llm_usd) == (0, 0)
    assert (published.speech_usd, published.llm_usd) == (0.5, 1.0)


def test_a_failed_answer_keeps_what_it_took(desk: Desk) -> None:
    took = {
        "llm_model": "claude-haiku-4-5-20251001",
        "llm_input_tokens": 300,
        "llm_output_tokens": 60,
        "llm_usd": 0.0006,
    }
    published = desk.publish([desk.unanswered("a", **took)])
    (call,) = desk.rows("calls")
    assert {name: call[name] for name in took} == took
    assert (call["status"], call["transcript_id"], call["speech_usd"]) == ("failed", "t-a", 0.25)
    assert published.llm_usd == 0.0006


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
    assert [key for key in put if key.startswith("tables/")] == [CALLS_KEY, PHASES_KEY]


def test_a_day_without_recordings_leaves_no_object(desk: Desk) -> None:
    desk.publish([])
    assert desk.s3.keys("tables/") == []


def test_a_day_that_has_lost_its_recordings_removes_its_objects_where_rows_go_too(desk: Desk) -> None:
    desk.publish([desk.completed("a")])
    counted = desk.publish([], recordings={"when_deleted": "drop"})
    assert desk.s3.keys("tables/") == []
    assert (counted.listed, counted.kept) == (0, 0)


def test_a_day_without_phases_has_no_object_of_phases(desk: Desk) -> None:
    desk.publish([desk.completed("a", b"other bytes")])
    desk.publish([desk.unreadable("a")])
    assert desk.s3.keys("tables/") == [CALLS_KEY]


def test_other_days_are_left_alone(desk: Desk) -> None:
    desk.publish([desk.completed("a")])
    desk.publish([], day=DAY + dt.timedelta(days=1), recordings={"when_deleted": "drop"})
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


@pytest.mark.parametrize("failure_class", ["balance", "auth", "model_retired", "service_unavailable", "throttled_out"])
def test_what_a_run_was_stopped_before_says_why(desk: Desk, failure_class: str) -> None:
    counted = desk.publish([desk.stopped(desk.new("a"), failure_class, "run-2"), desk.completed("b")], run_id="run-2")
    (call,) = [row for row in desk.rows("calls") if row["status"] == "failed"]
    assert (call["failure_class"], call["failure_message"]) == (failure_class, f"Why: {failure_class}.")
    assert call["run_id"] == "run-2"
    assert (counted.unfinished, counted.failures) == (1, {failure_class: 1})


def test_why_an_earlier_run_was_stopped_holds_until_a_later_one_begins(desk: Desk) -> None:
    recording = desk.stopped(desk.new("a"), "balance", "run-1")
    assert desk.publish([recording], run_id="run-2").failures == {"balance": 1}
    desk.knows(recording, Submitted(key="", transcript_id="t"), run_id="run-3", fencing_token=2)
    assert desk.publish([recording], run_id="run-3").failures == {"unfinished": 1}


@pytest.mark.parametrize("make", [lambda desk: desk.completed("a"), lambda desk: desk.unreadable("a")])
def test_what_was_done_after_all_hides_why_it_was_not(desk: Desk, make: Any) -> None:
    recording = desk.stopped(make(desk), "balance", "run-2")
    counted = desk.publish([recording], run_id="run-2")
    assert "balance" not in [row["failure_class"] for row in desk.rows("calls")]
    assert counted.unfinished == 0


def test_a_stopped_run_keeps_the_rows_of_the_same_bytes(desk: Desk) -> None:
    recording = desk.completed("a")
    desk.publish([recording])
    counted = desk.publish(
        [desk.stopped(recording, "balance", "run-3")], run_id="run-3", segmentation={"models": ["x"]}
    )
    assert desk.statuses() == {"a": "completed"}
    assert (counted.unfinished, counted.failures) == (1, {})


@pytest.mark.parametrize("run_id", ["run-1", "run-2"])
def test_what_was_over_the_budget_is_a_failure_that_was_meant(desk: Desk, run_id: str) -> None:
    counted = desk.publish([desk.stopped(desk.new("a"), "budget", "run-1"), desk.completed("b")], run_id=run_id)
    (call,) = [row for row in desk.rows("calls") if row["status"] == "failed"]
    assert (call["failure_class"], call["run_id"]) == ("budget", "run-1")
    assert (counted.unfinished, counted.failures) == (0, {"budget": 1})


def test_what_was_over_the_budget_and_was_begun_later_is_not_finished(desk: Desk) -> None:
    recording = desk.stopped(desk.new("a"), "budget", "run-1")
    desk.knows(recording, Submitted(key="", transcript_id="t"), run_id="run-2", fencing_token=2)
    counted = desk.publish([recording], run_id="run-2")
    assert (counted.unfinished, counted.failures) == (1, {"unfinished": 1})


def test_what_is_worth_another_try_at_once_is_not_finished(desk: Desk) -> None:
    recording = desk.new("a")
    desk.knows(recording, failed("", CallFailure("Server error."), "", again=True))
    assert desk.publish([recording]).unfinished == 1


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


@pytest.mark.parametrize("older", [DAY, DAY + dt.timedelta(days=1)], ids=["the first day", "the last day"])
def test_days_of_version_1_are_read_beside_others(desk: Desk, tmp_path: Path, older: dt.date) -> None:
    desk.publish([desk.completed("a", talk=[SAID_OF_CALL, SAID_OF_FIRST, SAID_OF_FIRST])])
    new = pq.read_table(io.BytesIO(desk.s3.bytes_of(CALLS_KEY)), partitioning=None)
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


def test_rows_are_read_from_a_copy_as_from_the_bucket(desk: Desk, tmp_path: Path) -> None:
    desk.publish([desk.completed("a")])
    path = tmp_path / CALLS_KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(desk.s3.bytes_of(CALLS_KEY))
    assert read_rows(tmp_path / "tables", "calls", DAY) == desk.rows("calls")
    assert read_rows(tmp_path / "tables", "phases", DAY) == []
    assert read_rows(desk.s3.tables, "phases", DAY + dt.timedelta(days=1)) == []
