"""What pages keep for the next reader: values by key, the least recently used thrown away first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Kept(Generic[_Value]):
    """Values by key, of a bounded size together; for use by several threads.

    Args:
        most_bytes: the sum of their sizes that is kept at most.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._values: OrderedDict[Hashable, tuple[_Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> _Value | None:
        """The value; None if it is not there (any more)."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def keep(self, key: Hashable, value: _Value, size: int) -> None:
        """Keep a value of ``size`` bytes; one that is larger than all that may be kept is not."""
        with self._lock:
            if key in self._values:
                self._bytes -= self._values.pop(key)[1]
            if size > self._most_bytes:
                return
            self._values[key] = value, size
            self._bytes += size
            while self._bytes > self._most_bytes:
                self._bytes -= self._values.popitem(last=False)[1][1]
