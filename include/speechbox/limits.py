"""How much is taken: so many requests in a stretch of time, and so many chat completions at once."""

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
    """What the account would allow; None is no limit."""

    #: Chat completions that run at the same time; the others wait their turn.
    chats_at_once: int | None = None
    #: Chat completions of each model in 60 s; what is over it is a 429.
    chat_requests_per_minute: int | None = None
    #: Requests to the speech API in 300 s, of all methods together; what is over it is a 429.
    requests_per_5_minutes: int | None = None


class Window:
    """The requests of the last `span_s` seconds, and the most that there ever were in such a time."""

    def __init__(self, span_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = 0
        self._span_s = span_s
        self._clock = clock
        self._times: deque[float] = deque()

    def add(self) -> None:
        """One more, now."""
        self._times.append(self._clock())
        self.most = max(self.most, len(self))

    def __len__(self) -> int:
        """How many there are in the window that ends now."""
        gone = self._clock() - self._span_s
        while self._times and self._times[0] <= gone:
            self._times.popleft()
        return len(self._times)

    def frees_in_s(self) -> int:
        """Whole seconds until there is one less, rounded up; 0 where there is none."""
        return math.ceil(self._times[0] + self._span_s - self._clock()) if len(self) else 0


class Turns:
    """Lets so many in at the same time, the others in the order in which they came: `async with turns: …`."""

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
