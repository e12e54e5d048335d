"""What has been paid for, and how to find it again: a day's events, in the state area.

Each task that pays writes one object, ``ledger/dt=<day>/<run>/<task>.jsonl``, a line an event, and replaces it as a
whole by conditional PUTs: many events a request, and a second process of the same task is noticed. Once it is long the
task goes on in another, ``<task>.1.jsonl``, so that what a write costs does not grow with the night. The ledger of a
day is what all of its objects say. A task need not read them all: the listing hands it what is known of its
recordings, which stays true while the run has the day's lease (see lease.py) and is read anew where another run has
had it in between.

The key of a transcript follows from the recording's bucket, key and ETag and from the options of the transcription;
the key of an answer from the transcript and everything that the model is asked. So a changed prompt asks the model
again and transcribes nothing, and a changed option transcribes again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from callphases.errors import CallFailure, ServiceUnavailable
from callphases.recordings import Recording
from callphases.state.lease import FRESH_S, LIFE_S, TRIES, Lease
from callphases.state.storage import ObjectPrefix

Event = dict[str, Any]

FINAL = frozenset({"transcribed", "answered", "deleted"})
"""Events that no other of the same key takes back."""
WRITE_EVERY_S = 20.0
"""How long events that can be had again (from the provider) may wait for others to share a PUT with."""
READERS = 8
NAP_S = 5.0
SEGMENT_BYTES = 1 << 18
"""From this size on an object is not written any more. Who has read it knows so: two processes go on in the same next
one, and the second of them is noticed there."""


def failed(key: str, failure: CallFailure, **more: Any) -> Event:
    """The event of a failure."""
    return {
        "event": "failed",
        "key": key,
        "failure_class": failure.failure_class,
        "failure_message": str(failure),
        "permanent": failure.permanent,
        **more,
    }


def digest(*parts: object) -> str:
    """32 hex digits over the parts' JSON."""
    document = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(document.encode()).hexdigest()[:32]


def transcript_key(recording: Recording, options: dict[str, Any]) -> str:
    """The key of what is paid for when ``recording`` is transcribed with ``options``."""
    return digest(recording.bucket, recording.key, recording.etag, options)


def answer_key(transcript: str, question: object) -> str:
    """The key of a model's answer: the transcript's key and everything that the question holds besides it."""
    return digest(transcript, question)


def stop_key(transcript: str) -> str:
    """The key of why a run did not finish a recording."""
    return f"stopped/{transcript}"


class LedgerView:
    """Events, the last of each key winning; a final one wins for good.

    An event is a dict with ``event`` (``intended``, ``withdrawn``, ``submitted``, ``transcribed``, ``answered``,
    ``failed``, ``stopped`` or ``deleted``), ``key``, ``recording`` (its key in the bucket), ``at``, ``term``,
    ``run_id`` and what belongs to it. Safe to use from the threads of a task.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, Event] = {}
        self._seen: set[tuple[str, str, str]] = set()
        self._of_recording: dict[str, list[Event]] = {}
        self.learn(events)

    def learn(self, events: Iterable[Event]) -> None:
        """Take in what was written, by whomever and in any order."""
        with self._lock:
            for event in events:
                mark = (event["key"], event["event"], event["at"])
                if mark in self._seen:
                    continue
                self._seen.add(mark)
                self._of_recording.setdefault(event.get("recording", ""), []).append(event)
                last = self._last.get(event["key"])
                if last is None or _rank(event) >= _rank(last):
                    self._last[event["key"]] = event

    def find(self, key: str) -> Event | None:
        """What holds for ``key``."""
        with self._lock:
            return self._last.get(key)

    def settled(self, key: str, since: dt.datetime, *, replay: bool = False) -> bool:
        """Whether nothing is to be done for ``key`` by a pass over the day that began at ``since``.

        What failed for good is settled, unless the pass is a ``replay``, and so is what failed in this very pass; an
        older failure that may pass is not, nor is a failure that is worth another try at once (``again``).
        """
        event = self.find(key)
        if event is None or event["event"] in ("intended", "withdrawn"):
            return False
        if event["event"] != "failed":
            return True
        if event["permanent"] and not replay:
            return True
        return dt.datetime.fromisoformat(event["at"]) >= since and not event.get("again")

    def of(self, recordings: Collection[Recording]) -> list[Event]:
        """All events of some recordings, whatever the options and the bytes were."""
        with self._lock:
            unnamed = self._of_recording.get("", [])  # an early version did not write which recording it was
            return [*unnamed, *(event for one in recordings for event in self._of_recording.get(one.key, []))]

    def all(self) -> list[Event]:
        """Every event."""
        with self._lock:
            return [event for events in self._of_recording.values() for event in events]


def _rank(event: Event) -> tuple[bool, int, str]:
    # Terms are in order whatever the clocks of workers say.
    return event["event"] in FINAL, event.get("term", 0), event["at"]


def read_ledger_day(state: ObjectPrefix, day: dt.date) -> LedgerView:
    """All that is known of a day: one LIST, and one GET for each object."""
    names = [name for name in state.names(f"ledger/dt={day}/") if name.endswith(".jsonl")]
    known = LedgerView()
    with ThreadPoolExecutor(READERS) as pool:
        for body in pool.map(state.get, names):
            known.learn(_events(body))
    return known


def read_task(state: ObjectPrefix, day: dt.date, run_token: str, name: str) -> list[Event]:
    """What one task of a run has written."""
    events: list[Event] = []
    for number in count():
        body = state.get(_segment(day, run_token, name, number))
        events += _events(body)
        if body is None or len(body) < SEGMENT_BYTES:
            return events
    raise AssertionError


def _segment(day: dt.date, run_token: str, name: str, number: int) -> str:
    return f"ledger/dt={day}/{run_token}/{name}{f'.{number}' if number else ''}.jsonl"


def _events(body: bytes | None) -> list[Event]:
    return [json.loads(line) for line in (body or b"").splitlines()]


@dataclass
class Ledger(LedgerView):
    """What one task knows, and where it writes.

    Args:
        state: ``output.state``.
        lease: the lease of the day, taken; ``lease.run_token`` is the run's folder.
        run_id: is written into every event.
        name: of the task's object, unique in the run.
    """

    state: ObjectPrefix
    lease: Lease
    run_id: str
    name: str
    _written: list[Event] = field(default_factory=list)
    _unwritten: list[Event] = field(default_factory=list)
    _number: int = 0
    _body: bytes = b""
    _etag: str | None = None
    _put_at: float = float("-inf")
    _quiet_at: float = float("-inf")
    _silent_at: float = float("-inf")

    def __post_init__(self) -> None:
        super().__init__()
        self._writing = threading.Lock()

    @classmethod
    def open(
        cls,
        state: ObjectPrefix,
        lease: Lease,
        run_id: str,
        name: str,
        known: Iterable[Event] = (),
        fencing_token: int = 0,
    ) -> Ledger:
        """Take the lease, and read what is known: all of the day, unless it is ``known`` already.

        Args:
            state: ``output.state``.
            lease: the day's lease.
            run_id: is written into every event.
            name: of the task's object, unique in the run.
            known: all that was known of what this task is about when the run began.
            fencing_token: the lease's term then.

        Raises:
            DayHeld, RunStopped: as ``Lease.take``.
        """
        ledger = cls(state, lease, run_id, name)
        if lease.take() != fencing_token:
            known = read_ledger_day(state, lease.day).all()
        ledger.learn(known)
        stored = state.look(ledger._object)
        while stored is not None:
            ledger._written += _events(stored.body)
            ledger._body, ledger._etag = stored.body, stored.etag
            read_at = time.monotonic()
            ledger._quiet_at, ledger._silent_at = read_at + LIFE_S - stored.age_s, read_at + FRESH_S - stored.age_s
            if len(stored.body) < SEGMENT_BYTES:
                break
            ledger._next()
            stored = state.look(ledger._object)
        ledger.learn(ledger._written)
        if not any((ledger.find(event["key"]) or event)["event"] == "intended" for event in ledger._written):
            ledger._quiet_at = float("-inf")
        if not any(event["event"] == "claimed" for event in ledger._written):
            ledger._silent_at = float("-inf")
        return ledger

    @property
    def day(self) -> dt.date:
        """The day of the calls."""
        return self.lease.day

    @property
    def own(self) -> list[Event]:
        """What this task has written, or will, in all of its tries."""
        with self._writing:
            return [*self._written, *self._unwritten]

    @property
    def quiet_in_s(self) -> float:
        """In how many seconds an earlier process of this task can't be paying any more."""
        return max(self._quiet_at - time.monotonic(), 0.0)

    def replace_earlier_process(self) -> None:
        """Return when no earlier process of this task can send another question.

        It can't once this process has written the object and what the other confirmed before is no longer fresh. A
        question that it has sent by then may still be answered, and that answer is lost, as after a kill.

        Raises:
            DayHeld, RunStopped, ServiceUnavailable: as ``hold``.
        """
        if self._silent_at <= time.monotonic():
            return
        self.hold()
        while (left_s := self._silent_at - time.monotonic()) > 0:
            time.sleep(min(left_s, NAP_S))
            self.lease.hold()

    @property
    def _object(self) -> str:
        return _segment(self.day, self.lease.run_token, self.name, self._number)

    def _next(self) -> None:
        self._number += 1
        self._body, self._etag = b"", None

    def write(self, events: Iterable[Event] = ()) -> None:
        """Make events durable, with all that were noted, by one PUT; they are known here once they are.

        Raises:
            ServiceUnavailable: another process works on this task.
        """
        with self._writing:
            stamped = self._stamped(events)
            if stamped or self._unwritten:
                self._put(self._unwritten + stamped)
                self.learn(stamped)

    def note(self, events: Iterable[Event], every_s: float = WRITE_EVERY_S) -> None:
        """Know events at once, and make them durable with the next PUT, or now if the last is ``every_s`` ago."""
        with self._writing:
            stamped = self._stamped(events)
            self.learn(stamped)
            self._unwritten += stamped
            if self._unwritten and time.monotonic() - self._put_at >= every_s:
                self._put(self._unwritten)

    def hold(self) -> None:
        """Return when this process may send a paid request, of either service.

        The lease says that no other run works on the day, the last PUT of the ledger's object that no other process
        works on this task. Confirming one takes time in which the other may expire, so both are checked together, and
        that check is the last thing done: the caller sends without any other I/O in between.

        Raises:
            DayHeld, RunStopped: as ``Lease.hold``.
            ServiceUnavailable: another process works on this task, or the store is too slow to confirm both.
        """
        for _ in range(TRIES):
            if self.lease.is_fresh and self._is_fresh:
                return
            self.lease.hold()
            with self._writing:
                if not self._is_fresh:
                    self._put(self._unwritten or self._claim())
        raise ServiceUnavailable(
            f"Lease and ledger of {self.day} could not both be confirmed within {FRESH_S:.0f} s: the store of "
            "output.state is slow."
        )

    @property
    def _is_fresh(self) -> bool:
        return time.monotonic() - self._put_at < FRESH_S

    def _claim(self) -> list[Event]:
        """What a process writes that has written nothing yet: a PUT of the same bytes would leave the same ETag, and
        an earlier process of this task would not notice it."""
        if self._put_at > float("-inf"):
            return []
        claim = {"event": "claimed", "key": f"claimed/{uuid.uuid4().hex}", "recording": self.name}
        return list(self._stamped([claim]))

    def _stamped(self, events: Iterable[Event]) -> list[Event]:
        now = dt.datetime.now(dt.UTC).isoformat()
        return [{**event, "at": now, "term": self.lease.fencing_token, "run_id": self.run_id} for event in events]

    def _put(self, new: list[Event]) -> None:
        if len(self._body) >= SEGMENT_BYTES:
            self._next()
        body = self._body + "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in new).encode()
        before = time.monotonic()
        etag = self.state.put_if_match(self._object, body, self._etag, "application/x-ndjson")
        if etag is None:
            raise ServiceUnavailable(
                f"Another process works on {self.name} of the run {self.lease.run_token}; this one leaves it to it."
            )
        self._written += new
        self._unwritten, self._body, self._etag, self._put_at = [], body, etag, before
