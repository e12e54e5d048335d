"""Recording → transcript: paid for once, whatever happens in between."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from callphases.errors import (
    AccountError,
    DayHeld,
    NoModelLeft,
    ProviderError,
    RunStopped,
    ServiceUnavailable,
    TranscriptGone,
)
from callphases.limits.quota import Slots
from callphases.limits.throttle import ramp_s
from callphases.pipeline import DEFAULT_SPEECH_MODELS
from callphases.recordings import Recording
from callphases.state import workers
from callphases.state.bucket import PIECE_BYTES, RecordingBucket
from callphases.state.events import (
    Event,
    Failed,
    Intended,
    Submitted,
    Transcribed,
    Withdrawn,
    from_document,
    to_document,
)
from callphases.state.keys import transcript_key
from callphases.state.lease import FRESH_S, LIFE_S, Lease
from callphases.state.storage import ObjectPrefix
from callphases.state.transcripts import TranscriptReader
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.delivery import TRIES_AT_PROVIDER, URL_LIFE_S
from callphases.transcription.pacing import LOOKS_A_JOB
from callphases.transcription.transcriber import (
    BATCH,
    LATE_PAUSES_S,
    LOST_PAUSES_S,
    SUBMIT_ROUNDS,
    Transcriber,
)
from doubles import (
    DAY,
    KEY,
    LONG_AGO,
    LOST,
    NEXT_RUN,
    NOON,
    WORDS,
    Answer,
    Clock,
    OneThread,
    Request,
    Speech,
    Store,
    answer,
    manifest,
    merged,
    text_answer,
)

pytestmark = pytest.mark.integration

REFUSED = answer({"error": "audio_end_at must be larger than audio_start_from"}, 400)
NO_MONEY = answer({"error": "Your current account balance is negative."}, 400)
SERVER_ERROR = "Server error, developers have been alerted."


class Runner:
    """Starts tasks of runs on the day as it is known by then, as Airflow does; another run ends the one before."""

    def __init__(self, s3: Store, speech: Speech) -> None:
        self.s3, self.speech = s3, speech
        self._lease: Lease | None = None

    def run(
        self,
        chunk: list[Recording],
        /,
        run_id: str = "run-1",
        since: dt.datetime = LONG_AGO,
        slots: Slots | None = None,
        **more: Any,
    ) -> Transcriber:
        """A process of a run's only task. ``more`` is the manifest's ``first`` and ``replay``, and settings."""
        if self._lease is not None and self._lease.run_token != run_id:
            self._lease.release()
        ledger = self.s3.ledger(run_id)
        self._lease = ledger.lease
        of_chunk = {name: more.pop(name) for name in ("first", "replay") if name in more}
        listed = manifest(*chunk, run_id=run_id, listed_at=since, **of_chunk)
        pipeline = self.s3.pipeline(**merged({"limits": {"ramp": False}}, more))
        service = AssemblyAI(KEY, self.speech.web.url)
        bucket = RecordingBucket(self.s3.client, self.s3.recordings)
        return Transcriber(service, bucket, pipeline, self.s3.state, ledger, listed, slots)

    def submit(self, *recordings: Recording, **more: Any) -> Transcriber:
        run = self.run(list(recordings), **more)
        run.submit()
        return run

    def transcribe(self, *recordings: Recording, **more: Any) -> Transcriber:
        run = self.submit(*recordings, **more)
        assert collect(run) == 0
        return run

    def key(self, recording: Recording, **settings: Any) -> str:
        """The transcript's."""
        return transcript_key(recording, self.s3.pipeline(**settings).transcription)

    def event(self, recording: Recording, **settings: Any) -> Event:
        """The event that the state area has of a recording."""
        event = self.s3.known().find(self.key(recording, **settings))
        assert event is not None
        return event

    def events(self, *recordings: Recording, **settings: Any) -> list[type[Event]]:
        """The kind of each recording's event."""
        return [type(self.event(recording, **settings)) for recording in recordings]

    def transcribed(self, recording: Recording) -> Transcribed:
        event = self.event(recording)
        assert isinstance(event, Transcribed)
        return event

    def failure(self, recording: Recording) -> Failed:
        event = self.event(recording)
        assert isinstance(event, Failed)
        return event

    def job(self, recording: Recording, **settings: Any) -> str | None:
        """The id of the job that the state area has of a recording."""
        event = self.event(recording, **settings)
        assert isinstance(event, Submitted | Transcribed | Failed)
        return event.transcript_id

    def url(self, recording: Recording) -> str:
        """A URL of a recording, as the service gets one."""
        where = {"Bucket": recording.bucket, "Key": recording.key}
        return str(self.s3.client.generate_presigned_url("get_object", Params=where))

    def intended(self, recording: Recording) -> None:
        """An earlier run was killed, just before or just after it submitted this."""
        url = self.url(recording).partition("?")[0]
        self.s3.knows(Intended(key=self.key(recording), recording=recording.key, audio_url=url))


def collect(run: Transcriber) -> int:
    run.look()
    left = run.collect()
    run.keep()
    return left


@pytest.fixture(autouse=True)
def one_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests in a known order, but where a test wants them as they come."""
    if "threads" not in request.keywords:
        monkeypatch.setattr(workers, "ThreadPoolExecutor", OneThread)


@pytest.fixture
def runner(s3: Store, speech: Speech) -> Runner:
    return Runner(s3, speech)


def refusing(path: str, refusal: Answer, method: str = "GET") -> Callable[[Request], Answer | None]:
    return lambda request: refusal if (request.method, request.path) == (method, path) else None


# Delivering


@pytest.mark.parametrize("key", ["calls/a.mp3", "calls/a b+c%20'\"é🎧.mp3", "/calls//a.mp3"])
@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_the_service_gets_the_recordings_bytes(runner: Runner, key: str, send: str) -> None:
    body = bytes(range(256)) * (PIECE_BYTES // 128)
    runner.submit(runner.s3.put(key, body), recordings={"send": send})
    assert runner.speech.heard == [body]


def test_a_presigned_url_outlives_the_queue_and_audio_takes_no_detour(runner: Runner) -> None:
    runner.submit(runner.s3.put("calls/a.mp3"))
    (url,) = [document["audio_url"] for document in runner.speech.submitted]
    assert url.startswith(f"{runner.s3.url}/{runner.s3.recordings}/calls/a.mp3?")
    assert int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0]) == URL_LIFE_S >= 2 * 3600
    assert runner.speech.uploads == {}


def test_a_large_upload_is_streamed_in_pieces(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3", b"x" * (2 * PIECE_BYTES + 1))
    runner.submit(recording, recordings={"send": "upload"})
    (sent,) = runner.speech.asked("POST", "/v2/upload")
    assert sent.headers["transfer-encoding"] == "chunked"


def test_the_options_are_the_pipelines(runner: Runner) -> None:
    options = {"speech_models": ["universal-3-pro"], "redact_pii": True}
    runner.submit(runner.s3.put("calls/a.mp3"), transcription=options)
    (document,) = runner.speech.submitted
    assert document == {"audio_url": document["audio_url"], **options}


@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_an_empty_file_is_not_sent(runner: Runner, send: str) -> None:
    empty = runner.s3.put("calls/empty.mp3", b"")
    runner.submit(empty, recordings={"send": send})
    assert runner.speech.web.requests == []
    assert (runner.failure(empty).failure_class, runner.failure(empty).permanent) == ("empty_file", True)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_recording_that_changed_since_it_was_listed_is_not_uploaded(runner: Runner, change: str) -> None:
    recording = runner.s3.put("calls/a.mp3", b"old")
    if change == "deleted":
        runner.s3.client.delete_object(Bucket=runner.s3.recordings, Key=recording.key)
    else:
        runner.s3.put("calls/a.mp3", b"new")
    runner.submit(recording, recordings={"send": "upload"})
    assert runner.speech.submitted == []
    assert (runner.failure(recording).failure_class, runner.failure(recording).permanent) == ("recording_gone", False)


# Paying once


def test_a_second_run_of_the_day_submits_nothing(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abc"]
    for run_id in ("run-1", "run-1", "run-2"):
        runner.transcribe(*recordings, run_id=run_id, since=NEXT_RUN)
    assert len(runner.speech.submitted) == 3


def test_intents_are_durable_before_anything_is_sent_and_ids_before_anything_else_is_done(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    happened: list[str] = []
    known: list[list[type[Event]]] = []

    def look(request: Request) -> Answer | None:
        happened.append(request.method)
        known.append(runner.events(*recordings))
        return None

    runner.speech.refuse = look
    run = runner.run(recordings)
    runner.s3.client.meta.events.register("after-call.s3.PutObject", lambda **_: happened.append("PUT"))
    run.submit()
    assert happened == ["PUT", "POST", "POST", "PUT"]
    assert known == [[Intended, Intended]] * 2
    assert runner.events(*recordings) == [Submitted, Submitted]


def test_a_batch_of_submissions_shares_a_write_with_the_ids_of_the_one_before(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{number}.mp3") for number in range(BATCH + 1)]
    run = runner.run(recordings)
    before = runner.s3.counted()["PutObject"]
    run.submit()
    assert runner.s3.counted()["PutObject"] - before == 3
    assert len(runner.speech.jobs) == BATCH + 1
    assert runner.events(*recordings) == [Submitted] * (BATCH + 1)


def test_an_intent_holds_no_signature(runner: Runner) -> None:
    runner.submit(runner.s3.put("calls/a.mp3"))
    written = b"".join(runner.s3.bytes_of(key) for key in runner.s3.keys("state/ledger/"))
    assert b"/calls/a.mp3" in written
    assert b"Signature" not in written


def test_a_run_that_was_cut_off_goes_on_where_it_was(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abc"]
    runner.speech.refuse = lambda request: (
        NO_MONEY if request.method == "POST" and len(runner.speech.jobs) == 2 else None
    )
    with pytest.raises(AccountError):
        runner.submit(*recordings)
    runner.speech.refuse = lambda request: None
    runner.transcribe(*recordings, run_id="run-2", since=NEXT_RUN)
    assert len(runner.speech.jobs) == 3


def test_what_was_not_sent_any_more_is_withdrawn(runner: Runner) -> None:
    """Of the one that was refused nobody can be sure; it is looked for before it is sent again."""
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abcd"]
    runner.speech.refuse = lambda request: (
        NO_MONEY if request.method == "POST" and len(runner.speech.jobs) == 1 else None
    )
    with pytest.raises(AccountError):
        runner.submit(*recordings)
    assert runner.events(*recordings) == [Submitted, Intended, Withdrawn, Withdrawn]


def test_a_run_that_loses_the_day_half_way_withdraws_the_rest(runner: Runner, clock: Clock) -> None:
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


def test_a_run_that_was_stopped_by_another_task_withdraws_the_rest(runner: Runner, clock: Clock) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]

    def stop(request: Request) -> Answer | None:
        runner.s3.lease("run-1", "chunk-0001").stop(AccountError("The account has no money."))
        clock.now += FRESH_S
        return None

    runner.speech.refuse = stop
    with pytest.raises(RunStopped, match=r"chunk-0001 stopped the run: The account has no money\."):
        runner.submit(*recordings)
    assert runner.events(*recordings) == [Submitted, Withdrawn]


def test_what_was_withdrawn_is_not_looked_for(runner: Runner) -> None:
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
def test_only_other_options_are_paid_for_again(runner: Runner, settings: dict[str, Any], paid: int) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.submit(recording)
    runner.submit(recording, run_id="run-2", since=NEXT_RUN, **settings)
    assert len(runner.speech.submitted) == paid


def test_other_bytes_below_the_same_key_are_another_recording(runner: Runner) -> None:
    for body in (b"first", b"second"):
        runner.submit(runner.s3.put("calls/a.mp3", body))
    assert runner.speech.heard == [b"first", b"second"]


# What was lost is found


SUBMISSION = ("POST", "/v2/transcript")


def losing(speech: Speech, taken: bool, lost: Answer = LOST, times: int = 1) -> Callable[[Request], Answer | None]:
    """Answers the first submissions with ``lost``, whether or not the service has taken them."""
    left = [lost] * times

    def lose(request: Request) -> Answer | None:
        if (request.method, request.path) != SUBMISSION or not left:
            return None
        if taken:
            speech.take(request.json)
        return left.pop()

    return lose


@pytest.mark.parametrize("lost", [LOST, answer({}, 500), (504, {}, b"")], ids=["nothing", "500", "504"])
@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_a_job_whose_answer_was_lost_is_found_and_not_paid_for_again(runner: Runner, send: str, lost: Answer) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = losing(runner.speech, taken=True, lost=lost)
    runner.transcribe(*recordings, recordings={"send": send})
    assert runner.events(*recordings) == [Transcribed] * 2
    assert len(runner.speech.jobs) == 2


def test_a_job_that_is_listed_late_is_found_by_the_second_look(runner: Runner, clock: Clock) -> None:
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


def test_a_job_that_the_service_takes_long_after_we_gave_up_is_waited_for(runner: Runner, clock: Clock) -> None:
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
    """The service reads the first submission and is silent for longer than we wait; until the event is set."""
    answer_now = threading.Event()
    monkeypatch.setattr("callphases.transcription.assemblyai.SUBMIT_TIMEOUTS_S", (5.0, 0.2))
    stalled: list[Request] = []

    def stall(request: Request) -> Answer | None:
        if (request.method, request.path) != SUBMISSION or stalled:
            return None
        stalled.append(request)
        # The server of the tests does one thing at a time: it is let go by the next nap of the run.
        assert answer_now.wait(60)
        return LOST

    runner.speech.refuse = stall
    yield answer_now
    answer_now.set()


def test_a_submission_whose_answer_takes_too_long_is_looked_for_for_longer(
    runner: Runner, clock: Clock, slow: threading.Event
) -> None:
    recording = runner.s3.put("calls/a.mp3")

    def appear(seconds: float) -> None:
        slow.set()
        if sum(clock.slept) > sum(LOST_PAUSES_S + LATE_PAUSES_S[:2]) and not runner.speech.jobs:
            runner.speech.take({"audio_url": runner.url(recording)})

    clock.asleep = appear
    runner.submit(recording)
    assert len(runner.speech.submitted) == 1
    assert runner.job(recording) == "t-1"


def test_a_submission_whose_answer_takes_too_long_and_was_not_taken_is_sent_again(
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
def test_a_submission_that_was_not_taken_is_sent_again(runner: Runner, lost: Answer, times: int) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.refuse = losing(runner.speech, taken=False, lost=lost, times=times)
    runner.submit(recording)
    assert len(runner.speech.jobs) == 1
    assert runner.job(recording) == "t-1"


def test_a_service_that_answers_no_submission_ends_the_run(runner: Runner) -> None:
    runner.speech.refuse = lambda request: LOST if (request.method, request.path) == SUBMISSION else None
    with pytest.raises(ServiceUnavailable, match=f"1 submissions were sent {SUBMIT_ROUNDS} times and not answered"):
        runner.submit(runner.s3.put("calls/a.mp3"))


def killed(run: Transcriber, when: Callable[[bytes], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Submit, and be killed before a write that is as ``when`` says: nothing is written any more."""
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
def test_a_job_whose_id_could_not_be_written_is_found_and_not_paid_for_again(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.clock = dt.timedelta(seconds=ahead_s)
    killed_before_it_knew_the_id(runner, recording, monkeypatch)
    runner.transcribe(recording, run_id="run-2", since=NEXT_RUN)
    assert len(runner.speech.jobs) == 1
    assert isinstance(runner.event(recording), Transcribed)


def test_another_process_of_a_task_waits_until_the_first_can_submit_no_more(
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


def test_another_process_of_a_task_keeps_the_day_while_it_waits(
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


def test_a_job_that_an_earlier_process_submits_meanwhile_is_found(runner: Runner, clock: Clock) -> None:
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


def test_a_job_whose_last_answer_was_lost_is_found_too(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    given_up = losing(runner.speech, taken=False, times=SUBMIT_ROUNDS - 1)
    last = losing(runner.speech, taken=True)
    runner.speech.refuse = lambda request: given_up(request) or last(request)
    runner.submit(recording)
    assert runner.job(recording) == "t-1"
    assert len(runner.speech.jobs) == 1


def test_a_job_of_long_before_is_not_taken_for_a_lost_one(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.clock = dt.timedelta(hours=-1)
    runner.speech.take({"audio_url": runner.url(recording)})
    runner.speech.clock = dt.timedelta(0)
    runner.speech.refuse = losing(runner.speech, taken=False)
    runner.submit(recording)
    assert runner.job(recording) == "t-2"


def test_a_job_of_another_recording_is_not_taken_for_a_lost_one(runner: Runner) -> None:
    recording, other = runner.s3.put("calls/a.mp3"), runner.s3.put("calls/b.mp3")
    runner.speech.take({"audio_url": runner.url(other)})
    runner.intended(recording)
    runner.submit(recording)
    assert runner.job(recording) == "t-2"


def test_a_job_that_failed_before_is_not_taken_for_a_lost_one(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status = "error"
    runner.transcribe(recording)
    runner.speech.refuse = losing(runner.speech, taken=False)
    runner.submit(recording, run_id="run-2", since=NEXT_RUN)
    assert runner.job(recording) == "t-2"


def test_a_known_job_of_the_same_recording_is_not_taken_for_a_lost_one(runner: Runner) -> None:
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
def test_a_job_of_another_pipeline_is_not_taken_for_a_lost_one(
    runner: Runner, options: dict[str, Any], found: bool
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    runner.speech.take({"audio_url": runner.url(recording), **options})
    runner.submit(recording)
    assert len(runner.speech.submitted) == (0 if found else 1)
    assert runner.job(recording) == ("t-1" if found else "t-2")


@pytest.mark.parametrize("ours", ["t-1", "t-2"], ids=["the older", "the newer"])
def test_of_two_jobs_the_one_with_our_speech_models_is_taken(runner: Runner, ours: str) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    for one in ("t-1", "t-2"):
        models = DEFAULT_SPEECH_MODELS if one == ours else ["another"]
        runner.speech.take({"audio_url": runner.url(recording), "speech_models": models})
    runner.submit(recording)
    assert runner.job(recording) == ours


def test_a_job_that_may_not_be_looked_at_is_taken_rather_than_paid_for_again(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    runner.speech.take({"audio_url": runner.url(recording), "speaker_labels": False})
    runner.speech.refuse = refusing("/v2/transcript/t-1", answer({"error": "This transcript is being moved"}, 403))
    runner.submit(recording)
    assert runner.job(recording) == "t-1"


@pytest.mark.parametrize("good", ["t-1", "t-2"], ids=["the older", "the newer"])
def test_of_two_jobs_the_one_that_has_not_failed_is_taken(runner: Runner, good: str) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.intended(recording)
    for one in ("t-1", "t-2"):
        runner.speech.take({"audio_url": runner.url(recording)})
        runner.speech.endings[one] = {} if one == good else {"status": "error", "error": SERVER_ERROR}
    runner.submit(recording)
    assert runner.job(recording) == good


def test_a_lost_job_that_has_failed_is_found_and_submitted_again(runner: Runner) -> None:
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
def test_a_finished_job_that_cannot_be_fetched_is_fetched_by_the_next_run(runner: Runner, path: str) -> None:
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


def test_a_running_job_that_may_not_be_looked_up_is_not_paid_for_again(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status = "processing"
    runner.submit(recording)
    runner.speech.refuse = refusing("/v2/transcript/t-1", answer({"error": "This transcript is being moved"}, 403))
    with pytest.raises(ServiceUnavailable):
        collect(runner.run([recording]))
    runner.speech.refuse = lambda request: None
    runner.submit(recording, run_id="run-2", since=NEXT_RUN)
    assert len(runner.speech.jobs) == 1


# The ramp


@pytest.fixture
def moments(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> dt.datetime:
    """The time of day goes by the clock too; the moment at which it began."""

    class Moment(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return NOON + dt.timedelta(seconds=clock.now - 1000)

    moments = SimpleNamespace(datetime=Moment, timedelta=dt.timedelta, UTC=dt.UTC)
    for module in ("state.lease", "transcription.pacing"):
        monkeypatch.setattr(f"callphases.{module}.dt", moments)
    return NOON


@pytest.mark.parametrize("first", [0, 500])
def test_submissions_keep_to_the_ramp_that_all_tasks_share(
    runner: Runner, clock: Clock, moments: dt.datetime, first: int
) -> None:
    recordings = [runner.s3.put(f"calls/{number:02}.mp3") for number in range(30)]
    sent_at: list[float] = []
    runner.speech.refuse = lambda request: sent_at.append(clock.now)
    begun = clock.now
    runner.submit(*recordings, first=first, limits={"ramp": True})
    due = [begun + ramp_s(first + number) for number in range(30)]
    assert len(runner.speech.jobs) == 30
    assert all(-0.01 <= sent_s - due_s < 3 for sent_s, due_s in zip(sent_at, due, strict=True))


def test_a_task_that_comes_late_does_not_catch_up_in_a_burst(
    runner: Runner, clock: Clock, moments: dt.datetime
) -> None:
    recordings = [runner.s3.put(f"calls/{number:02}.mp3") for number in range(10)]
    early = runner.s3.lease("run-1", "chunk-0007")
    early.take()
    early.begin()
    clock.now += 3600
    sent_at: list[float] = []
    runner.speech.refuse = lambda request: sent_at.append(clock.now)
    begun = clock.now
    runner.submit(*recordings, limits={"ramp": True})
    distances = [later - sooner for sooner, later in pairwise(sent_at)]
    assert sent_at[0] - begun < 1, "its turn is long over"
    assert distances == pytest.approx([ramp_s(number + 1) - ramp_s(number) for number in range(9)], abs=0.05)


def test_what_has_waited_for_the_ramp_is_confirmed_before_it_is_sent(
    runner: Runner, clock: Clock, moments: dt.datetime
) -> None:
    recordings = [runner.s3.put(f"calls/{number:02}.mp3") for number in range(40)]
    known: list[type[Event]] = []

    def look(request: Request) -> Answer | None:
        key = urlsplit(request.json["audio_url"]).path.split("/", 2)[2]
        known.extend(runner.events(next(one for one in recordings if one.key == key)))
        return None

    runner.speech.refuse = look
    before = runner.s3.counted()["PutObject"]
    runner.submit(*recordings, limits={"ramp": True})
    assert known == [Intended] * 40
    assert runner.s3.counted()["PutObject"] - before <= 8, "of the ledger each 10 s, and of the lease"


def test_the_first_submission_of_a_run_waits_for_nothing(runner: Runner, clock: Clock, moments: dt.datetime) -> None:
    runner.submit(runner.s3.put("calls/a.mp3"), limits={"ramp": True})
    assert sum(clock.slept) < 0.1


def test_without_the_ramp_nothing_waits(runner: Runner, clock: Clock, moments: dt.datetime) -> None:
    runner.submit(*[runner.s3.put(f"calls/{number:02}.mp3") for number in range(30)], first=500)
    assert sum(clock.slept) < 1


def test_who_waits_for_the_ramp_keeps_the_day(runner: Runner, clock: Clock, moments: dt.datetime) -> None:
    def try_to_take_over(seconds: float) -> None:
        with pytest.raises(DayHeld):
            runner.s3.lease("other").take()

    clock.asleep = try_to_take_over
    runner.submit(runner.s3.put("calls/a.mp3"), first=500, limits={"ramp": True})
    assert sum(clock.slept) > LIFE_S


# Models that are not served any more


def not_serving(*models: str) -> Callable[[Request], Answer | None]:
    """Refuses a submission that names one of ``models``, with the first of them that it meets."""

    def refuse(request: Request) -> Answer | None:
        named = request.json.get("speech_models", []) if request.method == "POST" else []
        gone = [model for model in named if model in models]
        return answer({"error": f"speech model {gone[0]} is no longer supported"}, 400) if gone else None

    return refuse


def first_of(request: Request) -> str:
    return str((request.json.get("speech_models") or [request.json.get("speech_model")])[0])


MODELS = {"transcription": {"speech_models": ["one", "two", "three"], "speaker_labels": True}}


def test_a_speech_model_that_is_not_served_is_left_out_from_then_on(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = not_serving("two")
    runner.submit(*recordings, **MODELS)
    sent = [document["speech_models"] for document in runner.speech.submitted]
    assert sent == [["one", "two", "three"], ["one", "three"], ["one", "three"]]
    assert all(document["speaker_labels"] for document in runner.speech.submitted)
    assert "It is left out; going on with one, three." in caplog.text


def test_a_refusal_that_names_no_model_leaves_out_the_first(runner: Runner) -> None:
    refusals = [answer({"error": "This model has been retired"}, 400)]
    runner.speech.refuse = lambda request: refusals.pop() if refusals else None
    runner.submit(runner.s3.put("calls/a.mp3"), **MODELS)
    assert runner.speech.submitted[-1]["speech_models"] == ["two", "three"]


def test_what_was_transcribed_with_the_models_that_were_left_is_not_paid_for_again(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.refuse = not_serving("one")
    runner.transcribe(recording, **MODELS)
    runner.transcribe(recording, run_id="run-2", since=NEXT_RUN, **MODELS)
    assert len(runner.speech.jobs) == 1


@pytest.mark.parametrize(
    ("transcription", "asked"),
    [
        ({"speech_models": ["one", "two"]}, 2),
        ({"speech_model": "one"}, 1),
        ({}, 1),
    ],
)
def test_where_no_speech_model_is_left_the_setting_is_named(
    runner: Runner, transcription: dict[str, Any], asked: int
) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = lambda request: answer({"error": f"speech model {first_of(request)} is retired"}, 400)
    with pytest.raises(NoModelLeft, match=r"transcription\.speech_models.*one"):
        runner.submit(*recordings, transcription=transcription)
    assert len(runner.speech.submitted) == asked


def test_jobs_that_end_because_their_model_is_gone_are_submitted_without_it(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    gone = {"status": "error", "error": "speech model one is no longer supported"}
    runner.speech.endings = {"t-1": gone, "t-2": gone}
    run = runner.submit(*recordings, **MODELS)
    assert collect(run) == 2
    run.submit()
    assert [document["speech_models"] for document in runner.speech.submitted[2:]] == [["two", "three"]] * 2
    assert collect(run) == 0
    assert runner.events(*recordings, **MODELS) == [Transcribed] * 2


# Failing


def test_a_recording_that_is_refused_stops_no_other(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
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
def test_what_concerns_the_account_stops_at_once(runner: Runner, refusal: Answer, words: str) -> None:
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
def test_a_failed_job_is_submitted_again_only_where_that_may_help(
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


def test_a_replay_submits_again_what_failed_for_good_and_once(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": "Transcoding failed."}
    runner.transcribe(recording)
    for _ in range(2):
        runner.transcribe(recording, run_id="run-2", since=dt.datetime.now(dt.UTC), replay=True).submit()
        runner.transcribe(recording, run_id="run-3", since=NEXT_RUN)
    assert len(runner.speech.submitted) == 3


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (SERVER_ERROR, "provider_error"),
        ("Download error, unable to download https://b/a.mp3?X-Amz-Signature=abc", "download_refused"),
    ],
)
def test_a_job_that_fails_on_the_way_is_submitted_again_a_few_times_in_the_same_pass(
    runner: Runner, error: str, failure_class: str
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": error}
    run = runner.submit(recording)
    for _ in range(TRIES_AT_PROVIDER - 1):
        assert collect(run) == 1, "there is something left to do"
        run.submit()
    assert collect(run) == 0
    run.submit()
    assert len(runner.speech.submitted) == TRIES_AT_PROVIDER
    event = runner.failure(recording)
    assert event.failure_class == failure_class
    assert "Signature" not in event.failure_message


def test_the_tries_at_the_provider_are_counted_over_the_processes_of_a_task(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": SERVER_ERROR}
    for left in [1] * (TRIES_AT_PROVIDER - 1) + [0]:
        assert collect(runner.submit(recording)) == left
    runner.submit(recording)
    assert len(runner.speech.submitted) == TRIES_AT_PROVIDER


def test_the_next_run_has_tries_of_its_own(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": SERVER_ERROR}
    assert collect(runner.submit(recording)) == 1
    assert collect(runner.submit(recording, run_id="run-2", since=NEXT_RUN)) == 1
    assert runner.failure(recording).tries == 1


def test_a_submission_whose_answer_was_lost_counts_as_one_try(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": SERVER_ERROR}
    runner.speech.refuse = losing(runner.speech, taken=False, times=3)
    assert collect(runner.submit(recording)) == 1
    assert runner.failure(recording).tries == 1


def test_no_signature_is_kept_with_the_transcript(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    kept = runner.s3.state.get(runner.transcribed(recording).transcript_uri.removeprefix(runner.s3.state.uri))
    assert kept is not None
    assert b"calls/a.mp3" in kept
    assert b"Signature" not in kept


def test_a_job_that_the_service_does_not_know_any_more_hides_no_other(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.submit(*recordings)
    del runner.speech.jobs["t-1"]
    runner.transcribe(*recordings)
    assert "transcript id not found" in runner.failure(recordings[0]).failure_message
    assert isinstance(runner.event(recordings[1]), Transcribed)


def test_what_was_collected_before_the_service_went_away_is_collected_by_the_next_try(runner: Runner) -> None:
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
def test_many_are_submitted_and_collected_at_once(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{number:03}.mp3") for number in range(BATCH + 10)]
    run = runner.transcribe(*recordings)
    assert sorted(urlsplit(job["audio_url"]).path[-7:-4] for job in runner.speech.submitted) == [
        f"{number:03}" for number in range(BATCH + 10)
    ]
    assert runner.events(*recordings) == [Transcribed] * len(recordings)
    read_back = TranscriptReader(runner.s3.state)
    assert all(read_back.cues(runner.transcribed(recording)) for recording in recordings)
    assert run.run(patience_s=0) is None


def test_a_task_submits_no_more_than_there_is_room_for(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abcde"]
    runner.speech.status = "processing"
    run = runner.run(recordings, slots=Slots(runner.s3.state, "runs/slots.json", 3, "chunk-0000"))
    assert (run.submit(), collect(run)) == (2, 5)
    other = Slots(runner.s3.state, "runs/slots.json", 3, "chunk-0001", first=5)
    assert other.acquire(0, 4, 0) == 0
    runner.speech.endings = {"t-1": {"status": "completed"}}
    run.look()
    assert run.submit() == 1, "one has ended, so one may follow"
    assert len(runner.speech.submitted) == 4
    runner.speech.status = "completed"
    for _ in range(3):
        run.look()
        run.submit()
        run.collect()
    run.keep()
    assert runner.events(*recordings) == [Transcribed] * 5
    assert other.acquire(0, 4, 0) == 3, "what is not needed any more is the others'"


def test_the_time_that_jobs_take_is_what_a_task_waits_by(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    run = runner.submit(recording)
    assert run.pacing.next_in_s(1, 0) == 0, "nobody knows yet"
    created = dt.datetime.fromisoformat(runner.speech.jobs["t-1"]["created"])
    runner.speech.ending = {"completed": (created + dt.timedelta(seconds=8)).isoformat()}
    run.look()
    assert run.pacing.job_s == run.pacing.next_in_s(1, 0) == 8
    assert 0.8 * 8 / LOOKS_A_JOB <= run.pacing.pause_s() <= 1.2 * 8 / LOOKS_A_JOB


def test_jobs_under_way_are_waited_for(runner: Runner) -> None:
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


def test_nothing_under_way_is_no_request(runner: Runner) -> None:
    assert collect(runner.run([runner.s3.put("calls/a.mp3")])) == 0
    assert runner.speech.web.requests == []


def test_a_transcript_is_saved_with_what_it_took(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    event = runner.transcribed(recording)
    assert event.status == "completed"
    assert (event.audio_s, event.language, event.speech_model) == (6.0, "en", "universal-3-5-pro")
    assert event.speech_usd == pytest.approx(6 / 3600 * 0.23)
    saved = json.loads(runner.s3.bytes_of(event.transcript_uri.removeprefix(f"s3://{runner.s3.warehouse}/")))
    assert saved["id"] == event.transcript_id


CUES = [(0.5, "A", "Thank you for calling."), (2.5, "B", "My invoice is wrong.")]


def read(transcripts: TranscriptReader, event: Transcribed) -> list[tuple[float, str | None, str]]:
    return [(cue.start_s, cue.speaker, cue.text) for cue in transcripts.cues(event)]


def test_cues_that_were_collected_together_are_read_with_one_request(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abc"]
    runner.transcribe(*recordings)
    events = [runner.transcribed(recording) for recording in recordings]
    before, transcripts = runner.s3.counted()["GetObject"], TranscriptReader(runner.s3.state)
    assert [read(transcripts, event) for event in events] == [CUES] * 3
    assert runner.s3.counted()["GetObject"] - before == 1


def test_cues_are_kept_with_how_sure_they_are(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.ending = {"words": [WORDS[0] | {"confidence": 0.9}, WORDS[1]]}
    runner.transcribe(recording)
    assert [cue.confidence for cue in TranscriptReader(runner.s3.state).cues(runner.transcribed(recording))] == [
        0.9,
        None,
    ]


def test_cues_that_were_kept_by_an_earlier_version_are_as_sure_as_nobody_knows(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    event = runner.transcribed(recording)
    kept = json.loads(runner.s3.state.get(event.cues) or b"")
    for cue in kept["cues"]:
        del cue["confidence"]
    runner.s3.state.put(event.cues, json.dumps(kept).encode())
    transcripts = TranscriptReader(runner.s3.state)
    assert read(transcripts, event) == CUES
    assert [cue.confidence for cue in transcripts.cues(event)] == [None, None]


def test_cues_that_were_not_kept_together_are_read_from_the_transcript(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    run = runner.submit(*recordings)
    run.look()
    run.collect()
    run.ledger.write()  # and killed before it could keep the cues
    events = [runner.transcribed(recording) for recording in recordings]
    before, transcripts = runner.s3.counted()["GetObject"], TranscriptReader(runner.s3.state)
    assert [read(transcripts, event) for event in events] == [CUES] * 2
    assert runner.s3.counted()["GetObject"] - before == 5


def test_cues_of_an_earlier_version_are_read_from_the_transcript(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    document = to_document(runner.event(recording))
    for name in ("cues", "recording", "term"):
        del document[name]
    event = from_document(document)
    assert isinstance(event, Transcribed)
    assert read(TranscriptReader(runner.s3.state), event) == CUES


@pytest.mark.parametrize("text", ["", None, "  \n"])
def test_of_silence_no_captions_are_asked_for(runner: Runner, text: str | None) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.ending = {"text": text, "words": [], "audio_duration": 8}
    runner.transcribe(recording)
    assert runner.transcribed(recording).status == "no_speech"
    assert runner.transcribed(recording).audio_s == 8.0
    assert not [request for request in runner.speech.web.requests if request.path.endswith("/vtt")]


def test_a_transcript_that_is_gone_from_the_state_area_says_what_to_do(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    for key in runner.s3.keys("state/transcripts/"):
        runner.s3.client.delete_object(Bucket=runner.s3.warehouse, Key=key)
    with pytest.raises(TranscriptGone, match=r"not there any more.*below output\.state"):
        TranscriptReader(runner.s3.state).cues(runner.transcribed(recording))


def test_captions_that_are_none_are_the_providers_error(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = refusing("/v2/transcript/t-1/vtt", text_answer("<html>"))
    runner.transcribe(*recordings)
    transcripts = TranscriptReader(runner.s3.state)
    with pytest.raises(ProviderError, match="not WebVTT"):
        transcripts.cues(runner.transcribed(recordings[0]))
    assert read(transcripts, runner.transcribed(recordings[1])) == CUES


def test_nothing_secret_and_nothing_said_is_logged(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    with caplog.at_level(logging.DEBUG, logger="callphases"):
        runner.transcribe(*recordings)
    assert "2 of 2 recordings are transcribed" in caplog.text
    for secret in (KEY, "Signature", "invoice"):
        assert secret not in caplog.text


def test_what_the_service_warns_of_is_logged_without_secrets(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    url = f"https://calls.example/{DAY}/a.mp3?X-Amz-Signature=abc"
    warnings = [{"message": f"Fell back to another model for {url}."}, {"message": "Low volume."}]
    runner.speech.ending = {"metadata": {"warnings": warnings}}
    runner.transcribe(runner.s3.put("calls/a.mp3"))
    assert "calls/a.mp3: the service warns: Fell back to another model for https://calls.example/" in caplog.text
    assert "calls/a.mp3: the service warns: Low volume." in caplog.text
    assert "Signature" not in caplog.text


@pytest.mark.parametrize("metadata", [None, {}, {"warnings": None}, {"warnings": []}])
def test_a_service_that_warns_of_nothing_is_heard(runner: Runner, metadata: Any) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.ending = {"metadata": metadata}
    runner.transcribe(recording)
    assert isinstance(runner.event(recording), Transcribed)
