"""The ramp, jobs at once, and pauses."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from callphases.errors import DayHeld
from callphases.limits.quota import Slots
from callphases.limits.throttle import ramp_s
from callphases.state import layout
from callphases.state.events import Event, Intended, Transcribed
from callphases.state.lease import LIFE_S
from callphases.transcription.pacing import LOOKS_A_JOB
from doubles import NOON, Answer, Clock, Request
from transcribing import Runner, collect

pytestmark = pytest.mark.integration


@pytest.fixture
def moments(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> dt.datetime:
    """Let the time of day follow the clock; returns when it began."""

    class Moment(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return NOON + dt.timedelta(seconds=clock.now - 1000)

    moments = SimpleNamespace(datetime=Moment, timedelta=dt.timedelta, UTC=dt.UTC)
    for module in ("state.lease", "transcription.pacing"):
        monkeypatch.setattr(f"callphases.{module}.dt", moments)
    return NOON


@pytest.mark.parametrize("first", [0, 500])
def test_submissions_follow_the_ramp_that_all_tasks_share(
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


def test_task_that_starts_late_keeps_the_ramps_distances(runner: Runner, clock: Clock, moments: dt.datetime) -> None:
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
    assert sent_at[0] - begun < 1, "it was due long before"
    assert distances == pytest.approx([ramp_s(number + 1) - ramp_s(number) for number in range(9)], abs=0.05)


def test_intents_are_written_before_submissions_that_wait_for_the_ramp(
    runner: Runner, clock: Clock, moments: dt.datetime
) -> None:
    recordings = [runner.s3.put(f"calls/{number:02}.mp3") for number in range(40)]
    known: list[type[Event]] = []

    def look(request: Request) -> Answer | None:
        key = urlsplit(request.json["audio_url"]).path.split("/", 2)[2]
        known.extend(runner.events(next(one for one in recordings if one.key == key)))
        return None

    runner.speech.refuse = look
    runner.submit(*recordings, limits={"ramp": True})
    assert known == [Intended] * 40
    assert runner.s3.ledger_writes <= 9, "of the ledger each 10 s, and of the lease"


def test_first_submission_of_a_run_is_sent_at_once(runner: Runner, clock: Clock, moments: dt.datetime) -> None:
    runner.submit(runner.s3.put("calls/a.mp3"), limits={"ramp": True})
    assert sum(clock.slept) < 0.1


def test_submissions_are_sent_at_once_without_the_ramp(runner: Runner, clock: Clock, moments: dt.datetime) -> None:
    runner.submit(*[runner.s3.put(f"calls/{number:02}.mp3") for number in range(30)], first=500)
    assert sum(clock.slept) < 1


def test_lease_is_renewed_while_a_task_waits_for_the_ramp(runner: Runner, clock: Clock, moments: dt.datetime) -> None:
    def try_to_take_over(seconds: float) -> None:
        with pytest.raises(DayHeld):
            runner.s3.lease("other").take()

    clock.asleep = try_to_take_over
    runner.submit(runner.s3.put("calls/a.mp3"), first=500, limits={"ramp": True})
    assert sum(clock.slept) > LIFE_S


def test_task_submits_no_more_jobs_than_it_has_slots(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abcde"]
    runner.speech.status = "processing"
    run = runner.run(recordings, slots=Slots(runner.s3.state, layout.jobs_limit(), 3, "run-1", "chunk-0000"))
    assert (run.submit(), collect(run)) == (2, 5)
    other = Slots(runner.s3.state, layout.jobs_limit(), 3, "run-1", "chunk-0001", first=5)
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
    assert other.acquire(0, 4, 0) == 3, "unused slots are released"


def test_pauses_follow_the_time_that_jobs_take(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    run = runner.submit(recording)
    assert run.pacing.next_in_s(1, 0) == 0, "not known yet"
    created = dt.datetime.fromisoformat(runner.speech.jobs["t-1"]["created"])
    runner.speech.ending = {"completed": (created + dt.timedelta(seconds=8)).isoformat()}
    run.look()
    assert run.pacing.job_s == run.pacing.next_in_s(1, 0) == 8
    assert 0.8 * 8 / LOOKS_A_JOB <= run.pacing.pause_s() <= 1.2 * 8 / LOOKS_A_JOB
