"""Limits that the tasks of a run share: concurrent transcription jobs, and language model requests per minute.

Each limit is one object in the state area, changed only by conditional writes, so tasks on several machines respect it
together. Times in it are by the store's clock.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.state import layout
from callphases.state.shared_document import SharedDocument
from callphases.state.storage import ObjectPrefix

ENTRY_LIFE_S = 1800.0
"""A task whose entry is older than this is assumed to have no jobs any more."""
TYPICAL_JOB_S = 30.0
"""Assumed until the run has seen a job end: most recordings are transcribed in less than 45 s."""
LEAST_SHARE = 0.05
"""Minimum part of the limit that a task acquires or releases at a time, because each change costs a write."""
WINDOW_S = 63.0
"""What counts as a minute: allows for requests that are sent late and for the error in estimating the store's clock."""
TURN_LIFE_S = 1.0
"""How late a reserved turn may still be used. A later request would fall into another minute than it is counted in."""
TURNS_FOR_S = 0.5
"""A task reserves the turns of about this time at once, or one per waiting thread, to save writes."""
AHEAD_S = 20.0
"""How far ahead turns are reserved: the other tasks lose those of a task that dies."""


class Slots:
    """One task's share of the transcription jobs that a run may have at once.

    Args:
        state: ``output.state``.
        name: of the run's object.
        limit: concurrent jobs of the whole run.
        task: the task's name within the run.
        first: how many of the run's recordings come before this task's.
        clock: times the pauses between attempts to write.
    """

    def __init__(
        self,
        state: ObjectPrefix,
        name: str,
        limit: int,
        task: str,
        first: int = 0,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._limit, self._task, self._first = limit, task, first
        self._shared = SharedDocument(state, name, clock)
        self._held: int | None = None

    def acquire(self, under_way: int, wanted: int, sent: int, job_s: float | None = None) -> int:
        """How many more jobs the task may submit now. Acquires slots that it needs and releases those it does not.

        Args:
            under_way: jobs that the task has at the service.
            wanted: jobs that it wants to submit.
            sent: how many of its recordings need no submission any more.
            job_s: how long a job takes, in seconds, if the task knows.
        """
        needed = under_way + wanted
        if self._held is None:
            # An earlier process of this task may have left slots, and jobs that use them.
            entry = self._shared.read().get("tasks", {}).get(self._task)
            self._held = entry["jobs"] if entry else 0
        spare = self._held - needed
        if spare < 0 or (spare > 0 and (needed == 0 or spare >= self._min_change)):
            self._held = self._update(needed, under_way, sent, job_s)
        return max(min(self._held - under_way, wanted), 0)

    @property
    def _min_change(self) -> float:
        return max(LEAST_SHARE * self._limit, 1)

    def expected_wait_s(self) -> float:
        """Seconds until slots for this task's first recordings are probably free, from the other tasks' entries."""
        document = self._shared.document
        sent = sum(entry["sent"] for entry in document.get("tasks", {}).values())
        ahead = max(self._first - sent, 0) + self._limit / 2
        return float(ahead / self._limit * self.job_s)

    @property
    def job_s(self) -> float:
        """How long a job takes, in seconds, as observed by the run's tasks."""
        return float(self._shared.document.get("job_s") or TYPICAL_JOB_S)

    @property
    def is_job_s_known(self) -> bool:
        """Whether any of the run's tasks has seen a job end."""
        return bool(self._shared.document.get("job_s"))

    def _update(self, needed: int, under_way: int, sent: int, job_s: float | None) -> int:
        """Write how many slots the task holds, and return the number."""

        def update(document: dict[str, Any]) -> int | None:
            now = self._shared.now()
            tasks = document.setdefault("tasks", {})
            mine = tasks.get(self._task, {"jobs": 0})
            others = sum(
                entry["jobs"]
                for task, entry in tasks.items()
                if task != self._task and now - entry["at"] < ENTRY_LIFE_S
            )
            jobs: int = max(min(needed, self._limit - others), under_way, 0)
            if jobs < needed and 0 <= jobs - mine["jobs"] < self._min_change:
                return None  # too few slots to be worth a write
            tasks[self._task] = {"jobs": jobs, "at": round(now, 1), "sent": sent}
            if job_s is not None:
                document["job_s"] = round(job_s, 1)
            return jobs

        jobs = self._shared.change(update, read_first=self._held is not None and needed > self._held)
        if jobs is None:
            return self._held or 0
        return jobs


class RateLimits:
    """Limits requests per minute to each language model, across all tasks and runs of a pipeline. Thread-safe.

    Every turn is recorded before it is used; no 60 seconds hold more than ``per_minute`` of them.

    Args:
        state: ``output.state``.
        per_minute: the limit for each model.
        clock: waits for the turns.
    """

    def __init__(self, state: ObjectPrefix, per_minute: int, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._state, self._per_minute, self._clock = state, per_minute, clock
        self._by_model: dict[str, _ModelTurns] = {}
        self._lock = threading.Lock()

    def await_turn(self, model: str) -> None:
        """Block until a request to ``model`` may be sent."""
        self._turns(model).wait()

    def soonest(self, models: Sequence[str]) -> str:
        """The model that accepts a request first; of several that do, the first in ``models``."""
        return min(models, key=lambda model: self._turns(model).next_in_s())

    def _turns(self, model: str) -> _ModelTurns:
        with self._lock:
            if model not in self._by_model:
                name = layout.llm_limit(model)
                shared = SharedDocument(self._state, name, self._clock)
                self._by_model[model] = _ModelTurns(shared, self._per_minute, self._clock)
            return self._by_model[model]


class _ModelTurns:
    """The turns of one model. The object holds the times of the last minute's turns, and how many each time has."""

    def __init__(self, shared: SharedDocument, per_minute: int, clock: Clock) -> None:
        self._shared, self._per_minute, self._clock = shared, per_minute, clock
        self._batch = max(round(per_minute / 60 * TURNS_FOR_S), 1)
        self._unused: deque[float] = deque()
        self._write_s = 0.0
        self._waiting = 0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for a turn; one that this thread is too late to use is lost."""
        self._waiting += 1
        try:
            while True:
                with self._lock:  # only one thread at a time reserves turns
                    at = self._take()
                self._clock.sleep(max(at - self._shared.now(), 0.0))
                if self._shared.now() <= at + TURN_LIFE_S:
                    return
        finally:
            self._waiting -= 1

    def next_in_s(self) -> float:
        """Seconds until a new request would get a turn, from what was last read."""
        now = self._shared.now()
        at, _ = self._free(self._shared.document.get("taken", []), now, 1)
        return at - now + self._waiting * 60 / self._per_minute

    def _take(self) -> float:
        while self._unused and self._unused[0] + TURN_LIFE_S < self._shared.now():
            self._unused.popleft()
        if not self._unused:
            self._unused.extend(self._reserve())
        return self._unused.popleft()

    def _reserve(self) -> list[float]:
        """Record some turns and return their times."""
        at, number = 0.0, 0

        def update(document: dict[str, Any]) -> bool | None:
            nonlocal at, number
            now = self._shared.now() + self._write_s
            taken = [entry for entry in document.get("taken", []) if entry[0] > now - WINDOW_S]
            at, number = self._free(taken, now, max(self._batch, self._waiting))
            if at > now + AHEAD_S:
                return None
            document["taken"] = sorted([*taken, [round(at, 3), number]])
            return True

        while True:
            before = self._clock.monotonic()
            if self._shared.change(update):
                self._write_s = self._clock.monotonic() - before
                return [at] * number
            jitter_s = random.random()  # noqa: S311 - spreads requests, no security use
            self._clock.sleep(max(at - self._shared.now() - AHEAD_S, 0.0) + jitter_s)
            self._shared.read()  # other tasks may have taken the free turns meanwhile

    def _free(self, taken: Sequence[Sequence[float]], now: float, wanted: int) -> tuple[float, int]:
        """The first time from ``now`` on with a free turn, and how many of the ``wanted`` turns are free then."""
        count = sum(int(number) for _, number in taken)
        for at, number in taken:
            if count < self._per_minute:
                break
            count -= int(number)
            now = max(now, at + WINDOW_S)
        return now, max(min(wanted, self._per_minute - count), 1)
