"""The audit log of who listened to which call: a line for each play, of which players ask in many ranges."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from callphases.clock import SYSTEM_CLOCK, Clock

log = logging.getLogger(__name__)

SAME_PLAY_S = 300
"""As long as a presigned URL is valid: a range that is asked for later is a new play."""
PROBING_S = 10
"""Players ask for the first bytes more than once before they play: Safari for two at first, others after the index."""
_MOST_KEPT = 10_000

_Key = tuple[str, str, dt.date, str]


class Plays:
    """The plays that this server process has seen lately. Thread-safe."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[_Key, tuple[float, float]] = OrderedDict()
        """When a play was logged, and when something of it was last asked for."""

    def begin(
        self, user: str, dag_id: str, day: dt.date, call_id: str, range_header: str | None, audit: Callable[[], None]
    ) -> None:
        """Log a user's request for audio, if it begins a play.

        A request of the whole recording does, and one from the first byte, but for a player's probing; and one of any
        range by who has not asked for this recording for a while. The line names neither the recording nor its URL.
        Names are quoted, so that none can add a line.

        Args:
            user: the name of the logged-in user.
            dag_id: the Dag of the call's pipeline.
            day: of the call.
            call_id: of the call.
            range_header: of the request.
            audit: writes the line of Airflow's audit log. If it fails, the play does not begin.
        """
        key, now = (user, dag_id, day, call_id), self._clock.monotonic()
        never = float("-inf")
        with self._lock:
            logged, asked = self._seen.get(key, (never, never))
        is_first = range_header is not None and range_header.replace(" ", "").startswith("bytes=0-")
        is_new = range_header is None or now - asked >= SAME_PLAY_S or (is_first and now - logged >= PROBING_S)
        if is_new:
            audit()
            _log("listens", *key)
        with self._lock:
            self._seen[key] = (now if is_new else logged, now)
            self._seen.move_to_end(key)
            while len(self._seen) > _MOST_KEPT:
                self._seen.popitem(last=False)

    def refused(self, user: str, dag_id: str, day: dt.date, call_id: str) -> None:
        """Log that a user who may not listen to a call wanted to."""
        _log("refused", user, dag_id, day, call_id)


def _log(what: str, *key: object) -> None:
    quoted = [json.dumps(str(one)) for one in key]
    log.info("audit: audio %s user=%s dag_id=%s day=%s call_id=%s", what, *quoted)
