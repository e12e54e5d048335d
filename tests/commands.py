"""Runs of commands, and what they are given: rows of published days, a day with failures, labeled calls."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from callphases.cli import main
from callphases.errors import BadAudio, DownloadRefused
from callphases.state.events import Transcribed, failed
from callphases.state.keys import transcript_key
from callphases.tables.reading import read_rows
from doubles import DAY, NOON, Store

Run = Callable[..., tuple[int, str, str]]
"""``callphases …``: its exit code, output and errors."""


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *first: str) -> Run:
    """Runs ``callphases``, with ``first`` as its first arguments."""
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it caches the credentials of the previous test

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["callphases", *first, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def parquet(schema: Any, *rows: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    empty = dict.fromkeys(schema.names)
    pq.write_table(pa.Table.from_pylist([empty | row for row in rows], schema=schema), buffer)
    return buffer.getvalue()


def call(name: str, **changes: Any) -> dict[str, Any]:
    row = {"call_id": name, "recording_uri": f"s3://recordings/calls/{name}", "call_started_at": NOON}
    return {**row, "status": "completed", "duration_s": 75.0, **changes}


def phase(name: str, index: int, phase_name: str, start_s: float, end_s: float, summary: str = "") -> dict[str, Any]:
    return {
        "call_id": name,
        "phase_index": index,
        "phase_name": phase_name,
        "start_s": start_s,
        "end_s": end_s,
        "duration_s": end_s - start_s,
        "summary": summary or f"{phase_name} happens.",
    }


def bad_day(aws: Store) -> None:
    """Recordings: one failed permanently, one failed temporarily, one done, and one new."""
    for name, failure in (("broken", BadAudio("No audio.")), ("far", DownloadRefused("No way."))):
        recording = aws.put(f"calls/2026-11-20/{name}.mp3")
        aws.knows(failed(transcript_key(recording, aws.pipeline().transcription), failure, recording.key))
    silent = aws.put("calls/2026-11-20/silent.mp3")
    key = transcript_key(silent, aws.pipeline().transcription)
    aws.knows(Transcribed(key=key, recording=silent.key, status="no_speech", transcript_id="t", audio_s=3.0))
    aws.put("calls/2026-11-20/new.mp3")


def statuses(aws: Store) -> dict[str, str]:
    return {
        row["recording_uri"].rsplit("/", 1)[-1]: row["failure_class"] or row["status"]
        for row in read_rows(aws.tables, "calls", DAY)
    }


def labelled_call(folder: Path, name: str = "a") -> Path:
    cues = [
        {"cue": 1, "speaker": "agent", "start_s": 0.5, "end_s": 9, "text": "Thank you for calling."},
        {"cue": 2, "speaker": "caller", "start_s": 10, "end_s": 100, "text": "It is broken."},
    ]
    phases = [{"name": "Introduction", "start_cue": 1}, {"name": "Complaint", "start_cue": 2}]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"call_id": name, "cues": cues, "phases": phases}))
    return folder


def predicted_rows(name: str, edge_s: float) -> list[dict[str, Any]]:
    shared = {"call_id": f"id of {name}", "recording_uri": f"s3://recordings/calls/{name}.mp3"}
    return [
        {**shared, "phase_index": 0, "phase_name": "Introduction", "start_s": 0.0, "end_s": edge_s},
        {**shared, "phase_index": 1, "phase_name": "Complaint", "start_s": edge_s, "end_s": 100.4},
    ]
