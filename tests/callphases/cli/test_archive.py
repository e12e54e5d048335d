"""``callphases archive``: the calendar, in a terminal, in a file and as JSON."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from callphases.state.summaries import DaySummary, record
from commands import Run
from doubles import Store

NIGHT = dt.datetime(2026, 11, 21, 2, tzinfo=dt.UTC)


def published(day: dt.date, **changes: object) -> DaySummary:
    values = {
        "published_at": NIGHT,
        "run_id": f"backfill__{day}",
        "listed": 2,
        "kept": 0,
        "statuses": {"completed": 2},
        "failures": {},
        "unfinished": 0,
        "audio_s": 120.0,
        "speech_usd": 0.30,
        "llm_usd": 0.10,
    }
    return DaySummary(day=day, **{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.integration
def test_archive_shows_a_calendar_what_was_paid_and_what_helps(run: Run, aws: Store, pipeline_file: Path) -> None:
    for number in range(1, 6):
        for name in "ab":
            aws.put(f"calls/2026-11-0{number}/{name}.mp3")
    aws.put("calls/2026-11-03/c.mp3")
    record(
        aws.state,
        [
            published(dt.date(2026, 11, 1)),
            published(dt.date(2026, 11, 2), statuses={"completed": 1, "failed": 1}, failures={"provider_error": 1}),
            published(dt.date(2026, 11, 3)),
        ],
    )
    code, out, err = run("archive", pipeline_file, "--from", "2026-11-01", "--to", "2026-11-06")
    assert (code, err) == (1, "")
    assert "2026-11 DFLTT.  " in out
    code, out, _ = run("archive", pipeline_file, "--from", "2026-11-01", "--to", "2026-11-06", "--format", "json")
    found = json.loads(out)
    assert [day["state"] for day in found["days"]] == ["done", "failed", "late", "to_do", "to_do", "empty"]
