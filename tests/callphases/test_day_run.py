"""A run of a day, step by step from listing to publishing, alone and after other runs."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import wave
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from callphases.day_run import DayRun
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
from callphases.listing import listing
from callphases.listing.listing import chunk_counts
from callphases.recordings import Recording
from callphases.replay import Replay
from callphases.segmentation.gateway import Gateway
from callphases.state.events import Deleted, Event, Intended, Stopped, Submitted, Transcribed, failed
from callphases.state.keys import transcript_key
from callphases.state.lease import LIFE_S
from callphases.state.manifests import DayList, Manifest
from callphases.tables.publishing import Published
from callphases.tables.reading import read_rows
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.pacing import LONGEST_PAUSE_S
from callphases.work_list import Listed
from doubles import (
    DAY,
    KEY,
    NOON,
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

SAMPLES = Path(__file__).resolve().parents[2] / "include" / "samples"
pytestmark = pytest.mark.integration

GOOD = phases_answer(("Introduction", 1), ("Complaint", 2))
NO_QUESTION = answer({"error": {"code": 400, "message": "messages: at least one message is required"}}, 400)
NO_MONEY = answer({"error": "Your current account balance is negative."}, 400)
NO_KEY = answer({"error": "Authentication error, API token missing/invalid"}, 401)
RETIRED = answer({"error": {"code": 400, "message": "model x is not supported"}}, 400)


class Runner:
    """Puts the recordings of a day in a bucket, and runs the day."""

    def __init__(self, s3: Store, speech: Speech, models: Web) -> None:
        self.s3, self.speech, self.models = s3, speech, models
        self.respond: Callable[[Request], Answer] = lambda request: GOOD
        models.respond = lambda request: self.respond(request) if request.json["messages"] else NO_QUESTION

    def put(self, *names: str, body: bytes = b"RIFF") -> list[Recording]:
        return [self.s3.put(f"calls/{DAY}/{name}.mp3", body) for name in names]

    def day_run(self, **settings: Any) -> DayRun:
        pipeline = self.s3.pipeline(**merged({"limits": {"ramp": False}}, settings))
        return DayRun(pipeline, self.s3.client, AssemblyAI(KEY, self.speech.web.url), Gateway(KEY, self.models.url))

    def run(self, run_id: str = "run-1", replay: str | None = None, **settings: Any) -> Published:
        """Run the day, one task after the other."""
        day_run = self.day_run(**settings)
        listed = day_run.begin(DAY, run_id, Replay.of(replay))
        for uri in listed.chunks:
            assert day_run.transcribe(day_run.load(uri), math.inf) is None
            day_run.segment(day_run.load(uri))
        return day_run.end(day_run.load_day(listed.day))

    def rows(self, table: str = "calls") -> list[dict[str, Any]]:
        return read_rows(self.s3.tables, table, DAY)

    def statuses(self) -> dict[str, str]:
        """The status of each recording in the table, or its failure class."""
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


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What chunks do is shown with a few recordings: up to twenty get a chunk each."""
    monkeypatch.setattr(listing, "LEAST_CALLS", 1)

    def counts(sizes: Sequence[int], *, is_archive: bool = False) -> list[int]:
        return [1] * len(sizes) if len(sizes) <= 20 else chunk_counts(sizes, is_archive=is_archive)

    monkeypatch.setattr("callphases.work_list.chunk_counts", counts)


@pytest.fixture
def runner(s3: Store, speech: Speech, models: Web) -> Runner:
    return Runner(s3, speech, models)


def wav(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(1)
        writer.setframerate(8000)
        writer.writeframes(b"\x80" * round(seconds * 8000))
    return file.getvalue()


# A whole run


def test_run_writes_rows_for_its_recordings(runner: Runner) -> None:
    runner.put("a", "b")
    published = runner.run()
    assert runner.statuses() == {"a": "completed", "b": "completed"}
    assert len(runner.rows("phases")) == 4
    assert (published.listed, published.unfinished, published.stopped) == (2, 0, None)
    assert published.run_speech_usd == published.speech_usd == pytest.approx(2 * 6 / 3600 * 0.23)
    assert published.run_llm_usd == published.llm_usd > 0
    assert runner.lease()["released"]


def test_second_run_pays_nothing_and_writes_the_same_rows(runner: Runner) -> None:
    runner.put("a", "b")
    runner.run()
    before = runner.rows(), runner.rows("phases")
    published = runner.run("run-2")
    assert (len(runner.speech.submitted), runner.questions) == (2, 2)
    assert (runner.rows(), runner.rows("phases")) == before
    assert (published.run_speech_usd, published.run_llm_usd) == (0, 0)


def test_changed_prompt_asks_the_model_again_and_transcribes_nothing(runner: Runner) -> None:
    runner.put("a", "b")
    runner.run()
    runner.run("run-2", phases=[{"name": "Introduction"}, {"name": "Complaint"}])
    assert (len(runner.speech.submitted), runner.questions) == (2, 4)


def test_hundred_calls_take_at_most_500_requests_to_the_store(runner: Runner) -> None:
    runner.put(*[f"{number:03}" for number in range(100)])
    runner.s3.asked.clear()
    asked: Counter[str] = Counter()
    runner.s3.client.meta.events.register("before-send.s3", lambda request, **_: asked.update([request.method]))
    runner.run()
    assert Counter(runner.statuses().values()) == {"completed": 100}
    assert (len(runner.speech.jobs), runner.questions) == (100, 100)
    assert asked.total() <= 5 * 100
    assert asked.total() >= 300, "of which are transcripts, captions, and one look at each recording"


@pytest.mark.parametrize("count", [1, 21])
def test_repeated_step_does_nothing(runner: Runner, count: int) -> None:
    runner.put(*[f"{number:02}" for number in range(count)])
    day_run = runner.day_run()
    listed = day_run.begin(DAY, "run-1")
    for uri in listed.chunks * 2:
        day_run.transcribe(day_run.load(uri), math.inf)
        day_run.segment(day_run.load(uri))
    day_run.end(day_run.load_day(listed.day))
    day_run.end(day_run.load_day(listed.day))
    assert (len(runner.speech.submitted), runner.questions) == (count, count)


def test_transcribe_returns_the_jobs_still_running_after_its_patience(runner: Runner, clock: Clock) -> None:
    runner.put("a", "b")
    runner.speech.status = "processing"
    day_run = runner.day_run()
    chunks = [day_run.load(uri) for uri in day_run.begin(DAY, "run-1").chunks]
    begun = clock.now
    waiting = day_run.transcribe(chunks[0], 30)
    assert waiting is not None
    assert (waiting.jobs, waiting.unsent) == (["t-1"], 0)
    assert 20 <= clock.now - begun <= 30
    assert max(clock.slept) <= 1.2 * LONGEST_PAUSE_S
    runner.speech.status = "completed"
    assert day_run.transcribe(chunks[0], 30) is None
    assert len(runner.speech.submitted) == 1


def test_lease_is_renewed_while_jobs_run(runner: Runner, clock: Clock) -> None:
    runner.put("a")
    runner.speech.status = "processing"

    def try_to_begin(seconds: float) -> None:
        with pytest.raises(DayHeld):
            runner.s3.lease("other").take()

    clock.asleep = try_to_begin
    day_run = runner.day_run()
    listed = day_run.begin(DAY, "run-1")
    day_run.transcribe(day_run.load(listed.chunks[0]), 5 * LIFE_S)
    assert sum(clock.slept) > 4 * LIFE_S


def test_job_with_a_server_error_is_submitted_again_in_the_same_step(runner: Runner) -> None:
    (recording,) = runner.put("a")
    runner.speech.endings["t-1"] = {"status": "error", "error": "Server error, developers have been alerted."}
    assert runner.run().statuses == {"completed": 1}
    event = runner.event(recording)
    assert isinstance(event, Transcribed)
    assert event.transcript_id == "t-2"


# Beginning


def test_day_without_recordings_sends_no_request_to_a_service(runner: Runner) -> None:
    assert runner.day_run().begin(DAY, "run-1").chunks == []
    assert runner.speech.web.requests + runner.models.requests == []


def test_finished_day_is_published_again_without_requests_to_a_service(runner: Runner) -> None:
    runner.put("a")
    runner.run()
    for key in runner.s3.keys("tables/"):
        runner.s3.client.delete_object(Bucket=runner.s3.warehouse, Key=key)
    runner.speech.web.requests.clear()
    runner.models.requests.clear()
    runner.run("run-2")
    assert runner.speech.web.requests + runner.models.requests == []
    assert runner.statuses() == {"a": "completed"}


def test_chunk_manifests_are_complete(runner: Runner) -> None:
    recordings = runner.put(*[f"{number:02}" for number in range(45)])
    runner.s3.knows(Intended(key=runner.key(recordings[41]), recording=recordings[41].key, audio_url="u"))
    day_run = runner.day_run()
    listed = day_run.begin(DAY, "run/1")
    chunks = [day_run.load(uri) for uri in listed.chunks]
    day = day_run.load_day(listed.day)
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


def test_chunks_of_long_calls_have_fewer_recordings(runner: Runner) -> None:
    runner.put(*[f"a{number:02}" for number in range(30)], body=b"RIFF" * 1000)
    runner.put(*[f"b{number:02}" for number in range(30)])
    day_run = runner.day_run()
    chunks = [day_run.load(uri) for uri in day_run.begin(DAY, "run-1").chunks]
    assert [len(chunk.recordings) for chunk in chunks] == [10, 10, 10, 30]


def test_rows_of_recordings_in_no_chunk_are_written_in_parts(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.work_list.REST_PART", 2)
    for one in runner.put("a", "b", "c"):
        runner.failed(one, BadAudio("No audio."))
    runner.put("d")
    day_run = runner.day_run()
    listed = day_run.begin(DAY, "run-1")
    day = day_run.load_day(listed.day)
    assert (day.listed, day.chunks, day.rest) == (4, 1, 2)
    parts = [key.rpartition("/rows/")[2] for key in runner.s3.keys(f"state/runs/dt={DAY}/") if "/rows/" in key]
    assert [part.partition(".")[0] for part in parts] == ["rest-0000", "rest-0001"]


def test_lease_is_renewed_during_a_listing_of_several_pages(runner: Runner, clock: Clock) -> None:
    runner.put(*[f"{number:02}" for number in range(30)])

    def page(**_: object) -> None:
        clock.now += LIFE_S - 1
        with pytest.raises(DayHeld):
            runner.s3.lease("other").take()

    events = runner.s3.client.meta.events
    events.register("provide-client-params.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=10))
    events.register("after-call.s3.ListObjectsV2", lambda context, **_: page() if "calls/" in context["key"] else None)
    assert len(runner.day_run().begin(DAY, "run-1").chunks) == 3
    assert runner.s3.listed.count(f"calls/{DAY}/") == 3


def test_transcripts_of_a_deleted_recording_are_deleted_with_its_rows(runner: Runner) -> None:
    gone, stays = runner.put("gone", "stays")
    runner.run()
    ids = {row["recording_uri"]: row["transcript_id"] for row in runner.rows()}
    runner.s3.client.delete_object(Bucket=runner.s3.recordings, Key=gone.key)
    runner.run("run-2")
    assert len(runner.rows()) == 2
    runner.run("run-3", recordings={"when_deleted": "drop"})
    assert [row["recording_uri"] for row in runner.rows()] == [stays.uri]
    key = runner.key(gone)
    objects = {name: runner.s3.bytes_of(name) for name in runner.s3.keys("state/transcripts/")}
    assert objects, "those of the other call"
    assert not any(key in name or key.encode() in body for name, body in objects.items())
    assert deletions(runner) == [ids[gone.uri]]
    other = {"phases": [{"name": "Introduction"}, {"name": "Complaint"}]}
    runner.run("run-4", recordings={"when_deleted": "drop"}, **other)
    assert runner.statuses() == {"stays": "completed"}


# An archive without dates in its prefix

FLAT = {"recordings": {"prefix": "calls/", "call_time": {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}}}
NEXT_DAY = DAY + dt.timedelta(days=1)
WEEK = [DAY - dt.timedelta(days=number) for number in range(7)]


def flat_day(runner: Runner, day: dt.date, run_id: str, settings: dict[str, Any] = FLAT) -> int:
    """Run a day of an archive; returns how many recordings it has."""
    day_run = runner.day_run(**settings)
    listed = day_run.begin(day, run_id)
    for uri in listed.chunks:
        day_run.transcribe(day_run.load(uri), math.inf)
        day_run.segment(day_run.load(uri))
    return day_run.end(day_run.load_day(listed.day)).listed


def test_archive_is_listed_once_for_each_pass_over_its_days(runner: Runner) -> None:
    for day in WEEK:
        runner.s3.put(f"calls/{day:%Y%m%d}-a.mp3")
    assert [flat_day(runner, day, "run-1") for day in WEEK] == [1] * 7
    assert runner.s3.listed.count("calls/") == 1
    for day in WEEK:
        runner.s3.put(f"calls/{day:%Y%m%d}-late.mp3")
    assert [flat_day(runner, day, "run-2") for day in WEEK] == [2] * 7
    assert runner.s3.listed.count("calls/") == 2
    assert len(runner.speech.submitted) == 14


@pytest.mark.parametrize("call_time", ["last_modified", FLAT["recordings"]["call_time"]], ids=["written", "key"])
def test_recordings_below_the_prefix_of_a_month_are_paid_for_once(runner: Runner, call_time: object) -> None:
    settings = {"recordings": {"prefix": "calls/{date:%Y/%m}/", "call_time": call_time}}
    for day in WEEK[:3]:
        key = f"calls/2026/11/{day:%Y%m%d}.mp3"
        runner.s3.put(key)
        runner.s3.written[key] = dt.datetime.combine(day, dt.time(12), dt.UTC)
    assert [flat_day(runner, day, "run-1", settings) for day in reversed(WEEK[:4])] == [0, 1, 1, 1]
    assert len(runner.speech.submitted) == 3
    assert runner.s3.listed.count("calls/2026/11/") == 1
    assert [len(read_rows(runner.s3.tables, "calls", day)) for day in WEEK[:4]] == [1, 1, 1, 0]


def test_recording_copied_onto_itself_keeps_its_day_and_is_not_paid_for_again(runner: Runner) -> None:
    settings = {"recordings": {"prefix": "calls/", "call_time": "last_modified"}}
    recording = runner.s3.put("calls/a.mp3")
    runner.s3.written["calls/a.mp3"] = dt.datetime.combine(WEEK[1], dt.time(12), dt.UTC)
    assert [flat_day(runner, day, "run-1", settings) for day in reversed(WEEK[:2])] == [1, 0]
    source = {"Bucket": runner.s3.recordings, "Key": recording.key}
    runner.s3.client.copy_object(**source, CopySource=source, MetadataDirective="REPLACE")
    runner.s3.written["calls/a.mp3"] = dt.datetime.combine(WEEK[0], dt.time(12), dt.UTC)
    assert [flat_day(runner, day, "run-2", settings) for day in reversed(WEEK[:2])] == [1, 0]
    assert len(runner.speech.submitted) == 1


def test_failed_begin_leaves_its_day_in_the_archives_listing(runner: Runner) -> None:
    runner.s3.put(f"calls/{DAY:%Y%m%d}-a.mp3")
    runner.speech.refuse = lambda request: NO_KEY
    for _ in range(2):
        with pytest.raises(WrongKey):
            runner.day_run(**FLAT).begin(DAY, "run-1")
    runner.speech.refuse = lambda request: None
    assert flat_day(runner, DAY, "run-1") == 1
    assert runner.s3.listed.count("calls/") == 1


def test_day_is_released_while_another_run_lists_the_archive(runner: Runner, clock: Clock) -> None:
    flat_day(runner, DAY, "run-1")
    (turn,) = [key for key in runner.s3.keys("state/index/") if key.endswith("lease.json")]
    held = {**json.loads(runner.s3.bytes_of(turn)), "holder": "another", "released": False}
    runner.s3.state.put(turn.removeprefix("state/"), json.dumps(held).encode())
    with pytest.raises(DayHeld, match="lists the archive"):
        runner.day_run(**FLAT).begin(DAY, "run-2")
    assert runner.lease()["released"]
    clock.now += LIFE_S
    assert runner.day_run(**FLAT).begin(DAY, "run-2").chunks == []


@pytest.mark.parametrize("refusal", [NO_KEY, answer({}, 503)], ids=["key", "away"])
def test_failed_begin_pays_nothing_and_releases_the_day(runner: Runner, refusal: Answer) -> None:
    runner.put("a")
    runner.speech.refuse = lambda request: refusal
    with pytest.raises((WrongKey, ServiceUnavailable)):
        runner.day_run().begin(DAY, "run-1")
    assert runner.lease()["released"]
    assert runner.speech.submitted == []
    runner.speech.refuse = lambda request: None
    assert runner.run("run-2").statuses == {"completed": 1}


def test_retired_models_are_reported_before_anything_is_paid(runner: Runner) -> None:
    runner.put("a")
    runner.models.respond = lambda request: RETIRED
    with pytest.raises(NoModelLeft, match=r"segmentation\.models"):
        runner.day_run().begin(DAY, "run-1")
    assert runner.speech.submitted == []
    assert runner.lease()["released"]


def test_missing_bucket_releases_the_day(runner: Runner) -> None:
    with pytest.raises(ConfigurationError, match=r"recordings\.bucket"):
        runner.day_run(recordings={"bucket": "nowhere"}).begin(DAY, "run-1")
    assert runner.lease()["released"]


def test_begin_fails_while_another_run_holds_the_day(runner: Runner, clock: Clock) -> None:
    runner.put("a")
    runner.day_run().begin(DAY, "run-1")
    with pytest.raises(DayHeld, match="run-1-"):
        runner.day_run().begin(DAY, "run-2")
    clock.now += LIFE_S
    assert len(runner.day_run().begin(DAY, "run-2").chunks) == 1


def test_cleared_run_does_not_share_the_lease_of_its_first_execution(runner: Runner) -> None:
    runner.put("a")
    runner.day_run().begin(DAY, "run-1")
    with pytest.raises(DayHeld):
        runner.day_run().begin(DAY, "run-1")


def test_run_that_lost_its_day_stops_at_every_step(runner: Runner, clock: Clock) -> None:
    runner.put("a")
    first, second = runner.day_run(), runner.day_run()
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
    assert runner.speech.submitted == []
    assert runner.rows() == []


def test_run_that_regains_its_day_pays_nothing_that_the_other_has_paid(runner: Runner, clock: Clock) -> None:
    runner.put("a", "b")
    day_run = runner.day_run()
    listed = day_run.begin(DAY, "run-1")
    clock.now += LIFE_S
    runner.run("run-2")
    for uri in listed.chunks:
        day_run.transcribe(day_run.load(uri), math.inf)
        day_run.segment(day_run.load(uri))
    assert day_run.end(day_run.load_day(listed.day)).statuses == {"completed": 2}
    assert (len(runner.speech.submitted), runner.questions) == (2, 2)


@pytest.mark.parametrize("event", ["submitted", "intended"])
def test_submission_of_an_earlier_version_is_not_paid_for_again(runner: Runner, event: str) -> None:
    """That version wrote each event to an object of its own, without fencing token and recording."""
    (recording,) = runner.put("a")
    where = {"Bucket": recording.bucket, "Key": recording.key}
    url = runner.s3.client.generate_presigned_url("get_object", Params=where)
    runner.speech.take({"audio_url": url})
    old = {
        "event": event,
        "key": runner.key(recording),
        "transcript_id": "t-1",
        "audio_url": url.partition("?")[0],
        "at": dt.datetime.now(dt.UTC).isoformat(),
        "run_id": "old",
    }
    if event == "intended":
        del old["transcript_id"]
    runner.s3.state.put(f"ledger/dt={DAY}/{1:020d}-abcdef01.jsonl", json.dumps(old).encode() + b"\n")
    assert runner.run().statuses == {"completed": 1}
    assert runner.speech.submitted == []


# Runs that stop


def stopping(runner: Runner, name: str, refusal: Answer) -> None:
    """The service answers ``refusal`` when the recording ``name`` is submitted."""
    runner.speech.refuse = lambda request: (
        refusal if request.method == "POST" and f"/{name}.mp3" in request.json["audio_url"] else None
    )


def begun(runner: Runner, **settings: Any) -> tuple[DayRun, Listed, dict[str, Manifest]]:
    """Begin a run; returns its chunks by the name of their only recording."""
    day_run = runner.day_run(**settings)
    listed = day_run.begin(DAY, "run-1")
    chunks = [day_run.load(uri) for uri in listed.chunks]
    return day_run, listed, {chunk.recordings[0].key.rsplit("/", 1)[-1].removesuffix(".mp3"): chunk for chunk in chunks}


def test_account_error_stops_the_other_tasks_and_is_reported_at_the_end(runner: Runner) -> None:
    runner.put("a", "b", "c")
    stopping(runner, "b", NO_MONEY)
    day_run, listed, chunks = begun(runner)
    day_run.transcribe(chunks["a"], math.inf)
    with pytest.raises(NoBalance):
        day_run.transcribe(chunks["b"], math.inf)
    for step in (lambda: day_run.transcribe(chunks["c"], math.inf), lambda: day_run.segment(chunks["a"])):
        with pytest.raises(RunStopped, match=r"chunk-0001 stopped the run: .*balance is negative"):
            step()
    published = day_run.end(day_run.load_day(listed.day))
    assert "balance is negative" in (published.stopped or "")
    assert runner.statuses() == {"a": "unfinished", "b": "balance", "c": "unfinished"}
    assert (published.unfinished, len(runner.speech.jobs)) == (3, 1)
    assert runner.lease()["released"]


def test_next_run_completes_a_stopped_one(runner: Runner) -> None:
    runner.put("a", "b")
    stopping(runner, "b", NO_MONEY)
    day_run, listed, chunks = begun(runner)
    day_run.transcribe(chunks["a"], math.inf)
    with pytest.raises(NoBalance):
        day_run.transcribe(chunks["b"], math.inf)
    day_run.end(day_run.load_day(listed.day))
    runner.speech.refuse = lambda request: None
    published = runner.run("run-2")
    assert (published.statuses, published.stopped) == ({"completed": 2}, None)
    assert len(runner.speech.jobs) == 2


def test_task_that_stopped_its_run_can_be_started_again(runner: Runner) -> None:
    runner.put("a", "b")
    stopping(runner, "b", NO_MONEY)
    day_run, listed, chunks = begun(runner)
    with pytest.raises(NoBalance):
        day_run.transcribe(chunks["b"], math.inf)
    runner.speech.refuse = lambda request: None
    for name in ("b", "a"):
        day_run.transcribe(chunks[name], math.inf)
        day_run.segment(chunks[name])
    published = day_run.end(day_run.load_day(listed.day))
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
def test_row_says_why_a_call_could_not_be_segmented(
    runner: Runner, refusal: Answer, error: type[Exception], failure_class: str
) -> None:
    runner.put("a")
    runner.respond = lambda request: refusal
    day_run, listed, chunks = begun(runner)
    day_run.transcribe(chunks["a"], math.inf)
    with pytest.raises(error):
        day_run.segment(chunks["a"])
    published = day_run.end(day_run.load_day(listed.day))
    (row,) = runner.rows()
    assert (row["status"], row["failure_class"], row["transcript_id"]) == ("failed", failure_class, "t-1")
    assert (published.unfinished, bool(published.stopped)) == (1, failure_class in ("auth", "balance", "model_retired"))
    runner.respond = lambda request: GOOD
    assert runner.run("run-2").statuses == {"completed": 1}
    assert len(runner.speech.submitted) == 1


def test_unavailable_service_stops_no_other_task(runner: Runner) -> None:
    runner.put("a", "b")
    stopping(runner, "a", answer({}, 503))
    day_run, listed, chunks = begun(runner)
    with pytest.raises(ServiceUnavailable):
        day_run.transcribe(chunks["a"], math.inf)
    day_run.transcribe(chunks["b"], math.inf)
    day_run.segment(chunks["b"])
    published = day_run.end(day_run.load_day(listed.day))
    assert runner.statuses() == {"a": "service_unavailable", "b": "completed"}
    assert (published.stopped, published.unfinished) == (None, 1)


def test_unavailable_store_is_reported(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.put("a")
    day_run, _, chunks = begun(runner)

    def away(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://s3")

    runner.s3.client.meta.events.register("before-call.s3.PutObject", away)
    with pytest.raises(ServiceUnavailable, match="S3 can't be reached"):
        day_run.transcribe(chunks["a"], math.inf)
    assert runner.speech.submitted == []


# Replay


@pytest.fixture
def broken_day(runner: Runner) -> Runner:
    """A day with two calls that failed, one without speech, and a new one."""
    broken, far, unheard, _done = runner.put("broken", "far", "unheard", "done")
    runner.failed(broken, BadAudio("No audio."))
    runner.failed(far, DownloadRefused("No way."))
    runner.s3.knows(
        Transcribed(key=runner.key(unheard), recording=unheard.key, status="no_speech", transcript_id="t", audio_s=3.0)
    )
    return runner


def chosen(runner: Runner, replay: str | None) -> list[str]:
    day_run = runner.day_run()
    listed = day_run.begin(DAY, "run-1", Replay.of(replay))
    keys = [one.key for uri in listed.chunks for one in day_run.load(uri).recordings]
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
def test_replay_does_the_calls_of_the_given_failure_classes_only(
    broken_day: Runner, replay: str | None, names: list[str]
) -> None:
    assert chosen(broken_day, replay) == names


@pytest.mark.parametrize(
    ("calls", "classes", "names"),
    [
        (["broken.mp3"], None, ["broken"]),
        (["broken.mp3", "far.mp3"], None, ["broken", "far"]),
        (["broken.mp3", "far.mp3"], "download_refused", ["far"]),
        ([f"s3://recordings/calls/{DAY}/far.mp3"], "all", ["far"]),
        ([f"{DAY}/broken.mp3", "unheard.mp3", "done.mp3"], None, ["broken"]),
        (["unheard.mp3"], None, []),
    ],
)
def test_replay_of_calls_does_those_that_failed_and_says_so_of_others(
    broken_day: Runner, calls: list[str], classes: str | None, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    day_run = broken_day.day_run()
    calls = [one.replace("s3://recordings/", f"s3://{broken_day.s3.recordings}/") for one in calls]
    listed = day_run.begin(DAY, "run-1", Replay.of(classes, calls))
    keys = [one.key for uri in listed.chunks for one in day_run.load(uri).recordings]
    assert [key.rsplit("/", 1)[-1].removesuffix(".mp3") for key in keys] == names
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("calls: ")]
    assert len(said) == len(calls) - len(names)
    for name, state in (("unheard", "no_speech"), ("done", "unfinished")):
        if f"{name}.mp3" in calls:
            assert any(f"{name}.mp3 of {DAY} is not tried again. It is {state}, and" in one for one in said)


def test_replay_of_a_call_by_its_id_pays_for_it_once_and_touches_no_other(runner: Runner) -> None:
    recordings = runner.put("a", "b", "c")
    runner.respond = lambda request: answer({"error": {"message": "model context limit exceeded"}}, 400)
    runner.run()
    before, asked = {row["call_id"]: row for row in runner.rows()}, runner.questions
    runner.respond = lambda request: GOOD
    wanted = Replay.of(None, recordings[1].call_id)
    for run_id in ("run-2", "run-3"):
        day_run = runner.day_run()
        listed = day_run.begin(DAY, run_id, wanted)
        for uri in listed.chunks:
            assert day_run.transcribe(day_run.load(uri), math.inf) is None
            day_run.segment(day_run.load(uri))
        assert day_run.end(day_run.load_day(listed.day)).statuses == {"completed": 1, "failed": 2}
    assert (len(runner.speech.submitted), runner.questions - asked) == (3, 1)
    after = {row["call_id"]: row for row in runner.rows()}
    assert [one for one in after if after[one] != before[one]] == [recordings[1].call_id]


@pytest.mark.parametrize("calls", [["0123456789abcdef"], ["broken.mp3", "0123456789abcdef"]])
def test_replay_of_a_call_that_the_day_does_not_have_pays_nothing(broken_day: Runner, calls: list[str]) -> None:
    with pytest.raises(
        ConfigurationError, match=f"calls: {DAY} has no recording 0123456789abcdef. Expected the call_id"
    ):
        broken_day.day_run().begin(DAY, "run-1", Replay.of(None, calls))
    assert broken_day.lease()["released"]
    assert broken_day.speech.submitted == []


def test_replay_retries_permanent_failures_and_leaves_other_calls_alone(broken_day: Runner) -> None:
    runner = broken_day
    runner.run("run-1")
    assert runner.statuses() == {"broken": "bad_audio", "far": "completed", "unheard": "no_speech", "done": "completed"}
    before = len(runner.speech.submitted)
    runner.run("run-2", replay="all")
    assert runner.statuses()["broken"] == "completed"
    assert len(runner.speech.submitted) - before == 1


def test_replay_repeats_a_failed_segmentation_without_transcribing_again(runner: Runner) -> None:
    runner.put("a", "b")
    runner.respond = lambda request: answer({"error": {"message": "model context limit exceeded"}}, 400)
    runner.run()
    assert set(runner.statuses().values()) == {"request_refused"}
    runner.respond = lambda request: GOOD
    runner.run("run-2", replay="request_refused")
    assert set(runner.statuses().values()) == {"completed"}
    assert len(runner.speech.submitted) == 2


def test_replay_retries_what_a_stopped_run_has_not_done(runner: Runner) -> None:
    runner.put("a")
    stopping(runner, "a", NO_MONEY)
    day_run, listed, chunks = begun(runner)
    with pytest.raises(NoBalance):
        day_run.transcribe(chunks["a"], math.inf)
    day_run.end(day_run.load_day(listed.day))
    assert runner.statuses() == {"a": "balance"}
    runner.speech.refuse = lambda request: None
    runner.run("run-2", replay="balance")
    assert runner.statuses() == {"a": "completed"}


# The budget


def price(runner: Runner, seconds: float) -> float:
    """The estimated price of a call, in USD."""
    pipeline = runner.s3.pipeline()
    return costs.estimated_speech_usd(pipeline, seconds) + costs.estimated_llm_usd(pipeline, seconds)


def capped(usd: float) -> dict[str, Any]:
    return {"budget": {"usd_per_run": usd}, "recordings": {"suffixes": [".mp3", ".wav"]}}


def test_run_does_as_many_calls_as_its_budget_pays_for(runner: Runner) -> None:
    runner.put("a", "b", "c", "d", body=wav(60))
    published = runner.run(**capped(2.5 * price(runner, 60)))
    assert runner.statuses() == {"a": "completed", "b": "completed", "c": "budget", "d": "budget"}
    assert len(runner.speech.submitted) == 2
    assert (published.unfinished, published.failures) == (0, {"budget": 2})
    assert published.run_speech_usd + published.run_llm_usd < 2.5 * price(runner, 60)


def test_recordings_over_budget_are_in_the_ledger_and_in_parts(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.work_list.REST_PART", 2)
    recordings = runner.put(*"abcdef", body=wav(60))
    day_run = runner.day_run(**capped(1.5 * price(runner, 60)))
    listed = day_run.begin(DAY, "run-1")
    day = day_run.load_day(listed.day)
    assert (day.listed, day.chunks, day.rest) == (6, 1, 3)
    assert [one.key for one in day_run.load(listed.chunks[0]).recordings] == [recordings[0].key]
    stopped = [event for event in runner.s3.known().all() if isinstance(event, Stopped)]
    assert [event.recording for event in stopped] == [one.key for one in recordings[1:]]
    assert {event.failure_class for event in stopped} == {"budget"}


def test_budget_that_pays_for_no_call_makes_no_chunk(runner: Runner) -> None:
    runner.put("a", body=wav(60))
    day_run = runner.day_run(**capped(0.000001))
    listed = day_run.begin(DAY, "run-1")
    assert (listed.chunks, day_run.load_day(listed.day).rest) == ([], 1)


def test_later_run_with_a_larger_budget_completes_the_day(runner: Runner) -> None:
    runner.put("a", "b", "c", body=wav(60))
    runner.run(**capped(1.5 * price(runner, 60)))
    assert len(runner.speech.submitted) == 1
    runner.run("run-2", **capped(2.5 * price(runner, 60)))
    assert set(runner.statuses().values()) == {"completed"}
    assert len(runner.speech.submitted) == 3


def test_later_run_without_a_budget_completes_the_day(runner: Runner) -> None:
    runner.put("a", "b", body=wav(60))
    runner.run(**capped(0.5 * price(runner, 60)))
    assert set(runner.statuses().values()) == {"budget"}
    runner.run("run-2")
    assert set(runner.statuses().values()) == {"completed"}


def test_replay_does_the_calls_that_were_over_budget(runner: Runner) -> None:
    runner.put("a", body=wav(60))
    runner.run(**capped(0.5 * price(runner, 60)))
    runner.run("run-2", replay="budget")
    assert runner.statuses() == {"a": "completed"}


def test_budget_is_divided_among_chunks_by_their_estimated_cost(runner: Runner) -> None:
    runner.put("a", body=wav(60))
    runner.put("b", body=wav(120))
    _, _, chunks = begun(runner, **capped(5))
    short, long = chunks["a"].budget_usd or 0, chunks["b"].budget_usd or 0
    assert short == pytest.approx(2 * price(runner, 60))
    assert long == pytest.approx(2 * price(runner, 120))


def test_rest_of_the_budget_is_for_other_days(runner: Runner) -> None:
    runner.put("a", "b", body=wav(60))
    day_run = runner.day_run(**capped(5))
    listed = day_run.begin(DAY, "run-1")
    assert listed.budget_usd == pytest.approx(5 - 4 * price(runner, 60))
    for number in range(2):
        runner.s3.put(f"calls/{NEXT_DAY}/{number}.mp3", wav(60))
    late = day_run.begin(NEXT_DAY, "run-1", budget_usd=1.5 * price(runner, 60))
    assert late.budget_usd == pytest.approx(0)
    (chunk,) = [day_run.load(uri) for uri in late.chunks]
    assert chunk.budget_usd == pytest.approx(1.5 * price(runner, 60))


def test_chunks_of_a_day_over_budget_get_no_more_than_the_budget(runner: Runner) -> None:
    runner.put("a", "b", body=wav(60))
    _, _, chunks = begun(runner, **capped(1.5 * price(runner, 60)))
    assert sum(chunk.budget_usd or 0 for chunk in chunks.values()) == pytest.approx(1.5 * price(runner, 60))


def stating(part: float) -> tuple[bytes, float]:
    """A recording whose header states this part of its length, and its length in seconds."""
    sample = next(SAMPLES.glob("audio/**/*.flac"))
    body = bytearray(sample.read_bytes())
    packed = int.from_bytes(body[18:26], "big")  # rate, channels, bits, and in the last 36 bits the samples
    samples = packed & (1 << 36) - 1
    body[18:26] = (packed - samples + round(samples * part)).to_bytes(8, "big")
    return bytes(body), samples / 8000


@pytest.mark.parametrize(
    ("calls", "part"), [*((6, part) for part in (0.001, 0.3, 0.5, 0.8, 1.0)), (24, 0.001), (24, 0.5)]
)
def test_budget_holds_whatever_headers_state(runner: Runner, part: float, calls: int) -> None:
    body, audio_s = stating(part)
    runner.put(*(f"{number:02}" for number in range(calls)), body=body)
    runner.speech.ending = {"audio_duration": audio_s}
    cap_usd = (calls / 3 + 0.1) * price(runner, audio_s)
    published = runner.run(**capped(cap_usd))
    assert 0 < len(runner.speech.submitted) * costs.estimated_speech_usd(runner.s3.pipeline(), audio_s) <= cap_usd
    assert published.run_speech_usd + published.run_llm_usd <= cap_usd
    assert set(published.failures) <= {"budget"}
    assert published.statuses["completed"] == len(runner.speech.submitted), "what is transcribed has its answer paid"
    runner.run("run-2")
    assert set(runner.statuses().values()) == {"completed"}
    assert len(runner.speech.submitted) == calls


def test_existing_transcript_takes_only_its_question_from_the_budget(runner: Runner) -> None:
    runner.put("a", body=wav(3600))
    runner.run()
    runner.models.requests.clear()
    other = {"phases": [{"name": "Introduction"}, {"name": "Complaint"}]}
    runner.run("run-2", **capped(price(runner, 6)), **other)
    assert runner.statuses() == {"a": "completed"}
    assert runner.questions == 1


def test_job_of_a_recording_over_budget_stays_in_the_ledger(runner: Runner) -> None:
    (recording,) = runner.put("a", body=wav(60))
    day_run, listed, chunks = begun(runner)
    runner.speech.status = "processing"
    day_run.transcribe(chunks["a"], 0)
    day_run.end(day_run.load_day(listed.day))
    runner.speech.status = "completed"
    runner.run("run-2", **capped(0.000001))
    assert isinstance(runner.event(recording), Submitted)
    runner.run("run-3")
    assert runner.statuses() == {"a": "completed"}
    assert len(runner.speech.submitted) == 1


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"transcription": {"speech_models": ["tomorrow"]}}, "prices.speech_usd_per_hour"),
        ({"segmentation": {"models": ["tomorrow"]}}, "prices.llm_usd_per_million"),
    ],
)
def test_model_without_a_price_does_not_stop_a_run_with_a_budget(
    runner: Runner, settings: dict[str, Any], setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    runner.speech.ending = {"speech_model_used": runner.s3.pipeline(**settings).speech_models[0]}
    runner.put("a", "b", body=wav(60))
    published = runner.run(**capped(1), **settings)
    assert runner.statuses() == {"a": "completed", "b": "completed"}
    (warning,) = [record.getMessage() for record in caplog.records if "is not known" in record.getMessage()]
    assert "tomorrow" in warning
    assert setting in warning
    usd = {name: [row[name] for row in runner.rows()] for name in ("speech_usd", "llm_usd")}
    unknown = usd["speech_usd" if "speech" in setting else "llm_usd"]
    assert unknown == [None, None], "the tables hold known costs only"
    total, known = published.run_speech_usd + published.run_llm_usd, published.speech_usd + published.llm_usd
    assert published.run_estimated_usd == pytest.approx(total - known)
    assert published.run_estimated_usd > 0


def test_estimates_of_models_without_a_price_count_against_the_budget(runner: Runner) -> None:
    settings: dict[str, Any] = {
        "transcription": {"speech_models": ["tomorrow"]},
        "prices": {"speech_usd_per_hour": {"own": 3600.0}},
        "limits": {"max_failed_ratio": 1.0},
    }
    runner.speech.ending = {"speech_model_used": "tomorrow"}
    runner.put("a", "b", "c", body=wav(6))
    published = runner.run(**capped(13), **settings)
    assert runner.statuses() == {"a": "completed", "b": "completed", "c": "budget"}
    assert 12 <= published.run_estimated_usd <= 13


def test_without_a_budget_what_has_no_price_is_not_counted(runner: Runner) -> None:
    runner.speech.ending = {"speech_model_used": "tomorrow"}
    runner.put("a")
    published = runner.run(transcription={"speech_models": ["tomorrow"]})
    assert (published.run_speech_usd, published.run_estimated_usd) == (0, 0)


def test_run_warns_once_of_models_that_are_not_current(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    runner.put(*(f"call-{number}" for number in range(4)))
    runner.run(transcription={"speech_models": ["universal-3-5-pro", "universal-3-pro", "universal-2"]})
    (warning,) = [record.getMessage() for record in caplog.records if "deprecated" in record.getMessage()]
    assert "universal-3-5-pro is deprecated and replaced by assemblyai-stt-3-7" in warning
    assert "universal-3-pro is retired" in warning
    assert "transcription.speech_models" in warning


# Deleting at the provider

DELETING = {"privacy": {"delete_after": True}}


def deletions(runner: Runner) -> list[str]:
    requests = [request for request in runner.speech.web.requests if request.method == "DELETE"]
    return sorted(request.path.rsplit("/", 1)[-1] for request in requests)


def test_saved_transcripts_are_deleted_at_the_provider(runner: Runner) -> None:
    runner.put("a", "b")
    runner.run(**DELETING)
    assert (deletions(runner), runner.speech.jobs) == (["t-1", "t-2"], {})
    deleted = [event for event in runner.s3.known().all() if isinstance(event, Deleted)]
    assert sorted((event.transcript_id, event.recording) for event in deleted) == [
        ("t-1", f"calls/{DAY}/a.mp3"),
        ("t-2", f"calls/{DAY}/b.mp3"),
    ]


def test_deleted_transcripts_are_not_deleted_or_paid_for_again(runner: Runner) -> None:
    runner.put("a", "b")
    runner.run(**DELETING)
    runner.run("run-2", **DELETING)
    runner.run("run-3", phases=[{"name": "Introduction"}, {"name": "Complaint"}], **DELETING)
    assert deletions(runner) == ["t-1", "t-2"]
    assert len(runner.speech.submitted) == 2
    assert set(runner.statuses().values()) == {"completed"}


def test_nothing_is_deleted_by_default(runner: Runner) -> None:
    runner.put("a")
    runner.run()
    assert deletions(runner) == []


def test_transcripts_of_an_earlier_run_are_deleted_too(runner: Runner) -> None:
    runner.put("a")
    runner.run()
    runner.run("run-2", **DELETING)
    assert deletions(runner) == ["t-1"]


def test_failed_jobs_are_deleted_too(runner: Runner) -> None:
    runner.put("a")
    runner.speech.endings["t-1"] = {"status": "error", "error": "Server error, developers have been alerted."}
    runner.run(**DELETING)
    assert deletions(runner) == ["t-1", "t-2"]


def test_running_jobs_are_not_deleted(runner: Runner) -> None:
    runner.put("a", "b")
    day_run, listed, chunks = begun(runner, **DELETING)
    day_run.transcribe(chunks["a"], math.inf)
    runner.speech.status = "processing"
    day_run.transcribe(chunks["b"], 0)
    day_run.end(day_run.load_day(listed.day))
    assert deletions(runner) == ["t-1"]


def test_transcripts_that_could_not_be_fetched_are_not_deleted(runner: Runner) -> None:
    runner.put("a")
    moved = answer({"error": "This transcript is being moved"}, 403)
    runner.speech.refuse = lambda request: moved if request.path.endswith("/vtt") else None
    runner.run(**DELETING)
    assert deletions(runner) == []
    runner.speech.refuse = lambda request: None
    runner.run("run-2", **DELETING)
    assert (deletions(runner), len(runner.speech.submitted)) == (["t-1"], 1)


def test_transcript_unknown_to_the_provider_counts_as_deleted(runner: Runner) -> None:
    runner.put("a")
    day_run, listed, chunks = begun(runner, **DELETING)
    day_run.transcribe(chunks["a"], math.inf)
    runner.speech.jobs.clear()
    day_run.end(day_run.load_day(listed.day))
    runner.run("run-2", **DELETING)
    assert deletions(runner) == ["t-1"]


@pytest.mark.parametrize(
    "refusal", [answer({"error": "Deletion is not allowed now"}, 400), answer({}, 503)], ids=["refused", "away"]
)
def test_failed_deletion_is_reported_and_repeated_by_the_next_try(runner: Runner, refusal: Answer) -> None:
    runner.put("a", "b")
    runner.speech.refuse = lambda request: refusal if request.method == "DELETE" and "t-1" in request.path else None
    day_run, listed, chunks = begun(runner, **DELETING)
    for chunk in chunks.values():
        day_run.transcribe(chunk, math.inf)
        day_run.segment(chunk)
    with pytest.raises(ServiceUnavailable, match=r"1 transcript could not be deleted.*privacy\.delete_after"):
        day_run.end(day_run.load_day(listed.day))
    assert runner.statuses() == {"a": "completed", "b": "completed"}, "the day is published all the same"
    runner.speech.web.requests.clear()
    runner.speech.refuse = lambda request: None
    day_run.end(day_run.load_day(listed.day))
    assert deletions(runner) == ["t-1"]


# The end of a run whose tasks have written no rows


def day_of(recordings: list[Recording], runner: Runner, fencing_token: int) -> DayList:
    """A day with one chunk, whose task has written nothing but its ledger."""
    begun_at = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    Manifest("chunk-0000", DAY, "run-1", "run-1", fencing_token, begun_at, recordings).save(runner.s3.state)
    return DayList(DAY, "run-1", "run-1", fencing_token, begun_at, listed=len(recordings), chunks=1, rest=0)


def silent(runner: Runner, recording: Recording) -> Transcribed:
    return Transcribed(
        key=runner.key(recording),
        recording=recording.key,
        status="no_speech",
        transcript_id="t",
        audio_s=1.0,
        speech_usd=0.25,
    )


def test_end_writes_the_rows_of_a_killed_task_from_its_ledger(runner: Runner) -> None:
    a, b = runner.put("a", "b")
    ledger = runner.s3.ledger("run-1", "chunk-0000")
    ledger.write([silent(runner, a)])
    runner.s3.knows(silent(runner, b))  # by another run, whose events are none of this term
    published = runner.day_run().end(day_of([a, b], runner, ledger.lease.fencing_token))
    assert runner.statuses() == {"a": "no_speech", "b": "unfinished"}
    assert (published.run_speech_usd, published.unfinished) == (0.25, 1)
    assert runner.lease()["released"]


def test_end_includes_what_another_run_has_done_since_the_listing(runner: Runner) -> None:
    a, b = runner.put("a", "b")
    ledger = runner.s3.ledger("run-1", "chunk-0000")
    ledger.write([silent(runner, a)])
    ledger.lease.release()
    runner.s3.lease("run-2").take()
    runner.s3.knows(silent(runner, b), fencing_token=2, run_id="run-2")
    runner.s3.clock.now += LIFE_S + 1
    runner.day_run().end(day_of([a, b], runner, ledger.lease.fencing_token))
    assert runner.statuses() == {"a": "no_speech", "b": "no_speech"}


# Recordings that can't be read


@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_recordings_that_cannot_be_read_fail_alone_and_are_not_sent(runner: Runner, send: str) -> None:
    names = [f"{number:02}" for number in range(20)]
    runner.put(*names, "denied", "gone")
    runner.s3.client.put_object(
        Bucket=runner.s3.recordings, Key=f"calls/{DAY}/frozen.mp3", Body=b"RIFF", StorageClass="GLACIER"
    )

    def refuse(params: dict[str, Any], **_: object) -> None:
        for word, status, code in (("denied", 403, "AccessDenied"), ("gone", 404, "NoSuchKey")):
            if word in params["url_path"]:
                head = {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0}
                raise ClientError({"Error": {"Code": code, "Message": "No."}, "ResponseMetadata": head}, "GetObject")

    runner.s3.client.meta.events.register("before-call.s3.GetObject", refuse)
    published = runner.run(recordings={"send": send})
    assert published.failures == {"archived": 1, "access_denied": 1, "recording_gone": 1}
    assert (published.statuses["completed"], published.unfinished) == (20, 0)
    assert len(runner.speech.submitted) == 20
    [frozen] = [row for row in runner.rows() if row["recording_uri"].endswith("frozen.mp3")]
    assert "GLACIER" in frozen["failure_message"]
    assert "Restore it" in frozen["failure_message"]


def test_restored_recording_is_done_by_the_next_run(runner: Runner) -> None:
    key = f"calls/{DAY}/a.mp3"
    runner.s3.client.put_object(Bucket=runner.s3.recordings, Key=key, Body=b"RIFF", StorageClass="DEEP_ARCHIVE")
    runner.run()
    assert runner.statuses() == {"a": "archived"}

    def restored(parsed: dict[str, Any], **_: object) -> None:
        for item in parsed["Contents"]:
            item["RestoreStatus"] = {"IsRestoreInProgress": False, "RestoreExpiryDate": NOON}

    runner.s3.client.meta.events.register("after-call.s3.ListObjectsV2", restored)
    runner.s3.client.restore_object(
        Bucket=runner.s3.recordings, Key=key, RestoreRequest={"Days": 5, "GlacierJobParameters": {"Tier": "Standard"}}
    )
    runner.run("run-2")
    assert runner.statuses() == {"a": "completed"}
