"""What is known of a recording → its row in ``calls`` and its rows in ``phases``."""

from __future__ import annotations

import datetime as dt
from typing import Any

from callphases.errors import OverBudget, Unfinished
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.segmentation.segmenter import question
from callphases.state.ledger import Event, LedgerView, answer_key, failed, stop_key, transcript_key
from callphases.tables import columns
from callphases.tables.schema import SCHEMA_VERSION
from callphases.tables.talk_columns import speaker_columns, talk_columns


def rows(
    recording: Recording, pipeline: Pipeline, known: LedgerView, run_id: str
) -> tuple[dict[str, Any], list[dict[str, Any]], bool]:
    """The row of a recording in ``calls``, its rows in ``phases``, and whether it was finished, from what is known.

    The rows of ``phases`` come without the columns that they share with the call's.
    """
    key = transcript_key(recording, pipeline.transcription)
    speech = known.find(key)
    answer: Event | None = None
    if speech is not None and speech["event"] == "transcribed" and speech["status"] == "completed":
        answer = known.find(answer_key(key, question(pipeline)))
    last = answer if answer is not None else speech
    stopped = known.find(stop_key(key))
    finished = (
        last is not None
        and last["event"] not in ("intended", "withdrawn", "submitted")
        and not (last is speech and speech.get("status") == "completed")
        and not last.get("again")
    )
    if last is None or not finished:
        if stopped is not None and _is_newer(stopped, last):
            last, finished = {**stopped, "event": "failed"}, stopped["failure_class"] == OverBudget.failure_class
        else:
            # Of this run and this moment: nothing was written of this recording, or it stopped half way.
            now = dt.datetime.now(dt.UTC).isoformat()
            last = {**failed(key, Unfinished("Not done.")), "at": now, "run_id": run_id}
    heard = speech if speech is not None and speech["event"] == "transcribed" else {}
    said = answer if answer is not None and answer["event"] == "answered" else {}
    status = "failed" if last["event"] == "failed" else "completed" if said else "no_speech"
    duration_s = said.get("duration_s", heard.get("audio_s"))
    talk = {"spoken_s": 0.0} if status == "no_speech" else said.get("talk", {})
    priced = (
        [event for event in known.of([recording]) if event["key"] == answer["key"] and "llm_usd" in event]
        if answer is not None
        else []
    )
    is_price_known = bool(priced) and all(event["llm_usd"] is not None for event in priced)
    call = {
        "call_id": recording.call_id,
        "recording_uri": recording.uri,
        "recording_etag": recording.etag,
        "recording_bytes": recording.size,
        "call_started_at": recording.call_time,
        "status": status,
        "failure_class": last.get("failure_class"),
        "failure_message": last.get("failure_message"),
        "duration_s": duration_s,
        "language": heard.get("language"),
        "phase_count": None if status == "failed" else len(said.get("phases", [])),
        "transcript_id": (speech or {}).get("transcript_id"),
        "transcript_uri": heard.get("transcript_uri"),
        "speech_model": heard.get("speech_model"),
        "llm_model": (answer or {}).get("llm_model"),
        "llm_input_tokens": sum(event["llm_input_tokens"] for event in priced) if priced else None,
        "llm_output_tokens": sum(event["llm_output_tokens"] for event in priced) if priced else None,
        "speech_usd": heard.get("speech_usd"),
        "llm_usd": sum(event["llm_usd"] for event in priced) if is_price_known else None,
        "prompt_version": said.get("prompt_version"),
        "schema_version": SCHEMA_VERSION,
        "run_id": last["run_id"],
        "processed_at": dt.datetime.fromisoformat(last["at"]),
        **speaker_columns(talk),
        **talk_columns(talk, duration_s),
        **columns.values(recording, pipeline, known),
    }
    phases = [_phase(index, phase, duration_s) for index, phase in enumerate(said.get("phases", []))]
    return call, phases, finished


def _phase(index: int, phase: dict[str, Any], call_s: float | None) -> dict[str, Any]:
    length_s = phase["end_s"] - phase["start_s"]
    return phase | {
        "phase_index": index,
        "phase_name": phase["name"],
        "duration_s": length_s,
        "share_of_call": length_s / call_s if call_s else 1.0,
        **talk_columns(phase.get("talk", {}), length_s),
    }


def _is_newer(stopped: Event, last: Event | None) -> bool:
    """Whether why a run stopped is still why a recording is not done: a later run may have begun it."""
    return last is None or (last.get("term", 0), last["at"]) <= (stopped["term"], stopped["at"])
