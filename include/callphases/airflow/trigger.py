"""Waits for the transcriptions of a chunk without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from callphases.airflow.hook import AssemblyAIHook
from callphases.errors import CallphasesError


class TranscriptsTrigger(BaseTrigger):
    """Fires once when all of the jobs have ended, or when they can't be looked up.

    The event is ``{"status": "ended"}`` or ``{"status": "error", "message": …}``. The first look-up is one interval
    away: a trigger that fires while the scheduler is still busy with the deferral makes it fail the task.

    Args:
        conn_id: the connection of the speech service.
        transcript_ids: the jobs.
        poll_interval_s: seconds between two look-ups.
    """

    def __init__(self, conn_id: str, transcript_ids: list[str], poll_interval_s: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.transcript_ids = transcript_ids
        self.poll_interval_s = poll_interval_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Ids and numbers only: this is stored in the metadata database."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "conn_id": self.conn_id,
                "transcript_ids": self.transcript_ids,
                "poll_interval_s": self.poll_interval_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look the jobs up until all have ended."""
        try:
            service = await AssemblyAIHook(self.conn_id).aget_conn()
            waiting = self.transcript_ids
            while waiting:
                await asyncio.sleep(self.poll_interval_s)
                jobs = await asyncio.to_thread(service.jobs, waiting)
                waiting = [job.id for job in jobs.values() if not job.ended]
        except CallphasesError as error:
            yield TriggerEvent({"status": "error", "message": str(error)})
        except Exception as error:
            # Its text could hold anything; its kind is safe to store.
            yield TriggerEvent({"status": "error", "message": f"The look-up failed: {type(error).__name__}."})
        else:
            yield TriggerEvent({"status": "ended"})
