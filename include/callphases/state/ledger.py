"""What has been paid for, and how to find it again: the events of a day, in the state area.

Each task that pays appends to an object of its own, by conditional PUTs of the whole object: many events share a
request, and a second process of the same task is noticed. From ``SEGMENT_BYTES`` on, the task continues in another
object, so that the cost of a write does not grow with the night. The ledger of a day is the union of its objects. A
task need not read them all: the listing hands it the events of its recordings, which stay complete while the run holds
the lease of the day (lease.py), and are read again where another run has held it in between.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import threading
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

from callphases.day_range import DayRange, Span, parse_span
from callphases.errors import ServiceUnavailable
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.events import Claimed, Event, Intended, Unknown, parse, serialize, stamped
from callphases.state.lease import FRESH_S, LIFE_S, TRIES, Lease
from callphases.state.storage import ObjectPrefix

WRITE_EVERY_S = 20.0
"""How long events that the provider would tell again may wait for others to share a PUT with."""
READERS = 8
SEGMENT_BYTES = 1 << 18
"""An object of this size is not written any more. Every process decides so by the size alone: two of them go on in the
same next object, where the second is noticed."""


class LedgerView:
    """Events by their keys, of which the one with the highest rank holds. Safe to use from the threads of a task."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, Event] = {}
        self._seen: set[tuple[str, str, dt.datetime]] = set()
        self._of_recording: dict[str, list[Event]] = {}
        self.learn(events)

    def learn(self, events: Iterable[Event]) -> None:
        """Add events, in any order; those that are there already are skipped."""
        with self._lock:
            for event in events:
                kind = event.unread.get("event", "") if isinstance(event, Unknown) else event.kind
                mark = (event.key, kind, event.at)
                if mark in self._seen:
                    continue
                self._seen.add(mark)
                self._of_recording.setdefault(event.recording, []).append(event)
                if isinstance(event, Unknown):
                    continue
                last = self._last.get(event.key)
                if last is None or event.rank >= last.rank:
                    self._last[event.key] = event

    def find(self, key: str) -> Event | None:
        """The event that holds for ``key``."""
        with self._lock:
            return self._last.get(key)

    def of(self, recordings: Collection[Recording]) -> list[Event]:
        """All events of some recordings, whatever the options and the bytes were."""
        with self._lock:
            unnamed = self._of_recording.get("", [])  # an early version did not write which recording it was
            return [*unnamed, *(event for one in recordings for event in self._of_recording.get(one.key, []))]

    def all(self) -> list[Event]:
        """Every event."""
        with self._lock:
            return [event for events in self._of_recording.values() for event in events]


def read_ledger_day(state: ObjectPrefix, day: dt.date, of_ranges: RangeEvents | None = None) -> LedgerView:
    """The ledger of a day: one LIST request, and one GET for each object.

    What a run over several days has written about it is elsewhere until the day is published; its lease says where.
    Who reads several days gives ``of_ranges``, so that such a run is read once.
    """
    names = list(state.names(layout.ledger_of(day)))
    view = LedgerView()
    with ThreadPoolExecutor(READERS) as pool:
        lease = state.get(layout.lease(day)) if layout.lease(day) in names else None
        for body in pool.map(state.get, filter(layout.is_ledger_segment, names)):
            view.learn(parse(body))
    view.learn((of_ranges or RangeEvents(state)).of(day, json.loads(lease or b"{}").get("ranges", [])))
    return view


class RangeEvents:
    """The events of runs over several days by day, each run read once. Safe to use from threads.

    Args:
        state: ``output.state``.
    """

    def __init__(self, state: ObjectPrefix) -> None:
        self._state = state
        self._by_day: dict[tuple[str, str], dict[str, list[Event]]] = {}
        self._lock = threading.Lock()

    def of(self, day: dt.date, ranges: Iterable[Sequence[str]]) -> list[Event]:
        """The events of a day; ``ranges`` are those of its lease.

        Raises:
            ServiceUnavailable: the store does not answer.
        """
        return [event for span, run_token in ranges for event in self._run(span, run_token).get(str(day), [])]

    def _run(self, span: str, run_token: str) -> dict[str, list[Event]]:
        with self._lock:
            if (span, run_token) not in self._by_day:
                found = self._by_day[span, run_token] = defaultdict[str, list[Event]](list)
                for event in read_run(self._state, parse_span(span), run_token):
                    found[event.day].append(event)
            return self._by_day[span, run_token]


def read_run(state: ObjectPrefix, span: Span, run_token: str) -> list[Event]:
    """The events of all tasks of a run: requests as ``read_ledger_day``."""
    names = filter(layout.is_ledger_segment, state.names(layout.ledger_of(span, run_token)))
    with ThreadPoolExecutor(READERS) as pool:
        return [event for body in pool.map(state.get, names) for event in parse(body)]


def read_task(state: ObjectPrefix, span: Span, run_token: str, name: str) -> list[Event]:
    """The events that one task of a run has written."""
    events: list[Event] = []
    for number in count():
        body = state.get(layout.ledger_segment(span, run_token, name, number))
        events += parse(body)
        if body is None or len(body) < SEGMENT_BYTES:
            return events
    raise AssertionError


class Fold:
    """Moves what runs over several days have written about a day to the day's own ledger. Safe to use from threads.

    Args:
        state: ``output.state``.
        run_token: of the run that does it, whose object of each day it is.
    """

    def __init__(self, state: ObjectPrefix, run_token: str) -> None:
        self._state, self._run_token = state, run_token
        self._of_ranges = RangeEvents(state)

    def __call__(self, day: dt.date, ranges: Iterable[Sequence[str]]) -> None:
        """Move the events of a day; ``ranges`` are those of its lease. What is there already is replaced by the same.

        Raises:
            ServiceUnavailable: the store does not answer.
        """
        if events := self._of_ranges.of(day, ranges):
            name = layout.ledger_segment(day, self._run_token, "range")
            self._state.put(name, serialize(replace(event, day="") for event in events), "application/x-ndjson")


class Ledger(LedgerView):
    """What one task knows, and where it writes. ``open`` makes one.

    Attributes:
        state: ``output.state``.
        lease: the lease of the day, taken.
        run_id: is written into every event.
        name: the task's, unique in the run.
    """

    def __init__(self, state: ObjectPrefix, lease: Lease, run_id: str, name: str) -> None:
        super().__init__()
        self.state = state
        self.lease = lease
        self.run_id = run_id
        self.name = name
        self._days: Mapping[str, dt.date] = {}
        self.clock = lease.clock
        self._writing = threading.Lock()
        self._written: list[Event] = []
        self._unwritten: list[Event] = []
        self._number = 0
        self._body = b""
        self._etag: str | None = None
        self._put_at = -math.inf
        self._quiet_at = -math.inf
        self._silent_at = -math.inf

    @classmethod
    def open(
        cls,
        state: ObjectPrefix,
        lease: Lease,
        run_id: str,
        name: str,
        known: Iterable[Event] = (),
        fencing_token: int = 0,
        days: Mapping[str, dt.date] | None = None,
    ) -> Ledger:
        """Take the lease, and read the ledger: all of the lease's days, unless ``known`` is still complete.

        Args:
            state: ``output.state``.
            lease: the day's lease.
            run_id: is written into every event.
            name: the task's, unique in the run.
            known: the events of the task's recordings when the run listed them.
            fencing_token: the lease's then.
            days: in a run over several days, the day of each recording by its key.

        Raises:
            DayHeld, RunStopped: as ``Lease.take``.
        """
        ledger = cls(state, lease, run_id, name)
        ledger._days = days or {}
        if lease.take() != fencing_token:
            of_ranges = RangeEvents(state)
            known = [event for day in lease.days_to_read for event in read_ledger_day(state, day, of_ranges).all()]
        ledger.learn(known)
        ledger._read_own()
        return ledger

    def _read_own(self) -> None:
        """Read what earlier processes of this task wrote, and find out how long the last one may still pay."""
        quiet_at = silent_at = -math.inf
        while (stored := self.state.look(self._object)) is not None:
            self._written += parse(stored.body)
            self._body, self._etag = stored.body, stored.etag
            written_at = self.clock.monotonic() - stored.age_s
            quiet_at, silent_at = written_at + LIFE_S, written_at + FRESH_S
            if len(stored.body) < SEGMENT_BYTES:
                break
            self._next()
        self.learn(self._written)
        if any(isinstance(self.find(event.key) or event, Intended) for event in self._written):
            self._quiet_at = quiet_at
        if any(isinstance(event, Claimed) for event in self._written):
            self._silent_at = silent_at

    @property
    def day(self) -> Span:
        """The day of the calls, or the days."""
        return self.lease.day

    def day_of(self, recording: Recording) -> dt.date:
        """The day of one call."""
        return self._days[recording.key] if isinstance(self.day, DayRange) else self.day

    @property
    def own(self) -> list[Event]:
        """What this task has written, or will, in all of its tries."""
        with self._writing:
            return [*self._written, *self._unwritten]

    @property
    def quiet_in_s(self) -> float:
        """Seconds until no earlier process of this task can have a submission under way."""
        return max(self._quiet_at - self.clock.monotonic(), 0.0)

    def write(self, events: Iterable[Event] = ()) -> None:
        """Make events durable, with all that were noted, by one PUT; they are known here once they are.

        Raises:
            ServiceUnavailable: another process works on this task.
        """
        with self._writing:
            new = self._stamped(events)
            if new or self._unwritten:
                self._put(self._unwritten + new)
                self.learn(new)

    def note(self, events: Iterable[Event], every_s: float = WRITE_EVERY_S) -> None:
        """Know events at once, and make them durable with the next PUT, or now if the last is ``every_s`` ago."""
        with self._writing:
            new = self._stamped(events)
            self.learn(new)
            self._unwritten += new
            if self._unwritten and self.clock.monotonic() - self._put_at >= every_s:
                self._put(self._unwritten)

    def hold(self) -> None:
        """Return when this process may send a paid request, to either service.

        The lease says that no other run works on the day; the last PUT of the ledger's object, that no other process
        works on this task. Confirming one takes time in which the other may expire. So both are checked together, and
        that check comes last: the caller sends with no other I/O in between.

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

    def replace_earlier_process(self) -> None:
        """Return when no earlier process of this task can send another question.

        It can't once this process has written the object and the other's last confirmation has expired. A question
        that it sent before may still be answered; that answer is lost, as after a kill.

        Raises:
            DayHeld, RunStopped, ServiceUnavailable: as ``hold``.
        """
        if self._silent_at <= self.clock.monotonic():
            return
        self.hold()
        self.lease.sleep(self._silent_at - self.clock.monotonic())

    @property
    def _is_fresh(self) -> bool:
        return self.clock.monotonic() - self._put_at < FRESH_S

    @property
    def _object(self) -> str:
        return layout.ledger_segment(self.day, self.lease.run_token, self.name, self._number)

    def _next(self) -> None:
        self._number += 1
        self._body, self._etag = b"", None

    def _claim(self) -> list[Event]:
        """The first event of a process that has written nothing yet: a PUT of the same bytes would leave the same ETag,
        and an earlier process of this task would not notice it."""
        if self._put_at > -math.inf:
            return []
        return self._stamped([Claimed(key=f"claimed/{uuid.uuid4().hex}", recording=self.name)])

    def _stamped(self, events: Iterable[Event]) -> list[Event]:
        now = dt.datetime.now(dt.UTC)
        return [
            stamped(event, now, self.lease.fencing_token, self.run_id, str(self._days.get(event.recording, "")))
            for event in events
        ]

    def _put(self, new: Sequence[Event]) -> None:
        if len(self._body) >= SEGMENT_BYTES:
            self._next()
        body = self._body + serialize(new)
        before = self.clock.monotonic()
        etag = self.state.put_if_match(self._object, body, self._etag, "application/x-ndjson")
        if etag is None:
            raise ServiceUnavailable(
                f"Another process works on {self.name} of the run {self.lease.run_token}; this one leaves it to it."
            )
        self._written += new
        self._unwritten, self._body, self._etag, self._put_at = [], body, etag, before
