"""Who may pay for a day: one run at a time, until it ends or has not been heard of for a minute.

The lease of a day is one object that changes by conditional writes alone. A run renews it whenever it is about to pay;
a run that was killed does not, and the next run takes the day over. The lease's age is told by the store's own clock,
so the clocks of workers need not agree. Each take-over raises the fencing token: a run that has read the ledger under
one token must read it again before it pays under another.

A paid request must be sent within ``FRESH_S`` of the last confirmation. A submission is answered or given up within the
speech client's time limit after that. Both together are shorter than ``LIFE_S``, so no two runs ever pay at once.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.day_range import DayRange, Span, parse_span
from callphases.errors import AccountError, DayHeld, RunStopped, ServiceUnavailable
from callphases.state import layout
from callphases.state.storage import ObjectPrefix, StoredObject

LIFE_S = 60.0
"""How long a lease lasts without being renewed."""
FRESH_S = 20.0
"""How long a confirmation allows paid requests."""
TRIES = 10
NAP_S = 5.0
"""The longest sleep between two looks at the lease."""


def has_run(state: ObjectPrefix, day: dt.date) -> bool:
    """Whether any run has ever taken a day."""
    return state.look(layout.lease(day)) is not None


@dataclass(frozen=True)
class Holder:
    """Who has the lease of a day or of a run over several, or had it last.

    Attributes:
        is_released: whether the run has ended, and said so.
        silent_s: seconds since the run last renewed it, by the store's clock.
        began: when the run's first task began to submit; None if none has.
        days: the range of the run over several days that has claimed this day, if one has.
    """

    is_released: bool
    silent_s: float
    began: dt.datetime | None = None
    days: DayRange | None = None


def holder_of(state: ObjectPrefix, span: Span) -> Holder | None:
    """Who has the lease of a day or of a run over several; None if nobody ever took it."""
    stored = state.look(layout.lease(span))
    if stored is None:
        return None
    document = json.loads(stored.body)
    days = parse_span(document["range"]) if document.get("range") else None
    return Holder(
        is_released=document["released"],
        silent_s=stored.age_s,
        began=dt.datetime.fromisoformat(document["began"]) if document["began"] else None,
        days=days if isinstance(days, DayRange) else None,
    )


class Lease:
    """The right of one run to pay for a day. Safe to use from the threads of a task.

    A day that a run over several days has says so (``range``); that run's own lease, a ``RangeLease``, is the one that
    it renews, and a run that takes over such a day takes that one away too.

    Args:
        state: ``output.state``.
        day: of the calls.
        run_token: names the run; all of its tasks give the same.
        task: the task that uses this object. None: one that goes on when the run was stopped, to publish what there is.
        object_name: the lease's object, where it is not that of the day.
        held_message: what to say where another run has it, in place of that run's name.
        clock: tells how long ago the lease was confirmed.

    Attributes:
        fencing_token: of the last take-over; 0 before ``take``.
        stopped: the message of the task that stopped the run; None where none did.
        began: when the run's first task began to submit.
        index: the listing of an archive that the day's recordings were last taken from: by the previous run, until
            this one has said so.
        days_to_read: days whose ledger the run has to read if nobody has read it under this fencing token.
    """

    def __init__(
        self,
        state: ObjectPrefix,
        day: Span,
        run_token: str,
        task: str | None = None,
        *,
        object_name: str | None = None,
        held_message: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.state, self.day, self.run_token, self.task = state, day, run_token, task
        self.clock = clock
        self.fencing_token = 0
        self.stopped: str | None = None
        self.began: dt.datetime | None = None
        self.index: str | None = None
        self.days_to_read: list[dt.date] = [] if isinstance(day, DayRange) else [day]
        self._object = object_name or layout.lease(day)
        self._held_message = held_message
        self._confirmed_at = -math.inf
        self._lock = threading.Lock()

    def take(self) -> int:
        """Take the lease, or renew it where this run has it; returns the fencing token.

        Raises:
            DayHeld: a run that is alive has it.
            RunStopped: another task of this run has stopped the run.
        """
        self.fencing_token, self._confirmed_at = self._take()
        return self.fencing_token

    def _take(self) -> tuple[int, float]:
        """As ``take``; returns the fencing token, and when the lease was confirmed."""
        for _ in range(TRIES):
            before = self.clock.monotonic()
            stored = self.state.look(self._object)
            if stored is None:
                document = self._document(fencing_token=1)
            else:
                document = json.loads(stored.body)
                stop = document["stopped"]
                if document["holder"] != self.run_token:
                    term = self._end(document, stored)
                    document = self._document(term + 1, document.get("index"), document.get("ranges", []))
                elif stop and self.task not in (None, stop["task"]):
                    raise RunStopped(f"{stop['task']} stopped the run: {stop['message']}")
                elif not document["released"] and not stop and stored.age_s < FRESH_S:
                    # Another task of the run has just renewed it.
                    self._note(document)
                    return document["term"], before - stored.age_s
                else:
                    document["released"] = False
                    if self.task is not None:
                        document["stopped"] = None  # by this very task, which someone has started again
                self.stopped = document["stopped"] and document["stopped"]["message"]
                self._note(document)
            if self._write(document, stored):
                return document["term"], before
        raise ServiceUnavailable(
            f"The lease of {self.day} can't be written below output.state; its store must do conditional writes."
        )

    def _end(self, document: dict[str, Any], stored: StoredObject) -> int:
        """Make sure that the holder of a lease can't pay any more; returns its highest fencing token.

        Raises:
            DayHeld: it is alive.
        """
        term: int = document["term"]
        if document["released"]:
            return term
        if not document.get("range"):
            if stored.age_s < LIFE_S:
                raise self._day_held(document["holder"], LIFE_S - stored.age_s)
            return term
        name = layout.lease(parse_span(document["range"]))
        for _ in range(TRIES):
            of_range = self.state.look(name)
            if of_range is None:
                return term
            range_document = json.loads(of_range.body)
            term = max(term, range_document["term"])
            if range_document["holder"] != document["holder"] or range_document["released"]:
                return term
            if of_range.age_s < LIFE_S:
                raise self._day_held(document["holder"], LIFE_S - of_range.age_s)
            ended = {**range_document, "term": term + 1, "released": True, "write": uuid.uuid4().hex}
            if self.state.put_if_match(name, json.dumps(ended).encode(), of_range.etag) is not None:
                return term + 1
        raise self._day_held(document["holder"], LIFE_S)

    @property
    def is_fresh(self) -> bool:
        """Whether the lease was confirmed less than ``FRESH_S`` ago, so that a paid request may be sent now."""
        return self.clock.monotonic() - self._confirmed_at < FRESH_S

    def hold(self) -> None:
        """Confirm the lease unless it is fresh; it is fresh when this returns.

        Raises:
            DayHeld: another run has had the day since; its ledger must be read again. The lease is not fresh from then
                on, for no thread of the task, and keeps its fencing token.
            RunStopped: as ``take``.
            ServiceUnavailable: the store takes so long to confirm the lease that it is never fresh.
        """
        with self._lock:
            for _ in range(TRIES):
                if self.is_fresh:  # checked after each confirmation too: a slow store may use up the whole period
                    return
                token, confirmed_at = self._take()
                if token != self.fencing_token:
                    raise DayHeld(f"Another run has worked on the day {self.day} meanwhile; it is read again.", 0)
                self._confirmed_at = confirmed_at
        raise ServiceUnavailable(
            f"The lease of {self.day} could not be confirmed within {FRESH_S:.0f} s: the store of output.state is slow."
        )

    def sleep(self, seconds: float) -> None:
        """Wait, and renew the lease meanwhile; raises as ``hold``."""
        until = self.clock.monotonic() + seconds
        while (left_s := until - self.clock.monotonic()) > 0:
            self.clock.sleep(min(left_s, NAP_S))
            self.hold()

    def begin(self) -> dt.datetime:
        """When the run's first task began to submit, which is now if none has."""
        if self.began is None:
            now = dt.datetime.now(dt.UTC)
            self._mark(began=now.isoformat())
            self.began = self.began or now
        return self.began

    def take_from(self, index: str) -> None:
        """Tell the day's next run which listing of an archive this one has taken its recordings from."""
        self._mark(again=True, index=index)
        self.index = index

    def stop(self, error: AccountError) -> None:
        """Tell the run's other tasks that every further call would fail."""
        self._mark(stopped={"task": self.task, "message": str(error)})

    def retire(self) -> None:
        """Return when no task of this run can pay any more, though one of them was lost and may be alive.

        Its next confirmation fails, and what it sent on the strength of the last one is answered or given up within
        the life of a lease. A task of this run that is started again later takes the lease as usual.
        """
        self._mark(stopped={"task": None, "message": "The day is published; a task that was lost must not go on."})
        self.sleep(LIFE_S)
        self._mark(again=True, stopped=None)

    def release(self) -> None:
        """Let the next run begin at once."""
        self._mark(released=True)
        self._confirmed_at = -math.inf

    def _day_held(self, run_token: str, wait_s: float) -> DayHeld:
        return DayHeld(
            self._held_message or f"The run {run_token} works on the day {self.day}; waiting until it has ended.",
            wait_s,
        )

    def _document(
        self, fencing_token: int, index: str | None = None, ranges: Sequence[Sequence[str]] = ()
    ) -> dict[str, Any]:
        """A lease that was just taken; ``holder`` and ``term`` are the run token and the fencing token."""
        return {
            "holder": self.run_token,
            "term": fencing_token,
            "released": False,
            "stopped": None,
            "began": None,
            "index": index,
            **({"ranges": list(ranges)} if ranges else {}),
        }

    def _note(self, document: dict[str, Any]) -> None:
        self.began = dt.datetime.fromisoformat(document["began"]) if document["began"] else None
        self.index = document.get("index")  # earlier versions wrote none

    def _mark(self, again: bool = False, **marks: Any) -> None:
        """Change what the lease says, unless another run has it by now; or, if not ``again``, it says so already."""
        for _ in range(TRIES):
            stored = self.state.look(self._object)
            document = json.loads(stored.body) if stored is not None else None
            if document is None or document["holder"] != self.run_token:
                return
            self._note(document)
            if not again and all(document[name] for name in marks):
                return
            if self._write({**document, **marks}, stored):
                return

    def _write(self, document: dict[str, Any], stored: StoredObject | None) -> bool:
        body = json.dumps({**document, "write": uuid.uuid4().hex}).encode()  # unlike every other writer's
        return self.state.put_if_match(self._object, body, stored.etag if stored is not None else None) is not None
