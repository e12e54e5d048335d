"""What scenarios share: a folder, ports, and one Airflow that knows the pipelines of all nights chosen."""

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
    """What is there to measure with. ``scale`` makes every night smaller, to try the bench itself."""

    folder: Path
    ports: Ports
    scale: float
    running_airflow: airflow.Airflow | None = None

    @property
    def airflow(self) -> airflow.Airflow:
        """The Airflow that was started for the scenarios that need one."""
        assert self.running_airflow is not None
        return self.running_airflow

    def scaled(self, calls: int) -> int:
        """How many calls to take in place of ``calls``."""
        return max(round(calls * self.scale), 1)

    def services(self, service: Service) -> contextlib.AbstractContextManager[Services]:
        """Both services, fresh."""
        return services(self.folder, self.ports, service)


@contextlib.contextmanager
def bench(pipelines: dict[str, dict[str, Any]], dag_ids: set[str], scale: float) -> Iterator[Bench]:
    """A bench in an empty folder; with an Airflow if there are Dags to run.

    Args:
        pipelines: pipeline files by name.
        dag_ids: that Airflow must know.
        scale: of the nights.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"A bench is running already, in {FOLDER}; two would measure each other.") from None
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
            say("==> Starting a database and Airflow's four processes")
            store = stack.enter_context(database.database(folder))
            variables = {**ready.ports.environment, "CALLPHASES_PIPELINES": str(folder / "pipelines")}
            ready.running_airflow = stack.enter_context(airflow.airflow(folder, store, variables, dag_ids))
            say(f"    Airflow on {store.name}, {ready.airflow.url}")
        yield ready
