"""The program ``callphases``: its commands and its own options."""

from __future__ import annotations

from typing import Annotated

import typer

from callphases import __version__
from callphases.cli.backfill import backfill
from callphases.cli.console import errors
from callphases.cli.doctor import doctor
from callphases.cli.plan import plan
from callphases.cli.replay import replay
from callphases.cli.score import score
from callphases.cli.show import show
from callphases.errors import CallphasesError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Inspect and repair what callphases does. S3 is configured as for boto3 (AWS_PROFILE, AWS_ENDPOINT_URL, …).",
)
for command in (plan, backfill, replay, show, doctor, score):
    app.command()(command)


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


def main() -> None:
    """Run the command line; a CallphasesError is printed as one line, and the exit code is 1."""
    try:
        app()
    except CallphasesError as error:
        errors.print(f"error: {error}", soft_wrap=True, style="red")
        raise SystemExit(1) from None
