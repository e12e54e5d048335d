"""Tests of runs over several days that are killed with SIGKILL at each step, and finished by other runs.

Each step has a pipeline of its own, and all run in parallel. A lease lives for some seconds only, so that a run that
takes over from a dead one need not wait for a minute.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from callphases.state.ledger import read_ledger_day
from callphases.state.storage import ObjectPrefix
from callphases.state.summaries import read_summaries
from night import CALL, CHAT, TRUTH
from servers import KEY, Box, remove, running, s3_client

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[1] / "one_night.py"
DAYS = ["2026-10-31", "2026-11-01", "2026-11-02"]
RANGE, LONGER = f"{DAYS[0]}/{DAYS[-1]}", f"2026-10-30/{DAYS[-1]}"
CALLS, LEAST_CALLS = 4, 6
"""Recordings a day, and of a chunk: two chunks, each of two days."""
LEASE_S = 9.0
CHUNK, CLAIM = "PutObject .*/ledger/days=.*/chunk-.*", "PutObject .*/ledger/dt=.*/lease.json"
STEPS = [
    ("before the lease", "PutObject .*/ledger/days=.*/lease.json", "before", 1),
    ("before the claims", "PutObject .*/ledger/days=.*/lease.json", "after", 1),
    ("between the claims of two days", CLAIM, "after", 2),
    ("between two manifests", "PutObject .*/runs/days=.*/chunk-.*", "after", 1),
    ("between an intent and its POST", CHUNK, "after", 1),
    ("after a POST of the first day", "POST /v2/transcript", "after", 2),
    ("after a POST of the second chunk", "POST /v2/transcript", "after", 8),
    ("between an id and its being saved", CHUNK, "before", 2),
    ("while collecting", "PutObject .*/transcripts/.*json", "after", 3),
    ("while segmenting", "POST /v1/chat/completions", "after", 1),
    ("between the two tables of a day", "PutObject .*/calls/.*parquet", "after", 1),
    ("between two days", "PutObject .*/calls/.*parquet", "before", 2),
    ("while events are given back", "PutObject .*/ledger/dt=.*/range.*", "after", 2),
    ("while days are given up", CLAIM, "after", len(DAYS) + 1),
]
FINISHERS = [[RANGE], [DAYS[1], RANGE], [LONGER]]
"""Runs that come after the killed one, at the same time: over the same days, also one of a single day, or over more."""
LONGEST_S = 240


@dataclass
class Archives:
    """A bucket with the calls of each pipeline, and the processes of runs."""

    s3: Any
    s3_url: str
    box: Box

    def run(self, *runs: dict[str, Any]) -> list[int]:
        """Run them at the same time, each in a process of its own; returns the exit codes."""
        done = subprocess.run(
            [sys.executable, str(SCRIPT), json.dumps(runs)], stdout=subprocess.PIPE, timeout=LONGEST_S, check=True
        )
        return list(json.loads(done.stdout))

    def of(self, name: str, span: str, run_id: str, kill: dict[str, Any] | None = None) -> dict[str, Any]:
        """A run of a pipeline."""
        return {
            "s3_url": self.s3_url,
            "speech_url": self.box.url,
            "key": KEY,
            "day": span,
            "run_id": run_id,
            "kill": kill,
            "lease_s": LEASE_S,
            "least_calls": LEAST_CALLS,
            "pipeline": {
                "pipeline": "night",
                "recordings": {"bucket": "recordings", "prefix": f"{name}/{{date:%Y-%m-%d}}/"},
                "limits": {"llm_requests_per_minute": 6000, "ramp": False},
                "output": {"tables": f"s3://warehouse/{name}/tables/", "state": f"s3://warehouse/{name}/state/"},
            },
        }

    def paid(self) -> Counter[str]:
        """How often each recording was transcribed, by its key."""
        urls = (job["audio_url"] for job in self.box.jobs())
        return Counter(url.partition("?")[0].partition("recordings/")[2] for url in urls)

    def rows(self, name: str, table: str, day: str) -> list[dict[str, Any]]:
        key = f"{name}/tables/{table}/dt={day}/{table}.parquet"
        return pq.read_table(io.BytesIO(self.s3.get_object(Bucket="warehouse", Key=key)["Body"].read())).to_pylist()

    def state(self, name: str) -> ObjectPrefix:
        return ObjectPrefix(self.s3, f"s3://warehouse/{name}/state/", "output.state")


@pytest.fixture
def archives(s3_url: str, tmp_path: Path) -> Iterator[Archives]:
    s3 = s3_client(s3_url)
    for bucket in ("recordings", "warehouse"):
        s3.create_bucket(Bucket=bucket)
    for step in range(len(STEPS)):
        for key in keys(step):
            s3.put_object(Bucket="recordings", Key=key, Body=b"RIFF")
    script = tmp_path / "script.yaml"
    answers = {"fetch": True, "latency_s": 1, "default": {"sentences": CALL, "audio_duration_s": 12}, "chat": CHAT}
    script.write_text(yaml.safe_dump(answers))
    with running(tmp_path / "box", "--engine", "scripted", "--script", str(script)) as box:
        yield Archives(s3, s3_url, box)
    for bucket in ("recordings", "warehouse"):
        remove(s3, bucket)


def keys(step: int) -> list[str]:
    return [f"{step:02}/{day}/{number}.wav" for day in DAYS for number in range(CALLS)]


def test_range_run_killed_at_any_step_and_finished_by_others_pays_once_and_publishes_each_day(
    archives: Archives,
) -> None:
    killed = [
        archives.of(f"{step:02}", RANGE, "archive__1", {"request": request, "when": when, "nth": nth})
        for step, (_, request, when, nth) in enumerate(STEPS)
    ]
    assert archives.run(*killed) == [-signal.SIGKILL] * len(STEPS)
    after = [
        archives.of(f"{step:02}", span, f"run-{number}")
        for step in range(len(STEPS))
        for number, span in enumerate(FINISHERS[step % len(FINISHERS)])
    ]
    assert archives.run(*after) == [0] * len(after)
    paid = archives.paid()
    every = [key for step in range(len(STEPS)) for key in keys(step)]
    assert {key: paid[key] for key in every} == dict.fromkeys(every, 1)
    assert sum(paid.values()) == len(every)
    for step, (name, *_) in enumerate(STEPS):
        for day in DAYS:
            assert [row["status"] for row in archives.rows(f"{step:02}", "calls", day)] == ["completed"] * CALLS, name
            phases = [
                (row["phase_name"], row["start_s"], row["end_s"]) for row in archives.rows(f"{step:02}", "phases", day)
            ]
            assert phases == TRUTH * CALLS, name
            state = archives.state(f"{step:02}")
            ledger = read_ledger_day(state, dt.date.fromisoformat(day))
            assert len({event.recording for event in ledger.all() if event.recording.endswith(".wav")}) == CALLS, name
        summaries = read_summaries(state, *(dt.date.fromisoformat(day) for day in (DAYS[0], DAYS[-1])))
        assert [(one.statuses, one.is_done) for one in summaries.values()] == [({"completed": CALLS}, True)] * 3, name
    # An answer that had not been written when the run was killed is asked for again.
    asked = archives.box.get("/health").json()["questions_calls"]
    lost = asked - len(every)
    assert 0 <= lost <= sum(name == "while segmenting" for name, *_ in STEPS) * len(DAYS) * CALLS


def test_ranges_and_days_that_run_at_the_same_time_pay_once(archives: Archives) -> None:
    spans = [RANGE, LONGER, DAYS[1], f"{DAYS[1]}/{DAYS[2]}"]
    assert archives.run(*(archives.of("00", span, f"run-{number}") for number, span in enumerate(spans))) == [0] * 4
    assert archives.paid() == dict.fromkeys(keys(0), 1)
    assert archives.box.get("/health").json()["questions_calls"] == len(keys(0))
    for day in DAYS:
        assert [row["status"] for row in archives.rows("00", "calls", day)] == ["completed"] * CALLS
