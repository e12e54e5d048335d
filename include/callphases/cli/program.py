"""The program ``callphases``: its commands and its own options."""

from __future__ import annotations

from typing import Annotated

import typer

from callphases import __version__
from callphases.cli.archive import archive
from callphases.cli.backfill import backfill
from callphases.cli.command import EXIT_CODES, Quiet, Verbose, command
from callphases.cli.console import errors
from callphases.cli.doctor import doctor
from callphases.cli.init import init
from callphases.cli.plan import plan
from callphases.cli.replay import replay
from callphases.cli.run import run
from callphases.cli.score import score
from callphases.cli.show import show
from callphases.cli.sql import sql
from callphases.errors import CallphasesError

CREDENTIALS = (
    "Credentials. Speech service and language models: ASSEMBLYAI_API_KEY (LLM_GATEWAY_URL and CALLPHASES_LLM_KEY for "
    "models elsewhere), else the pipeline's Airflow connections. S3: boto3's settings (AWS_PROFILE, AWS_ACCESS_KEY_ID, "
    "AWS_ENDPOINT_URL, …) if ASSEMBLYAI_API_KEY or AWS_PROFILE is set, else the pipeline's Airflow connection if there "
    "is one, else boto3's settings."
)
app = typer.Typer(
    no_args_is_help=True,
    help="Start, inspect and repair what callphases does.",
    epilog=f"{CREDENTIALS}\n\n{EXIT_CODES}",
)
for function in (init, doctor, plan, run, backfill, archive, replay, show, sql, score):
    app.command(epilog=EXIT_CODES)(command(function))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"callphases {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Options of the program itself; the help text is the app's."""
    context.obj = verbose - quiet


def main() -> None:
    """Run the command line; a CallphasesError is printed as one line, and the exit code is 1."""
    try:
        app()
    except CallphasesError as error:
        errors.print(f"error: {error}", soft_wrap=True, style="red")
        raise SystemExit(1) from None
