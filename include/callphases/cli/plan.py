"""``callphases plan``: what a run of a day would do, and what many days would cost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress as Bar
from rich.progress import TextColumn, TimeElapsedColumn

from callphases.cli.console import Format, answer, console, notes, print_finding
from callphases.connections import s3_of
from callphases.date_prefixes import has_date
from callphases.day_range import DayRange
from callphases.inspection import absence
from callphases.inspection.call_times import CallTimes
from callphases.inspection.findings import Health
from callphases.inspection.paid_again import PaidAgain
from callphases.pipeline import Pipeline, load
from callphases.planning import report
from callphases.planning.lengths import HEADERS
from callphases.planning.plan import plan as plan_days
from callphases.planning.survey import Told, recordings_by_day
from callphases.progress import DayPass, Progress
from callphases.state.bucket import RecordingBucket
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import read_ledger_day
from callphases.state.storage import ObjectPrefix


def plan(
    pipeline_file: Annotated[Path, typer.Argument(help="A pipeline file, such as include/pipelines/support.yaml.")],
    date: Annotated[
        list[dt.datetime] | None,
        typer.Option("--date", formats=["%Y-%m-%d"], help="A day of calls, such as 2026-11-20. Can be repeated."),
    ] = None,
    first: Annotated[
        dt.datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day of calls to price.")
    ] = None,
    last: Annotated[
        dt.datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day to price, included.")
    ] = None,
    all_days: Annotated[bool, typer.Option("--all", help="Price all days that the bucket has.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Measure every recording instead of a sample.")] = False,
    headers: Annotated[int, typer.Option(min=1, help="How many recordings are measured at most.")] = HEADERS,
    output_format: Annotated[Format, typer.Option("--format", help="With --from or --all.")] = Format.TABLE,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the months as a PNG file. Needs the extra pictures.")
    ] = None,
) -> None:
    """Show what a run of days would do and cost, without doing it, and how the times of calls are read.

    With --date: for each day, what is to do. Always lists the bucket, an archive once for all days; its index is not
    written. Exits with 1 if nothing is there for any of the days because nothing at all is below the prefix, or because
    they are still to come.

    With --from and --to, or --all: by month, hours of audio and dollars, measured on a sample of the recordings.
    Nothing is paid for. The plan is kept in output.state, and later shown beside what the days did cost.
    """
    pipeline = load(pipeline_file)
    if date and (exact or picture or output_format is Format.JSON):
        raise typer.BadParameter("--exact, --format and --picture are for --from and --to, or --all")
    if date and not (first or last or all_days):
        _plan_days(pipeline, [moment.date() for moment in date])
        return
    if date or all_days == bool(first or last) or (first is None) != (last is None):
        raise typer.BadParameter("expected --date, or --from and --to, or --all")
    if first is not None and last is not None and last < first:
        raise typer.BadParameter(f"expected a day that is not before --from ({first:%Y-%m-%d})", param_hint="--to")
    days = DayRange(first.date(), last.date()) if first is not None and last is not None else None
    s3 = s3_of(pipeline)
    with _progress() as told:
        found = plan_days(pipeline, s3, days, most_headers=None if exact else headers, told=told)
    if output_format is Format.JSON:
        answer(report.as_json(found))
    else:
        report.print_plan(found, console)
    if picture is not None:
        report.draw(found, picture)
    if not found.total.count.recordings:
        bucket = RecordingBucket(s3, pipeline.recordings.bucket)
        finding = absence.no_recordings(bucket, pipeline, found.days.first)
        notes.print(f"{finding.what}: {finding.detail}", soft_wrap=True)
        raise typer.Exit(finding.health is Health.BAD)


@contextmanager
def _progress() -> Iterator[Told]:
    """Says on standard error how far a plan is, if that is a terminal."""
    if not notes.is_terminal or notes.quiet:
        yield lambda *_: None
        return
    with Bar(TextColumn("{task.description}"), TimeElapsedColumn(), console=notes, transient=True) as bar:
        task = bar.add_task("")

        def told(what: str, done: int, total: int | None) -> None:
            of = "" if total is None or total == done else f" of {total:,}"
            bar.update(task, description=f"{done:,}{of} {what}")

        yield told


def _plan_days(pipeline: Pipeline, days: list[dt.date]) -> None:
    s3 = s3_of(pipeline)
    bucket = RecordingBucket(s3, pipeline.recordings.bucket)
    state = ObjectPrefix(s3, pipeline.output.state, "output.state")
    keys, times = RecordingKeys(pipeline), CallTimes(pipeline)
    counts: dict[dt.date, int] = {}
    for day, recordings in recordings_by_day(bucket, pipeline, state, days, times):
        view, day_pass = read_ledger_day(state, day), DayPass(dt.datetime.now(dt.UTC))
        listed = todo = size = 0
        paid_again = PaidAgain(pipeline)
        for recording in recordings:
            listed += 1
            times.see(recording, day)
            if not (progress := Progress(recording, keys, view)).is_settled(day_pass):
                todo += 1
                size += recording.size
                paid_again.see(progress)
        console.print(f"{day}: {listed} recordings, {todo} to do ({size / 1e6:.1f} MB), {listed - todo} done before")
        if said := str(paid_again):
            console.print(f"{day}: of those to do, {said[0].lower()}{said[1:]}", soft_wrap=True)
        counts[day] = listed
    for finding in times.findings():
        print_finding(finding)
    if _explain_empty_days(bucket, pipeline, counts):
        raise typer.Exit(1)


def _explain_empty_days(bucket: RecordingBucket, pipeline: Pipeline, counts: dict[dt.date, int]) -> bool:
    """Say why days have no recordings; returns whether that is a mistake in the pipeline file or in the command."""
    empty = [day for day, count in counts.items() if not count]
    if not has_date(pipeline.recordings.prefix) and any(counts.values()):
        # All days have one prefix. It has recordings, so of the other days there are none; only a day to come is odd.
        empty = [day for day in empty if absence.is_to_come(day, pipeline)]
    findings = [absence.no_recordings(bucket, pipeline, day) for day in empty]
    for finding in findings:
        print_finding(finding)
    return any(finding.health is Health.BAD for finding in findings)
