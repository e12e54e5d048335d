"""Publishes a month of both tables with the production code, and keeps the rows for comparison."""

from __future__ import annotations

import datetime as dt
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from callphases.state import layout
from callphases.state.manifests import DayList
from callphases.tables.parts import part_schema
from callphases.tables.publishing import publish
from callphases.tables.schema import CALLS, PHASES, SCHEMA_VERSION, SCHEMAS, object_name
from doubles import LONG_AGO, pipeline

Row = dict[str, Any]

FIRST_DAY = dt.date(2026, 10, 25)
DAYS = [FIRST_DAY + dt.timedelta(number) for number in range(30)]
OF_VERSION_1 = DAYS[:12]
EMPTY = DAYS[15]
REPLACED_TWICE = DAYS[20]
AGAIN = DAYS[4]
"""Published by version 1, then by the current version after half of the recordings were deleted; their rows stay."""
OF_VERSION_2 = DAYS[12:14]
LAST_OF_VERSION_1 = "processed_at"
LAST_OF_VERSION_2 = "confidence"
ODD_TEXTS = [
    "She said \"it's 'fine'\"; DROP TABLE calls; --",
    "two\nlines,\r\na tab\tand a \\n that is none",
    "📞 café, naïve, 日本語, \u202eright to left, e\u0301",
    "ß" * 32_768,  # 64 KB
    "",
    "NULL",
]


@dataclass(frozen=True)
class Directory:
    """A local folder with the interface of ``ObjectPrefix``. Deleting an object also deletes its directory."""

    root: Path

    def uri_of(self, name: str) -> str:
        return f"{self.root}/{name}"

    def get(self, name: str) -> bytes | None:
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def fetch(self, name: str, path: Path) -> bool:
        body = self.get(name)
        if body is not None:
            path.write_bytes(body)
        return body is not None

    def put(self, name: str, body: bytes, content_type: str = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    def put_file(self, name: str, path: Path, content_type: str = "") -> None:
        self.put(name, path.read_bytes())

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)
        (self.root / name).parent.rmdir()


@dataclass
class Month:
    """The tables' location, and their rows, each with its ``dt``, in the order of the files."""

    tables: Path
    calls: list[Row] = field(default_factory=list)
    phases: list[Row] = field(default_factory=list)

    def rows(self, table: str) -> list[Row]:
        return self.calls if table == "calls" else self.phases

    def add(self, day: dt.date, calls: list[Row]) -> None:
        for call in sorted(calls, key=lambda row: str(row["call_id"])):
            self.calls.append({"dt": day, **{name: call.get(name) for name in CALLS.names}})
            self.phases += [
                {"dt": day, **{name: {**call, **phase}.get(name) for name in PHASES.names}} for phase in call["phases"]
            ]


def make(folder: Path, calls_a_day: int) -> Month:
    """Publish a month below ``folder``: three schema versions, an empty day, a day replaced twice, odd texts."""
    month = Month(folder / "tables")
    tables, state = Directory(month.tables), Directory(folder / "state")
    for day in DAYS:
        calls = calls_of(day, calls_a_day)
        if day in (*OF_VERSION_1, *OF_VERSION_2):
            version, last = (1, LAST_OF_VERSION_1) if day in OF_VERSION_1 else (2, LAST_OF_VERSION_2)
            calls = [as_version(version, last, call) for call in calls]
            _write_up_to(last, tables, day, calls)
        else:
            publish_day(tables, state, day, calls)
        if day == EMPTY:
            publish_day(tables, state, day, [], when_deleted="drop")
            calls = []
        if day == REPLACED_TWICE:
            publish_day(tables, state, day, calls_of(day, calls_a_day // 2, "run-2"), when_deleted="drop")
            calls = calls_of(day, calls_a_day, "run-3")
            publish_day(tables, state, day, calls)
        if day == AGAIN:
            new = calls_of(day, calls_a_day, "run-2")[::2]
            publish_day(tables, state, day, new)
            calls = [*new, *calls[1::2]]
        month.add(day, calls)
    return month


def publish_day(tables: Any, state: Any, day: dt.date, calls: list[Row], when_deleted: str = "keep") -> None:
    """Publish a day as a run with a single part that has ``calls``."""
    buffer = io.BytesIO()
    with ipc.new_file(buffer, part_schema(pipeline())) as file:
        own = {"finished": True, "run_speech_usd": 0.0, "run_llm_usd": 0.0}
        file.write_table(pa.Table.from_pylist([{**call, **own} for call in calls], schema=part_schema(pipeline())))
    state.put(layout.part(day, "run-1", layout.part_name(layout.CHUNK, 0)), buffer.getvalue())
    listed = DayList(day, "run-1", "run-1", fencing_token=1, listed_at=LONG_AGO, listed=len(calls), chunks=1, rest=0)
    publish(tables, state, pipeline(recordings={"when_deleted": when_deleted}), listed, lambda _: [])


def as_version(version: int, last: str, call: Row) -> Row:
    """The call as in an earlier version of the tables, without the columns added after its ``last``."""

    def cut(row: Row, table: str) -> Row:
        later = SCHEMAS[table].names[SCHEMAS[table].names.index(last) + 1 :]
        return {name: value for name, value in row.items() if name not in later}

    phases = [cut(phase, "phases") for phase in call["phases"]]
    return cut(call, "calls") | {"phases": phases, "schema_version": version}


def _write_up_to(last: str, tables: Directory, day: dt.date, calls: list[Row]) -> None:
    rows = Month(tables.root)
    rows.add(day, calls)
    for table, schema in SCHEMAS.items():
        first = pa.schema(list(schema)[: schema.names.index(last) + 1])
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows.rows(table), schema=first), buffer, compression="zstd")
        tables.put(object_name(table, day), buffer.getvalue())


def calls_of(day: dt.date, count: int, run_id: str = "run-1") -> list[Row]:
    """Generated calls of a day; the same arguments give the same calls."""
    rng = random.Random(f"{day} {run_id}")
    return [_call(rng, day, number, run_id) for number in range(count)]


def _call(rng: random.Random, day: dt.date, number: int, run_id: str) -> Row:
    midnight = dt.datetime.combine(day, dt.time(), dt.UTC)
    odd = ODD_TEXTS[number] if number < len(ODD_TEXTS) and day.day % 5 == 0 else None
    status = rng.choices(["completed", "no_speech", "failed"], [90, 5, 5])[0] if odd is None else "completed"
    phases = list(_phases(rng, odd)) if status == "completed" else []
    is_heard = status != "failed"
    call_id = f"{number:06d}" if odd is None else f"{number:06d} {odd[:40]}"
    return {
        "call_id": call_id,
        "recording_uri": f"s3://recordings/calls/{call_id}.mp3",
        "recording_etag": f"{rng.getrandbits(128):032x}",
        "recording_bytes": rng.randrange(1 << 40),
        "call_started_at": midnight + dt.timedelta(microseconds=int(rng.triangular(0, 86_399e6, 36_000e6))),
        "status": status,
        "failure_class": None if is_heard else rng.choice(["audio", "download", "refused"]),
        "failure_message": None if is_heard else "It failed: read the docs.",
        "duration_s": sum(phase["duration_s"] for phase in phases) if is_heard else None,
        "language": rng.choice(["en", "de", None]) if is_heard else None,
        "phase_count": len(phases) if is_heard else None,
        "transcript_id": f"t-{number}",
        "transcript_uri": f"s3://warehouse/state/{call_id}" if is_heard else None,
        "speech_model": rng.choice(["universal-2", "universal-3-5-pro"]) if is_heard else None,
        "llm_model": "claude-sonnet-4-6" if phases else None,
        "llm_input_tokens": rng.randrange(4000) if phases else None,
        "llm_output_tokens": rng.randrange(400) if phases else None,
        "speech_usd": rng.random() / 10 if is_heard else None,
        "llm_usd": rng.choice([rng.random() / 100, None]) if phases else None,
        "prompt_version": rng.choice(["1-abc", "1-def"]) if phases else None,
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "processed_at": midnight + dt.timedelta(days=1, microseconds=number),
        "speaker_1": "A" if phases else None,
        "speaker_2": rng.choice(["B", None]) if phases else None,
        "phases": phases,
        "warnings": rng.choice([None, None, "decoded 61.5 s of 90.0 s stated"]) if is_heard else None,
        **(_talk(rng, 60.0) if phases else {}),
    }


def _phases(rng: random.Random, odd: str | None) -> Iterator[Row]:
    names = ["Introduction", "Complaint", "Resolution"]
    if rng.random() < 0.2:
        names.insert(rng.randrange(3), "Other")
    names += ["Complaint", "Resolution"] * rng.choice([0, 0, 0, 1, 2])
    names += ["Goodbye"] * rng.choice([0, 1, 1, 1])
    if rng.random() < 0.1:
        names = [name for name in names if name != "Resolution"]
    start_s = 0.0
    lengths = [rng.expovariate(1 / 40) + 0.01 for _ in names]
    for index, (name, length_s) in enumerate(zip(names, lengths, strict=True)):
        yield {
            "phase_index": index,
            "phase_name": f"{name} {odd[:60]}" if odd and index == 1 else name,
            "start_s": start_s,
            "end_s": start_s + length_s,
            "duration_s": length_s,
            "share_of_call": length_s / sum(lengths),
            "start_cue": index * 3 + 1,
            "end_cue": index * 3 + 3,
            "word_count": rng.randrange(200),
            "summary": f"What was said in {name}." if odd is None else odd,
            **_talk(rng, length_s),
        }
        start_s += length_s


def _talk(rng: random.Random, length_s: float) -> Row:
    silence_s = rng.random() * length_s / 3
    return {
        "turn_count": rng.randrange(30),
        "silence_s": silence_s,
        "speaker_1_talk_s": length_s - silence_s,
        "speaker_1_talk_share": 1.0,
        "speaker_2_talk_s": rng.choice([None, 0.0]),
        "speaker_2_talk_share": None,
        "other_talk_s": 0.0,
        "interruption_count": rng.randrange(4),
        "words_per_minute": rng.choice([None, 150.0]),
        "confidence": rng.random(),
    }
