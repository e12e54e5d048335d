"""What the tasks of backfills may do: ``limits.backfill``, and what nights leave them of the other limits."""

from __future__ import annotations

import datetime as dt
import math
import threading
import zlib
from collections.abc import Callable, Sequence
from itertools import count, zip_longest
from zoneinfo import ZoneInfo

from callphases.errors import BackfillWaits
from callphases.limits import costs
from callphases.limits.day_share import DayShare
from callphases.limits.durations import length_by_size
from callphases.limits.quota import left_to_backfills
from callphases.local_days import DAY, day_end
from callphases.pipeline import Pipeline
from callphases.progress import Progress
from callphases.state.events import Intended, Submitted
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import Ledger
from callphases.state.manifests import Manifest

MINUTE = dt.timedelta(minutes=1)
STINT_S = 120.0, 180.0
"""How long a task of a backfill pays for calls before it gives its worker back: nights go first where Airflow starts
tasks, and no task of theirs is started while all workers are busy. Each task has its own time between these two."""


def backfill_jobs(pipeline: Pipeline) -> int:
    """How many jobs the backfills of a pipeline may have at once where no night wants any."""
    limit, own = pipeline.limits.transcriptions_at_once, pipeline.limits.backfill.transcriptions_at_once
    return left_to_backfills(limit, nights=pipeline.schedule is not None) if own is None else min(own, limit)


def backfill_questions(pipeline: Pipeline) -> int:
    """How many questions a minute the backfills of a pipeline may ask each model where no night asks any."""
    return left_to_backfills(pipeline.limits.llm_requests_per_minute, nights=pipeline.schedule is not None)


def first_open(hours: tuple[dt.time, dt.time] | None, moment: dt.datetime, zone: ZoneInfo) -> dt.datetime:
    """The first moment from ``moment`` on at which the clocks of ``zone`` show a time within ``hours``.

    An hour that the clocks show twice is open twice; where they skip the beginning, it is when they go on.
    """

    def is_open(at: dt.datetime) -> bool:
        if hours is None:
            return True
        start, end = hours
        shown = at.astimezone(zone).time()
        return start <= shown < end if start < end else shown >= start or shown < end

    if is_open(moment):
        return moment
    whole = moment.replace(second=0, microsecond=0)
    return next(at for number in count(1) if is_open(at := whole + number * MINUTE))


def utc_now() -> dt.datetime:
    """The time of day: limits by the hours of a zone are by the clock of the worker."""
    return dt.datetime.now(dt.UTC)


def _seconds(wait: dt.timedelta) -> float:
    return float(math.ceil(wait.total_seconds()))


class Backfill:
    """What ``limits.backfill`` allows one task of a backfill. Thread-safe.

    Args:
        pipeline: the pipeline.
        chunk: of the task; with ``lengths`` where it was listed under a limit.
        ledger: of the task, open.

    Attributes:
        waits: why ``affordable`` allowed less than all when it was last called; None if it allowed all.
    """

    def __init__(self, pipeline: Pipeline, chunk: Manifest, ledger: Ledger) -> None:
        self._pipeline, self._limits, self._ledger = pipeline, pipeline.limits.backfill, ledger
        self.waits: BackfillWaits | None = None
        limit_usd = self._limits.usd_per_day
        self._share = DayShare(ledger.state, limit_usd, chunk, ledger.clock) if limit_usd is not None else None
        self._expected_s: dict[str, float] = {}
        if self._share is not None:
            keys = RecordingKeys(pipeline)
            # A recording that was sent with other models may be sent with those of today, under another key.
            self._expected_s = {
                key: length_by_size(recording).expected_s if length is None else length[0]
                for recording, length in zip_longest(chunk.recordings, chunk.lengths)
                for key in (keys.transcript(recording), Progress(recording, keys, ledger).due_key)
            }
        shortest_s, longest_s = STINT_S
        stint_s = shortest_s + (longest_s - shortest_s) * zlib.crc32(chunk.name.encode()) / 2**32
        self._stops_at = ledger.clock.monotonic() + stint_s if pipeline.schedule is not None else math.inf
        self._asked: tuple[dt.date, float] | None = None
        self._lock = threading.Lock()

    def hold(self) -> None:
        """Return if the task may pay: it is within the hours of backfills, and has not had its worker for too long.

        Raises:
            BackfillWaits: it may not.
        """
        if self._ledger.clock.monotonic() >= self._stops_at:
            raise BackfillWaits("A backfill gives its worker back every few minutes, for tasks of nights.", 0.0)
        now = utc_now()
        if (opens := self._open_from(now)) > now:
            raise BackfillWaits(
                f"Backfills submit and ask in the hours {self._limits.hours} (limits.backfill.hours); waiting until "
                f"{self._shown(opens)}.",
                _seconds(opens - now),
            )

    def affordable(self, waiting: Sequence[str]) -> int:
        """How many of the transcript keys ``waiting``, from the first on, may be submitted now; ``waits`` says why not.

        The first may cost more than a day's limit where nothing else is paid on that day.
        """
        self.waits = None
        try:
            self.hold()
        except BackfillWaits as waits:
            self.waits = waits
            return 0
        if self._share is None or not waiting:
            return len(waiting)
        with self._lock:
            wanted = [costs.estimated_speech_usd(self._pipeline, self._expected_s[key]) for key in waiting]
            allowed = self._share.reserve(self._today(), self._paid_usd(), wanted)
        if allowed < len(waiting):
            self.waits = self._used_up()
        return allowed

    def pay(self, usd: float, left_usd: Callable[[], float]) -> None:
        """Return when a question of some ``usd`` may be asked; ``paid`` is to be called then, even if it was not asked.

        Args:
            usd: what it is expected to cost.
            left_usd: the same of all questions that the task has left, which is reserved as far as the limit allows.

        Raises:
            BackfillWaits: what is left for this day does not pay for it.
        """
        if self._share is None:
            return
        with self._lock:
            asked_usd = self._asked_usd()
            if not self._share.covers(self._today(), asked_usd + usd):
                wanted = [usd] * max(round(left_usd() / usd), 1)
                if not self._share.reserve(self._today(), asked_usd, wanted):
                    raise self._used_up()
            self._asked = self._today(), asked_usd + usd

    def paid(self, expected_usd: float, usd: float) -> None:
        """Take note of what a question cost, of which ``pay`` was told that it would be ``expected_usd``."""
        if self._share is not None:
            with self._lock:
                self._asked = self._today(), self._asked_usd() + usd - expected_usd

    def settle(self) -> None:
        """Give back what was reserved and has not been paid, once nothing is to be paid any more or for now."""
        if self._share is not None:
            self._share.settle(self._today(), self._paid_usd())

    def _asked_usd(self) -> float:
        """What the task has paid today, with the questions that are being asked."""
        if self._asked is None or self._asked[0] != self._today():
            return self._paid_usd()
        return self._asked[1]

    def _paid_usd(self) -> float:
        """What the task has paid today, as the ledger has it; jobs that are under way as they are expected."""
        own, run_id = self._ledger.own, self._ledger.run_id
        since = day_end(self._today() - DAY, self._pipeline.zone)
        known = sum(costs.spent_usd(own, run_id, since)) + sum(costs.unpriced_usd(self._pipeline, own, run_id, since))
        under_way_s = sum(
            seconds
            for key, seconds in self._expected_s.items()
            if isinstance(self._ledger.find(key), Intended | Submitted)
        )
        return known + costs.estimated_speech_usd(self._pipeline, under_way_s)

    def _today(self) -> dt.date:
        return utc_now().astimezone(self._pipeline.zone).date()

    def _open_from(self, moment: dt.datetime) -> dt.datetime:
        return first_open(self._limits.open_hours, moment, self._pipeline.zone)

    def _used_up(self) -> BackfillWaits:
        opens = self._open_from(day_end(self._today(), self._pipeline.zone))
        return BackfillWaits(
            f"The ${self._limits.usd_per_day:.2f} that backfills may spend a day (limits.backfill.usd_per_day) are "
            f"used up or reserved; waiting until {self._shown(opens)}.",
            _seconds(opens - utc_now()),
        )

    def _shown(self, moment: dt.datetime) -> str:
        zone = self._pipeline.zone
        return f"{moment.astimezone(zone):%Y-%m-%d %H:%M} in {zone.key}"
