"""``callphases sql``: table definitions for warehouses, and questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from callphases.cli.console import answer, notes
from callphases.inspection import definitions
from callphases.pipeline import load


def sql(
    pipeline_file: Annotated[
        Path | None, typer.Argument(help="A pipeline file: its output.tables and its own columns are put in.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="athena, bigquery, clickhouse, datafusion, duckdb, redshift, snowflake, spark or trino.")
    ] = "",
    put: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="The value of another placeholder, such as database=support."),
    ] = None,
    questions: Annotated[bool, typer.Option("--questions", help="List the ten questions instead.")] = False,
    question: Annotated[
        str | None, typer.Option(help="Print one of the questions, by its number or name; all prints all of them.")
    ] = None,
) -> None:
    """Print the definitions of the tables for a warehouse, or the questions that come with them."""
    if questions or (question is not None and engine):
        _questions(definitions.questions(engine or definitions.engines()[0]), question)
        return
    if not engine:
        raise typer.BadParameter(f"Give --engine: {', '.join(definitions.engines())}.")
    filled = dict(_pair(one) for one in put or ())
    text = definitions.definition(engine, load(pipeline_file) if pipeline_file else None, filled)
    answer(text)
    if left := definitions.placeholders(text):
        names = ", ".join(f"{{{name}}}" for name in left)
        tables = " (tables: by naming a pipeline file)" if "tables" in left else ""
        notes.print(f"Still to be filled in, with --set NAME=VALUE{tables}: {names}.", soft_wrap=True)


def _questions(known: dict[str, str], wanted: str | None) -> None:
    if wanted is None:
        for name, text in known.items():
            answer(f"{name}: {text.partition(chr(10))[0].removeprefix('-- ')}\n")
        return
    number = f"{int(wanted):02}_" if wanted.isdecimal() else wanted
    chosen = [text for name, text in known.items() if wanted == "all" or name == wanted or name.startswith(number)]
    if not chosen:
        raise typer.BadParameter(f"--question: there is no {wanted}; there are: {', '.join(known)}.")
    answer("\n".join(f"{text.rstrip().removesuffix(';')};\n" for text in chosen))


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise typer.BadParameter(f"--set: expected NAME=VALUE, not {text!r}.")
    return name.strip("{}"), value
