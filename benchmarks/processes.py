"""Servers as processes of their own: started with a log each, known by name, and ended whatever happened."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
MB = 1024**2


class Broken(Exception):
    """Something of the bench did not work; the message names the log."""


def say(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)


def clean_environment() -> dict[str, str]:
    """This process's variables without what the shell is set up for (a bucket, an Airflow), and with our packages."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "AWS_", "CALLPHASES", "SPEECHBOX"))
    }
    return {
        **ours,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}",
        "PYTHONUNBUFFERED": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Program:
    """A server that can be killed and started again.

    Args:
        command: what to run.
        log: where its output goes.
        environment: its variables; ours where there are none.
    """

    process: subprocess.Popen[str]

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command, self.log = command, log
        self.environment = dict(environment or clean_environment())

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        return self.process.pid

    def start(self, announced_by: str | None = None) -> str:
        """Start it; returns the last word of the line that announced it.

        Args:
            announced_by: what its first line on the standard output begins with; None where it announces nothing.

        Raises:
            Broken: it did not start.
        """
        with self.log.open("a") as out:
            self.process = subprocess.Popen(  # noqa: S603 (a command of the bench's own)
                self.command,
                env=self.environment,
                stdout=subprocess.PIPE if announced_by else out,
                stderr=out,
                text=True,
                start_new_session=True,
                cwd=ROOT,
            )
        if announced_by is None:
            return ""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(announced_by):
            self.end()
            raise Broken(f"{self.command[0]} did not start; see {self.log}")
        return line.split()[-1]

    def kill(self) -> None:
        """Kill it with everything that it started, by -9: as where a machine is lost."""
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()

    def end(self) -> None:
        """End it, with everything that it started: politely first, then not."""
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(self.pid).children(recursive=True)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            for child in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.wait()


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    announced_by: str | None = None,
) -> Iterator[tuple[Program, str]]:
    """Run a server while the block lasts; gives it and the last word of the line that announced it.

    The arguments are those of ``Program`` and its ``start``, and so is what is raised.
    """
    program = Program(command, log, environment)
    word = program.start(announced_by)
    try:
        yield program, word
    finally:
        program.end()


@dataclass(frozen=True)
class Used:
    """What a program said in its last line (JSON, its ``peak_mb`` among it), and what it took."""

    said: dict[str, Any]
    core_s: float

    @property
    def peak_mb(self) -> float:
        """Its peak of memory, by its own account."""
        return float(self.said["peak_mb"])


def measured(module: str, given: Any, log: Path) -> Used:
    """Run a module of the bench as a program of its own until it ends, with ``given`` as JSON on its input.

    Raises:
        Broken: it failed.
    """
    with log.open("w") as errors, tempfile.TemporaryFile("w+") as task:
        json.dump(given, task)
        task.seek(0)
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module],
            stdin=task,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=clean_environment(),
            cwd=ROOT,
        )
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        # The account of this child alone.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not lines:
        raise Broken(f"{module} ended with {process.returncode}; see {log}")
    return Used(json.loads(lines[-1]), usage.ru_utime + usage.ru_stime)


def wait_for(done: Callable[[], bool], limit_s: float, what: str, log: Path) -> None:
    """Wait until ``done()`` is true.

    Raises:
        Broken: it was not within ``limit_s`` seconds.
    """
    give_up = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > give_up:
            raise Broken(f"{what} within {limit_s:.0f} s; see {log}")
        time.sleep(0.5)
