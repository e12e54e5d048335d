"""Measures a night in the middle of a backfill, over the same night alone."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.airflow import Run
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.nights import Night
from benchmarks.processes import Broken, say
from benchmarks.services import DAY, Services

RUNS = 3
"""Runs of the backfill at a time, as many as ``callphases backfill`` has by default."""
BEGUN_SHARE = 0.05
"""How much of the backfill is submitted before the night begins."""
OVER_ALONE = "makespan in the backfill / alone"


@dataclass(frozen=True)
class NightInBackfill(Night):
    """A night, and the same number of calls on the next night, when a backfill of ``days`` days is at work.

    Attributes:
        days: of the backfill.
        calls_a_day: of each of them.
    """

    days: int = 60
    calls_a_day: int = 100

    @property
    def pipeline(self) -> dict[str, Any]:
        """As of any night, with a schedule: backfills leave nights a part of each limit."""
        return {**super().pipeline, "schedule": "0 0 1 1 *"}

    def measure(self, bench: Bench) -> list[Figure]:
        """Run the night alone, then the backfill and another night.

        Raises:
            Broken: a night failed, or the backfill did not begin, or was over before the night.
        """
        calls, of_day = bench.scaled(self.calls), bench.scaled(self.calls_a_day)
        first = DAY - dt.timedelta(days=self.days)
        with bench.services(self.service) as services:
            for day in (DAY, DAY + dt.timedelta(days=1)):
                services.fill(f"{self.name}/", calls, "%Y-%m-%d/", first_day=day)
            services.fill(f"{self.name}/", of_day * self.days, "%Y-%m-%d/", 86_400 / of_day, first)
            alone = self._night(bench, DAY)
            self._begin(bench, services, first, calls, of_day * self.days)
            before = services.health()["submissions"]
            together = self._night(bench, DAY + dt.timedelta(days=1))
            meanwhile = services.health()["submissions"] - before - calls
            if not self._end(bench):
                raise Broken("The backfill was over before the night: give it more calls.")
            twice = sum(count - 1 for count in services.paid().values())
        figures = [
            Figure("calls of the night", calls),
            Figure("calls of the backfill", of_day * self.days, note=f"{self.days} days"),
            Figure("makespan alone", alone.makespan_s, "s"),
            Figure("makespan in the backfill", together.makespan_s, "s"),
            Figure(OVER_ALONE, together.makespan_s / alone.makespan_s),
            Figure("calls of the backfill submitted meanwhile", meanwhile),
            Figure("transcriptions paid for twice", twice),
        ]
        return [self._held_to(figure) for figure in figures]

    def _night(self, bench: Bench, day: dt.date) -> Run:
        run = bench.airflow.run(self.dag_id, {"date": day.isoformat()}, self.limit_s)
        say(f"    {day}: {run.state} after {run.makespan_s:.1f} s")
        for task, times in bench.airflow.tasks(run).items():
            say(f"      {task:18} {times}")
        if run.state != "success":
            raise Broken(f"{self.name}: the run of {day} ended as {run.state!r}.")
        return run

    def _begin(self, bench: Bench, services: Services, first: dt.date, before: int, calls: int) -> None:
        """Start the backfill; returns when it is at work."""
        step = -(-self.days // RUNS)
        for number in range(RUNS):
            days = first + dt.timedelta(days=number * step), first + dt.timedelta(days=(number + 1) * step - 1)
            last = min(days[1], DAY - dt.timedelta(days=1))
            conf = {"from": days[0].isoformat(), "to": last.isoformat()}
            run = {"dag_run_id": f"archive__{days[0]}_{last}__bench", "logical_date": None, "conf": conf}
            bench.airflow.call("POST", f"/dags/{self.dag_id}/dagRuns", run)
        until = time.monotonic() + self.limit_s
        while services.health()["submissions"] < before + BEGUN_SHARE * calls:
            if time.monotonic() > until:
                raise Broken(f"{self.name}: the backfill did not begin within {self.limit_s:.0f} s.")
            time.sleep(1)

    def _end(self, bench: Bench) -> int:
        """Give up what is left of the backfill; returns how many of its runs were not over."""
        rows = bench.airflow.database.rows(
            "select run_id from dag_run where dag_id = :dag_id and run_id like 'archive%' "
            "and state in ('queued', 'running')",
            dag_id=self.dag_id,
        )
        for (run_id,) in rows:
            bench.airflow.call("PATCH", f"/dags/{self.dag_id}/dagRuns/{run_id}", {"state": "failed"})
        return len(rows)
