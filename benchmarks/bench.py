"""What scenarios share: a folder, ports, and one Airflow with the pipelines of all chosen nights."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import airflow, database
from benchmarks.bound import Service
from benchmarks.processes import ROOT, say
from benchmarks.services import Ports, Services, services

FOLDER = Path(os.environ.get("CALLPHASES_HOME") or ROOT / ".callphases") / "bench"


@dataclass
class Bench:
    """The environment of a benchmark; ``scale`` reduces the size of every scenario."""

    folder: Path
    ports: Ports
    scale: float
    running_airflow: airflow.Airflow | None = None

    @property
    def airflow(self) -> airflow.Airflow:
        """The Airflow, if a chosen scenario needs one."""
        assert self.running_airflow is not None
        return self.running_airflow

    def scaled(self, calls: int) -> int:
        """Scale a number of calls."""
        return max(round(calls * self.scale), 1)

    def services(self, service: Service) -> contextlib.AbstractContextManager[Services]:
        """Run both services without earlier data."""
        return services(self.folder, self.ports, service)


@contextlib.contextmanager
def bench(pipelines: dict[str, dict[str, Any]], dag_ids: set[str], scale: float) -> Iterator[Bench]:
    """Set up a benchmark in an empty folder, with Airflow if there are Dags to run.

    Args:
        pipelines: content of the pipeline files by name.
        dag_ids: Dags that Airflow must find.
        scale: factor for the size of the scenarios.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"A benchmark is already running in {FOLDER}; two would disturb each other.") from None
        yield from _bench(pipelines, dag_ids, scale)


def _bench(pipelines: dict[str, dict[str, Any]], dag_ids: set[str], scale: float) -> Iterator[Bench]:
    folder = FOLDER / "run"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    (folder / "pipelines").mkdir()
    for name, document in pipelines.items():
        (folder / "pipelines" / f"{name}.yaml").write_text(yaml.safe_dump(document))
    ready = Bench(folder, Ports(), scale)
    with contextlib.ExitStack() as stack:
        if dag_ids:
            say("==> Starting a database and Airflow's processes")
            store = stack.enter_context(database.database(folder))
            variables = {**ready.ports.environment, "CALLPHASES_PIPELINES": str(folder / "pipelines")}
            ready.running_airflow = stack.enter_context(airflow.airflow(folder, store, variables, dag_ids))
            say(f"    Airflow on {store.name}, {ready.airflow.url}")
        yield ready
