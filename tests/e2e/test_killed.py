"""Tests of runs that are killed with SIGKILL at each step and rerun: recordings are paid for once, no row is missing.

Each step has a day of its own, and all days run in parallel, because a run that takes over the day of a dead one first
waits for a minute.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from night import CALL, CHAT, TRUTH
from servers import KEY, Box, remove, running, s3_client

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[1] / "one_night.py"
CALLS = 21
"""Of each day."""
CHUNK = "PutObject state/ledger/.*/chunk-.*"
STEPS = {
    "2026-11-01": ("before the claim", "PutObject state/ledger/.*/lease.json", "before", 1),
    "2026-11-02": ("after the claim", "PutObject state/ledger/.*/lease.json", "after", 1),
    "2026-11-03": ("between an intent and its POST", CHUNK, "after", 1),
    "2026-11-04": ("after a POST", "POST /v2/transcript", "after", 8),
    "2026-11-05": ("after the last POST", "POST /v2/transcript", "after", CALLS),
    "2026-11-06": ("between an id and its being saved", CHUNK, "before", 2),
    "2026-11-07": ("while waiting", "GET /v2/transcript", "after", 1),
    "2026-11-08": ("while collecting", "PutObject state/transcripts/.*json", "after", 7),
    "2026-11-09": ("while segmenting", "POST /v1/chat/completions", "after", 2),
    "2026-11-10": ("while publishing", "PutObject tables/calls/.*", "before", 1),
    "2026-11-11": ("between the two tables", "PutObject tables/calls/.*", "after", 1),
}
LONGEST_S = 240


@dataclass
class Nights:
    """A bucket with calls on several days, and the processes that run these days."""

    s3: Any
    s3_url: str
    box: Box
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, day: str, kill: dict[str, Any] | None = None, run_id: str = "run") -> subprocess.Popen[bytes]:
        told = {
            "s3_url": self.s3_url,
            "speech_url": self.box.url,
            "key": KEY,
            "day": day,
            "run_id": run_id,
            "kill": kill,
            "pipeline": {
                "pipeline": "night",
                "recordings": {"bucket": "recordings", "prefix": "calls/{date:%Y-%m-%d}/"},
                "limits": {"llm_requests_per_minute": 6000},  # high enough that no test waits for a minute to pass
                "output": {"tables": "s3://warehouse/tables/", "state": "s3://warehouse/state/"},
            },
        }
        process = subprocess.Popen([sys.executable, str(SCRIPT), json.dumps(told)])
        self.started.append(process)
        return process

    def paid(self) -> Counter[str]:
        """How often each recording was transcribed, by its key without the prefix."""
        urls = (job["audio_url"] for job in self.box.jobs())
        return Counter(url.partition("?")[0].partition("calls/")[2] for url in urls)

    def rows(self, table: str, day: str) -> list[dict[str, Any]]:
        body = self.s3.get_object(Bucket="warehouse", Key=f"tables/{table}/dt={day}/{table}.parquet")["Body"].read()
        return pq.read_table(io.BytesIO(body)).to_pylist()


@pytest.fixture
def nights(s3_url: str, tmp_path: Path) -> Iterator[Nights]:
    s3 = s3_client(s3_url)
    for bucket in ("recordings", "warehouse"):
        s3.create_bucket(Bucket=bucket)
    for day in STEPS:
        for number in range(CALLS):
            s3.put_object(Bucket="recordings", Key=f"calls/{day}/{number}.wav", Body=b"RIFF")
    script = tmp_path / "script.yaml"
    answers = {"fetch": True, "latency_s": 1, "default": {"sentences": CALL, "audio_duration_s": 12}, "chat": CHAT}
    script.write_text(yaml.safe_dump(answers))
    with running(tmp_path / "box", "--engine", "scripted", "--script", str(script)) as box:
        nights = Nights(s3, s3_url, box)
        yield nights
        for process in nights.started:
            process.kill()
            process.wait()
    for bucket in ("recordings", "warehouse"):
        remove(s3, bucket)


def test_run_killed_at_any_step_and_rerun_pays_once_and_completes(nights: Nights) -> None:
    killed = [
        nights.start(day, {"request": request, "when": when, "nth": nth})
        for day, (_, request, when, nth) in STEPS.items()
    ]
    assert [process.wait(LONGEST_S) for process in killed] == [-signal.SIGKILL] * len(STEPS)
    again = [nights.start(day, run_id="again") for day in STEPS]
    assert [process.wait(LONGEST_S) for process in again] == [0] * len(STEPS)
    paid = nights.paid()
    assert {day: [paid[f"{day}/{number}.wav"] for number in range(CALLS)] for day in STEPS} == {
        day: [1] * CALLS for day in STEPS
    }
    for day in STEPS:
        assert [row["status"] for row in nights.rows("calls", day)] == ["completed"] * CALLS
        phases = [(row["phase_name"], row["start_s"], row["end_s"]) for row in nights.rows("phases", day)]
        assert phases == TRUTH * CALLS


def test_two_runs_of_a_day_at_the_same_time_pay_once(nights: Nights) -> None:
    days = list(STEPS)[:3]
    both = [nights.start(day, run_id=run_id) for run_id in ("one", "two") for day in days]
    assert [process.wait(LONGEST_S) for process in both] == [0] * len(both)
    paid = nights.paid()
    assert {day: [paid[f"{day}/{number}.wav"] for number in range(CALLS)] for day in days} == {
        day: [1] * CALLS for day in days
    }
    health = nights.box.get("/health").json()
    assert health["questions_calls"] == len(days) * CALLS
