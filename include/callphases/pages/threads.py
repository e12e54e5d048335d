"""Threads of the pages' own, so that a bucket that does not answer never takes those of Airflow's API server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from callphases.errors import ServiceUnavailable

COUNT = 10
"""Airflow's own requests have 40 together. A browser that plays a recording uses one for some milliseconds a minute."""
MOST_WAITING = 40
"""Requests in the queue. More would wait for longer than browsers do."""

_Done = TypeVar("_Done")


class Threads:
    """Does work in threads, so many at a time; the others wait for one."""

    def __init__(self, count: int = COUNT, most_waiting: int = MOST_WAITING) -> None:
        self._limiter, self._most_waiting = CapacityLimiter(count), most_waiting

    async def run(self, work: Callable[[], _Done]) -> _Done:
        """Do work that a request begins with.

        Raises:
            ServiceUnavailable: too many requests wait already.
        """
        if self._limiter.statistics().tasks_waiting >= self._most_waiting:
            raise ServiceUnavailable("Too many recordings are asked for at the same time. Try again in a minute.")
        return await self.go_on(work)

    async def go_on(self, work: Callable[[], _Done]) -> _Done:
        """Do work of a request that has been let in."""
        return await to_thread.run_sync(work, limiter=self._limiter)
