"""What all commands have: -q and -v, only the answer on standard output, logs on standard error, exit codes."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_type_hints

import typer

from callphases.cli import console as consoles

EXIT_CODES = "Exit codes: 0 fine, 1 failed or not fine, 2 wrong usage, 130 interrupted."
"""The last line of every command's help."""
INTERRUPTED = 130
"""As a shell has it for a program that Ctrl-C ends: 128 and the number of the signal."""
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the answer and errors.")]
Verbose = Annotated[
    int,
    typer.Option("--verbose", "-v", count=True, show_default=False, help="Log what is done; -vv: libraries' logs too."),
]


class _Log(logging.Handler):
    """Prints a log line to standard error, above a progress bar if one is there."""

    def emit(self, record: logging.LogRecord) -> None:
        """See the class."""
        try:
            consoles.errors.print(f"{record.levelname.lower()}: {record.getMessage()}", soft_wrap=True)
        except Exception:  # a log line must not end a command
            self.handleError(record)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` as a command, with -q and -v; what it or a library prints or logs goes to standard error.

    Its answer is what it prints to ``console``.
    """

    def run(*, context: typer.Context, quiet: bool, verbose: int, **options: Any) -> None:
        consoles.console.file = sys.stdout
        with contextlib.redirect_stdout(sys.stderr), _logs((context.obj or 0) + verbose - quiet):
            try:
                function(**options)
            except KeyboardInterrupt:
                consoles.errors.print("Interrupted.")
                raise typer.Exit(INTERRUPTED) from None

    hints = get_type_hints(function, include_extras=True)
    own = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, one in inspect.signature(function).parameters.items()
    ]
    more = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet),
        inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=Verbose),
    ]
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__annotations__ = {one.name: one.annotation for one in (*own, *more)}
    run.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]  # typer reads it
    return run


@contextlib.contextmanager
def _logs(verbosity: int) -> Iterator[None]:
    """Log to standard error: callphases' warnings; with -v what it does, with -vv what libraries say, too."""
    libraries = logging.INFO if verbosity > 1 else logging.ERROR
    ours, everything, handler = logging.getLogger("callphases"), logging.getLogger(), _Log()
    before = ours.level, ours.propagate, everything.level
    # Airflow sets up logging when it is imported.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", logging.getLevelName(libraries))
    for logger in (ours, everything):
        logger.addHandler(handler)
    ours.propagate = False
    ours.setLevel(logging.ERROR if verbosity < 0 else logging.INFO if verbosity > 0 else logging.WARNING)
    everything.setLevel(libraries)
    consoles.notes.quiet = verbosity < 0
    with warnings.catch_warnings():
        if verbosity < 2:
            warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger in (ours, everything):
                logger.removeHandler(handler)
            ours.setLevel(before[0])
            ours.propagate = before[1]
            everything.setLevel(before[2])
            consoles.notes.quiet = False
