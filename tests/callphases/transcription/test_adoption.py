"""Lost jobs are found at the provider instead of being paid for again."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from callphases.errors import AccountError, DayHeld, ServiceUnavailable
from callphases.pipeline import DEFAULT_SPEECH_MODELS
from callphases.recordings import Recording
from callphases.state.events import Intended, Submitted, Transcribed
from callphases.state.lease import LIFE_S
from callphases.state.storage import ObjectPrefix
from callphases.transcription.transcriber import LATE_PAUSES_S, LOST_PAUSES_S, SUBMIT_ROUNDS, Transcriber
from doubles import LOST, NEXT_RUN, Answer, Clock, Request, answer
from transcribing import NO_MONEY, SERVER_ERROR, SUBMISSION, Runner, collect, losing, refusing

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("lost", [LOST, answer({}, 500), (504, {}, b"")], ids=["nothing", "500", "504"])
@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_job_is_found_and_not_paid_for_again_if_its_answer_was_lost(runner: Runner, send: str, lost: Answer) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = losing(runner.speech, taken=True, lost=lost)
    runner.transcribe(*recordings, recordings={"send": send})
    assert runner.events(*recordings) == [Transcribed] * 2
    assert len(runner.speech.jobs) == 2


def test_job_that_is_listed_late_is_found_by_the_second_look(runner: Runner, clock: Clock) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.refuse = losing(runner.speech, taken=False)

    def appear(seconds: float) -> None:
        if seconds == LOST_PAUSES_S[1]:
            runner.speech.take({"audio_url": runner.url(recording)})

    clock.asleep = appear
    runner.submit(recording)
    assert [seconds for seconds in clock.slept if seconds > 1] == list(LOST_PAUSES_S)
    assert len(runner.speech.submitted) == 1
    assert runner.job(recording) == "t-1"


def test_job_that_is_created_after_a_gateway_timeout_is_found(runner: Runner, clock: Clock) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.refuse = losing(runner.speech, taken=False, lost=(504, {}, b""))
    given_up = clock.now

    def appear(seconds: float) -> None:
        if clock.now - given_up > 45 and not runner.speech.jobs:
            runner.speech.take({"audio_url": runner.url(recording)})

    clock.asleep = appear
    runner.submit(recording)
    assert len(runner.speech.submitted) == len(runner.speech.jobs) == 1
    assert runner.job(recording) == "t-1"


@pytest.fixture
def slow(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The service leaves the first submission unanswered for longer than the timeout, until the event is set."""
    answer_now = threading.Event()
    monkeypatch.setattr("callphases.transcription.assemblyai.SUBMIT_TIMEOUTS_S", (5.0, 0.2))
    stalled: list[Request] = []

    def stall(request: Request) -> Answer | None:
        if (request.method, request.path) != SUBMISSION or stalled:
            return None
        stalled.append(request)
        # The test server handles one request at a time; the test sets the event in the next pause.
        assert answer_now.wait(60)
        return LOST

    runner.speech.refuse = stall
    yield answer_now
    answer_now.set()


def test_job_is_looked_for_longer_if_its_answer_timed_out(runner: Runner, clock: Clock, slow: threading.Event) -> None:
    recording = runner.s3.put("calls/a.mp3")

    def appear(seconds: float) -> None:
        slow.set()
        if sum(clock.slept) > sum(LOST_PAUSES_S + LATE_PAUSES_S[:2]) and not runner.speech.jobs:
            runner.speech.take({"audio_url": runner.url(recording)})

    clock.asleep = appear
    runner.submit(recording)
    assert len(runner.speech.submitted) == 1
    assert runner.job(recording) == "t-1"


def test_submission_is_repeated_if_it_timed_out_and_no_job_appears(
    runner: Runner, clock: Clock, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = runner.s3.put("calls/a.mp3")

    def go_on(seconds: float) -> None:
        slow.set()
        monkeypatch.setattr("callphases.transcription.assemblyai.SUBMIT_TIMEOUTS_S", (5.0, 60.0))

    clock.asleep = go_on
    runner.submit(recording)
    assert len(runner.speech.submitted) == 2
    assert sum(clock.slept) >= sum(LOST_PAUSES_S + LATE_PAUSES_S)
    assert runner.job(recording) == "t-1"


@pytest.mark.parametrize("times", [1, 2, SUBMIT_ROUNDS - 1])
@pytest.mark.parametrize("lost", [LOST, answer({}, 500)], ids=["nothing", "500"])
def test_submission_is_repeated_if_its_answer_was_lost_and_no_job_exists(
    runner: Runner, lost: Answer, times: int
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.refuse = losing(runner.speech, taken=False, lost=lost, times=times)
    runner.submit(recording)
    assert len(runner.speech.jobs) == 1
    assert runner.job(recording) == "t-1"


def test_run_ends_if_no_submission_is_answered(runner: Runner) -> None:
    runner.speech.refuse = lambda request: LOST if (request.method, request.path) == SUBMISSION else None
    with pytest.raises(ServiceUnavailable, match=f"1 submissions were sent {SUBMIT_ROUNDS} times and not answered"):
        runner.submit(runner.s3.put("calls/a.mp3"))


def killed(run: Transcriber, when: Callable[[bytes], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Submit, and be killed before the first conditional write whose body fits ``when``."""
    put_if_match, dead = ObjectPrefix.put_if_match, []

    def die(folder: ObjectPrefix, name: str, body: bytes, *more: Any) -> str | None:
        if dead or when(body):
            dead.append(name)
            raise KeyboardInterrupt
        return put_if_match(folder, name, body, *more)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPrefix, "put_if_match", die)
        with pytest.raises(KeyboardInterrupt):
            run.submit()


def killed_before_it_knew_the_id(runner: Runner, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(runner.run([recording]), lambda body: f'"{Submitted.kind}"'.encode() in body, monkeypatch)
    assert runner.events(recording) == [Intended]
    assert len(runner.speech.jobs) == 1


@pytest.mark.parametrize("ahead_s", [-60, 0, 60, 3600], ids=["behind", "right", "ahead", "far ahead"])
def test_job_is_found_by_the_next_run_if_its_id_was_not_written(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.clock = dt.timedelta(seconds=ahead_s)
    killed_before_it_knew_the_id(runner, recording, monkeypatch)
    runner.transcribe(recording, run_id="run-2", since=NEXT_RUN)
    assert len(runner.speech.jobs) == 1
    assert isinstance(runner.event(recording), Transcribed)


def test_second_process_waits_until_the_first_can_no_longer_submit(
    runner: Runner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    killed_before_it_knew_the_id(runner, recording, monkeypatch)
    clock.now += 20
    runner.speech.web.requests.clear()
    looked_at: list[float] = []
    runner.speech.refuse = lambda request: looked_at.append(clock.now)
    begun = clock.now
    runner.submit(recording)
    assert looked_at[0] - begun >= LIFE_S - 20
    assert len(runner.speech.jobs) == 1
    assert runner.speech.submitted == []


def test_second_process_renews_the_lease_while_it_waits(
    runner: Runner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    killed_before_it_knew_the_id(runner, recording, monkeypatch)

    def try_to_take_over(seconds: float) -> None:
        with pytest.raises(DayHeld):
            runner.s3.lease("other").take()

    clock.asleep = try_to_take_over
    runner.submit(recording)
    assert sum(clock.slept) >= LIFE_S


def test_job_that_the_first_process_submits_during_that_wait_is_found(runner: Runner, clock: Clock) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.refuse = lambda request: NO_MONEY
    with pytest.raises(AccountError):
        runner.submit(recording)
    runner.speech.web.requests.clear()
    clock.asleep = lambda seconds: runner.speech.jobs or runner.speech.take({"audio_url": runner.url(recording)})
    runner.speech.refuse = lambda request: None
    runner.submit(recording)
    assert runner.speech.submitted == []
    assert runner.job(recording) == "t-1"


def test_job_of_the_last_lost_answer_is_found(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    given_up = losing(runner.speech, taken=False, times=SUBMIT_ROUNDS - 1)
    last = losing(runner.speech, taken=True)
    runner.speech.refuse = lambda request: given_up(request) or last(request)
    runner.submit(recording)
    assert runner.job(recording) == "t-1"
    assert len(runner.speech.jobs) == 1


def test_much_older_job_is_not_adopted(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.clock = dt.timedelta(hours=-1)
    runner.speech.take({"audio_url": runner.url(recording)})
    runner.speech.clock = dt.timedelta(0)
    runner.speech.refuse = losing(runner.speech, taken=False)
    runner.submit(recording)
    assert runner.job(recording) == "t-2"


def test_job_of_another_recording_is_not_adopted(runner: Runner) -> None:
    recording, other = runner.s3.put("calls/a.mp3"), runner.s3.put("calls/b.mp3")
    runner.speech.take({"audio_url": runner.url(other)})
    runner.intended(recording)
    runner.submit(recording)
    assert runner.job(recording) == "t-2"


def test_job_that_is_known_to_have_failed_is_not_adopted(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status = "error"
    runner.transcribe(recording)
    runner.speech.refuse = losing(runner.speech, taken=False)
    runner.submit(recording, run_id="run-2", since=NEXT_RUN)
    assert runner.job(recording) == "t-2"


def test_job_of_the_same_recording_with_other_models_is_not_adopted(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.submit(recording)
    runner.speech.refuse = losing(runner.speech, taken=False)
    other = {"transcription": {"speech_models": ["universal-2"]}}
    runner.submit(recording, run_id="run-2", since=NEXT_RUN, **other)
    assert runner.job(recording, **other) == "t-2"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"speaker_labels": True}, True),
        ({}, True),
        ({"speaker_labels": None}, True),
        ({"speaker_labels": True, "speech_models": ["as the service writes it"]}, True),
        ({"speaker_labels": False}, False),
    ],
    ids=["the same", "not told", "null", "other words", "another switch"],
)
def test_job_is_adopted_unless_a_switch_of_its_options_differs(
    runner: Runner, options: dict[str, Any], found: bool
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    runner.speech.take({"audio_url": runner.url(recording), **options})
    runner.submit(recording)
    assert len(runner.speech.submitted) == (0 if found else 1)
    assert runner.job(recording) == ("t-1" if found else "t-2")


@pytest.mark.parametrize("ours", ["t-1", "t-2"], ids=["the older", "the newer"])
def test_job_with_our_speech_models_is_preferred(runner: Runner, ours: str) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    for one in ("t-1", "t-2"):
        models = DEFAULT_SPEECH_MODELS if one == ours else ["another"]
        runner.speech.take({"audio_url": runner.url(recording), "speech_models": models})
    runner.submit(recording)
    assert runner.job(recording) == ours


def test_job_with_unreadable_options_is_adopted(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    runner.speech.take({"audio_url": runner.url(recording), "speaker_labels": False})
    runner.speech.refuse = refusing("/v2/transcript/t-1", answer({"error": "This transcript is being moved"}, 403))
    runner.submit(recording)
    assert runner.job(recording) == "t-1"


@pytest.mark.parametrize("good", ["t-1", "t-2"], ids=["the older", "the newer"])
def test_job_that_has_not_failed_is_preferred(runner: Runner, good: str) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    for one in ("t-1", "t-2"):
        runner.speech.take({"audio_url": runner.url(recording)})
        runner.speech.endings[one] = {} if one == good else {"status": "error", "error": SERVER_ERROR}
    runner.submit(recording)
    assert runner.job(recording) == good


def test_adopted_job_that_has_failed_is_submitted_again(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    runner.speech.take({"audio_url": runner.url(recording)})
    runner.speech.endings["t-1"] = {"status": "error", "error": SERVER_ERROR}
    run = runner.submit(recording)
    assert runner.speech.submitted == []
    assert collect(run) == 1
    run.submit()
    assert collect(run) == 0
    assert runner.job(recording) == "t-2"


@pytest.mark.parametrize("path", ["/v2/transcript/t-1", "/v2/transcript/t-1/vtt"])
def test_finished_job_that_could_not_be_fetched_is_fetched_by_the_next_run(runner: Runner, path: str) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.submit(*recordings)
    runner.speech.refuse = refusing(path, answer({"error": "This transcript is being moved"}, 403))
    runner.transcribe(*recordings)
    assert runner.failure(recordings[0]).failure_class == "request_refused"
    assert isinstance(runner.event(recordings[1]), Transcribed)
    runner.speech.refuse = lambda request: None
    runner.transcribe(*recordings, run_id="run-2", since=NEXT_RUN)
    assert isinstance(runner.event(recordings[0]), Transcribed)
    assert len(runner.speech.jobs) == 2


def test_running_job_that_can_not_be_looked_up_is_not_paid_for_again(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status = "processing"
    runner.submit(recording)
    runner.speech.refuse = refusing("/v2/transcript/t-1", answer({"error": "This transcript is being moved"}, 403))
    with pytest.raises(ServiceUnavailable):
        collect(runner.run([recording]))
    runner.speech.refuse = lambda request: None
    runner.submit(recording, run_id="run-2", since=NEXT_RUN)
    assert len(runner.speech.jobs) == 1
