"""A run from its list to its tables: what is to do, by whom, with how much money; and what is left to do at the end."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from callphases import costs
from callphases.assemblyai import AssemblyAI
from callphases.durations import audio_s
from callphases.errors import (
    AccountError,
    CallphasesError,
    ConfigurationError,
    OverBudget,
    RequestRefused,
    ServiceUnavailable,
    failure_classes,
)
from callphases.gateway import Gateway
from callphases.lease import Lease
from callphases.ledger import Event, Known, Ledger, read_day, read_task, stop_key, transcript_key
from callphases.phases import Divider, unsettled
from callphases.pipeline import Pipeline
from callphases.publishing import Published, publish
from callphases.recordings import DayList, Manifest, Recording, chunks, list_day, new_holder
from callphases.segmentation import Segmenter
from callphases.storage import Folder
from callphases.tables import rows
from callphases.transcripts import Transcriber, Transcripts

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

ALL_FAILED = "all"
"""As a class to replay: whatever the class is."""
LONGEST_PAUSE_S = 5.0
DELETIONS_AT_ONCE = 8


@dataclass(frozen=True)
class Listed:
    """A day as it was listed: URIs of its manifest and of the chunks that are to do."""

    day: str
    chunks: list[str]


@dataclass
class Night:
    """The stores and services of one pipeline, and what a run does with them, step by step.

    Every step can be killed anywhere and begun again, here or on another machine.
    """

    pipeline: Pipeline
    s3: S3Client
    service: AssemblyAI
    gateway: Gateway

    def __post_init__(self) -> None:
        self.state = Folder(self.s3, self.pipeline.output.state, "output.state")
        self.tables = Folder(self.s3, self.pipeline.output.tables, "output.tables")

    def begin(self, day: dt.date, run_id: str, replay: str | None = None) -> Listed:
        """Take the day, list it, and write the manifests of what is to do.

        Args:
            day: of the calls.
            run_id: goes into the rows.
            replay: failure classes with commas between, or ``all``: nothing but these is done, and again even where the
                failure was for good. None does all that is not done.

        Raises:
            DayHeld: another run works on this day.
            AccountError, ConfigurationError, ServiceUnavailable: nothing was paid.
        """
        lease = Lease(self.state, day, new_holder(run_id), "list")
        ledger = Ledger.open(self.state, lease, run_id, "list")
        try:
            return self._begin(ledger, replay)
        except Exception:
            lease.release()
            raise

    def _begin(self, ledger: Ledger, replay: str | None) -> Listed:
        now = dt.datetime.now(dt.UTC)
        recordings = list(list_day(self.s3, self.pipeline, ledger.day))
        todo = unsettled(recordings, self.pipeline, ledger, now, replay=replay is not None)
        if replay is not None:
            todo = _failed(todo, self.pipeline, ledger, replay)
        log.info(
            "%s: %d recordings listed, %d of them to do, %d done before.",
            ledger.day,
            len(recordings),
            len(todo),
            len(recordings) - len(todo),
        )
        whole = Manifest(
            name="day",
            day=ledger.day,
            run_id=ledger.run_id,
            holder=ledger.lease.holder,
            term=ledger.lease.term,
            listed_at=now,
            recordings=recordings,
            replay=replay is not None,
        )
        estimates: dict[str, float] = {}
        if todo:
            self.service.check()
            self.gateway.check(self.pipeline.segmentation.models)
            todo, estimates = self._within_budget(todo, ledger)
        # Estimates are not exact: what the budget holds more is shared out with them.
        scale = (self.pipeline.budget.usd_per_run or 0.0) / (sum(estimates.values()) or 1.0)
        first, uris = 0, []
        for number, chunk in enumerate(chunks(todo)):
            manifest = replace(
                whole,
                name=f"chunk-{number:04d}",
                recordings=chunk,
                known=ledger.of(chunk),
                first=first,
                budget_usd=scale * sum(estimates[one.key] for one in chunk) if estimates else None,
            )
            uris.append(manifest.save(self.state))
            first += len(chunk)
        return Listed(whole.save(self.state), uris)

    def _within_budget(self, todo: Sequence[Recording], ledger: Ledger) -> tuple[list[Recording], dict[str, float]]:
        """As many of ``todo`` as the budget holds, with what each may cost; the others fail in the ledger."""
        cap = self.pipeline.budget.usd_per_run
        if cap is None:
            return list(todo), {}
        estimates: dict[str, float] = {}
        left = cap
        for place, recording in enumerate(todo):
            usd = self._estimate(recording, ledger)
            if usd > left:
                log.warning(
                    "budget.usd_per_run (%.2f) holds %d of %d recordings; the others fail with failure_class budget.",
                    cap,
                    place,
                    len(todo),
                )
                why = OverBudget(f"The run's budget of ${cap:.2f} was used up by other recordings; nothing was sent.")
                ledger.write(self._stopped(one, why) for one in todo[place:])
                break
            estimates[recording.key] = usd
            left -= usd
        return list(todo[: len(estimates)]), estimates

    def load(self, uri: str) -> Manifest:
        """The manifest of a chunk or of the whole day."""
        return Manifest.load(self.state, uri)

    def transcribe(self, chunk: Manifest, patience_s: float) -> list[str]:
        """Have a chunk transcribed; returns the jobs that are still under way after ``patience_s`` seconds.

        Whatever happens in between, the ledger knows what was submitted: to do this again submits nothing twice.

        Raises:
            DayHeld: another run works on this day.
            RunStopped: another chunk has met what concerns the account.
            AccountError, ConfigurationError, ServiceUnavailable: the ledger says how far it got.
        """
        with self._working_on(chunk) as ledger:
            transcriber = Transcriber(self.service, self.s3, self.pipeline, self.state, ledger, chunk)
            give_up_at, pause_s = time.monotonic() + patience_s, 1.0
            transcriber.submit()
            while transcriber.collect():
                transcriber.submit()  # what failed at the provider, once more
                if time.monotonic() + pause_s > give_up_at:
                    break
                time.sleep(pause_s)
                ledger.lease.hold()
                pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
            transcriber.keep()
            return list(transcriber.under_way())

    def segment(self, chunk: Manifest) -> None:
        """Have the calls of a chunk divided into phases; raises as ``transcribe``."""
        with self._working_on(chunk) as ledger:
            segmenter = Segmenter(self.gateway, self.pipeline)
            Divider(segmenter, self.pipeline, Transcripts(self.state), ledger, chunk).divide()

    def end(self, day: DayList) -> Published:
        """Publish the day, delete at the provider what the pipeline file says, and let the next run begin.

        Raises:
            DayHeld: another run works on this day.
            AccountError, ConfigurationError, ServiceUnavailable: the tables are as they were, or as they should be.
        """
        lease = Lease(self.state, day.day, day.holder)
        # Another run may have done more since, of which the parts of this one's tasks know nothing.
        known = read_day(self.state, day.day) if lease.take() != day.term else None

        def left(chunk: str) -> Iterator[tuple[Recording, Known]]:
            listed = self.load(self.state.uri_of(f"runs/dt={day.day}/{day.holder}/{chunk}.jsonl"))
            now = known or Known([*listed.known, *read_task(self.state, day.day, day.holder, chunk)])
            return ((recording, now) for recording in listed.recordings)

        published = publish(self.tables, self.state, self.pipeline, day, left, known)
        if self.pipeline.privacy.delete_after:
            self._delete_at_provider(Ledger.open(self.state, lease, day.run_id, "publish"))
        lease.release()
        return replace(published, stopped=lease.stopped)

    @contextlib.contextmanager
    def _working_on(self, chunk: Manifest) -> Iterator[Ledger]:
        lease = Lease(self.state, chunk.day, chunk.holder, chunk.name)
        ledger = Ledger.open(self.state, lease, chunk.run_id, chunk.name, chunk.known, chunk.term)
        try:
            yield ledger
        except (AccountError, ServiceUnavailable) as error:
            with contextlib.suppress(CallphasesError):  # the store may be what does not answer
                if isinstance(error, AccountError):
                    lease.stop(error)
                left = unsettled(chunk.recordings, self.pipeline, ledger, chunk.listed_at, replay=chunk.replay)
                ledger.write(self._stopped(one, error) for one in left)
            raise

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
        with ThreadPoolExecutor(DELETIONS_AT_ONCE) as pool:
            done = [one for one, gone in zip(ids, pool.map(self._delete, ids), strict=True) if gone]
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
        except RequestRefused as refusal:
            if "not found" not in str(refusal).lower():
                log.warning("transcript %s: %s", transcript_id, refusal)
                return False
        except ServiceUnavailable as error:
            log.warning("transcript %s: %s", transcript_id, error)
            return False
        return True

    def _estimate(self, recording: Recording, known: Known) -> float:
        event = known.find(transcript_key(recording, self.pipeline.transcription))
        if event is not None and event["event"] == "transcribed":
            return costs.estimated_llm_usd(self.pipeline, event["audio_s"])
        seconds = audio_s(self.s3, recording)
        speech_usd = costs.estimated_speech_usd(self.pipeline, seconds)
        return speech_usd + costs.estimated_llm_usd(self.pipeline, seconds)


def _failed(recordings: Sequence[Recording], pipeline: Pipeline, known: Known, classes: str) -> list[Recording]:
    """Those of ``recordings`` whose row says that they failed, with one of ``classes``."""
    wanted = {name.strip() for name in classes.split(",")}
    known_names = failure_classes() | {ALL_FAILED}
    if unknown := wanted - known_names:
        raise ConfigurationError(
            f"replay: there is no failure class {', '.join(sorted(unknown))}; expected some of "
            f"{', '.join(sorted(known_names))}."
        )
    chosen: list[Recording] = []
    for recording in recordings:
        row, _, _ = rows(recording, pipeline, known, run_id="")
        if known.of([recording]) and row["status"] == "failed" and wanted & {ALL_FAILED, row["failure_class"]}:
            chosen.append(recording)
    return chosen


def _deleted_key(transcript_id: str) -> str:
    return f"deleted/{transcript_id}"
