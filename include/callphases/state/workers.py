"""Tasks on threads whose events go to the ledger while the day's lease is held: the loop that all stages share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from callphases.errors import CallphasesError
from callphases.state.events import Event
from callphases.state.ledger import WRITE_EVERY_S, Ledger

HOLD_EVERY_S = 5.0


class Ended(Exception):
    """A task gave up because another one had failed."""


@dataclass(frozen=True)
class Done:
    """The result of a task: events to record, and tasks that follow from it."""

    events: Sequence[Event] = ()
    follow_ups: Sequence[Task] = ()


Task = Callable[[], Done]


@dataclass(frozen=True)
class Worked:
    """The result of all tasks: their events, and the first error; None where there was none."""

    events: list[Event]
    problem: BaseException | None


def work_off(
    ledger: Ledger,
    tasks: Iterable[Task],
    *,
    threads: int,
    write_every_s: float = WRITE_EVERY_S,
    stop: threading.Event | None = None,
) -> Worked:
    """Run tasks on threads until all have ended or one has failed.

    After an error no other task starts. Those that run are waited for, since what they sent is paid for, and their
    events are recorded. Losing the lease is such an error.

    Args:
        ledger: takes the events, and has its lease renewed.
        tasks: advanced on a thread of its own, one task ahead, so making the next one may wait. Follow-ups go first.
        threads: how many tasks run at once.
        write_every_s: how long an event may wait for others to share a PUT with.
        stop: is set once a task has failed, so that the others, and ``tasks``, can raise ``Ended``.
    """
    stop = stop or threading.Event()
    source = iter(tasks)
    waiting, events = deque[Task](), list[Event]()
    problem: BaseException | None = None
    with ThreadPoolExecutor(threads + 1) as pool:
        running = set[Future[Done]]()
        reading: Future[Task | None] | None = pool.submit(next, source, None)
        is_exhausted = False
        while running or reading is not None:
            pending: set[Future[Any]] = {*running} if reading is None else {*running, reading}
            wait(pending, HOLD_EVERY_S, FIRST_COMPLETED)
            ended = [future for future in running if future.done()]
            running.difference_update(ended)
            errors = [error for future in ended if (error := future.exception()) is not None]
            results = [future.result() for future in ended if future.exception() is None]
            if reading is not None and reading.done():
                if (error := reading.exception()) is not None:
                    errors.append(error)
                elif (task := reading.result()) is not None:
                    waiting.append(task)
                else:
                    is_exhausted = True
                reading = None
            new = [event for one in results for event in one.events]
            events += new
            waiting.extendleft(task for one in results for task in reversed(one.follow_ups))
            try:
                ledger.note(new, write_every_s)
                ledger.lease.hold()
            except CallphasesError as lost:
                errors.append(lost)
            for error in errors:
                if problem is None or isinstance(problem, Ended):
                    problem = error
            if problem is not None:
                stop.set()
                continue
            while waiting and len(running) < threads:
                running.add(pool.submit(waiting.popleft()))
            if not waiting and reading is None and not is_exhausted:
                reading = pool.submit(next, source, None)
    return Worked(events, problem)
