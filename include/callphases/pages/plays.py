"""The audit log of who listened to which call: a line for each play."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections import OrderedDict

from callphases.clock import SYSTEM_CLOCK, Clock

log = logging.getLogger(__name__)

SAME_PLAY_S = 300
"""A player asks for a recording in many ranges: what a user asks of one call within this time is one play."""
_MOST_KEPT = 10_000


class Plays:
    """The plays that this server process has logged lately. Thread-safe."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._logged: OrderedDict[tuple[str, str, str, str], float] = OrderedDict()

    def asked(self, user: str, dag_id: str, day: dt.date, call_id: str, how: str) -> None:
        """Log that a user gets audio of a call, unless that is of a play which was logged.

        The line names neither the recording nor its URL. Names are quoted, so that none can add a line.

        Args:
            user: the name of the logged-in user.
            dag_id: the Dag of the call's pipeline.
            day: of the call.
            call_id: of the call.
            how: ``redirected``, ``streamed`` or ``refused``: what the user gets.
        """
        key = (user, dag_id, f"{day} {call_id}", how)
        now = self._clock.monotonic()
        with self._lock:
            if (before := self._logged.get(key)) is not None and now - before < SAME_PLAY_S:
                return
            self._logged[key] = now
            self._logged.move_to_end(key)
            while len(self._logged) > _MOST_KEPT:
                self._logged.popitem(last=False)
        quoted = [json.dumps(one) for one in (user, dag_id, str(day), call_id)]
        log.info("audit: audio %s user=%s dag_id=%s day=%s call_id=%s", how, *quoted)
