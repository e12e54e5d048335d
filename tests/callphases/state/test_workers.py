"""The loop that runs tasks on threads and records their events."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest

from callphases.errors import DayHeld, ServiceUnavailable
from callphases.state import layout
from callphases.state.events import Withdrawn
from callphases.state.lease import FRESH_S
from callphases.state.workers import Done, Ended, Task, work_off
from doubles import DAY, Clock, Store

pytestmark = pytest.mark.integration


def event(key: str) -> Withdrawn:
    return Withdrawn(key=key, recording="calls/a.mp3")


def task(key: str, *follow_ups: Task, before: Callable[[], object] = lambda: None) -> Task:
    """A task with one event, which calls ``before`` first."""

    def run() -> Done:
        before()
        return Done([event(key)], follow_ups)

    return run


def fail(error: BaseException) -> Callable[[], object]:
    def run() -> None:
        raise error

    return run


def test_all_tasks_run_and_their_events_are_recorded(s3: Store) -> None:
    ledger = s3.ledger()
    worked = work_off(ledger, [task(str(number)) for number in range(20)], threads=4)
    assert worked.problem is None
    assert {one.key for one in worked.events} == {str(number) for number in range(20)}
    assert {one.key for one in ledger.own} == {str(number) for number in range(20)}


def test_no_tasks_give_no_events(s3: Store) -> None:
    worked = work_off(s3.ledger(), [], threads=2)
    assert (worked.events, worked.problem) == ([], None)


def test_follow_ups_run_before_other_tasks_in_their_order(s3: Store) -> None:
    first = task("a", task("a1", task("a11")), task("a2"))
    worked = work_off(s3.ledger(), [first, task("b"), task("c")], threads=1)
    assert [one.key for one in worked.events] == ["a", "a1", "a11", "a2", "b", "c"]


def test_source_is_read_one_task_ahead_only(s3: Store) -> None:
    read, most_ahead = 0, 0
    ran = 0

    def source() -> Iterator[Task]:
        nonlocal read, most_ahead
        for number in range(10):
            read += 1
            most_ahead = max(most_ahead, read - ran)
            yield task(str(number), before=count)

    def count() -> None:
        nonlocal ran
        ran += 1

    work_off(s3.ledger(), source(), threads=1)
    assert (read, ran) == (10, 10)
    assert most_ahead <= 3, "the running task, the waiting one, and the one that is read"


def test_first_error_stops_the_other_tasks_and_is_returned(s3: Store) -> None:
    started: list[str] = []
    error = ServiceUnavailable("The service is away.")

    def source() -> Iterator[Task]:
        yield task("a", before=fail(error))
        for number in range(50):
            yield task(str(number), before=lambda number=number: started.append(str(number)))

    stop = threading.Event()
    worked = work_off(s3.ledger(), source(), threads=1, stop=stop)
    assert worked.problem is error
    assert stop.is_set()
    assert len(started) <= 1
    assert [one.key for one in worked.events] == started


def test_running_tasks_are_recorded_after_an_error(s3: Store) -> None:
    ledger, stop, is_running = s3.ledger(), threading.Event(), threading.Event()

    def wait_for_the_error() -> None:
        is_running.set()
        assert stop.wait(30)

    def fail_beside_it() -> None:
        assert is_running.wait(30)
        raise ServiceUnavailable("The service is away.")

    tasks = [task("slow", task("follow-up"), before=wait_for_the_error), task("b", before=fail_beside_it)]
    worked = work_off(ledger, tasks, threads=2, stop=stop)
    assert isinstance(worked.problem, ServiceUnavailable)
    assert [one.key for one in worked.events] == ["slow"], "its follow-up is not started"
    ledger.write()
    assert s3.known().find("slow") is not None


def test_error_replaces_the_ended_of_tasks_that_gave_up_first(s3: Store) -> None:
    stop, gave_up = threading.Event(), threading.Event()

    def give_up() -> None:
        gave_up.set()
        raise Ended

    def fail_later() -> None:
        assert gave_up.wait(30)
        assert stop.wait(30)
        raise ServiceUnavailable("The service is away.")

    worked = work_off(s3.ledger(), [task("a", before=fail_later), task("b", before=give_up)], threads=2, stop=stop)
    assert isinstance(worked.problem, ServiceUnavailable)


def test_error_of_the_source_is_returned(s3: Store) -> None:
    def source() -> Iterator[Task]:
        yield task("a")
        raise ServiceUnavailable("The listing is away.")

    worked = work_off(s3.ledger(), source(), threads=2)
    assert isinstance(worked.problem, ServiceUnavailable)
    assert [one.key for one in worked.events] in ([], ["a"])


def test_lost_lease_is_an_error_and_starts_no_other_task(s3: Store, clock: Clock) -> None:
    ledger = s3.ledger("run-1")
    started: list[str] = []

    def lose() -> None:
        document = json.loads(s3.state.get(layout.lease(DAY)) or b"")
        s3.state.put(layout.lease(DAY), json.dumps({**document, "holder": "run-2", "term": 2}).encode())
        clock.now += FRESH_S

    def source() -> Iterator[Task]:
        yield task("a", before=lose)
        for number in range(50):
            yield task(str(number), before=lambda number=number: started.append(str(number)))

    worked = work_off(ledger, source(), threads=1)
    assert isinstance(worked.problem, DayHeld)
    assert [one.key for one in worked.events] == ["a"]
    assert started == []


def test_second_process_of_the_task_is_an_error(s3: Store) -> None:
    ledger = s3.ledger()
    s3.ledger().write([event("other")])
    worked = work_off(ledger, [task("a")], threads=1, write_every_s=0)
    assert isinstance(worked.problem, ServiceUnavailable)
    assert "Another process" in str(worked.problem)


def test_events_wait_as_long_as_the_caller_allows(s3: Store) -> None:
    ledger = s3.ledger()
    ledger.write([event("before")])
    work_off(ledger, [task("a")], threads=1)
    assert s3.known().find("a") is None
    work_off(ledger, [task("b")], threads=1, write_every_s=0)
    assert s3.known().find("a") is not None
    assert s3.known().find("b") is not None
