"""A recording's progress → its row in ``calls`` and its rows in ``phases``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from callphases.pipeline import Pipeline
from callphases.progress import Progress
from callphases.recordings import Recording
from callphases.state.events import Answered, Failed, Submitted, Transcribed
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import LedgerView
from callphases.tables import columns
from callphases.tables.schema import SCHEMA_VERSION
from callphases.tables.talk_columns import speaker_columns, talk_columns


@dataclass(frozen=True)
class Rows:
    """The rows of a recording.

    Attributes:
        call: its row in ``calls``.
        phases: its rows in ``phases``, without the columns that they share with the call's.
        is_finished: whether the run came to the end of it, be it a failure.
    """

    call: dict[str, Any]
    phases: list[dict[str, Any]]
    is_finished: bool


class RowMaker:
    """Makes the rows of a pipeline's recordings.

    Args:
        pipeline: the pipeline.
        run_id: the run that writes them.
    """

    def __init__(self, pipeline: Pipeline, run_id: str) -> None:
        self._pipeline, self._run_id = pipeline, run_id
        self._keys = RecordingKeys(pipeline)

    def rows(self, recording: Recording, view: LedgerView) -> Rows:
        """The rows of a recording, by what the ledger knows now."""
        progress = Progress(recording, self._keys, view)
        outcome = progress.outcome(self._run_id)
        speech, heard, said = progress.speech, progress.transcribed, progress.answered
        last_answer = progress.answer if isinstance(progress.answer, Answered | Failed) else None
        duration_s = said.duration_s if said else heard.audio_s if heard else None
        talk = {"spoken_s": 0.0} if outcome.status == "no_speech" else said.talk if said else {}
        phases = said.phases if said else []
        usages = progress.usages()
        prices = [usage.llm_usd for usage in usages if usage.llm_usd is not None]
        call = {
            "call_id": recording.call_id,
            "recording_uri": recording.uri,
            "recording_etag": recording.etag,
            "recording_bytes": recording.size,
            "call_started_at": recording.call_time,
            "status": outcome.status,
            "failure_class": outcome.failure.failure_class if outcome.failure else None,
            "failure_message": outcome.failure.failure_message if outcome.failure else None,
            "duration_s": duration_s,
            "language": heard.language if heard else None,
            "phase_count": None if outcome.status == "failed" else len(phases),
            "transcript_id": speech.transcript_id if isinstance(speech, Submitted | Transcribed | Failed) else None,
            "transcript_uri": heard.transcript_uri if heard else None,
            "speech_model": heard.speech_model if heard else None,
            "llm_model": last_answer.usage.llm_model if last_answer and last_answer.usage else None,
            "llm_input_tokens": sum(usage.llm_input_tokens for usage in usages) if usages else None,
            "llm_output_tokens": sum(usage.llm_output_tokens for usage in usages) if usages else None,
            "speech_usd": heard.speech_usd if heard else None,
            "llm_usd": sum(prices) if usages and len(prices) == len(usages) else None,
            "prompt_version": said.prompt_version if said else None,
            "schema_version": SCHEMA_VERSION,
            "run_id": outcome.run_id,
            "processed_at": outcome.at,
            **speaker_columns(talk),
            **talk_columns(talk, duration_s),
            "warnings": heard.warnings if heard else None,
            **columns.values(recording, self._pipeline, view),
        }
        return Rows(call, [_phase(index, phase, duration_s) for index, phase in enumerate(phases)], outcome.is_finished)


def _phase(index: int, phase: dict[str, Any], call_s: float | None) -> dict[str, Any]:
    length_s = phase["end_s"] - phase["start_s"]
    return phase | {
        "phase_index": index,
        "phase_name": phase["name"],
        "duration_s": length_s,
        "share_of_call": length_s / call_s if call_s else 1.0,
        **talk_columns(phase.get("talk", {}), length_s),
    }
