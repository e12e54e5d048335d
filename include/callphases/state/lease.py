"""Who may pay for a day: one run at a time, until it ends or has not been heard of for a minute.

The lease of a day is one object, ``ledger/dt=<day>/lease.json``, that changes by conditional writes alone. A run that
is alive renews it whenever it is about to pay; one that was killed does not, and the next run takes the day over. Its
age is told by the store's own clock, so the clocks of workers need not agree. Every take-over begins a new term: who
has read the ledger in one term must read it again before paying in another.

What is paid for must be sent within ``FRESH_S`` of the last confirmation, and be answered or given up within the
speech client's time limit for submissions; both together are shorter than ``LIFE_S``, so no two runs ever pay at once.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from callphases.errors import AccountError, DayHeld, RunStopped, ServiceUnavailable
from callphases.state.storage import ObjectPrefix, StoredObject

LIFE_S = 60.0
"""How long a lease lasts without being renewed."""
FRESH_S = 20.0
"""How long a confirmation may be acted upon."""
TRIES = 10
NAP_S = 5.0


def has_run(state: ObjectPrefix, day: dt.date) -> bool:
    """Whether any run has ever taken a day."""
    return state.look(_name(day)) is not None


@dataclass
class Lease:
    """The right of one run to pay for a day; shared by the run's tasks, which all give the same ``run_token``.

    ``task`` names the one that uses this object; None is one that goes on when the run was stopped, to publish what is
    there. Safe to use from the threads of a task.
    """

    state: ObjectPrefix
    day: dt.date
    run_token: str
    task: str | None = None
    fencing_token: int = 0
    stopped: str | None = None
    """Why the run was stopped, where it was: the message of another of its tasks."""
    began: dt.datetime | None = None
    """When the run's first task began to submit."""
    object_name: str = ""
    """The lease's object below ``state``; the day's own if empty."""
    held_message: str = ""
    """The message of DayHeld while another run has the lease; empty: that it works on the day."""
    index: str | None = None
    """Which listing of an archive the day's recordings were last taken from: by the former run, until this one has said
    so."""
    _confirmed_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> int:
        """Take the lease, or renew it where this run has it; returns the term.

        Raises:
            DayHeld: a run that is alive has it.
            RunStopped: another task of this run has stopped the run.
        """
        for _ in range(TRIES):
            before = time.monotonic()
            stored = self.state.look(self._name)
            if stored is None:
                document = self._document(fencing_token=1)
            else:
                document = json.loads(stored.body)
                if document["holder"] != self.run_token:
                    if not document["released"] and stored.age_s < LIFE_S:
                        raise DayHeld(
                            self.held_message
                            or f"The run {document['holder']} works on the day {self.day}; waiting until it has ended.",
                            LIFE_S - stored.age_s,
                        )
                    document = self._document(document["term"] + 1, document.get("index"))
                elif document["stopped"] and self.task not in (None, document["stopped"]["task"]):
                    raise RunStopped(f"{document['stopped']['task']} stopped the run: {document['stopped']['message']}")
                elif not document["released"] and not document["stopped"] and stored.age_s < FRESH_S:
                    self._note(document)
                    self.fencing_token, self._confirmed_at = document["term"], before - stored.age_s
                    return self.fencing_token
                else:
                    document["released"] = False
                    if self.task is not None:
                        document["stopped"] = None  # by this very task, which someone has started again
                self.stopped = document["stopped"] and document["stopped"]["message"]
                self._note(document)
            if self._write(document, stored):
                self.fencing_token, self._confirmed_at = document["term"], before
                return self.fencing_token
        raise ServiceUnavailable(
            f"The lease of {self.day} can't be written below output.state; its store must do conditional writes."
        )

    @property
    def is_fresh(self) -> bool:
        """Whether the lease was confirmed less than ``FRESH_S`` ago, so that a paid request may be sent now."""
        return time.monotonic() - self._confirmed_at < FRESH_S

    def hold(self) -> None:
        """Confirm the lease unless it is fresh; it is fresh when this returns.

        Raises:
            DayHeld: another run has had the day since; its ledger must be read again.
            RunStopped: as ``take``.
            ServiceUnavailable: the store takes so long to confirm the lease that it is never fresh.
        """
        with self._lock:
            for _ in range(TRIES):
                if self.is_fresh:  # checked after each confirmation too: a slow store may use up the whole period
                    return
                fencing_token = self.fencing_token
                if self.take() != fencing_token:
                    raise DayHeld(f"Another run has worked on the day {self.day} meanwhile; it is read again.", 0)
        raise ServiceUnavailable(
            f"The lease of {self.day} could not be confirmed within {FRESH_S:.0f} s: the store of output.state is slow."
        )

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
        """Tell the run's other tasks that going on is useless."""
        self._mark(stopped={"task": self.task, "message": str(error)})

    def retire(self) -> None:
        """Return when no task of this run can pay any more, though one of them was lost and may be alive.

        Its next confirmation fails, and what it sent on the strength of the last one is answered or given up within
        the life of a lease. A task of this run that is started again later takes the lease as usual.
        """
        self._mark(stopped={"task": None, "message": "The day is published; a task that was lost must not go on."})
        retired_at = time.monotonic()
        while (left_s := retired_at + LIFE_S - time.monotonic()) > 0:
            time.sleep(min(left_s, NAP_S))
            self.hold()
        self._mark(again=True, stopped=None)

    def release(self) -> None:
        """Let the next run begin at once."""
        self._mark(released=True)
        self._confirmed_at = float("-inf")

    @property
    def _name(self) -> str:
        return self.object_name or _name(self.day)

    def _document(self, fencing_token: int, index: str | None = None) -> dict[str, Any]:
        return {
            "holder": self.run_token,
            "term": fencing_token,
            "released": False,
            "stopped": None,
            "began": None,
            "index": index,
        }

    def _note(self, document: dict[str, Any]) -> None:
        self.began = dt.datetime.fromisoformat(document["began"]) if document["began"] else None
        self.index = document.get("index")  # earlier versions wrote none

    def _mark(self, again: bool = False, **marks: Any) -> None:
        """Change what the lease says, unless it is another run's by now; or, if not ``again``, says so already."""
        for _ in range(TRIES):
            stored = self.state.look(self._name)
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
        return self.state.put_if_match(self._name, body, stored.etag if stored is not None else None) is not None


def _name(day: dt.date) -> str:
    return f"ledger/dt={day}/lease.json"
