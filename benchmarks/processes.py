"""Runs programs as separate processes: servers with a log each, and measured steps with their CPU time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
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
    """Part of the benchmark failed; the message names the log."""


def say(text: str = "") -> None:
    """Print a line without buffering."""
    print(text, flush=True)


def clean_environment() -> dict[str, str]:
    """Return the environment with this repository's packages and without settings of Airflow, AWS or callphases."""
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
    """A server that can be killed and restarted.

    Args:
        command: to run.
        log: file for its output.
        environment: its variables; by default ``clean_environment()``.
    """

    process: subprocess.Popen[str]

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command, self.log = command, log
        self.environment = dict(environment or clean_environment())

    @property
    def pid(self) -> int:
        """ID of the process that was started last."""
        return self.process.pid

    def start(self, announced_by: str | None = None) -> str:
        """Start the process and return the last word of the line that announces it.

        Args:
            announced_by: prefix of the first line on the standard output; None if the program announces nothing.

        Raises:
            Broken: the program did not start.
        """
        with self.log.open("a") as out:
            self.process = subprocess.Popen(  # noqa: S603 (all commands are the benchmark's own)
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
        """Send SIGKILL to the process and its descendants, as if the machine were lost."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in self._tree():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()

    def end(self) -> None:
        """Stop the process and its descendants: SIGTERM first, SIGKILL after 15 s."""
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = self._tree()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    announced_by: str | None = None,
) -> Iterator[tuple[Program, str]]:
    """Run a server inside the block; yields the program and the last word of its announcement.

    The arguments and errors are those of ``Program`` and ``Program.start``.
    """
    program = Program(command, log, environment)
    word = program.start(announced_by)
    try:
        yield program, word
    finally:
        program.end()


@dataclass(frozen=True)
class Used:
    """The last line of a program's output, parsed from JSON, and the program's CPU time in core-seconds."""

    said: dict[str, Any]
    core_s: float

    @property
    def peak_mb(self) -> float:
        """Peak memory in MB, as the program reports it in ``peak_mb``."""
        return float(self.said["peak_mb"])


def measured(module: str, given: Any, log: Path) -> Used:
    """Run a module of the benchmark as a program to its end, with ``given`` as JSON on its standard input.

    Raises:
        Broken: the program failed.
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
        # wait4 reports the usage of this child alone; getrusage(RUSAGE_CHILDREN) would add all earlier children.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not lines:
        raise Broken(f"{module} exited with {process.returncode}; see {log}")
    return Used(json.loads(lines[-1]), usage.ru_utime + usage.ru_stime)


def peak_mb() -> float:
    """Return this process's peak resident memory in MB (2**20 bytes).

    Linux reports it for the current program as VmHWM. ``ru_maxrss`` also includes the memory of the process from
    before it executed this program, so it is only used elsewhere.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024 / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MB


def wait_for(done: Callable[[], bool], limit_s: float, what: str, log: Path) -> None:
    """Wait until ``done()`` returns True.

    Raises:
        Broken: it did not within ``limit_s`` seconds.
    """
    give_up = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > give_up:
            raise Broken(f"{what} within {limit_s:.0f} s; see {log}")
        time.sleep(0.5)
