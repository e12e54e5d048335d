"""Where commands print to: the answer to standard output, all else to standard error."""

from __future__ import annotations

import datetime as dt
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from callphases.errors import ConfigurationError
from callphases.inspection import showing
from callphases.inspection.findings import Finding, Health

# No markup: names and summaries may contain brackets. The width is for files and pipes, which have none.
console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 140)
"""Standard output: a command's answer and nothing else."""
errors = Console(stderr=True, markup=False, highlight=False, emoji=False)
"""Standard error: errors and logs."""
notes = Console(stderr=True, markup=False, highlight=False, emoji=False)
"""Standard error: how far a command is, and what it waits for; silent with -q."""


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"


Days = Annotated[
    list[dt.datetime],
    typer.Option("--date", formats=["%Y-%m-%d"], help="A day of calls, such as 2026-11-20. Can be repeated."),
]


def answer(text: str) -> None:
    """Print text to standard output as it is."""
    console.file.write(text)
    console.file.flush()


def print_finding(finding: Finding) -> None:
    """Print one line: a mark, what was checked, and the details."""
    style = {Health.GOOD: "green", Health.UNSURE: "yellow", Health.BAD: "red"}[finding.health]
    # One line each, even if an object's name contains a line feed.
    console.print(
        Text.assemble((finding.health.value, style), " ", showing.printable(f"{finding.what}: {finding.detail}")),
        soft_wrap=True,
    )


def write(path: Path, text: str) -> None:
    """Write a file, and the folders that it is in.

    Raises:
        ConfigurationError: it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be written: {error.strerror}") from None
