"""How much of the API server's time pages may take: they are made in turn, and many readers wait for theirs.

Airflow's API server is one Python process, in which one thread runs at a time. Waiting takes none of its time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from callphases.errors import ServiceUnavailable

SHARE = 0.03
"""Of a processor's time, on average: readers are to slow Airflow down by 10 % at most, and changes of threads cost
something too."""
BURST_S = 0.5
"""Processor time that may be used at once after a pause. It makes 20 pages, so a reader alone does not wait."""
MOST_CHARGED_S = 0.15
"""For one page. The first page of a process imports what it needs, the first of a day reads the day; who looks at
the next page then is not to wait for that."""
AROUND_S = 0.006
"""What Airflow 3.3.2 takes for a request besides the page: middleware, the user's rights, the answer."""
LONGEST_TURN_S = 1.0
"""After this the next page is begun as well: one that takes longer waits for S3, mostly."""
MOST_AT_ONCE = 8
"""Pages that are being made, all but one of which have had their turn."""
MOST_WAITING = 60
"""Readers in the queue. More would wait for longer than browsers and proxies do."""

_Made = TypeVar("_Made")


class Share:
    """Makes pages one after the other, in threads of its own, with a share of the process's time."""

    def __init__(self, share: float = SHARE, burst_s: float = BURST_S) -> None:
        self._share, self._burst_s = share, burst_s
        self._left_s, self._at = burst_s, time.monotonic()
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="callphases-pages")

    async def make(self, page: Callable[[], _Made], is_gone: Callable[[], Awaitable[bool]] | None = None) -> _Made:
        """Make a page when it is its turn.

        Args:
            page: makes it.
            is_gone: whether the reader has given up.

        Raises:
            ServiceUnavailable: too many readers are waiting, or this one has given up.
        """
        if self._waiting >= MOST_WAITING:
            raise ServiceUnavailable("Too many readers ask for pages at the same time. Try again in a minute.")
        self._waiting += 1
        try:
            async with self._turn:
                self._refill()
                if self._left_s < 0:
                    await asyncio.sleep(-self._left_s / self._share)
                if is_gone is not None and await is_gone():
                    raise ServiceUnavailable("The reader has given up.")
                made = asyncio.get_running_loop().run_in_executor(self._threads, self._charged, page)
                await asyncio.wait([made], timeout=LONGEST_TURN_S)
            return await made
        finally:
            self._waiting -= 1

    def _charged(self, page: Callable[[], _Made]) -> _Made:
        began = time.thread_time()
        try:
            return page()
        finally:
            self._left_s -= min(time.thread_time() - began, MOST_CHARGED_S) + AROUND_S

    def _refill(self) -> None:
        now = time.monotonic()
        self._left_s = min(self._left_s + (now - self._at) * self._share, self._burst_s)
        self._at = now
