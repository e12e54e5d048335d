"""Recording → transcript: submit what the ledger does not know, see how the jobs stand, collect what has ended."""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from callphases import costs
from callphases.assemblyai import AssemblyAI, Job, job_failure, without_query
from callphases.cues import Cue, cues_of
from callphases.errors import (
    AccountError,
    AnswerLost,
    CallFailure,
    EmptyFile,
    ModelRetired,
    RecordingGone,
    ServiceUnavailable,
    TranscriptGone,
)
from callphases.ledger import Event, Ledger, failed, transcript_key
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.storage import Folder, explain

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

URL_LIFE_S = 6 * 3600
"""How long the service may fetch a recording: a presigned URL has to outlive the provider's queue."""
UPLOAD_PIECE_BYTES = 1 << 20
TRIES_AT_PROVIDER = 2
"""A job that fails on the provider's own side is worth one more submission; failed jobs are not billed."""
SUBMIT_ROUNDS = 3
LOST_PAUSE_S = 2.0
"""How long after a lost answer the service may take to list the job."""
CLOCK_SKEW = dt.timedelta(minutes=5)
"""By how much the provider's clock may be behind ours."""


@dataclass
class Transcriber:
    """Takes recordings of one day through the speech service; what it does is in the ledger before it goes on."""

    service: AssemblyAI
    s3: S3Client
    pipeline: Pipeline
    state: Folder
    ledger: Ledger

    def submit(self, recordings: Sequence[Recording], since: dt.datetime) -> None:
        """Start a transcription for each recording that has none under way or done.

        What is about to be paid for is in the ledger before it is sent, so that a job whose id was lost, with the
        answer or with the process, is found again at the provider by its URL. A recording that the service does not
        take becomes a failure in the ledger and stops nothing. ``since`` is when the pass over the day began.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: none of the others would fare better.
        """
        todo = {self._key(recording): recording for recording in recordings}
        todo = {key: recording for key, recording in todo.items() if not self.ledger.settled(key, since)}
        self._adopt(todo)
        for _ in range(SUBMIT_ROUNDS):
            self._submit_all(todo, since)
            if not todo:
                return
            time.sleep(LOST_PAUSE_S)
            self._adopt(todo)
        if todo:
            raise ServiceUnavailable(f"{len(todo)} submissions were sent {SUBMIT_ROUNDS} times and not answered.")

    def _adopt(self, todo: dict[str, Recording]) -> None:
        """Take out of ``todo`` what is at the provider already; the ledger then has its id."""
        known = {key: event for key in todo if (event := self.ledger.find(key)) is not None}
        # Done at the provider, and could not be fetched by an earlier run.
        ids = {key: str(event["transcript_id"]) for key, event in known.items() if event.get("paid")}
        intents = {key: event for key, event in known.items() if event["event"] == "intended"}
        if intents:
            urls = {event["audio_url"]: key for key, event in intents.items()}
            first = min(dt.datetime.fromisoformat(event["at"]) for event in intents.values()) - CLOCK_SKEW
            taken = self.ledger.transcript_ids()
            for job in self.service.jobs_since(first):
                if job.id not in taken and job.audio_url in urls and (job.created is None or job.created >= first):
                    ids[urls.pop(job.audio_url)] = job.id
                if not urls:
                    break
        self.ledger.write(
            {"event": "submitted", "key": key, "transcript_id": id_, "tries": known[key].get("tries", 1)}
            for key, id_ in ids.items()
        )
        for key in ids:
            del todo[key]

    def _submit_all(self, todo: dict[str, Recording], since: dt.datetime) -> None:
        """Submit all of ``todo`` and take out of it what the service answered."""
        tries = {key: self._tries(key, since) + 1 for key in todo}
        events: list[Event] = []
        urls: dict[str, str] = {}
        for key, recording in list(todo.items()):
            try:
                urls[key] = self._audio_url(recording)
            except CallFailure as failure:
                events.append(_failure(recording, key, failure))
                del todo[key]
        self.ledger.write(
            [
                *events,
                *(
                    {"event": "intended", "key": key, "audio_url": without_query(url), "tries": tries[key]}
                    for key, url in urls.items()
                ),
            ]
        )
        events = []
        try:
            for key, url in urls.items():
                try:
                    job = self.service.submit(url, self.pipeline.transcription)
                except AnswerLost as error:
                    log.warning("%s: %s It is looked for before it is sent again.", todo[key].key, error)
                    continue
                except ModelRetired as error:
                    raise AccountError(str(error)) from None
                except CallFailure as failure:
                    events.append(_failure(todo[key], key, failure))
                else:
                    events.append({"event": "submitted", "key": key, "transcript_id": job.id, "tries": tries[key]})
                del todo[key]
        finally:
            self.ledger.write(events)

    def under_way(self, recordings: Sequence[Recording]) -> dict[str, Recording]:
        """The recordings that have been submitted and not collected, by the ids of their transcripts."""
        events = ((self.ledger.find(self._key(recording)), recording) for recording in recordings)
        return {
            str(event["transcript_id"]): recording
            for event, recording in events
            if event is not None and event["event"] == "submitted"
        }

    def collect(self, recordings: Sequence[Recording]) -> int:
        """Save the transcripts of all jobs that have ended.

        Returns:
            How many are still under way, or failed at the provider and are worth another submission.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: as ``submit``.
        """
        waiting = self.under_way(recordings)
        ended = [job for job in self.service.jobs(list(waiting)).values() if job.ended] if waiting else []
        events: list[Event] = []
        try:
            for job in ended:
                events.append(self._collect_one(job, waiting[job.id]))
        finally:
            self.ledger.write(events)
        return len(waiting) - len(ended) + sum(bool(event.get("again")) for event in events)

    def _key(self, recording: Recording) -> str:
        return transcript_key(recording, self.pipeline.transcription)

    def _tries(self, key: str, since: dt.datetime) -> int:
        """How often the pass that began at ``since`` has had this submitted and failed."""
        event = self.ledger.find(key)
        if event is None or dt.datetime.fromisoformat(event["at"]) < since:
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
            yield from body.iter_chunks(UPLOAD_PIECE_BYTES)
        except (ClientError, BotoCoreError) as error:
            code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
            if code in ("NoSuchKey", "PreconditionFailed", "404", "412"):
                raise RecordingGone("The recording was deleted or replaced after it was listed.") from None
            raise explain(error, recording.bucket, "recordings.bucket") from None

    def _collect_one(self, job: Job, recording: Recording) -> Event:
        key = self._key(recording)
        if job.status == "error":
            failure = job_failure(job.error)
            tries = (self.ledger.find(key) or {}).get("tries", 1)
            again = "server error" in str(failure).lower() and tries < TRIES_AT_PROVIDER
            return _failure(recording, key, failure, transcript_id=job.id, tries=tries, again=again)
        try:
            transcript = self.service.transcript(job.id)
            spoken = bool((transcript.get("text") or "").strip())
            vtt = self.service.vtt(job.id) if spoken else ""  # refused where nothing is said
        except CallFailure as failure:
            return _failure(recording, key, failure, transcript_id=job.id, paid=True)
        name = f"transcripts/dt={self.ledger.day}/{key}"
        transcript["audio_url"] = without_query(str(transcript.get("audio_url") or ""))  # the query signs
        uri = self.state.put(f"{name}.json", json.dumps(transcript, ensure_ascii=False).encode(), "application/json")
        if spoken:
            self.state.put(f"{name}.vtt", vtt.encode(), "text/vtt; charset=utf-8")
        audio_s = float(transcript.get("audio_duration") or 0)
        status = "completed" if spoken else "no_speech"
        log.info("%s: %.0f s of audio transcribed (%s)", recording.key, audio_s, status)
        model = transcript.get("speech_model_used") or transcript.get("speech_model")
        return {
            "event": "transcribed",
            "key": key,
            "status": status,
            "transcript_id": job.id,
            "transcript_uri": uri,
            "audio_s": audio_s,
            "language": transcript.get("language_code"),
            "speech_model": model,
            "speech_usd": costs.speech_usd(
                model, audio_s, speaker_labels=bool(self.pipeline.transcription.get("speaker_labels"))
            ),
        }


def _failure(recording: Recording, key: str, failure: CallFailure, **more: Any) -> Event:
    log.warning("%s: %s", recording.key, failure)
    return failed(key, failure, **more)


def load_cues(state: Folder, transcribed: Event) -> list[Cue]:
    """The cues of the transcript that a ``transcribed`` event is about.

    Raises:
        ProviderError: its captions can't be read.
        TranscriptGone: it is no longer in the state area.
    """
    name = str(transcribed["transcript_uri"]).removeprefix(state.uri).removesuffix(".json")
    document, vtt = state.get(f"{name}.json"), state.get(f"{name}.vtt")
    if document is None or vtt is None:
        raise TranscriptGone(f"{transcribed['transcript_uri']} is not there any more.")
    return cues_of(json.loads(document), vtt.decode())
