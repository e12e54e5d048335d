"""``callphases run``: a day here and now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from callphases.cli.command import INTERRUPTED
from callphases.cli.console import Days, console, errors, notes, print_finding
from callphases.cli.days import Done, only_pipeline, run_day
from callphases.connections import s3_of, services_of
from callphases.day_run import DayRun
from callphases.errors import advice_of
from callphases.inspection import absence
from callphases.inspection.findings import Health
from callphases.pipeline import Pipeline, load
from callphases.tables.schema import object_name


def run(
    date: Days,
    pipeline_file: Annotated[
        Path | None,
        typer.Argument(help="A pipeline file. Optional if the pipelines' folder has only one."),
    ] = None,
) -> None:
    """Run a day here and now, without Airflow: transcribe, divide into phases, publish.

    Does what the Dag's run of the day does, with the same state: beside Airflow, one waits for the other, and nothing
    is paid for twice. budget.usd_per_run holds for each day. Exits with 1 if a run of the Dag would fail: recordings
    were not finished, or more failed than limits.max_failed_ratio allows.
    """
    pipeline = load(pipeline_file) if pipeline_file else only_pipeline()
    service, gateway = services_of(pipeline)
    day_run = DayRun(pipeline, s3_of(pipeline), service, gateway)
    failed = False
    for day in dict.fromkeys(moment.date() for moment in date):
        try:
            done = run_day(day_run, day, "run")
        except KeyboardInterrupt:
            errors.print(
                f"Interrupted. Nothing is lost: run {day} again in a minute. What was sent is not paid for again.",
                soft_wrap=True,
            )
            raise typer.Exit(INTERRUPTED) from None
        problem = _problem(done, pipeline)
        for line in _summary(done, pipeline, problem):
            console.print(line, soft_wrap=True)
        failed |= problem is not None
        if done.problem is not None:
            raise done.problem
        if not done.published.listed and not done.published.kept:
            finding = absence.no_recordings(day_run.bucket, pipeline, day)
            print_finding(finding)
            failed |= finding.health is Health.BAD
        elif pipeline_file is not None:
            notes.print(f"See them: callphases show {pipeline_file} --date {day}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _summary(done: Done, pipeline: Pipeline, problem: str | None) -> Iterator[str]:
    """What was done of a day, in a few lines."""
    day, one = done.day, done.published
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(one.statuses.items())) or "no calls"
    yield f"{day}: {statuses}" + (f" (listed: {one.listed})" if one.listed != sum(one.statuses.values()) else "")
    for failure_class, count in sorted(one.failures.items()):
        advice = advice_of(failure_class)
        yield f"  failed: {count} {failure_class}" + (f". {advice}" if advice else "")
    if one.phases:
        yield f"  phases: {one.phases}"
    if one.listed:
        estimated = f" (${one.run_estimated_usd:.4f} of it estimated)" if one.run_estimated_usd else ""
        yield (
            f"  cost: ${one.run_speech_usd:.4f} for speech and ${one.run_llm_usd:.4f} for language models in this "
            f"run{estimated}; ${one.speech_usd + one.llm_usd:.4f} for all of the day's calls"
            + (", without those whose price is not known" if one.run_estimated_usd else "")
        )
    for table in ("calls", "phases") if one.phases else ("calls",) if one.statuses else ():
        yield f"  {table}: {pipeline.output.tables}{object_name(table, day)}"
    if problem is not None:
        yield f"  The run failed: {problem}"


def _problem(done: Done, pipeline: Pipeline) -> str | None:
    """Why the run of a day counts as failed; None if it does not."""
    one = done.published
    failed = one.statuses.get("failed", 0)
    if done.problem is not None or one.stopped:
        return one.stopped or str(done.problem)
    if one.unfinished:
        return f"{one.unfinished} recordings were not finished; run the day again."
    most = pipeline.limits.max_failed_ratio
    if one.listed and failed / one.listed > most:
        return f"{failed / one.listed:.1%} of the calls failed, more than limits.max_failed_ratio ({most:.1%})."
    return None
