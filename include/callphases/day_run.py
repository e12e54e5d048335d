"""A run of a day, or of a range of days, from its list to its tables.

Airflow's tasks and the command line call the same steps: ``begin``, ``transcribe`` and ``segment`` for each chunk,
``end``; for a range ``begin_range`` and ``end_range``. Every step can be killed anywhere and started again, here or on
another machine.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.day_range import Again, DayRange, Span
from callphases.errors import AccountError, CallphasesError, ServiceUnavailable
from callphases.limits import costs
from callphases.limits.backfill import Backfill, backfill_jobs, backfill_questions
from callphases.limits.quota import RateLimits, Slots
from callphases.listing.late import late_days
from callphases.pipeline import Pipeline
from callphases.progress import DayPass, Progress, unsettled
from callphases.recordings import Recording
from callphases.replay import Replay
from callphases.segmentation.chunk_segmenter import ChunkSegmenter
from callphases.segmentation.gateway import Gateway
from callphases.segmentation.segmenter import Segmenter
from callphases.speech_models import outdated
from callphases.state import layout
from callphases.state.bucket import RecordingBucket
from callphases.state.events import Stopped, stopped
from callphases.state.keys import RecordingKeys, stop_key
from callphases.state.lease import Lease
from callphases.state.ledger import Fold, Ledger, LedgerView, RangeEvents, read_ledger_day, read_task
from callphases.state.manifests import DayList, Manifest, load_days, new_run_token, save_days
from callphases.state.range_lease import RangeLease
from callphases.state.storage import ObjectPrefix
from callphases.state.summaries import DaySummary, days_to_do, record
from callphases.state.transcripts import TranscriptReader
from callphases.tables.columns import describe
from callphases.tables.parts import PartWriter
from callphases.tables.publishing import Published, publish
from callphases.tables.reading import published_versions
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.deletion import delete_at_provider, forget
from callphases.transcription.transcriber import Transcriber, Waiting
from callphases.work_list import Listed, WorkList

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)


class DayRun:
    """The stores and services of one pipeline, and the steps of a run.

    Args:
        pipeline: the pipeline.
        s3: reaches the recordings, ``output.state`` and ``output.tables``.
        service: the speech service.
        gateway: the language models.
        clock: for leases and pauses.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        s3: S3Client,
        service: AssemblyAI,
        gateway: Gateway,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.pipeline, self.service, self.clock = pipeline, service, clock
        self.bucket = RecordingBucket(s3, pipeline.recordings.bucket)
        self.state = ObjectPrefix(s3, pipeline.output.state, "output.state")
        self.tables = ObjectPrefix(s3, pipeline.output.tables, "output.tables")
        self.gateway = gateway.limited_by(RateLimits(self.state, pipeline.limits.llm_requests_per_minute))
        self._keys = RecordingKeys(pipeline)
        self._has_warned = False

    def begin(
        self,
        day: dt.date,
        run_id: str,
        replay: Replay | None = None,
        budget_usd: float | None = None,
        *,
        is_archive: bool = False,
    ) -> Listed:
        """Take the day, list it, and write the manifests of what is to do.

        Args:
            day: of the calls.
            run_id: goes into the rows.
            replay: only these calls are tried again, permanent failures too. None does everything that is not done.
            budget_usd: what the run may spend on the day; None is ``budget.usd_per_run``.
            is_archive: whether the run is one of a backfill, and so comes after nights.

        Raises:
            DayHeld: another run works on this day, or lists the archive that it is in.
            AccountError, ConfigurationError, ServiceUnavailable: nothing was paid. One of the calls to replay may be
                none of the day's.
        """
        lease = self._lease(day, new_run_token(run_id), task="list")
        return self._begin(lease, [day], run_id, replay, budget_usd, is_archive=is_archive)

    def begin_range(self, days: DayRange, run_id: str, replay: Replay | None = None, again: Again = "none") -> Listed:
        """Take several days, list each once, and write the manifests of what is to do on any of them.

        Args:
            days: of the calls; one that the pipeline's zone does not have is left out.
            run_id: goes into the rows.
            replay: as for ``begin``; then ``again`` does not count.
            again: which published days are run again.

        Raises:
            DayHeld: another run works on one of the days, or lists the archive that they are in.
            AccountError, ConfigurationError, ServiceUnavailable: nothing was paid.
        """
        todo = self.days_to_do(days, "completed" if replay is not None else again)
        run_token = new_run_token(run_id)
        if not todo:
            return Listed(save_days(self.state, days, run_token, []), [])
        lease = self._lease(days, run_token, todo, task="list")
        return self._begin(lease, todo, run_id, replay, None, is_archive=True)

    def days_to_do(self, days: DayRange, again: Again) -> list[dt.date]:
        """Which of the days there is something to do for; ``again`` as for ``begin_range``."""
        return days_to_do(self.state, days, again, self.pipeline.zone)

    def _begin(
        self,
        lease: Lease,
        days: Sequence[dt.date],
        run_id: str,
        replay: Replay | None,
        budget_usd: float | None,
        *,
        is_archive: bool,
    ) -> Listed:
        ledger = Ledger.open(self.state, lease, run_id, "list")
        try:
            work = WorkList(self.pipeline, self.bucket, ledger, replay, is_archive=is_archive)
            with work.todo:
                for day in days:
                    work.add(day)
                if work.todo:
                    self._check_services()
                return work.write(self.pipeline.budget.usd_per_run if budget_usd is None else budget_usd)
        except Exception:
            lease.release()
            raise

    def _check_services(self) -> None:
        self._warn_of_models()
        self.service.check()
        self.gateway.check(self.pipeline.segmentation.models)

    def late_days(self, day: dt.date) -> Iterator[dt.date]:
        """The days before ``day`` that a run of it runs again; see ``late``."""
        return late_days(self.bucket, self.pipeline, self.state, partial(published_versions, self.tables), day)

    def _warn_of_models(self) -> None:
        """Warn of models that are not current, or have no price: once for all days of a run."""
        if not self._has_warned:
            self._has_warned = True
            for warning in (outdated(self.pipeline.speech_models), *costs.unpriced(self.pipeline)):
                if warning is not None:
                    log.warning("%s", warning)

    def load(self, uri: str) -> Manifest:
        """The manifest of a chunk."""
        return Manifest.load(self.state, uri)

    def load_day(self, uri: str) -> DayList:
        """The day as it was listed."""
        return DayList.load(self.state, uri)

    def load_days(self, uri: str) -> list[DayList]:
        """The days of a run over several, as they were listed."""
        return load_days(self.state, uri)

    def transcribe(
        self, chunk: Manifest, patience_s: float, progress: Callable[[str], object] = lambda _: None
    ) -> Waiting | None:
        """Have a chunk transcribed; returns what is still to come after ``patience_s`` seconds, None if nothing is.

        ``progress`` is told how far it is, in words, when that changes.

        Raises:
            DayHeld: another run works on this day, or a backfill may not pay now.
            RunStopped: another chunk has met an error of the account.
            AccountError, ConfigurationError, ServiceUnavailable: the ledger says how far it got.
        """
        with self._working_on(chunk) as ledger:
            describe(self.bucket, chunk.recordings, self.pipeline, ledger, DayPass.of(chunk))
            limits = self._slots(chunk), self._backfill(chunk, ledger)
            transcriber = Transcriber(
                self.service, self.bucket, self.pipeline, self.state, ledger, chunk, *limits, progress=progress
            )
            return transcriber.run(patience_s)

    def segment(self, chunk: Manifest) -> None:
        """Have the calls of a chunk divided into phases, and write its part; raises as ``transcribe``."""
        with self._working_on(chunk) as ledger:
            transcripts, backfill = TranscriptReader(self.state), self._backfill(chunk, ledger)
            segmenter = Segmenter(self.gateway if backfill is None else self._after_nights(backfill), self.pipeline)
            ChunkSegmenter(segmenter, self.pipeline, transcripts, ledger, chunk, backfill).run()
            # At the end and no sooner: publishing takes a part for all that there is of a chunk.
            for day, recordings in chunk.by_day():
                part = PartWriter(self.state, self.pipeline, chunk, day)
                for recording in recordings:
                    part.add(recording, ledger)
                part.write(chunk.name)

    def end(self, day: DayList) -> Published:
        """Publish the day, delete at the provider what the pipeline file says, and let the next run begin.

        Raises:
            DayHeld: another run works on this day.
            AccountError, ConfigurationError, ServiceUnavailable: the tables are as they were, or as they should be.
        """
        lease = self._lease(day.day, day.run_token)
        published, is_abandoned = self._publish(day, lease)
        if self.pipeline.privacy.delete_after:
            delete_at_provider(Ledger.open(self.state, lease, day.run_id, "publish"), self.service.delete)
        published = replace(published, stopped=lease.stopped)
        record(self.state, [_summary(day, published)], self.clock)
        if is_abandoned and published.stopped is None:
            lease.retire()
        lease.release()
        return published

    def end_range(self, days: Sequence[DayList]) -> list[Published]:
        """Publish each of the days of a run over several, the first first; then as ``end``, and raises as that.

        What was published before an error stays. Started again, it publishes all of them again.
        """
        if not days:
            return []
        head, claimed = days[0], [day.day for day in days]
        assert head.days is not None
        lease = RangeLease(self.state, head.days, head.run_token, claimed, head.fencing_token, clock=self.clock)
        done: dict[DayList, Published] = {}
        is_abandoned = False
        try:
            for day in days:
                done[day], of_lost_task = self._publish(day, lease)
                is_abandoned |= of_lost_task
                lease.hold()
        finally:
            done = {day: replace(published, stopped=lease.stopped) for day, published in done.items()}
            record(self.state, [_summary(day, published) for day, published in done.items()], self.clock)
        if self.pipeline.privacy.delete_after:
            of_ranges = RangeEvents(self.state)
            known = {day: read_ledger_day(self.state, day, of_ranges).all() for day in claimed}
            days_by_key = {event.recording: day for day, events in known.items() for event in events}
            events = [event for of_day in known.values() for event in of_day]
            ledger = Ledger.open(self.state, lease, head.run_id, "publish", events, lease.take(), days_by_key)
            delete_at_provider(ledger, self.service.delete)
        if is_abandoned and lease.stopped is None:
            lease.retire()
        lease.give_up({day.day: day.index for day in days}, Fold(self.state, head.run_token))
        lease.release()
        return list(done.values())

    def _publish(self, day: DayList, lease: Lease) -> tuple[Published, bool]:
        """Publish a day; also returns whether the task of a chunk was lost, and may still be alive."""
        # Another run may have done more since, of which the parts of this one's tasks know nothing.
        view = read_ledger_day(self.state, day.day) if lease.take() != day.fencing_token else None
        is_abandoned = False

        def missing(chunk_name: str) -> Iterator[tuple[Recording, LedgerView]]:
            chunk = self.load(self.state.uri_of(layout.manifest(day.span, day.run_token, chunk_name)))
            of_chunk = view or LedgerView([*chunk.known, *read_task(self.state, day.span, day.run_token, chunk_name)])
            nonlocal is_abandoned
            is_abandoned |= self._is_abandoned(chunk, of_chunk)
            return ((recording, of_chunk) for recording in dict(chunk.by_day())[day.day])

        drop = partial(forget, self.state, self.service.delete, day.day)
        return publish(self.tables, self.state, self.pipeline, day, missing, view, drop), is_abandoned

    def _is_abandoned(self, chunk: Manifest, view: LedgerView) -> bool:
        """Whether the task of a chunk was lost: it is not done, and did not write why it stopped."""
        stops = (one.stopped for one in unsettled(chunk.recordings, self._keys, view, DayPass.of(chunk)))
        return any(stop is None or stop.at < chunk.listed_at for stop in stops)

    @contextlib.contextmanager
    def _working_on(self, chunk: Manifest) -> Iterator[Ledger]:
        """The ledger of a chunk's task. What keeps the task from its end is recorded for what it has not done."""
        days = chunk.days_by_key() if isinstance(chunk.day, DayRange) else {}
        lease = self._lease(chunk.day, chunk.run_token, sorted(set(days.values())), chunk.fencing_token, chunk.name)
        ledger = Ledger.open(self.state, lease, chunk.run_id, chunk.name, chunk.known, chunk.fencing_token, days)
        try:
            yield ledger
        except (AccountError, ServiceUnavailable) as error:
            with contextlib.suppress(CallphasesError):  # the store may be what does not answer
                if isinstance(error, AccountError):
                    lease.stop(error)
                left = unsettled(chunk.recordings, self._keys, ledger, DayPass.of(chunk))
                ledger.write([self._stopped(one, error) for one in left])
            raise

    def _lease(
        self,
        span: Span,
        run_token: str,
        claimed: Sequence[dt.date] = (),
        claimed_under: int = 0,
        task: str | None = None,
    ) -> Lease:
        if isinstance(span, DayRange):
            return RangeLease(self.state, span, run_token, claimed, claimed_under, task, clock=self.clock)
        return Lease(self.state, span, run_token, task, clock=self.clock)

    def _slots(self, chunk: Manifest) -> Slots:
        """A chunk's share of ``limits.transcriptions_at_once``."""
        limits, name = self.pipeline.limits, layout.jobs_limit()
        return Slots(
            self.state,
            name,
            limits.transcriptions_at_once,
            chunk.run_token,
            chunk.name,
            chunk.first,
            chunk.total,
            backfill_limit=backfill_jobs(self.pipeline) if chunk.is_archive else None,
            clock=self.clock,
        )

    def _after_nights(self, backfill: Backfill) -> Gateway:
        """The language models, for a task of a backfill."""
        per_minute, own = self.pipeline.limits.llm_requests_per_minute, backfill_questions(self.pipeline)
        return self.gateway.limited_by(
            RateLimits(self.state, per_minute, backfill_limit=own, hold=backfill.hold, clock=self.clock)
        )

    def _backfill(self, chunk: Manifest, ledger: Ledger) -> Backfill | None:
        return Backfill(self.pipeline, chunk, ledger) if chunk.is_archive else None

    def _stopped(self, progress: Progress, error: AccountError | ServiceUnavailable) -> Stopped:
        return stopped(stop_key(progress.key), error, progress.recording.key)


def _summary(day: DayList, published: Published) -> DaySummary:
    shared = {one.name for one in fields(DaySummary)} & {one.name for one in fields(Published)}
    return DaySummary(
        day=day.day,
        published_at=dt.datetime.now(dt.UTC),
        run_id=day.run_id,
        began_at=day.listed_at,
        **{name: getattr(published, name) for name in shared},
    )
