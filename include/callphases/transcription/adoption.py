"""Lost jobs: those at the provider whose id a lost answer, or a killed process, kept from the ledger."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping

from callphases.errors import CallFailure
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.state.events import Deleted, Event, Failed, Intended, Submitted, Transcribed
from callphases.state.ledger import Ledger
from callphases.transcription.assemblyai import AssemblyAI, Job

log = logging.getLogger(__name__)

CLOCK_SKEW = dt.timedelta(minutes=5)
"""By how much the provider's clock may be behind ours."""
_UNKNOWN_OPTIONS = 9
"""Rank of a job whose options can't be read: behind every other."""


class Adoption:
    """Finds the jobs that earlier submissions of a task's recordings have left at the provider."""

    def __init__(self, service: AssemblyAI, pipeline: Pipeline, ledger: Ledger) -> None:
        self._service, self._pipeline, self._ledger = service, pipeline, ledger

    def adopt(self, todo: Mapping[str, Recording]) -> set[str]:
        """Record the id of each job that is found; returns the transcript keys of these.

        Args:
            todo: recordings to transcribe, by their transcript keys.

        Raises:
            AccountError, ServiceUnavailable: the provider does not answer.
            DayHeld, RunStopped: as ``Lease.hold``.
        """
        events = {key: event for key in todo if (event := self._ledger.find(key)) is not None}
        # Done at the provider, and could not be fetched by an earlier run.
        paid = {key: event for key, event in events.items() if isinstance(event, Failed) and event.paid}
        ids = {key: str(event.transcript_id) for key, event in paid.items()}
        intents = {key: event for key, event in events.items() if isinstance(event, Intended)}
        if intents:
            if quiet_in_s := self._ledger.quiet_in_s:
                log.info("An earlier process may still submit; its jobs are looked for in %.0f s.", quiet_in_s)
                self._ledger.lease.sleep(quiet_in_s)
            ids |= self._found(intents)
        self._ledger.note(
            Submitted(key=key, recording=todo[key].key, transcript_id=one, tries=_tries(events[key]))
            for key, one in ids.items()
        )
        return set(ids)

    def _found(self, intents: Mapping[str, Intended]) -> dict[str, str]:
        """The ids of the jobs at the provider that are those of ``intents``."""
        keys = {event.audio_url: key for key, event in intents.items()}
        taken = self._taken(set(intents))
        since = min(event.at for event in intents.values()) - CLOCK_SKEW
        found: dict[str, list[Job]] = {}
        for job in self._service.jobs_since(since):
            key = keys.get(job.audio_url)
            if key is not None and job.id not in taken and (job.created is None or job.created >= since):
                found.setdefault(key, []).append(job)
        ids: dict[str, str] = {}
        for key, jobs in found.items():
            sent_at = intents[key].at
            ranked = ((self._unlikeliness(job), abs((job.created or sent_at) - sent_at), job.id) for job in jobs)
            likely = sorted((rank, distance, one) for rank, distance, one in ranked if rank is not None)
            if likely:
                ids[key] = likely[0][2]
        return ids

    def _taken(self, intended: set[str]) -> set[str]:
        """The ids of jobs that can't be those of the transcript keys ``intended``.

        A job that was submitted for such a key and not collected can be: a run that had lost the day may have found it,
        and recorded it, before the run that sent it did.
        """
        return {
            event.transcript_id
            for event in self._ledger.all()
            if isinstance(event, Submitted | Transcribed | Failed | Deleted) and event.transcript_id is not None
            if event.key not in intended or not _is_uncollected(event)
        }

    def _unlikeliness(self, job: Job) -> int | None:
        """How little a job looks like ours, by its options; None: it is another pipeline's of the same recording.

        Only a switch that differs says so: a service may write other values in its own way, and a transcript with other
        options is better than a second payment.
        """
        try:
            document = self._service.transcript(job.id)
        except CallFailure:
            return _UNKNOWN_OPTIONS
        for name, value in self._pipeline.speech_options.items():
            if isinstance(value, bool) and document.get(name, value) not in (value, None):
                return None
        ours = self._pipeline.speech_models
        theirs = document.get("speech_models") or [document.get("speech_model_used")]
        others = 0 if theirs in (ours, ours[:1]) else 1 if set(theirs) & set(ours) else 2
        return others + 4 * (job.status == "error")


def _tries(event: Event) -> int:
    return event.tries if isinstance(event, Intended | Failed) and event.tries else 1


def _is_uncollected(event: Event) -> bool:
    return isinstance(event, Submitted) or (isinstance(event, Failed) and event.paid)
