"""Runs of the transcription of a chunk, and answers of the speech service, for the tests of its parts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from callphases.limits.quota import Slots
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.bucket import RecordingBucket
from callphases.state.events import Event, Failed, Intended, Submitted, Transcribed
from callphases.state.keys import transcript_key
from callphases.state.lease import Lease
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.transcriber import Transcriber
from doubles import KEY, LONG_AGO, LOST, Answer, Request, Speech, Store, answer, manifest, merged

REFUSED = answer({"error": "audio_end_at must be larger than audio_start_from"}, 400)
NO_MONEY = answer({"error": "Your current account balance is negative."}, 400)
SERVER_ERROR = "Server error, developers have been alerted."
SUBMISSION = ("POST", "/v2/transcript")


class Runner:
    """Starts the only task of a run, as Airflow does; a new run releases the lease of the one before."""

    def __init__(self, s3: Store, speech: Speech) -> None:
        self.s3, self.speech = s3, speech
        self._lease: Lease | None = None

    def run(
        self,
        chunk: list[Recording],
        /,
        run_id: str = "run-1",
        since: dt.datetime = LONG_AGO,
        slots: Slots | None = None,
        **more: Any,
    ) -> Transcriber:
        """Start a process of the task. ``more`` is the manifest's ``first`` and ``replay``, and settings."""
        if self._lease is not None and self._lease.run_token != run_id:
            self._lease.release()
        ledger = self.s3.ledger(run_id)
        self._lease = ledger.lease
        of_chunk = {name: more.pop(name) for name in ("first", "replay") if name in more}
        listed = manifest(*chunk, run_id=run_id, listed_at=since, **of_chunk)
        pipeline = self.s3.pipeline(**merged({"limits": {"ramp": False}}, more))
        service = AssemblyAI(KEY, self.speech.web.url)
        bucket = RecordingBucket(self.s3.client, self.s3.recordings)
        slots = slots or Slots(self.s3.state, layout.jobs_limit(), 200, run_id, listed.name, total=len(chunk))
        return Transcriber(service, bucket, pipeline, self.s3.state, ledger, listed, slots)

    def submit(self, *recordings: Recording, **more: Any) -> Transcriber:
        run = self.run(list(recordings), **more)
        run.submit()
        return run

    def transcribe(self, *recordings: Recording, **more: Any) -> Transcriber:
        run = self.submit(*recordings, **more)
        assert collect(run) == 0
        return run

    def key(self, recording: Recording, **settings: Any) -> str:
        """The transcript's."""
        return transcript_key(recording, self.s3.pipeline(**settings).transcription)

    def event(self, recording: Recording, **settings: Any) -> Event:
        """The event that the state area has of a recording."""
        event = self.s3.known().find(self.key(recording, **settings))
        assert event is not None
        return event

    def events(self, *recordings: Recording, **settings: Any) -> list[type[Event]]:
        """The kind of each recording's event."""
        return [type(self.event(recording, **settings)) for recording in recordings]

    def transcribed(self, recording: Recording) -> Transcribed:
        event = self.event(recording)
        assert isinstance(event, Transcribed)
        return event

    def failure(self, recording: Recording) -> Failed:
        event = self.event(recording)
        assert isinstance(event, Failed)
        return event

    def job(self, recording: Recording, **settings: Any) -> str | None:
        """The id of the job that the state area has of a recording."""
        event = self.event(recording, **settings)
        assert isinstance(event, Submitted | Transcribed | Failed)
        return event.transcript_id

    def url(self, recording: Recording) -> str:
        """A presigned URL of a recording."""
        where = {"Bucket": recording.bucket, "Key": recording.key}
        return str(self.s3.client.generate_presigned_url("get_object", Params=where))

    def intended(self, recording: Recording) -> None:
        """Let the ledger say that an earlier run was killed while it submitted this."""
        url = self.url(recording).partition("?")[0]
        self.s3.knows(Intended(key=self.key(recording), recording=recording.key, audio_url=url))


def collect(run: Transcriber) -> int:
    run.look()
    left = run.collect()
    run.keep()
    return left


def refusing(path: str, refusal: Answer, method: str = "GET") -> Callable[[Request], Answer | None]:
    return lambda request: refusal if (request.method, request.path) == (method, path) else None


def losing(speech: Speech, taken: bool, lost: Answer = LOST, times: int = 1) -> Callable[[Request], Answer | None]:
    """Answers the first submissions with ``lost``; ``taken`` says whether the service creates their jobs."""
    left = [lost] * times

    def lose(request: Request) -> Answer | None:
        if (request.method, request.path) != SUBMISSION or not left:
            return None
        if taken:
            speech.take(request.json)
        return left.pop()

    return lose
