"""What operators see of runs that Airflow's scheduler and Dag processor run: notes, and messages of failed runs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from night import CALL, CHAT
from receivers import Slack, serving
from servers import KEY, remove, running, s3_client

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
DAG_ID = "call_phases_night"
PLUGIN = "from callphases.airflow.plugin import CallphasesPlugin  # noqa: F401\n"


@dataclass
class Scheduler:
    """A running Airflow with one pipeline."""

    home: Path
    environment: dict[str, str]
    slack: Slack

    def airflow(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments], env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rows(self, query: str, *values: Any) -> list[Any]:
        with sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True, timeout=30) as database:
            return database.execute(query, values).fetchall()

    def notes(self) -> dict[str, tuple[str, str | None]]:
        """State and note of each run, by its id."""
        found = self.rows(
            "SELECT run_id, state, content FROM dag_run LEFT JOIN dag_run_note ON dag_run_id = dag_run.id"
            " WHERE dag_id = ?",
            DAG_ID,
        )
        return {run_id: (state, note) for run_id, state, note in found}

    def wait(self, what: str, found: Callable[[], Any], timeout_s: float = 240) -> Any:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                if result := found():
                    return result
            except sqlite3.OperationalError:
                pass  # there is no database yet
            time.sleep(0.5)
        logs = [path.read_text(errors="replace")[-3000:] for path in self.home.rglob("*.log")]
        raise AssertionError("\n".join([f"{what} after {timeout_s} s", *logs]))

    def run(self, run_id: str, **conf: str) -> tuple[str, str | None]:
        self.airflow("dags", "trigger", DAG_ID, "--run-id", run_id, "--conf", json.dumps(conf))
        return self.ended(run_id)

    def ended(self, run_id: str) -> tuple[str, str | None]:
        """State and note of a run once it has ended."""
        ends = ("success", "failed")
        return self.wait(f"{run_id} runs", lambda: (now := self.notes().get(run_id)) and now[0] in ends and now)


@pytest.fixture(scope="module")
def scheduler(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    home = tmp_path_factory.mktemp("airflow")
    s3 = s3_client(s3_url)
    for bucket in ("recordings", "warehouse"):
        s3.create_bucket(Bucket=bucket)
    for day in ("2026-11-19", "2026-11-20", "2026-11-21"):
        for name in ("good", "broken"):
            s3.put_object(Bucket="recordings", Key=f"calls/{day}/{name}.wav", Body=b"RIFF")
    script = {
        "fetch": True,
        "files": [{"match": "*/broken*", "error": "Transcoding failed."}],
        "default": {"sentences": CALL, "audio_duration_s": 12},
        "chat": CHAT,
    }
    (home / "script.yaml").write_text(yaml.safe_dump(script))
    (home / "plugins").mkdir()
    (home / "plugins" / "callphases_plugin.py").write_text(PLUGIN)
    (home / "pipelines").mkdir()
    document = {
        "pipeline": "night",
        "recordings": {"bucket": "recordings", "prefix": "calls/{date:%Y-%m-%d}/", "look_back_days": 0},
        "output": {"tables": "s3://warehouse/tables/", "state": "s3://warehouse/state/"},
        "limits": {"max_failed_ratio": 0.1, "ramp": False},
        "notify": {"failed_night": "hook", "channels": {"hook": {"slack_webhook_conn_id": "hook"}}},
    }
    (home / "pipelines" / "night.yaml").write_text(yaml.safe_dump(document))
    with (
        serving(slack := Slack()),
        running(home / "box", "--engine", "scripted", "--script", str(home / "script.yaml")) as box,
    ):
        aws = {
            "conn_type": "aws",
            "login": "x",
            "password": "x",
            "extra": {"endpoint_url": s3_url, "region_name": "us-east-1"},
        }
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__PORT": (port := _free_port()),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
            "AIRFLOW_CONN_ASSEMBLYAI_DEFAULT": json.dumps(
                {"conn_type": "assemblyai", "host": box.url, "password": KEY}
            ),
            "AIRFLOW_CONN_HOOK": slack.webhook_connection(),
            "CALLPHASES_PIPELINES": str(home / "pipelines"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # standalone starts ``airflow``
            "PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        with (home / "standalone.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "standalone"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        found = Scheduler(home, environment, slack)
        try:
            found.wait("no Dag", lambda: found.rows("SELECT 1 FROM dag WHERE dag_id = ?", DAG_ID))
            found.airflow("dags", "unpause", DAG_ID)
            yield found
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                with_left = subprocess.run(["pkill", "-9", "-s", str(process.pid)])
                assert with_left.returncode in (0, 1)
    for bucket in ("recordings", "warehouse"):
        remove(s3, bucket)


def _free_port() -> str:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def test_failed_night_is_told_once_with_counts_and_remedy(scheduler: Scheduler) -> None:
    state, note = scheduler.run("bad", date="2026-11-20")
    assert state == "failed"
    assert note is not None
    assert note.startswith("2026-11-20: 2 listed = 1 completed + 1 failed (1 bad_audio). $")
    [text] = scheduler.wait("no message", lambda: scheduler.slack.texts)
    assert note in text
    assert "1 bad_audio: fix the recording; it is processed again when its bytes change." in text
    assert 'airflow dags trigger call_phases_night --conf \'{"date": "2026-11-20"}\'' in text
    assert text.endswith("Dag call_phases_night, run bad.")


def test_run_whose_list_fails_is_told_once_with_the_setting(scheduler: Scheduler) -> None:
    scheduler.slack.messages.clear()
    state, note = scheduler.run("later", date="2999-01-01")
    assert (state, note) == (
        "failed",
        "2999-01-01: not published. 2999-01-01 has not begun in UTC: run the day once it is over.",
    )
    [text] = scheduler.wait("no message", lambda: scheduler.slack.texts)
    assert note in text


def test_runs_of_a_backfill_are_noted_with_the_day_of_their_calls_and_tell_nobody(scheduler: Scheduler) -> None:
    scheduler.slack.messages.clear()
    begin, end = "2026-11-19T00:00:00+00:00", "2026-11-19T00:00:00+00:00"
    scheduler.airflow("backfill", "create", "--dag-id", DAG_ID, "--from-date", begin, "--to-date", end)
    [run_id] = scheduler.wait("no run", lambda: [one for one in scheduler.notes() if one.startswith("backfill__")])
    scheduler.wait("no note", lambda: scheduler.notes()[run_id][1])
    state, note = scheduler.ended(run_id)
    assert state == "failed"
    assert note is not None
    assert note.startswith("2026-11-19: 2 listed = 1 completed + 1 failed")
    time.sleep(10)  # longer than the messages of the other tests take
    assert scheduler.slack.texts == []
