"""What the tasks of a run share of the services' limits: jobs at once, and requests a minute.

Each limit is one object in the state area that changes by conditional writes alone, so tasks on several machines keep
to it together. Moments in it are of the store's own clock.
"""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from callphases.errors import ServiceUnavailable
from callphases.state import layout
from callphases.state.storage import ObjectPrefix

TRIES = 40
"""Of a conditional write that others were faster with; each means that one of them got on."""
LONGEST_PAUSE_S = 0.5
ENTRY_LIFE_S = 1800.0
"""A task that was not heard of for so long has no jobs at the service any more, for all that anyone knows."""
TYPICAL_JOB_S = 30.0
"""Most recordings are transcribed in less than 45 s; taken where the run has not seen a job end yet."""
LEAST_SHARE = 0.05
"""Room is taken and given back by this part of the limit at least: each time costs a write."""
WINDOW_S = 63.0
"""What counts as a minute: longer by what a request may be late, and by what two machines' idea of the time differs."""
TURN_LIFE_S = 1.0
"""How late a turn may be used; later requests would stand in another minute than the one they were counted in."""
TURNS_FOR_S = 0.5
"""A task takes the turns of about so long at once, or one for each thread that waits: not each is worth a write."""
AHEAD_S = 20.0
"""How far ahead turns are taken: those of a task that dies are lost to the others."""
_T = TypeVar("_T")


class _Shared:
    """One JSON object that several tasks change."""

    def __init__(self, state: ObjectPrefix, name: str) -> None:
        self._state, self._name = state, name
        self.document: dict[str, Any] = {}
        self._etag: str | None = None
        self._earliest, self._latest = float("-inf"), float("inf")

    def now(self) -> float:
        """The store's clock, in seconds since 1970, as far as it is known here."""
        if self._latest == float("inf"):
            return time.time()
        return time.time() + (self._earliest + self._latest) / 2

    def look(self) -> dict[str, Any]:
        """Read it."""
        stored = None
        for _ in range(TRIES):
            before = time.time()
            stored = self._state.look(self._name)
            after = time.time()
            if stored is not None:
                break
            self._state.put_if_match(self._name, b"{}", None)  # what is not there does not tell the store's time
        if stored is None:
            raise self._not_written()
        self.document, self._etag = json.loads(stored.body), stored.etag
        if stored.read_at is not None:  # whole seconds: it is somewhere in the second that follows
            self._earliest = max(self._earliest, stored.read_at - after)
            self._latest = max(min(self._latest, stored.read_at + 1 - before), self._earliest)
        return self.document

    def change(self, how: Callable[[dict[str, Any]], _T | None], *, afresh: bool = False) -> _T | None:
        """Change it by ``how``, which returns None where there is nothing to change.

        Args:
            how: gets the document and changes it; called again with what others have made of it.
            afresh: whether to read it first; without, what was last seen is tried.

        Raises:
            ServiceUnavailable: others were faster each time.
        """
        if afresh or self._etag is None:
            self.look()
        for attempt in range(TRIES):
            document = json.loads(json.dumps(self.document))
            result = how(document)
            if result is None:
                return None
            body = json.dumps({**document, "write": uuid.uuid4().hex}, separators=(",", ":")).encode()
            etag = self._state.put_if_match(self._name, body, self._etag)
            if etag is not None:
                self.document, self._etag = document, etag
                return result
            time.sleep(random.random() * min(LONGEST_PAUSE_S, 0.05 * (attempt + 1)))  # noqa: S311 - guards nothing
            self.look()
        raise self._not_written()

    def _not_written(self) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"{self._state.uri}{self._name} can't be written; its store must do conditional writes."
        )


@dataclass
class Slots:
    """How many jobs one task of a run may have at the speech service, of all that the run may have.

    Args:
        state: ``output.state``.
        name: of the run's object.
        limit: jobs that the run may have at once.
        task: names this task in the run.
        first: how many recordings of the run come before this task's.
    """

    state: ObjectPrefix
    name: str
    limit: int
    task: str
    first: int = 0
    _shared: _Shared = field(init=False)
    _held: int | None = None

    def __post_init__(self) -> None:
        self._shared = _Shared(self.state, self.name)

    def room(self, under_way: int, wanted: int, sent: int, job_s: float | None = None) -> int:
        """How many jobs more may be submitted now.

        Args:
            under_way: jobs that this task has at the service.
            wanted: how many it would submit.
            sent: how many of its recordings need no submission any more.
            job_s: how long jobs take, in seconds, as far as this task knows.
        """
        needed = under_way + wanted
        if self._held is None:
            # What an earlier process of this task held is still there, and so may its jobs be.
            entry = self._shared.look().get("tasks", {}).get(self.task)
            self._held = entry["jobs"] if entry else 0
        spare = self._held - needed
        if spare < 0 or (spare > 0 and (needed == 0 or spare >= self._least)):
            self._held = self._ask(needed, under_way, sent, job_s)
        return max(min(self._held - under_way, wanted), 0)

    @property
    def _least(self) -> float:
        return max(LEAST_SHARE * self.limit, 1)

    def turn_in_s(self) -> float:
        """In how many seconds there may be room for this task's first recordings, by what the run's tasks said last."""
        document = self._shared.document
        sent = sum(entry["sent"] for entry in document.get("tasks", {}).values())
        ahead = max(self.first - sent, 0) + self.limit / 2
        return float(ahead / self.limit * self.job_s)

    @property
    def job_s(self) -> float:
        """How long a job takes, in seconds, as the run's tasks have seen it."""
        return float(self._shared.document.get("job_s") or TYPICAL_JOB_S)

    @property
    def is_job_s_known(self) -> bool:
        """Whether any of the run's tasks has seen a job end."""
        return bool(self._shared.document.get("job_s"))

    def _ask(self, needed: int, under_way: int, sent: int, job_s: float | None) -> int:
        def change(document: dict[str, Any]) -> int | None:
            now = self._shared.now()
            tasks = document.setdefault("tasks", {})
            mine = tasks.get(self.task, {"jobs": 0})
            others = sum(
                entry["jobs"] for task, entry in tasks.items() if task != self.task and now - entry["at"] < ENTRY_LIFE_S
            )
            jobs: int = max(min(needed, self.limit - others), under_way, 0)
            if jobs < needed and 0 <= jobs - mine["jobs"] < self._least:
                return None  # no room that is worth a write
            tasks[self.task] = {"jobs": jobs, "at": round(now, 1), "sent": sent}
            if job_s is not None:
                document["job_s"] = round(job_s, 1)
            return jobs

        jobs = self._shared.change(change, afresh=self._held is not None and needed > self._held)
        if jobs is None:
            return self._held or 0
        return jobs


class RateLimits:
    """Requests a minute to each language model, kept over all tasks of all runs of a pipeline.

    Every turn is written down before it is used; no 60 seconds hold more than ``per_minute`` of them. Safe to use from
    the threads of a task.

    Args:
        state: ``output.state``.
        per_minute: the limit of each model.
    """

    def __init__(self, state: ObjectPrefix, per_minute: int) -> None:
        self._state, self._per_minute = state, per_minute
        self._models: dict[str, _Turns] = {}
        self._lock = threading.Lock()

    def await_turn(self, model: str) -> None:
        """Wait until a request to ``model`` may be sent."""
        self._of(model).wait()

    def soonest(self, models: Sequence[str]) -> str:
        """The model of ``models`` that a request may be sent to first."""
        return min(models, key=lambda model: self._of(model).next_in_s())

    def _of(self, model: str) -> _Turns:
        with self._lock:
            if model not in self._models:
                self._models[model] = _Turns(_Shared(self._state, layout.llm_limit(model)), self._per_minute)
            return self._models[model]


class _Turns:
    """The turns of one model. The object holds the moments of the last minute's and how many were taken for each."""

    def __init__(self, shared: _Shared, per_minute: int) -> None:
        self._shared, self._per_minute = shared, per_minute
        self._at_once = max(round(per_minute / 60 * TURNS_FOR_S), 1)
        self._unused: deque[float] = deque()
        self._write_s = 0.0
        self._waiting = 0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for a turn; one that comes too late to be used is lost."""
        self._waiting += 1
        try:
            while True:
                with self._lock:  # one thread at a time asks the store; the others stand behind it
                    moment = self._take()
                time.sleep(max(moment - self._shared.now(), 0.0))
                if self._shared.now() <= moment + TURN_LIFE_S:
                    return
        finally:
            self._waiting -= 1

    def next_in_s(self) -> float:
        """In how many seconds a turn may come for who asks for one now, by what is known here."""
        now = self._shared.now()
        moment, _ = self._free(self._shared.document.get("taken", []), now, 1)
        return moment - now + self._waiting * 60 / self._per_minute

    def _take(self) -> float:
        while self._unused and self._unused[0] + TURN_LIFE_S < self._shared.now():
            self._unused.popleft()
        if not self._unused:
            self._unused.extend(self._reserve())
        return self._unused.popleft()

    def _reserve(self) -> list[float]:
        moment, number = 0.0, 0

        def change(document: dict[str, Any]) -> bool | None:
            nonlocal moment, number
            now = self._shared.now() + self._write_s
            taken = [entry for entry in document.get("taken", []) if entry[0] > now - WINDOW_S]
            moment, number = self._free(taken, now, max(self._at_once, self._waiting))
            if moment > now + AHEAD_S:
                return None
            document["taken"] = sorted([*taken, [round(moment, 3), number]])
            return True

        while True:
            before = time.monotonic()
            if self._shared.change(change):
                self._write_s = time.monotonic() - before
                return [moment] * number
            # By then others may have taken what is free now, so it is read again.
            time.sleep(max(moment - self._shared.now() - AHEAD_S, 0.0) + random.random())  # noqa: S311 - guards nothing
            self._shared.look()

    def _free(self, taken: Sequence[Sequence[float]], now: float, wanted: int) -> tuple[float, int]:
        """The first moment from ``now`` on at which a minute has room, and for how many turns of those ``wanted``."""
        count = sum(int(number) for _, number in taken)
        for moment, number in taken:
            if count < self._per_minute:
                break
            count -= int(number)
            now = max(now, moment + WINDOW_S)
        return now, max(min(wanted, self._per_minute - count), 1)
