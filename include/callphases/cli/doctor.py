"""``callphases doctor``: whether a run has what it needs."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from callphases.cli.console import print_finding
from callphases.connections import channels_of, s3_of, services_of
from callphases.errors import ConfigurationError
from callphases.inspection.doctor import examine
from callphases.inspection.findings import Finding, Health
from callphases.pipeline import Pipeline, load, load_all, pipeline_folder, sharing


def doctor(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PIPELINE_FILE…", help="Pipeline files. Default: those in the pipelines' folder."),
    ] = None,
    days: Annotated[
        int,
        typer.Option(min=1, help="How many days to go back for a recording, and how many published days to check."),
    ] = 30,
) -> None:
    """Check everything that a run needs: ✓, ✗ with the remedy, – for what can't be determined. Costs nothing.

    Checks the pipeline file, the connections, the models' names, the clock, the buckets and the rights to them, a
    presigned URL, and whether published days fit the schema. Uses the same connections as replay. Exits with 1 if
    anything is ✗.
    """
    pipelines: list[Pipeline] = []
    mistakes: list[str] = []
    if files:
        for path in files:
            try:
                pipelines.append(load(path))
            except ConfigurationError as error:
                mistakes.append(str(error))
    else:
        pipelines, of_files = load_all()
        mistakes = list(of_files.values())
        if not (pipelines or mistakes):
            mistakes = [f"{pipeline_folder()} has no pipeline file: copy one there, or set CALLPHASES_PIPELINES."]
    is_bad = bool(mistakes)
    for mistake in mistakes:
        print_finding(Finding(Health.BAD, "pipeline file", mistake))
    for pipeline in pipelines:
        print_finding(Finding(Health.GOOD, f"pipeline {pipeline.pipeline}", "Its file is valid."))
        if others := sharing(pipeline, pipelines):
            detail = (
                f"{', '.join(others)} publishes below {pipeline.output.tables} too: give each its own output.tables."
            )
            print_finding(Finding(Health.BAD, f"pipeline {pipeline.pipeline}", detail))
            is_bad = True
        findings = examine(pipeline, partial(s3_of, pipeline), partial(services_of, pipeline), days)
        for finding in itertools.chain(channels_of(pipeline), findings):
            is_bad |= finding.health is Health.BAD
            print_finding(finding)
    if is_bad:
        raise typer.Exit(1)
