"""What of a browser's requests for audio is a play, for the audit log: players ask for a recording in many pieces."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from callphases.clock import SYSTEM_CLOCK, Clock

SAME_PLAY_S = 300
"""As long as a presigned URL is valid: pieces that are asked for later are a new play."""
PROBING_S = 10
"""Players ask for the first bytes more than once before they play: Safari for two at first, others after the index."""
MOST = 10_000


class Plays:
    """Requests for audio so far, within this process."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._seen: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # when logged, when asked last
        self._lock = threading.Lock()

    def is_new(self, key: Hashable, range_header: str | None) -> bool:
        """Whether a request begins a play: one of the whole recording does, one from its first byte (but for a player's
        probing), and one of any piece by who has not asked for this recording for a while.

        Args:
            key: of the user and the recording.
            range_header: of the request.
        """
        now = self._clock.monotonic()
        with self._lock:
            logged, asked = self._seen.pop(key, (float("-inf"), float("-inf")))
            from_start = range_header is not None and range_header.replace(" ", "").startswith("bytes=0-")
            is_new = range_header is None or now - asked > SAME_PLAY_S or (from_start and now - logged > PROBING_S)
            self._seen[key] = (now if is_new else logged, now)
            if len(self._seen) > MOST:
                self._seen.popitem(last=False)
            return is_new
