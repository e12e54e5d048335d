"""Limits that all runs of a pipeline share: concurrent transcription jobs, and language model requests per minute.

Each limit is one object in the state area, changed only by conditional writes, so tasks on several machines respect it
together. Times in it are by the store's clock.

Nights go first: the runs of backfills get what nights neither have nor want. What is under way is not cancelled, so
they also leave some room for a night that begins.
"""

from __future__ import annotations

import math
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.state import layout
from callphases.state.shared_document import SharedDocument
from callphases.state.storage import ObjectPrefix

ENTRY_LIFE_S = 1800.0
"""A task whose entry is older than this is assumed to have no jobs any more."""
RUN_LIFE_S = 12 * 3600.0
"""How long it is remembered what a run has sent whose tasks have written nothing since."""
TYPICAL_JOB_S = 30.0
"""Assumed until a job was seen to end: most recordings are transcribed in less than 45 s."""
NIGHTS_SHARE = 0.1
"""What backfills leave of a limit, so that a night has something to begin with until theirs have ended."""
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
BACKFILL_AHEAD_S = 1.0
"""The same for tasks of backfills: a night that comes later waits for no more than that."""
BACKFILL_PARTS = 12
"""Backfills spread their turns over a minute, by so many parts of it. A night that needs more than they leave gets some
as soon as the next of these parts is over, and not a minute after a burst of theirs."""
NAP_S = 5.0
"""The longest sleep of a backfill that waits for a turn before it looks whether it may still wait."""
AFTER_NIGHT_S = 5.0
"""How long after a turn that a night had to wait for backfills still leave the next to nights."""


def left_to_backfills(limit: int, *, nights: bool) -> int:
    """How much of a limit backfills may have where no night wants any; at least 1.

    Args:
        limit: of all runs.
        nights: whether the pipeline has a schedule, so that there are nights.
    """
    return max(limit - max(round(NIGHTS_SHARE * limit), 1), 1) if nights else limit


class Slots:
    """One task's share of the transcription jobs that all runs of a pipeline may have at once.

    Args:
        state: ``output.state``.
        name: of the shared object.
        limit: concurrent jobs of all runs.
        run: the run's token.
        task: the task's name within the run.
        first: how many of the run's recordings come before this task's.
        total: how many the run has; what it has sent is forgotten once that is all of them.
        backfill_limit: concurrent jobs of all backfills, if the run is one of these; None if it is not.
        clock: times the pauses between attempts to write.
    """

    def __init__(
        self,
        state: ObjectPrefix,
        name: str,
        limit: int,
        run: str,
        task: str,
        first: int = 0,
        total: int = 0,
        *,
        backfill_limit: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._limit, self._run, self._task, self._first, self._total = limit, run, task, first, total
        self._backfill_limit = backfill_limit
        self._shared = SharedDocument(state, name, clock)
        self._held: int | None = None
        self._wants = 0

    def acquire(self, under_way: int, wanted: int, sent: int, job_s: float | None = None) -> int:
        """How many more jobs the task may submit now. Acquires slots that it needs and releases those it does not.

        Args:
            under_way: jobs that the task has at the service.
            wanted: jobs that it wants to submit.
            sent: how many of its recordings need no submission any more.
            job_s: how long a job takes, in seconds, if the task knows.
        """
        needed, is_first = under_way + wanted, self._held is None
        if self._held is None:
            # An earlier process of this task may have left slots, and jobs that use them.
            self._shared.read()
            mine = self._tasks().get(self._task, {})
            self._held, self._wants = mine.get("jobs", 0), mine.get("wants", 0)
        spare = self._held - needed
        # A task of a backfill asks again before it uses a slot again, as a night may want it by now.
        is_asking = spare < 0 or (self._backfill_limit is not None and wanted > 0)
        is_spare = spare > 0 and (needed == 0 or spare >= self._min_change)
        if is_asking or is_spare or self._wants:
            self._held = self._update(needed, under_way, sent, job_s, read_first=is_asking and not is_first)
        return max(min(self._held - under_way, wanted), 0)

    @property
    def _min_change(self) -> float:
        limit = self._limit if self._backfill_limit is None else min(self._limit, self._backfill_limit)
        return max(LEAST_SHARE * limit, 1)

    def expected_wait_s(self) -> float:
        """Seconds until slots for this task's first recordings are probably free, from its run's entries."""
        sent = sum(entry["sent"] for entry in self._tasks().values())
        ahead = max(self._first - sent, 0) + self._limit / 2
        return float(ahead / self._limit * self.job_s)

    @property
    def job_s(self) -> float:
        """How long a job takes, in seconds, as observed by tasks of any run."""
        return self._job_s or TYPICAL_JOB_S

    @property
    def is_job_s_known(self) -> bool:
        """Whether any task has seen a job end, not long ago."""
        return bool(self._job_s)

    @property
    def _job_s(self) -> float | None:
        seen = self._shared.document.get("job_s", {})
        return float(seen["s"]) if seen and self._shared.now() - seen["at"] < ENTRY_LIFE_S else None

    def _tasks(self) -> dict[str, Any]:
        """The entries of this task's run."""
        tasks: dict[str, Any] = self._shared.document.get("runs", {}).get(self._run, {}).get("tasks", {})
        return tasks

    def _update(self, needed: int, under_way: int, sent: int, job_s: float | None, *, read_first: bool) -> int:
        """Write how many slots the task holds, and return the number."""

        def update(document: dict[str, Any]) -> int | None:
            now = self._shared.now()
            runs = document.setdefault("runs", {})
            nights, backfills = self._others(runs, now)
            mine = runs.get(self._run, {}).get("tasks", {}).get(self._task, {})
            held, before = mine.get("jobs", 0), mine.get("wants", 0)
            wants = 0
            if self._backfill_limit is None:
                available = self._limit - nights.jobs - backfills.jobs
                if backfills.jobs:
                    wants = max(needed - max(available, under_way, 0), 0)
                if wants and before and abs(wants - before) < self._min_change:
                    wants = before
            else:
                available = min(self._limit - nights.jobs - nights.wants, self._backfill_limit) - backfills.jobs
            jobs: int = max(min(needed, available), under_way, 0)
            # A task of a backfill takes what there is, as nobody knows when a night leaves more.
            is_enough = self._backfill_limit is not None and not held
            if jobs < needed and 0 <= jobs - held < self._min_change and not is_enough:
                jobs = held  # too few more to be worth a write
            is_old = bool(mine) and now - mine.get("at", now) > ENTRY_LIFE_S / 2
            if (jobs, wants) == (held, before) and not is_old:
                return None
            self._forget(runs, now)
            run = runs.setdefault(self._run, {"tasks": {}})
            if self._backfill_limit is not None:
                run["backfill"] = True
            run["at"] = round(now, 1)
            entry = {"jobs": jobs, "at": round(now, 1), "sent": sent, "wants": wants}
            run["tasks"][self._task] = entry if jobs or wants else {"sent": sent}
            if not jobs and self._has_sent_all(run):
                del runs[self._run]
            if job_s is not None:
                document["job_s"] = {"s": round(job_s, 1), "at": round(now)}
            return jobs

        jobs = self._shared.change(update, read_first=read_first)
        self._wants = self._tasks().get(self._task, {}).get("wants", 0)
        if jobs is None:
            return self._held or 0
        return jobs

    def _others(self, runs: dict[str, Any], now: float) -> tuple[_Demand, _Demand]:
        """What the other tasks of nights have and want, and what those of backfills have."""
        nights, backfills = _Demand(), _Demand()
        for token, run in runs.items():
            of_class = backfills if run.get("backfill") else nights
            for task, entry in run["tasks"].items():
                is_other = (token, task) != (self._run, self._task)
                if is_other and "at" in entry and now - entry["at"] < ENTRY_LIFE_S:
                    of_class.jobs += entry["jobs"]
                    of_class.wants += entry["wants"]
        return nights, backfills

    def _forget(self, runs: dict[str, Any], now: float) -> None:
        for token in [token for token, run in runs.items() if now - run["at"] > RUN_LIFE_S]:
            del runs[token]

    def _has_sent_all(self, run: dict[str, Any]) -> bool:
        entries = run["tasks"].values()
        return all("at" not in entry for entry in entries) and sum(entry["sent"] for entry in entries) >= self._total


@dataclass
class _Demand:
    """Slots that tasks have, and those that they want besides."""

    jobs: int = 0
    wants: int = 0


class RateLimits:
    """Limits requests per minute to each language model, across all tasks and runs of a pipeline. Thread-safe.

    Every turn is recorded before it is used; no 60 seconds hold more than ``per_minute`` of them.

    Args:
        state: ``output.state``.
        per_minute: the limit for each model.
        backfill_limit: how many of these backfills may have, if the tasks are theirs; None if they are not.
        hold: called while a task of a backfill waits for a turn; may raise, which ends the wait.
        clock: waits for the turns.
    """

    def __init__(
        self,
        state: ObjectPrefix,
        per_minute: int,
        *,
        backfill_limit: int | None = None,
        hold: Callable[[], None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._state, self._per_minute, self._clock = state, per_minute, clock
        self._backfill_limit, self._hold = backfill_limit, hold
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
                shared = SharedDocument(self._state, layout.llm_limit(model), self._clock)
                if self._backfill_limit is None:
                    turns = _ModelTurns(shared, self._per_minute, self._clock)
                else:
                    turns = _BackfillTurns(shared, self._backfill_limit, self._clock, self._hold)
                self._by_model[model] = turns
            return self._by_model[model]


class _ModelTurns:
    """The turns of one model. The object holds the times of the last minute's turns, and how many each time has."""

    _ahead_s = AHEAD_S

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
        at, _ = self._next(self._shared.document, now, 1)
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
            document["taken"] = [entry for entry in document.get("taken", []) if entry[0] > now - WINDOW_S]
            at, number = self._next(document, now, max(self._batch, self._waiting))
            is_noted = self._note(document, at, now)
            if at > now + self._ahead_s:
                return False if is_noted else None
            document["taken"] = sorted([*document["taken"], [round(at, 3), number]])
            return True

        while True:
            before = self._clock.monotonic()
            if self._shared.change(update):
                self._write_s = self._clock.monotonic() - before
                return [at] * number
            jitter_s = random.random()  # noqa: S311 - spreads requests, no security use
            self._sleep(max(at - self._shared.now() - self._ahead_s, 0.0) + jitter_s)
            self._shared.read()  # other tasks may have taken the free turns meanwhile

    def _sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    def _next(self, document: dict[str, Any], now: float, wanted: int) -> tuple[float, int]:
        """The first time from ``now`` on with a free turn, and how many of the ``wanted`` turns are free then."""
        return _free(document.get("taken", []), now, wanted, self._per_minute, WINDOW_S)

    def _note(self, document: dict[str, Any], at: float, now: float) -> bool:
        """Tell the tasks of backfills until when they leave the turns to nights; whether that is news to them.

        It is only told where the turns of a backfill are among those that a night waits for.
        """
        until = at + AFTER_NIGHT_S
        if at <= now or document.get("backfill_at", 0.0) <= now - WINDOW_S or document.get("night_until", 0.0) >= at:
            return False
        document["night_until"] = round(until, 3)
        return True


class _BackfillTurns(_ModelTurns):
    """The turns that backfills have of one model: ``per_minute`` is what they may have of the limit."""

    _ahead_s = BACKFILL_AHEAD_S

    def __init__(self, shared: SharedDocument, per_minute: int, clock: Clock, hold: Callable[[], None]) -> None:
        super().__init__(shared, per_minute, clock)
        self._hold = hold

    def _take(self) -> float:
        self._hold()
        return super()._take()

    def _sleep(self, seconds: float) -> None:
        self._clock.sleep(min(seconds, NAP_S))
        self._hold()

    def _next(self, document: dict[str, Any], now: float, wanted: int) -> tuple[float, int]:
        taken = document.get("taken", [])
        now = max(now, document.get("night_until", 0.0))
        at, _ = _free(taken, now, wanted, self._per_minute, WINDOW_S)
        part_s, of_part = WINDOW_S / BACKFILL_PARTS, math.ceil(self._per_minute / BACKFILL_PARTS)
        at, of_part = _free([entry for entry in taken if entry[0] > at - part_s], at, wanted, of_part, part_s)
        return at, min(of_part, _free(taken, at, wanted, self._per_minute, WINDOW_S)[1])

    def _note(self, document: dict[str, Any], at: float, now: float) -> bool:  # noqa: ARG002
        document["backfill_at"] = round(at, 3)
        return False


def _free(taken: Sequence[Sequence[float]], now: float, wanted: int, limit: int, window_s: float) -> tuple[float, int]:
    """The first time from ``now`` on with a free turn, and how many of the ``wanted`` turns are free then.

    Args:
        taken: times of the turns that count from ``now`` on, in order, with how many each has.
        now: when a request would be sent at the earliest.
        wanted: how many turns.
        limit: how many turns a window may have.
        window_s: how long a turn counts.
    """
    count = sum(int(number) for _, number in taken)
    for at, number in taken:
        if count < limit:
            break
        count -= int(number)
        now = max(now, at + window_s)
    return now, max(min(wanted, limit - count), 1)
