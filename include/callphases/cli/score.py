"""``callphases score``: phases compared with labeled calls."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from callphases.cli.console import answer, console, errors, write
from callphases.connections import gateway_to_score, tables_at
from callphases.errors import ConfigurationError
from callphases.inspection import absence
from callphases.pipeline import load
from callphases.scoring.labelled import LabelledCall, PredictedCall, read_labelled, read_predicted
from callphases.scoring.predictions import Spent, matched, pipeline_of, predict, published
from callphases.scoring.scorecard import document, remarks, scorecard
from callphases.scoring.scorecard import tables as card_tables
from callphases.segmentation.segmenter import Segmenter
from callphases.tables.reading import published_days


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
    ASSEMBLYAI_API_KEY (sent as it is), else the Airflow connection. docs/scoring.md explains each figure.
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
        answer(json.dumps(document(card), indent=1, ensure_ascii=False) + "\n")
    else:
        for part in card_tables(card):
            console.print(part)
        for remark in remarks(card):
            console.print(remark, soft_wrap=True)
        if json_file is not None:
            write(Path(json_file), json.dumps(document(card), indent=1, ensure_ascii=False) + "\n")
    if png is not None:
        from callphases.scoring.comparison import draw

        draw(card.calls, png)
    for path in (json_file if json_file != "-" else None, png):
        if path is not None:
            errors.print(f"Written: {path}", soft_wrap=True)
    if fail_under is not None and not card.means["accuracy"].mean >= fail_under:  # nor if that is not a number
        errors.print(f"Mean accuracy {card.means['accuracy'].mean:.4f} is less than {fail_under:g}.", style="red")
        raise typer.Exit(1)


def _predict(
    truth: Sequence[LabelledCall], model: str, url: str | None, pipeline_file: Path | None
) -> tuple[list[PredictedCall], Spent]:
    given = load(pipeline_file) if pipeline_file is not None else None
    return predict(truth, Segmenter(gateway_to_score(url, given), pipeline_of(model, given)))


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
