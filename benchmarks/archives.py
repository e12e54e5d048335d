"""Measures backfills: a year of small days against one day of as many calls."""

from __future__ import annotations

import datetime as dt
import io
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.accounting import Accounting
from benchmarks.airflow import COMPONENTS, moment
from benchmarks.bench import Bench
from benchmarks.bound import Service, bound_s
from benchmarks.figures import Figure, at_most
from benchmarks.nights import Night
from benchmarks.processes import ROOT, Broken, clean_environment, say
from benchmarks.report import CORE_MS
from benchmarks.services import WAREHOUSE, Services

FIRST_DAY = dt.date(2025, 1, 1)
CALLS_A_DAY = 20
DAY_S = 86_400.0
LIMIT_S = 1800.0


@dataclass(frozen=True)
class Year:
    """A year of small days through ``callphases backfill``, over one day of as many calls.

    Attributes:
        name: of the scenario and of its pipeline; the day's is ``<name>-in-a-day``.
        days: how many, each of ``CALLS_A_DAY`` calls.
    """

    name: str
    days: int = 365

    @property
    def night(self) -> Night:
        """The pipeline of the year."""
        return Night(self.name, self.days * CALLS_A_DAY)

    @property
    def day(self) -> Night:
        """The pipeline of the day, and its run."""
        return Night(f"{self.name}-in-a-day", self.days * CALLS_A_DAY)

    def measure(self, bench: Bench) -> list[Figure]:
        """Run the year, then the day.

        Raises:
            Broken: a run failed, or a call was not completed.
        """
        days = bench.scaled(self.days)
        of_year = dict(self._year(bench, days))
        of_day = {figure.name: figure.value for figure in self.day.measure(bench) if figure.value is not None}
        core_ms = f"{CORE_MS}: Airflow"
        yielded = [Figure(name, value) for name, value in of_year.items()]
        yielded += [
            Figure(f"in a day: {name}", of_day.get(name)) for name in ("makespan", core_ms, "S3 requests a call")
        ]
        yielded.append(Figure("makespan over the day's", of_year["makespan"] / of_day["makespan"], target=at_most(1.5)))
        yielded.append(Figure("core time over the day's", of_year[core_ms] / of_day[core_ms], target=at_most(1.5)))
        return yielded

    def _year(self, bench: Bench, days: int) -> Iterator[tuple[str, float]]:
        calls, service = days * CALLS_A_DAY, Service()
        with bench.services(service) as services:
            services.fill(f"{self.name}/", calls, "%Y-%m-%d/", DAY_S / CALLS_A_DAY, FIRST_DAY)
            services.reset()
            database = bench.airflow.database
            roots = {**bench.airflow.pids, **({"database": database.server.pid} if database.server else {})}
            with Accounting(roots) as used:
                began_at = time.time()
                backfill(bench, self.name, FIRST_DAY, FIRST_DAY + dt.timedelta(days=days - 1))
                runs, ended_at = self._await(bench)
            s3_requests = services.s3_requests()
            completed, published = _completed(services, self.name)
            if (completed, published) != (calls, days):
                raise Broken(
                    f"{self.name}: {completed} of {calls} calls completed, {published} of {days} days published."
                )
            twice = sum(count - 1 for count in services.paid().values())
            questions = services.health()["questions"]
        say(f"    {days} days by {runs} runs after {ended_at - began_at:.1f} s")
        say(f"    bound {bound_s(service, calls, questions):.1f} s")
        yield "calls", calls
        yield "runs", runs
        yield "makespan", ended_at - began_at
        yield f"{CORE_MS}: Airflow", used.of(*COMPONENTS) / calls * 1000
        if "database" in used.roots:
            yield f"{CORE_MS}: database", used.of("database") / calls * 1000
        yield "S3 requests a call", sum(count for kinds in s3_requests.values() for count in kinds.values()) / calls
        yield "transcriptions paid for twice", twice

    def _await(self, bench: Bench) -> tuple[int, float]:
        """Wait until no run is left; returns how many there were, and when the last one ended."""
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            time.sleep(1)
            states = dict(
                bench.airflow.database.rows(
                    "select state, count(*) from dag_run where dag_id = :dag_id group by state",
                    dag_id=self.night.dag_id,
                )
            )
            if states.keys() <= {"success", "failed"}:
                if "failed" in states:
                    raise Broken(f"{self.name}: {states['failed']} runs of the backfill failed.")
                self._say_tasks(bench)
                [(ended,)] = bench.airflow.database.rows(
                    "select max(end_date) from dag_run where dag_id = :dag_id", dag_id=self.night.dag_id
                )
                return states["success"], moment(ended)
        raise Broken(f"{self.name}: the backfill was not over after {LIMIT_S:.0f} s.")

    def _say_tasks(self, bench: Bench) -> None:
        """Print what the tasks of all runs took."""
        for task, count, *times in bench.airflow.database.rows(
            "select task_id, count(*), min(start_date), max(end_date), sum(duration), max(duration) from task_instance "
            "where dag_id = :dag_id group by task_id",
            dag_id=self.night.dag_id,
        ):
            say(f"      {task}: {count}, {times[2]:.1f} s in all, {times[3]:.1f} s the longest")


def backfill(bench: Bench, name: str, first: dt.date, last: dt.date, *options: str) -> None:
    """Create a backfill as a user would, with the command.

    Raises:
        Broken: it fails.
    """
    command = ["callphases", "backfill", str(bench.folder / "pipelines" / f"{name}.yaml")]
    command += ["--from", str(first), "--to", str(last), "--airflow", bench.airflow.url, "--yes", *options]
    variables = {**clean_environment(), **bench.ports.environment}
    made = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if made.returncode:
        raise Broken(f"callphases backfill failed: {made.stderr[-500:]}")


def _completed(services: Services, name: str) -> tuple[int, int]:
    """How many calls are completed, and how many days are published."""
    import pyarrow.parquet as pq

    s3 = services.s3()
    completed = days = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=WAREHOUSE, Prefix=f"tables/{name}/calls/"):
        for item in page.get("Contents", []):
            body = s3.get_object(Bucket=WAREHOUSE, Key=item["Key"])["Body"].read()
            statuses = pq.read_table(io.BytesIO(body), columns=["status"], partitioning=None)["status"].to_pylist()
            completed += statuses.count("completed")
            days += 1
    return completed, days
