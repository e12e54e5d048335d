"""The command line: ``callphases plan`` (what a run would do) and ``callphases show`` (what a day holds)."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import boto3
import typer
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from rich import box
from rich.console import Console
from rich.table import Table

from callphases.errors import CallphasesError, ConfigurationError
from callphases.ledger import Ledger
from callphases.phases import unsettled
from callphases.pipeline import load
from callphases.recordings import list_day
from callphases.storage import Folder
from callphases.tables import read_rows

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Look at what callphases does. S3 is reached as boto3 is set up (AWS_PROFILE, AWS_ENDPOINT_URL, …).",
)
# No markup: names and summaries may hold brackets. A file or a pipe has no width of its own.
console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 140)

Days = Annotated[
    list[dt.datetime],
    typer.Option(
        "--date", formats=["%Y-%m-%d"], help="A day of calls, such as 2026-11-20; may be given several times."
    ),
]


@app.command()
def plan(
    pipeline_file: Annotated[Path, typer.Argument(help="A pipeline file, such as include/pipelines/support.yaml.")],
    date: Days,
) -> None:
    """Say what a run of the pipeline would do for a day, without doing it."""
    pipeline = load(pipeline_file)
    s3 = _s3()
    state = Folder(s3, pipeline.output.state, "output.state")
    for day in (moment.date() for moment in date):
        recordings = list(list_day(s3, pipeline, day))
        todo = unsettled(recordings, pipeline, Ledger.open(state, day, "plan"), dt.datetime.now(dt.UTC))
        size_mb = sum(recording.size for recording in todo) / 1e6
        console.print(
            f"{day}: {len(recordings)} recordings, {len(todo)} to do ({size_mb:.1f} MB), "
            f"{len(recordings) - len(todo)} done before"
        )


@app.command()
def show(
    tables: Annotated[str, typer.Argument(help="output.tables of a pipeline (s3://…), or a folder with a copy of it.")],
    date: Days,
    png: Annotated[
        Path | None, typer.Option(help="Also draw the calls as strips on a time axis, into this file.")
    ] = None,
) -> None:
    """Print a day's phases as a table."""
    calls: list[dict[str, Any]] = []
    phases: list[dict[str, Any]] = []
    for day in (moment.date() for moment in date):
        calls += _rows(tables, "calls", day)
        phases += _rows(tables, "phases", day)
    if not calls:
        console.print(f"{tables} holds no calls of {', '.join(str(moment.date()) for moment in date)}.")
        raise typer.Exit(1)
    calls.sort(key=lambda row: (row["call_started_at"], row["call_id"]))
    console.print(_table(calls, phases))
    if png is not None:
        from callphases.strips import draw

        draw(calls, phases, png)
        console.print(f"Drawn into {png}")


def main() -> None:
    """Run the command line; an error of ours is one line and exit code 1."""
    try:
        app()
    except CallphasesError as error:
        Console(stderr=True, markup=False).print(f"error: {error}", soft_wrap=True, highlight=False, style="red")
        raise SystemExit(1) from None


def _s3() -> S3Client:
    try:
        return boto3.client("s3", config=Config(signature_version="s3v4"))
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"S3 can't be set up: {error}") from None


def _rows(tables: str, table: str, day: dt.date) -> list[dict[str, Any]]:
    source: Folder | Path = Path(tables)
    if tables.startswith("s3://"):
        source = Folder(_s3(), tables if tables.endswith("/") else f"{tables}/", "the argument TABLES")
    return read_rows(source, table, day)


def _table(calls: Sequence[dict[str, Any]], phases: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    for header in ("call", "started", "phase", "from", "to"):
        table.add_column(header, max_width=30, no_wrap=True)
    table.add_column("summary", ratio=1, no_wrap=True)
    for call in calls:
        name = call["recording_uri"].rsplit("/", 1)[-1]
        started = f"{call['call_started_at']:%m-%d %H:%M}"
        if call["status"] != "completed":
            table.add_row(name, started, call["failure_class"] or call["status"], "", "", call["failure_message"] or "")
        parts = [phase for phase in phases if phase["call_id"] == call["call_id"]]
        for phase in sorted(parts, key=lambda row: row["phase_index"]):
            first = phase["phase_index"] == 0
            times = [_clock(phase["start_s"]), _clock(phase["end_s"])]
            table.add_row(
                name if first else "", started if first else "", phase["phase_name"], *times, phase["summary"]
            )
        table.add_section()
    return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
