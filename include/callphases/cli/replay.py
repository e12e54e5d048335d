"""``callphases replay``: a day's failed calls, again."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from callphases.cli.console import Days, console
from callphases.clock import SYSTEM_CLOCK
from callphases.connections import s3_of, services_of
from callphases.day_run import ALL_FAILED, DayRun
from callphases.errors import AccountError, ConfigurationError, DayHeld, ServiceUnavailable
from callphases.pipeline import Pipeline, load, load_all, pipeline_files

LONGEST_WAIT_S = 15.0
"""Between two attempts to take a day that another run has."""
_T = TypeVar("_T")


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
) -> None:
    """Retry a day's failed calls from this machine, and publish the day.

    If ASSEMBLYAI_API_KEY is set, the services are those of ASSEMBLYAI_BASE_URL and LLM_GATEWAY_URL (default: the
    vendor's), and S3 is configured as for boto3. If not, the pipeline's Airflow connections are used. To do the same in
    Airflow, trigger a run with the Param replay: all, or failure classes separated by commas.
    """
    pipeline = load(pipeline_file) if pipeline_file else _only_pipeline()
    service, gateway = services_of(pipeline)
    run = DayRun(pipeline, s3_of(pipeline), service, gateway)
    classes = ",".join(failure_class) if failure_class else ALL_FAILED
    unfinished, problem = False, None
    for day in (moment.date() for moment in date):
        run_id = f"replay__{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S}"
        listed = _when_free(run.begin, day, run_id, classes)
        for number, uri in enumerate(listed.chunks, start=1):
            chunk = run.load(uri)
            console.print(f"{day}: {len(chunk.recordings)} calls, part {number} of {len(listed.chunks)}")
            try:
                _when_free(run.transcribe, chunk, math.inf)
                _when_free(run.segment, chunk)
            except (AccountError, ServiceUnavailable) as error:
                problem = error  # raised once the day is published as it is and its lease is released
                break
        done = _when_free(run.end, run.load_day(listed.day))
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(done.statuses.items())) or "no calls"
        failures = ", ".join(f"{count} {name}" for name, count in sorted(done.failures.items()))
        console.print(f"{day}: {statuses}" + (f" ({failures})" if failures else ""))
        if problem is not None:
            raise problem
        unfinished |= bool(done.unfinished)
    if unfinished:
        raise typer.Exit(1)


def _when_free(step: Callable[..., _T], *arguments: Any) -> _T:
    """Do a step of a run as soon as no other run has the day."""
    while True:
        try:
            return step(*arguments)
        except DayHeld as held:
            console.print(str(held))
            SYSTEM_CLOCK.sleep(min(held.wait_s, LONGEST_WAIT_S))


def _only_pipeline() -> Pipeline:
    pipelines, mistakes = load_all()
    if len(pipelines) != 1:
        names = ", ".join(path.name for path in pipeline_files()) or "none"
        raise ConfigurationError(f"Name a pipeline file; there are: {names}. {' '.join(mistakes.values())}".strip())
    return pipelines[0]
