"""A recording's audio to the service, and its transcript from there to the state area."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from callphases.cues import Cue, cues_of_captions, cues_of_words, to_vtt
from callphases.errors import (
    Archived,
    CallFailure,
    EmptyFile,
    ModelRetired,
    NoModelLeft,
    ProviderError,
    without_secrets,
)
from callphases.limits import costs
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from callphases.state.events import Event, Failed, Submitted, Transcribed, failed
from callphases.state.ledger import Ledger
from callphases.state.transcripts import TranscriptWriter
from callphases.transcription.assemblyai import AssemblyAI, Job, has_no_speech, job_failure, without_query
from callphases.transcription.documents import TranscriptDocument, parsed

log = logging.getLogger(__name__)

URL_LIFE_S = 6 * 3600
"""How long the service may fetch a recording: a presigned URL has to outlive the provider's queue."""
TRIES_AT_PROVIDER = 4
"""A job that fails on the provider's own side is worth submitting again; failed jobs are not billed."""
MOST_OF_WARNINGS = 500
"""Characters of a call's warnings in its row; four bytes each fit Redshift's 2,048."""


class SpeechModels:
    """The pipeline's speech models, without those that the service has turned out not to serve."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._retired = set[str]()

    @property
    def left(self) -> list[str]:
        """Those that may be asked for, in order of preference."""
        return [model for model in self._pipeline.speech_models if model not in self._retired]

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``POST /v2/transcript``."""
        options = self._pipeline.speech_options
        if self._retired and isinstance(options.get("speech_models"), list):
            return {**options, "speech_models": self.left}
        return options

    def leave_out(self, refusal: ModelRetired, asked: Sequence[str]) -> bool:
        """Leave out the model that a refusal names, or the first of those that were ``asked`` for.

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
        if not self.left or not isinstance(self._pipeline.speech_options.get("speech_models"), list):
            raise NoModelLeft(
                f"The speech service serves none of the models in transcription.speech_models any more "
                f"({', '.join(self._pipeline.speech_models)}): name another. {said}"
            )
        log.warning("%s. It is left out; going on with %s.", said.rstrip(". "), ", ".join(self.left))
        return True


class Delivery:
    """Sends the recordings of one task, and saves what comes back. Safe to use from the threads of the task."""

    def __init__(
        self,
        service: AssemblyAI,
        bucket: RecordingBucket,
        pipeline: Pipeline,
        ledger: Ledger,
        writer: TranscriptWriter,
    ) -> None:
        self._service, self._bucket, self._pipeline = service, bucket, pipeline
        self._ledger, self._writer = ledger, writer
        self.models = SpeechModels(pipeline)

    def audio_url(self, recording: Recording) -> str:
        """The URL that the service gets: a presigned one, or that of an upload.

        A presigned URL is made of what can be read: the service would try others several times, and not say why.

        Raises:
            EmptyFile, RecordingGone, Archived, AccessDenied: the recording can't be sent.
        """
        if recording.size == 0:
            raise EmptyFile("The recording has 0 bytes; it was not sent.")
        if recording.archived_in:
            raise Archived(f"The recording's storage class is {recording.archived_in}; it was not sent.")
        if self._pipeline.recordings.send == "presigned":
            self._bucket.check_readable(recording)
            return self._bucket.presigned_url(recording.key, URL_LIFE_S)
        return self._service.upload(lambda: self._holding(recording))

    def submit(self, url: str, may_send: Callable[[], None]) -> Job:
        """Start a transcription, with the models that are left.

        Args:
            url: from ``audio_url``.
            may_send: called right before each request; what it raises keeps the request from being sent.

        Raises:
            NoModelLeft, and as ``AssemblyAI.submit``.
        """
        while True:
            asked = self.models.left
            try:
                return self._service.submit(url, self.models.options, may_send)
            except ModelRetired as refusal:
                if not self.models.leave_out(refusal, asked):
                    raise

    def collect(self, job: Job, key: str, recording: Recording) -> Event:
        """Save the transcript of a job that has ended; returns the event to record.

        Raises:
            NoModelLeft: the job failed for want of the last model.
            AccountError, ServiceUnavailable, ConfigurationError: every other call would fail the same way.
        """
        if job.problem is not None:
            return failure_event(key, recording, ProviderError(job.problem), transcript_id=job.id, paid=True)
        if job.status == "error":
            if has_no_speech(job.error):
                return self._silent(job, key, recording)
            return self._job_failed(job, key, recording)
        cues: list[Cue] | None = None
        try:
            document = self._service.transcript(job.id)
            read = parsed(TranscriptDocument, document, "transcript")
            has_speech = bool((read.text or "").strip())
            cues = cues_of_words(document) if has_speech else []
            captions = self._service.vtt(job.id) if cues is None else to_vtt(cues)
        except CallFailure as failure:
            return failure_event(key, recording, failure, transcript_id=job.id, paid=True)
        document["audio_url"] = without_query(str(document.get("audio_url") or ""))  # the query signs
        if has_speech and cues is None:
            with contextlib.suppress(ProviderError):  # segmentation reports it
                cues = cues_of_captions(document, captions)
        kept = (captions, cues) if has_speech else (None, None)
        uri, bundle = self._writer.save(self._ledger.day_of(recording), key, document, *kept)
        warnings = [without_secrets(warning) for warning in read.warnings]
        for warning in warnings:
            log.warning("%s: the service warns: %s", recording.key, warning)
        return Transcribed(
            key=key,
            recording=recording.key,
            status="completed" if has_speech else "no_speech",
            transcript_id=job.id,
            transcript_uri=uri,
            cues=bundle,
            audio_s=read.audio_s,
            language=read.language_code,
            speech_model=read.model,
            speech_usd=costs.speech_usd(self._pipeline, read.model, read.audio_s, read.audio_channels),
            warnings=without_secrets("; ".join(warnings), MOST_OF_WARNINGS) or None,
        )

    def _silent(self, job: Job, key: str, recording: Recording) -> Transcribed:
        """A job that failed because nobody speaks, which is not billed."""
        audio_s, uri = 0.0, None
        with contextlib.suppress(CallFailure):
            document = self._service.transcript(job.id)
            document["audio_url"] = without_query(str(document.get("audio_url") or ""))
            uri, _ = self._writer.save(self._ledger.day_of(recording), key, document, None, None)
            audio_s = parsed(TranscriptDocument, document, "transcript").audio_s
        log.info("%s: nobody speaks: %s", recording.key, without_secrets(job.error or ""))
        return Transcribed(
            key=key,
            recording=recording.key,
            status="no_speech",
            transcript_id=job.id,
            transcript_uri=uri,
            audio_s=audio_s,
            speech_usd=0.0,
        )

    def _job_failed(self, job: Job, key: str, recording: Recording) -> Failed:
        failure = job_failure(job.error, self._pipeline.speech_options)
        event = self._ledger.find(key)
        tries, model = (event.tries, event.model) if isinstance(event, Submitted) else (1, None)
        again = failure.may_pass and tries < TRIES_AT_PROVIDER
        if isinstance(failure, ModelRetired):
            models = self._pipeline.speech_models
            self.models.leave_out(failure, [model or models[0], *models])
            again = True
        return failure_event(key, recording, failure, transcript_id=job.id, tries=tries, again=again)

    def _holding(self, recording: Recording) -> Any:
        """The bytes of a recording; the lease is renewed meanwhile."""
        for piece in self._bucket.pieces(recording):
            self._ledger.lease.hold()
            yield piece


def failure_event(key: str, recording: Recording, failure: CallFailure, **more: Any) -> Failed:
    """The event of a failure, which is logged too; what to change only if the recording is not sent ``again``."""
    if more.get("again"):
        log.warning("%s: %s. It is sent again.", recording.key, str(failure.args[0]).rstrip(". "))
    else:
        log.warning("%s: %s", recording.key, failure)
    return failed(key, failure, recording.key, **more)
