"""Recording → transcript: submit what the ledger does not know, see how the jobs stand, collect what has ended."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from callphases import costs
from callphases.assemblyai import AssemblyAI, Job, job_failure, without_query
from callphases.cues import Cue, cues_of
from callphases.errors import (
    AnswerLost,
    CallFailure,
    DownloadRefused,
    EmptyFile,
    ModelRetired,
    NoModelLeft,
    ProviderError,
    RecordingGone,
    ServiceUnavailable,
    TranscriptGone,
    without_secrets,
)
from callphases.ledger import Event, Ledger, failed, transcript_key
from callphases.pipeline import Pipeline
from callphases.recordings import Manifest, Recording
from callphases.storage import Folder, explain
from callphases.throttle import ramp_s

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


@dataclass
class Transcriber:
    """Takes the recordings of a chunk through the speech service; what it does is in the ledger before it goes on."""

    service: AssemblyAI
    s3: S3Client
    pipeline: Pipeline
    state: Folder
    ledger: Ledger
    chunk: Manifest
    _retired: set[str] = field(default_factory=set)
    _cues: dict[str, list[Cue]] = field(default_factory=dict)
    _cues_name: str = ""
    _numbers: dict[str, int] = field(default_factory=dict)
    _last_sent: float = float("-inf")

    def __post_init__(self) -> None:
        self._numbers = {self._key(one): self.chunk.first + place for place, one in enumerate(self.chunk.recordings)}
        self._cues_name = f"transcripts/dt={self.ledger.day}/cues-{uuid.uuid4().hex}.jsonl"

    def submit(self) -> None:
        """Start a transcription for each recording that has none under way or done.

        What is about to be paid for is in the ledger before it is sent, so that a job whose id was lost, with the
        answer or with the process, is found again at the provider by its URL. A recording that the service does not
        take becomes a failure in the ledger and stops nothing.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: none of the others would fare better.
            DayHeld, RunStopped: as ``Lease.hold``.
        """
        todo = {self._key(recording): recording for recording in self.chunk.recordings}
        todo = {
            key: recording
            for key, recording in todo.items()
            if not self.ledger.settled(key, self.chunk.listed_at, replay=self.chunk.replay)
        }
        try:
            self._adopt(todo)
            for _ in range(SUBMIT_ROUNDS):
                late = self._submit_all(todo)
                for look, pause_s in enumerate(LOST_PAUSES_S + LATE_PAUSES_S):
                    if not todo:
                        return
                    if look >= len(LOST_PAUSES_S) and late.isdisjoint(todo):
                        break
                    self._nap(pause_s)
                    self._adopt(todo)
        finally:
            self.ledger.write()  # the ids, which each batch leaves to the next one's intents
        if todo:
            raise ServiceUnavailable(f"{len(todo)} submissions were sent {SUBMIT_ROUNDS} times and not answered.")

    def under_way(self) -> dict[str, Recording]:
        """The recordings that have been submitted and not collected, by the ids of their transcripts."""
        events = ((self.ledger.find(self._key(recording)), recording) for recording in self.chunk.recordings)
        return {
            str(event["transcript_id"]): recording
            for event, recording in events
            if event is not None and event["event"] == "submitted"
        }

    def collect(self) -> int:
        """Save the transcripts of all jobs that have ended.

        Returns:
            How many are still under way, or failed at the provider and are worth another submission.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: as ``submit``.
        """
        waiting = self.under_way()
        ended = [job for job in self.service.jobs(list(waiting)).values() if job.ended] if waiting else []
        again = 0
        for job in ended:
            event = self._collect_one(job, waiting[job.id])
            again += bool(event.get("again"))
            self.ledger.note([event])
            self.ledger.lease.hold()
        return len(waiting) - len(ended) + again

    def keep(self) -> None:
        """Make durable what was collected, before the task ends or is deferred."""
        if self._cues:
            lines = ({"key": key, "cues": [asdict(cue) for cue in cues]} for key, cues in self._cues.items())
            body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            self.state.put(self._cues_name, body.encode(), "application/x-ndjson")
        self.ledger.write()

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
        while waiting:
            self._nap(self._due_in_s(waiting[0]))
            batch = [waiting[0], *(key for key in waiting[1:BATCH] if self._due_in_s(key) <= LOOK_AHEAD_S)]
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
        events, sent = [], set[str]()
        try:
            for key, url in urls.items():

                def confirm(key: str = key) -> None:
                    self.ledger.hold()
                    sent.add(key)

                self._nap(self._due_in_s(key))
                self._last_sent = time.monotonic()
                try:
                    job = self._post(url, confirm)
                except AnswerLost as error:
                    log.warning("%s: %s It is looked for before it is sent again.", todo[key].key, error)
                    if error.maybe_later:
                        late.add(key)
                    continue
                except CallFailure as failure:
                    events.append(self._failure(key, todo[key], failure))
                else:
                    more = {"transcript_id": job.id, "tries": tries[key], "model": self._models_left()[0]}
                    events.append(self._event("submitted", key, todo[key], **more))
                del todo[key]
        finally:
            events += [self._event("withdrawn", key, todo[key]) for key in urls if key in todo and key not in sent]
            self.ledger.note(events)
        return late

    def _post(self, url: str, confirm: Callable[[], None]) -> Job:
        while True:
            try:
                return self.service.submit(url, self._options(), confirm)
            except ModelRetired as refusal:
                if not self._leave_out(refusal, self._models_left()[0]):
                    raise

    def _options(self) -> dict[str, Any]:
        options = self.pipeline.transcription
        if self._retired and isinstance(options.get("speech_models"), list):
            return {**options, "speech_models": self._models_left()}
        return options

    def _models_left(self) -> list[str]:
        return [model for model in self.pipeline.speech_models if model not in self._retired]

    def _leave_out(self, refusal: ModelRetired, first: str) -> bool:
        """Go on without the model that a refusal names, or without the ``first`` of those that were asked for.

        Returns:
            Whether it was asked for until now.

        Raises:
            NoModelLeft: there is no other.
        """
        said = str(refusal.args[0])
        named = [model for model in self.pipeline.speech_models if model in said]
        gone = min(named, key=lambda model: (said.index(model), -len(model))) if named else first
        if gone in self._retired:
            return False
        self._retired.add(gone)
        if not self._models_left() or not isinstance(self.pipeline.transcription.get("speech_models"), list):
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

    def _key(self, recording: Recording) -> str:
        return transcript_key(recording, self.pipeline.transcription)

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

    def _collect_one(self, job: Job, recording: Recording) -> Event:
        key = self._key(recording)
        if job.status == "error":
            return self._job_failed(job, key, recording)
        try:
            transcript = self.service.transcript(job.id)
            spoken = bool((transcript.get("text") or "").strip())
            vtt = self.service.vtt(job.id) if spoken else ""  # refused where nothing is said
        except CallFailure as failure:
            return self._failure(key, recording, failure, transcript_id=job.id, paid=True)
        name = f"transcripts/dt={self.ledger.day}/{key}"
        transcript["audio_url"] = without_query(str(transcript.get("audio_url") or ""))  # the query signs
        uri = self.state.put(f"{name}.json", json.dumps(transcript, ensure_ascii=False).encode(), "application/json")
        if spoken:
            self.state.put(f"{name}.vtt", vtt.encode(), "text/vtt; charset=utf-8")
            with contextlib.suppress(ProviderError):  # told where the cues are used
                self._cues[key] = cues_of(transcript, vtt)
        audio_s = float(transcript.get("audio_duration") or 0)
        status = "completed" if spoken else "no_speech"
        log.info("%s: %.0f s of audio transcribed (%s)", recording.key, audio_s, status)
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
        failure = job_failure(job.error)
        submitted = self.ledger.find(key) or {}
        tries = submitted.get("tries", 1)
        may_pass = isinstance(failure, DownloadRefused) or "server error" in str(failure).lower()
        again = may_pass and tries < TRIES_AT_PROVIDER
        if isinstance(failure, ModelRetired):
            self._leave_out(failure, submitted.get("model") or self.pipeline.speech_models[0])
            again = True
        return self._failure(key, recording, failure, transcript_id=job.id, tries=tries, again=again)

    def _failure(self, key: str, recording: Recording, failure: CallFailure, **more: Any) -> Event:
        log.warning("%s: %s", recording.key, failure)
        return failed(key, failure, recording=recording.key, **more)

    def _event(self, event: str, key: str, recording: Recording, **more: Any) -> Event:
        return {"event": event, "key": key, "recording": recording.key, **more}


@dataclass
class Transcripts:
    """The cues of transcripts in the state area; those that were collected together are read together, once.

    Safe to use from the threads of a task.
    """

    state: Folder
    _bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cues(self, transcribed: Event) -> list[Cue]:
        """The cues of the transcript that a ``transcribed`` event is about.

        Raises:
            ProviderError: its captions can't be read.
            TranscriptGone: it is no longer in the state area.
        """
        kept = self._bundle(transcribed.get("cues", "")).get(transcribed["key"])
        if kept is not None:
            return [Cue(**cue) for cue in kept]
        name = str(transcribed["transcript_uri"]).removeprefix(self.state.uri).removesuffix(".json")
        document, vtt = self.state.get(f"{name}.json"), self.state.get(f"{name}.vtt")
        if document is None or vtt is None:
            raise TranscriptGone(f"{transcribed['transcript_uri']} is not there any more.")
        return cues_of(json.loads(document), vtt.decode())

    def _bundle(self, name: str) -> dict[str, Any]:
        with self._lock:
            if name and name not in self._bundles:
                lines = (json.loads(line) for line in (self.state.get(name) or b"").splitlines())
                self._bundles[name] = {line["key"]: line["cues"] for line in lines}
            return self._bundles.get(name, {})
