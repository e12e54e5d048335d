"""The demo's servers: S3 (moto's) in this process, speechbox in a process of its own; and Airflow's settings.

All files are below ``.callphases`` in the clone, or below the folder ``CALLPHASES_HOME``. moto keeps objects in memory,
so the bucket of the tables is saved to a folder at the end and loaded from it at the start.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(os.environ.get("CALLPHASES_HOME") or ROOT / ".callphases")
SAMPLES = ROOT / "include" / "samples" / "audio"
WAREHOUSE = HOME / "warehouse"
LOGS = HOME / "logs"
DAYS = ("2026-11-19", "2026-11-20")
DAG_ID = "call_phases_demo"
TABLES = "call_phases/demo/"
# These keys protect nothing: both servers listen on 127.0.0.1 only.
SPEECH_KEY, AWS_KEY = "demo-key", "demo"


def say(text: str = "") -> None:
    """Print a line, without buffering."""
    print(text, flush=True)


@dataclass(frozen=True)
class Stack:
    """The servers' URLs."""

    s3_url: str
    speech_url: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point Airflow, the command line and boto3 at this stack."""
        aws = {
            "conn_type": "aws",
            "login": AWS_KEY,
            "password": AWS_KEY,
            "extra": {"endpoint_url": self.s3_url, "region_name": "us-east-1"},
        }
        speech = {"conn_type": "assemblyai", "host": self.speech_url, "password": SPEECH_KEY}
        return {
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",  # tasks at once; more would only compete on a small machine
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
            "AIRFLOW_CONN_ASSEMBLYAI_DEFAULT": json.dumps(speech),
            "CALLPHASES_PIPELINES": str(ROOT / "demo" / "pipelines"),
            "AWS_ENDPOINT_URL": self.s3_url,
            "AWS_ACCESS_KEY_ID": AWS_KEY,
            "AWS_SECRET_ACCESS_KEY": AWS_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextlib.contextmanager
def running() -> Iterator[Stack]:
    """Run the servers on free ports, with the samples in a bucket, while the block lasts."""
    from moto.server import ThreadedMotoServer  # here, because it takes a second or two, and migrating() needs none

    LOGS.mkdir(parents=True, exist_ok=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3_server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3_server.start()
    host, port = s3_server.get_host_and_port()
    s3_url = f"http://{host}:{port}"
    try:
        s3 = client(s3_url)
        count = fill(s3)
        say(f"    S3 server on {s3_url}, {count} sample calls in s3://recordings/support/")
        try:
            with _speechbox() as speech_url:
                say(f"    speechbox on {speech_url}")
                yield Stack(s3_url, speech_url)
        finally:
            keep(s3)  # only after a complete fill: keeping a half-filled bucket would delete the rest of the folder
    finally:
        s3_server.stop()


def airflow_environment(stack: Stack, home: str) -> dict[str, str]:
    """The environment of Airflow's programs that use this stack, with their database in the folder ``home``."""
    return {**_ours(home), **stack.environment}


def _ours(home: str) -> dict[str, str]:
    """The environment without the shell's own settings, such as another Airflow or a real bucket."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_", "CALLPHASES_P"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**ours, **airflow_home(home), "PATH": path, "PYTHONUNBUFFERED": "1"}


def airflow_home(home: str) -> dict[str, str]:
    """The variables with the locations of Airflow and its database."""
    folder = HOME / home
    return {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "demo.sqlite.CONNECT_ARGS",
        "PYTHONPATH": str(ROOT),  # for the module above
    }


@contextlib.contextmanager
def migrating(home: str) -> Iterator[Callable[[], None]]:
    """Create or migrate Airflow's database while the block runs, unless that was done for this version of Airflow.

    Yields:
        a function that waits for the end. It raises ``SystemExit`` if the migration failed; the message names the log.
    """
    log, done_before = LOGS / "migrate.log", HOME / home / ".migrated"
    if done_before.exists() and done_before.read_text() == version("apache-airflow"):
        yield lambda: None
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        process = subprocess.Popen(
            ["airflow", "db", "migrate"], env=_ours(home), stdout=out, stderr=out, text=True, start_new_session=True
        )

    def migrated() -> None:
        if process.wait():
            raise SystemExit(f"Airflow's database could not be created; see {log}")
        done_before.write_text(version("apache-airflow"))

    try:
        yield migrated
    finally:
        stop(process)


def copy_of_database(home: str, name: str) -> str:
    """Copy the database of ``home`` to the folder ``name`` in it; returns the new home.

    Two runs of ``airflow dags test`` that share a database both try to add the Dag to it.
    """
    copy = f"{home}/{name}"
    (HOME / copy).mkdir(exist_ok=True)
    shutil.copyfile(HOME / home / "airflow.db", HOME / copy / "airflow.db")
    return copy


def stop(process: subprocess.Popen[str], within_s: float = 20) -> None:
    """Stop a process that was started in a new session, and its children, by force after ``within_s`` seconds."""
    give_up = time.monotonic() + within_s
    with contextlib.suppress(ProcessLookupError, PermissionError):  # none is left
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < give_up:
            process.poll()  # a process that has ended belongs to its group until then
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _speechbox() -> Iterator[str]:
    log = LOGS / "speechbox.log"
    command = [sys.executable, "-m", "speechbox", "--port", "0", "--jobs", "2", "--data", str(HOME / "speechbox")]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            env={**os.environ, "SPEECHBOX_API_KEY": SPEECH_KEY, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "listening on " not in line:
                raise SystemExit(f"speechbox did not start; see {log}")
            yield line.split("listening on ")[1].strip()
        finally:
            stop(process)


def client(s3_url: str) -> Any:
    """A client of the demo's S3 server."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=s3_url,
        aws_access_key_id=AWS_KEY,
        aws_secret_access_key=AWS_KEY,
        region_name="us-east-1",
    )


def fill(s3: Any) -> int:
    """Create the buckets with the samples and with the saved tables; returns the number of samples."""
    for bucket in ("recordings", "warehouse"):
        s3.create_bucket(Bucket=bucket)
    samples = sorted(path for path in SAMPLES.rglob("*") if path.is_file())
    for path in samples:
        s3.upload_file(str(path), "recordings", f"support/{path.relative_to(SAMPLES).as_posix()}")
    for path in WAREHOUSE.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), "warehouse", path.relative_to(WAREHOUSE).as_posix())
    return len(samples)


def last_night() -> dt.date:
    """The day that the nightly run of today processes; the demo's pipeline is in UTC."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def add_calls(s3: Any, day: dt.date) -> None:
    """Copy the sample calls of the demo's first day to another day."""
    first = dt.date.fromisoformat(DAYS[0])
    for path in sorted((SAMPLES / f"{first:%Y/%m/%d}").iterdir()):
        s3.upload_file(str(path), "recordings", f"support/{day:%Y/%m/%d}/{path.name}")


def keep(s3: Any) -> None:
    """Save the bucket of the tables to its folder; files that are no longer in the bucket are deleted."""
    kept: set[Path] = set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="warehouse"):
        for item in page.get("Contents", []):
            path = WAREHOUSE / item["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file("warehouse", item["Key"], str(path))
            kept.add(path)
    for path in WAREHOUSE.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def wait_for(look: Callable[[], Any], limit_s: float, what: str) -> Any:
    """Call ``look`` every second until it returns something true, and return that.

    Raises:
        SystemExit: it did not within ``limit_s`` seconds.
    """
    give_up = time.monotonic() + limit_s
    while not (found := look()):
        if time.monotonic() > give_up:
            raise SystemExit(f"{what} within {limit_s:.0f} s; see {LOGS}")
        time.sleep(1)
    return found
