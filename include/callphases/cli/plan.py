"""``callphases plan``: what a run of a day would do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from callphases.cli.console import Days, console, print_finding
from callphases.connections import s3_of
from callphases.date_prefixes import has_date
from callphases.inspection import absence
from callphases.inspection.call_times import CallTimes
from callphases.inspection.findings import Health
from callphases.inspection.paid_again import PaidAgain
from callphases.listing.archive import Archive
from callphases.listing.listing import Listing
from callphases.pipeline import Pipeline, load
from callphases.progress import DayPass, Progress
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import read_ledger_day
from callphases.state.storage import ObjectPrefix


def plan(
    pipeline_file: Annotated[Path, typer.Argument(help="A pipeline file, such as include/pipelines/support.yaml.")],
    date: Days,
) -> None:
    """Show what a run of the pipeline would do for a day, without doing it, and how the times of calls are read.

    Always lists the bucket, an archive once for all days; its index is not written. Exits with 1 if nothing is there
    for any of the days because nothing at all is below the prefix, or because they are still to come.
    """
    pipeline = load(pipeline_file)
    s3 = s3_of(pipeline)
    bucket = RecordingBucket(s3, pipeline.recordings.bucket)
    state = ObjectPrefix(s3, pipeline.output.state, "output.state")
    keys, times = RecordingKeys(pipeline), CallTimes(pipeline)
    counts: dict[dt.date, int] = {}
    for day, recordings in _listed(bucket, pipeline, state, [moment.date() for moment in date], times):
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


def _listed(
    bucket: RecordingBucket, pipeline: Pipeline, state: ObjectPrefix, days: Sequence[dt.date], times: CallTimes
) -> Iterator[tuple[dt.date, Iterable[Recording]]]:
    """The recordings of each day; an archive is listed once for all of them."""
    source = pipeline.recordings
    if source.is_daily:
        for day in days:
            yield day, Listing(bucket, pipeline, source.prefix_of(day), unmatched=times.unmatched)
        return
    found = Archive(bucket, pipeline, state).survey(days, times.unmatched, times.dayless)
    for day in days:
        yield day, found.recordings_of(day)
    found.close()


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
