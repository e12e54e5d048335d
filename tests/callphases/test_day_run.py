"""A run from its list to its tables, step by step, and what a step finds that another run has left."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import wave
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from callphases.day_run import DayRun, Listed
from callphases.errors import (
    BadAudio,
    CallFailure,
    ConfigurationError,
    DayHeld,
    DownloadRefused,
    NoBalance,
    NoModelLeft,
    RunStopped,
    ServiceUnavailable,
    ThrottledOut,
    WrongKey,
)
from callphases.limits import costs
from callphases.recordings import Recording
from callphases.segmentation.gateway import Gateway
from callphases.state.events import Deleted, Event, Intended, Stopped, Submitted, Transcribed, failed
from callphases.state.keys import transcript_key
from callphases.state.lease import LIFE_S
from callphases.state.manifests import DayList, Manifest
from callphases.tables.publishing import Published
from callphases.tables.reading import read_rows
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.pacing import LONGEST_PAUSE_S
from doubles import (
    DAY,
    KEY,
    Answer,
    Clock,
    Request,
    Speech,
    Store,
    Web,
    answer,
    merged,
    phases_answer,
)

pytestmark = pytest.mark.integration

GOOD = phases_answer(("Introduction", 1), ("Complaint", 2))
NO_QUESTION = answer({"error": {"code": 400, "message": "messages: at least one message is required"}}, 400)
NO_MONEY = answer({"error": "Your current account balance is negative."}, 400)
NO_KEY = answer({"error": "Authentication error, API token missing/invalid"}, 401)
RETIRED = answer({"error": {"code": 400, "message": "model x is not supported"}}, 400)


class Desk:
    """A bucket with recordings of a day, and runs on it."""

    def __init__(self, s3: Store, speech: Speech, models: Web) -> None:
        self.s3, self.speech, self.models = s3, speech, models
        self.respond: Callable[[Request], Answer] = lambda request: GOOD
        models.respond = lambda request: self.respond(request) if request.json["messages"] else NO_QUESTION

    def put(self, *names: str, body: bytes = b"RIFF") -> list[Recording]:
        return [self.s3.put(f"calls/{DAY}/{name}.mp3", body) for name in names]

    def night(self, **settings: Any) -> DayRun:
        pipeline = self.s3.pipeline(**merged({"limits": {"ramp": False}}, settings))
        return DayRun(pipeline, self.s3.client, AssemblyAI(KEY, self.speech.web.url), Gateway(KEY, self.models.url))

    def run(self, run_id: str = "run-1", replay: str | None = None, **settings: Any) -> Published:
        """A whole run, one task after the other."""
        night = self.night(**settings)
        listed = night.begin(DAY, run_id, replay)
        for uri in listed.chunks:
            assert night.transcribe(night.load(uri), math.inf) is None
            night.segment(night.load(uri))
        return night.end(night.load_day(listed.day))

    def rows(self, table: str = "calls") -> list[dict[str, Any]]:
        return read_rows(self.s3.tables, table, DAY)

    def statuses(self) -> dict[str, str]:
        """What the table says of each recording: its status, or the class of its failure."""
        return {
            row["recording_uri"].rsplit("/", 1)[-1].removesuffix(".mp3"): row["failure_class"] or row["status"]
            for row in self.rows()
        }

    def event(self, recording: Recording) -> Event:
        event = self.s3.known().find(self.key(recording))
        assert event is not None
        return event

    def key(self, recording: Recording) -> str:
        return transcript_key(recording, self.s3.pipeline().transcription)

    def failed(self, recording: Recording, failure: CallFailure) -> None:
        """An earlier run could not transcribe this."""
        self.s3.knows(failed(self.key(recording), failure, recording.key))

    def lease(self) -> dict[str, Any]:
        return json.loads(self.s3.state.get(f"ledger/dt={DAY}/lease.json") or b"null")

    @property
    def questions(self) -> int:
        return sum(bool(request.json["messages"]) for request in self.models.requests)


@pytest.fixture
def desk(s3: Store, speech: Speech, models: Web) -> Desk:
    return Desk(s3, speech, models)


def wav(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(1)
        writer.setframerate(8000)
        writer.writeframes(b"\x80" * round(seconds * 8000))
    return file.getvalue()


# A whole run


def test_a_run_makes_rows_of_recordings(desk: Desk) -> None:
    desk.put("a", "b")
    published = desk.run()
    assert desk.statuses() == {"a": "completed", "b": "completed"}
    assert len(desk.rows("phases")) == 4
    assert (published.listed, published.unfinished, published.stopped) == (2, 0, None)
    assert published.run_speech_usd == published.speech_usd == pytest.approx(2 * 6 / 3600 * 0.23)
    assert published.run_llm_usd == published.llm_usd > 0
    assert desk.lease()["released"]


def test_a_second_run_pays_nothing_and_makes_the_same_rows(desk: Desk) -> None:
    desk.put("a", "b")
    desk.run()
    before = desk.rows(), desk.rows("phases")
    published = desk.run("run-2")
    assert (len(desk.speech.submitted), desk.questions) == (2, 2)
    assert (desk.rows(), desk.rows("phases")) == before
    assert (published.run_speech_usd, published.run_llm_usd) == (0, 0)


def test_another_prompt_asks_again_and_transcribes_nothing(desk: Desk) -> None:
    desk.put("a", "b")
    desk.run()
    desk.run("run-2", phases=[{"name": "Introduction"}, {"name": "Complaint"}])
    assert (len(desk.speech.submitted), desk.questions) == (2, 4)


def test_a_hundred_calls_take_few_requests_to_the_store(desk: Desk) -> None:
    desk.put(*[f"{number:03}" for number in range(100)])
    desk.s3.asked.clear()
    asked: Counter[str] = Counter()
    desk.s3.client.meta.events.register("before-send.s3", lambda request, **_: asked.update([request.method]))
    desk.run()
    assert Counter(desk.statuses().values()) == {"completed": 100}
    assert (len(desk.speech.jobs), desk.questions) == (100, 100)
    assert asked.total() <= 4 * 100
    assert asked.total() >= 200, "of which are transcripts and captions"


@pytest.mark.parametrize("count", [1, 21])
def test_a_step_that_is_done_again_does_nothing(desk: Desk, count: int) -> None:
    desk.put(*[f"{number:02}" for number in range(count)])
    night = desk.night()
    listed = night.begin(DAY, "run-1")
    for uri in listed.chunks * 2:
        night.transcribe(night.load(uri), math.inf)
        night.segment(night.load(uri))
    night.end(night.load_day(listed.day))
    night.end(night.load_day(listed.day))
    assert (len(desk.speech.submitted), desk.questions) == (count, count)


def test_what_is_still_under_way_when_patience_ends_is_told(desk: Desk, clock: Clock) -> None:
    desk.put("a", "b")
    desk.speech.status = "processing"
    night = desk.night()
    chunks = [night.load(uri) for uri in night.begin(DAY, "run-1").chunks]
    begun = clock.now
    waiting = night.transcribe(chunks[0], 30)
    assert waiting is not None
    assert (waiting.jobs, waiting.unsent) == (["t-1"], 0)
    assert 20 <= clock.now - begun <= 30
    assert max(clock.slept) <= 1.2 * LONGEST_PAUSE_S
    desk.speech.status = "completed"
    assert night.transcribe(chunks[0], 30) is None
    assert len(desk.speech.submitted) == 1


def test_who_waits_for_jobs_keeps_the_day(desk: Desk, clock: Clock) -> None:
    desk.put("a")
    desk.speech.status = "processing"

    def try_to_begin(seconds: float) -> None:
        with pytest.raises(DayHeld):
            desk.s3.lease("other").take()

    clock.asleep = try_to_begin
    night = desk.night()
    listed = night.begin(DAY, "run-1")
    night.transcribe(night.load(listed.chunks[0]), 5 * LIFE_S)
    assert sum(clock.slept) > 4 * LIFE_S


def test_a_job_that_fails_on_the_way_is_submitted_again_by_the_same_step(desk: Desk) -> None:
    (recording,) = desk.put("a")
    desk.speech.endings["t-1"] = {"status": "error", "error": "Server error, developers have been alerted."}
    assert desk.run().statuses == {"completed": 1}
    event = desk.event(recording)
    assert isinstance(event, Transcribed)
    assert event.transcript_id == "t-2"


# Beginning


def test_a_day_with_nothing_to_do_asks_no_service(desk: Desk) -> None:
    assert desk.night().begin(DAY, "run-1").chunks == []
    assert desk.speech.web.requests + desk.models.requests == []


def test_a_day_that_is_done_asks_no_service_and_is_published_again(desk: Desk) -> None:
    desk.put("a")
    desk.run()
    for key in desk.s3.keys("tables/"):
        desk.s3.client.delete_object(Bucket=desk.s3.warehouse, Key=key)
    desk.speech.web.requests.clear()
    desk.models.requests.clear()
    desk.run("run-2")
    assert desk.speech.web.requests + desk.models.requests == []
    assert desk.statuses() == {"a": "completed"}


def test_the_chunks_of_a_run_have_all_that_they_need(desk: Desk) -> None:
    recordings = desk.put(*[f"{number:02}" for number in range(45)])
    desk.s3.knows(Intended(key=desk.key(recordings[41]), recording=recordings[41].key, audio_url="u"))
    night = desk.night()
    listed = night.begin(DAY, "run/1")
    chunks = [night.load(uri) for uri in listed.chunks]
    day = night.load_day(listed.day)
    assert [one.key for chunk in chunks for one in chunk.recordings] == [one.key for one in recordings]
    assert [chunk.first for chunk in chunks] == [0, 15, 30]
    assert [chunk.name for chunk in chunks] == ["chunk-0000", "chunk-0001", "chunk-0002"]
    assert [[type(event) for event in chunk.known] for chunk in chunks] == [[], [], [Intended]]
    assert {(chunk.fencing_token, chunk.run_id, chunk.run_token) for chunk in [day, *chunks]} == {
        (1, "run/1", day.run_token)
    }
    assert {(chunk.listed_at, chunk.replay) for chunk in [day, *chunks]} == {(day.listed_at, False)}
    assert {chunk.budget_usd for chunk in chunks} == {None}
    assert (day.day, day.listed, day.chunks, day.rest) == (DAY, 45, 3, 0)


def test_a_night_with_long_calls_has_fewer_of_them_in_a_chunk(desk: Desk) -> None:
    desk.put(*[f"a{number:02}" for number in range(30)], body=b"RIFF" * 1000)
    desk.put(*[f"b{number:02}" for number in range(30)])
    night = desk.night()
    chunks = [night.load(uri) for uri in night.begin(DAY, "run-1").chunks]
    assert [len(chunk.recordings) for chunk in chunks] == [10, 10, 10, 30]


def test_what_is_in_no_chunk_is_written_in_parts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.day_run.REST_PART", 2)
    for one in desk.put("a", "b", "c"):
        desk.failed(one, BadAudio("No audio."))
    desk.put("d")
    night = desk.night()
    listed = night.begin(DAY, "run-1")
    day = night.load_day(listed.day)
    assert (day.listed, day.chunks, day.rest) == (4, 1, 2)
    parts = [key.rpartition("/rows/")[2] for key in desk.s3.keys(f"state/runs/dt={DAY}/") if "/rows/" in key]
    assert [part.partition(".")[0] for part in parts] == ["rest-0000", "rest-0001"]


def test_a_list_of_several_pages_keeps_the_day_and_takes_a_request_a_page(desk: Desk, clock: Clock) -> None:
    desk.put(*[f"{number:02}" for number in range(30)])

    def page(**_: object) -> None:
        clock.now += LIFE_S - 1
        with pytest.raises(DayHeld):
            desk.s3.lease("other").take()

    events = desk.s3.client.meta.events
    events.register("provide-client-params.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=10))
    events.register("after-call.s3.ListObjectsV2", lambda context, **_: page() if "calls/" in context["key"] else None)
    assert len(desk.night().begin(DAY, "run-1").chunks) == 3
    assert desk.s3.listed.count(f"calls/{DAY}/") == 3


def test_transcripts_go_with_the_rows_of_a_recording_that_is_gone(desk: Desk) -> None:
    gone, stays = desk.put("gone", "stays")
    desk.run()
    ids = {row["recording_uri"]: row["transcript_id"] for row in desk.rows()}
    desk.s3.client.delete_object(Bucket=desk.s3.recordings, Key=gone.key)
    desk.run("run-2")
    assert len(desk.rows()) == 2
    desk.run("run-3", recordings={"when_deleted": "drop"})
    assert [row["recording_uri"] for row in desk.rows()] == [stays.uri]
    key = desk.key(gone)
    objects = {name: desk.s3.bytes_of(name) for name in desk.s3.keys("state/transcripts/")}
    assert objects, "those of the other call"
    assert not any(key in name or key.encode() in body for name, body in objects.items())
    assert deletions(desk) == [ids[gone.uri]]
    other = {"phases": [{"name": "Introduction"}, {"name": "Complaint"}]}
    desk.run("run-4", recordings={"when_deleted": "drop"}, **other)
    assert desk.statuses() == {"stays": "completed"}


# An archive without dates in its prefix

FLAT = {"recordings": {"prefix": "calls/", "call_time": {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}}}
NEXT_DAY = DAY + dt.timedelta(days=1)
WEEK = [DAY - dt.timedelta(days=number) for number in range(7)]


def flat_day(desk: Desk, day: dt.date, run_id: str) -> int:
    """Run a day of an archive; returns how many recordings it has."""
    night = desk.night(**FLAT)
    listed = night.begin(day, run_id)
    for uri in listed.chunks:
        night.transcribe(night.load(uri), math.inf)
        night.segment(night.load(uri))
    return night.end(night.load_day(listed.day)).listed


def test_an_archive_is_listed_once_for_all_its_days_and_once_for_all_of_them_again(desk: Desk) -> None:
    for day in WEEK:
        desk.s3.put(f"calls/{day:%Y%m%d}-a.mp3")
    assert [flat_day(desk, day, "run-1") for day in WEEK] == [1] * 7
    assert desk.s3.listed.count("calls/") == 1
    for day in WEEK:
        desk.s3.put(f"calls/{day:%Y%m%d}-late.mp3")
    assert [flat_day(desk, day, "run-2") for day in WEEK] == [2] * 7
    assert desk.s3.listed.count("calls/") == 2
    assert len(desk.speech.submitted) == 14


def test_a_run_that_could_not_begin_has_not_taken_its_day(desk: Desk) -> None:
    desk.s3.put(f"calls/{DAY:%Y%m%d}-a.mp3")
    desk.speech.refuse = lambda request: NO_KEY
    for _ in range(2):
        with pytest.raises(WrongKey):
            desk.night(**FLAT).begin(DAY, "run-1")
    desk.speech.refuse = lambda request: None
    assert flat_day(desk, DAY, "run-1") == 1
    assert desk.s3.listed.count("calls/") == 1


def test_an_archive_that_another_run_lists_leaves_the_day_free(desk: Desk, clock: Clock) -> None:
    flat_day(desk, DAY, "run-1")
    (turn,) = [key for key in desk.s3.keys("state/index/") if key.endswith("lease.json")]
    held = {**json.loads(desk.s3.bytes_of(turn)), "holder": "another", "released": False}
    desk.s3.state.put(turn.removeprefix("state/"), json.dumps(held).encode())
    with pytest.raises(DayHeld, match="lists the archive"):
        desk.night(**FLAT).begin(DAY, "run-2")
    assert desk.lease()["released"]
    clock.now += LIFE_S
    assert desk.night(**FLAT).begin(DAY, "run-2").chunks == []


@pytest.mark.parametrize("given", [NO_KEY, answer({}, 503)], ids=["key", "away"])
def test_a_run_that_would_fail_pays_nothing_and_lets_the_next_begin(desk: Desk, given: Answer) -> None:
    desk.put("a")
    desk.speech.refuse = lambda request: given
    with pytest.raises((WrongKey, ServiceUnavailable)):
        desk.night().begin(DAY, "run-1")
    assert desk.lease()["released"]
    assert desk.speech.submitted == []
    desk.speech.refuse = lambda request: None
    assert desk.run("run-2").statuses == {"completed": 1}


def test_models_that_are_gone_are_seen_before_anything_is_paid(desk: Desk) -> None:
    desk.put("a")
    desk.models.respond = lambda request: RETIRED
    with pytest.raises(NoModelLeft, match=r"segmentation\.models"):
        desk.night().begin(DAY, "run-1")
    assert desk.speech.submitted == []
    assert desk.lease()["released"]


def test_a_bucket_that_is_not_there_lets_the_next_begin(desk: Desk) -> None:
    with pytest.raises(ConfigurationError, match=r"recordings\.bucket"):
        desk.night(recordings={"bucket": "nowhere"}).begin(DAY, "run-1")
    assert desk.lease()["released"]


def test_a_day_that_another_run_works_on_is_not_begun(desk: Desk, clock: Clock) -> None:
    desk.put("a")
    desk.night().begin(DAY, "run-1")
    with pytest.raises(DayHeld, match="run-1-"):
        desk.night().begin(DAY, "run-2")
    clock.now += LIFE_S
    assert len(desk.night().begin(DAY, "run-2").chunks) == 1


def test_a_run_that_was_cleared_is_another_execution(desk: Desk) -> None:
    desk.put("a")
    desk.night().begin(DAY, "run-1")
    with pytest.raises(DayHeld):
        desk.night().begin(DAY, "run-1")


def test_a_run_whose_day_was_taken_over_does_not_go_on(desk: Desk, clock: Clock) -> None:
    desk.put("a")
    first, second = desk.night(), desk.night()
    listed = first.begin(DAY, "run-1")
    clock.now += LIFE_S
    second.begin(DAY, "run-2")
    for step in (
        lambda: first.transcribe(first.load(listed.chunks[0]), math.inf),
        lambda: first.segment(first.load(listed.chunks[0])),
        lambda: first.end(first.load_day(listed.day)),
    ):
        with pytest.raises(DayHeld, match="run-2-"):
            step()
    assert desk.speech.submitted == []
    assert desk.rows() == []


def test_a_run_that_gets_its_day_back_knows_what_the_other_has_done(desk: Desk, clock: Clock) -> None:
    desk.put("a", "b")
    night = desk.night()
    listed = night.begin(DAY, "run-1")
    clock.now += LIFE_S
    desk.run("run-2")
    for uri in listed.chunks:
        night.transcribe(night.load(uri), math.inf)
        night.segment(night.load(uri))
    assert night.end(night.load_day(listed.day)).statuses == {"completed": 2}
    assert (len(desk.speech.submitted), desk.questions) == (2, 2)


@pytest.mark.parametrize("event", ["submitted", "intended"])
def test_what_an_earlier_version_has_submitted_is_not_paid_for_again(desk: Desk, event: str) -> None:
    """Its events were objects of their own, with neither terms nor recordings."""
    (recording,) = desk.put("a")
    where = {"Bucket": recording.bucket, "Key": recording.key}
    url = desk.s3.client.generate_presigned_url("get_object", Params=where)
    desk.speech.take({"audio_url": url})
    old = {
        "event": event,
        "key": desk.key(recording),
        "transcript_id": "t-1",
        "audio_url": url.partition("?")[0],
        "at": dt.datetime.now(dt.UTC).isoformat(),
        "run_id": "old",
    }
    if event == "intended":
        del old["transcript_id"]
    desk.s3.state.put(f"ledger/dt={DAY}/{1:020d}-abcdef01.jsonl", json.dumps(old).encode() + b"\n")
    assert desk.run().statuses == {"completed": 1}
    assert desk.speech.submitted == []


# What stops


def stopping(desk: Desk, name: str, refusal: Answer) -> None:
    """The service answers so when one recording is submitted."""
    desk.speech.refuse = lambda request: (
        refusal if request.method == "POST" and f"/{name}.mp3" in request.json["audio_url"] else None
    )


def begun(desk: Desk, **settings: Any) -> tuple[DayRun, Listed, dict[str, Manifest]]:
    """A run that has begun, and its chunks by the name of their only recording."""
    night = desk.night(**settings)
    listed = night.begin(DAY, "run-1")
    chunks = [night.load(uri) for uri in listed.chunks]
    return night, listed, {chunk.recordings[0].key.rsplit("/", 1)[-1].removesuffix(".mp3"): chunk for chunk in chunks}


def test_what_concerns_the_account_stops_the_other_tasks_and_is_told_at_the_end(desk: Desk) -> None:
    desk.put("a", "b", "c")
    stopping(desk, "b", NO_MONEY)
    night, listed, chunks = begun(desk)
    night.transcribe(chunks["a"], math.inf)
    with pytest.raises(NoBalance):
        night.transcribe(chunks["b"], math.inf)
    for step in (lambda: night.transcribe(chunks["c"], math.inf), lambda: night.segment(chunks["a"])):
        with pytest.raises(RunStopped, match=r"chunk-0001 stopped the run: .*balance is negative"):
            step()
    published = night.end(night.load_day(listed.day))
    assert "balance is negative" in (published.stopped or "")
    assert desk.statuses() == {"a": "unfinished", "b": "balance", "c": "unfinished"}
    assert (published.unfinished, len(desk.speech.jobs)) == (3, 1)
    assert desk.lease()["released"]


def test_the_run_after_a_stopped_one_does_the_rest(desk: Desk) -> None:
    desk.put("a", "b")
    stopping(desk, "b", NO_MONEY)
    night, listed, chunks = begun(desk)
    night.transcribe(chunks["a"], math.inf)
    with pytest.raises(NoBalance):
        night.transcribe(chunks["b"], math.inf)
    night.end(night.load_day(listed.day))
    desk.speech.refuse = lambda request: None
    published = desk.run("run-2")
    assert (published.statuses, published.stopped) == ({"completed": 2}, None)
    assert len(desk.speech.jobs) == 2


def test_a_task_that_stopped_its_run_may_be_started_again(desk: Desk) -> None:
    desk.put("a", "b")
    stopping(desk, "b", NO_MONEY)
    night, listed, chunks = begun(desk)
    with pytest.raises(NoBalance):
        night.transcribe(chunks["b"], math.inf)
    desk.speech.refuse = lambda request: None
    for name in ("b", "a"):
        night.transcribe(chunks[name], math.inf)
        night.segment(chunks[name])
    published = night.end(night.load_day(listed.day))
    assert (published.statuses, published.stopped) == ({"completed": 2}, None)


@pytest.mark.parametrize(
    ("refusal", "error", "failure_class"),
    [
        (answer({"error": "LLM Gateway needs a paid plan"}, 403), WrongKey, "auth"),
        (answer({"message": "Payment Required"}, 402), NoBalance, "balance"),
        (RETIRED, NoModelLeft, "model_retired"),
        (answer({}, 503), ServiceUnavailable, "service_unavailable"),
        (answer({}, 429), ThrottledOut, "throttled_out"),
    ],
)
def test_calls_that_could_not_be_divided_say_why(
    desk: Desk, refusal: Answer, error: type[Exception], failure_class: str
) -> None:
    desk.put("a")
    desk.respond = lambda request: refusal
    night, listed, chunks = begun(desk)
    night.transcribe(chunks["a"], math.inf)
    with pytest.raises(error):
        night.segment(chunks["a"])
    published = night.end(night.load_day(listed.day))
    (row,) = desk.rows()
    assert (row["status"], row["failure_class"], row["transcript_id"]) == ("failed", failure_class, "t-1")
    assert (published.unfinished, bool(published.stopped)) == (1, failure_class in ("auth", "balance", "model_retired"))
    desk.respond = lambda request: GOOD
    assert desk.run("run-2").statuses == {"completed": 1}
    assert len(desk.speech.submitted) == 1


def test_a_service_that_is_away_stops_no_other_task(desk: Desk) -> None:
    desk.put("a", "b")
    stopping(desk, "a", answer({}, 503))
    night, listed, chunks = begun(desk)
    with pytest.raises(ServiceUnavailable):
        night.transcribe(chunks["a"], math.inf)
    night.transcribe(chunks["b"], math.inf)
    night.segment(chunks["b"])
    published = night.end(night.load_day(listed.day))
    assert desk.statuses() == {"a": "service_unavailable", "b": "completed"}
    assert (published.stopped, published.unfinished) == (None, 1)


def test_a_store_that_is_away_is_what_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.put("a")
    night, _, chunks = begun(desk)

    def away(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://s3")

    desk.s3.client.meta.events.register("before-call.s3.PutObject", away)
    with pytest.raises(ServiceUnavailable, match="S3 can't be reached"):
        night.transcribe(chunks["a"], math.inf)
    assert desk.speech.submitted == []


# Replay


@pytest.fixture
def broken_day(desk: Desk) -> Desk:
    """A day with calls that failed in several ways, with one that is done and a new one."""
    broken, far, unheard, _done = desk.put("broken", "far", "unheard", "done")
    desk.failed(broken, BadAudio("No audio."))
    desk.failed(far, DownloadRefused("No way."))
    desk.s3.knows(
        Transcribed(key=desk.key(unheard), recording=unheard.key, status="no_speech", transcript_id="t", audio_s=3.0)
    )
    return desk


def chosen(desk: Desk, replay: str | None) -> list[str]:
    night = desk.night()
    listed = night.begin(DAY, "run-1", replay)
    keys = [one.key for uri in listed.chunks for one in night.load(uri).recordings]
    return [key.rsplit("/", 1)[-1].removesuffix(".mp3") for key in keys]


@pytest.mark.parametrize(
    ("replay", "names"),
    [
        (None, ["done", "far"]),
        ("all", ["broken", "far"]),
        ("bad_audio", ["broken"]),
        ("download_refused", ["far"]),
        ("download_refused, bad_audio", ["broken", "far"]),
        ("answer_cut", []),
    ],
)
def test_a_replay_does_what_failed_and_nothing_else(broken_day: Desk, replay: str | None, names: list[str]) -> None:
    assert chosen(broken_day, replay) == names


def test_a_replay_of_a_class_that_is_none_says_which_there_are(broken_day: Desk) -> None:
    with pytest.raises(ConfigurationError, match=r"no failure class bad_audoi; expected.*bad_audio"):
        broken_day.night().begin(DAY, "run-1", "bad_audoi, bad_audio")
    assert broken_day.lease()["released"]


def test_a_replay_submits_again_what_failed_for_good_and_leaves_the_rest_as_it_was(broken_day: Desk) -> None:
    desk = broken_day
    desk.run("run-1")
    assert desk.statuses() == {"broken": "bad_audio", "far": "completed", "unheard": "no_speech", "done": "completed"}
    before = len(desk.speech.submitted)
    desk.run("run-2", replay="all")
    assert desk.statuses()["broken"] == "completed"
    assert len(desk.speech.submitted) - before == 1


def test_a_replay_divides_again_what_was_divided_badly(desk: Desk) -> None:
    desk.put("a", "b")
    desk.respond = lambda request: answer({"error": {"message": "model context limit exceeded"}}, 400)
    desk.run()
    assert set(desk.statuses().values()) == {"request_refused"}
    desk.respond = lambda request: GOOD
    desk.run("run-2", replay="request_refused")
    assert set(desk.statuses().values()) == {"completed"}
    assert len(desk.speech.submitted) == 2


def test_a_replay_does_again_what_a_stopped_run_did_not(desk: Desk) -> None:
    desk.put("a")
    stopping(desk, "a", NO_MONEY)
    night, listed, chunks = begun(desk)
    with pytest.raises(NoBalance):
        night.transcribe(chunks["a"], math.inf)
    night.end(night.load_day(listed.day))
    assert desk.statuses() == {"a": "balance"}
    desk.speech.refuse = lambda request: None
    desk.run("run-2", replay="balance")
    assert desk.statuses() == {"a": "completed"}


# The budget


def price(desk: Desk, seconds: float) -> float:
    """What a call of so many seconds is estimated at."""
    pipeline = desk.s3.pipeline()
    return costs.estimated_speech_usd(pipeline, seconds) + costs.estimated_llm_usd(pipeline, seconds)


def capped(usd: float) -> dict[str, Any]:
    return {"budget": {"usd_per_run": usd}, "recordings": {"suffixes": [".mp3", ".wav"]}}


def test_as_many_calls_are_done_as_the_budget_holds(desk: Desk) -> None:
    desk.put("a", "b", "c", "d", body=wav(60))
    published = desk.run(**capped(2.5 * price(desk, 60)))
    assert desk.statuses() == {"a": "completed", "b": "completed", "c": "budget", "d": "budget"}
    assert len(desk.speech.submitted) == 2
    assert (published.unfinished, published.failures) == (0, {"budget": 2})
    assert published.run_speech_usd + published.run_llm_usd < 2.5 * price(desk, 60)


def test_what_is_over_the_budget_is_in_the_ledger_and_in_parts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.day_run.REST_PART", 2)
    recordings = desk.put(*"abcdef", body=wav(60))
    night = desk.night(**capped(1.5 * price(desk, 60)))
    listed = night.begin(DAY, "run-1")
    day = night.load_day(listed.day)
    assert (day.listed, day.chunks, day.rest) == (6, 1, 3)
    assert [one.key for one in night.load(listed.chunks[0]).recordings] == [recordings[0].key]
    stopped = [event for event in desk.s3.known().all() if isinstance(event, Stopped)]
    assert [event.recording for event in stopped] == [one.key for one in recordings[1:]]
    assert {event.failure_class for event in stopped} == {"budget"}


def test_a_budget_that_holds_nothing_makes_no_chunk(desk: Desk) -> None:
    desk.put("a", body=wav(60))
    night = desk.night(**capped(0.000001))
    listed = night.begin(DAY, "run-1")
    assert (listed.chunks, night.load_day(listed.day).rest) == ([], 1)


def test_a_later_run_with_a_larger_budget_does_the_rest(desk: Desk) -> None:
    desk.put("a", "b", "c", body=wav(60))
    desk.run(**capped(1.5 * price(desk, 60)))
    assert len(desk.speech.submitted) == 1
    desk.run("run-2", **capped(2.5 * price(desk, 60)))
    assert set(desk.statuses().values()) == {"completed"}
    assert len(desk.speech.submitted) == 3


def test_a_later_run_without_a_budget_does_the_rest(desk: Desk) -> None:
    desk.put("a", "b", body=wav(60))
    desk.run(**capped(0.5 * price(desk, 60)))
    assert set(desk.statuses().values()) == {"budget"}
    desk.run("run-2")
    assert set(desk.statuses().values()) == {"completed"}


def test_a_replay_does_what_was_over_the_budget(desk: Desk) -> None:
    desk.put("a", body=wav(60))
    desk.run(**capped(0.5 * price(desk, 60)))
    desk.run("run-2", replay="budget")
    assert desk.statuses() == {"a": "completed"}


def test_the_budget_is_shared_out_to_the_chunks_by_what_they_may_cost(desk: Desk) -> None:
    desk.put("a", body=wav(60))
    desk.put("b", body=wav(120))
    _, _, chunks = begun(desk, **capped(5))
    short, long = chunks["a"].budget_usd or 0, chunks["b"].budget_usd or 0
    assert short == pytest.approx(2 * price(desk, 60))
    assert long == pytest.approx(2 * price(desk, 120))


def test_what_is_left_of_the_budget_is_for_other_days(desk: Desk) -> None:
    desk.put("a", "b", body=wav(60))
    night = desk.night(**capped(5))
    listed = night.begin(DAY, "run-1")
    assert listed.budget_usd == pytest.approx(5 - 4 * price(desk, 60))
    for number in range(2):
        desk.s3.put(f"calls/{NEXT_DAY}/{number}.mp3", wav(60))
    late = night.begin(NEXT_DAY, "run-1", budget_usd=1.5 * price(desk, 60))
    assert late.budget_usd == pytest.approx(0)
    (chunk,) = [night.load(uri) for uri in late.chunks]
    assert chunk.budget_usd == pytest.approx(1.5 * price(desk, 60))


def test_a_day_that_is_over_its_budget_shares_out_no_more_than_that(desk: Desk) -> None:
    desk.put("a", "b", body=wav(60))
    _, _, chunks = begun(desk, **capped(1.5 * price(desk, 60)))
    assert sum(chunk.budget_usd or 0 for chunk in chunks.values()) == pytest.approx(1.5 * price(desk, 60))


def test_a_transcript_that_is_there_already_takes_nothing_of_the_budget_but_its_question(desk: Desk) -> None:
    desk.put("a", body=wav(3600))
    desk.run()
    desk.models.requests.clear()
    other = {"phases": [{"name": "Introduction"}, {"name": "Complaint"}]}
    desk.run("run-2", **capped(price(desk, 6)), **other)
    assert desk.statuses() == {"a": "completed"}
    assert desk.questions == 1


def test_a_job_that_is_over_the_budget_is_still_known(desk: Desk) -> None:
    (recording,) = desk.put("a", body=wav(60))
    night, listed, chunks = begun(desk)
    desk.speech.status = "processing"
    night.transcribe(chunks["a"], 0)
    night.end(night.load_day(listed.day))
    desk.speech.status = "completed"
    desk.run("run-2", **capped(0.000001))
    assert isinstance(desk.event(recording), Submitted)
    desk.run("run-3")
    assert desk.statuses() == {"a": "completed"}
    assert len(desk.speech.submitted) == 1


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"transcription": {"speech_models": ["tomorrow"]}}, r"prices\.speech_usd_per_hour"),
        ({"segmentation": {"models": ["tomorrow"]}}, r"prices\.llm_usd_per_million"),
    ],
)
def test_a_budget_without_a_price_is_refused_before_anything_is_paid(
    desk: Desk, settings: dict[str, Any], setting: str
) -> None:
    desk.put("a", body=wav(60))
    with pytest.raises(ConfigurationError, match=rf"price of tomorrow is unknown.*{setting}"):
        desk.night(**capped(1), **settings).begin(DAY, "run-1")
    assert desk.speech.submitted == []
    assert desk.lease()["released"]


# Deleting at the provider

DELETING = {"privacy": {"delete_after": True}}


def deletions(desk: Desk) -> list[str]:
    requests = [request for request in desk.speech.web.requests if request.method == "DELETE"]
    return sorted(request.path.rsplit("/", 1)[-1] for request in requests)


def test_transcripts_are_deleted_at_the_provider_once_they_are_kept(desk: Desk) -> None:
    desk.put("a", "b")
    desk.run(**DELETING)
    assert (deletions(desk), desk.speech.jobs) == (["t-1", "t-2"], {})
    deleted = [event for event in desk.s3.known().all() if isinstance(event, Deleted)]
    assert sorted((event.transcript_id, event.recording) for event in deleted) == [
        ("t-1", f"calls/{DAY}/a.mp3"),
        ("t-2", f"calls/{DAY}/b.mp3"),
    ]


def test_what_was_deleted_is_not_deleted_nor_paid_for_again(desk: Desk) -> None:
    desk.put("a", "b")
    desk.run(**DELETING)
    desk.run("run-2", **DELETING)
    desk.run("run-3", phases=[{"name": "Introduction"}, {"name": "Complaint"}], **DELETING)
    assert deletions(desk) == ["t-1", "t-2"]
    assert len(desk.speech.submitted) == 2
    assert set(desk.statuses().values()) == {"completed"}


def test_nothing_is_deleted_where_nobody_asked_for_it(desk: Desk) -> None:
    desk.put("a")
    desk.run()
    assert deletions(desk) == []


def test_what_an_earlier_run_has_left_at_the_provider_is_deleted_too(desk: Desk) -> None:
    desk.put("a")
    desk.run()
    desk.run("run-2", **DELETING)
    assert deletions(desk) == ["t-1"]


def test_failed_jobs_are_deleted_too(desk: Desk) -> None:
    desk.put("a")
    desk.speech.endings["t-1"] = {"status": "error", "error": "Server error, developers have been alerted."}
    desk.run(**DELETING)
    assert deletions(desk) == ["t-1", "t-2"]


def test_what_is_still_under_way_is_not_deleted(desk: Desk) -> None:
    desk.put("a", "b")
    night, listed, chunks = begun(desk, **DELETING)
    night.transcribe(chunks["a"], math.inf)
    desk.speech.status = "processing"
    night.transcribe(chunks["b"], 0)
    night.end(night.load_day(listed.day))
    assert deletions(desk) == ["t-1"]


def test_what_could_not_be_fetched_yet_is_not_deleted(desk: Desk) -> None:
    desk.put("a")
    moved = answer({"error": "This transcript is being moved"}, 403)
    desk.speech.refuse = lambda request: moved if request.path.endswith("/vtt") else None
    desk.run(**DELETING)
    assert deletions(desk) == []
    desk.speech.refuse = lambda request: None
    desk.run("run-2", **DELETING)
    assert (deletions(desk), len(desk.speech.submitted)) == (["t-1"], 1)


def test_a_transcript_that_is_not_there_any_more_counts_as_deleted(desk: Desk) -> None:
    desk.put("a")
    night, listed, chunks = begun(desk, **DELETING)
    night.transcribe(chunks["a"], math.inf)
    desk.speech.jobs.clear()
    night.end(night.load_day(listed.day))
    desk.run("run-2", **DELETING)
    assert deletions(desk) == ["t-1"]


@pytest.mark.parametrize(
    "refusal", [answer({"error": "Deletion is not allowed now"}, 400), answer({}, 503)], ids=["refused", "away"]
)
def test_what_could_not_be_deleted_is_told_and_deleted_next_time(desk: Desk, refusal: Answer) -> None:
    desk.put("a", "b")
    desk.speech.refuse = lambda request: refusal if request.method == "DELETE" and "t-1" in request.path else None
    night, listed, chunks = begun(desk, **DELETING)
    for chunk in chunks.values():
        night.transcribe(chunk, math.inf)
        night.segment(chunk)
    with pytest.raises(ServiceUnavailable, match=r"1 transcripts could not be deleted.*privacy\.delete_after"):
        night.end(night.load_day(listed.day))
    assert desk.statuses() == {"a": "completed", "b": "completed"}, "the day is published all the same"
    desk.speech.web.requests.clear()
    desk.speech.refuse = lambda request: None
    night.end(night.load_day(listed.day))
    assert deletions(desk) == ["t-1"]


# The end, where tasks have left no rows


def day_of(recordings: list[Recording], desk: Desk, fencing_token: int) -> DayList:
    """A day with one chunk, whose task has left nothing but its log."""
    begun_at = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    Manifest("chunk-0000", DAY, "run-1", "run-1", fencing_token, begun_at, recordings).save(desk.s3.state)
    return DayList(DAY, "run-1", "run-1", fencing_token, begun_at, listed=len(recordings), chunks=1, rest=0)


def silent(desk: Desk, recording: Recording) -> Transcribed:
    return Transcribed(
        key=desk.key(recording),
        recording=recording.key,
        status="no_speech",
        transcript_id="t",
        audio_s=1.0,
        speech_usd=0.25,
    )


def test_the_end_makes_the_rows_of_a_task_that_was_killed_from_its_log(desk: Desk) -> None:
    a, b = desk.put("a", "b")
    ledger = desk.s3.ledger("run-1", "chunk-0000")
    ledger.write([silent(desk, a)])
    desk.s3.knows(silent(desk, b))  # by another run, whose events are none of this term
    published = desk.night().end(day_of([a, b], desk, ledger.lease.fencing_token))
    assert desk.statuses() == {"a": "no_speech", "b": "unfinished"}
    assert (published.run_speech_usd, published.unfinished) == (0.25, 1)
    assert desk.lease()["released"]


def test_the_end_knows_what_another_run_has_done_since_the_list(desk: Desk) -> None:
    a, b = desk.put("a", "b")
    ledger = desk.s3.ledger("run-1", "chunk-0000")
    ledger.write([silent(desk, a)])
    ledger.lease.release()
    desk.s3.lease("run-2").take()
    desk.s3.knows(silent(desk, b), fencing_token=2, run_id="run-2")
    desk.s3.clock.now += LIFE_S + 1
    desk.night().end(day_of([a, b], desk, ledger.lease.fencing_token))
    assert desk.statuses() == {"a": "no_speech", "b": "no_speech"}
