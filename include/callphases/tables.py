"""The two tables: their columns, the rows of a recording, and how a day is read.

Each table has one object a day, ``<table>/dt=<day>/<table>.parquet``; a day without rows has none.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from callphases import columns
from callphases.errors import OverBudget, Unfinished
from callphases.ledger import Event, Known, answer_key, failed, stop_key, transcript_key
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.segmentation import question
from callphases.storage import Folder
from callphases.talk import columns as talk_columns
from callphases.talk import speaker_columns

SCHEMA_VERSION = 2
"""Of the columns. 2: who talks, how long, how fast and how surely heard."""
OWN_COLUMNS = "own_columns"
"""In an object's metadata: the names of the columns that the pipeline file lists, with spaces between."""

_TIME = pa.timestamp("us", tz="UTC")
_LINEAGE: list[pa.Field[Any]] = [
    pa.field("transcript_id", pa.string()),
    pa.field("speech_model", pa.string()),
    pa.field("llm_model", pa.string()),
    pa.field("prompt_version", pa.string()),
    pa.field("schema_version", pa.int32()),
    pa.field("run_id", pa.string()),
    pa.field("processed_at", _TIME),
]

_TALK: list[pa.Field[Any]] = [
    pa.field("turn_count", pa.int32()),
    pa.field("silence_s", pa.float64()),
    pa.field("speaker_1", pa.string()),
    pa.field("speaker_1_talk_s", pa.float64()),
    pa.field("speaker_1_talk_share", pa.float64()),
    pa.field("speaker_2", pa.string()),
    pa.field("speaker_2_talk_s", pa.float64()),
    pa.field("speaker_2_talk_share", pa.float64()),
    pa.field("other_talk_s", pa.float64()),
    pa.field("interruption_count", pa.int32()),
    pa.field("words_per_minute", pa.float64()),
    pa.field("confidence", pa.float64()),
]

_PHASES_FIELDS: list[pa.Field[Any]] = [
    pa.field("call_id", pa.string()),
    pa.field("recording_uri", pa.string()),
    pa.field("call_started_at", _TIME),
    pa.field("phase_index", pa.int32()),
    pa.field("phase_name", pa.string()),
    pa.field("start_s", pa.float64()),
    pa.field("end_s", pa.float64()),
    pa.field("duration_s", pa.float64()),
    pa.field("share_of_call", pa.float64()),
    pa.field("start_cue", pa.int32()),
    pa.field("end_cue", pa.int32()),
    pa.field("word_count", pa.int32()),
    pa.field("summary", pa.string()),
    *_LINEAGE,
    *_TALK,
]
PHASES = pa.schema(_PHASES_FIELDS)

_CALLS_FIELDS: list[pa.Field[Any]] = [
    pa.field("call_id", pa.string()),
    pa.field("recording_uri", pa.string()),
    pa.field("recording_etag", pa.string()),
    pa.field("recording_bytes", pa.int64()),
    pa.field("call_started_at", _TIME),
    pa.field("status", pa.string()),
    pa.field("failure_class", pa.string()),
    pa.field("failure_message", pa.string()),
    pa.field("duration_s", pa.float64()),
    pa.field("language", pa.string()),
    pa.field("phase_count", pa.int32()),
    pa.field("transcript_id", pa.string()),
    pa.field("transcript_uri", pa.string()),
    pa.field("speech_model", pa.string()),
    pa.field("llm_model", pa.string()),
    pa.field("llm_input_tokens", pa.int64()),
    pa.field("llm_output_tokens", pa.int64()),
    pa.field("speech_usd", pa.float64()),
    pa.field("llm_usd", pa.float64()),
    *_LINEAGE[3:],
    *_TALK,
]
CALLS = pa.schema(_CALLS_FIELDS)


SCHEMAS = {"calls": CALLS, "phases": PHASES}
"""Without the columns of ``recordings.columns``, which come after these; see ``schema_of``."""

_SHARED = (
    *("call_id", "recording_uri", "call_started_at", "speaker_1", "speaker_2"),
    *(field.name for field in _LINEAGE),
)


def schema_of(table: str, pipeline: Pipeline) -> pa.Schema:
    """The columns of a table as the pipeline publishes it, and in the metadata which of them are its own."""
    own = columns.fields(pipeline)
    said: dict[str | bytes, str | bytes] = {"schema_version": str(SCHEMA_VERSION)}
    if own:
        said[OWN_COLUMNS] = " ".join(column.name for column in own)
    return pa.schema([*SCHEMAS[table], *own], said)


def own_columns(schema: pa.Schema) -> list[str]:
    """The columns of an object's schema that a pipeline file has listed."""
    return (schema.metadata or {}).get(OWN_COLUMNS.encode(), b"").decode().split()


def shared(pipeline: Pipeline) -> list[str]:
    """Columns that each row of ``phases`` has from the row of its call."""
    return [*_SHARED, *pipeline.recordings.columns]


def rows(
    recording: Recording, pipeline: Pipeline, known: Known, run_id: str
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


def no_rows(schema: pa.Schema) -> pa.Table:
    """A table without rows. ``Schema.empty_table`` imports pandas, which takes as long as thousands of rows."""
    return pa.Table.from_batches([], schema)


def read_day(tables: Folder, table: str, day: dt.date, only: list[str] | None = None) -> pa.Table | None:
    """A day of a table, or some of its columns; None where it has no rows."""
    body = tables.get(object_name(table, day))
    return None if body is None else _read(body, table, only)


def read_rows(tables: Folder | Path, table: str, day: dt.date) -> list[dict[str, Any]]:
    """A day of a table as dicts; ``tables`` is ``output.tables``, or a local folder with a copy of it."""
    if isinstance(tables, Folder):
        read = read_day(tables, table, day)
        return [] if read is None else read.to_pylist()
    path = tables / object_name(table, day)
    return _read(path, table).to_pylist() if path.is_file() else []


def _read(source: bytes | Path, table: str, only: list[str] | None = None) -> pa.Table:
    def file() -> Path | pa.BufferReader:
        return source if isinstance(source, Path) else pa.BufferReader(source)

    more = [column for column in pq.read_schema(file()) if column.name not in SCHEMAS[table].names]
    schema = pa.schema([*SCHEMAS[table], *more])
    # Without threads: a day is small, and a process that ends while Arrow still starts its threads is aborted.
    return pq.read_table(file(), columns=only, schema=schema, partitioning=None, use_threads=False)


def object_name(table: str, day: dt.date | str) -> str:
    """Where a day of a table lies below ``output.tables``."""
    return f"{table}/dt={day}/{table}.parquet"


def published_days(tables: Folder | Path, table: str = "calls") -> list[dt.date]:
    """The days of a table that there are, in order."""
    if isinstance(tables, Folder):
        names: Iterable[str] = tables.names(f"{table}/dt=")
    else:
        names = (path.relative_to(tables).as_posix() for path in tables.glob(object_name(table, "*")))
    return sorted(day for name in names if (day := day_of(table, name)) is not None)


def day_of(table: str, name: str) -> dt.date | None:
    """The day whose object of a table has this name, or None where it is none of the table's; see ``object_name``."""
    found = re.fullmatch(r"\w+/dt=(\d{4}-\d\d-\d\d)/\w+\.parquet", name)
    try:
        day = dt.date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None
    return day if day is not None and object_name(table, day) == name else None
