"""``callphases backfill``: a range of days in Airflow."""

from __future__ import annotations

import datetime as dt
import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from callphases.cli.console import console
from callphases.errors import ConfigurationError
from callphases.pipeline import load


class Reprocess(StrEnum):
    """Which days that have a run ``backfill`` runs again."""

    NONE = "none"
    FAILED = "failed"
    COMPLETED = "completed"


def backfill(
    pipeline_file: Annotated[Path, typer.Argument(help="The file of the pipeline to backfill.")],
    first: Annotated[dt.datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day of calls.")],
    last: Annotated[dt.datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day, included.")],
    max_active_runs: Annotated[int, typer.Option(min=1, help="How many days are run at a time.")] = 4,
    reprocess_behavior: Annotated[
        Reprocess,
        typer.Option(help="Days to run again: none; failed: if their run failed; completed: whatever its result."),
    ] = Reprocess.NONE,
    run_backwards: Annotated[bool, typer.Option("--run-backwards", help="Run the latest day first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs without creating them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Create the runs without asking.")] = False,
) -> None:
    """Have Airflow run a range of days, each from midnight to midnight in the pipeline's time zone.

    Creates a backfill in Airflow's database, as airflow backfill create does, so it needs that program's environment.
    Airflow's scheduler then runs the days; nothing waits for them here.
    """
    pipeline = load(pipeline_file)
    # Airflow logs a line or two for each run.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    try:
        from callphases.airflow import backfill as airflow_backfill
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "airflow":
            raise
        raise ConfigurationError("Airflow is not installed here: install callphases[airflow].") from None
    plan = airflow_backfill.plan(pipeline, first.date(), last.date())
    several = f", {plan.runs} runs" if plan.runs != len(plan.days) else ""
    console.print(
        f"{plan.dag_id}: {plan.days[0]} to {plan.days[-1]} in {pipeline.timezone} (days: {len(plan.days)}{several}), "
        f"{max_active_runs} at a time.",
        soft_wrap=True,
    )
    options = ["--max-active-runs", str(max_active_runs), "--reprocess-behavior", reprocess_behavior.value]
    options += ["--run-backwards"] if run_backwards else []
    console.print(f"airflow {shlex.join([*plan.arguments(), *options])}", soft_wrap=True)
    if states := airflow_backfill.earlier_runs(plan):
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        console.print(f"Runs of these days: {counts}. --reprocess-behavior is {reprocess_behavior.value}.")
    if dry_run:
        return
    airflow_backfill.check_runs_can_start(plan)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError("Nobody can be asked, as standard input is no terminal: give --yes.")
        typer.confirm("Create it?", abort=True)
    airflow_backfill.create(plan, *options)
    runs, others = airflow_backfill.created(plan)
    reasons = "".join(f", {count} left as they are ({reason})" for reason, count in sorted(others.items()))
    console.print(f"Runs to do: {runs}{reasons}.")
