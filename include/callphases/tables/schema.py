"""The two tables: their columns, and the name of each day's object.

Each table has one object a day, ``<table>/dt=<day>/<table>.parquet``; a day without rows has none.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pyarrow as pa

from callphases.pipeline import Pipeline
from callphases.tables import columns

SCHEMA_VERSION = 3
"""Of the columns. 2 added the talk columns: who talks, how long, how fast, with which confidence. 3 added
``calls.warnings``."""
OWN_COLUMNS = "own_columns"
"""Key of an object's metadata: the names of the pipeline's own columns, separated by spaces."""

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
    pa.field("warnings", pa.string()),
]
CALLS = pa.schema(_CALLS_FIELDS)


SCHEMAS = {"calls": CALLS, "phases": PHASES}
"""Without ``recordings.columns``, which follow these; see ``schema_of``."""

_SHARED = (
    *("call_id", "recording_uri", "call_started_at", "speaker_1", "speaker_2"),
    *(field.name for field in _LINEAGE),
)


def schema_of(table: str, pipeline: Pipeline) -> pa.Schema:
    """The columns of a table as the pipeline publishes it; the metadata names its own."""
    own = columns.fields(pipeline)
    said: dict[str | bytes, str | bytes] = {"schema_version": str(SCHEMA_VERSION)}
    if own:
        said[OWN_COLUMNS] = " ".join(column.name for column in own)
    return pa.schema([*SCHEMAS[table], *own], said)


def own_columns(schema: pa.Schema) -> list[str]:
    """The pipeline's own columns in an object's schema."""
    return (schema.metadata or {}).get(OWN_COLUMNS.encode(), b"").decode().split()


def shared(pipeline: Pipeline) -> list[str]:
    """Columns of ``phases`` that are copied from the row of the call."""
    return [*_SHARED, *pipeline.recordings.columns]


def no_rows(schema: pa.Schema) -> pa.Table:
    """An empty table. ``Schema.empty_table`` would import pandas, which takes as long as thousands of rows."""
    return pa.Table.from_batches([], schema)


def object_name(table: str, day: dt.date | str) -> str:
    """The name of a table's object for a day, below ``output.tables``."""
    return f"{table}/dt={day}/{table}.parquet"


def day_of(table: str, name: str) -> dt.date | None:
    """The day of an object of a table by its name; None if it is not one. The inverse of ``object_name``."""
    found = re.fullmatch(r"\w+/dt=([0-9]{4}-[0-9]{2}-[0-9]{2})/\w+\.parquet", name)
    try:
        day = dt.date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None
    return day if day is not None and object_name(table, day) == name else None
