"""Progress of a recording: what is left to do for it, and what the tables say of it, by the last event."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any

import pytest

from callphases.errors import AnswerCut, BadAudio, DownloadRefused, Unfinished
from callphases.progress import DayPass, Progress, deletable_transcripts, unsettled
from callphases.state.events import (
    Answered,
    Deleted,
    Described,
    Event,
    Failed,
    Intended,
    ModelUsage,
    Stopped,
    Submitted,
    Transcribed,
    Withdrawn,
    failed,
    stamped,
)
from callphases.state.keys import RecordingKeys, deletion_key, stop_key
from callphases.state.ledger import LedgerView
from doubles import LONG_AGO, NEXT_RUN, NOON, manifest, pipeline, recording

RECORDING = recording("calls/a.mp3")
KEYS = RecordingKeys(pipeline())
KEY = KEYS.transcript(RECORDING)
ANSWER_KEY = KEYS.answer(KEY)

THIS_PASS, NEXT_PASS, REPLAY = DayPass(LONG_AGO), DayPass(NEXT_RUN), DayPass(NEXT_RUN, replay=True)


def intended() -> Intended:
    return Intended(key=KEY, recording=RECORDING.key)


def submitted() -> Submitted:
    return Submitted(key=KEY, recording=RECORDING.key, transcript_id="t-1")


def transcribed(**changes: Any) -> Transcribed:
    values = {"status": "completed", "transcript_id": "t-1", "audio_s": 6.0}
    return Transcribed(key=KEY, recording=RECORDING.key, **{**values, **changes})


def answered(**changes: Any) -> Answered:
    values: dict[str, Any] = {"duration_s": 6.0, "phases": []}
    return Answered(key=ANSWER_KEY, recording=RECORDING.key, **{**values, **changes})


def stopped(failure_class: str = "unfinished") -> Stopped:
    key, message = stop_key(KEY), "Not done."
    return Stopped(key=key, recording=RECORDING.key, failure_class=failure_class, failure_message=message)


WITHDRAWN = Withdrawn(key=KEY, recording=RECORDING.key)
BROKEN = failed(KEY, BadAudio("No audio"), RECORDING.key)
FAR = failed(KEY, DownloadRefused("No way"), RECORDING.key)
AGAIN = failed(KEY, DownloadRefused("No way"), RECORDING.key, again=True)
CUT = failed(ANSWER_KEY, AnswerCut("Too long"), RECORDING.key, usage=ModelUsage(llm_model="m", llm_usd=0.5))


def ledger(*events: Event, token: int = 1) -> LedgerView:
    """A ledger of one run that wrote these events, a second after each other."""
    moments = (NOON + dt.timedelta(seconds=second) for second in range(len(events)))
    return LedgerView(stamped(event, at, token, "run-1") for event, at in zip(events, moments, strict=False))


def progress(*events: Event) -> Progress:
    return Progress(RECORDING, KEYS, ledger(*events))


# Settled


@pytest.mark.parametrize(
    ("event", "in_this_pass", "in_the_next", "in_a_replay"),
    [
        (None, False, False, False),
        (intended(), False, False, False),
        (WITHDRAWN, False, False, False),
        (submitted(), True, True, True),
        (transcribed(), True, True, True),
        (BROKEN, True, True, False),
        (FAR, True, False, False),
        (AGAIN, False, False, False),
    ],
    ids=["none", "intended", "withdrawn", "submitted", "transcribed", "permanent", "temporary", "again at once"],
)
def test_event_settles_its_key_in_a_pass(
    event: Event | None, in_this_pass: bool, in_the_next: bool, in_a_replay: bool
) -> None:
    last = ledger(*([event] if event else [])).find(KEY)
    assert THIS_PASS.has_settled(last) is in_this_pass
    assert NEXT_PASS.has_settled(last) is in_the_next
    assert REPLAY.has_settled(last) is in_a_replay


def test_permanent_failure_of_a_replay_is_settled_in_that_replay() -> None:
    assert DayPass(LONG_AGO, replay=True).has_settled(ledger(BROKEN).find(KEY))


def test_failure_at_the_very_start_of_a_pass_belongs_to_it() -> None:
    assert DayPass(NOON).has_settled(ledger(FAR).find(KEY))


def test_pass_of_a_chunk_is_the_pass_of_its_listing() -> None:
    assert DayPass.of(manifest(listed_at=NOON, replay=True)) == DayPass(NOON, replay=True)


# Work and outcome


@dataclass(frozen=True)
class Case:
    """The events of a recording, and what follows from them; ``failure_class`` is None where it did not fail."""

    events: list[Event]
    needs_transcript: bool
    needs_answer: bool
    is_settled: bool
    status: str
    failure_class: str | None
    is_finished: bool


CASES = {
    "nothing": Case([], True, False, False, "failed", "unfinished", False),
    "intended": Case([intended()], True, False, False, "failed", "unfinished", False),
    "withdrawn": Case([intended(), WITHDRAWN], True, False, False, "failed", "unfinished", False),
    "submitted": Case([submitted()], False, False, False, "failed", "unfinished", False),
    "transcribed": Case([transcribed()], False, True, False, "failed", "unfinished", False),
    "no speech": Case([transcribed(status="no_speech")], False, False, True, "no_speech", None, True),
    "answered": Case([transcribed(), answered()], False, False, True, "completed", None, True),
    "permanent failure": Case([BROKEN], False, False, True, "failed", "bad_audio", True),
    "temporary failure": Case([FAR], False, False, True, "failed", "download_refused", True),
    "again at once": Case([AGAIN], True, False, False, "failed", "unfinished", False),
    "answer failed": Case([transcribed(), CUT], False, False, True, "failed", "answer_cut", True),
    "stopped": Case([transcribed(), stopped()], False, True, False, "failed", "unfinished", False),
    "over budget": Case([stopped("budget")], True, False, False, "failed", "budget", True),
    "begun after the stop": Case([stopped("budget"), intended()], True, False, False, "failed", "unfinished", False),
    "done after the stop": Case([stopped(), transcribed(), answered()], False, False, True, "completed", None, True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_work_and_outcome_follow_from_the_last_events(case: Case) -> None:
    one = progress(*case.events)
    outcome = one.outcome("run-2")
    assert (one.needs_transcript(THIS_PASS), one.needs_answer(THIS_PASS)) == (case.needs_transcript, case.needs_answer)
    assert one.is_settled(THIS_PASS) is case.is_settled
    assert (outcome.status, outcome.is_finished) == (case.status, case.is_finished)
    assert (outcome.failure.failure_class if outcome.failure else None) == case.failure_class


@pytest.mark.parametrize(
    ("events", "transcript", "answer"),
    [([FAR], True, False), ([BROKEN], False, False), ([transcribed(), CUT], False, True)],
    ids=["temporary failure", "permanent failure", "answer failed"],
)
def test_next_pass_repeats_temporary_failures_only(events: list[Event], transcript: bool, answer: bool) -> None:
    one = progress(*events)
    assert (one.needs_transcript(NEXT_PASS), one.needs_answer(NEXT_PASS)) == (transcript, answer)


def test_outcome_of_a_finished_recording_is_that_of_the_run_that_finished_it() -> None:
    outcome = progress(transcribed(), answered()).outcome("run-2")
    assert (outcome.run_id, outcome.at) == ("run-1", NOON + dt.timedelta(seconds=1))


def test_outcome_of_an_unfinished_recording_is_that_of_the_run_that_writes_it() -> None:
    outcome = progress(transcribed()).outcome("run-2")
    assert outcome.run_id == "run-2"
    assert isinstance(outcome.failure, Failed)
    assert outcome.failure.failure_message == str(Unfinished("Not done."))


def test_answer_to_an_earlier_question_does_not_count() -> None:
    earlier = replace(answered(), key=KEYS.answer("other"))
    one = progress(transcribed(), earlier)
    assert one.needs_answer(THIS_PASS)
    assert one.answered is None


def test_recording_is_paid_once_nothing_has_to_be_sent_for_it() -> None:
    paid: list[list[Event]] = [[transcribed(status="no_speech")], [transcribed(), answered()]]
    unpaid: list[list[Event]] = [[], [submitted()], [transcribed()], [transcribed(), CUT], [BROKEN]]
    assert [progress(*events).is_paid for events in paid] == [True, True]
    assert not any(progress(*events).is_paid for events in unpaid)


def test_recording_without_its_description_is_not_settled() -> None:
    keys = RecordingKeys(pipeline(recordings={"columns": {"crm_id": {"tag": "crm"}}}))
    key = keys.description(RECORDING)
    assert key is not None
    done = [transcribed(), answered()]
    assert not Progress(RECORDING, keys, ledger(*done)).is_settled(THIS_PASS)
    described = Described(key=key, recording=RECORDING.key)
    assert Progress(RECORDING, keys, ledger(*done, described)).is_settled(THIS_PASS)


@pytest.mark.parametrize(
    ("events", "classes", "expected"),
    [
        ([], None, False),
        ([BROKEN], None, True),
        ([BROKEN], {"bad_audio"}, True),
        ([BROKEN], {"download_refused"}, False),
        ([transcribed(), answered()], None, False),
        ([submitted()], {"unfinished"}, True),
    ],
    ids=["never run", "any class", "its class", "another class", "completed", "unfinished"],
)
def test_has_failed_compares_the_failure_of_the_row(
    events: list[Event], classes: set[str] | None, expected: bool
) -> None:
    assert progress(*events).has_failed(classes) is expected


def test_usage_counts_failed_questions_but_no_failed_transcription() -> None:
    usage = ModelUsage(llm_model="m", llm_usd=0.25)
    one = progress(FAR, transcribed(), CUT, answered(usage=usage))
    assert one.usages() == [CUT.usage, usage]
    assert progress(FAR).usages() == []


def test_unsettled_leaves_out_what_is_done() -> None:
    other = recording("calls/b.mp3")
    view = ledger(transcribed(), answered())
    assert [one.recording for one in unsettled([RECORDING, other], KEYS, view, THIS_PASS)] == [other]


# Deletion


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([submitted()], {}),
        ([submitted(), transcribed()], {"t-1": RECORDING.key}),
        ([submitted(), replace(BROKEN, transcript_id="t-1")], {"t-1": RECORDING.key}),
        ([submitted(), replace(FAR, transcript_id="t-1", paid=True)], {}),
        ([BROKEN], {}),
        ([transcribed(), Deleted(key=deletion_key("t-1"), transcript_id="t-1")], {}),
    ],
    ids=["under way", "transcribed", "failed", "paid but not fetched", "no job", "deleted"],
)
def test_transcripts_that_no_run_needs_are_deletable(events: list[Event], expected: dict[str, str]) -> None:
    assert deletable_transcripts(ledger(*events)) == expected


def test_transcripts_of_all_jobs_are_deletable_once_the_recording_is_done() -> None:
    under_way = [submitted(), replace(FAR, transcript_id="t-1"), replace(submitted(), transcript_id="t-2")]
    assert deletable_transcripts(ledger(*under_way)) == {}
    done = transcribed(transcript_id="t-2")
    assert deletable_transcripts(ledger(*under_way, done)) == {"t-1": RECORDING.key, "t-2": RECORDING.key}
