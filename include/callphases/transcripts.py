"""Recording → transcript: submit what the ledger does not know, see how the jobs stand, collect what has ended."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from callphases import costs
from callphases.assemblyai import AssemblyAI, Job, job_failure
from callphases.cues import Cue, cues_of
from callphases.errors import AccountError, CallFailure, EmptyFile, ModelRetired, RecordingGone, TranscriptGone
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

        A recording that the service does not take becomes a failure in the ledger and stops nothing. ``since`` is when
        the pass over the day began.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: none of the others would fare better.
        """
        for recording in recordings:
            key = self._key(recording)
            if self.ledger.settled(key, since):
                continue
            known = self.ledger.find(key)
            if known is not None and known.get("paid"):  # done at the provider, and could not be fetched last time
                self.ledger.write([{"event": "submitted", "key": key, "transcript_id": known["transcript_id"]}])
                continue
            try:
                job = self._submit_one(recording)
            except ModelRetired as error:
                raise AccountError(str(error)) from None
            except CallFailure as failure:
                self.ledger.write([failed(key, failure)])
                log.warning("%s: %s", recording.key, failure)
            else:
                self.ledger.write([{"event": "submitted", "key": key, "transcript_id": job.id}])

    def under_way(self, recordings: Sequence[Recording]) -> dict[str, Recording]:
        """The recordings that have been submitted and not collected, by the ids of their transcripts."""
        events = ((self.ledger.find(self._key(recording)), recording) for recording in recordings)
        return {
            str(event["transcript_id"]): recording
            for event, recording in events
            if event is not None and event["event"] == "submitted"
        }

    def collect(self, recordings: Sequence[Recording]) -> int:
        """Save the transcripts of all jobs that have ended; returns how many are still under way.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: as ``submit``.
        """
        waiting = self.under_way(recordings)
        ended = [job for job in self.service.jobs(list(waiting)).values() if job.ended] if waiting else []
        events: list[Event] = []
        try:
            for job in ended:
                events.append(self._collect_one(job, waiting[job.id]))
                _tell(waiting[job.id], events[-1])
        finally:
            self.ledger.write(events)
        return len(waiting) - len(ended)

    def _key(self, recording: Recording) -> str:
        return transcript_key(recording, self.pipeline.transcription)

    def _submit_one(self, recording: Recording) -> Job:
        if recording.size == 0:
            raise EmptyFile("The recording has 0 bytes; it was not sent.")
        if self.pipeline.recordings.send == "upload":
            audio_url = self.service.upload(lambda: self._pieces(recording))
        else:
            audio_url = self.s3.generate_presigned_url(
                "get_object", Params={"Bucket": recording.bucket, "Key": recording.key}, ExpiresIn=URL_LIFE_S
            )
        return self.service.submit(audio_url, self.pipeline.transcription)

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
            return failed(key, job_failure(job.error), transcript_id=job.id)
        try:
            transcript = self.service.transcript(job.id)
            spoken = bool((transcript.get("text") or "").strip())
            vtt = self.service.vtt(job.id) if spoken else ""  # refused where nothing is said
        except CallFailure as failure:
            return failed(key, failure, transcript_id=job.id, paid=True)
        name = f"transcripts/dt={self.ledger.day}/{key}"
        uri = self.state.put(f"{name}.json", json.dumps(transcript, ensure_ascii=False).encode(), "application/json")
        if spoken:
            self.state.put(f"{name}.vtt", vtt.encode(), "text/vtt; charset=utf-8")
        audio_s = float(transcript.get("audio_duration") or 0)
        model = transcript.get("speech_model_used") or transcript.get("speech_model")
        return {
            "event": "transcribed",
            "key": key,
            "status": "completed" if spoken else "no_speech",
            "transcript_id": job.id,
            "transcript_uri": uri,
            "audio_s": audio_s,
            "language": transcript.get("language_code"),
            "speech_model": model,
            "speech_usd": costs.speech_usd(
                model, audio_s, speaker_labels=bool(self.pipeline.transcription.get("speaker_labels"))
            ),
        }


def _tell(recording: Recording, event: Event) -> None:
    if event["event"] == "failed":
        log.warning("%s: %s", recording.key, event["failure_message"])
    else:
        log.info("%s: %.0f s of audio transcribed (%s)", recording.key, event["audio_s"], event["status"])


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
