"""Who may pay for the days of a run over several: one lease that the run renews, and a claim on each day.

A claim is the day's own lease, which names the range. It is written when the run begins and given up when the day is
published, so that a month of days costs no more to hold than one. A run of a single day that finds a claim looks at the
lease of the range: while that is alive, the day is held.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.day_range import DayRange
from callphases.errors import DayHeld, ServiceUnavailable
from callphases.state import layout
from callphases.state.lease import TRIES, Lease
from callphases.state.storage import ObjectPrefix

AT_ONCE = 8
"""Days claimed or given up at the same time."""


class RangeLease(Lease):
    """The right of one run to pay for several days. Safe to use from the threads of a task.

    Args:
        state: ``output.state``.
        days: the range, whose name the lease has.
        run_token: names the run; all of its tasks give the same.
        claimed: those of the days that the task works on.
        claimed_under: the fencing token that they were last claimed under; 0 if they were not.
        task: as for ``Lease``.
        clock: as for ``Lease``.

    Attributes:
        indexes: of each claimed day what ``Lease.index`` says, once it was claimed here.
    """

    def __init__(
        self,
        state: ObjectPrefix,
        days: DayRange,
        run_token: str,
        claimed: Sequence[dt.date],
        claimed_under: int = 0,
        task: str | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(state, days, run_token, task, clock=clock)
        self.days = days
        self.indexes: dict[dt.date, str | None] = {}
        self.days_to_read = list(claimed)
        self._claimed, self._claimed_under = claimed, claimed_under

    def take(self) -> int:
        """Take the lease and claim the days, unless they are claimed under its fencing token; see ``Lease.take``."""
        token = super().take()
        if token == self._claimed_under:
            return token
        try:
            had_run = self._claim_all(token)
        except DayHeld:
            # A run that has not begun asks again under another token, and must not wait for itself.
            if not self._claimed_under:
                self.release()
            raise
        self.days_to_read = [day for day, had_one in zip(self._claimed, had_run, strict=True) if had_one]
        self._claimed_under = self.fencing_token
        return self.fencing_token

    def release(self) -> None:
        """Let the next run begin at once. A task that is started again later has to claim the days again."""
        for _ in range(TRIES):
            stored = self.state.look(self._object)
            document = json.loads(stored.body) if stored is not None else None
            if document is None or document["holder"] != self.run_token or document["released"]:
                break
            if self._write({**document, "released": True, "term": document["term"] + 1}, stored):
                break
        self._confirmed_at = -math.inf

    def give_up(
        self, indexes: Mapping[dt.date, str | None], fold: Callable[[dt.date, Sequence[Sequence[str]]], object]
    ) -> None:
        """Let other runs have the days.

        Args:
            indexes: of each day the listing that its recordings were taken from.
            fold: called before with each day and the ``ranges`` of its lease, to move their events to its own ledger.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(partial(self._give_up, fold), indexes, indexes.values()):
                pass

    def _claim_all(self, token: int) -> list[bool]:
        """Claim the days under a higher token than any run has had them; returns of each whether one has had it."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            highest = max(pool.map(self._highest_token, self._claimed), default=0)
            if highest >= token:
                self._raise_to(highest + 1)
            return list(pool.map(self._claim, self._claimed))

    def _highest_token(self, day: dt.date) -> int:
        stored = self.state.look(layout.lease(day))
        document = json.loads(stored.body) if stored is not None else None
        if stored is None or document is None or document["holder"] == self.run_token:
            return 0
        return self._end(document, stored)

    def _claim(self, day: dt.date) -> bool:
        """Write that the run has a day; returns whether another run has had it before."""
        name = layout.lease(day)
        for _ in range(TRIES):
            stored = self.state.look(name)
            document: dict[str, Any] = json.loads(stored.body) if stored is not None else {}
            if stored is not None and document["holder"] != self.run_token:
                highest = self._end(document, stored)
                if highest >= self.fencing_token:
                    self._raise_to(highest + 1)
            index = document.get("index")
            own = [self.days.isoformat(), self.run_token]
            ranges = [one for one in document.get("ranges", []) if one != own] + [own]
            claim = {**self._document(self.fencing_token, index, ranges), "range": self.days.isoformat()}
            if self._put(name, claim, stored.etag if stored is not None else None):
                self.indexes[day] = index
                return stored is not None
        raise ServiceUnavailable(f"The lease of {day} can't be written below output.state: other runs were faster.")

    def _give_up(
        self, fold: Callable[[dt.date, Sequence[Sequence[str]]], object], day: dt.date, index: str | None
    ) -> None:
        name = layout.lease(day)
        for _ in range(TRIES):
            stored = self.state.look(name)
            if stored is None or (document := json.loads(stored.body))["holder"] != self.run_token:
                return
            fold(day, document.get("ranges", []))
            for mark in ("range", "ranges"):
                document.pop(mark, None)
            if index is not None:
                document["index"] = index
            if self._put(name, {**document, "term": self.fencing_token, "released": True}, stored.etag):
                return

    def _raise_to(self, token: int) -> None:
        """Raise the fencing token above those of the days' former runs."""
        self._mark(again=True, term=token)
        self.fencing_token = token

    def _put(self, name: str, document: Mapping[str, Any], etag: str | None) -> bool:
        body = json.dumps({**document, "write": uuid.uuid4().hex}).encode()
        return self.state.put_if_match(name, body, etag) is not None
