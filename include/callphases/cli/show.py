"""``callphases show``: published days, as text, data or a picture."""

from __future__ import annotations

import datetime as dt
import io
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from callphases.cli.console import answer, console, errors, write
from callphases.connections import tables_at
from callphases.inspection import absence, showing
from callphases.state.storage import ObjectPrefix


class Form(StrEnum):
    """The output format of ``show``."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def show(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TABLES",
            help="A pipeline file, its output.tables (s3://…), or a folder with a copy of them.",
        ),
    ],
    date: Annotated[
        list[dt.datetime] | None,
        typer.Option(formats=["%Y-%m-%d"], help="A day of calls, such as 2026-11-20. Can be repeated."),
    ] = None,
    call: Annotated[
        str | None,
        typer.Option(
            help="Only this call: its call_id, or its recording's name or URI. Without --date: on its latest day."
        ),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="table; csv: one line per phase; json: one line per call.")
    ] = Form.TABLE,
    output: Annotated[Path | None, typer.Option(help="Write CSV or JSON to this file instead of printing it.")] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="CSV without the ' before texts that a spreadsheet would take for a formula."),
    ] = False,
    png: Annotated[
        Path | None, typer.Option(help="Also draw the calls as strips on a time axis, to this file.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a day or a call to this file for a browser, instead of printing a table."),
    ] = None,
) -> None:
    """Show a day's calls, or one call: each phase with its times and summary, and a strip for each call.

    On a terminal, strips are drawn in the colors of the picture; with NO_COLOR and in files, as letters. CSV has one
    line per phase, and one for a call without phases. JSON has one line per call: the columns of calls, dt, and the
    list phases. Times are ISO 8601, numbers are not rounded. In CSV a ' precedes texts that begin like a formula.
    """
    if not date and call is None:
        raise typer.BadParameter("Give --date or --call.")
    if output is not None and form is Form.TABLE:
        raise typer.BadParameter("--output is for --format csv and json.")
    if raw and form is not Form.CSV:
        raise typer.BadParameter("--raw is for --format csv.")
    days = list(dict.fromkeys(moment.date() for moment in date or ()))
    if html is not None and call is None and len(days) > 1:
        raise typer.BadParameter("--html is for one day or one call.")
    tables, pipeline = tables_at(source, "the argument TABLES")
    calls = showing.calls_of_days(tables, days) if call is None else showing.find_calls(tables, call, days)
    # Messages must not mix with CSV or JSON on standard output.
    messages = console if form is Form.TABLE else errors
    if not calls:
        messages.print(absence.no_calls(source, tables, pipeline, days, call), soft_wrap=True)
        raise typer.Exit(1)
    if call is None and (empty := [day for day in days if day not in {one["dt"] for one in calls}]):
        errors.print(absence.no_calls(source, tables, pipeline, empty), soft_wrap=True)
    if html is not None and call is not None and len(calls) > 1:
        found = ", ".join(f"{one['call_id']} ({one['dt']})" for one in calls)
        messages.print(f"--html is for one call, and {len(calls)} are named {call}: {found}", soft_wrap=True)
        raise typer.Exit(1)
    if form is Form.TABLE and html is None:
        console.print(showing.table(calls, whole=call is not None))
        for line in showing.strips(calls, console.width, bool(console.color_system) and not console.no_color):
            console.print(line, soft_wrap=True)
    elif form is not Form.TABLE:
        text = io.StringIO()
        if form is Form.CSV:
            showing.write_csv(calls, text, raw=raw)
        else:
            showing.write_json(calls, text)
        if output is None:
            answer(text.getvalue())
        else:
            write(output, text.getvalue())
            errors.print(f"Written: {output}", soft_wrap=True)
    if png is not None:
        from callphases.inspection.strips import MOST_CALLS, draw

        draw(calls, [phase for one in calls for phase in one["phases"]], png)
        only = f" (the first {MOST_CALLS} calls)" if len(calls) > MOST_CALLS else ""
        messages.print(f"Written: {png}{only}", soft_wrap=True)
    if html is not None:
        from callphases.pages.files import call_file, day_file

        state = None
        if pipeline is not None and isinstance(tables, ObjectPrefix):
            state = ObjectPrefix(tables.client, pipeline.output.state, "output.state")
        write(html, day_file(calls, pipeline) if call is None else call_file(calls[0], pipeline, state))
        messages.print(f"Written: {html}", soft_wrap=True)
