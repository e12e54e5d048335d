"""The clock that leases, ledgers, throttles and pauses are given, so that a test can move time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Time that passes, in seconds; moments since 1970 are the object store's, never a worker's."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""

    def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""


class SystemClock:
    """This machine's clock."""

    def monotonic(self) -> float:
        """See ``time.monotonic``."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See ``time.sleep``."""
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
