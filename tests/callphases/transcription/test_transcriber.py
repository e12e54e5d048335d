"""A chunk's recordings to transcripts: each is submitted once, whatever fails in between."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any
from urllib.parse import urlsplit

import pytest

from callphases.errors import AccountError, DayHeld, RunStopped, ServiceUnavailable
from callphases.state.events import Event, Intended, Submitted, Transcribed, Withdrawn
from callphases.state.lease import FRESH_S, LIFE_S
from callphases.state.transcripts import TranscriptReader
from callphases.transcription.transcriber import BATCH
from doubles import KEY, NEXT_RUN, Answer, Clock, Request, answer
from transcribing import NO_MONEY, REFUSED, Runner, collect

pytestmark = pytest.mark.integration


# Submitting each recording once


def test_later_runs_of_the_day_submit_nothing(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abc"]
    for run_id in ("run-1", "run-1", "run-2"):
        runner.transcribe(*recordings, run_id=run_id, since=NEXT_RUN)
    assert len(runner.speech.submitted) == 3


def test_intents_are_written_before_submissions_and_ids_after_them(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    happened: list[str] = []
    known: list[list[type[Event]]] = []

    def look(request: Request) -> Answer | None:
        happened.append(request.method)
        known.append(runner.events(*recordings))
        return None

    runner.speech.refuse = look
    run = runner.run(recordings)

    def put(context: dict[str, Any], **_: object) -> None:
        if "/ledger/" in context["key"]:
            happened.append("PUT")

    runner.s3.client.meta.events.register("after-call.s3.PutObject", put)
    run.submit()
    assert happened == ["PUT", "POST", "POST", "PUT"]
    assert known == [[Intended, Intended]] * 2
    assert runner.events(*recordings) == [Submitted, Submitted]


def test_intents_of_a_batch_share_a_write_with_the_ids_of_the_previous_one(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{number}.mp3") for number in range(BATCH + 1)]
    run = runner.run(recordings)
    before = runner.s3.ledger_writes
    run.submit()
    assert runner.s3.ledger_writes - before == 3
    assert len(runner.speech.jobs) == BATCH + 1
    assert runner.events(*recordings) == [Submitted] * (BATCH + 1)


def test_ledger_contains_no_url_signature(runner: Runner) -> None:
    runner.submit(runner.s3.put("calls/a.mp3"))
    written = b"".join(runner.s3.bytes_of(key) for key in runner.s3.keys("state/ledger/"))
    assert b"/calls/a.mp3" in written
    assert b"Signature" not in written


def test_run_after_an_interrupted_one_submits_only_the_rest(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abc"]
    runner.speech.refuse = lambda request: (
        NO_MONEY if request.method == "POST" and len(runner.speech.jobs) == 2 else None
    )
    with pytest.raises(AccountError):
        runner.submit(*recordings)
    runner.speech.refuse = lambda request: None
    runner.transcribe(*recordings, run_id="run-2", since=NEXT_RUN)
    assert len(runner.speech.jobs) == 3


def test_intents_are_withdrawn_if_they_are_not_sent(runner: Runner) -> None:
    """The refused one keeps its intent: it is looked for before it is sent again."""
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abcd"]
    runner.speech.refuse = lambda request: (
        NO_MONEY if request.method == "POST" and len(runner.speech.jobs) == 1 else None
    )
    with pytest.raises(AccountError):
        runner.submit(*recordings)
    assert runner.events(*recordings) == [Submitted, Intended, Withdrawn, Withdrawn]


def test_run_that_loses_the_day_withdraws_the_rest(runner: Runner, clock: Clock) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abc"]
    other = runner.s3.lease("other")

    def stall(request: Request) -> Answer | None:
        if not runner.speech.jobs:
            clock.now += LIFE_S
            other.take()
        return None

    runner.speech.refuse = stall
    with pytest.raises(DayHeld, match="run other works"):
        runner.submit(*recordings)
    assert runner.events(*recordings) == [Submitted, Withdrawn, Withdrawn]
    assert len(runner.speech.jobs) == 1
    other.release()
    runner.speech.refuse = lambda request: None
    runner.transcribe(*recordings)
    assert len(runner.speech.jobs) == 3


def test_run_stopped_by_another_task_withdraws_the_rest(runner: Runner, clock: Clock) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]

    def stop(request: Request) -> Answer | None:
        runner.s3.lease("run-1", "chunk-0001").stop(AccountError("The account has no money."))
        clock.now += FRESH_S
        return None

    runner.speech.refuse = stop
    with pytest.raises(RunStopped, match=r"chunk-0001 stopped the run: The account has no money\."):
        runner.submit(*recordings)
    assert runner.events(*recordings) == [Submitted, Withdrawn]


def test_withdrawn_submission_is_not_looked_for(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    runner.s3.knows(Withdrawn(key=runner.key(recording), recording=recording.key))
    runner.submit(recording)
    assert [request.method for request in runner.speech.web.requests] == ["POST"]


@pytest.mark.parametrize(
    ("settings", "paid"),
    [
        ({"phases": [{"name": "Hold"}], "segmentation": {"models": ["gpt-5-mini"]}}, 1),
        ({"recordings": {"send": "upload"}}, 1),
        ({"transcription": {"speaker_labels": False}}, 2),
    ],
    ids=["another prompt", "another way to send", "other options"],
)
def test_only_changed_options_are_paid_for_again(runner: Runner, settings: dict[str, Any], paid: int) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.submit(recording)
    runner.submit(recording, run_id="run-2", since=NEXT_RUN, **settings)
    assert len(runner.speech.submitted) == paid


def test_replaced_recording_is_transcribed_again(runner: Runner) -> None:
    for body in (b"first", b"second"):
        runner.submit(runner.s3.put("calls/a.mp3", body))
    assert runner.speech.heard == [b"first", b"second"]


# Failures


def test_refused_recording_stops_no_other(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = lambda request: (
        REFUSED if request.json["audio_url"].split("?")[0].endswith("a.mp3") else None
    )
    runner.submit(*recordings)
    failure = runner.failure(recordings[0])
    assert (failure.failure_class, failure.permanent) == ("request_refused", False)
    assert isinstance(runner.event(recordings[1]), Submitted)
    assert "calls/a.mp3: The speech service answered 400" in caplog.text


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (answer({"error": "Authentication error, API token missing/invalid"}, 401), "does not accept the key"),
        (NO_MONEY, "topped up"),
    ],
)
def test_account_error_stops_the_run_at_once(runner: Runner, refusal: Answer, words: str) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = lambda request: refusal
    with pytest.raises(AccountError, match=words):
        runner.submit(*recordings)
    assert len(runner.speech.web.requests) == 1


@pytest.mark.parametrize(
    ("error", "failure_class", "tried_again"),
    [
        ("Something new. See https://b/a.mp3?X-Amz-Signature=abc", "provider_error", True),
        ("Something new.", "provider_error", True),
        ("Transcoding failed. File type application/json", "bad_audio", False),
        ("Audio duration is too short.", "too_short", False),
    ],
)
def test_next_run_submits_a_failed_job_again_unless_its_failure_is_permanent(
    runner: Runner, error: str, failure_class: str, tried_again: bool
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": error}
    runner.transcribe(recording).submit()
    assert len(runner.speech.submitted) == 1, "in the same pass over the day it is settled"
    event = runner.failure(recording)
    assert (event.failure_class, event.transcript_id) == (failure_class, "t-1")
    assert "Signature" not in event.failure_message
    runner.submit(recording, run_id="run-2", since=NEXT_RUN)
    assert len(runner.speech.submitted) == (2 if tried_again else 1)


def test_replay_submits_a_permanent_failure_again_once(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": "Transcoding failed."}
    runner.transcribe(recording)
    for _ in range(2):
        runner.transcribe(recording, run_id="run-2", since=dt.datetime.now(dt.UTC), replay=True).submit()
        runner.transcribe(recording, run_id="run-3", since=NEXT_RUN)
    assert len(runner.speech.submitted) == 3


def test_job_unknown_to_the_service_does_not_affect_others(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.submit(*recordings)
    del runner.speech.jobs["t-1"]
    runner.transcribe(*recordings)
    assert "transcript id not found" in runner.failure(recordings[0]).failure_message
    assert isinstance(runner.event(recordings[1]), Transcribed)


def test_transcripts_left_by_an_outage_are_collected_by_the_next_try(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.submit(*recordings)
    vtt = [f"/v2/transcript/{one}/vtt" for one in runner.speech.jobs]
    gone = answer({}, 503)
    # Whichever job comes second: once the captions of one were asked for, those of the other are not there.
    runner.speech.refuse = lambda request: (
        gone if request.path in vtt and {one.path for one in runner.speech.web.requests} >= set(vtt) else None
    )
    with pytest.raises(ServiceUnavailable):
        collect(runner.run(recordings))
    assert set(runner.events(*recordings)) <= {Submitted, Transcribed}
    runner.speech.refuse = lambda request: None
    runner.transcribe(*recordings)
    assert runner.events(*recordings) == [Transcribed] * 2
    assert len(runner.speech.jobs) == 2


# Collecting


@pytest.mark.threads
def test_recordings_are_submitted_and_collected_in_parallel(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{number:03}.mp3") for number in range(BATCH + 10)]
    run = runner.transcribe(*recordings)
    assert sorted(urlsplit(job["audio_url"]).path[-7:-4] for job in runner.speech.submitted) == [
        f"{number:03}" for number in range(BATCH + 10)
    ]
    assert runner.events(*recordings) == [Transcribed] * len(recordings)
    read_back = TranscriptReader(runner.s3.state)
    assert all(read_back.cues(runner.transcribed(recording)) for recording in recordings)
    assert run.run(patience_s=0) is None


def test_running_jobs_are_left_to_wait_for(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.status = "processing"
    run = runner.submit(*recordings)
    assert collect(run) == 2
    assert run.under_way() == {"t-1": runner.key(recordings[0]), "t-2": runner.key(recordings[1])}
    waiting = run.run(patience_s=0)
    assert waiting is not None
    assert waiting.jobs == ["t-1", "t-2"]
    runner.speech.status = "completed"
    assert collect(run) == 0
    assert run.under_way() == {}


def test_looking_without_running_jobs_sends_no_request(runner: Runner) -> None:
    assert collect(runner.run([runner.s3.put("calls/a.mp3")])) == 0
    assert runner.speech.web.requests == []


def test_log_contains_no_secrets_and_no_words_of_calls(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    with caplog.at_level(logging.DEBUG, logger="callphases"):
        runner.transcribe(*recordings)
    assert "2 recordings: 2 transcribed." in caplog.text
    for secret in (KEY, "Signature", "invoice"):
        assert secret not in caplog.text
