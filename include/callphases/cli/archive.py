"""``callphases archive``: how far an archive is."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Annotated

import typer

from callphases.cli.console import Format, answer, console, errors
from callphases.clock import SYSTEM_CLOCK
from callphases.connections import s3_of
from callphases.errors import ServiceUnavailable
from callphases.inspection import calendar_views
from callphases.inspection.calendar import Calendar, State, read_calendar
from callphases.pipeline import load
from callphases.planning.saved import planned
from callphases.state.storage import ObjectPrefix

COUNT_EVERY_S = 600.0
"""How often ``--watch`` counts the recordings in the bucket, which takes most of the requests."""


def archive(
    pipeline_file: Annotated[Path, typer.Argument(help="A pipeline file, such as include/pipelines/support.yaml.")],
    first: Annotated[
        dt.datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="The first day of calls. Default: the first there is."),
    ] = None,
    last: Annotated[
        dt.datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="The last day, included. Default: the last that is over."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again until no day is left to run; a line each in files.")
    ] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks of --watch.")] = 30,
    form: Annotated[
        Format, typer.Option("--format", help="table; json: one document, or one a line with --watch.")
    ] = Format.TABLE,
) -> None:
    """Show how far an archive is: a calendar of its days, paid and to pay, pace, expected end, and what failed.

    Reads output.state, output.tables and the bucket's listing, with at most a hundred S3 requests for each year; it
    needs neither Airflow nor a key, and pays for nothing. Exits with 1 if a day failed or has unreadable recordings.
    """
    if first is not None and last is not None and first > last:
        raise typer.BadParameter(f"--from {first:%Y-%m-%d} is after --to {last:%Y-%m-%d}.")
    pipeline = load(pipeline_file)
    s3 = s3_of(pipeline)
    days = (first.date() if first is not None else None, last.date() if last is not None else None)
    plan = planned(ObjectPrefix(s3, pipeline.output.state, "output.state"))
    calendar = read_calendar(pipeline, s3, *days, planned=plan)
    counted_at = SYSTEM_CLOCK.monotonic()
    _show(calendar, pipeline_file, form, is_watched=watch)
    while watch and not calendar.is_finished:
        SYSTEM_CLOCK.sleep(every)
        is_due = SYSTEM_CLOCK.monotonic() - counted_at >= COUNT_EVERY_S
        try:
            counts = None if is_due else calendar.counts
            calendar = read_calendar(pipeline, s3, *days, planned=plan, counts=counts)
        except ServiceUnavailable as error:  # S3 may answer the next time
            errors.print(str(error), soft_wrap=True)
            continue
        counted_at = SYSTEM_CLOCK.monotonic() if is_due else counted_at
        _show(calendar, pipeline_file, form, is_watched=watch)
    if calendar.of(State.FAILED, State.UNREADABLE):
        raise typer.Exit(1)


def _show(calendar: Calendar, file: Path, form: Format, *, is_watched: bool) -> None:
    """Print the calendar; on a terminal that is watched, in place of the last one."""
    if form is Format.JSON:
        indent = None if is_watched else 2
        answer(json.dumps(calendar_views.document(calendar, str(file)), ensure_ascii=False, indent=indent) + "\n")
    elif is_watched and not console.is_terminal:
        answer(f"{calendar_views.line(calendar)}\n")
    else:
        if is_watched:
            console.clear()
        for line in calendar_views.lines(calendar, str(file)):
            console.print(line, soft_wrap=not console.is_terminal)
