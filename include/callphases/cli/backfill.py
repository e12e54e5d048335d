"""``callphases backfill``: an archive, or a part of it, in Airflow."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from callphases.cli.console import console
from callphases.connections import s3_of
from callphases.day_range import DayRange, cut
from callphases.errors import ConfigurationError
from callphases.local_days import day_end, exists
from callphases.pipeline import Pipeline, load
from callphases.planning.plan import Plan, plan
from callphases.planning.report import print_plan
from callphases.state.storage import ObjectPrefix
from callphases.state.summaries import days_to_do

if TYPE_CHECKING:
    from callphases.airflow.api import Airflow

MOST_RUNS = 12
"""That may be there at a time, so that nights need not wait for Airflow to start theirs; see ``airflow.dag``."""


MOST_CALLS = 15_000
"""Recordings of a run, from which on its chunks get more; see ``listing.CHUNKS_OF_ARCHIVE``."""
HEADERS = 300
"""Recordings that are measured for the plan that is shown: the command plan is more exact."""


class By(StrEnum):
    """How many days a run of a backfill is over."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Reprocess(StrEnum):
    """Which published days ``backfill`` runs again."""

    NONE = "none"
    FAILED = "failed"
    COMPLETED = "completed"


def backfill(
    pipeline_file: Annotated[Path, typer.Argument(help="The file of the pipeline to backfill.")],
    first: Annotated[dt.datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day of calls.")],
    last: Annotated[dt.datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day, included.")],
    by: Annotated[
        By | None,
        typer.Option(help="How many days a run is over. Default: month; week or day where it has very many calls."),
    ] = None,
    max_active_runs: Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="How many runs go on at a time.")] = 3,
    reprocess_behavior: Annotated[
        Reprocess,
        typer.Option(help="Published days to run again: none; failed: with failed calls; completed: all."),
    ] = Reprocess.NONE,
    run_backwards: Annotated[bool, typer.Option("--run-backwards", help="Run the latest days first.")] = False,
    airflow_url: Annotated[
        str | None, typer.Option("--airflow", help="The address of Airflow's API. Default: that of its settings here.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs without creating them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Create the runs without asking.")] = False,
) -> None:
    """Have Airflow run a range of days, each from midnight to midnight in the pipeline's time zone.

    Creates runs over several days each through Airflow's API; each of them creates the next one when it is over. Days
    that are done are left out, so the same command goes on with a backfill that was stopped. Nothing waits for the runs
    here: callphases archive shows how far they are.
    """
    pipeline = load(pipeline_file)
    days = _checked(DayRange(first.date(), last.date()), pipeline)
    s3 = s3_of(pipeline)
    state = ObjectPrefix(s3, pipeline.output.state, "output.state")
    todo = set(days_to_do(state, days, reprocess_behavior.value, pipeline.zone))
    count = sum(exists(day, pipeline.zone) for day in days)
    console.print(
        f"{pipeline.dag_id}: {days} in {pipeline.timezone} (days: {count}, of which {count - len(todo)} are done).",
        soft_wrap=True,
    )
    if not todo:
        console.print("Nothing to do. To run days that are done again: --reprocess-behavior completed.")
        return
    api = None if dry_run else _airflow(airflow_url, pipeline)
    planned = plan(pipeline, s3, days, most_headers=HEADERS)
    print_plan(planned, console)
    if by is None:
        by = _step(planned)
    steps = [step for step in cut(days, by.value) if not todo.isdisjoint(step)]
    console.print(f"Runs: {len(steps)}, each over a {by.value} at most, {max_active_runs} at a time:", soft_wrap=True)
    for step in steps[:_SHOWN]:
        console.print(f"  {step}")
    if len(steps) > _SHOWN:
        console.print(f"  … and {len(steps) - _SHOWN} more, to {steps[-1].last}")
    if api is None:
        return
    from callphases.airflow.ranges import RangeRun, Then, create

    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError("Nobody can be asked, as standard input is no terminal: give --yes.")
        typer.confirm("Create them?", abort=True)
    start = RangeRun(days, reprocess_behavior.value, Then(days, by.value, run_backwards))
    created: list[str] = []

    def trigger(run_id: str, conf: dict[str, Any]) -> bool:
        is_new = api.trigger(pipeline.dag_id, run_id, conf)
        created.extend([run_id] * is_new)
        return is_new

    name = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    try:
        create(start.following(), name, lambda step: not todo.isdisjoint(step), trigger, max_active_runs)
    except ConfigurationError as error:
        if not created:
            raise
        raise ConfigurationError(
            f"{error} Created before that: {', '.join(created)}. They go on, and create those that follow."
        ) from None
    console.print(f"Created: {len(created)}. The others follow, each when one of these is over.")
    console.print(f"How far it is: callphases archive {pipeline_file} --watch", soft_wrap=True)


_SHOWN = 12


def _airflow(url: str | None, pipeline: Pipeline) -> Airflow:
    """The Airflow that has the pipeline's Dag, which is not paused."""
    # Airflow logs a line or two for each run.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    from callphases.airflow.api import airflow

    api = airflow(url)
    if api.is_paused(pipeline.dag_id):
        raise ConfigurationError(
            f"The Dag {pipeline.dag_id} is paused, and Airflow would not start its runs: airflow dags unpause "
            f"{pipeline.dag_id}"
        )
    return api


def _step(plan: Plan) -> By:
    """The longest step of which no run has more than ``MOST_CALLS`` recordings."""
    counts = plan.recordings
    most = {by: max(sum(counts.get(day, 0) for day in step) for step in cut(plan.days, by.value)) for by in By}
    return next((by for by in (By.MONTH, By.WEEK) if most[by] <= MOST_CALLS), By.DAY)


def _checked(days: DayRange, pipeline: Pipeline) -> DayRange:
    zone = pipeline.zone
    if days.first > days.last:
        raise ConfigurationError(f"--from {days.first} is after --to {days.last}.")
    if day_end(days.last, zone) > dt.datetime.now(dt.UTC):
        raise ConfigurationError(f"{days.last} is not over in {zone.key}: give an earlier day to --to.")
    if not any(exists(day, zone) for day in days):
        raise ConfigurationError(f"{zone.key} has no {days.first}.")
    return days
