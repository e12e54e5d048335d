"""The command line: ``callphases plan``, ``backfill``, ``replay``, ``show``, ``doctor`` and ``score``."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from callphases import __version__
from callphases.clock import SYSTEM_CLOCK
from callphases.connections import gateway_to_score, s3_of, services_of, tables_at
from callphases.date_prefixes import has_date
from callphases.day_run import ALL_FAILED, DayRun
from callphases.errors import AccountError, CallphasesError, ConfigurationError, DayHeld, ServiceUnavailable
from callphases.inspection import absence, showing
from callphases.inspection.call_times import CallTimes
from callphases.inspection.doctor import examine
from callphases.inspection.findings import Finding, Health
from callphases.inspection.paid_again import PaidAgain
from callphases.listing.archive import Archive
from callphases.listing.listing import Listing
from callphases.pipeline import Pipeline, load, load_all, pipeline_files, pipeline_folder, sharing
from callphases.progress import DayPass, Progress
from callphases.recordings import Recording
from callphases.scoring.labelled import LabelledCall, PredictedCall, read_labelled, read_predicted
from callphases.scoring.predictions import Spent, matched, pipeline_of, predict, published
from callphases.scoring.scorecard import document, remarks, scorecard
from callphases.scoring.scorecard import tables as card_tables
from callphases.segmentation.segmenter import Segmenter
from callphases.state.bucket import RecordingBucket
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import read_ledger_day
from callphases.state.s3 import client_from_environment
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import published_days

LONGEST_WAIT_S = 15.0
"""Between two attempts to take a day that another run has."""
_T = TypeVar("_T")
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Inspect and repair what callphases does. S3 is configured as for boto3 (AWS_PROFILE, AWS_ENDPOINT_URL, …).",
)
# No markup: names and summaries may contain brackets. The width is for files and pipes, which have none.
console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 140)
errors = Console(stderr=True, markup=False, highlight=False, emoji=False)

Days = Annotated[
    list[dt.datetime],
    typer.Option("--date", formats=["%Y-%m-%d"], help="A day of calls, such as 2026-11-20. Can be repeated."),
]


class Reprocess(StrEnum):
    """Which days that have a run ``backfill`` runs again."""

    NONE = "none"
    FAILED = "failed"
    COMPLETED = "completed"


class Form(StrEnum):
    """The output format of ``show``."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"callphases {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself; the help text is the app's."""


@app.command()
def plan(
    pipeline_file: Annotated[Path, typer.Argument(help="A pipeline file, such as include/pipelines/support.yaml.")],
    date: Days,
) -> None:
    """Show what a run of the pipeline would do for a day, without doing it, and how the times of calls are read.

    Always lists the bucket, an archive once for all days; its index is not written. Exits with 1 if nothing is there
    for any of the days because nothing at all is below the prefix, or because they are still to come.
    """
    pipeline = load(pipeline_file)
    s3 = client_from_environment()
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
        _print_finding(finding)
    if _explain_empty_days(bucket, pipeline, counts):
        raise typer.Exit(1)


@app.command()
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


@app.command()
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
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=errors)])
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


@app.command()
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
    tables, pipeline = tables_at(source, "the argument TABLES")
    days = list(dict.fromkeys(moment.date() for moment in date or ()))
    calls = showing.calls_of_days(tables, days) if call is None else showing.find_calls(tables, call, days)
    # Messages must not mix with CSV or JSON on standard output.
    messages = console if form is Form.TABLE else errors
    if not calls:
        messages.print(absence.no_calls(source, tables, pipeline, days, call), soft_wrap=True)
        raise typer.Exit(1)
    if call is None and (empty := [day for day in days if day not in {one["dt"] for one in calls}]):
        errors.print(absence.no_calls(source, tables, pipeline, empty), soft_wrap=True)
    if form is Form.TABLE:
        console.print(showing.table(calls, whole=call is not None))
        for line in showing.strips(calls, console.width, bool(console.color_system) and not console.no_color):
            console.print(line, soft_wrap=True)
    else:
        text = io.StringIO()
        if form is Form.CSV:
            showing.write_csv(calls, text, raw=raw)
        else:
            showing.write_json(calls, text)
        if output is None:
            typer.echo(text.getvalue(), nl=False)
        else:
            _write(output, text.getvalue())
            errors.print(f"Written: {output}", soft_wrap=True)
    if png is not None:
        from callphases.inspection.strips import MOST_CALLS, draw

        draw(calls, [phase for one in calls for phase in one["phases"]], png)
        only = f" (the first {MOST_CALLS} calls)" if len(calls) > MOST_CALLS else ""
        messages.print(f"Written: {png}{only}", soft_wrap=True)


@app.command()
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
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=errors)])
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
        _print_finding(Finding(Health.BAD, "pipeline file", mistake))
    for pipeline in pipelines:
        _print_finding(Finding(Health.GOOD, f"pipeline {pipeline.pipeline}", "Its file is valid."))
        if others := sharing(pipeline, pipelines):
            detail = (
                f"{', '.join(others)} publishes below {pipeline.output.tables} too: give each its own output.tables."
            )
            _print_finding(Finding(Health.BAD, f"pipeline {pipeline.pipeline}", detail))
            is_bad = True
        for finding in examine(pipeline, partial(s3_of, pipeline), partial(services_of, pipeline), days):
            is_bad |= finding.health is Health.BAD
            _print_finding(finding)
    if is_bad:
        raise typer.Exit(1)


@app.command()
def score(
    labelled: Annotated[list[Path], typer.Argument(help="Labelled calls: folders and files, one JSON file per call.")],
    tables: Annotated[
        str | None,
        typer.Option(
            help="Score published days: a pipeline file, its output.tables (s3://…), or a folder with a copy."
        ),
    ] = None,
    date: Annotated[
        list[dt.datetime] | None,
        typer.Option(formats=["%Y-%m-%d"], help="A day of --tables. Can be repeated. Default: all days."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Score a language model: have it segment the labelled calls by their own cues.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The OpenAI-compatible gateway of --model. Default: that of your account.")
    ] = None,
    pipeline_file: Annotated[
        Path | None,
        typer.Option("--pipeline", help="A pipeline file, whose phases and descriptions --model is given."),
    ] = None,
    phases: Annotated[
        list[Path] | None, typer.Option(help="Score phases in files: folders and files, one JSON file per call.")
    ] = None,
    only_matched: Annotated[
        bool,
        typer.Option("--only-matched", help="Leave out calls without a prediction. By default they count as wrong."),
    ] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Also write all figures to this file; - prints them instead.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Also draw each call, labelled phases above predicted ones, to this file.")
    ] = None,
    fail_under: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Exit with 1 if the mean accuracy is less than this.")
    ] = None,
) -> None:
    """Score phases against labelled calls.

    The gateway's key is read from CALLPHASES_LLM_KEY (sent as a bearer token, except to AssemblyAI), else
    ASSEMBLYAI_API_KEY (sent as it is). docs/scoring.md explains each figure.
    """
    if sum(source is not None for source in (tables, model, phases or None)) != 1:
        raise typer.BadParameter("Give one of --tables, --model and --phases.")
    for option, value, needed, other in (
        ("--date", date, "--tables", tables),
        ("--url", url, "--model", model),
        ("--pipeline", pipeline_file, "--model", model),
    ):
        if value and other is None:
            raise typer.BadParameter(f"{option} is for {needed}.")
    truth = read_labelled(labelled)
    predicted: Sequence[PredictedCall | None]
    spent, unlabelled = None, 0
    if model is not None:
        predicted, spent = _predict(truth, model, url, pipeline_file)
    else:
        found = read_predicted(phases) if phases else _published(tables or "", date)
        predicted = matched(truth, found)
        if not any(predicted):
            raise ConfigurationError(
                f"None of the {len(truth)} labelled calls is among the {len(found)} predicted ones: their call_id or "
                f"recording must be the same. The first are {truth[0].call_id!r} and {found[0].call_id!r}."
            )
        unlabelled = len(found) - sum(one is not None for one in predicted)
    card = scorecard(truth, predicted, only_matched=only_matched, unlabelled=unlabelled, spent=spent)
    if json_file == "-":
        typer.echo(json.dumps(document(card), indent=1, ensure_ascii=False))
    else:
        for part in card_tables(card):
            console.print(part)
        for remark in remarks(card):
            console.print(remark, soft_wrap=True)
        if json_file is not None:
            _write(Path(json_file), json.dumps(document(card), indent=1, ensure_ascii=False) + "\n")
    if png is not None:
        from callphases.scoring.comparison import draw

        draw(card.calls, png)
    for path in (json_file if json_file != "-" else None, png):
        if path is not None:
            errors.print(f"Written: {path}", soft_wrap=True)
    if fail_under is not None and not card.means["accuracy"].mean >= fail_under:  # nor if that is not a number
        errors.print(f"Mean accuracy {card.means['accuracy'].mean:.4f} is less than {fail_under:g}.", style="red")
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a CallphasesError is printed as one line, and the exit code is 1."""
    try:
        app()
    except CallphasesError as error:
        errors.print(f"error: {error}", soft_wrap=True, style="red")
        raise SystemExit(1) from None


def _print_finding(finding: Finding) -> None:
    style = {Health.GOOD: "green", Health.UNSURE: "yellow", Health.BAD: "red"}[finding.health]
    # One line each, even if an object's name contains a line feed.
    console.print(
        Text.assemble((finding.health.value, style), " ", showing.printable(f"{finding.what}: {finding.detail}")),
        soft_wrap=True,
    )


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
        _print_finding(finding)
    return any(finding.health is Health.BAD for finding in findings)


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


def _predict(
    truth: Sequence[LabelledCall], model: str, url: str | None, pipeline_file: Path | None
) -> tuple[list[PredictedCall], Spent]:
    gateway = gateway_to_score(url)
    pipeline = pipeline_of(model, load(pipeline_file) if pipeline_file is not None else None)
    return predict(truth, Segmenter(gateway, pipeline))


def _published(place: str, date: Sequence[dt.datetime] | None) -> list[PredictedCall]:
    tables, pipeline = tables_at(place, "--tables")
    known = sorted({*published_days(tables, "calls"), *published_days(tables, "phases")})
    days = list(dict.fromkeys(moment.date() for moment in date)) if date else known
    missing = [day for day in days if day not in known]
    if missing or not days:
        message = absence.no_calls(place, tables, pipeline, missing)
        if missing == days:
            raise ConfigurationError(message)
        errors.print(message, soft_wrap=True)
    return published(tables, days)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be written: {error.strerror}") from None
