"""Recording → transcript: submit what the ledger does not know, see how the jobs stand, collect what has ended."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import math
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from callphases.cues import Cue, cues_of_captions, cues_of_words, to_vtt
from callphases.errors import (
    AnswerLost,
    CallFailure,
    CallphasesError,
    EmptyFile,
    ModelRetired,
    NoModelLeft,
    ProviderError,
    RecordingGone,
    ServiceUnavailable,
    without_secrets,
)
from callphases.limits import costs
from callphases.limits.quota import Slots
from callphases.limits.throttle import ramp_s
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.state.ledger import Event, Ledger, failed, transcript_key
from callphases.state.manifests import Manifest
from callphases.state.storage import ObjectPrefix, explain
from callphases.transcription.assemblyai import AssemblyAI, Job, job_failure, without_query

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

URL_LIFE_S = 6 * 3600
"""How long the service may fetch a recording: a presigned URL has to outlive the provider's queue."""
UPLOAD_PIECE_BYTES = 1 << 20
BATCH = 50
"""Submissions that share a write to the ledger, of their intents, with the ids of those before."""
LOOK_AHEAD_S = 10.0
"""Intents are written for what the ramp lets go within this time: they are acted upon while they are fresh."""
TRIES_AT_PROVIDER = 4
"""A job that fails on the provider's own side is worth submitting again; failed jobs are not billed."""
SUBMIT_ROUNDS = 6
LOST_PAUSES_S = (2.0, 4.0)
"""When, after a lost answer, the job is looked for at the provider before it is submitted again."""
LATE_PAUSES_S = (14.0, 30.0, 60.0)
"""And when after that, where the service may not have taken it yet: its answer took too long."""
CLOCK_SKEW = dt.timedelta(minutes=5)
"""By how much the provider's clock may be behind ours."""
NAP_S = 5.0
AT_ONCE = 8
"""Requests of one task to the speech service at the same moment; each waits for an answer, most of its time."""
BUNDLE = 500
"""Calls whose cues share an object."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
LOOKS_A_JOB = 4
"""How often a job is looked for while it may be under way, where it is known how long jobs take."""
LAST_JOBS = 50
SOON_S = 20.0
"""A wait that is not worth giving the worker back for: that takes about as long."""


@dataclass(frozen=True)
class Waiting:
    """What a chunk waits for: its jobs at the service, and room for ``unsent`` more of its recordings.

    ``in_s``: seconds until there is probably something to do.
    """

    jobs: list[str]
    unsent: int
    in_s: float


class _Stopped(Exception):
    """Another thread has met what makes going on useless."""


@dataclass
class Transcriber:
    """Takes the recordings of a chunk through the speech service; what it does is in the ledger before it goes on."""

    service: AssemblyAI
    s3: S3Client
    pipeline: Pipeline
    state: ObjectPrefix
    ledger: Ledger
    chunk: Manifest
    slots: Slots | None = None
    """What the run's tasks share of ``limits.transcriptions_at_once``; None where the run is smaller than that."""
    _keys: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _unsent: int = 0
    _ended: dict[str, Job] = field(default_factory=dict)
    _took_s: deque[float] = field(default_factory=lambda: deque(maxlen=LAST_JOBS))
    _pause_s: float = SHORTEST_PAUSE_S
    _retired: set[str] = field(default_factory=set)
    _cues: dict[str, list[Cue]] = field(default_factory=dict)
    _cues_name: str = ""
    _last_sent: float = float("-inf")
    _was_answered: bool = False

    def __post_init__(self) -> None:
        self._keys = [transcript_key(one, self.pipeline.transcription) for one in self.chunk.recordings]
        self._numbers = {key: self.chunk.first + place for place, key in enumerate(self._keys)}
        self._new_bundle()

    def submit(self) -> int:
        """Start a transcription for each recording that has none under way or done, as far as there is room.

        What is about to be paid for is in the ledger before it is sent, so that a job whose id was lost, with the
        answer or with the process, is found again at the provider by its URL. A recording that the service does not
        take becomes a failure in the ledger and stops nothing.

        Returns:
            How many have to wait until others have ended (``limits.transcriptions_at_once``).

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: none of the others would fare better.
            DayHeld, RunStopped: as ``Lease.hold``.
        """
        todo = {
            key: recording
            for key, recording in zip(self._keys, self.chunk.recordings, strict=True)
            if not self.ledger.settled(key, self.chunk.listed_at, replay=self.chunk.replay)
        }
        try:
            self._adopt(todo)
            for _ in range(SUBMIT_ROUNDS):
                late = self._submit_all(todo)
                for look, pause_s in enumerate(LOST_PAUSES_S + LATE_PAUSES_S):
                    lost = self._intended(todo)
                    if not lost:
                        self._unsent = len(todo)
                        if not todo:
                            self._room(0, 0)  # what has ended makes room for the others
                        return self._unsent
                    if look >= len(LOST_PAUSES_S) and late.isdisjoint(lost):
                        break
                    self._nap(pause_s)
                    self._adopt(todo)
        finally:
            self.ledger.write()  # the ids, which each batch leaves to the next one's intents
        raise ServiceUnavailable(f"{len(lost)} submissions were sent {SUBMIT_ROUNDS} times and not answered.")

    def under_way(self) -> dict[str, tuple[str, Recording]]:
        """What has been submitted and not collected: transcript id → its key in the ledger, and the recording."""
        events = ((key, self.ledger.find(key), one) for key, one in zip(self._keys, self.chunk.recordings, strict=True))
        return {
            str(event["transcript_id"]): (key, recording)
            for key, event, recording in events
            if event is not None and event["event"] == "submitted"
        }

    def look(self) -> None:
        """See which jobs have ended; there is room for others then.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: as ``submit``.
        """
        waiting = [one for one in self.under_way() if one not in self._ended]
        if not waiting:
            return
        for job in self.service.jobs(waiting).values():
            if job.ended:
                self._ended[job.id] = job
                if job.took_s is not None:
                    self._took_s.append(job.took_s)

    def collect(self) -> int:
        """Save the transcripts of all jobs that were seen to have ended.

        Returns:
            How many recordings are not done: under way, waiting for room, or failed at the provider and worth another
            submission.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: as ``submit``.
        """
        waiting = self.under_way()
        ended = [job for one, job in self._ended.items() if one in waiting]
        again = 0
        problem: BaseException | None = None
        with ThreadPoolExecutor(AT_ONCE) as pool:
            running: set[Future[Event]] = {pool.submit(self._collect_one, job, *waiting[job.id]) for job in ended}
            while running:
                done, running = wait(running, NAP_S, FIRST_COMPLETED)
                events = [future.result() for future in done if not future.cancelled() and future.exception() is None]
                again += sum(bool(event.get("again")) for event in events)
                self.ledger.note(events)
                errors = [future.exception() for future in done if not future.cancelled()]
                problem = problem or next((error for error in errors if error is not None), None)
                try:
                    self.ledger.lease.hold()
                except CallphasesError as error:
                    problem = problem or error
                if problem is not None:
                    for future in running:
                        future.cancel()
        if problem is not None:
            raise problem
        self._ended.clear()
        left = len(waiting) - len(ended) + again + self._unsent
        if ended:
            log.info("%d of %d recordings are transcribed.", len(self._keys) - left, len(self._keys))
        if len(self._cues) >= BUNDLE:
            self._keep_cues()
        return left

    def keep(self) -> None:
        """Make durable what was collected, before the task ends or is deferred."""
        self._keep_cues()
        self.ledger.write()
        self._room(0, self._unsent)  # what is not needed is the others'

    def pause_s(self) -> float:
        """How long to wait before the next look, in seconds: a part of what jobs take, and never the same."""
        self._pause_s = self.job_s / LOOKS_A_JOB if self.job_s < math.inf else self._pause_s * 1.5
        self._pause_s = min(max(self._pause_s, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
        return self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads requests, guards nothing

    def next_in_s(self) -> float:
        """In how many seconds a job will probably have ended, or there will be room for one; 0 where nobody knows."""
        if self.job_s == math.inf:
            return 0.0
        if self.under_way():
            return self.job_s
        return self.slots.expected_wait_s() if self.slots is not None and self._unsent else 0.0

    @property
    def is_next(self) -> bool:
        """Whether it waits for room that others will soon have made."""
        return bool(self._unsent) and self.next_in_s() <= SOON_S

    def waiting(self) -> Waiting:
        """What is to come, in the order of submission."""
        return Waiting(list(self.under_way()), self._unsent, self.next_in_s())

    @property
    def job_s(self) -> float:
        """How long a job takes, in seconds; infinite where none has been seen to end."""
        if self._took_s:
            return median(self._took_s)
        return self.slots.job_s if self.slots is not None and self.slots.is_job_s_known else math.inf

    def _keep_cues(self) -> None:
        if self._cues:
            lines = ({"key": key, "cues": [asdict(cue) for cue in cues]} for key, cues in self._cues.items())
            body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            self.state.put(self._cues_name, body.encode(), "application/x-ndjson")
            self._new_bundle()

    def _new_bundle(self) -> None:
        self._cues = {}
        self._cues_name = f"transcripts/dt={self.ledger.day}/cues-{uuid.uuid4().hex}.jsonl"

    def _intended(self, todo: Collection[str]) -> set[str]:
        """Those of ``todo`` that were sent, as far as anyone knows, and have no id."""
        events = {key: self.ledger.find(key) for key in todo}
        return {key for key, event in events.items() if event is not None and event["event"] == "intended"}

    def _room(self, wanted: int, unsent: int) -> int:
        """How many of ``wanted`` may be submitted now, where ``unsent`` are still to be."""
        if self.slots is None:
            return wanted
        under_way = sum(one not in self._ended for one in self.under_way())
        job_s = median(self._took_s) if self._took_s else None
        return self.slots.acquire(under_way, wanted, len(self._keys) - unsent, job_s)

    def _adopt(self, todo: dict[str, Recording]) -> None:
        """Take out of ``todo`` what is at the provider already; the ledger then has its id."""
        known = {key: event for key in todo if (event := self.ledger.find(key)) is not None}
        # Done at the provider, and could not be fetched by an earlier run.
        ids = {key: str(event["transcript_id"]) for key, event in known.items() if event.get("paid")}
        intents = {key: event for key, event in known.items() if event["event"] == "intended"}
        if intents:
            if quiet_in_s := self.ledger.quiet_in_s:
                log.info("An earlier process may still submit; its jobs are looked for in %.0f s.", quiet_in_s)
                self._nap(quiet_in_s)
            ids |= self._found(intents)
        self.ledger.note(
            self._event("submitted", key, todo[key], transcript_id=one, tries=known[key].get("tries", 1))
            for key, one in ids.items()
        )
        for key in ids:
            del todo[key]

    def _found(self, intents: dict[str, Event]) -> dict[str, str]:
        """The ids of the jobs at the provider that are those of ``intents``."""
        keys = {event["audio_url"]: key for key, event in intents.items()}
        taken = {event["transcript_id"] for event in self.ledger.of(self.chunk.recordings) if "transcript_id" in event}
        since = min(dt.datetime.fromisoformat(event["at"]) for event in intents.values()) - CLOCK_SKEW
        found: dict[str, list[Job]] = {}
        for job in self.service.jobs_since(since):
            key = keys.get(job.audio_url)
            if key is not None and job.id not in taken and (job.created is None or job.created >= since):
                found.setdefault(key, []).append(job)
        ids: dict[str, str] = {}
        for key, jobs in found.items():
            sent_at = dt.datetime.fromisoformat(intents[key]["at"])
            ranked = ((self._unlikeliness(job), abs((job.created or sent_at) - sent_at), job.id) for job in jobs)
            likely = sorted((rank, distance, one) for rank, distance, one in ranked if rank is not None)
            if likely:
                ids[key] = likely[0][2]
        return ids

    def _unlikeliness(self, job: Job) -> int | None:
        """How little a job looks like ours, by its options; None: it is another pipeline's of the same recording.

        Only a switch that differs says so: a service may write other values in its own way, and better a transcript
        with other options than a second payment.
        """
        try:
            document = self.service.transcript(job.id)
        except CallFailure:
            return 9
        for name, value in self.pipeline.transcription.items():
            if isinstance(value, bool) and document.get(name, value) not in (value, None):
                return None
        ours = self.pipeline.speech_models
        theirs = document.get("speech_models") or [document.get("speech_model_used")]
        others = 0 if theirs in (ours, ours[:1]) else 1 if set(theirs) & set(ours) else 2
        return others + 4 * (job.status == "error")

    def _submit_all(self, todo: dict[str, Recording]) -> set[str]:
        """Submit all of ``todo`` and take out of it what the service answered.

        Returns:
            What is left and may yet be taken, as the answer was not refused but took too long.
        """
        waiting, late = list(todo), set[str]()
        while waiting and (room := self._room(len(waiting), len(waiting))):
            self._nap(self._due_in_s(waiting[0]))
            most = min(room, BATCH)
            batch = [waiting[0], *(key for key in waiting[1:most] if self._due_in_s(key) <= LOOK_AHEAD_S)]
            late |= self._submit_batch(batch, todo)
            waiting = waiting[len(batch) :]
        return late

    def _due_in_s(self, key: str) -> float:
        """In how many seconds a recording may be submitted: by the ramp, and no closer to the last than it is there."""
        if not self.pipeline.limits.ramp:
            return 0.0
        began = self.ledger.lease.begin()
        number = self._numbers[key]
        since_s = (dt.datetime.now(dt.UTC) - began).total_seconds()
        return max(ramp_s(number) - since_s, self._last_sent + ramp_s(number + 1) - ramp_s(number) - time.monotonic())

    def _submit_batch(self, batch: Sequence[str], todo: dict[str, Recording]) -> set[str]:
        events: list[Event] = []
        late: set[str] = set()
        urls: dict[str, str] = {}
        for key in batch:
            try:
                urls[key] = self._audio_url(todo[key])
            except CallFailure as failure:
                events.append(self._failure(key, todo.pop(key), failure))
        tries = {key: self._tries(key) + 1 for key in urls}
        self.ledger.lease.hold()
        intents = [
            self._event("intended", key, todo[key], audio_url=without_query(url), tries=tries[key])
            for key, url in urls.items()
        ]
        self.ledger.write([*events, *intents])
        running: dict[Future[Job], str] = {}
        stop = threading.Event()
        sent = set[str]()
        events = []
        problem: BaseException | None = None
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for key, url in urls.items():
                try:
                    self._nap(self._due_in_s(key))
                except CallphasesError as lost:
                    problem = lost
                if problem is not None or stop.is_set():
                    break
                self._last_sent = time.monotonic()
                future = pool.submit(self._post, url, partial(self._confirm, key, sent, stop), stop)
                running[future] = key
                if not self._was_answered:  # the first shows whether to go on with the others
                    wait([future])
                    self._was_answered = True
        for future, key in running.items():
            error = future.exception()
            if isinstance(error, AnswerLost):
                log.warning("%s: %s It is looked for before it is sent again.", todo[key].key, error)
                if error.may_still_arrive:
                    late.add(key)
            elif isinstance(error, CallFailure):
                events.append(self._failure(key, todo.pop(key), error))
            elif error is None:
                more = {"transcript_id": future.result().id, "tries": tries[key], "model": self._models_left()[0]}
                events.append(self._event("submitted", key, todo.pop(key), **more))
            elif problem is None or isinstance(problem, _Stopped):
                problem = error
        events += [self._event("withdrawn", key, todo[key]) for key in urls if key in todo and key not in sent]
        self.ledger.note(events)
        if problem is not None:
            raise problem
        return late

    def _confirm(self, key: str, sent: set[str], stop: threading.Event) -> None:
        """Right before a submission goes: whether it may."""
        if stop.is_set():
            raise _Stopped
        self.ledger.hold()
        sent.add(key)

    def _post(self, url: str, confirm: Callable[[], None], stop: threading.Event) -> Job:
        while True:
            asked = self._models_left()
            try:
                return self.service.submit(url, self._options(), confirm)
            except BaseException as error:
                if isinstance(error, ModelRetired) and self._leave_out(error, asked, stop):
                    continue
                if not isinstance(error, AnswerLost | CallFailure):
                    stop.set()  # none of the others would fare better
                raise

    def _options(self) -> dict[str, Any]:
        options = self.pipeline.transcription
        if self._retired and isinstance(options.get("speech_models"), list):
            return {**options, "speech_models": self._models_left()}
        return options

    def _models_left(self) -> list[str]:
        return [model for model in self.pipeline.speech_models if model not in self._retired]

    def _leave_out(self, refusal: ModelRetired, asked: Sequence[str], stop: threading.Event | None = None) -> bool:
        """Go on without the model that a refusal names, or without the first of those that were ``asked`` for.

        Returns:
            Whether it was one of them, so that asking again may help.

        Raises:
            NoModelLeft: there is no other.
        """
        said = str(refusal.args[0])
        gone = refusal.named or asked[0]
        if gone not in asked:
            return False
        if gone in self._retired:  # by another thread, while this one was asking
            return True
        self._retired.add(gone)
        if not self._models_left() or not isinstance(self.pipeline.transcription.get("speech_models"), list):
            if stop is not None:
                stop.set()
            raise NoModelLeft(
                f"The speech service serves none of the models in transcription.speech_models any more "
                f"({', '.join(self.pipeline.speech_models)}): name another. {said}"
            )
        log.warning("%s. It is left out; going on with %s.", said.rstrip(". "), ", ".join(self._models_left()))
        return True

    def _nap(self, seconds: float) -> None:
        """Wait, and keep the day meanwhile."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, NAP_S))
            self.ledger.lease.hold()

    def _tries(self, key: str) -> int:
        """How often this pass over the day has had ``key`` submitted and failed."""
        event = self.ledger.find(key)
        if event is None or dt.datetime.fromisoformat(event["at"]) < self.chunk.listed_at:
            return 0
        tries = int(event.get("tries", 0))
        return tries - 1 if event["event"] == "intended" else tries

    def _audio_url(self, recording: Recording) -> str:
        if recording.size == 0:
            raise EmptyFile("The recording has 0 bytes; it was not sent.")
        if self.pipeline.recordings.send == "upload":
            return self.service.upload(lambda: self._pieces(recording))
        return self.s3.generate_presigned_url(
            "get_object", Params={"Bucket": recording.bucket, "Key": recording.key}, ExpiresIn=URL_LIFE_S
        )

    def _pieces(self, recording: Recording) -> Iterator[bytes]:
        try:
            body = self.s3.get_object(Bucket=recording.bucket, Key=recording.key, IfMatch=f'"{recording.etag}"')["Body"]
            for piece in body.iter_chunks(UPLOAD_PIECE_BYTES):
                self.ledger.lease.hold()
                yield piece
        except (ClientError, BotoCoreError) as error:
            code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
            if code in ("NoSuchKey", "PreconditionFailed", "404", "412"):
                raise RecordingGone("The recording was deleted or replaced after it was listed.") from None
            raise explain(error, recording.bucket, "recordings.bucket") from None

    def _collect_one(self, job: Job, key: str, recording: Recording) -> Event:
        if job.status == "error":
            return self._job_failed(job, key, recording)
        cues: list[Cue] | None = None
        try:
            transcript = self.service.transcript(job.id)
            spoken = bool((transcript.get("text") or "").strip())
            cues = cues_of_words(transcript) if spoken else []
            vtt = self.service.vtt(job.id) if cues is None else to_vtt(cues)
        except CallFailure as failure:
            return self._failure(key, recording, failure, transcript_id=job.id, paid=True)
        name = f"transcripts/dt={self.ledger.day}/{key}"
        transcript["audio_url"] = without_query(str(transcript.get("audio_url") or ""))  # the query signs
        body = json.dumps(transcript, ensure_ascii=False).encode(errors="replace")  # halves of a character are JSON
        uri = self.state.put(f"{name}.json", body, "application/json")
        if spoken:
            self.state.put(f"{name}.vtt", vtt.encode(), "text/vtt; charset=utf-8")
            with contextlib.suppress(ProviderError):  # told where the cues are used
                self._cues[key] = cues_of_captions(transcript, vtt) if cues is None else cues
        audio_s = float(transcript.get("audio_duration") or 0)
        status = "completed" if spoken else "no_speech"
        for warning in (transcript.get("metadata") or {}).get("warnings") or []:
            log.warning("%s: the service warns: %s", recording.key, without_secrets(str(warning.get("message", ""))))
        model = transcript.get("speech_model_used") or transcript.get("speech_model")
        return self._event(
            "transcribed",
            key,
            recording,
            status=status,
            transcript_id=job.id,
            transcript_uri=uri,
            cues=self._cues_name,
            audio_s=audio_s,
            language=transcript.get("language_code"),
            speech_model=model,
            speech_usd=costs.speech_usd(self.pipeline, model, audio_s),
        )

    def _job_failed(self, job: Job, key: str, recording: Recording) -> Event:
        failure = job_failure(job.error, self.pipeline.speech_models)
        submitted = self.ledger.find(key) or {}
        tries = submitted.get("tries", 1)
        again = failure.may_pass and tries < TRIES_AT_PROVIDER
        if isinstance(failure, ModelRetired):
            models = self.pipeline.speech_models
            self._leave_out(failure, [submitted.get("model") or models[0], *models])
            again = True
        return self._failure(key, recording, failure, transcript_id=job.id, tries=tries, again=again)

    def _failure(self, key: str, recording: Recording, failure: CallFailure, **more: Any) -> Event:
        log.warning("%s: %s", recording.key, failure)
        return failed(key, failure, recording=recording.key, **more)

    def _event(self, event: str, key: str, recording: Recording, **more: Any) -> Event:
        return {"event": event, "key": key, "recording": recording.key, **more}
