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
from callphases.state.lease import FRESH_S, LIFE_S, Lease
from callphases.state.ledger import Event, transcript_key
from callphases.state.storage import ObjectPrefix
from callphases.state.transcripts import Transcripts
from callphases.transcription import transcriber
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.transcriber import (
    BATCH,
    LATE_PAUSES_S,
    LOOKS_A_JOB,
    LOST_PAUSES_S,
    SUBMIT_ROUNDS,
    TRIES_AT_PROVIDER,
    UPLOAD_PIECE_BYTES,
    URL_LIFE_S,
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


class Desk:
    """Starts tasks of runs on the day as it is known by then, as Airflow does; another run ends the one before."""

    def __init__(self, s3: Store, speech: Speech) -> None:
        self.s3, self.speech = s3, speech
        self._lease: Lease | None = None

    def run(
        self, chunk: list[Recording], /, run_id: str = "run-1", since: dt.datetime = LONG_AGO, **more: Any
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
        return Transcriber(service, self.s3.client, pipeline, self.s3.state, ledger, listed)

    def submit(self, *recordings: Recording, **more: Any) -> Transcriber:
        run = self.run(list(recordings), **more)
        run.submit()
        return run

    def transcribe(self, *recordings: Recording, **more: Any) -> Transcriber:
        run = self.submit(*recordings, **more)
        assert collect(run) == 0
        return run

    def event(self, recording: Recording, **settings: Any) -> Event:
        """What the bucket knows of a recording."""
        key = transcript_key(recording, self.s3.pipeline(**settings).transcription)
        event = self.s3.known().find(key)
        assert event is not None
        return event

    def events(self, *recordings: Recording) -> list[str]:
        return [self.event(recording)["event"] for recording in recordings]

    def url(self, recording: Recording) -> str:
        """A URL of a recording, as the service gets one."""
        where = {"Bucket": recording.bucket, "Key": recording.key}
        return str(self.s3.client.generate_presigned_url("get_object", Params=where))

    def intended(self, recording: Recording, **more: Any) -> None:
        """An earlier run was killed, just before or just after it submitted this."""
        key = transcript_key(recording, self.s3.pipeline().transcription)
        url = self.url(recording).partition("?")[0]
        self.s3.knows({"event": "intended", "key": key, "recording": recording.key, "audio_url": url, **more})


def collect(run: Transcriber) -> int:
    run.look()
    left = run.collect()
    run.keep()
    return left


@pytest.fixture(autouse=True)
def one_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests in a known order, but where a test wants them as they come."""
    if "threads" not in request.keywords:
        monkeypatch.setattr(transcriber, "ThreadPoolExecutor", OneThread)


@pytest.fixture
def desk(s3: Store, speech: Speech) -> Desk:
    return Desk(s3, speech)


def refusing(path: str, refusal: Answer, method: str = "GET") -> Callable[[Request], Answer | None]:
    return lambda request: refusal if (request.method, request.path) == (method, path) else None


# Delivering


@pytest.mark.parametrize("key", ["calls/a.mp3", "calls/a b+c%20'\"é🎧.mp3", "/calls//a.mp3"])
@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_the_service_gets_the_recordings_bytes(desk: Desk, key: str, send: str) -> None:
    body = bytes(range(256)) * (UPLOAD_PIECE_BYTES // 128)
    desk.submit(desk.s3.put(key, body), recordings={"send": send})
    assert desk.speech.heard == [body]


def test_a_presigned_url_outlives_the_queue_and_audio_takes_no_detour(desk: Desk) -> None:
    desk.submit(desk.s3.put("calls/a.mp3"))
    (url,) = [document["audio_url"] for document in desk.speech.submitted]
    assert url.startswith(f"{desk.s3.url}/{desk.s3.recordings}/calls/a.mp3?")
    assert int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0]) == URL_LIFE_S >= 2 * 3600
    assert desk.speech.uploads == {}


def test_a_large_upload_is_streamed_in_pieces(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3", b"x" * (2 * UPLOAD_PIECE_BYTES + 1))
    desk.submit(recording, recordings={"send": "upload"})
    (sent,) = desk.speech.asked("POST", "/v2/upload")
    assert sent.headers["transfer-encoding"] == "chunked"


def test_the_options_are_the_pipelines(desk: Desk) -> None:
    options = {"speech_models": ["universal-3-pro"], "redact_pii": True}
    desk.submit(desk.s3.put("calls/a.mp3"), transcription=options)
    (document,) = desk.speech.submitted
    assert document == {"audio_url": document["audio_url"], **options}


@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_an_empty_file_is_not_sent(desk: Desk, send: str) -> None:
    empty = desk.s3.put("calls/empty.mp3", b"")
    desk.submit(empty, recordings={"send": send})
    assert desk.speech.web.requests == []
    assert (desk.event(empty)["failure_class"], desk.event(empty)["permanent"]) == ("empty_file", True)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_recording_that_changed_since_it_was_listed_is_not_uploaded(desk: Desk, change: str) -> None:
    recording = desk.s3.put("calls/a.mp3", b"old")
    if change == "deleted":
        desk.s3.client.delete_object(Bucket=desk.s3.recordings, Key=recording.key)
    else:
        desk.s3.put("calls/a.mp3", b"new")
    desk.submit(recording, recordings={"send": "upload"})
    assert desk.speech.submitted == []
    assert (desk.event(recording)["failure_class"], desk.event(recording)["permanent"]) == ("recording_gone", False)


# Paying once


def test_a_second_run_of_the_day_submits_nothing(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "abc"]
    for run_id in ("run-1", "run-1", "run-2"):
        desk.transcribe(*recordings, run_id=run_id, since=NEXT_RUN)
    assert len(desk.speech.submitted) == 3


def test_intents_are_durable_before_anything_is_sent_and_ids_before_anything_else_is_done(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    happened: list[str] = []
    known: list[list[str]] = []

    def look(request: Request) -> Answer | None:
        happened.append(request.method)
        known.append(desk.events(*recordings))
        return None

    desk.speech.refuse = look
    run = desk.run(recordings)
    desk.s3.client.meta.events.register("after-call.s3.PutObject", lambda **_: happened.append("PUT"))
    run.submit()
    assert happened == ["PUT", "POST", "POST", "PUT"]
    assert known == [["intended", "intended"]] * 2
    assert desk.events(*recordings) == ["submitted", "submitted"]


def test_a_batch_of_submissions_shares_a_write_with_the_ids_of_the_one_before(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{number}.mp3") for number in range(BATCH + 1)]
    run = desk.run(recordings)
    before = desk.s3.counted()["PutObject"]
    run.submit()
    assert desk.s3.counted()["PutObject"] - before == 3
    assert len(desk.speech.jobs) == BATCH + 1
    assert desk.events(*recordings) == ["submitted"] * (BATCH + 1)


def test_an_intent_holds_no_signature(desk: Desk) -> None:
    desk.submit(desk.s3.put("calls/a.mp3"))
    written = b"".join(desk.s3.bytes_of(key) for key in desk.s3.keys("state/ledger/"))
    assert b"/calls/a.mp3" in written
    assert b"Signature" not in written


def test_a_run_that_was_cut_off_goes_on_where_it_was(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "abc"]
    desk.speech.refuse = lambda request: NO_MONEY if request.method == "POST" and len(desk.speech.jobs) == 2 else None
    with pytest.raises(AccountError):
        desk.submit(*recordings)
    desk.speech.refuse = lambda request: None
    desk.transcribe(*recordings, run_id="run-2", since=NEXT_RUN)
    assert len(desk.speech.jobs) == 3


def test_what_was_not_sent_any_more_is_withdrawn(desk: Desk) -> None:
    """Of the one that was refused nobody can be sure; it is looked for before it is sent again."""
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "abcd"]
    desk.speech.refuse = lambda request: NO_MONEY if request.method == "POST" and len(desk.speech.jobs) == 1 else None
    with pytest.raises(AccountError):
        desk.submit(*recordings)
    assert desk.events(*recordings) == ["submitted", "intended", "withdrawn", "withdrawn"]


def test_a_run_that_loses_the_day_half_way_withdraws_the_rest(desk: Desk, clock: Clock) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "abc"]
    other = desk.s3.lease("other")

    def stall(request: Request) -> Answer | None:
        if not desk.speech.jobs:
            clock.now += LIFE_S
            other.take()
        return None

    desk.speech.refuse = stall
    with pytest.raises(DayHeld, match="run other works"):
        desk.submit(*recordings)
    assert desk.events(*recordings) == ["submitted", "withdrawn", "withdrawn"]
    assert len(desk.speech.jobs) == 1
    other.release()
    desk.speech.refuse = lambda request: None
    desk.transcribe(*recordings)
    assert len(desk.speech.jobs) == 3


def test_a_run_that_was_stopped_by_another_task_withdraws_the_rest(desk: Desk, clock: Clock) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]

    def stop(request: Request) -> Answer | None:
        desk.s3.lease("run-1", "chunk-0001").stop(AccountError("The account has no money."))
        clock.now += FRESH_S
        return None

    desk.speech.refuse = stop
    with pytest.raises(RunStopped, match=r"chunk-0001 stopped the run: The account has no money\."):
        desk.submit(*recordings)
    assert desk.events(*recordings) == ["submitted", "withdrawn"]


def test_what_was_withdrawn_is_not_looked_for(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.intended(recording)
    key = transcript_key(recording, desk.s3.pipeline().transcription)
    desk.s3.knows({"event": "withdrawn", "key": key, "recording": recording.key})
    desk.submit(recording)
    assert [request.method for request in desk.speech.web.requests] == ["POST"]


@pytest.mark.parametrize(
    ("settings", "paid"),
    [
        ({"phases": [{"name": "Hold"}], "segmentation": {"models": ["gpt-5-mini"]}}, 1),
        ({"recordings": {"send": "upload"}}, 1),
        ({"transcription": {"speaker_labels": False}}, 2),
    ],
    ids=["another prompt", "another way to send", "other options"],
)
def test_only_other_options_are_paid_for_again(desk: Desk, settings: dict[str, Any], paid: int) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.submit(recording)
    desk.submit(recording, run_id="run-2", since=NEXT_RUN, **settings)
    assert len(desk.speech.submitted) == paid


def test_other_bytes_below_the_same_key_are_another_recording(desk: Desk) -> None:
    for body in (b"first", b"second"):
        desk.submit(desk.s3.put("calls/a.mp3", body))
    assert desk.speech.heard == [b"first", b"second"]


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
def test_a_job_whose_answer_was_lost_is_found_and_not_paid_for_again(desk: Desk, send: str, lost: Answer) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.refuse = losing(desk.speech, taken=True, lost=lost)
    desk.transcribe(*recordings, recordings={"send": send})
    assert desk.events(*recordings) == ["transcribed"] * 2
    assert len(desk.speech.jobs) == 2


def test_a_job_that_is_listed_late_is_found_by_the_second_look(desk: Desk, clock: Clock) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.refuse = losing(desk.speech, taken=False)

    def appear(seconds: float) -> None:
        if seconds == LOST_PAUSES_S[1]:
            desk.speech.take({"audio_url": desk.url(recording)})

    clock.asleep = appear
    desk.submit(recording)
    assert [seconds for seconds in clock.slept if seconds > 1] == list(LOST_PAUSES_S)
    assert len(desk.speech.submitted) == 1
    assert desk.event(recording)["transcript_id"] == "t-1"


def test_a_job_that_the_service_takes_long_after_we_gave_up_is_waited_for(desk: Desk, clock: Clock) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.refuse = losing(desk.speech, taken=False, lost=(504, {}, b""))
    given_up = clock.now

    def appear(seconds: float) -> None:
        if clock.now - given_up > 45 and not desk.speech.jobs:
            desk.speech.take({"audio_url": desk.url(recording)})

    clock.asleep = appear
    desk.submit(recording)
    assert len(desk.speech.submitted) == len(desk.speech.jobs) == 1
    assert desk.event(recording)["transcript_id"] == "t-1"


@pytest.fixture
def slow(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
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

    desk.speech.refuse = stall
    yield answer_now
    answer_now.set()


def test_a_submission_whose_answer_takes_too_long_is_looked_for_for_longer(
    desk: Desk, clock: Clock, slow: threading.Event
) -> None:
    recording = desk.s3.put("calls/a.mp3")

    def appear(seconds: float) -> None:
        slow.set()
        if sum(clock.slept) > sum(LOST_PAUSES_S + LATE_PAUSES_S[:2]) and not desk.speech.jobs:
            desk.speech.take({"audio_url": desk.url(recording)})

    clock.asleep = appear
    desk.submit(recording)
    assert len(desk.speech.submitted) == 1
    assert desk.event(recording)["transcript_id"] == "t-1"


def test_a_submission_whose_answer_takes_too_long_and_was_not_taken_is_sent_again(
    desk: Desk, clock: Clock, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = desk.s3.put("calls/a.mp3")

    def go_on(seconds: float) -> None:
        slow.set()
        monkeypatch.setattr("callphases.transcription.assemblyai.SUBMIT_TIMEOUTS_S", (5.0, 60.0))

    clock.asleep = go_on
    desk.submit(recording)
    assert len(desk.speech.submitted) == 2
    assert sum(clock.slept) >= sum(LOST_PAUSES_S + LATE_PAUSES_S)
    assert desk.event(recording)["transcript_id"] == "t-1"


@pytest.mark.parametrize("times", [1, 2, SUBMIT_ROUNDS - 1])
@pytest.mark.parametrize("lost", [LOST, answer({}, 500)], ids=["nothing", "500"])
def test_a_submission_that_was_not_taken_is_sent_again(desk: Desk, lost: Answer, times: int) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.refuse = losing(desk.speech, taken=False, lost=lost, times=times)
    desk.submit(recording)
    assert len(desk.speech.jobs) == 1
    assert desk.event(recording)["transcript_id"] == "t-1"


def test_a_service_that_answers_no_submission_ends_the_run(desk: Desk) -> None:
    desk.speech.refuse = lambda request: LOST if (request.method, request.path) == SUBMISSION else None
    with pytest.raises(ServiceUnavailable, match=f"1 submissions were sent {SUBMIT_ROUNDS} times and not answered"):
        desk.submit(desk.s3.put("calls/a.mp3"))


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


def killed_before_it_knew_the_id(desk: Desk, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(desk.run([recording]), lambda body: b'"submitted"' in body, monkeypatch)
    assert desk.events(recording) == ["intended"]
    assert len(desk.speech.jobs) == 1


@pytest.mark.parametrize("ahead_s", [-60, 0, 60, 3600], ids=["behind", "right", "ahead", "far ahead"])
def test_a_job_whose_id_could_not_be_written_is_found_and_not_paid_for_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.clock = dt.timedelta(seconds=ahead_s)
    killed_before_it_knew_the_id(desk, recording, monkeypatch)
    desk.transcribe(recording, run_id="run-2", since=NEXT_RUN)
    assert len(desk.speech.jobs) == 1
    assert desk.event(recording)["event"] == "transcribed"


def test_another_process_of_a_task_waits_until_the_first_can_submit_no_more(
    desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = desk.s3.put("calls/a.mp3")
    killed_before_it_knew_the_id(desk, recording, monkeypatch)
    clock.now += 20
    desk.speech.web.requests.clear()
    looked_at: list[float] = []
    desk.speech.refuse = lambda request: looked_at.append(clock.now)
    begun = clock.now
    desk.submit(recording)
    assert looked_at[0] - begun >= LIFE_S - 20
    assert len(desk.speech.jobs) == 1
    assert desk.speech.submitted == []


def test_another_process_of_a_task_keeps_the_day_while_it_waits(
    desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = desk.s3.put("calls/a.mp3")
    killed_before_it_knew_the_id(desk, recording, monkeypatch)

    def try_to_take_over(seconds: float) -> None:
        with pytest.raises(DayHeld):
            desk.s3.lease("other").take()

    clock.asleep = try_to_take_over
    desk.submit(recording)
    assert sum(clock.slept) >= LIFE_S


def test_a_job_that_an_earlier_process_submits_meanwhile_is_found(desk: Desk, clock: Clock) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.refuse = lambda request: NO_MONEY
    with pytest.raises(AccountError):
        desk.submit(recording)
    desk.speech.web.requests.clear()
    clock.asleep = lambda seconds: desk.speech.jobs or desk.speech.take({"audio_url": desk.url(recording)})
    desk.speech.refuse = lambda request: None
    desk.submit(recording)
    assert desk.speech.submitted == []
    assert desk.event(recording)["transcript_id"] == "t-1"


def test_a_job_whose_last_answer_was_lost_is_found_too(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    given_up = losing(desk.speech, taken=False, times=SUBMIT_ROUNDS - 1)
    last = losing(desk.speech, taken=True)
    desk.speech.refuse = lambda request: given_up(request) or last(request)
    desk.submit(recording)
    assert desk.event(recording)["transcript_id"] == "t-1"
    assert len(desk.speech.jobs) == 1


def test_a_job_of_long_before_is_not_taken_for_a_lost_one(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.clock = dt.timedelta(hours=-1)
    desk.speech.take({"audio_url": desk.url(recording)})
    desk.speech.clock = dt.timedelta(0)
    desk.speech.refuse = losing(desk.speech, taken=False)
    desk.submit(recording)
    assert desk.event(recording)["transcript_id"] == "t-2"


def test_a_job_of_another_recording_is_not_taken_for_a_lost_one(desk: Desk) -> None:
    recording, other = desk.s3.put("calls/a.mp3"), desk.s3.put("calls/b.mp3")
    desk.speech.take({"audio_url": desk.url(other)})
    desk.intended(recording)
    desk.submit(recording)
    assert desk.event(recording)["transcript_id"] == "t-2"


def test_a_job_that_failed_before_is_not_taken_for_a_lost_one(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status = "error"
    desk.transcribe(recording)
    desk.speech.refuse = losing(desk.speech, taken=False)
    desk.submit(recording, run_id="run-2", since=NEXT_RUN)
    assert desk.event(recording)["transcript_id"] == "t-2"


def test_a_known_job_of_the_same_recording_is_not_taken_for_a_lost_one(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.submit(recording)
    desk.speech.refuse = losing(desk.speech, taken=False)
    other = {"transcription": {"speech_models": ["universal-2"]}}
    desk.submit(recording, run_id="run-2", since=NEXT_RUN, **other)
    assert desk.event(recording, **other)["transcript_id"] == "t-2"


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
    desk: Desk, options: dict[str, Any], found: bool
) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.intended(recording)
    desk.speech.take({"audio_url": desk.url(recording), **options})
    desk.submit(recording)
    assert len(desk.speech.submitted) == (0 if found else 1)
    assert desk.event(recording)["transcript_id"] == ("t-1" if found else "t-2")


@pytest.mark.parametrize("ours", ["t-1", "t-2"], ids=["the older", "the newer"])
def test_of_two_jobs_the_one_with_our_speech_models_is_taken(desk: Desk, ours: str) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.intended(recording)
    for one in ("t-1", "t-2"):
        models = DEFAULT_SPEECH_MODELS if one == ours else ["another"]
        desk.speech.take({"audio_url": desk.url(recording), "speech_models": models})
    desk.submit(recording)
    assert desk.event(recording)["transcript_id"] == ours


def test_a_job_that_may_not_be_looked_at_is_taken_rather_than_paid_for_again(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.intended(recording)
    desk.speech.take({"audio_url": desk.url(recording), "speaker_labels": False})
    desk.speech.refuse = refusing("/v2/transcript/t-1", answer({"error": "This transcript is being moved"}, 403))
    desk.submit(recording)
    assert desk.event(recording)["transcript_id"] == "t-1"


@pytest.mark.parametrize("good", ["t-1", "t-2"], ids=["the older", "the newer"])
def test_of_two_jobs_the_one_that_has_not_failed_is_taken(desk: Desk, good: str) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.intended(recording)
    for one in ("t-1", "t-2"):
        desk.speech.take({"audio_url": desk.url(recording)})
        desk.speech.endings[one] = {} if one == good else {"status": "error", "error": SERVER_ERROR}
    desk.submit(recording)
    assert desk.event(recording)["transcript_id"] == good


def test_a_lost_job_that_has_failed_is_found_and_submitted_again(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.intended(recording)
    desk.speech.take({"audio_url": desk.url(recording)})
    desk.speech.endings["t-1"] = {"status": "error", "error": SERVER_ERROR}
    run = desk.submit(recording)
    assert desk.speech.submitted == []
    assert collect(run) == 1
    run.submit()
    assert collect(run) == 0
    assert desk.event(recording)["transcript_id"] == "t-2"


@pytest.mark.parametrize("path", ["/v2/transcript/t-1", "/v2/transcript/t-1/vtt"])
def test_a_finished_job_that_cannot_be_fetched_is_fetched_by_the_next_run(desk: Desk, path: str) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.submit(*recordings)
    desk.speech.refuse = refusing(path, answer({"error": "This transcript is being moved"}, 403))
    desk.transcribe(*recordings)
    assert desk.event(recordings[0])["failure_class"] == "request_refused"
    assert desk.event(recordings[1])["event"] == "transcribed"
    desk.speech.refuse = lambda request: None
    desk.transcribe(*recordings, run_id="run-2", since=NEXT_RUN)
    assert desk.event(recordings[0])["event"] == "transcribed"
    assert len(desk.speech.jobs) == 2


def test_a_running_job_that_may_not_be_looked_up_is_not_paid_for_again(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status = "processing"
    desk.submit(recording)
    desk.speech.refuse = refusing("/v2/transcript/t-1", answer({"error": "This transcript is being moved"}, 403))
    with pytest.raises(ServiceUnavailable):
        collect(desk.run([recording]))
    desk.speech.refuse = lambda request: None
    desk.submit(recording, run_id="run-2", since=NEXT_RUN)
    assert len(desk.speech.jobs) == 1


# The ramp


@pytest.fixture
def moments(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> dt.datetime:
    """The time of day goes by the clock too; the moment at which it began."""

    class Moment(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return NOON + dt.timedelta(seconds=clock.now - 1000)

    moments = SimpleNamespace(datetime=Moment, timedelta=dt.timedelta, UTC=dt.UTC)
    for module in ("state.lease", "transcription.transcriber"):
        monkeypatch.setattr(f"callphases.{module}.dt", moments)
    return NOON


@pytest.mark.parametrize("first", [0, 500])
def test_submissions_keep_to_the_ramp_that_all_tasks_share(
    desk: Desk, clock: Clock, moments: dt.datetime, first: int
) -> None:
    recordings = [desk.s3.put(f"calls/{number:02}.mp3") for number in range(30)]
    sent_at: list[float] = []
    desk.speech.refuse = lambda request: sent_at.append(clock.now)
    begun = clock.now
    desk.submit(*recordings, first=first, limits={"ramp": True})
    due = [begun + ramp_s(first + number) for number in range(30)]
    assert len(desk.speech.jobs) == 30
    assert all(-0.01 <= sent_s - due_s < 3 for sent_s, due_s in zip(sent_at, due, strict=True))


def test_a_task_that_comes_late_does_not_catch_up_in_a_burst(desk: Desk, clock: Clock, moments: dt.datetime) -> None:
    recordings = [desk.s3.put(f"calls/{number:02}.mp3") for number in range(10)]
    early = desk.s3.lease("run-1", "chunk-0007")
    early.take()
    early.begin()
    clock.now += 3600
    sent_at: list[float] = []
    desk.speech.refuse = lambda request: sent_at.append(clock.now)
    begun = clock.now
    desk.submit(*recordings, limits={"ramp": True})
    distances = [later - sooner for sooner, later in pairwise(sent_at)]
    assert sent_at[0] - begun < 1, "its turn is long over"
    assert distances == pytest.approx([ramp_s(number + 1) - ramp_s(number) for number in range(9)], abs=0.05)


def test_what_has_waited_for_the_ramp_is_confirmed_before_it_is_sent(
    desk: Desk, clock: Clock, moments: dt.datetime
) -> None:
    recordings = [desk.s3.put(f"calls/{number:02}.mp3") for number in range(40)]
    known: list[str] = []

    def look(request: Request) -> Answer | None:
        key = urlsplit(request.json["audio_url"]).path.split("/", 2)[2]
        known.append(desk.event(next(one for one in recordings if one.key == key))["event"])
        return None

    desk.speech.refuse = look
    before = desk.s3.counted()["PutObject"]
    desk.submit(*recordings, limits={"ramp": True})
    assert known == ["intended"] * 40
    assert desk.s3.counted()["PutObject"] - before <= 8, "of the ledger each 10 s, and of the lease"


def test_the_first_submission_of_a_run_waits_for_nothing(desk: Desk, clock: Clock, moments: dt.datetime) -> None:
    desk.submit(desk.s3.put("calls/a.mp3"), limits={"ramp": True})
    assert sum(clock.slept) < 0.1


def test_without_the_ramp_nothing_waits(desk: Desk, clock: Clock, moments: dt.datetime) -> None:
    desk.submit(*[desk.s3.put(f"calls/{number:02}.mp3") for number in range(30)], first=500)
    assert sum(clock.slept) < 1


def test_who_waits_for_the_ramp_keeps_the_day(desk: Desk, clock: Clock, moments: dt.datetime) -> None:
    def try_to_take_over(seconds: float) -> None:
        with pytest.raises(DayHeld):
            desk.s3.lease("other").take()

    clock.asleep = try_to_take_over
    desk.submit(desk.s3.put("calls/a.mp3"), first=500, limits={"ramp": True})
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
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.refuse = not_serving("two")
    desk.submit(*recordings, **MODELS)
    sent = [document["speech_models"] for document in desk.speech.submitted]
    assert sent == [["one", "two", "three"], ["one", "three"], ["one", "three"]]
    assert all(document["speaker_labels"] for document in desk.speech.submitted)
    assert "It is left out; going on with one, three." in caplog.text


def test_a_refusal_that_names_no_model_leaves_out_the_first(desk: Desk) -> None:
    refusals = [answer({"error": "This model has been retired"}, 400)]
    desk.speech.refuse = lambda request: refusals.pop() if refusals else None
    desk.submit(desk.s3.put("calls/a.mp3"), **MODELS)
    assert desk.speech.submitted[-1]["speech_models"] == ["two", "three"]


def test_what_was_transcribed_with_the_models_that_were_left_is_not_paid_for_again(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.refuse = not_serving("one")
    desk.transcribe(recording, **MODELS)
    desk.transcribe(recording, run_id="run-2", since=NEXT_RUN, **MODELS)
    assert len(desk.speech.jobs) == 1


@pytest.mark.parametrize(
    ("transcription", "asked"),
    [
        ({"speech_models": ["one", "two"]}, 2),
        ({"speech_model": "one"}, 1),
        ({}, 1),
    ],
)
def test_where_no_speech_model_is_left_the_setting_is_named(
    desk: Desk, transcription: dict[str, Any], asked: int
) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.refuse = lambda request: answer({"error": f"speech model {first_of(request)} is retired"}, 400)
    with pytest.raises(NoModelLeft, match=r"transcription\.speech_models.*one"):
        desk.submit(*recordings, transcription=transcription)
    assert len(desk.speech.submitted) == asked


def test_jobs_that_end_because_their_model_is_gone_are_submitted_without_it(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    gone = {"status": "error", "error": "speech model one is no longer supported"}
    desk.speech.endings = {"t-1": gone, "t-2": gone}
    run = desk.submit(*recordings, **MODELS)
    assert collect(run) == 2
    run.submit()
    assert [document["speech_models"] for document in desk.speech.submitted[2:]] == [["two", "three"]] * 2
    assert collect(run) == 0
    assert [desk.event(recording, **MODELS)["event"] for recording in recordings] == ["transcribed"] * 2


# Failing


def test_a_recording_that_is_refused_stops_no_other(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.refuse = lambda request: REFUSED if request.json["audio_url"].split("?")[0].endswith("a.mp3") else None
    desk.submit(*recordings)
    failure = desk.event(recordings[0])
    assert (failure["event"], failure["failure_class"], failure["permanent"]) == ("failed", "request_refused", False)
    assert desk.event(recordings[1])["event"] == "submitted"
    assert "calls/a.mp3: The speech service answered 400" in caplog.text


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (answer({"error": "Authentication error, API token missing/invalid"}, 401), "does not accept the key"),
        (NO_MONEY, "topped up"),
    ],
)
def test_what_concerns_the_account_stops_at_once(desk: Desk, refusal: Answer, words: str) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.refuse = lambda request: refusal
    with pytest.raises(AccountError, match=words):
        desk.submit(*recordings)
    assert len(desk.speech.web.requests) == 1


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
    desk: Desk, error: str, failure_class: str, tried_again: bool
) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status, desk.speech.ending = "error", {"error": error}
    desk.transcribe(recording).submit()
    assert len(desk.speech.submitted) == 1, "in the same pass over the day it is settled"
    event = desk.event(recording)
    assert (event["failure_class"], event["transcript_id"]) == (failure_class, "t-1")
    assert "Signature" not in event["failure_message"]
    desk.submit(recording, run_id="run-2", since=NEXT_RUN)
    assert len(desk.speech.submitted) == (2 if tried_again else 1)


def test_a_replay_submits_again_what_failed_for_good_and_once(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status, desk.speech.ending = "error", {"error": "Transcoding failed."}
    desk.transcribe(recording)
    for _ in range(2):
        desk.transcribe(recording, run_id="run-2", since=dt.datetime.now(dt.UTC), replay=True).submit()
        desk.transcribe(recording, run_id="run-3", since=NEXT_RUN)
    assert len(desk.speech.submitted) == 3


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (SERVER_ERROR, "provider_error"),
        ("Download error, unable to download https://b/a.mp3?X-Amz-Signature=abc", "download_refused"),
    ],
)
def test_a_job_that_fails_on_the_way_is_submitted_again_a_few_times_in_the_same_pass(
    desk: Desk, error: str, failure_class: str
) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status, desk.speech.ending = "error", {"error": error}
    run = desk.submit(recording)
    for _ in range(TRIES_AT_PROVIDER - 1):
        assert collect(run) == 1, "there is something left to do"
        run.submit()
    assert collect(run) == 0
    run.submit()
    assert len(desk.speech.submitted) == TRIES_AT_PROVIDER
    event = desk.event(recording)
    assert event["failure_class"] == failure_class
    assert "Signature" not in event["failure_message"]


def test_the_tries_at_the_provider_are_counted_over_the_processes_of_a_task(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status, desk.speech.ending = "error", {"error": SERVER_ERROR}
    for left in [1] * (TRIES_AT_PROVIDER - 1) + [0]:
        assert collect(desk.submit(recording)) == left
    desk.submit(recording)
    assert len(desk.speech.submitted) == TRIES_AT_PROVIDER


def test_the_next_run_has_tries_of_its_own(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status, desk.speech.ending = "error", {"error": SERVER_ERROR}
    assert collect(desk.submit(recording)) == 1
    assert collect(desk.submit(recording, run_id="run-2", since=NEXT_RUN)) == 1
    assert desk.event(recording)["tries"] == 1


def test_a_submission_whose_answer_was_lost_counts_as_one_try(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status, desk.speech.ending = "error", {"error": SERVER_ERROR}
    desk.speech.refuse = losing(desk.speech, taken=False, times=3)
    assert collect(desk.submit(recording)) == 1
    assert desk.event(recording)["tries"] == 1


def test_no_signature_is_kept_with_the_transcript(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.transcribe(recording)
    kept = desk.s3.state.get(desk.event(recording)["transcript_uri"].removeprefix(desk.s3.state.uri))
    assert kept is not None
    assert b"calls/a.mp3" in kept
    assert b"Signature" not in kept


def test_a_job_that_the_service_does_not_know_any_more_hides_no_other(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.submit(*recordings)
    del desk.speech.jobs["t-1"]
    desk.transcribe(*recordings)
    assert "transcript id not found" in desk.event(recordings[0])["failure_message"]
    assert desk.event(recordings[1])["event"] == "transcribed"


def test_what_was_collected_before_the_service_went_away_is_collected_by_the_next_try(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.submit(*recordings)
    vtt = [f"/v2/transcript/{one}/vtt" for one in desk.speech.jobs]
    gone = answer({}, 503)
    # Whichever job comes second: once the captions of one were asked for, those of the other are not there.
    desk.speech.refuse = lambda request: (
        gone if request.path in vtt and {one.path for one in desk.speech.web.requests} >= set(vtt) else None
    )
    with pytest.raises(ServiceUnavailable):
        collect(desk.run(recordings))
    assert set(desk.events(*recordings)) <= {"submitted", "transcribed"}
    desk.speech.refuse = lambda request: None
    desk.transcribe(*recordings)
    assert desk.events(*recordings) == ["transcribed"] * 2
    assert len(desk.speech.jobs) == 2


# Collecting


@pytest.mark.threads
def test_many_are_submitted_and_collected_at_once(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{number:03}.mp3") for number in range(BATCH + 10)]
    run = desk.transcribe(*recordings)
    assert sorted(urlsplit(job["audio_url"]).path[-7:-4] for job in desk.speech.submitted) == [
        f"{number:03}" for number in range(BATCH + 10)
    ]
    assert desk.events(*recordings) == ["transcribed"] * len(recordings)
    read_back = Transcripts(desk.s3.state)
    assert all(read_back.cues(desk.event(recording)) for recording in recordings)
    assert run.waiting().jobs == []


def test_a_task_submits_no_more_than_there_is_room_for(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "abcde"]
    desk.speech.status = "processing"
    run = desk.run(recordings)
    run.slots = Slots(desk.s3.state, "runs/slots.json", 3, "chunk-0000")
    assert (run.submit(), collect(run)) == (2, 5)
    other = Slots(desk.s3.state, "runs/slots.json", 3, "chunk-0001", first=5)
    assert other.acquire(0, 4, 0) == 0
    desk.speech.endings = {"t-1": {"status": "completed"}}
    run.look()
    assert run.submit() == 1, "one has ended, so one may follow"
    assert len(desk.speech.submitted) == 4
    desk.speech.status = "completed"
    for _ in range(3):
        run.look()
        run.submit()
        run.collect()
    run.keep()
    assert desk.events(*recordings) == ["transcribed"] * 5
    assert other.acquire(0, 4, 0) == 3, "what is not needed any more is the others'"


def test_the_time_that_jobs_take_is_what_a_task_waits_by(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    run = desk.submit(recording)
    assert run.next_in_s() == 0, "nobody knows yet"
    created = dt.datetime.fromisoformat(desk.speech.jobs["t-1"]["created"])
    desk.speech.ending = {"completed": (created + dt.timedelta(seconds=8)).isoformat()}
    run.look()
    assert run.job_s == run.next_in_s() == 8
    assert 0.8 * 8 / LOOKS_A_JOB <= run.pause_s() <= 1.2 * 8 / LOOKS_A_JOB


def test_jobs_under_way_are_waited_for(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.status = "processing"
    run = desk.submit(*recordings)
    assert collect(run) == 2
    assert {one: found for one, (_, found) in run.under_way().items()} == {"t-1": recordings[0], "t-2": recordings[1]}
    assert run.waiting().jobs == ["t-1", "t-2"]
    desk.speech.status = "completed"
    assert collect(run) == 0
    assert run.under_way() == {}


def test_nothing_under_way_is_no_request(desk: Desk) -> None:
    assert collect(desk.run([desk.s3.put("calls/a.mp3")])) == 0
    assert desk.speech.web.requests == []


def test_a_transcript_is_saved_with_what_it_took(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.transcribe(recording)
    event = desk.event(recording)
    assert event["status"] == "completed"
    assert (event["audio_s"], event["language"], event["speech_model"]) == (6.0, "en", "universal-3-5-pro")
    assert event["speech_usd"] == pytest.approx(6 / 3600 * 0.23)
    saved = json.loads(desk.s3.bytes_of(event["transcript_uri"].removeprefix(f"s3://{desk.s3.warehouse}/")))
    assert saved["id"] == event["transcript_id"]


CUES = [(0.5, "A", "Thank you for calling."), (2.5, "B", "My invoice is wrong.")]


def read(transcripts: Transcripts, event: Event) -> list[tuple[float, str | None, str]]:
    return [(cue.start_s, cue.speaker, cue.text) for cue in transcripts.cues(event)]


def test_cues_that_were_collected_together_are_read_with_one_request(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "abc"]
    desk.transcribe(*recordings)
    events = [desk.event(recording) for recording in recordings]
    before, transcripts = desk.s3.counted()["GetObject"], Transcripts(desk.s3.state)
    assert [read(transcripts, event) for event in events] == [CUES] * 3
    assert desk.s3.counted()["GetObject"] - before == 1


def test_cues_are_kept_with_how_sure_they_are(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.ending = {"words": [WORDS[0] | {"confidence": 0.9}, WORDS[1]]}
    desk.transcribe(recording)
    assert [cue.confidence for cue in Transcripts(desk.s3.state).cues(desk.event(recording))] == [0.9, None]


def test_cues_that_were_kept_by_an_earlier_version_are_as_sure_as_nobody_knows(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.transcribe(recording)
    event = desk.event(recording)
    kept = json.loads(desk.s3.state.get(event["cues"]) or b"")
    for cue in kept["cues"]:
        del cue["confidence"]
    desk.s3.state.put(event["cues"], json.dumps(kept).encode())
    transcripts = Transcripts(desk.s3.state)
    assert read(transcripts, event) == CUES
    assert [cue.confidence for cue in transcripts.cues(event)] == [None, None]


def test_cues_that_were_not_kept_together_are_read_from_the_transcript(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    run = desk.submit(*recordings)
    run.look()
    run.collect()
    run.ledger.write()  # and killed before it could keep the cues
    before, transcripts = desk.s3.counted()["GetObject"], Transcripts(desk.s3.state)
    assert [read(transcripts, run.ledger.find(key)) for key in run._keys] == [CUES] * 2
    assert desk.s3.counted()["GetObject"] - before == 5


def test_cues_of_an_earlier_version_are_read_from_the_transcript(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.transcribe(recording)
    event = {name: value for name, value in desk.event(recording).items() if name not in ("cues", "recording", "term")}
    assert read(Transcripts(desk.s3.state), event) == CUES


@pytest.mark.parametrize("text", ["", None, "  \n"])
def test_of_silence_no_captions_are_asked_for(desk: Desk, text: str | None) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.ending = {"text": text, "words": [], "audio_duration": 8}
    desk.transcribe(recording)
    assert desk.event(recording)["status"] == "no_speech"
    assert desk.event(recording)["audio_s"] == 8.0
    assert not [request for request in desk.speech.web.requests if request.path.endswith("/vtt")]


def test_a_transcript_that_is_gone_from_the_state_area_says_what_to_do(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.transcribe(recording)
    for key in desk.s3.keys("state/transcripts/"):
        desk.s3.client.delete_object(Bucket=desk.s3.warehouse, Key=key)
    with pytest.raises(TranscriptGone, match=r"not there any more.*below output\.state"):
        Transcripts(desk.s3.state).cues(desk.event(recording))


def test_captions_that_are_none_are_the_providers_error(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.refuse = refusing("/v2/transcript/t-1/vtt", text_answer("<html>"))
    desk.transcribe(*recordings)
    transcripts = Transcripts(desk.s3.state)
    with pytest.raises(ProviderError, match="not WebVTT"):
        transcripts.cues(desk.event(recordings[0]))
    assert read(transcripts, desk.event(recordings[1])) == CUES


def test_nothing_secret_and_nothing_said_is_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    with caplog.at_level(logging.DEBUG, logger="callphases"):
        desk.transcribe(*recordings)
    assert "2 of 2 recordings are transcribed" in caplog.text
    for secret in (KEY, "Signature", "invoice"):
        assert secret not in caplog.text


def test_what_the_service_warns_of_is_logged_without_secrets(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    url = f"https://calls.example/{DAY}/a.mp3?X-Amz-Signature=abc"
    warnings = [{"message": f"Fell back to another model for {url}."}, {"message": "Low volume."}]
    desk.speech.ending = {"metadata": {"warnings": warnings}}
    desk.transcribe(desk.s3.put("calls/a.mp3"))
    assert "calls/a.mp3: the service warns: Fell back to another model for https://calls.example/" in caplog.text
    assert "calls/a.mp3: the service warns: Low volume." in caplog.text
    assert "Signature" not in caplog.text


@pytest.mark.parametrize("metadata", [None, {}, {"warnings": None}, {"warnings": []}])
def test_a_service_that_warns_of_nothing_is_heard(desk: Desk, metadata: Any) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.ending = {"metadata": metadata}
    desk.transcribe(recording)
    assert desk.event(recording)["event"] == "transcribed"
