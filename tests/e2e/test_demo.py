"""Tests of the demo's real processes (Airflow's scheduler, an S3 server, speechbox on real audio) and of their tables.

The tests share one home folder and run in order: `make demo` on both days; `make up`, with a nightly run of new calls
and a backfill of the days that are done; and `make demo` again, which has nothing left to transcribe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
TRUTH = ROOT / "include" / "samples" / "truth"
DAG_ID, DAYS = "call_phases_demo", ("2026-11-19", "2026-11-20")
LONGEST_RUN_S = 400
STEP_S = 0.05


@dataclass
class Demo:
    """The demo with its own home folder."""

    home: Path

    @property
    def tables(self) -> Path:
        return self.home / "warehouse" / "call_phases" / "demo"

    def make(self, what: str) -> str:
        environment = {**os.environ, "CALLPHASES_HOME": str(self.home)}
        done = subprocess.run(
            [sys.executable, "-m", "demo", what], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        logs = (
            "".join(path.read_text()[-3000:] for path in (self.home / "logs").glob("*.log")) if done.returncode else ""
        )
        assert done.returncode == 0, done.stdout + done.stderr + logs
        return done.stdout

    def airflow(self, *arguments: str) -> None:
        lines = (self.home / "up.env").read_text().splitlines()
        up = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **up, "PATH": path}
        done = subprocess.run(
            ["airflow", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def ask(self, path: str) -> Any:
        """The answer of Airflow's API about the Dag."""
        port = re.search(r"AIRFLOW__API__PORT=(\d+)", (self.home / "up.env").read_text())
        assert port is not None
        answer = requests.get(f"http://127.0.0.1:{port[1]}/api/v2/dags/{DAG_ID}/{path}", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def from_database(self, sql: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.home / "airflow" / "airflow.db", timeout=60)) as database:
            return database.execute(sql).fetchall()

    def backfill_states(self) -> list[str]:
        return [state for (state,) in self.from_database("select state from dag_run where run_type = 'backfill'")]

    def backfill(self, *options: str) -> None:
        """Create a backfill of both days and wait until Airflow has completed it."""
        self.airflow("backfill", "create", "--dag-id", DAG_ID, "--from-date", DAYS[0], "--to-date", DAYS[1], *options)
        give_up = time.monotonic() + LONGEST_RUN_S
        while self.from_database("select id from backfill where completed_at is null"):
            assert time.monotonic() < give_up, self.backfill_states()
            time.sleep(2)

    def bytes_of_tables(self) -> dict[str, str]:
        files = sorted(self.tables.rglob("*.parquet"))
        return {str(path.relative_to(self.tables)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def query(self, sql: str) -> list[Any]:
        return duckdb.sql(
            sql.format(phases=f"'{self.tables}/phases/*/*.parquet'", calls=f"'{self.tables}/calls/*/*.parquet'")
        ).fetchall()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("demo"))
    yield demo
    demo.make("down")


def test_demo_publishes_both_days_and_draws_them(demo: Demo) -> None:
    shown = demo.make("run")
    for day, count in zip(DAYS, (6, 7), strict=True):
        assert f"{day}: {count} recordings listed; {count} to do, 0 left" in shown
    assert "Next:" in shown
    assert (demo.home / "phases.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(demo.bytes_of_tables()) == [
        f"{table}/dt={day}/{table}.parquet" for table in ("calls", "phases") for day in DAYS
    ]


def test_up_shows_a_nightly_run_whose_tasks_name_their_calls(demo: Demo) -> None:
    shown = demo.make("up")
    run = shown.partition("/runs/")[2].split()[0]
    give_up = time.monotonic() + LONGEST_RUN_S
    while (state := demo.ask(f"dagRuns/{run}")["state"]) not in ("success", "failed"):
        assert time.monotonic() < give_up, state
        time.sleep(2)
    tasks = demo.ask(f"dagRuns/{run}/taskInstances")["task_instances"]
    states = {(task["task_id"], task["rendered_map_index"]): task["state"] for task in tasks}
    calls = sorted(path.name for path in (ROOT / "include/samples/audio" / DAYS[0].replace("-", "/")).iterdir())
    chunk = f"{calls[0]} and {len(calls) - 1} more"
    mapped = [("calls.transcribe", f"{chunk}: 5 transcribed, 1 without speech"), ("calls.segment", chunk)]
    assert states == dict.fromkeys([("list", None), *mapped, ("publish", None), ("verify", None)], "success")


def test_backfill_of_days_that_are_done_changes_no_byte(demo: Demo) -> None:
    before = demo.bytes_of_tables()
    demo.backfill()
    assert demo.backfill_states() == ["success", "success"]
    demo.backfill("--reprocess-behavior", "completed")
    assert demo.backfill_states() == ["success", "success"]
    demo.make("down")
    after = demo.bytes_of_tables()
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2  # the nightly run's


def test_every_recording_has_one_row_with_its_status(demo: Demo) -> None:
    rows = demo.query("select recording_uri, status from {calls}")
    assert {uri.rsplit("/", 1)[1]: status for uri, status in rows} == {
        Path(truth["recording"]).name: "completed" if truth["cues"] else "no_speech" for truth in truths()
    }


def test_each_timeline_covers_the_call_without_gap_or_overlap(demo: Demo) -> None:
    broken = demo.query("""
        with edges as (
            select call_id, start_s, end_s, phase_index,
                lag(end_s, 1, 0.0) over (partition by call_id order by phase_index) as before_s,
                row_number() over (partition by call_id order by phase_index) - 1 as place
            from {phases})
        select * from edges where start_s <> before_s or end_s <= start_s or place <> phase_index
    """)
    assert broken == []
    ends = demo.query(
        "select max(end_s) - any_value(c.duration_s) from {phases} p join {calls} c using (call_id) group by call_id"
    )
    assert all(end == 0 for (end,) in ends)


def test_phases_match_the_scripts_for_85_percent_of_the_time(demo: Demo) -> None:
    rows = demo.query("select recording_uri, phase_name, start_s, end_s from {phases}")
    right = total = 0
    for truth in truths():
        spans = [(name, start, end) for uri, name, start, end in rows if uri.endswith(truth["recording"])]
        wanted = truth_spans(truth)
        if not wanted:
            continue
        for step in range(int(truth["duration_s"] / STEP_S)):
            moment = (step + 0.5) * STEP_S
            total += 1
            right += name_at(spans, moment) == name_at(wanted, moment)
    assert right / total >= 0.85


def test_second_demo_transcribes_nothing_again(demo: Demo) -> None:
    before = demo.bytes_of_tables()
    shown = demo.make("run")
    for day, count in zip(DAYS, (6, 7), strict=True):
        assert f"{day}: {count} recordings listed; 0 to do, {count} left" in shown
    assert demo.bytes_of_tables() == before


def truths() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(TRUTH.glob("*.json"))]


def truth_spans(truth: dict[str, Any]) -> list[tuple[str, float, float]]:
    starts = [(phase["name"], truth["cues"][phase["start_cue"] - 1]["start_s"]) for phase in truth["phases"]]
    ends = [start for _, start in starts[1:]] + [truth["duration_s"]] * bool(starts)
    return [
        (name, start if index else 0.0, end)
        for index, ((name, start), end) in enumerate(zip(starts, ends, strict=True))
    ]


def name_at(spans: list[tuple[str, float, float]], moment: float) -> str | None:
    return next((name for name, start, end in spans if start <= moment < end), None)
