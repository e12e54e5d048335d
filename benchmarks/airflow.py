"""Runs Airflow as in production: API server, scheduler, Dag processor and triggerer as separate processes."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import os
import secrets
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from benchmarks.database import Database, free_port
from benchmarks.processes import ROOT, Broken, Program, clean_environment, running, wait_for

COMPONENTS: Mapping[str, Sequence[str]] = {
    name: (name,) for name in ("api-server", "scheduler", "dag-processor", "triggerer")
}
"""Component names, and the arguments of the ``airflow`` command for each."""

SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    # Each task is a process of about 150 MB, so more tasks at once would fill the memory of a small machine.
    "AIRFLOW__CORE__PARALLELISM": "12",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "12",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__API__HOST": "127.0.0.1",
    "AIRFLOW__API__WORKERS": "1",  # everything else shares the same two cores
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    # The Dag files do not change during a benchmark.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
}


@dataclass(frozen=True)
class Sample:
    """Task instances of a run by state, ``at_s`` seconds after its trigger; only running ones hold a worker slot."""

    at_s: float
    running: int
    queued: int
    deferred: int


@dataclass
class Run:
    """A run that ended or was given up; ``makespan_s`` is the time from its trigger, at ``began_at``, to its end."""

    state: str
    run_id: str
    began_at: float
    makespan_s: float
    samples: list[Sample] = field(default_factory=list)

    @property
    def slot_s(self) -> float:
        """Seconds for which tasks held worker slots, in total."""
        return sum(
            before.running * (after.at_s - before.at_s)
            for before, after in zip(self.samples, self.samples[1:], strict=False)
        )


@dataclass
class Airflow:
    """A running Airflow."""

    url: str
    database: Database
    programs: dict[str, Program]
    log: Path
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def pids(self) -> dict[str, int]:
        """Process IDs by component."""
        return {name: program.pid for name, program in self.programs.items()}

    def call(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        """Send a request to the REST API."""
        if "Authorization" not in self.session.headers:
            token = self.session.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
            self.session.headers["Authorization"] = f"Bearer {token}"
        response = self.session.request(method, f"{self.url}/api/v2{path}", json=document, timeout=60)
        if not response.ok:
            raise Broken(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json() if response.content else None

    def run(
        self,
        dag_id: str,
        conf: dict[str, Any],
        limit_s: float,
        seen: Callable[[Sample], bool] | None = None,
    ) -> Run:
        """Trigger a run and watch it until it ends, ``seen`` returns True, or ``limit_s`` seconds have passed."""
        run_id = f"bench-{uuid.uuid4().hex[:8]}"
        began_at, began = time.time(), time.monotonic()
        self.call("POST", f"/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": conf})
        samples = [Sample(0.0, 0, 0, 0)]
        while True:
            time.sleep(1)
            counted = dict(
                self.database.rows(
                    "select state, count(*) from task_instance where dag_id = :dag_id and run_id = :run_id "
                    "group by state",
                    dag_id=dag_id,
                    run_id=run_id,
                )
            )
            at_s = time.monotonic() - began
            states = (counted.get(name, 0) for name in ("running", "queued", "deferred"))
            samples.append(Sample(at_s, *states))
            [(state, ended)] = self.database.rows(
                "select state, end_date from dag_run where dag_id = :dag_id and run_id = :run_id",
                dag_id=dag_id,
                run_id=run_id,
            )
            if state in ("success", "failed"):
                return Run(state, run_id, began_at, moment(ended) - began_at, samples)
            if at_s > limit_s or (seen is not None and seen(samples[-1])):
                self.call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})
                return Run("given up", run_id, began_at, at_s, samples)

    def tasks(self, run: Run) -> dict[str, str]:
        """Return when each task of a run started and ended, in seconds after the trigger, ordered by start."""
        found = self.database.rows(
            "select task_id, count(*), min(start_date), max(end_date) from task_instance "
            "where run_id = :run_id and start_date is not null group by task_id order by min(start_date)",
            run_id=run.run_id,
        )
        return {
            task_id: f"{moment(first) - run.began_at:6.1f} s to {moment(last) - run.began_at:6.1f} s, {count} of it"
            for task_id, count, first, last in found
            if last is not None
        }

    def first_start_s(self, run: Run, task_id: str) -> float:
        """Return the seconds from a run's trigger to the first start of a task."""
        [(started,)] = self.database.rows(
            "select min(start_date) from task_instance where run_id = :run_id and task_id = :task_id",
            run_id=run.run_id,
            task_id=task_id,
        )
        return moment(started) - run.began_at


@contextlib.contextmanager
def airflow(
    folder: Path,
    database: Database,
    environment: dict[str, str],
    dag_ids: set[str],
    components: Mapping[str, Sequence[str]] = COMPONENTS,
) -> Iterator[Airflow]:
    """Run Airflow inside the block, with the Dags of callphases and of the alternatives.

    Args:
        folder: for Airflow's home; its subfolder ``logs`` must exist.
        database: for Airflow alone.
        environment: settings and connections that override ``SETTINGS``.
        dag_ids: Dags that Airflow must find.
        components: processes to run.

    Raises:
        Broken: Airflow did not start, or did not find all of ``dag_ids``.
    """
    log = folder / "logs" / "airflow.log"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [
        {"name": name, "classpath": local, "kwargs": {"path": str(path)}}
        for name, path in (("product", ROOT / "dags"), ("ways", ROOT / "benchmarks" / "ways" / "dags"))
    ]
    variables = {
        **clean_environment(),
        **SETTINGS,
        **database.settings,
        **environment,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
    }
    (folder / "airflow").mkdir(exist_ok=True)
    with log.open("w") as out:
        made = subprocess.run(["airflow", "db", "migrate"], env=variables, stdout=out, stderr=out, check=False)  # noqa: S607
    if made.returncode:
        raise Broken(f"airflow db migrate failed; see {log}")
    with contextlib.ExitStack() as stack:
        programs: dict[str, Program] = {}
        for name, arguments in components.items():
            command = ["airflow", *arguments]
            programs[name], _ = stack.enter_context(running(command, log.with_name(f"{name}.log"), variables))
        running_airflow = Airflow(url, database, programs, log)
        wait_for(lambda: _healthy(url), 180, "Airflow was not healthy", log.with_name("api-server.log"))

        def knows_all() -> bool:
            known = {dag["dag_id"] for dag in running_airflow.call("GET", "/dags?limit=100")["dags"]}
            return dag_ids <= known

        wait_for(knows_all, 120, f"Airflow did not find the Dags {sorted(dag_ids)}", log.with_name("dag-processor.log"))
        yield running_airflow


def _healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/v2/monitor/health", timeout=5).text.count('"healthy"') >= 4
    except requests.RequestException:
        return False


def moment(value: Any) -> float:
    """Convert a timestamp (a datetime from Postgres, text from SQLite) to seconds since 1970."""
    moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
