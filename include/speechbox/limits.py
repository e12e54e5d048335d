"""Rate and concurrency limits: requests per time window, and chat completions at once."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

GATEWAY_WINDOW_S = 60.0
SPEECH_WINDOW_S = 300.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an account; None means no limit."""

    #: Chat completions that run at the same time; others wait.
    chats_at_once: int | None = None
    #: Chat completions per model in 60 s; further ones get a 429.
    chat_requests_per_minute: int | None = None
    #: Requests to the speech API in 300 s, of all methods together; further ones get a 429.
    requests_per_5_minutes: int | None = None


class Window:
    """A sliding window of `span_s` seconds that counts requests; `most` is its maximum so far."""

    def __init__(self, span_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = 0
        self._span_s = span_s
        self._clock = clock
        self._times: deque[float] = deque()

    def add(self) -> None:
        """Count a request."""
        self._times.append(self._clock())
        self.most = max(self.most, len(self))

    def __len__(self) -> int:
        """Return the number of requests in the window that ends now."""
        gone = self._clock() - self._span_s
        while self._times and self._times[0] <= gone:
            self._times.popleft()
        return len(self._times)

    def frees_in_s(self) -> int:
        """Return the seconds until a request leaves the window, rounded up, or 0 if it is empty."""
        return math.ceil(self._times[0] + self._span_s - self._clock()) if len(self) else 0


class Turns:
    """A first-in, first-out semaphore that records its maximum: `async with turns: …`."""

    def __init__(self, at_once: int | None = None) -> None:
        self.most = 0
        self._running = 0
        self._free = asyncio.Semaphore(at_once) if at_once else None

    async def __aenter__(self) -> None:
        if self._free:
            await self._free.acquire()
        self._running += 1
        self.most = max(self.most, self._running)

    async def __aexit__(self, *_: object) -> None:
        self._running -= 1
        if self._free:
            self._free.release()
