"""The command line: ``callphases plan`` (what a run would do), ``replay`` (failed calls again), ``show`` (a day or a
call), ``score`` (how good phases are), and ``doctor`` (whether all that a run needs is there).
"""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import boto3
import typer
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from callphases import __version__, assemblyai, showing
from callphases.assemblyai import AssemblyAI
from callphases.doctor import Finding, Health, examine
from callphases.errors import AccountError, CallphasesError, ConfigurationError, DayHeld, ServiceUnavailable
from callphases.gateway import Gateway, gateway_beside
from callphases.index import ByDay
from callphases.labelled import LabelledCall, PredictedCall, read_labelled, read_predicted
from callphases.ledger import read_day
from callphases.night import ALL_FAILED, Night
from callphases.phases import unsettled
from callphases.pipeline import Pipeline, load, load_all, pipeline_files, pipeline_folder, sharing
from callphases.predictions import Spent, asked, matched, pipeline_of, published
from callphases.recordings import Listing, Recording
from callphases.scorecard import document, remarks, scorecard
from callphases.scorecard import tables as card_tables
from callphases.segmentation import Segmenter
from callphases.storage import Folder
from callphases.tables import published_days

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_T = TypeVar("_T")
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Look at what callphases does. S3 is reached as boto3 is set up (AWS_PROFILE, AWS_ENDPOINT_URL, …).",
)
# No markup: names and summaries may hold brackets. A file or a pipe has no width of its own.
console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 140)
errors = Console(stderr=True, markup=False, highlight=False, emoji=False)

Days = Annotated[
    list[dt.datetime],
    typer.Option(
        "--date", formats=["%Y-%m-%d"], help="A day of calls, such as 2026-11-20; may be given several times."
    ),
]


class Form(StrEnum):
    """What ``show`` prints."""

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
    """Say what a run of the pipeline would do for a day, without doing it.

    The bucket is always listed anew: an index of an archive is neither read nor written.
    """
    pipeline = load(pipeline_file)
    s3 = _s3()
    state = Folder(s3, pipeline.output.state, "output.state")
    for day, recordings in _days(s3, pipeline, [moment.date() for moment in date]):
        known, since = read_day(state, day), dt.datetime.now(dt.UTC)
        listed = todo = size = 0
        for recording in recordings:
            listed += 1
            if unsettled([recording], pipeline, known, since):
                todo += 1
                size += recording.size
        console.print(f"{day}: {listed} recordings, {todo} to do ({size / 1e6:.1f} MB), {listed - todo} done before")


@app.command()
def replay(
    date: Days,
    pipeline_file: Annotated[
        Path | None,
        typer.Argument(help="A pipeline file; may be left out where the pipelines' folder has only one."),
    ] = None,
    failure_class: Annotated[
        list[str] | None,
        typer.Option("--class", help="Only calls with this failure_class; may be given several times."),
    ] = None,
) -> None:
    """Run a day's failed calls again, here and now, and publish the day.

    With ASSEMBLYAI_API_KEY (and ASSEMBLYAI_BASE_URL, LLM_GATEWAY_URL where they are not the vendor's) S3 is reached as
    boto3 is set up; without, everything is reached by the pipeline's Airflow connections. In Airflow the same is a run
    with the Param replay: all, or failure classes with commas between.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=errors)])
    night = _night(load(pipeline_file) if pipeline_file else _only_pipeline())
    classes = ",".join(failure_class) if failure_class else ALL_FAILED
    unfinished, problem = False, None
    for day in (moment.date() for moment in date):
        run_id = f"replay__{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S}"
        listed = _patiently(night.begin, day, run_id, classes)
        for number, uri in enumerate(listed.chunks, start=1):
            chunk = night.load(uri)
            console.print(f"{day}: {len(chunk.recordings)} calls, part {number} of {len(listed.chunks)}")
            try:
                _patiently(night.transcribe, chunk, math.inf)
                _patiently(night.segment, chunk)
            except (AccountError, ServiceUnavailable) as error:
                problem = error  # the day is published as it is, and free for the next run
                break
        done = _patiently(night.end, night.load_day(listed.day))
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
            help="A pipeline file, its output.tables (s3://…), or a folder with a copy of what is there.",
        ),
    ],
    date: Annotated[
        list[dt.datetime] | None,
        typer.Option(formats=["%Y-%m-%d"], help="A day of calls, such as 2026-11-20; may be given several times."),
    ] = None,
    call: Annotated[
        str | None,
        typer.Option(help="Only this call: its call_id, or its recording's name or URI. Without --date, its last day."),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="table; csv: a line for each phase; json: a line for each call.")
    ] = Form.TABLE,
    output: Annotated[
        Path | None, typer.Option(help="Write CSV or JSON into this file in place of printing it.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Also draw the calls as strips on a time axis, into this file.")
    ] = None,
) -> None:
    """Show a day's calls, or one call: each phase with its times and its summary, and a strip for each call.

    On a terminal the strips have the colours of the picture; with NO_COLOR, and in files, they are of letters. CSV has
    a line for each phase, and one for a call without phases. JSON has a line for each call: the columns of calls, dt,
    and phases, a list. Times are ISO 8601, numbers have all their digits.
    """
    if not date and call is None:
        raise typer.BadParameter("Give --date or --call.")
    if output is not None and form is Form.TABLE:
        raise typer.BadParameter("--output is for --format csv and json.")
    if source.endswith((".yaml", ".yml")) and Path(source).is_file():
        tables = _source(load(Path(source)).output.tables, "output.tables")
    else:
        tables = _source(source, "the argument TABLES")
    days = [moment.date() for moment in date or ()]
    calls = showing.of_days(tables, days) if call is None else showing.find(tables, call, days)
    # What is said besides goes where it is in nobody's data.
    said = console if form is Form.TABLE else errors
    if not calls:
        of = f" of {', '.join(map(str, days))}" if days else ""
        what = "calls" if call is None else f"call {call}"
        said.print(f"{source} holds no {what}{of}.", soft_wrap=True)
        raise typer.Exit(1)
    if form is Form.TABLE:
        console.print(showing.table(calls, whole=call is not None))
        for line in showing.strips(calls, console.width, bool(console.color_system) and not console.no_color):
            console.print(line, soft_wrap=True)
    else:
        write = showing.write_csv if form is Form.CSV else showing.write_json
        text = io.StringIO()
        write(calls, text)
        if output is None:
            typer.echo(text.getvalue(), nl=False)
        else:
            _write(output, text.getvalue())
            errors.print(f"Written: {output}", soft_wrap=True)
    if png is not None:
        from callphases.strips import MOST_CALLS, draw

        draw(calls, [phase for one in calls for phase in one["phases"]], png)
        of = f" (the first {MOST_CALLS} calls)" if len(calls) > MOST_CALLS else ""
        said.print(f"Drawn into {png}{of}", soft_wrap=True)


@app.command()
def doctor(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PIPELINE_FILE…", help="Pipeline files; without, those that Airflow makes Dags of."),
    ] = None,
    days: Annotated[
        int,
        typer.Option(min=1, help="How many days back a recording is looked for, and published days are looked into."),
    ] = 30,
) -> None:
    """Say whether all that a run needs is there: ✓, ✗ with the remedy, – for what can't be told. Pays for nothing.

    Looked at are the pipeline file, the connections, the models' names, the clock, the buckets and the rights to them,
    a presigned URL, and whether the published days fit the schema. Everything is reached as by replay. Ends with 1
    where anything is ✗.
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
            mistakes = [f"{pipeline_folder()} holds no pipeline file: copy one there, or name its folder."]
    ended_bad = bool(mistakes)
    for mistake in mistakes:
        _tell(Finding(Health.BAD, "pipeline file", mistake))
    for pipeline in pipelines:
        _tell(Finding(Health.GOOD, f"pipeline {pipeline.pipeline}", "Its file is valid."))
        if mixed := sharing(pipeline, pipelines):
            said = f"{', '.join(mixed)} publishes below {pipeline.output.tables} too: give each an output.tables alone."
            _tell(Finding(Health.BAD, f"pipeline {pipeline.pipeline}", said))
            ended_bad = True
        for finding in examine(pipeline, partial(_store, pipeline), partial(_services, pipeline), days):
            ended_bad |= finding.health is Health.BAD
            _tell(finding)
    if ended_bad:
        raise typer.Exit(1)


@app.command()
def score(
    labelled: Annotated[list[Path], typer.Argument(help="Labelled calls: folders and files, one JSON file a call.")],
    tables: Annotated[
        str | None, typer.Option(help="Score published days: output.tables (s3://…), or a folder with a copy of it.")
    ] = None,
    date: Annotated[
        list[dt.datetime] | None,
        typer.Option(formats=["%Y-%m-%d"], help="A day of --tables; may be given several times. Without, all days."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Score a language model: have it divide the labelled calls' own cues.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The OpenAI-compatible gateway of --model; without, that of your account.")
    ] = None,
    pipeline_file: Annotated[
        Path | None,
        typer.Option("--pipeline", help="A pipeline file, for its phases and their descriptions, with --model."),
    ] = None,
    phases: Annotated[
        list[Path] | None, typer.Option(help="Score phases in files, one JSON file a call: folders and files.")
    ] = None,
    only_matched: Annotated[
        bool, typer.Option("--only-matched", help="Leave calls without a prediction out; they count as wrong else.")
    ] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Also write all figures into this file; - prints them instead.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Also draw each call: labelled phases above predicted ones, into this file.")
    ] = None,
    fail_under: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="End with 1 where the mean accuracy is less than this.")
    ] = None,
) -> None:
    """Say how good phases are, against labelled calls.

    The key of a gateway is read from CALLPHASES_LLM_KEY, else ASSEMBLYAI_API_KEY. docs/scoring.md tells what each
    figure means.
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
        predicted, spent = _asked(truth, model, url, pipeline_file)
    else:
        found = read_predicted(phases) if phases else _published(tables or "", date)
        predicted = matched(truth, found)
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
        from callphases.comparison import draw

        draw(card.calls, png)
    for path in (json_file if json_file != "-" else None, png):
        if path is not None:
            errors.print(f"Written: {path}", soft_wrap=True)
    if fail_under is not None and card.means["accuracy"].mean < fail_under:
        errors.print(f"Mean accuracy {card.means['accuracy'].mean:.4f} is less than {fail_under:g}.", style="red")
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; an error of ours is one line and exit code 1."""
    try:
        app()
    except CallphasesError as error:
        errors.print(f"error: {error}", soft_wrap=True, style="red")
        raise SystemExit(1) from None


def _tell(finding: Finding) -> None:
    style = {Health.GOOD: "green", Health.UNSURE: "yellow", Health.BAD: "red"}[finding.health]
    # One line each, whatever an object is called.
    console.print(
        Text.assemble((finding.health.value, style), " ", showing.printable(f"{finding.what}: {finding.said}")),
        soft_wrap=True,
    )


def _days(s3: S3Client, pipeline: Pipeline, days: Sequence[dt.date]) -> Iterator[tuple[dt.date, Iterable[Recording]]]:
    """The recordings of some days; a flat archive is listed once for all of them."""
    source = pipeline.recordings
    if source.dated:
        for day in days:
            yield day, Listing(s3, pipeline, source.prefix_of(day))
        return
    found = ByDay(pipeline, Listing(s3, pipeline, source.prefix))
    for day in days:
        yield day, found.recordings_of(day)
    found.close()


def _patiently(step: Callable[..., _T], *arguments: Any) -> _T:
    """Do a step of a run, once no other run has the day."""
    while True:
        try:
            return step(*arguments)
        except DayHeld as held:
            console.print(str(held))
            time.sleep(min(held.wait_s, 15.0))


def _only_pipeline() -> Pipeline:
    pipelines, mistakes = load_all()
    if len(pipelines) != 1:
        names = ", ".join(path.name for path in pipeline_files()) or "none"
        raise ConfigurationError(f"Name a pipeline file; there are: {names}. {' '.join(mistakes.values())}".strip())
    return pipelines[0]


def _night(pipeline: Pipeline) -> Night:
    service, gateway = _services(pipeline)
    return Night(pipeline, _store(pipeline), service, gateway)


def _services(pipeline: Pipeline) -> tuple[AssemblyAI, Gateway]:
    if key := os.environ.get("ASSEMBLYAI_API_KEY"):
        speech = os.environ.get("ASSEMBLYAI_BASE_URL", assemblyai.DEFAULT_URL)
        gateway = Gateway(key, os.environ.get("LLM_GATEWAY_URL") or gateway_beside(speech))
        return AssemblyAI(key, speech), gateway
    try:
        from callphases.airflow.hook import AssemblyAIHook
    except ImportError:
        raise ConfigurationError("Set ASSEMBLYAI_API_KEY, or install Airflow and define its connections.") from None
    return AssemblyAIHook(pipeline.connections.assemblyai).get_clients()


def _store(pipeline: Pipeline) -> S3Client:
    if os.environ.get("ASSEMBLYAI_API_KEY"):
        return _s3()
    try:
        from callphases.airflow.hook import s3_client
    except ImportError:
        return _s3()
    return s3_client(pipeline.connections.aws)


def _s3() -> S3Client:
    try:
        return boto3.client("s3", config=Config(signature_version="s3v4"))
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"S3 can't be set up: {error}") from None


def _asked(
    truth: Sequence[LabelledCall], model: str, url: str | None, pipeline_file: Path | None
) -> tuple[list[PredictedCall], Spent]:
    key = (os.environ.get("CALLPHASES_LLM_KEY") or os.environ.get("ASSEMBLYAI_API_KEY") or "").strip()
    if not key:
        raise ConfigurationError("Set CALLPHASES_LLM_KEY, or ASSEMBLYAI_API_KEY, to the gateway's key.")
    speech = os.environ.get("ASSEMBLYAI_BASE_URL", assemblyai.DEFAULT_URL)
    base = url or os.environ.get("LLM_GATEWAY_URL") or gateway_beside(speech)
    # Others name the base of an OpenAI-compatible API with its version.
    gateway = Gateway(key, base.rstrip("/").removesuffix("/v1"))
    pipeline = pipeline_of(model, load(pipeline_file) if pipeline_file is not None else None)
    return asked(truth, Segmenter(gateway, pipeline))


def _published(tables: str, date: Sequence[dt.datetime] | None) -> list[PredictedCall]:
    source = _source(tables, "--tables")
    days = list(dict.fromkeys(moment.date() for moment in date)) if date else published_days(source, "phases")
    return published(source, days)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be written: {error.strerror}") from None


def _source(tables: str, setting: str) -> Folder | Path:
    if tables.startswith("s3://"):
        return Folder(_s3(), tables if tables.endswith("/") else f"{tables}/", setting)
    return Path(tables)
