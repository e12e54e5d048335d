"""A run over several days: listed once, chunked over all of them, each published, and taken over by other runs."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from callphases.day_range import DayRange
from callphases.day_run import DayRun
from callphases.errors import DayHeld
from callphases.listing import listing
from callphases.recordings import Recording
from callphases.segmentation.gateway import Gateway
from callphases.state.ledger import read_ledger_day
from callphases.state.summaries import read_summaries
from callphases.tables.publishing import Published
from callphases.tables.reading import published_days, read_rows
from callphases.transcription.assemblyai import AssemblyAI
from callphases.work_list import Listed
from doubles import KEY, Answer, Clock, Request, Speech, Store, Web, answer, merged, phases_answer

pytestmark = pytest.mark.integration

GOOD = phases_answer(("Introduction", 1), ("Complaint", 2))
NO_QUESTION = answer({"error": {"code": 400, "message": "messages: at least one message is required"}}, 400)
DAYS = DayRange(dt.date(2026, 10, 30), dt.date(2026, 11, 3))
EMPTY = dt.date(2026, 11, 1)


class Archive:
    """Recordings of some days in a bucket, and runs over them."""

    def __init__(self, s3: Store, speech: Speech, models: Web) -> None:
        self.s3, self.speech, self.models = s3, speech, models
        self.respond: Callable[[Request], Answer] = lambda request: GOOD
        models.respond = lambda request: self.respond(request) if request.json["messages"] else NO_QUESTION

    def put(self, day: dt.date, *names: str) -> list[Recording]:
        return [self.s3.put(f"calls/{day}/{name}.mp3", b"RIFF") for name in names]

    def fill(self) -> None:
        for day in DAYS:
            if day != EMPTY:
                self.put(day, "a", "b", "c")

    def day_run(self, **settings: Any) -> DayRun:
        pipeline = self.s3.pipeline(**merged({"limits": {"ramp": False}}, settings))
        return DayRun(pipeline, self.s3.client, AssemblyAI(KEY, self.speech.web.url), Gateway(KEY, self.models.url))

    def work(self, day_run: DayRun, listed: Listed) -> None:
        for uri in listed.chunks:
            assert day_run.transcribe(day_run.load(uri), math.inf) is None
            day_run.segment(day_run.load(uri))

    def run(self, run_id: str = "archive__1", **settings: Any) -> list[Published]:
        day_run = self.day_run(**settings)
        listed = day_run.begin_range(DAYS, run_id)
        self.work(day_run, listed)
        return day_run.end_range(day_run.load_days(listed.day))

    def run_day(self, day: dt.date, run_id: str = "scheduled__1") -> Published:
        day_run = self.day_run()
        listed = day_run.begin(day, run_id)
        self.work(day_run, listed)
        return day_run.end(day_run.load_day(listed.day))

    def statuses(self, day: dt.date) -> list[str]:
        return [row["status"] for row in read_rows(self.s3.tables, "calls", day)]

    def lease(self, day: dt.date) -> dict[str, Any]:
        return dict(json.loads(self.s3.state.get(f"ledger/dt={day}/lease.json") or b"null"))

    @property
    def submissions(self) -> int:
        return len(self.speech.submitted)


@pytest.fixture
def archive(s3: Store, speech: Speech, models: Web, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setattr(listing, "LEAST_CALLS_OF_ARCHIVE", 4)  # several chunks, of several days each
    return Archive(s3, speech, models)


def test_each_day_of_a_range_is_published_and_its_ledger_is_its_own(archive: Archive) -> None:
    archive.fill()
    published = archive.run()
    assert [one.statuses for one in published] == [{"completed": 3}] * 2 + [{}] + [{"completed": 3}] * 2
    assert published_days(archive.s3.tables) == [day for day in DAYS if day != EMPTY]
    assert archive.submissions == 12
    for day in DAYS:
        events = read_ledger_day(archive.s3.state, day).all()
        assert {event.recording.split("/")[1] for event in events} <= {str(day)}
        assert len({event.recording for event in events}) == (0 if day == EMPTY else 3)
        assert all(event.day == "" for event in events)
        assert archive.lease(day)["released"]
        assert not {"range", "ranges"} & archive.lease(day).keys()
    summaries = read_summaries(archive.s3.state, DAYS.first, DAYS.last)
    assert [one.listed for one in summaries.values()] == [3, 3, 0, 3, 3]
    assert all(one.began_at is not None and one.began_at <= one.published_at for one in summaries.values())
    assert [sum(one.lineage["prompt_version"].values()) for one in summaries.values()] == [3, 3, 0, 3, 3]
    for day, one in summaries.items():
        seconds = Counter[str]()
        for phase in read_rows(archive.s3.tables, "phases", day):
            seconds[phase["phase_name"]] += phase["duration_s"]
        assert one.phase_s == pytest.approx(seconds)
    transcripts = [name for name in archive.s3.state.names("transcripts/") if name.endswith(".json")]
    assert {name.split("/")[1] for name in transcripts} == {f"dt={day}" for day in DAYS if day != EMPTY}


def test_chunks_are_of_several_days_and_listing_is_done_once(archive: Archive) -> None:
    archive.fill()
    listed = archive.day_run().begin_range(DAYS, "archive__1")
    chunks = [archive.day_run().load(uri) for uri in listed.chunks]
    assert [[(str(day)[-2:], len(of_day)) for day, of_day in chunk.by_day()] for chunk in chunks] == [
        [("30", 3), ("31", 3)],
        [("02", 3), ("03", 3)],
    ]


def test_a_second_run_over_the_range_pays_for_nothing_and_skips_days_that_are_done(archive: Archive) -> None:
    archive.fill()
    archive.run()
    late = archive.put(DAYS.first, "late")
    assert archive.run("archive__2") == []
    assert archive.submissions == 12
    day_run = archive.day_run()
    listed = day_run.begin_range(DAYS, "archive__3", again="completed")
    archive.work(day_run, listed)
    published = day_run.end_range(day_run.load_days(listed.day))
    assert [one.listed for one in published] == [4, 3, 0, 3, 3]
    assert archive.submissions == 12 + len(late)


def test_a_day_in_a_range_is_held_while_the_range_is_alive_and_paid_once_by_who_takes_it_over(
    archive: Archive, clock: Clock
) -> None:
    archive.fill()
    day_run = archive.day_run()
    listed = day_run.begin_range(DAYS, "archive__1")
    assert day_run.transcribe(day_run.load(listed.chunks[0]), math.inf) is None
    with pytest.raises(DayHeld):
        archive.day_run().begin(DAYS.first, "scheduled__1")
    clock.wait(61)  # the run was killed
    assert archive.run_day(DAYS.first).statuses == {"completed": 3}
    assert archive.submissions == 6
    # And the range's run goes on: it reads what the other has done.
    archive.work(day_run, listed)
    published = day_run.end_range(day_run.load_days(listed.day))
    assert [one.statuses for one in published] == [{"completed": 3}] * 2 + [{}] + [{"completed": 3}] * 2
    assert archive.submissions == 12
    for day in DAYS:
        assert archive.lease(day)["released"]
    assert archive.run_day(DAYS.first, "scheduled__2").statuses == {"completed": 3}
    assert archive.submissions == 12


def test_a_range_waits_for_a_day_that_another_run_has(archive: Archive) -> None:
    archive.fill()
    archive.day_run().begin(DAYS.last, "scheduled__1")
    with pytest.raises(DayHeld):
        archive.day_run().begin_range(DAYS, "archive__1")
    # None of the other days stays taken.
    assert archive.run_day(DAYS.first).statuses == {"completed": 3}


def test_a_run_over_another_range_takes_over_days_of_a_dead_one(archive: Archive, clock: Clock) -> None:
    archive.fill()
    day_run = archive.day_run()
    listed = day_run.begin_range(DayRange(DAYS.first, dt.date(2026, 11, 2)), "archive__1")
    assert day_run.transcribe(day_run.load(listed.chunks[0]), math.inf) is None
    clock.wait(61)
    assert [one.statuses for one in archive.run("archive__2")] == [{"completed": 3}] * 2 + [{}] + [{"completed": 3}] * 2
    assert archive.submissions == 12
    archive.work(day_run, listed)  # it was not dead after all, and finds everything done
    day_run.end_range(day_run.load_days(listed.day))
    assert archive.submissions == 12
    assert archive.statuses(DAYS.first) == ["completed"] * 3


def test_chunk_that_is_run_again_after_its_run_has_ended_pays_for_nothing_that_another_has_paid(
    archive: Archive, clock: Clock
) -> None:
    archive.fill()
    day_run = archive.day_run()
    listed = day_run.begin_range(DAYS, "archive__1")
    lost, *others = listed.chunks  # its task failed
    archive.work(day_run, Listed(listed.day, others))
    assert [one.unfinished for one in day_run.end_range(day_run.load_days(listed.day))] == [3, 3, 0, 0, 0]
    assert archive.run_day(DAYS.first).statuses == {"completed": 3}
    assert archive.submissions == 9
    # Someone clears the task, and so those after it.
    archive.work(day_run, Listed(listed.day, [lost]))
    published = day_run.end_range(day_run.load_days(listed.day))
    assert [one.statuses for one in published] == [{"completed": 3}] * 2 + [{}] + [{"completed": 3}] * 2
    assert archive.submissions == 12


def test_chunk_that_is_run_again_waits_for_a_run_that_has_one_of_its_days(archive: Archive, clock: Clock) -> None:
    archive.fill()
    day_run = archive.day_run()
    listed = day_run.begin_range(DAYS, "archive__1")
    day_run.end_range(day_run.load_days(listed.day))  # every chunk's task failed
    archive.day_run().begin(DAYS.first, "scheduled__1")
    with pytest.raises(DayHeld):
        day_run.transcribe(day_run.load(listed.chunks[0]), math.inf)
    assert archive.submissions == 0


def test_range_that_waited_for_a_day_begins_as_soon_as_it_may(archive: Archive) -> None:
    archive.fill()
    day_run = archive.day_run()
    listed = day_run.begin(DAYS.last, "scheduled__1")
    with pytest.raises(DayHeld):
        archive.day_run().begin_range(DAYS, "archive__1")
    archive.work(day_run, listed)
    day_run.end(day_run.load_day(listed.day))
    assert archive.day_run().begin_range(DAYS, "archive__1").chunks
