"""``callphases replay``: a day's failed calls, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from callphases.cli.console import Days, console
from callphases.cli.days import only_pipeline, run_day
from callphases.connections import s3_of, services_of
from callphases.day_run import DayRun
from callphases.errors import ALL_FAILED
from callphases.pipeline import load
from callphases.replay import Replay


def replay(
    date: Days,
    pipeline_file: Annotated[
        Path | None,
        typer.Argument(help="A pipeline file. Optional if the pipelines' folder has only one."),
    ] = None,
    failure_class: Annotated[
        list[str] | None,
        typer.Option("--class", help="Only calls with this failure_class. Can be repeated."),
    ] = None,
    call: Annotated[
        list[str] | None,
        typer.Option(help="Only this call: its call_id, or its recording's name or URI. Can be repeated."),
    ] = None,
) -> None:
    """Retry a day's failed calls, or some of them, from this machine, and publish the day.

    If ASSEMBLYAI_API_KEY is set, the services are those of ASSEMBLYAI_BASE_URL and LLM_GATEWAY_URL (default: the
    vendor's), and S3 is configured as for boto3. If not, the pipeline's Airflow connections are used. To do the same in
    Airflow, trigger a run with the Param replay (all, or failure classes) or the Param calls.
    """
    pipeline = load(pipeline_file) if pipeline_file else only_pipeline()
    service, gateway = services_of(pipeline)
    run = DayRun(pipeline, s3_of(pipeline), service, gateway)
    failed_calls = Replay.of(failure_class or ALL_FAILED, call)
    unfinished = False
    for day in (moment.date() for moment in date):
        done = run_day(run, day, "replay", failed_calls)
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(done.published.statuses.items()))
        failures = ", ".join(f"{count} {name}" for name, count in sorted(done.published.failures.items()))
        console.print(f"{day}: {statuses or 'no calls'}" + (f" ({failures})" if failures else ""))
        if done.problem is not None:
            raise done.problem
        unfinished |= bool(done.published.unfinished)
    if unfinished:
        raise typer.Exit(1)
