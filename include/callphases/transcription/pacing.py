"""When a recording may be submitted, and when to look at the jobs again: the ramp, jobs at once, and what jobs take."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import deque
from statistics import median

from callphases.limits.quota import Slots
from callphases.limits.throttle import ramp_s
from callphases.state.lease import Lease

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
LOOKS_A_JOB = 4
"""How often a job is looked at while it runs, where it is known how long jobs take."""
LAST_JOBS = 50
SOON_S = 20.0
"""A wait that is not worth giving the worker back for: deferring a task takes about as long."""


class Pacing:
    """The pace of one task. Its run's other tasks share the ramp, by the numbers of their recordings; all tasks of the
    pipeline share the slots.

    Args:
        lease: of the day; says when the run's first task began to submit.
        ramp: whether submissions follow the advised ramp.
        slots: the task's share of ``limits.transcriptions_at_once``.
    """

    def __init__(self, lease: Lease, *, ramp: bool, slots: Slots) -> None:
        self._lease, self._clock = lease, lease.clock
        self._ramp, self._slots = ramp, slots
        self._took_s = deque[float](maxlen=LAST_JOBS)
        self._pause_s = SHORTEST_PAUSE_S
        self._sent_at = -math.inf

    def saw_job(self, took_s: float | None) -> None:
        """Take note of how long a job took, in seconds."""
        if took_s is not None:
            self._took_s.append(took_s)

    def sends(self) -> None:
        """Take note of a submission that is about to be sent."""
        self._sent_at = self._clock.monotonic()

    def due_in_s(self, number: int) -> float:
        """Seconds until the run's recording with this ``number``, from 0, may be submitted.

        It follows the ramp, and keeps the ramp's distance to the last submission of this task.
        """
        if not self._ramp:
            return 0.0
        since_s = (dt.datetime.now(dt.UTC) - self._lease.begin()).total_seconds()
        distance_s = ramp_s(number + 1) - ramp_s(number)
        return max(ramp_s(number) - since_s, self._sent_at + distance_s - self._clock.monotonic())

    def allowed(self, wanted: int, under_way: int, sent: int) -> int:
        """How many of ``wanted`` submissions may be sent now.

        Args:
            wanted: how many there are to send.
            under_way: jobs that this task has at the service.
            sent: how many of its recordings need no submission any more.
        """
        return self._slots.acquire(under_way, wanted, sent, median(self._took_s) if self._took_s else None)

    @property
    def job_s(self) -> float:
        """How long a job takes, in seconds; infinite where none has been seen to end."""
        if self._took_s:
            return median(self._took_s)
        return self._slots.job_s if self._slots.is_job_s_known else math.inf

    def pause_s(self) -> float:
        """Seconds to wait before the next look at the jobs: a part of what jobs take, and never the same."""
        self._pause_s = self.job_s / LOOKS_A_JOB if self.job_s < math.inf else self._pause_s * (1 + 1 / LOOKS_A_JOB)
        self._pause_s = min(max(self._pause_s, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
        return self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads requests, guards nothing

    def next_in_s(self, under_way: int, unsent: int) -> float:
        """Seconds until a job has probably ended, or another may be submitted; 0 where nobody knows."""
        if self.job_s == math.inf:
            return 0.0
        if under_way:
            return self.job_s
        return self._slots.expected_wait_s() if unsent else 0.0

    def is_next(self, under_way: int, unsent: int) -> bool:
        """Whether other tasks' jobs will soon have ended, so that ``unsent`` recordings can be submitted."""
        return bool(unsent) and self.next_in_s(under_way, unsent) <= SOON_S
