"""The ledger as a state machine: runs of one day, interleaved at every request and killed anywhere, never pay twice.

The runs execute the product's own code, each in a thread that stops before every request to the store or a service
until the machine lets it continue. The store, the services and the clock are models: a conditional write is atomic; a
submission is answered, refused, or its answer is lost; time passes as the machine says, also while a run is stopped.

Set ``LEDGER_EXAMPLES`` to run more examples than CI does (``make ledger``). Hypothesis prints the steps of a failure
as a test that can be copied here; ``--hypothesis-seed`` repeats a whole run.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from callphases.day_run import DayRun
from callphases.errors import AnswerLost, CallphasesError, DayHeld, ServiceUnavailable
from callphases.segmentation.gateway import Answer
from callphases.state import layout, lease, ledger, workers
from callphases.state.events import Answered, Event, Transcribed, parse
from callphases.state.ledger import read_ledger_day
from callphases.state.storage import StoredObject
from callphases.transcription.assemblyai import Job, without_query
from callphases.transcription.delivery import TRIES_AT_PROVIDER
from doubles import DAY, NOON, OneThread, pipeline

STARTS_OF_A_TASK = 3
MODELS = [["one"], ["two", "one"], ["three"]]
"""Runs, and processes of one run, that follow each other ask for other speech models."""


class Killed(BaseException):
    """As by kill -9: nothing of the run happens any more, clean-up included."""


@dataclass
class Question:
    """A question as it was sent: by which process, and what became of it."""

    sender: Run
    calls: set[str]
    answered: bool = False


@dataclass
class World:
    """What outlives a run: the store, the provider and the clock."""

    recordings: int
    now: float = 0.0
    objects: dict[str, tuple[bytes, str, float]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    lost_answers: list[bool] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    writes: int = 0
    run: threading.local = field(default_factory=threading.local)

    @property
    def paid(self) -> Counter[str]:
        """By URL: the jobs that are billed, which is all that did not fail."""
        return Counter(job["url"] for job in self.jobs.values() if job["status"] != "error")

    def turn(self, at: str) -> None:
        """Stop before a request until the machine lets this run go on."""
        self.run.it.turn(at)

    def answers(self, task: str, known: list[Event]) -> set[str]:
        """The calls whose answers a task is bound to know: by its chunk's list, and by what was written for it."""
        events = list(known)
        for name, (body, _, _) in self.objects.items():
            if name.startswith(f"s3://warehouse/state/{task}"):
                events += parse(body)
        keys = {event.recording for event in events if isinstance(event, Answered)}
        return {f"http://s3/{key}" for key in keys}


@dataclass
class MemoryPrefix:
    """``ObjectPrefix``, on a dict."""

    world: World
    uri: str

    def put(self, name: str, body: bytes, content_type: str = "") -> str:
        self.world.turn("put")
        self._write(name, body)
        return self.uri + name

    def put_if_match(self, name: str, body: bytes, etag: str | None, content_type: str = "") -> str | None:
        self.world.turn("put_if_match")
        there = self.world.objects.get(self.uri + name)
        if (there[1] if there else None) != etag:
            return None
        return self._write(name, body)

    def get(self, name: str) -> bytes | None:
        stored = self.look(name)
        return stored.body if stored else None

    def look(self, name: str) -> StoredObject | None:
        self.world.turn("look")
        there = self.world.objects.get(self.uri + name)
        if there is None:
            return None
        self.world.run.it.looked(name, there[0], there[2])
        return StoredObject(there[0], there[1], self.world.now - there[2])

    def names(self, below: str) -> Iterator[str]:
        self.world.turn("names")
        names = sorted(name.removeprefix(self.uri) for name in self.world.objects)
        return iter([name for name in names if name.startswith(below)])

    def _write(self, name: str, body: bytes) -> str:
        self.world.writes += 1
        self.world.run.it.wrote(name)
        self.world.objects[self.uri + name] = (body, f"e{self.world.writes}", self.world.now)
        return f"e{self.world.writes}"


@dataclass
class Provider:
    """``AssemblyAI``: what becomes of a submission is drawn by the machine."""

    world: World

    def check(self) -> None:
        self.world.turn("check")

    def submit(self, audio_url: str, options: dict[str, Any], confirm: Callable[[], None]) -> Job:
        self.world.turn("submit")
        confirm()
        # No stop here: that a request reaches the service soon after it was sent is what leases rest on.
        fate = self.world.fates.pop() if self.world.fates else "taken"
        if fate == "refused":
            raise AnswerLost("500")
        one = f"t-{len(self.world.jobs) + 1}"
        ends = "error" if fate == "fails" else "completed"
        created = dt.datetime.now(dt.UTC)
        self.world.jobs[one] = {"url": without_query(audio_url), "status": ends, "created": created}
        if fate == "lost":
            raise AnswerLost("no answer")
        return Job(one, "queued")

    def jobs(self, ids: list[str]) -> dict[str, Job]:
        self.world.turn("jobs")
        return {one: self._job(one) for one in ids}

    def jobs_since(self, moment: dt.datetime) -> Iterator[Job]:
        self.world.turn("jobs_since")
        return iter([self._job(one) for one, job in reversed(self.world.jobs.items()) if job["created"] >= moment])

    def transcript(self, one: str) -> dict[str, Any]:
        self.world.turn("transcript")
        text = self.world.jobs[one]["url"]
        return {"id": one, "text": text, "words": [{"text": text, "start": 0, "end": 900}], "audio_duration": 6}

    def _job(self, one: str) -> Job:
        job = self.world.jobs[one]
        error = "Server error, developers have been alerted." if job["status"] == "error" else None
        return Job(one, job["status"], error, job["url"], job["created"])


@dataclass
class Models:
    """``Gateway``: answers each question, or loses the answer, after the run has stopped for as long as the machine
    says."""

    world: World

    def limited_by(self, limiter: object) -> Models:
        return self

    def check(self, models: list[str]) -> None:
        self.world.turn("check")

    def chat(self, model: str, messages: list[dict[str, str]], may_send: Callable[[], None], **_: Any) -> Answer:
        self.world.turn("ask")
        may_send()
        calls = json.loads(messages[1]["content"])["calls"]
        question = Question(self.world.run.it, {call["cues"][0]["text"] for call in calls})
        self.world.run.it.asks(question)
        self.world.questions.append(question)
        self.world.turn("answer")
        if self.world.lost_answers and self.world.lost_answers.pop():
            raise ServiceUnavailable("no answer")
        question.answered = True
        parts = [{"call": one["call"], "phases": [{"name": "Other", "start_cue": 1, "summary": ""}]} for one in calls]
        return Answer(json.dumps({"calls": parts}), False, False, model, 1, 1)


@dataclass
class Bucket:
    """The little of boto3's client that listing and presigning need."""

    world: World

    def get_paginator(self, _: str) -> Bucket:
        return self

    def paginate(self, **_: str) -> list[dict[str, Any]]:
        self.world.turn("paginate")
        keys = [f"calls/{DAY}/{number}.wav" for number in range(self.world.recordings)]
        return [{"Contents": [{"Key": key, "ETag": '"e"', "Size": 9, "LastModified": NOON} for key in keys]}]

    def get_object(self, **_: str) -> dict[str, Any]:
        self.world.turn("get_object")
        return {"Body": io.BytesIO(b"R")}

    def generate_presigned_url(self, _: str, Params: dict[str, str], ExpiresIn: int) -> str:  # noqa: N803
        return f"http://s3/{Params['Key']}?X-Amz-Signature=s"


class Run:
    """A process of a run, as Airflow would have it: it lists, then does each chunk, a failed task tried again.

    With ``same`` it is another process for tasks of that run, which its first process knows nothing of.
    """

    def __init__(self, world: World, number: int, same: Run | None = None) -> None:
        self.world = world
        self.listed = same.listed if same else None
        self.killed = self.ended = self.is_asking = False
        self.listed_as = ""
        self.known_answers: set[str] = set()
        self.lease_at = self.ledger_at = float("-inf")
        self.at = ""
        self.wakes_at = 0.0
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        limits = {"ramp": False}
        clock: Any = SimpleNamespace(monotonic=lambda: world.now, sleep=self.sleep)
        services: Any = (Bucket(world), Provider(world), Models(world))
        ours = pipeline(limits=limits, transcription={"speech_models": MODELS[number % len(MODELS)]})
        self.day_run = DayRun(ours, *services, clock=clock)
        self.day_run.state = MemoryPrefix(world, "s3://warehouse/state/")  # type: ignore[assignment]
        self.run_id = f"run-{number}"
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        self._stopped.acquire()

    def step(self, steps: int = 1) -> None:
        """Let it make some requests, or sleep on."""
        for _ in range(steps):
            if self.ended or (self.wakes_at > self.world.now and not self.killed):
                return
            self._go.release()
            self._stopped.acquire()

    def go_to(self, at: str) -> None:
        """Let it come to its next request of a kind, if there is one."""
        for _ in range(100):
            self.world.now = max(self.world.now, self.wakes_at)
            self.step()
            if self.at == at:
                return

    def finish(self) -> None:
        """Let it come to its end, if it gets there in good time."""
        for _ in range(300):
            self.world.now = max(self.world.now, self.wakes_at)
            self.step()

    def kill(self) -> None:
        self.killed = True
        while not self.ended:
            self.step()

    def turn(self, at: str) -> None:
        self.at = at
        self._stopped.release()
        self._go.acquire()
        if self.killed:
            raise Killed

    def sleep(self, seconds: float) -> None:
        self.wakes_at = self.world.now + seconds
        self.turn("sleep")

    def wrote(self, name: str) -> None:
        """Take note of a write that confirms the lease or the ledger of a task."""
        if name == layout.lease(DAY):
            self.lease_at = self.world.now
        elif "/chunk-" in name and name.startswith("ledger/"):
            self.ledger_at = self.world.now

    def looked(self, name: str, body: bytes, written_at: float) -> None:
        """Take note of a lease that another task of the run has renewed."""
        if name == layout.lease(DAY) and json.loads(body)["holder"] == self.listed_as:
            self.lease_at = max(self.lease_at, written_at)

    @property
    def may_ask(self) -> bool:
        """Whether it has asked questions and could send another right now."""
        confirmed_at = min(self.lease_at, self.ledger_at)
        is_fresh = self.world.now < confirmed_at + lease.FRESH_S - 1e-6
        return self.is_asking and is_fresh and not self.killed

    def asks(self, question: Question) -> None:
        """Check that nobody else can be asking about these calls, and that their answers are not in the ledger."""
        violations = self.world.violations
        lease_of_day = json.loads(self.world.objects[f"s3://warehouse/state/{layout.lease(DAY)}"][0])
        if lease_of_day["holder"] != self.listed_as:
            violations.append("a question was sent by a run that had lost the day")
        for other in self.world.questions:
            if other.calls & question.calls and other.sender is not self and other.sender.may_ask:
                violations.append("two processes were able to ask about the same call at the same time")
        self.is_asking = True
        if self.known_answers & question.calls:
            violations.append("a question was sent whose answer was in the ledger")

    def _live(self) -> None:
        self.world.run.it = self
        try:
            self.turn("start")
            if self.listed is None:
                self.listed = self._patiently(lambda: self.day_run.begin(DAY, self.run_id))
            day = self.day_run.load_day(self.listed.day)
            self.listed_as = day.run_token
            for uri in self.listed.chunks:
                self._patiently(lambda uri=uri: self.day_run.transcribe(self.day_run.load(uri), float("inf")))
                self._patiently(lambda uri=uri: self._segment(uri))
            lease.Lease(self.day_run.state, day.day, day.run_token, clock=self.day_run.clock).release()
        except (CallphasesError, Killed):
            pass
        except Exception as error:
            self.world.violations.append(f"the run failed: {error!r}")
            raise
        finally:
            self.ended = True
            self._stopped.release()

    def _segment(self, uri: str) -> None:
        chunk = self.day_run.load(uri)
        first_object = layout.ledger_segment(DAY, chunk.run_token, chunk.name)
        self.known_answers = self.world.answers(first_object.removesuffix(".jsonl"), chunk.known)
        try:
            self.day_run.segment(chunk)
        finally:
            self.is_asking = False

    def _patiently(self, task: Callable[[], Any]) -> Any:
        failures = 0
        while True:
            try:
                return task()
            except DayHeld as held:
                self.sleep(max(held.wait_s, 1.0))
            except CallphasesError:
                failures += 1
                if failures == STARTS_OF_A_TASK:
                    raise
                self.sleep(20)


class Nights(RuleBasedStateMachine):
    """Up to four runs of a day, at first two at once."""

    @initialize(
        count=st.integers(1, 4),
        fates=st.lists(st.sampled_from(["taken", "lost", "refused", "fails"]), max_size=8),
        lost_answers=st.lists(st.booleans(), max_size=STARTS_OF_A_TASK - 1),
    )
    def begin(self, count: int, fates: list[str], lost_answers: list[bool]) -> None:
        # A job that fails on the provider's side is tried so often and no more; the last run must have a try left.
        fails = [place for place, fate in enumerate(fates) if fate == "fails"][TRIES_AT_PROVIDER - 1 :]
        self.world = World(count, fates=[fate for place, fate in enumerate(fates) if place not in fails])
        self.world.lost_answers = lost_answers
        self.runs: list[Run] = []
        self.patch = pytest.MonkeyPatch()
        for module in (ledger, workers):
            self.patch.setattr(module, "ThreadPoolExecutor", OneThread)
        self.patch.setattr("callphases.listing.listing.LEAST_CALLS", 1)  # chunks of more than one recording
        self.start()
        self.start()

    @precondition(lambda self: len(self.runs) < 4)
    @rule()
    def start(self) -> None:
        self.runs.append(Run(self.world, len(self.runs)))

    @rule(which=st.integers(0, 3), steps=st.integers(1, 25))
    def go_on(self, which: int, steps: int) -> None:
        self.runs[which % len(self.runs)].step(steps)

    @rule(
        which=st.integers(0, 3), at=st.sampled_from(["submit", "ask", "answer", "put_if_match", "look", "jobs_since"])
    )
    def go_to(self, which: int, at: str) -> None:
        self.runs[which % len(self.runs)].go_to(at)

    @precondition(lambda self: len(self.runs) < 4)
    @rule(which=st.integers(0, 3))
    def start_task_again(self, which: int) -> None:
        same = self.runs[which % len(self.runs)]
        if same.listed is not None:
            self.runs.append(Run(self.world, len(self.runs), same))

    @rule(which=st.integers(0, 3), seconds=st.sampled_from([0, 21, 61]))
    def finish(self, which: int, seconds: int) -> None:
        self.world.now += seconds
        self.runs[which % len(self.runs)].finish()

    @rule(which=st.integers(0, 3))
    def kill(self, which: int) -> None:
        self.runs[which % len(self.runs)].kill()

    @rule(seconds=st.sampled_from([1, 5, 21, 59, 61, 300]))
    def pass_time(self, seconds: int) -> None:
        self.world.now += seconds

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        assert not [url for url, times in self.world.paid.items() if times > 1]
        assert not self.world.violations

    def teardown(self) -> None:
        """However it was left: one more run, and every call is there, paid once."""
        if not hasattr(self, "world"):
            return
        try:
            self._finish(Run(self.world, 99))
            self.nothing_is_paid_twice()
            self.world.run.it = SimpleNamespace(turn=lambda at: None, looked=lambda *_: None)
            known = read_ledger_day(MemoryPrefix(self.world, "s3://warehouse/state/"), DAY)  # type: ignore[arg-type]
            for kind in (Answered, Transcribed):
                done = {event.recording for event in known.all() if isinstance(event, kind)}
                assert len(done) == self.world.recordings
            assert sum(self.world.paid.values()) == self.world.recordings
        finally:
            for run in self.runs:
                run.kill()
            self.patch.undo()

    def _finish(self, last: Run) -> None:
        runs = [*self.runs, last]
        for _ in range(5000):
            alive = [run for run in runs if not run.ended]
            if not alive:
                return
            if all(run.wakes_at > self.world.now for run in alive):
                self.world.now = min(run.wakes_at for run in alive)
            for run in alive:
                run.step(3)
        raise AssertionError("the runs wait for each other for ever")


TestNights = Nights.TestCase
TestNights.settings = settings(
    max_examples=int(os.environ.get("LEDGER_EXAMPLES", "300")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("request_", ["submit", "ask"])
def test_a_stalled_ledger_write_never_lets_the_lease_expire_before_a_payment(request_: str) -> None:
    """Run 1 confirms its lease and stalls while it writes the ledger; meanwhile run 0 takes the day over and pays."""
    state = Nights()
    state.begin(count=1, fates=[], lost_answers=[])
    state.go_to(which=1, at=request_)
    state.pass_time(seconds=21)
    state.go_on(which=1, steps=3)
    assert state.runs[1].at == "put_if_match"
    state.finish(which=0, seconds=0)
    state.finish(which=1, seconds=0)
    state.nothing_is_paid_twice()
    state.teardown()


def test_a_second_process_of_a_task_asks_nothing_while_the_first_still_can() -> None:
    state = Nights()
    state.begin(count=1, fates=[], lost_answers=[])
    state.go_to(which=0, at="answer")
    state.start_task_again(which=0)
    state.finish(which=2, seconds=0)
    assert len(state.world.questions) == 2
    state.nothing_is_paid_twice()
    state.teardown()


def test_a_run_that_lost_the_day_does_not_withdraw_the_intent_of_the_next() -> None:
    """Run 2 loses the day before it submits; what it then writes is older than the submission of run 0."""
    state = Nights()
    state.begin(count=1, fates=[], lost_answers=[])
    state.start()
    state.go_to(which=2, at="submit")
    state.pass_time(seconds=61)
    state.go_to(which=0, at="submit")
    state.go_on(which=0, steps=1)
    state.pass_time(seconds=61)
    state.finish(which=2, seconds=0)
    state.nothing_is_paid_twice()
    state.teardown()


def test_a_job_that_a_run_without_the_day_has_found_is_found_again() -> None:
    """Run 1 stalls while it looks for a job of run 0, finds it after it has lost the day, and records it."""
    state = Nights()
    state.begin(count=1, fates=[], lost_answers=[])
    state.go_to(which=0, at="submit")
    state.go_to(which=1, at="jobs_since")
    state.go_to(which=0, at="submit")
    state.go_to(which=0, at="put_if_match")
    state.go_to(which=1, at="ask")
    state.nothing_is_paid_twice()
    state.teardown()
