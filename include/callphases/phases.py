"""Transcript → phases: asks the model for each call that the ledger has no answer for."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass

from callphases import costs
from callphases.errors import CallFailure
from callphases.ledger import Event, Ledger, answer_key, failed, transcript_key
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.segmentation import Segmenter, prompt_version, question
from callphases.storage import Folder
from callphases.timeline import call_end_s, timeline
from callphases.transcripts import load_cues

log = logging.getLogger(__name__)

QUESTIONS_AT_ONCE = 8


@dataclass
class Divider:
    """Divides the calls of one day into phases; its answers are in the ledger."""

    segmenter: Segmenter
    pipeline: Pipeline
    state: Folder
    ledger: Ledger

    def divide(self, recordings: Sequence[Recording], since: dt.datetime) -> None:
        """Ask for each transcribed recording whose answer is not known; ``since`` is when the pass over the day began.

        A call without a valid answer becomes a failure in the ledger and stops nothing.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: none of the others would fare better. What was
                answered until then is in the ledger.
        """
        todo: list[tuple[Recording, str, Event]] = []
        for recording in recordings:
            transcript = transcript_key(recording, self.pipeline.transcription)
            transcribed = self.ledger.find(transcript)
            if transcribed is None or transcribed["event"] != "transcribed" or transcribed["status"] == "no_speech":
                continue
            key = answer_key(transcript, question(self.pipeline))
            if not self.ledger.settled(key, since):
                todo.append((recording, key, transcribed))
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
            futures: list[Future[Event]] = [pool.submit(self._divide_one, *one) for one in todo]
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                future.cancel()
        ended = [future for future in futures if not future.cancelled()]
        self.ledger.write(future.result() for future in ended if future.exception() is None)
        for future in ended:
            future.result()

    def _divide_one(self, recording: Recording, key: str, transcribed: Event) -> Event:
        try:
            cues = load_cues(self.state, transcribed)
            answer = self.segmenter.segment(cues)
        except CallFailure as failure:
            log.warning("%s: %s", recording.key, failure)
            return failed(key, failure)
        end_s = call_end_s(transcribed["audio_s"], cues)
        phases = timeline(cues, answer.labels, end_s)
        log.info("%s: %d phases", recording.key, len(phases))
        return {
            "event": "answered",
            "key": key,
            "duration_s": end_s,
            "phases": [asdict(phase) for phase in phases],
            "llm_model": answer.model,
            "llm_input_tokens": answer.input_tokens,
            "llm_output_tokens": answer.output_tokens,
            "llm_usd": costs.llm_usd(answer.model, answer.input_tokens, answer.output_tokens),
            "prompt_version": prompt_version(self.pipeline),
        }


def unsettled(
    recordings: Sequence[Recording], pipeline: Pipeline, ledger: Ledger, since: dt.datetime
) -> list[Recording]:
    """The recordings that there is something to do for, in a pass over the day that began at ``since``."""
    return [recording for recording in recordings if not _settled(recording, pipeline, ledger, since)]


def _settled(recording: Recording, pipeline: Pipeline, ledger: Ledger, since: dt.datetime) -> bool:
    key = transcript_key(recording, pipeline.transcription)
    event = ledger.find(key)
    if event is None or event["event"] == "submitted" or not ledger.settled(key, since):
        return False
    if event["event"] == "transcribed" and event["status"] == "completed":
        return ledger.settled(answer_key(key, question(pipeline)), since)
    return True
