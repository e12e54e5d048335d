"""A run from its list to its tables: what is to do, by whom, with how much money; and what is left to do at the end."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import logging
import math
import time
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from callphases.errors import (
    AccountError,
    CallphasesError,
    ConfigurationError,
    OverBudget,
    RequestRefused,
    ServiceUnavailable,
    TranscriptUnknown,
    failure_classes,
)
from callphases.limits import costs
from callphases.limits.durations import audio_s
from callphases.limits.quota import RateLimits, Slots
from callphases.listing.archive import Archive
from callphases.listing.late import late_days
from callphases.listing.listing import Listing, Spool, chunk_counts
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.segmentation.chunk_segmenter import ChunkSegmenter, unsettled
from callphases.segmentation.gateway import Gateway
from callphases.segmentation.segmenter import Segmenter, question
from callphases.state.lease import Lease
from callphases.state.ledger import (
    Event,
    Ledger,
    LedgerView,
    answer_key,
    read_ledger_day,
    read_task,
    stop_key,
    transcript_key,
)
from callphases.state.manifests import DayList, Manifest, new_run_token
from callphases.state.storage import ObjectPrefix
from callphases.state.transcripts import Transcripts
from callphases.tables.columns import describe
from callphases.tables.parts import PartWriter, folder_of
from callphases.tables.publishing import Published, publish
from callphases.tables.rows import rows
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.transcriber import Transcriber, Waiting

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

ALL_FAILED = "all"
"""As a class to replay: whatever the class is."""
DELETIONS_AT_ONCE = 8
QUICK_JOBS = 0.25
"""Jobs that take no more than this part of a task's patience are waited for as long as one after the other ends."""
ESTIMATES_AT_MOST = 2.0
"""So many times what its calls are estimated at a chunk may spend, where the budget holds that."""
REST_PART = 10_000
"""Calls in a part of the rows of what is in no chunk."""


@dataclass(frozen=True)
class Listed:
    """What a run has listed: URIs of its list of the day and of the chunks that are to do."""

    day: str
    chunks: list[str]
    budget_usd: float | None = None
    """What is left of the run's budget for other days; None where there is no limit."""


@dataclass
class DayRun:
    """The stores and services of one pipeline, and what a run does with them, step by step.

    Every step can be killed anywhere and begun again, here or on another machine.
    """

    pipeline: Pipeline
    s3: S3Client
    service: AssemblyAI
    gateway: Gateway

    def __post_init__(self) -> None:
        self.state = ObjectPrefix(self.s3, self.pipeline.output.state, "output.state")
        self.tables = ObjectPrefix(self.s3, self.pipeline.output.tables, "output.tables")
        limits = RateLimits(self.state, self.pipeline.limits.llm_requests_per_minute)
        self.gateway = self.gateway.limited_by(limits)

    def begin(self, day: dt.date, run_id: str, replay: str | None = None, budget_usd: float | None = None) -> Listed:
        """Take the day, list it, and write the manifests of what is to do.

        Args:
            day: of the calls.
            run_id: goes into the rows.
            replay: failure classes with commas between, or ``all``: nothing but these is done, and again even where the
                failure was for good. None does all that is not done.
            budget_usd: what the run may spend on the day; None is ``budget.usd_per_run``.

        Raises:
            DayHeld: another run works on this day, or lists the archive that it is in.
            AccountError, ConfigurationError, ServiceUnavailable: nothing was paid.
        """
        lease = Lease(self.state, day, new_run_token(run_id), "list")
        ledger = Ledger.open(self.state, lease, run_id, "list")
        try:
            return self._begin(ledger, replay, self.pipeline.budget.usd_per_run if budget_usd is None else budget_usd)
        except Exception:
            lease.release()
            raise

    def late_days(self, day: dt.date) -> Iterator[dt.date]:
        """The days before ``day`` that a run of it runs again; see ``late``."""
        return late_days(self.s3, self.pipeline, self.state, self.tables, day)

    def _begin(self, ledger: Ledger, replay: str | None, cap: float | None) -> Listed:
        now = dt.datetime.now(dt.UTC)
        classes = None if replay is None else _classes(replay)
        source, lease = self.pipeline.recordings, ledger.lease
        listing: str | None = None
        recordings: Iterable[Recording]
        if source.dated:
            recordings = Listing(self.s3, self.pipeline, source.prefix_of(ledger.day), lease.hold)
        else:
            archive = Archive(self.s3, self.pipeline, self.state, lease.hold)
            listing, recordings = archive.take(ledger.day, lease.index, lease.run_token)
        rest = _Rest(ledger, self.pipeline, now)
        listed = 0
        with Spool(source.bucket) as todo:
            for recording in recordings:
                listed += 1
                lease.hold()
                if self._is_to_do(recording, ledger, now, classes):
                    todo.add(recording)
                else:
                    rest.add(recording)
            log.info(
                "%s: %d recordings listed, %d of them to do, %d done before.",
                ledger.day,
                listed,
                len(todo),
                listed - len(todo),
            )
            chunks, left = self._chunks(todo, ledger, rest, now, replay is not None, cap) if todo else ([], cap)
        rest.write()
        if listing is not None:
            lease.take_from(listing)
        day = DayList(
            day=ledger.day,
            run_id=ledger.run_id,
            run_token=lease.run_token,
            fencing_token=lease.fencing_token,
            listed_at=now,
            listed=listed,
            chunks=len(chunks),
            rest=rest.parts,
            replay=replay is not None,
        )
        return Listed(day.save(self.state), chunks, left)

    def _is_to_do(self, recording: Recording, known: LedgerView, since: dt.datetime, classes: set[str] | None) -> bool:
        """Whether there is something to do for a recording, in a replay of ``classes`` where these are given."""
        if not unsettled([recording], self.pipeline, known, since, replay=classes is not None):
            return False
        return classes is None or _failed(recording, self.pipeline, known, classes)

    def _chunks(
        self, todo: Spool, ledger: Ledger, rest: _Rest, since: dt.datetime, replay: bool, cap: float | None
    ) -> tuple[list[str], float | None]:
        """Write the manifests of what ``cap`` holds of ``todo``; the others fail.

        Returns their URIs, and what is left of ``cap``.
        """
        self.service.check()
        self.gateway.check(self.pipeline.segmentation.models)
        estimates = self._within_budget(todo, ledger, cap)
        counts = chunk_counts(todo.sizes if cap is None else todo.sizes[: len(estimates)])
        # Estimates are not exact: of what the budget holds more, as much again is shared out with them.
        scale = min((cap or 0.0) / (sum(estimates) or 1.0), ESTIMATES_AT_MOST)
        waiting = iter(todo)
        first, uris = 0, []
        for number, count in enumerate(counts):
            chunk = list(itertools.islice(waiting, count))
            manifest = Manifest(
                name=f"chunk-{number:04d}",
                day=ledger.day,
                run_id=ledger.run_id,
                run_token=ledger.lease.run_token,
                fencing_token=ledger.lease.fencing_token,
                listed_at=since,
                recordings=chunk,
                known=ledger.of(chunk),
                first=first,
                total=sum(counts),
                replay=replay,
                budget_usd=scale * sum(estimates[first : first + count]) if cap is not None else None,
            )
            uris.append(manifest.save(self.state))
            ledger.lease.hold()
            first += count
        while over := list(itertools.islice(waiting, REST_PART)):
            why = OverBudget(f"The run's budget of ${cap:.2f} was used up by other recordings; nothing was sent.")
            ledger.lease.hold()
            ledger.write(self._stopped(one, why) for one in over)
            for one in over:
                rest.add(one)
        return uris, cap - scale * sum(estimates) if cap is not None else None

    def _within_budget(self, todo: Spool, ledger: Ledger, cap: float | None) -> array[float]:
        """What the recordings may cost that ``cap`` holds, in US dollars; the first of ``todo``, in their order."""
        estimates = array("d")
        if cap is None:
            return estimates
        left = cap
        for recording in todo:
            ledger.lease.hold()
            usd = self._estimate(recording, ledger)
            if usd > left:
                log.warning(
                    "budget.usd_per_run (%.2f) holds %d of %d recordings; the others fail with failure_class budget.",
                    cap,
                    len(estimates),
                    len(todo),
                )
                break
            estimates.append(usd)
            left -= usd
        return estimates

    def load(self, uri: str) -> Manifest:
        """The manifest of a chunk."""
        return Manifest.load(self.state, uri)

    def load_day(self, uri: str) -> DayList:
        """The day as it was listed."""
        return DayList.load(self.state, uri)

    def transcribe(self, chunk: Manifest, patience_s: float) -> Waiting | None:
        """Have a chunk transcribed; returns what is still to come after ``patience_s`` seconds, None if nothing is.

        Whatever happens in between, the ledger knows what was submitted: to do this again submits nothing twice.

        Raises:
            DayHeld: another run works on this day.
            RunStopped: another chunk has met what concerns the account.
            AccountError, ConfigurationError, ServiceUnavailable: the ledger says how far it got.
        """
        with self._working_on(chunk) as ledger:
            transcriber = Transcriber(
                self.service, self.s3, self.pipeline, self.state, ledger, chunk, self._slots(chunk)
            )
            describe(self.s3, chunk.recordings, self.pipeline, ledger)
            give_up_at, left_before = time.monotonic() + patience_s, math.inf
            transcriber.look()  # at what an earlier process of this task has left there
            while True:
                transcriber.submit()
                left = transcriber.collect()
                if transcriber.job_s <= QUICK_JOBS * patience_s and (left < left_before or transcriber.is_next):
                    give_up_at = time.monotonic() + patience_s  # it is at work rather than waiting
                pause_s, left_before = transcriber.pause_s(), left
                if not left or time.monotonic() + max(pause_s, transcriber.next_in_s()) > give_up_at:
                    break
                time.sleep(pause_s)
                ledger.lease.hold()
                transcriber.look()
            transcriber.keep()
            return transcriber.waiting() if left else None

    def segment(self, chunk: Manifest) -> None:
        """Have the calls of a chunk divided into phases; raises as ``transcribe``."""
        with self._working_on(chunk) as ledger:
            segmenter = Segmenter(self.gateway, self.pipeline)
            ChunkSegmenter(segmenter, self.pipeline, Transcripts(self.state), ledger, chunk).run()
            # At the end and no sooner: publishing takes a part for all that there is of a chunk.
            folder = folder_of(chunk.day, chunk.run_token)
            done = PartWriter(self.state, self.pipeline, chunk.run_id, folder, chunk.listed_at)
            for recording in chunk.recordings:
                done.add(recording, ledger)
            done.write(chunk.name)

    def end(self, day: DayList) -> Published:
        """Publish the day, delete at the provider what the pipeline file says, and let the next run begin.

        Raises:
            DayHeld: another run works on this day.
            AccountError, ConfigurationError, ServiceUnavailable: the tables are as they were, or as they should be.
        """
        lease = Lease(self.state, day.day, day.run_token)
        # Another run may have done more since, of which the parts of this one's tasks know nothing.
        known = read_ledger_day(self.state, day.day) if lease.take() != day.fencing_token else None

        is_abandoned = False

        def left(chunk: str) -> Iterator[tuple[Recording, LedgerView]]:
            listed = self.load(self.state.uri_of(f"runs/dt={day.day}/{day.run_token}/{chunk}.jsonl"))
            now = known or LedgerView([*listed.known, *read_task(self.state, day.day, day.run_token, chunk)])
            nonlocal is_abandoned
            is_abandoned |= self._is_abandoned(listed, now)
            return ((recording, now) for recording in listed.recordings)

        published = publish(self.tables, self.state, self.pipeline, day, left, known, partial(self._forget, day.day))
        if self.pipeline.privacy.delete_after:
            self._delete_at_provider(Ledger.open(self.state, lease, day.run_id, "publish"))
        published = replace(published, stopped=lease.stopped)
        if is_abandoned and published.stopped is None:
            lease.retire()
        lease.release()
        return published

    def _is_abandoned(self, chunk: Manifest, known: LedgerView) -> bool:
        """Whether the task of a chunk was lost: it is not done, and did not write why it stopped."""
        left = unsettled(chunk.recordings, self.pipeline, known, chunk.listed_at, replay=chunk.replay)
        stops = (known.find(stop_key(transcript_key(one, self.pipeline.transcription))) for one in left)
        return any(stop is None or dt.datetime.fromisoformat(stop["at"]) < chunk.listed_at for stop in stops)

    def _forget(self, day: dt.date, calls: pa.Table) -> None:
        """Delete the transcripts of calls whose rows are dropped, in the state area and at the provider."""
        known = read_ledger_day(self.state, day)
        for uri in calls["transcript_uri"].to_pylist():
            if uri is None:
                continue
            name = uri.removeprefix(self.state.uri).removesuffix(".json")
            # Calls whose cues were in the same object are read from their own transcripts from now on.
            bundle = (known.find(name.rpartition("/")[2]) or {}).get("cues")
            for one in (f"{name}.json", f"{name}.vtt", bundle):
                if one:
                    self.state.delete(one)
        ids = [one for one in calls["transcript_id"].to_pylist() if one is not None]
        with ThreadPoolExecutor(DELETIONS_AT_ONCE) as pool:
            deleted = sum(pool.map(self._delete, ids))
        log.info("%s: %d calls are dropped; %d transcripts were deleted at the provider.", day, calls.num_rows, deleted)

    @contextlib.contextmanager
    def _working_on(self, chunk: Manifest) -> Iterator[Ledger]:
        lease = Lease(self.state, chunk.day, chunk.run_token, chunk.name)
        ledger = Ledger.open(self.state, lease, chunk.run_id, chunk.name, chunk.known, chunk.fencing_token)
        try:
            yield ledger
        except (AccountError, ServiceUnavailable) as error:
            with contextlib.suppress(CallphasesError):  # the store may be what does not answer
                if isinstance(error, AccountError):
                    lease.stop(error)
                left = unsettled(chunk.recordings, self.pipeline, ledger, chunk.listed_at, replay=chunk.replay)
                ledger.write(self._stopped(one, error) for one in left)
            raise

    def _slots(self, chunk: Manifest) -> Slots | None:
        """What the run's tasks share of ``limits.transcriptions_at_once``, where the run has more recordings."""
        limit = self.pipeline.limits.transcriptions_at_once
        if chunk.total <= limit:
            return None
        name = f"runs/dt={chunk.day}/{chunk.run_token}/slots.json"
        return Slots(self.state, name, limit, chunk.name, chunk.first)

    def _stopped(self, recording: Recording, error: AccountError | ServiceUnavailable | OverBudget) -> Event:
        key = stop_key(transcript_key(recording, self.pipeline.transcription))
        return {
            "event": "stopped",
            "key": key,
            "recording": recording.key,
            "failure_class": error.failure_class,
            "failure_message": str(error),
        }

    def _delete_at_provider(self, ledger: Ledger) -> None:
        """Delete the transcripts that are in the state area; the ledger goes on preventing a second payment.

        Raises:
            ServiceUnavailable: some could not be deleted; the next run tries them again.
        """
        events = ledger.all()
        wanted = {  # by a later run, which has not got them yet
            event["transcript_id"]
            for event in events
            if (last := ledger.find(event["key"])) and (last["event"] == "submitted" or last.get("paid"))
            if "transcript_id" in event
        }
        ids = {
            event["transcript_id"]: event["recording"]
            for event in events
            if "transcript_id" in event
            and event["transcript_id"] not in wanted
            and ledger.find(_deleted_key(event["transcript_id"])) is None
        }

        def delete(transcript_id: str) -> bool:
            ledger.lease.hold()  # another run that has the day by now may still want to fetch it
            return self._delete(transcript_id)

        with ThreadPoolExecutor(DELETIONS_AT_ONCE) as pool:
            done = [one for one, gone in zip(ids, pool.map(delete, ids), strict=True) if gone]
        ledger.write(
            {"event": "deleted", "key": _deleted_key(one), "recording": ids[one], "transcript_id": one} for one in done
        )
        log.info("%d transcripts were deleted at the provider.", len(done))
        if len(done) < len(ids):
            raise ServiceUnavailable(
                f"{len(ids) - len(done)} transcripts could not be deleted at the provider (privacy.delete_after)."
            )

    def _delete(self, transcript_id: str) -> bool:
        try:
            self.service.delete(transcript_id)
        except TranscriptUnknown:
            return True  # it is gone
        except (RequestRefused, ServiceUnavailable) as error:
            log.warning("transcript %s: %s", transcript_id, error)
            return False
        return True

    def _estimate(self, recording: Recording, known: LedgerView) -> float:
        key = transcript_key(recording, self.pipeline.transcription)
        event = known.find(key)
        if event is not None and event["event"] == "transcribed":
            answer = known.find(answer_key(key, question(self.pipeline)))
            if event["status"] != "completed" or (answer is not None and answer["event"] == "answered"):
                return 0.0  # only its object's metadata are asked for
            return costs.estimated_llm_usd(self.pipeline, event["audio_s"])
        seconds = audio_s(self.s3, recording)
        speech_usd = costs.estimated_speech_usd(self.pipeline, seconds)
        return speech_usd + costs.estimated_llm_usd(self.pipeline, seconds)


class _Rest:
    """What a run lists and gives to no chunk: its rows, written in parts."""

    def __init__(self, ledger: Ledger, pipeline: Pipeline, since: dt.datetime) -> None:
        self.parts = 0
        """How many are written."""
        self._ledger = ledger
        folder = folder_of(ledger.day, ledger.lease.run_token)
        self._rows = PartWriter(ledger.state, pipeline, ledger.run_id, folder, since)

    def add(self, recording: Recording) -> None:
        """Add a recording's rows, as the ledger has them."""
        self._rows.add(recording, self._ledger)
        if len(self._rows) >= REST_PART:
            self.write()

    def write(self) -> None:
        """Write what was added since the last part."""
        if len(self._rows):
            self._ledger.lease.hold()
            self._rows.write(f"rest-{self.parts:04d}")
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


def _failed(recording: Recording, pipeline: Pipeline, known: LedgerView, classes: set[str]) -> bool:
    """Whether the row of ``recording`` says that it failed, with one of ``classes``."""
    if not known.of([recording]):
        return False
    row, _, _ = rows(recording, pipeline, known, run_id="")
    return row["status"] == "failed" and bool(classes & {ALL_FAILED, row["failure_class"]})


def _deleted_key(transcript_id: str) -> str:
    return f"deleted/{transcript_id}"
