"""The trigger that waits for the transcription jobs of a chunk without occupying a worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from callphases.airflow.hook import AssemblyAIHook
from callphases.errors import CallphasesError

LONGEST_INTERVALS = 3.0
"""The longest interval between lookups, as a multiple of the first."""


class TranscriptsTrigger(BaseTrigger):
    """Fires once, when enough jobs have ended or when a lookup fails.

    The event is ``{"status": "ended"}`` or ``{"status": "error", "message": …}``. The first lookup is at least one
    interval away: if a trigger fires while the scheduler is still processing the deferral, the task fails.

    Args:
        conn_id: the connection of the speech service.
        transcript_ids: the jobs, in order of submission.
        poll_interval_s: seconds between the first two lookups; intervals grow and have jitter.
        enough: how many jobs have to end; all by default.
        first_look_s: seconds until the first lookup, when the jobs are expected to have ended.
    """

    def __init__(
        self,
        conn_id: str,
        transcript_ids: list[str],
        poll_interval_s: float,
        enough: int | None = None,
        first_look_s: float = 0.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.transcript_ids = transcript_ids
        self.poll_interval_s = poll_interval_s
        self.enough = len(transcript_ids) if enough is None else enough
        self.first_look_s = max(first_look_s, poll_interval_s)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The arguments, which Airflow stores in its metadata database: ids and numbers only."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "conn_id": self.conn_id,
                "transcript_ids": self.transcript_ids,
                "poll_interval_s": self.poll_interval_s,
                "enough": self.enough,
                "first_look_s": self.first_look_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look up the jobs until enough have ended."""
        try:
            service = await AssemblyAIHook(self.conn_id).aget_conn()
            waiting, pause_s, interval_s = self.transcript_ids, self.first_look_s, self.poll_interval_s
            while len(self.transcript_ids) - len(waiting) < self.enough:
                await asyncio.sleep(pause_s * random.uniform(1, 1.2))  # noqa: S311 - spreads requests, no security use
                jobs = await asyncio.to_thread(service.jobs, waiting)
                waiting = [one for one in waiting if not jobs[one].ended]
                pause_s = interval_s = min(interval_s * 1.25, LONGEST_INTERVALS * self.poll_interval_s)
        except CallphasesError as error:
            yield TriggerEvent({"status": "error", "message": str(error)})
        except Exception as error:
            # The event is stored, and the text of an unknown error may contain secrets.
            yield TriggerEvent({"status": "error", "message": f"The lookup failed: {type(error).__name__}."})
        else:
            yield TriggerEvent({"status": "ended"})
