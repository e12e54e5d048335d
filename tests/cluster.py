"""Runs a cluster as processes: Postgres, Redis, Airflow with two Celery workers, S3, and scripted services.

Airflow's settings are those of ``deploy/celery.env``. If Redis or Postgres is missing, it is installed if possible. If
not, the tests that need the cluster are skipped, or fail in CI, with a message that says what to install.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml

import debian
from benchmarks.airflow import COMPONENTS, Airflow, Run, Sample, airflow
from benchmarks.bound import Service
from benchmarks.database import free_port, postgres, postgres_programs
from benchmarks.processes import Program, running, say, wait_for
from benchmarks.services import RECORDINGS, WAREHOUSE, Ports, Services, services
from celery_settings import celery_settings
from link import Link

WORKERS = ("worker-1", "worker-2")
DAG_ID = "call_phases_night"
SPEECH_S = 45.0
"""Longer than a task waits for jobs in its worker, so that every chunk is deferred."""
MOST_AT_ONCE = 20_000
RESTART_S = 8.0
"""The supervisor restarts dead programs within so many seconds."""
PIPELINE = {
    "pipeline": "night",
    "schedule": None,
    "recordings": {
        "bucket": RECORDINGS,
        "prefix": "night/{date:%Y-%m-%d}/",
        "look_back_days": 0,  # each test has its own days
    },
    "output": {"tables": f"s3://{WAREHOUSE}/tables/", "state": f"s3://{WAREHOUSE}/state/"},
    "limits": {
        "ramp": False,
        "transcriptions_at_once": MOST_AT_ONCE,
        "llm_requests_per_minute": 6000,
        "max_failed_ratio": 0.0,
    },
}
OWN = {
    "calls": "call_id, recording_uri, call_started_at, recording_etag, transcript_id, transcript_uri, run_id, "
    "processed_at, llm_model, llm_input_tokens, llm_output_tokens, llm_usd",
    "phases": "call_id, recording_uri, call_started_at, transcript_id, run_id, processed_at, llm_model",
}
"""Columns that differ between nights: days, IDs, times, and which model answered with how many tokens."""


@dataclass
class Outcome:
    """The result of a night.

    Attributes:
        tables: columns by table and name, rows in order, without columns that differ between nights.
        paid: how often each recording was billed, by its URL.
    """

    run: Run
    tables: dict[str, dict[str, list[Any]]]
    paid: Counter[str]

    @property
    def paid_twice(self) -> int:
        """The number of transcriptions beyond one per recording."""
        return sum(count - 1 for count in self.paid.values())


@dataclass
class Cluster:
    """A running cluster."""

    folder: Path
    services: Services
    airflow: Airflow
    redis: Program
    link: Link
    supervised: list[Program]

    def night(
        self,
        day: dt.date,
        calls: int,
        faults: tuple[dict[str, Any], ...] = (),
        seen: Callable[[Sample], bool] | None = None,
        limit_s: float = 900.0,
    ) -> Outcome:
        """Run the Dag for ``day``; ``seen`` is called every second and may disturb the cluster."""
        self.services.fill("night/", calls, "%Y-%m-%d/", first_day=day)
        self.services.misbehave(day.toordinal(), list(faults))
        try:
            run = self.airflow.run(DAG_ID, {"date": day.isoformat()}, limit_s, seen)
        finally:
            self.services.misbehave(0, [])
        for task, times in self.airflow.tasks(run).items():
            say(f"  {task:18} {times}")
        paid = {url: count for url, count in self.services.paid().items() if f"/night/{day}/" in url}
        outcome = Outcome(run, {table: self.columns(table, day) for table in OWN}, Counter(paid))
        say(f"  {run.state} after {run.makespan_s:.0f} s, paid {len(paid)} recordings, {outcome.paid_twice} twice")
        return outcome

    def columns(self, table: str, day: dt.date) -> dict[str, list[Any]]:
        """A day's columns of a table, without those that differ between nights."""
        key = f"tables/{table}/dt={day}/{table}.parquet"
        if not self.services.s3().list_objects_v2(Bucket=WAREHOUSE, Prefix=key).get("KeyCount"):
            return {}
        file = self.folder / f"{table}-{day}.parquet"
        self.services.s3().download_file(WAREHOUSE, key, str(file))
        order = "name" if table == "calls" else "name, phase_index"
        found = duckdb.sql(
            f"select parse_filename(recording_uri) as name, * exclude ({OWN[table]}) from '{file}' order by {order}"
        )
        rows = found.fetchall()
        return {name: [row[place] for row in rows] for place, name in enumerate(found.columns)}

    def lose(self, program: Program) -> None:
        """Kill a program with SIGKILL. The supervisor restarts it, and programs that exit because of it."""
        program.kill()
        database = self.airflow.database
        if program is database.server:
            wait_for(database.answers, 60, "Postgres did not come back", program.log)

    def lose_for_good(self, program: Program) -> None:
        """Kill a program with SIGKILL without a restart, as if its machine were lost."""
        self.supervised.remove(program)
        program.kill()

    def submissions(self) -> int:
        """The number of transcriptions that the service has ever accepted."""
        return int(self.services.health()["submissions"])


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster while the block lasts."""
    install()
    programs = postgres_programs()
    assert programs is not None, MISSING
    for name in ("logs", "pipelines", "redis"):
        (folder / name).mkdir(parents=True)
    (folder / "pipelines" / "night.yaml").write_text(yaml.safe_dump(PIPELINE))
    ports, service = Ports(), Service(speech_s=SPEECH_S, jobs=MOST_AT_ONCE)
    with contextlib.ExitStack() as stack:
        both = stack.enter_context(services(folder, ports, service))
        link = stack.enter_context(Link(ports.speech).up())
        # With synchronous commits, a killed server loses nothing that it has confirmed, as in production.
        database = stack.enter_context(postgres(programs, folder, synchronous_commit="on"))
        assert database.server is not None
        redis, url = stack.enter_context(_redis(folder))
        settings = {
            **celery_settings(),
            **dataclasses.replace(ports, speech=link.port).environment,
            "AIRFLOW__CELERY__BROKER_URL": url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database.url}",
            "CALLPHASES_PIPELINES": str(folder / "pipelines"),
        }
        components = {
            **COMPONENTS,
            "triggerer": ("triggerer", "--skip-serve-logs"),
            **{name: ("celery", "worker", "--celery-hostname", name, "--skip-serve-logs") for name in WORKERS},
        }
        running_airflow = stack.enter_context(airflow(folder, database, settings, {DAG_ID}, components))
        supervised = [*running_airflow.programs.values(), database.server, redis]
        stack.enter_context(_supervisor(supervised))
        yield Cluster(folder, both, running_airflow, redis, link, supervised)


@contextlib.contextmanager
def _supervisor(programs: list[Program]) -> Iterator[None]:
    """Restart programs that have exited, as restart policies do: Airflow exits if its database is unreachable."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(RESTART_S):
            for program in list(programs):
                if program.process.poll() is not None:
                    program.start()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[tuple[Program, str]]:
    """Run a Redis server that keeps its queue over a restart."""
    port, log = free_port(), folder / "logs" / "redis.log"
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder / "redis"),
               "--save", "", "--appendonly", "yes"]  # fmt: skip
    with running(command, log) as (server, _):
        wait_for(lambda: "Ready to accept connections" in log.read_text(), 30, "Redis did not answer", log)
        yield server, f"redis://127.0.0.1:{port}/0"


MISSING = (
    "The cluster needs Redis and Postgres 15 or newer. Install the packages redis-server and postgresql on Debian and "
    "Ubuntu, redis and postgresql elsewhere."
)


def install() -> None:
    """Install Redis and Postgres where they are missing; see ``debian.install``."""
    there = {"redis-server": shutil.which("redis-server"), "postgresql": postgres_programs()}
    debian.install([package for package, program in there.items() if not program], MISSING)
