"""The two tables: their columns, a day's rows, and how a day is published and read back.

Each table has one object a day, ``<table>/dt=<day>/<table>.parquet``, replaced by one PUT; a day without rows has none.
"""

from __future__ import annotations

import datetime as dt
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from callphases import costs
from callphases.errors import OverBudget, Unfinished
from callphases.ledger import Event, Known, Ledger, answer_key, failed, stop_key, transcript_key
from callphases.pipeline import Pipeline
from callphases.recordings import DayList, Manifest, Recording
from callphases.segmentation import question
from callphases.storage import Folder

SCHEMA_VERSION = 1

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
]
CALLS = pa.schema(_CALLS_FIELDS)


@dataclass(frozen=True)
class Published:
    """What a day holds once it is published: counts of recordings by status and failure class, and what it cost.

    ``kept`` counts recordings that are in the tables and not in the bucket any more, ``unfinished`` those that this run
    did not get to the end of, whatever is published of them. ``speech_models`` and ``llm_models`` count the models that
    really answered. Costs are in US dollars: of the day's rows, and of this run alone.
    """

    listed: int
    kept: int
    statuses: dict[str, int]
    failures: dict[str, int]
    unfinished: int
    phases: int
    speech_models: dict[str, int]
    llm_models: dict[str, int]
    speech_usd: float
    llm_usd: float
    run_speech_usd: float
    run_llm_usd: float
    stopped: str | None = None
    """Why the run was stopped before it was done."""


def publish(tables: Folder, pipeline: Pipeline, ledger: Ledger, listed_day: DayList) -> Published:
    """Publish the rows of all recordings that were listed for a day.

    Rows of a recording that is not listed any more stay, unless ``recordings.when_deleted`` is ``drop``. Rows of a
    recording that this run could not finish, or not pay for, stay as they are, where there are rows of the same bytes.
    """
    old_calls, old_phases = read_day(tables, "calls", ledger.day), read_day(tables, "phases", ledger.day)
    published = {row["call_id"]: row for row in old_calls.to_pylist()} if old_calls is not None else {}
    calls: list[dict[str, Any]] = []
    phases: list[dict[str, Any]] = []
    stay: set[str] = set()
    unfinished = 0
    recordings = _all_listed(ledger.state, listed_day)
    for recording in recordings:
        row, parts, finished = rows(recording, pipeline, ledger, ledger.run_id)
        unfinished += not finished
        if not finished or row["failure_class"] == OverBudget.failure_class:
            before = published.get(recording.call_id)
            if before and _holds(before, recording):
                stay.add(recording.call_id)
                continue
        calls.append(row)
        phases.extend(parts)
    listed = {recording.call_id for recording in recordings}
    kept = set(published) - listed if pipeline.recordings.when_deleted == "keep" else set()
    stay |= kept
    calls_table = _joined(CALLS, calls, old_calls, stay)
    # Calls before phases: a reader between the two PUTs then sees no phase of a call that ``calls`` does not know.
    _replace(tables, "calls", ledger.day, calls_table, ["call_id"])
    phases_table = _joined(PHASES, phases, old_phases, stay)
    _replace(tables, "phases", ledger.day, phases_table, ["call_id", "phase_index"])
    run_speech_usd, run_llm_usd = costs.spent_usd(ledger.all(), ledger.run_id, listed_day.listed_at)
    of_listed = [row for row in calls_table.to_pylist() if row["call_id"] in listed]
    return Published(
        listed=listed_day.listed,
        kept=len(kept),
        statuses=dict(Counter(row["status"] for row in of_listed)),
        failures=dict(Counter(row["failure_class"] for row in of_listed if row["failure_class"])),
        unfinished=unfinished,
        phases=sum(row["phase_count"] or 0 for row in of_listed),
        speech_usd=sum(row["speech_usd"] or 0 for row in of_listed),
        llm_usd=sum(row["llm_usd"] or 0 for row in of_listed),
        speech_models=dict(Counter(row["speech_model"] for row in of_listed if row["speech_model"])),
        llm_models=dict(Counter(row["llm_model"] for row in of_listed if row["llm_model"])),
        run_speech_usd=run_speech_usd,
        run_llm_usd=run_llm_usd,
    )


def _all_listed(state: Folder, day: DayList) -> list[Recording]:
    """STUB until the real parts are merged: recordings, read back from chunks and from the stub's parts."""
    folder = f"runs/dt={day.day}/{day.holder}/"
    found: list[Recording] = []
    for name in state.names(folder):
        if "/chunk-" in name:
            found += Manifest.load(state, state.uri_of(name)).recordings
        elif "/rows/rest-" in name:
            found += [Recording.from_json(json.loads(line)) for line in (state.get(name) or b"").splitlines()]
    return sorted(found, key=lambda one: one.key)


class PartWriter:
    """STUB until the real one is merged: keeps the recordings alone."""

    def __init__(self, state: Folder, pipeline: Pipeline, run_id: str, folder: str, since: dt.datetime) -> None:  # noqa: ARG002
        self.state, self.folder = state, folder
        self.lines: list[str] = []

    def add(self, recording: Recording, known: Known) -> None:  # noqa: ARG002
        """See the class."""
        self.lines.append(json.dumps(recording.as_json()) + "\n")

    def __len__(self) -> int:
        return len(self.lines)

    def write(self, name: str) -> None:
        """See the class."""
        self.state.put(self.folder + name, "".join(self.lines).encode())
        self.lines = []


def rows(
    recording: Recording, pipeline: Pipeline, known: Known, run_id: str
) -> tuple[dict[str, Any], list[dict[str, Any]], bool]:
    """The row of a recording in ``calls``, its rows in ``phases``, and whether it was finished, from what is known."""
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
    shared = {
        "call_id": recording.call_id,
        "recording_uri": recording.uri,
        "call_started_at": recording.call_time,
        "transcript_id": (speech or {}).get("transcript_id"),
        "speech_model": heard.get("speech_model"),
        "llm_model": (answer or {}).get("llm_model"),
        "prompt_version": said.get("prompt_version"),
        "schema_version": SCHEMA_VERSION,
        "run_id": last["run_id"],
        "processed_at": dt.datetime.fromisoformat(last["at"]),
    }
    duration_s = said.get("duration_s", heard.get("audio_s"))
    asked = [event for event in known.of([recording]) if answer is not None and event["key"] == answer["key"]]
    priced = [event for event in asked if "llm_usd" in event]
    is_price_known = bool(priced) and all(event["llm_usd"] is not None for event in priced)
    call = shared | {
        "recording_etag": recording.etag,
        "recording_bytes": recording.size,
        "status": status,
        "failure_class": last.get("failure_class"),
        "failure_message": last.get("failure_message"),
        "duration_s": duration_s,
        "language": heard.get("language"),
        "phase_count": None if status == "failed" else len(said.get("phases", [])),
        "transcript_uri": heard.get("transcript_uri"),
        "llm_input_tokens": sum(event["llm_input_tokens"] for event in priced) if priced else None,
        "llm_output_tokens": sum(event["llm_output_tokens"] for event in priced) if priced else None,
        "speech_usd": heard.get("speech_usd"),
        "llm_usd": sum(event["llm_usd"] for event in priced) if is_price_known else None,
    }
    phases = [
        shared
        | phase
        | {
            "phase_index": index,
            "phase_name": phase["name"],
            "duration_s": phase["end_s"] - phase["start_s"],
            "share_of_call": (phase["end_s"] - phase["start_s"]) / duration_s if duration_s else 1.0,
        }
        for index, phase in enumerate(said.get("phases", []))
    ]
    return call, phases, finished


def _is_newer(stopped: Event, last: Event | None) -> bool:
    """Whether why a run stopped is still why a recording is not done: a later run may have begun it."""
    return last is None or (last.get("term", 0), last["at"]) <= (stopped["term"], stopped["at"])


def read_day(tables: Folder, table: str, day: dt.date) -> pa.Table | None:
    """A day of a table, or None where it has no rows."""
    body = tables.get(object_name(table, day))
    return None if body is None else _read(io.BytesIO(body), table)


def read_rows(tables: Folder | Path, table: str, day: dt.date) -> list[dict[str, Any]]:
    """A day of a table as dicts; ``tables`` is ``output.tables``, or a local folder with a copy of it."""
    if isinstance(tables, Folder):
        read = read_day(tables, table, day)
        return [] if read is None else read.to_pylist()
    path = tables / object_name(table, day)
    return _read(path, table).to_pylist() if path.is_file() else []


def _read(source: io.BytesIO | Path, table: str) -> pa.Table:
    # Without threads: a day is small, and a process that ends while Arrow still starts its threads is aborted.
    return pq.read_table(source, schema=SCHEMAS[table], partitioning=None, use_threads=False)


def object_name(table: str, day: dt.date) -> str:
    """Where a day of a table lies below ``output.tables``."""
    return f"{table}/dt={day}/{table}.parquet"


SCHEMAS = {"calls": CALLS, "phases": PHASES}


def _holds(row: dict[str, Any], recording: Recording) -> bool:
    return bool(row["recording_etag"] == recording.etag and row["status"] != "failed")


def _joined(schema: pa.Schema, new: Iterable[dict[str, Any]], old: pa.Table | None, stay: set[str]) -> pa.Table:
    table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in new], schema=schema)
    if old is None or not stay:
        return table
    return pa.concat_tables([table, old.filter(pc.is_in(old["call_id"], pa.array(sorted(stay))))])


def _replace(tables: Folder, name: str, day: dt.date, table: pa.Table, order: Sequence[str]) -> None:
    if table.num_rows == 0:
        tables.delete(object_name(name, day))
        return
    buffer = io.BytesIO()
    rows = pc.sort_indices(table, sort_keys=[(column, "ascending") for column in order])
    pq.write_table(table.take(rows), buffer, compression="zstd")
    tables.put(object_name(name, day), buffer.getvalue(), "application/vnd.apache.parquet")
