"""A chunk's recordings → transcripts: submit them, look at the jobs, collect what has ended."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from callphases.errors import BackfillWaits, CallFailure, OverBudget, ProviderError, ServiceUnavailable
from callphases.limits.backfill import Backfill
from callphases.limits.chunk_budget import ChunkBudget
from callphases.limits.quota import Slots
from callphases.pipeline import Pipeline
from callphases.progress import DayPass, Progress
from callphases.recordings import Recording, counted
from callphases.state.bucket import RecordingBucket
from callphases.state.events import Failed, Intended, Submitted, Transcribed, Withdrawn
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import Ledger
from callphases.state.manifests import Manifest
from callphases.state.storage import ObjectPrefix
from callphases.state.transcripts import TranscriptWriter
from callphases.state.workers import Done, work_off
from callphases.transcription.adoption import Adoption
from callphases.transcription.assemblyai import AssemblyAI, Job, without_query
from callphases.transcription.delivery import Delivery, failure_event
from callphases.transcription.pacing import Pacing
from callphases.transcription.submission import Batch, Submission

log = logging.getLogger(__name__)

BATCH = 50
"""Submissions that share a write to the ledger, of their intents, with the ids of those before."""
LOOK_AHEAD_S = 10.0
"""Intents are written for what the ramp lets go within this time: they are acted upon while they are fresh."""
SUBMIT_ROUNDS = 6
LOST_PAUSES_S = (2.0, 4.0)
"""When, after a lost answer, the job is looked for at the provider before it is submitted again."""
LATE_PAUSES_S = (14.0, 30.0, 60.0)
"""And when after that, where the service may not have taken it yet: its answer took too long."""
AT_ONCE = 8
"""Requests of one task to the speech service at the same moment; each waits for an answer, most of its time."""
NAMED = 20
"""A chunk of up to so many recordings names each of them in the log when it is transcribed."""
_STATES = (Transcribed.kind, "without speech", "failed", "waiting")
QUICK_JOBS = 0.25
"""Jobs that take no more than this part of a task's patience are waited for as long as one after the other ends."""


@dataclass(frozen=True)
class Waiting:
    """What a chunk waits for.

    Attributes:
        jobs: at the service, in the order of submission.
        unsent: how many recordings wait until others have ended.
        in_s: seconds until there is probably something to do.
    """

    jobs: list[str]
    unsent: int
    in_s: float


class Transcriber:
    """Takes the recordings of a chunk through the speech service. What it does is in the ledger before it goes on.

    Args:
        service: the client.
        bucket: of the recordings.
        pipeline: the pipeline.
        state: ``output.state``.
        ledger: of the task, open.
        chunk: its recordings.
        slots: the task's share of ``limits.transcriptions_at_once``.
        backfill: what ``limits.backfill`` allows, if the run is one of a backfill.
        progress: is told how far the chunk is, in words, when that changes.
    """

    def __init__(
        self,
        service: AssemblyAI,
        bucket: RecordingBucket,
        pipeline: Pipeline,
        state: ObjectPrefix,
        ledger: Ledger,
        chunk: Manifest,
        slots: Slots,
        backfill: Backfill | None = None,
        progress: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.ledger, self.chunk = ledger, chunk
        self._progress = progress
        self.pacing = Pacing(ledger.lease, ramp=pipeline.limits.ramp, slots=slots)
        self._service = service
        self._writer = TranscriptWriter(state, ledger.day)
        self._delivery = Delivery(service, bucket, pipeline, ledger, self._writer)
        self._adoption = Adoption(service, pipeline, ledger)
        self._pass = DayPass.of(chunk)
        self._budget, self._backfill = ChunkBudget(pipeline, chunk, ledger), backfill
        self._keys = RecordingKeys(pipeline)
        keys = [Progress(one, self._keys, ledger).due_key for one in chunk.recordings]
        self._recordings = dict(zip(keys, chunk.recordings, strict=True))
        self._numbers = {key: chunk.first + place for place, key in enumerate(keys)}
        self._ended: dict[str, Job] = {}
        self._unsent = 0
        self._logged = Counter({"waiting": len(keys)})
        self._named = set[str]()
        self._problems: dict[str, str] = {}
        self._was_answered = threading.Event()

    def run(self, patience_s: float) -> Waiting | None:
        """Transcribe the chunk; returns what is still to come after ``patience_s`` seconds, None if nothing is.

        The ledger knows what was submitted: to run this again submits nothing twice.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: every other call would fail the same way.
            DayHeld, RunStopped: as ``Lease.hold``.
            BackfillWaits: no job is under way, and ``limits.backfill`` does not let others go now.
        """
        clock = self.ledger.clock
        give_up_at, left_before = clock.monotonic() + patience_s, math.inf
        self.look()  # at jobs of an earlier process of this task
        while True:
            self.submit()
            left = self.collect()
            is_quick = self.pacing.job_s <= QUICK_JOBS * patience_s
            if is_quick and (left < left_before or self.pacing.is_next(len(self.under_way()), self._unsent)):
                give_up_at = clock.monotonic() + patience_s
            pause_s, left_before = self.pacing.pause_s(), left
            if self.chunk.is_archive and left and not self.under_way():
                break  # others have all slots: a backfill does not wait for them in a worker
            if not left or self._held_back or clock.monotonic() + max(pause_s, self._next_in_s()) > give_up_at:
                break
            self.ledger.lease.sleep(pause_s)
            self.look()
        self.keep()
        if self._backfill is not None:
            self._backfill.settle()
            if left and (waits := self._held_back) is not None:
                raise waits
        return Waiting(list(self.under_way()), self._unsent, self._next_in_s()) if left else None

    def submit(self) -> int:
        """Start a transcription for each recording that has none under way or done, as far as the limits allow.

        What is about to be paid for is in the ledger before it is sent, so a job whose id was lost, with the answer or
        with the process, is found again at the provider by its URL. A recording that the service refuses becomes a
        failure in the ledger and stops nothing.

        Returns:
            How many have to wait until others have ended (``limits.transcriptions_at_once``).

        Raises:
            As ``run``.
        """
        todo = {
            key: recording
            for key, recording in self._recordings.items()
            if not self._pass.has_settled(self.ledger.find(key)) or self._failed_with_other_models(key)
        }
        try:
            self._adopt(todo)
            self._use_models_of_today(todo)
            for _ in range(SUBMIT_ROUNDS):
                late, unsent = self._submit_all(todo)
                for look, pause_s in enumerate(LOST_PAUSES_S + LATE_PAUSES_S):
                    lost = self._intended(todo.keys() - unsent)
                    if look == len(LOST_PAUSES_S):
                        lost -= self._fail_without_id(lost, todo)
                    if not lost:
                        self._unsent = len(todo)
                        if not todo:
                            self._allowed(0, 0)  # gives back the slots of what has ended
                        return self._unsent
                    if look >= len(LOST_PAUSES_S) and late.isdisjoint(lost):
                        break
                    self.ledger.lease.sleep(pause_s)
                    self._adopt(todo)
        finally:
            self.ledger.write()  # the ids, which each batch leaves to the next one's intents
        raise ServiceUnavailable(f"{len(lost)} submissions were sent {SUBMIT_ROUNDS} times and not answered.")

    def under_way(self) -> dict[str, str]:
        """What was submitted and is not collected: transcript id → transcript key, in the order of submission."""
        events = (self.ledger.find(key) for key in self._recordings)
        return {event.transcript_id: event.key for event in events if isinstance(event, Submitted)}

    def look(self) -> None:
        """See which jobs have ended, so that others may be submitted; raises as ``run``."""
        waiting = [one for one in self.under_way() if one not in self._ended]
        if not waiting:
            return
        for job in self._service.jobs(waiting).values():
            if job.ended:
                self._ended[job.id] = job
                self.pacing.saw_job(job.took_s)

    def collect(self) -> int:
        """Save the transcripts of all jobs that were seen to have ended.

        Returns:
            How many recordings are not done: under way, not submitted yet, or failed and worth another submission.

        Raises:
            As ``run``.
        """
        waiting = self.under_way()
        ended = [(job, waiting[one]) for one, job in self._ended.items() if one in waiting]
        tasks = (partial(self._collect, job, key) for job, key in ended)
        worked = work_off(self.ledger, tasks, threads=AT_ONCE)
        if worked.problem is not None:
            raise worked.problem
        self._ended.clear()
        again = sum(
            isinstance(event, Failed) and (event.again or self._failed_with_other_models(event.key))
            for event in worked.events
        )
        left = len(waiting) - len(ended) + again + self._unsent
        self._log_counts()
        if self._writer.is_full:
            self._writer.flush()
        return left

    def _log_counts(self) -> None:
        """Say how far the chunk is, if that has changed. Why a recording failed was logged with its key."""
        states = {key: self._state(key) for key in self._recordings}
        counts = Counter(states.values())
        if counts == self._logged:
            return
        self._logged = counts
        of_chunk = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
        self._progress(of_chunk)
        if len(states) <= NAMED:
            for key, state in states.items():
                if key not in self._named and state not in ("failed", "waiting"):
                    self._named.add(key)
                    log.info("%s: %s.", self._recordings[key].key, state)
        if len(states) > 1:
            log.info("%s: %s.", counted(len(states)), of_chunk)

    def _state(self, key: str) -> str:
        event = self.ledger.find(key)
        if isinstance(event, Transcribed):
            return Transcribed.kind if event.status == "completed" else "without speech"
        return "failed" if isinstance(event, Failed) and self._pass.has_settled(event) else "waiting"

    def keep(self) -> None:
        """Make durable what was collected, before the task ends or is deferred."""
        self._writer.flush()
        self.ledger.write()
        self._allowed(0, self._unsent)  # gives back the slots that are not needed

    @property
    def _held_back(self) -> BackfillWaits | None:
        """Why nothing is to be done for long: no job is under way, and ``limits.backfill`` does not let any go now."""
        return None if self._backfill is None or self.under_way() else self._backfill.waits

    def _next_in_s(self) -> float:
        return self.pacing.next_in_s(len(self.under_way()), self._unsent)

    def _collect(self, job: Job, key: str) -> Done:
        return Done([self._delivery.collect(job, key, self._recordings[key])])

    def _intended(self, todo: Collection[str]) -> set[str]:
        """Those of ``todo`` that were sent, as far as anyone knows, and have no id."""
        return {key for key in todo if isinstance(self.ledger.find(key), Intended)}

    def _allowed(self, wanted: int, unsent: int) -> int:
        """How many of ``wanted`` may be submitted now, where ``unsent`` are still to be."""
        under_way = sum(one not in self._ended for one in self.under_way())
        return self.pacing.allowed(wanted, under_way, len(self._recordings) - unsent)

    def _adopt(self, todo: dict[str, Recording]) -> None:
        """Take out of ``todo`` what is at the provider already."""
        for key in self._adoption.adopt(todo):
            del todo[key]

    def _failed_with_other_models(self, key: str) -> bool:
        """Whether a job that was under way when the models were changed has ended without a transcript."""
        event = self.ledger.find(key)
        is_open = isinstance(event, Failed) and not event.paid and not event.permanent
        return is_open and key != self._keys.transcript(self._recordings[key])

    def _use_models_of_today(self, todo: dict[str, Recording]) -> None:
        """Give what was sent with other models, and is not at the provider, the keys of the models that it is sent with
        now; the intents with the others are withdrawn."""
        renamed = {key: self._keys.transcript(recording) for key, recording in todo.items()}
        renamed = {key: today for key, today in renamed.items() if key != today}
        if not renamed:
            return
        self.ledger.note(
            Withdrawn(key=key, recording=todo[key].key)
            for key in renamed
            if isinstance(self.ledger.find(key), Intended)
        )
        for of_key in (todo, self._recordings):
            items = [(renamed.get(key, key), recording) for key, recording in of_key.items()]
            of_key.clear()
            of_key.update(items)
        self._numbers = {renamed.get(key, key): number for key, number in self._numbers.items()}

    def _submit_all(self, todo: dict[str, Recording]) -> tuple[set[str], set[str]]:
        """Submit all of ``todo`` that may be, and take out of it what the service answered.

        Returns:
            Of those left: the ones that the service may yet take, as their answers took too long; and the ones that
            were not sent, as they have to wait.
        """
        waiting, late = list(todo), set[str]()
        while waiting:
            affordable = self._budget.affordable(waiting)
            if not affordable and not self._budget.is_waiting(waiting):
                self._fail_over_budget(waiting.pop(0), todo)
                continue
            if self._backfill is not None:
                affordable = self._backfill.affordable(waiting[:affordable])
            allowed = self._allowed(affordable, len(waiting)) if affordable else 0
            if not allowed:
                break
            self.ledger.lease.sleep(self.pacing.due_in_s(self._numbers[waiting[0]]))
            most = min(allowed, BATCH)
            soon = (key for key in waiting[1:most] if self.pacing.due_in_s(self._numbers[key]) <= LOOK_AHEAD_S)
            batch = [waiting[0], *soon]
            late |= self._submit_batch(batch, todo)
            waiting = waiting[len(batch) :]
        return late, set(waiting)

    def _fail_without_id(self, lost: Collection[str], todo: dict[str, Recording]) -> set[str]:
        """Give up those of ``lost`` that were answered without an id and are not at the provider: sending them again
        might pay again."""
        unread = {key for key in lost if key in self._problems}
        for key in unread:
            failure = ProviderError(self._problems[key])
            self.ledger.note([failure_event(key, todo.pop(key), failure)])
        return unread

    def _take_url(self, key: str, urls: dict[str, str]) -> Done:
        recording = self._recordings[key]
        try:
            urls[key] = self._delivery.audio_url(recording)
        except CallFailure as failure:
            return Done([failure_event(key, recording, failure)])
        return Done()

    def _fail_over_budget(self, key: str, todo: dict[str, Recording]) -> None:
        why = OverBudget(
            "Others were longer than their headers state, so the rest does not pay for it; it was not sent."
        )
        self.ledger.note([failure_event(key, todo.pop(key), why)])

    def _submit_batch(self, batch: Sequence[str], todo: dict[str, Recording]) -> set[str]:
        """Submit some of ``todo``, and take out of it what the service answered.

        Returns:
            Those left that the service may yet take: their answers took too long.
        """
        urls: dict[str, str] = {}
        unreadable = work_off(self.ledger, (partial(self._take_url, key, urls) for key in batch), threads=AT_ONCE)
        for event in unreadable.events:
            del todo[event.key]
        if unreadable.problem is not None:
            raise unreadable.problem
        submissions = {
            key: Submission(key, todo[key], urls[key], self._numbers[key], self._tries(key) + 1)
            for key in batch
            if key in urls
        }
        self.ledger.lease.hold()
        intents = [
            Intended(
                key=one.key,
                recording=one.recording.key,
                audio_url=without_query(one.url),
                tries=one.tries,
                **self._keys.intended(one.recording),
            )
            for one in submissions.values()
        ]
        self.ledger.write(intents)
        sending = Batch(self._delivery, self.ledger, self.pacing, self._was_answered)
        worked = work_off(self.ledger, sending.tasks(submissions), threads=AT_ONCE, stop=sending.stop)
        for event in worked.events:
            del todo[event.key]
        unsent = [key for key in submissions if key in todo and key not in sending.sent]
        self.ledger.note(Withdrawn(key=key, recording=todo[key].key) for key in unsent)
        if worked.problem is not None:
            raise worked.problem
        self._problems |= sending.problems
        return sending.late

    def _tries(self, key: str) -> int:
        """How often this pass over the day has had ``key`` submitted and failed."""
        event = self.ledger.find(key)
        if event is None or event.at < self._pass.began_at or not isinstance(event, Intended | Submitted | Failed):
            return 0
        return event.tries - 1 if isinstance(event, Intended) else event.tries
