"""Tests of a user's installation with Airflow's real processes, on the Airflow of the environment.

``make test-airflows`` runs them on each supported minor version. The tests share one Airflow and run in order. Its Dags
folder is as ``callphases init`` writes it: a Dag file of three lines, and the pipelines beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests
import yaml

from callphases.airflow.api import PASSWORD, TOKEN, USERNAME
from callphases.airflow.api import airflow as api
from callphases.airflow.compat import HAS_DEADLINES
from callphases.errors import ConfigurationError
from callphases.starting.files import DAG, DAG_FILE
from night import CALL, CHAT
from receivers import Slack, serving
from servers import KEY, Box, running, s3_client

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DAG_ID = "call_phases_night"
CONSUMER = """\
from airflow.sdk import DAG, Asset, task

with DAG("consumer", schedule=[Asset("call_phases_night.phases")], is_paused_upon_creation=False):

    @task
    def read(triggering_asset_events=None):
        for events in triggering_asset_events.values():
            print([event.extra["dt"] for event in events])

    read()
"""
ALERTS = """\
import pathlib

async def page(message, context):
    pathlib.Path(__file__).with_name("alerts.txt").open("a").write(message + chr(10))
"""
LATENCY_S = 45
"""Longer than a task waits in the worker, so that it is deferred."""
LONGEST_S = 300


@dataclass
class Installation:
    """Buckets, a scripted speech service and an Airflow with its own home folder."""

    folder: Path
    s3: Any
    s3_url: str
    box: Box
    slack: Slack
    port: int = 9
    """Of the API server, once it runs."""

    def environment(self, home: str = "airflow", **more: str) -> dict[str, str]:
        aws = {"conn_type": "aws", "login": "x", "password": "x"}
        aws["extra"] = {"endpoint_url": self.s3_url, "region_name": "us-east-1"}  # type: ignore[assignment]
        speech = {"conn_type": "assemblyai", "host": self.box.url, "password": KEY}
        url = f"http://127.0.0.1:{self.port}"
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "CALLPHASES"))},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(self.folder), os.environ.get("PYTHONPATH", "")]),
            "AIRFLOW_HOME": str(self.folder / home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.folder / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.folder / home}/airflow.db",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "demo.sqlite.CONNECT_ARGS",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
            "AIRFLOW_CONN_ASSEMBLYAI_DEFAULT": json.dumps(speech),
            "AIRFLOW_CONN_SLACK": self.slack.webhook_connection(),
            **more,
        }

    def run(self, *command: str, **more: Any) -> str:
        environment = self.environment(**more)
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    def query(self, sql: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.folder / "airflow" / "airflow.db", timeout=60)) as database:
            return database.execute(sql).fetchall()

    def wait(self, done: Callable[[], bool], what: str) -> None:
        give_up = time.monotonic() + LONGEST_S
        while not done():
            states = "select dag_id, task_id, map_index, state, try_number from task_instance"
            log = (self.folder / "airflow.log").read_text()[-3000:]
            assert time.monotonic() < give_up, f"{what}: {self.query(states)} {log}"
            time.sleep(0.5)

    def wait_for_runs(self, run_type: str, count: int, dag_id: str = DAG_ID) -> None:
        sql = f"select state from dag_run where dag_id = '{dag_id}' and run_type = '{run_type}'"
        self.wait(
            lambda: len(states := self.query(sql)) >= count and {state for (state,) in states} <= {"success", "failed"},
            f"{count} {run_type} runs of {dag_id} have ended",
        )
        assert {state for (state,) in self.query(sql)} == {"success"}

    def ended(self, run_id: str) -> tuple[str, str | None]:
        """State and note of a run once it has ended and has a note."""
        sql = (
            "select state, content from dag_run join dag_run_note on dag_run_id = dag_run.id"
            f" where run_id = '{run_id}' and state in ('success', 'failed')"
        )
        self.wait(lambda: bool(self.query(sql)), f"{run_id} has ended and has a note")
        [found] = self.query(sql)
        return tuple(found)

    def put(self, day: str, *names: str) -> None:
        for name in names:
            self.s3.put_object(Bucket="real-recordings", Key=f"calls/{day}/{name}.wav", Body=b"x" * 2000)

    def phases(self, day: str) -> list[str]:
        path = self.folder / f"{day}.parquet"
        self.s3.download_file("real-warehouse", f"tables/phases/dt={day}/phases.parquet", str(path))
        return pq.read_table(path)["phase_name"].to_pylist()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def installation(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    s3 = s3_client(s3_url)
    for bucket in ("real-recordings", "real-warehouse"):
        s3.create_bucket(Bucket=bucket)
    (folder / "dags" / "pipelines").mkdir(parents=True)
    (folder / "dags" / DAG_FILE).write_text(DAG)
    (folder / "dags" / "consumer.py").write_text(CONSUMER)
    (folder / "alerts_of_the_test.py").write_text(ALERTS)
    pipeline = {
        "pipeline": "night",
        "recordings": {"bucket": "real-recordings", "prefix": "calls/{date:%Y-%m-%d}/"},
        "output": {"tables": "s3://real-warehouse/tables/", "state": "s3://real-warehouse/state/"},
        "limits": {"ramp": False},
        "deadline": {"by": "00:01", "notify": "alerts_of_the_test.page"},
        "notify": {"failed_night": "hook", "channels": {"hook": {"slack_webhook_conn_id": "slack"}}},
    }
    (folder / "dags" / "pipelines" / "night.yaml").write_text(yaml.safe_dump(pipeline))
    script = folder / "script.yaml"
    slow = {"match": "*/slow*", "latency_s": LATENCY_S, "sentences": CALL, "audio_duration_s": 12}
    broken = {"match": "*/broken*", "error": "Transcoding failed."}
    answers = {"files": [slow, broken], "default": {"sentences": CALL, "audio_duration_s": 12}, "chat": CHAT}
    script.write_text(yaml.safe_dump(answers))
    with (
        serving(slack := Slack()),
        running(folder / "box", "--engine", "scripted", "--script", str(script)) as box,
    ):
        yield Installation(folder, s3, s3_url, box, slack)


@pytest.fixture(scope="module")
def airflow(installation: Installation) -> Iterator[Installation]:
    """The same with Airflow running: API server, scheduler, Dag processor and triggerer."""
    installation.port = _free_port()
    installation.run("airflow", "db", "migrate")
    with (installation.folder / "airflow.log").open("w") as out:
        process = subprocess.Popen(
            ["airflow", "standalone"],
            env=installation.environment(), stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            active = f"select is_paused from dag where dag_id = '{DAG_ID}'"
            installation.wait(lambda: bool(installation.query(active)), "the Dag is parsed")
            yield installation
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                    break


def test_dags_test_runs_a_day(installation: Installation) -> None:
    installation.put("2026-11-18", "one", "two")
    installation.run("airflow", "db", "migrate", home="alone")
    installation.run("airflow", "dags", "test", DAG_ID, "2026-11-19", "--conf", '{"date": "2026-11-18"}', home="alone")
    assert installation.phases("2026-11-18") == ["Introduction", "Complaint", "Resolution", "Goodbye"] * 2


def test_dag_file_parses_without_error(airflow: Installation) -> None:
    assert airflow.query("select filename, stacktrace from import_error") == []
    assert airflow.query(f"select count(*) from dag where dag_id in ('{DAG_ID}', 'consumer')") == [(2,)]


def test_deferred_chunk_is_resumed_and_published(airflow: Installation) -> None:
    airflow.put("2026-11-20", "slow-one", "slow-two")
    airflow.run("airflow", "dags", "unpause", DAG_ID)
    conf = json.dumps({"date": "2026-11-20"})
    airflow.run("airflow", "dags", "trigger", DAG_ID, "--logical-date", "2026-11-20T00:00:00", "--conf", conf)
    deferred = f"select map_index from task_instance where dag_id = '{DAG_ID}' and state = 'deferred'"
    airflow.wait(lambda: bool(airflow.query(deferred)), "a task is deferred")
    airflow.wait_for_runs("manual", 1)
    assert airflow.phases("2026-11-20") == ["Introduction", "Complaint", "Resolution", "Goodbye"] * 2


@pytest.mark.skipif(not HAS_DEADLINES, reason="Airflow 3.1 has no use of deadlines")
def test_missed_deadline_is_reported(airflow: Installation) -> None:
    alerts = airflow.folder / "alerts.txt"
    airflow.wait(alerts.exists, "the deadline's function is called")
    assert "The tables of night were not published by 00:01" in alerts.read_text()


def test_asset_starts_its_consumer(airflow: Installation) -> None:
    airflow.wait_for_runs("asset_triggered", 1, "consumer")
    extras = [json.loads(extra) for (extra,) in airflow.query("select extra from asset_event")]
    assert {("2026-11-20", 2), ("2026-11-20", 8)} <= {(extra["dt"], extra["rows"]) for extra in extras}


def test_backfill_command_runs_its_days(airflow: Installation) -> None:
    days = ("2026-11-16", "2026-11-17")
    for day in days:
        airflow.put(day, "one")
    file = str(airflow.folder / "dags" / "pipelines" / "night.yaml")
    # The API creates the first run, and that run the other when it is over.
    options = ["--by", "day", "--max-active-runs", "1", "--yes"]
    told = airflow.run("callphases", "backfill", file, "--from", days[0], "--to", days[1], *options)
    assert "Created: 1." in told
    ids = "select run_id from dag_run where run_id like 'archive__%' order by run_id"
    airflow.wait(lambda: len(airflow.query(ids)) == 2, "the backfill has a run for each day")
    for day, (run_id,) in zip(days, airflow.query(ids), strict=True):
        assert run_id.startswith(f"archive__{day}_{day}__")
        state, note = airflow.ended(run_id)
        assert airflow.phases(day) == ["Introduction", "Complaint", "Resolution", "Goodbye"]
        assert state == "success"
        assert note is not None
        assert note.startswith(f"{day} to {day}: 1 listed = 1 completed. $")
    assert "Nothing to do." in airflow.run("callphases", "backfill", file, "--from", days[0], "--to", days[1])


def test_backfill_of_airflow_runs_its_day(airflow: Installation) -> None:
    airflow.put("2026-11-15", "one")
    bounds = ["--from-date", "2026-11-15T00:00:00+00:00", "--to-date", "2026-11-15T00:00:00+00:00"]
    airflow.run("airflow", "backfill", "create", "--dag-id", DAG_ID, *bounds)
    airflow.wait_for_runs("backfill", 1)
    assert airflow.phases("2026-11-15") == ["Introduction", "Complaint", "Resolution", "Goodbye"]


def test_api_takes_users_with_the_right_to_trigger(airflow: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    passwords = airflow.folder / "passwords.json"
    passwords.write_text(json.dumps({"admin": "of-admin", "guest": "of-guest"}))
    users = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,guest:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API__BASE_URL": url,
    }
    with (airflow.folder / "api.log").open("w") as out:
        server = subprocess.Popen(
            ["airflow", "api-server", "--port", str(port), "--workers", "1", "--apps", "core"],
            env=airflow.environment(**users), stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        airflow.wait(lambda: _answers(f"{url}/api/v2/version"), "the API server answers")
        for name in (TOKEN, USERNAME, PASSWORD):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ConfigurationError, match="HTTP 403"):
            api(url)
        monkeypatch.setenv(USERNAME, "admin")
        monkeypatch.setenv(PASSWORD, "wrong")
        with pytest.raises(ConfigurationError, match=r"HTTP 401 \(Invalid credentials\)"):
            api(url)
        monkeypatch.setenv(PASSWORD, "of-admin")
        administrator = api(url)
        assert not administrator.is_paused(DAG_ID)
        with pytest.raises(ConfigurationError, match="Airflow has no Dag call_phases_other"):
            administrator.is_paused("call_phases_other")
        with pytest.raises(ConfigurationError, match="HTTP 400"):
            administrator.trigger(DAG_ID, "archive__bad", {"again": "perhaps"})
        run = {"from": "2026-11-13", "to": "2026-11-14"}
        assert administrator.trigger(DAG_ID, "archive__by_admin", run)
        assert not administrator.trigger(DAG_ID, "archive__by_admin", run)
        monkeypatch.setenv(USERNAME, "guest")
        monkeypatch.setenv(PASSWORD, "of-guest")
        with pytest.raises(ConfigurationError, match=r"HTTP 403 \(Forbidden\)"):
            api(url).trigger(DAG_ID, "archive__by_guest", run)
        monkeypatch.setenv(TOKEN, "expired")
        with pytest.raises(ConfigurationError, match=r"HTTP 40[13] \("):
            api(url).is_paused(DAG_ID)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    assert airflow.ended("archive__by_admin")[0] == "success"


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=5).ok
    return False


def test_failed_night_is_noted_and_told_once_with_its_remedy(airflow: Installation) -> None:
    airflow.put("2026-11-21", "good", "broken")
    airflow.run("airflow", "dags", "trigger", DAG_ID, "--run-id", "bad", "--conf", '{"date": "2026-11-21"}')
    state, note = airflow.ended("bad")
    assert state == "failed"
    assert note is not None
    assert note.startswith("2026-11-21: 2 listed = 1 completed + 1 failed (1 bad_audio). $")
    airflow.wait(lambda: bool(airflow.slack.texts), "Slack has a message")
    assert "1 bad_audio: fix the recording; it is processed again when its bytes change." in airflow.slack.texts[0]
    assert airflow.slack.texts[0].endswith(f"Dag {DAG_ID}, run bad.")


def test_run_whose_list_fails_is_noted_and_told_once(airflow: Installation) -> None:
    airflow.run("airflow", "dags", "trigger", DAG_ID, "--run-id", "later", "--conf", '{"date": "2999-01-01"}')
    assert airflow.ended("later") == (
        "failed",
        "2999-01-01: not published. 2999-01-01 has not begun in UTC: run the day once it is over.",
    )
    airflow.wait(lambda: len(airflow.slack.texts) > 1, "Slack has another message")
    assert [text.rpartition("run ")[2] for text in airflow.slack.texts] == ["bad.", "later."]
