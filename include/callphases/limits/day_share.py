"""What one task may pay of ``limits.backfill.usd_per_day``, which all backfills of a pipeline share.

A task reserves what it is about to pay under its own name, in an object that changes by conditional writes alone. So a
task that is killed leaves its reservation to the process that continues it, which does not reserve twice. Payments
count on the day on which recordings are submitted and questions asked; jobs under way at midnight count on both days.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from callphases.clock import Clock
from callphases.state import layout
from callphases.state.manifests import Manifest
from callphases.state.shared_document import SharedDocument
from callphases.state.storage import ObjectPrefix

SETTLE_SHARE = 0.01
"""What was reserved and not paid is given back where it is more than this part of the day's limit."""
ROUNDING_USD = 1e-6


class DayShare:
    """The share of one task.

    Args:
        state: ``output.state``.
        limit_usd: what all backfills of the pipeline may pay on a day.
        chunk: of the task.
        clock: times the pauses between attempts to write.
    """

    def __init__(self, state: ObjectPrefix, limit_usd: float, chunk: Manifest, clock: Clock) -> None:
        self._limit_usd, self._run, self._task = limit_usd, chunk.run_token, chunk.name
        self._shared = SharedDocument(state, layout.backfill_spending(), clock)

    def covers(self, day: dt.date, usd: float) -> bool:
        """Whether the task has reserved so much for a day."""
        return usd <= self._reserved(self._of(day, self._shared.document)) + ROUNDING_USD

    def reserve(self, day: dt.date, paid_usd: float, wanted_usd: Sequence[float]) -> int:
        """Reserve for as many of some payments, from the first on, as the day's limit allows; returns how many.

        The first is allowed whatever it is if nothing else is paid or reserved on that day.

        Args:
            day: today.
            paid_usd: what the task has paid on it.
            wanted_usd: what it is about to pay.
        """
        totals = list(accumulate(wanted_usd, initial=paid_usd))
        if self.covers(day, totals[-1]):
            return len(wanted_usd)
        allowed = 0

        def update(document: dict[str, Any]) -> bool | None:
            nonlocal allowed
            runs = self._of(day, document)
            before = self._reserved(runs)
            others_usd = sum(sum(of_run.values()) for of_run in runs.values()) - before
            allowed = max(bisect_right(totals, self._limit_usd - others_usd + ROUNDING_USD) - 1, 0)
            if not allowed and others_usd + paid_usd < ROUNDING_USD:
                allowed = 1
            return self._write(document, day, totals[allowed])

        self._shared.change(update, read_first=True)
        return allowed

    def settle(self, day: dt.date, paid_usd: float) -> None:
        """Give back what is reserved and not paid."""
        if self._reserved(self._of(day, self._shared.document)) - paid_usd > SETTLE_SHARE * self._limit_usd:
            self._shared.change(lambda document: self._write(document, day, paid_usd))

    def _of(self, day: dt.date, document: dict[str, Any]) -> dict[str, dict[str, float]]:
        """What tasks have reserved for a day, by run and task; a clock that is behind gets the day of the others."""
        runs: dict[str, dict[str, float]] = document.get("runs", {}) if document.get("day", "") >= str(day) else {}
        return runs

    def _reserved(self, runs: dict[str, dict[str, float]]) -> float:
        return runs.get(self._run, {}).get(self._task, 0.0)

    def _write(self, document: dict[str, Any], day: dt.date, usd: float) -> bool | None:
        runs = self._of(day, document)
        if round(usd, 6) == self._reserved(runs):
            return None
        document.update(day=max(document.get("day", ""), str(day)), runs=runs)
        runs.setdefault(self._run, {})[self._task] = round(usd, 6)
        return True
