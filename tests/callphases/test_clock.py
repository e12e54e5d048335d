"""The system clock is the only place that reads the machine's time for waiting."""

from __future__ import annotations

from callphases.clock import SYSTEM_CLOCK
from doubles import Clock


def test_system_clock_reads_and_sleeps_by_the_time_module(clock: Clock) -> None:
    before = SYSTEM_CLOCK.monotonic()
    SYSTEM_CLOCK.sleep(2.5)
    assert clock.slept == [2.5]
    assert SYSTEM_CLOCK.monotonic() - before == 2.5
