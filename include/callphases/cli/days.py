"""Runs a day here and now, without a scheduler: for ``callphases run`` and ``callphases replay``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from callphases.cli.console import notes
from callphases.clock import SYSTEM_CLOCK
from callphases.day_run import DayRun
from callphases.errors import AccountError, ConfigurationError, DayHeld, ServiceUnavailable
from callphases.pipeline import Pipeline, load_all, pipeline_files
from callphases.recordings import counted
from callphases.replay import Replay
from callphases.state.manifests import Manifest
from callphases.tables.publishing import Published

LONGEST_WAIT_S = 15.0
"""Between two attempts to take a day that another run has, and between two looks at the jobs of all chunks."""
SHORTEST_WAIT_S = 1.0
LINE_EACH_S = 30.0
"""How often a line says how far a day is, where there is no terminal."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Done:
    """A day that was published; ``problem`` is what stopped the run before it was finished, if anything did."""

    day: dt.date
    published: Published
    problem: AccountError | ServiceUnavailable | None = None


def run_day(run: DayRun, day: dt.date, kind: str, replay: Replay | None = None) -> Done:
    """List a day, have its recordings transcribed and divided, and publish it; waits while another run has it.

    An error of the account or a service that is down ends the work, not the day: what there is is published, and the
    lease is released.

    Args:
        run: the pipeline's.
        day: of the calls.
        kind: what the run's id begins with.
        replay: as for ``DayRun.begin``.

    Raises:
        AccountError, ConfigurationError, ServiceUnavailable: the day could not be listed, or not be published.
    """
    run_id = f"{kind}__{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S}"
    listed = when_free(run.begin, day, run_id, replay)
    chunks = [run.load(uri) for uri in listed.chunks]
    problem: AccountError | ServiceUnavailable | None = None
    try:
        with _progress(day, sum(len(chunk.recordings) for chunk in chunks)) as progress:
            _work(run, chunks, progress)
    except (AccountError, ServiceUnavailable) as error:
        problem = error
    return Done(day, when_free(run.end, run.load_day(listed.day)), problem)


def _work(run: DayRun, chunks: Sequence[Manifest], progress: _Progress) -> None:
    """Take all chunks through the services: the jobs of all of them run at the service at the same time."""
    open_chunks = list(chunks)
    while open_chunks:
        soonest_s = LONGEST_WAIT_S
        for chunk in list(open_chunks):
            waiting = when_free(run.transcribe, chunk, 0.0)
            if waiting is not None:
                progress.transcribed[chunk.name] = len(chunk.recordings) - len(waiting.jobs) - waiting.unsent
                soonest_s = min(soonest_s, waiting.in_s)
            else:
                progress.transcribed[chunk.name] = len(chunk.recordings)
                progress.show()
                when_free(run.segment, chunk)
                progress.divided += len(chunk.recordings)
                open_chunks.remove(chunk)
            progress.show()
        if open_chunks:
            SYSTEM_CLOCK.sleep(max(soonest_s, SHORTEST_WAIT_S))


def when_free(step: Callable[..., _T], *arguments: Any) -> _T:
    """Do a step of a run as soon as no other run has the day."""
    said = ""
    while True:
        try:
            return step(*arguments)
        except DayHeld as held:
            if str(held) != said:
                said = str(held)
                notes.print(said, soft_wrap=True)
            SYSTEM_CLOCK.sleep(min(held.wait_s, LONGEST_WAIT_S))


def only_pipeline() -> Pipeline:
    """The pipeline of the folder that has only one.

    Raises:
        ConfigurationError: it has none, or more.
    """
    pipelines, mistakes = load_all()
    if len(pipelines) != 1:
        names = ", ".join(path.name for path in pipeline_files()) or "none"
        raise ConfigurationError(f"Name a pipeline file; there are: {names}. {' '.join(mistakes.values())}".strip())
    return pipelines[0]


@dataclass
class _Progress:
    """How far a day is; ``transcribed`` counts by chunk."""

    day: dt.date
    total: int
    transcribed: dict[str, int] = field(default_factory=dict)
    divided: int = 0
    bar: Progress | None = None
    said_at: float = 0.0

    def show(self) -> None:
        """Move the bar; without a terminal, print a line every so often."""
        transcribed = sum(self.transcribed.values())
        if self.bar is not None:
            for task, completed in zip(self.bar.task_ids, (transcribed, self.divided), strict=True):
                self.bar.update(task, completed=completed)
        elif SYSTEM_CLOCK.monotonic() - self.said_at > LINE_EACH_S or self.divided == self.total:
            self.said_at = SYSTEM_CLOCK.monotonic()
            notes.print(
                f"{self.day}: {transcribed} of {self.total} calls transcribed, {self.divided} divided into phases.",
                soft_wrap=True,
            )


@contextmanager
def _progress(day: dt.date, total: int) -> Iterator[_Progress]:
    if not notes.is_terminal or notes.quiet or not total:
        if total:
            notes.print(f"{day}: {counted(total, 'call')} to do.")
        yield _Progress(day, total, said_at=SYSTEM_CLOCK.monotonic())
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as bar:
        for what in ("calls transcribed", "calls divided into phases"):
            bar.add_task(f"{day}: {what}", total=total)
        yield _Progress(day, total, bar=bar)
