"""A run of a day, from its list to its tables: what is to do, in which chunks, and for how much.

Airflow's tasks and the command line call the same steps: ``begin``, ``transcribe`` and ``segment`` for each chunk,
``end``. Every step can be killed anywhere and started again, here or on another machine.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.errors import (
    ALL_FAILED,
    AccountError,
    CallphasesError,
    ConfigurationError,
    OverBudget,
    ServiceUnavailable,
    failure_classes,
)
from callphases.limits import costs
from callphases.limits.budget import within_budget
from callphases.limits.quota import RateLimits, Slots
from callphases.listing.archive import Archive, listed_day
from callphases.listing.late import late_days
from callphases.listing.listing import Spool, chunk_counts
from callphases.pipeline import Pipeline
from callphases.progress import DayPass, Progress, unsettled
from callphases.recordings import Recording, counted
from callphases.segmentation.chunk_segmenter import ChunkSegmenter
from callphases.segmentation.gateway import Gateway
from callphases.segmentation.segmenter import Segmenter
from callphases.speech_models import outdated
from callphases.state import layout
from callphases.state.bucket import RecordingBucket
from callphases.state.events import Stopped, stopped
from callphases.state.keys import RecordingKeys, stop_key
from callphases.state.lease import Lease
from callphases.state.ledger import Ledger, LedgerView, read_ledger_day, read_task
from callphases.state.manifests import DayList, Manifest, new_run_token
from callphases.state.storage import ObjectPrefix
from callphases.state.summaries import DaySummary, record
from callphases.state.transcripts import TranscriptReader
from callphases.tables.columns import describe
from callphases.tables.parts import PartWriter
from callphases.tables.publishing import Published, publish
from callphases.tables.reading import published_versions
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.deletion import delete_at_provider, forget
from callphases.transcription.transcriber import Transcriber, Waiting

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

REST_PART = 10_000
"""Calls in a part of the rows of recordings that are in no chunk."""


@dataclass(frozen=True)
class Listed:
    """What a run has listed: URIs of its list of the day and of the chunks to do.

    ``budget_usd`` is what is left of the run's budget for other days; None where there is no limit.
    """

    day: str
    chunks: list[str]
    budget_usd: float | None = None


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
        replay: str | None = None,
        budget_usd: float | None = None,
        *,
        is_archive: bool = False,
    ) -> Listed:
        """Take the day, list it, and write the manifests of what is to do.

        Args:
            day: of the calls.
            run_id: goes into the rows.
            replay: failure classes with commas between, or ``all``: only calls that failed with these are tried again,
                permanent failures too. None does everything that is not done.
            budget_usd: what the run may spend on the day; None is ``budget.usd_per_run``.
            is_archive: whether the run is one of a backfill, and so comes after nights.

        Raises:
            DayHeld: another run works on this day, or lists the archive that it is in.
            AccountError, ConfigurationError, ServiceUnavailable: nothing was paid.
        """
        lease = self._lease(day, new_run_token(run_id), "list")
        ledger = Ledger.open(self.state, lease, run_id, "list")
        try:
            cap_usd = self.pipeline.budget.usd_per_run if budget_usd is None else budget_usd
            return self._begin(ledger, replay, cap_usd, is_archive=is_archive)
        except Exception:
            lease.release()
            raise

    def late_days(self, day: dt.date) -> Iterator[dt.date]:
        """The days before ``day`` that a run of it runs again; see ``late``."""
        return late_days(self.bucket, self.pipeline, self.state, partial(published_versions, self.tables), day)

    def _begin(self, ledger: Ledger, replay: str | None, cap_usd: float | None, *, is_archive: bool) -> Listed:
        classes = None if replay is None else _classes(replay)
        lease = ledger.lease
        day = DayList(
            day=ledger.day,
            run_id=ledger.run_id,
            run_token=lease.run_token,
            fencing_token=lease.fencing_token,
            listed_at=dt.datetime.now(dt.UTC),
            listed=0,
            chunks=0,
            rest=0,
            replay=replay is not None,
            is_archive=is_archive,
        )
        listing, recordings = self._recordings(lease)
        rest = _Rest(ledger, self.pipeline, day)
        listed = 0
        with Spool(self.pipeline.recordings.bucket) as todo:
            for recording in recordings:
                listed += 1
                lease.hold()
                if self._is_to_do(recording, ledger, day, classes):
                    todo.add(recording)
                else:
                    rest.add(recording)
            log.info(
                "%s: %s listed; %d to do, %d left as earlier runs have left %s.",
                ledger.day,
                counted(listed),
                len(todo),
                listed - len(todo),
                "it" if listed - len(todo) == 1 else "them",
            )
            chunks, left_usd = self._chunks(todo, ledger, rest, day, cap_usd) if todo else ([], cap_usd)
        rest.write()
        if listing is not None:
            lease.take_from(listing)
        day = replace(day, listed=listed, chunks=len(chunks), rest=rest.parts)
        return Listed(day.save(self.state), chunks, left_usd)

    def _recordings(self, lease: Lease) -> tuple[str | None, Iterable[Recording]]:
        """The recordings of the lease's day, and the listing of an archive that they are taken from, if any."""
        source = self.pipeline.recordings
        if source.is_daily:
            return None, listed_day(self.bucket, self.pipeline, self.state, lease.day, lease.hold)
        archive = Archive(self.bucket, self.pipeline, self.state, lease.hold)
        return archive.take(lease.day, lease.index, lease.run_token)

    def _is_to_do(self, recording: Recording, view: LedgerView, day: DayList, classes: set[str] | None) -> bool:
        """Whether there is something to do for a recording, in a replay of ``classes`` where these are given."""
        progress = Progress(recording, self._keys, view)
        if progress.is_settled(DayPass(day.listed_at, day.replay)):
            return False
        return classes is None or progress.has_failed(None if ALL_FAILED in classes else classes)

    def _chunks(
        self, todo: Spool, ledger: Ledger, rest: _Rest, day: DayList, cap_usd: float | None
    ) -> tuple[list[str], float | None]:
        """Write the manifests of what ``cap_usd`` pays for of ``todo``; the others fail.

        Returns their URIs, and what is left of ``cap_usd``.
        """
        self._warn_of_models()
        self.service.check()
        self.gateway.check(self.pipeline.segmentation.models)
        hold = ledger.lease.hold
        budget = within_budget(todo, cap_usd, self.pipeline, self.bucket, ledger, hold)
        counts = chunk_counts(todo.sizes if cap_usd is None else todo.sizes[: len(budget.estimates_usd)])
        if not budget.holds_anyway and len(counts) == sum(counts):
            counts = [sum(counts)]  # one task, which sees what the recordings before the next really cost
        waiting = iter(todo)
        first, uris = 0, []
        for number, count in enumerate(counts):
            chunk = list(itertools.islice(waiting, count))
            manifest = Manifest(
                name=layout.part_name(layout.CHUNK, number),
                day=day.day,
                run_id=day.run_id,
                run_token=day.run_token,
                fencing_token=day.fencing_token,
                listed_at=day.listed_at,
                recordings=chunk,
                known=ledger.of(chunk),
                first=first,
                total=sum(counts),
                replay=day.replay,
                is_archive=day.is_archive,
                budget_usd=budget.share_usd(first, count),
                lengths=budget.lengths(first, count),
            )
            uris.append(manifest.save(self.state))
            hold()
            first += count
        while over := list(itertools.islice(waiting, REST_PART)):
            why = OverBudget(f"The run's budget of ${cap_usd:.2f} was used up by other recordings; nothing was sent.")
            hold()
            ledger.write(self._stopped(Progress(one, self._keys, ledger), why) for one in over)
            for one in over:
                rest.add(one)
        return uris, budget.left_usd

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

    def transcribe(self, chunk: Manifest, patience_s: float) -> Waiting | None:
        """Have a chunk transcribed; returns what is still to come after ``patience_s`` seconds, None if nothing is.

        Raises:
            DayHeld: another run works on this day.
            RunStopped: another chunk has met an error of the account.
            AccountError, ConfigurationError, ServiceUnavailable: the ledger says how far it got.
        """
        with self._working_on(chunk) as ledger:
            describe(self.bucket, chunk.recordings, self.pipeline, ledger, DayPass.of(chunk))
            transcriber = Transcriber(
                self.service, self.bucket, self.pipeline, self.state, ledger, chunk, self._slots(chunk)
            )
            return transcriber.run(patience_s)

    def segment(self, chunk: Manifest) -> None:
        """Have the calls of a chunk divided into phases, and write its part; raises as ``transcribe``."""
        with self._working_on(chunk) as ledger:
            segmenter = Segmenter(self.gateway, self.pipeline)
            ChunkSegmenter(segmenter, self.pipeline, TranscriptReader(self.state), ledger, chunk).run()
            # At the end and no sooner: publishing takes a part for all that there is of a chunk.
            part = PartWriter(self.state, self.pipeline, chunk)
            for recording in chunk.recordings:
                part.add(recording, ledger)
            part.write(chunk.name)

    def end(self, day: DayList) -> Published:
        """Publish the day, delete at the provider what the pipeline file says, and let the next run begin.

        Raises:
            DayHeld: another run works on this day.
            AccountError, ConfigurationError, ServiceUnavailable: the tables are as they were, or as they should be.
        """
        lease = self._lease(day.day, day.run_token)
        # Another run may have done more since, of which the parts of this one's tasks know nothing.
        view = read_ledger_day(self.state, day.day) if lease.take() != day.fencing_token else None
        is_abandoned = False

        def missing(chunk_name: str) -> Iterator[tuple[Recording, LedgerView]]:
            chunk = self.load(self.state.uri_of(layout.manifest(day.day, day.run_token, chunk_name)))
            of_chunk = view or LedgerView([*chunk.known, *read_task(self.state, day.day, day.run_token, chunk_name)])
            nonlocal is_abandoned
            is_abandoned |= self._is_abandoned(chunk, of_chunk)
            return ((recording, of_chunk) for recording in chunk.recordings)

        drop = partial(forget, self.state, self.service.delete, day.day)
        published = publish(self.tables, self.state, self.pipeline, day, missing, view, drop)
        if self.pipeline.privacy.delete_after:
            delete_at_provider(Ledger.open(self.state, lease, day.run_id, "publish"), self.service.delete)
        published = replace(published, stopped=lease.stopped)
        record(self.state, [_summary(day, published)], self.clock)
        if is_abandoned and published.stopped is None:
            lease.retire()
        lease.release()
        return published

    def _is_abandoned(self, chunk: Manifest, view: LedgerView) -> bool:
        """Whether the task of a chunk was lost: it is not done, and did not write why it stopped."""
        stops = (one.stopped for one in unsettled(chunk.recordings, self._keys, view, DayPass.of(chunk)))
        return any(stop is None or stop.at < chunk.listed_at for stop in stops)

    @contextlib.contextmanager
    def _working_on(self, chunk: Manifest) -> Iterator[Ledger]:
        """The ledger of a chunk's task. What keeps the task from its end is recorded for what it has not done."""
        lease = self._lease(chunk.day, chunk.run_token, chunk.name)
        ledger = Ledger.open(self.state, lease, chunk.run_id, chunk.name, chunk.known, chunk.fencing_token)
        try:
            yield ledger
        except (AccountError, ServiceUnavailable) as error:
            with contextlib.suppress(CallphasesError):  # the store may be what does not answer
                if isinstance(error, AccountError):
                    lease.stop(error)
                left = unsettled(chunk.recordings, self._keys, ledger, DayPass.of(chunk))
                ledger.write([self._stopped(one, error) for one in left])
            raise

    def _lease(self, day: dt.date, run_token: str, task: str | None = None) -> Lease:
        return Lease(self.state, day, run_token, task, clock=self.clock)

    def _slots(self, chunk: Manifest) -> Slots | None:
        """What the run's tasks share of ``limits.transcriptions_at_once``, where the run has more recordings."""
        limit = self.pipeline.limits.transcriptions_at_once
        if chunk.total <= limit:
            return None
        return Slots(self.state, layout.slots(chunk.day, chunk.run_token), limit, chunk.name, chunk.first)

    def _stopped(self, progress: Progress, error: AccountError | ServiceUnavailable | OverBudget) -> Stopped:
        return stopped(stop_key(progress.key), error, progress.recording.key)


def _summary(day: DayList, published: Published) -> DaySummary:
    shared = {one.name for one in fields(DaySummary)} & {one.name for one in fields(Published)}
    return DaySummary(
        day=day.day,
        published_at=dt.datetime.now(dt.UTC),
        run_id=day.run_id,
        **{name: getattr(published, name) for name in shared},
    )


class _Rest:
    """The rows of recordings that a run lists and gives to no chunk, written in parts; ``parts`` counts these."""

    def __init__(self, ledger: Ledger, pipeline: Pipeline, day: DayList) -> None:
        self.parts = 0
        self._ledger = ledger
        self._writer = PartWriter(ledger.state, pipeline, day)

    def add(self, recording: Recording) -> None:
        """Add a recording's rows, as the ledger has them."""
        self._writer.add(recording, self._ledger)
        if len(self._writer) >= REST_PART:
            self.write()

    def write(self) -> None:
        """Write what was added since the last part."""
        if len(self._writer):
            self._ledger.lease.hold()
            self._writer.write(layout.part_name(layout.REST, self.parts))
            self.parts += 1


def _classes(replay: str) -> set[str]:
    """The failure classes to replay."""
    wanted = {name.strip() for name in replay.split(",")}
    known_names = failure_classes() | {ALL_FAILED}
    if unknown := wanted - known_names:
        raise ConfigurationError(
            f"replay: there is no failure class {', '.join(sorted(unknown))}; expected some of "
            f"{', '.join(sorted(known_names))}."
        )
    return wanted
