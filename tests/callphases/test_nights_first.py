"""Backfills that wait: for their hours, for the next day's money, for nights; stopped and continued, and paid once."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from callphases.day_range import DayRange
from callphases.day_run import DayRun
from callphases.errors import BackfillWaits
from callphases.limits import costs
from callphases.segmentation.gateway import Gateway
from callphases.state.lease import LIFE_S
from callphases.tables.reading import read_rows
from callphases.transcription.assemblyai import AssemblyAI
from callphases.work_list import Listed
from doubles import KEY, NOON, Answer, Clock, Request, Speech, Store, Web, answer, merged, phases_answer

pytestmark = pytest.mark.integration

GOOD = phases_answer(("Introduction", 1), ("Complaint", 2))
NO_QUESTION = answer({"error": {"code": 400, "message": "messages: at least one message is required"}}, 400)
DAYS = DayRange(dt.date(2026, 10, 1), dt.date(2026, 10, 2))
BERLIN = ZoneInfo("Europe/Berlin")
NIGHTLY = {"timezone": "Europe/Berlin", "limits": {"backfill": {"hours": "20:00-06:00"}}}
ONE_BY_ONE = {"segmentation": {"calls_per_question": 1}}


@pytest.fixture(autouse=True)
def moments(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time of day follow the clock, from noon on."""

    class Moment(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return NOON + dt.timedelta(seconds=clock.now - 1000)

    real = {name: getattr(dt, name) for name in ("timedelta", "UTC", "date", "time")}
    for module in ("limits.backfill", "state.ledger", "work_list", "state.events"):
        monkeypatch.setattr(f"callphases.{module}.dt", SimpleNamespace(datetime=Moment, **real))


class Killed(BaseException):
    """The process has ended where it was."""


class Archive:
    """Calls of two days, and runs over both; each step is done by a process of its own."""

    def __init__(self, s3: Store, speech: Speech, models: Web, clock: Clock) -> None:
        self.s3, self.speech, self.models, self.clock = s3, speech, models, clock
        self.paid_at: list[dt.datetime] = []
        self.asked_at: list[dt.datetime] = []
        self.when_asked: Callable[[], object] = lambda: None
        models.respond = self._respond
        speech.refuse = self._submitted
        for day in DAYS:
            for name in "abcd":
                s3.put(f"calls/{day}/{name}.mp3", b"RIFF" * 3000)

    def _respond(self, request: Request) -> Answer:
        if not request.json["messages"]:
            return NO_QUESTION
        self.asked_at.append(self.now)
        self.when_asked()
        return GOOD

    def _submitted(self, request: Request) -> None:
        if (request.method, request.path) == ("POST", "/v2/transcript"):
            self.paid_at.append(self.now)

    @property
    def now(self) -> dt.datetime:
        return (NOON + dt.timedelta(seconds=self.clock.now - 1000)).astimezone(BERLIN)

    def process(self, **settings: Any) -> DayRun:
        pipeline = self.s3.pipeline(**merged({"limits": {"ramp": False}, **ONE_BY_ONE}, settings))
        return DayRun(pipeline, self.s3.client, AssemblyAI(KEY, self.speech.web.url), Gateway(KEY, self.models.url))

    def until_done(self, step: str, uri: str, **settings: Any) -> int:
        """Do a step as Airflow does: again after each wait. Returns how often it had to wait."""
        waits = 0
        for _ in range(60):
            day_run = self.process(**settings)
            try:
                arguments = (0.0,) if step == "transcribe" else ()
                waiting = getattr(day_run, step)(day_run.load(uri), *arguments)
            except BackfillWaits as held:
                self.clock.now += held.wait_s
                waits += 1
                continue
            if waiting is None:
                return waits
            self.clock.now += 20
        raise AssertionError("it never ends")

    def finish(self, listed: Listed, **settings: Any) -> int:
        waits = sum(
            self.until_done(step, uri, **settings) for uri in listed.chunks for step in ("transcribe", "segment")
        )
        day_run = self.process(**settings)
        day_run.end_range(day_run.load_days(listed.day))
        return waits

    @property
    def is_whole(self) -> bool:
        """Whether every call is done, was submitted once and asked about once."""
        rows = [row["status"] for day in DAYS for row in read_rows(self.s3.tables, "calls", day)]
        submitted = Counter(one["audio_url"].partition("?")[0] for one in self.speech.submitted)
        return rows == ["completed"] * 8 and set(submitted.values()) == {1} and len(submitted) == 8


@pytest.fixture
def archive(s3: Store, speech: Speech, models: Web, clock: Clock) -> Archive:
    return Archive(s3, speech, models, clock)


def test_backfill_pays_within_its_hours_alone(archive: Archive) -> None:
    listed = archive.process(**NIGHTLY).begin_range(DAYS, "archive__1")
    assert archive.finish(listed, **NIGHTLY) == 1
    assert archive.is_whole
    assert {moment.hour for moment in archive.paid_at + archive.asked_at} == {20}


def test_backfill_whose_hours_end_collects_what_is_under_way_and_sends_nothing(archive: Archive) -> None:
    few = merged(NIGHTLY, {"limits": {"transcriptions_at_once": 2, "backfill": {"transcriptions_at_once": 2}}})
    listed = archive.process(**few).begin_range(DAYS, "archive__1")
    [uri] = listed.chunks
    archive.clock.now += 17 * 3600 - 30  # half a minute before six
    archive.speech.status = "processing"
    day_run = archive.process(**few)
    waiting = day_run.transcribe(day_run.load(uri), 0.0)
    assert waiting is not None
    assert (len(waiting.jobs), waiting.unsent) == (2, 6)
    archive.clock.now += 60
    archive.speech.status = "completed"
    day_run = archive.process(**few)
    with pytest.raises(BackfillWaits, match=r"20:00-06:00 \(limits.backfill.hours\); waiting until .* 20:00") as held:
        day_run.transcribe(day_run.load(uri), math.inf)
    assert held.value.wait_s == pytest.approx(14 * 3600 - 30, abs=10)
    assert len(archive.speech.submitted) == 2
    archive.finish(listed, **few)
    assert archive.is_whole
    assert len(archive.asked_at) == 8


def test_questions_stop_when_the_hours_end_and_none_is_asked_twice(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callphases.segmentation.chunk_segmenter.QUESTIONS_AT_ONCE", 1)
    listed = archive.process(**NIGHTLY).begin_range(DAYS, "archive__1")
    [uri] = listed.chunks
    archive.until_done("transcribe", uri, **NIGHTLY)

    def late() -> None:
        if len(archive.asked_at) == 3:
            archive.clock.now += 11 * 3600

    archive.when_asked = late
    archive.finish(listed, **NIGHTLY)
    assert archive.is_whole
    assert len(archive.asked_at) == 8
    assert all(moment.hour >= 20 or moment.hour < 6 for moment in archive.asked_at[4:])


def test_day_is_free_for_other_runs_while_a_backfill_waits(archive: Archive) -> None:
    listed = archive.process(**NIGHTLY).begin_range(DAYS, "archive__1")
    [uri] = listed.chunks
    day_run = archive.process(**NIGHTLY)
    with pytest.raises(BackfillWaits):
        day_run.transcribe(day_run.load(uri), math.inf)
    archive.clock.now += LIFE_S + 1
    night = archive.process(**NIGHTLY)
    by_hand = night.begin(DAYS.first, "manual__1")
    for chunk in by_hand.chunks:
        assert night.transcribe(night.load(chunk), math.inf) is None
        night.segment(night.load(chunk))
    night.end(night.load_day(by_hand.day))
    assert len(archive.speech.submitted) == 4, "it is no backfill, and has no hours"
    archive.finish(listed, **NIGHTLY)
    assert archive.is_whole


def test_backfill_goes_on_the_next_day_when_the_days_dollars_are_used_up(archive: Archive) -> None:
    speech_usd = costs.estimated_speech_usd(archive.process().pipeline, 6.0)
    settings = {"timezone": "Europe/Berlin", "limits": {"backfill": {"usd_per_day": 3.5 * speech_usd}}}
    pipeline = archive.process(**settings).pipeline
    listed = archive.process(**settings).begin_range(DAYS, "archive__1")
    assert archive.finish(listed, **settings) > 2
    assert archive.is_whole
    assert len(archive.asked_at) == 8
    sent = Counter(moment.date() for moment in archive.paid_at)
    asked = Counter(moment.date() for moment in archive.asked_at)
    for day in sent.keys() | asked.keys():
        usd = sent[day] * speech_usd + asked[day] * costs.highest_llm_usd(pipeline, 100, 20)
        assert usd <= 3.5 * speech_usd or sent[day] + asked[day] == 1


def test_limit_of_a_day_that_pays_for_no_call_lets_one_go_a_day(archive: Archive) -> None:
    settings = {"limits": {"backfill": {"usd_per_day": 0.00001}}}
    listed = archive.process(**settings).begin_range(DAYS, "archive__1")
    assert archive.finish(listed, **settings) >= 14
    assert archive.is_whole
    assert max(Counter(moment.date() for moment in archive.paid_at + archive.asked_at).values()) <= 2


def test_nights_have_no_hours_and_no_dollars_a_day(archive: Archive) -> None:
    settings = merged(NIGHTLY, {"limits": {"backfill": {"usd_per_day": 0.00001}}})
    night = archive.process(**settings)
    for day in DAYS:
        listed = night.begin(day, "scheduled__1")
        for uri in listed.chunks:
            assert night.transcribe(night.load(uri), math.inf) is None
            night.segment(night.load(uri))
        night.end(night.load_day(listed.day))
    assert archive.is_whole


@pytest.mark.parametrize("number", range(3, 60, 11))
def test_backfill_that_is_killed_while_it_waits_or_works_pays_once(archive: Archive, number: int) -> None:
    """It is killed at some request to the store, and continued by another process in the next night."""
    settings = merged(NIGHTLY, {"limits": {"backfill": {"usd_per_day": 0.002}}})
    listed = archive.process(**settings).begin_range(DAYS, "archive__1")
    archive.clock.now += 8 * 3600
    before = len(archive.s3.asked)

    def kill(**_: object) -> None:
        if len(archive.s3.asked) == before + number:
            raise Killed

    archive.s3.client.meta.events.register("provide-client-params.s3", kill)
    try:
        archive.finish(listed, **settings)
    except Killed:
        archive.s3.client.meta.events.unregister("provide-client-params.s3", kill)
        archive.clock.now += 12 * 3600
        archive.finish(listed, **settings)
    assert archive.is_whole


def test_backfill_gives_its_worker_back_and_goes_on(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.segmentation.chunk_segmenter.QUESTIONS_AT_ONCE", 2)
    listed = archive.process().begin_range(DAYS, "archive__1")
    [uri] = listed.chunks
    archive.until_done("transcribe", uri)

    def slow() -> None:
        archive.clock.now += 50

    archive.when_asked = slow
    day_run = archive.process()
    with pytest.raises(BackfillWaits, match="gives its worker back") as held:
        day_run.segment(day_run.load(uri))
    assert held.value.wait_s == 0
    assert 3 <= len(archive.asked_at) <= 5
    archive.finish(listed)
    assert archive.is_whole
    assert len(archive.asked_at) == 8


def test_backfill_without_nights_keeps_its_worker(archive: Archive) -> None:
    listed = archive.process(schedule=None).begin_range(DAYS, "archive__1")
    archive.when_asked = lambda: setattr(archive.clock, "now", archive.clock.now + 50)
    assert archive.finish(listed, schedule=None) == 0
    assert archive.is_whole


def test_backfill_that_waits_for_turns_ends_its_wait_with_its_hours(archive: Archive) -> None:
    settings = merged(NIGHTLY, {"schedule": None, "limits": {"llm_requests_per_minute": 1}})
    listed = archive.process(**settings).begin_range(DAYS, "archive__1")
    [uri] = listed.chunks
    archive.until_done("transcribe", uri, **settings)
    archive.clock.now += 10 * 3600 - 300  # five minutes before six
    day_run = archive.process(**settings)
    with pytest.raises(BackfillWaits, match="20:00-06:00"):
        day_run.segment(day_run.load(uri))
    assert len(archive.asked_at) <= 7
    assert archive.now.hour == 6
    assert archive.now.minute <= 1, "it does not wait for turns that it can't use"
