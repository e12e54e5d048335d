"""A JSON object in the state area that several tasks change, on several machines, by conditional writes alone."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from callphases.clock import Clock
from callphases.errors import ServiceUnavailable
from callphases.state.storage import ObjectPrefix

TRIES = 40
"""Attempts at a conditional write. Each one that fails means that another task's write succeeded."""
LONGEST_PAUSE_S = 0.5
_T = TypeVar("_T")


class SharedDocument:
    """A JSON object that several tasks change."""

    def __init__(self, state: ObjectPrefix, name: str, clock: Clock) -> None:
        self._state, self._name, self._clock = state, name, clock
        self.document: dict[str, Any] = {}
        self._etag: str | None = None
        self._min_offset_s, self._max_offset_s = float("-inf"), float("inf")

    def now(self) -> float:
        """The store's clock in seconds since 1970, estimated from the responses seen so far."""
        if self._max_offset_s == float("inf"):
            return time.time()
        return time.time() + (self._min_offset_s + self._max_offset_s) / 2

    def read(self) -> dict[str, Any]:
        """Read the document."""
        stored = None
        for _ in range(TRIES):
            before = time.time()
            stored = self._state.look(self._name)
            after = time.time()
            if stored is not None:
                break
            self._state.put_if_match(self._name, b"{}", None)  # the response to a missing object has no time
        if stored is None:
            raise self._not_writable()
        self.document, self._etag = json.loads(stored.body), stored.etag
        if stored.read_at is not None:  # truncated to seconds: the time lies in the second that follows
            self._min_offset_s = max(self._min_offset_s, stored.read_at - after)
            self._max_offset_s = max(min(self._max_offset_s, stored.read_at + 1 - before), self._min_offset_s)
        return self.document

    def change(self, update: Callable[[dict[str, Any]], _T | None], *, read_first: bool = False) -> _T | None:
        """Apply ``update`` by a conditional write, and return its result.

        Args:
            update: changes the document in place, or returns None to leave it; called again if another task was faster.
            read_first: read the document first instead of starting from what was last read.

        Raises:
            ServiceUnavailable: other tasks were faster each time.
        """
        if read_first or self._etag is None:
            self.read()
        for attempt in range(TRIES):
            document = json.loads(json.dumps(self.document))
            result = update(document)
            if result is None:
                return None
            body = json.dumps({**document, "write": uuid.uuid4().hex}, separators=(",", ":")).encode()
            etag = self._state.put_if_match(self._name, body, self._etag)
            if etag is not None:
                self.document, self._etag = document, etag
                return result
            pause_s = random.random() * min(LONGEST_PAUSE_S, 0.05 * (attempt + 1))  # noqa: S311 - no security use
            self._clock.sleep(pause_s)
            self.read()
        raise self._not_writable()

    def _not_writable(self) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"{self._state.uri}{self._name} can't be written; its store must do conditional writes."
        )
