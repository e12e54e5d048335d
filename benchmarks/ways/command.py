"""Runs an alternative as a program: a JSON task on standard input, its makespan on standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.processes import peak_mb


@dataclass(frozen=True)
class Task:
    """Presigned URLs of recordings, and the service to send them to."""

    speech_url: str
    key: str
    urls: list[str]


def run(process: Callable[[Task], list[str]]) -> None:
    """Process the task from standard input; the makespan excludes Python's start and imports."""
    task = Task(**json.load(sys.stdin))
    began = time.monotonic()
    answers = process(task)
    if len(answers) != len(task.urls) or not all('"phases"' in answer for answer in answers):
        raise SystemExit("not every call was answered")
    sys.stdout.write(json.dumps({"makespan_s": time.monotonic() - began, "peak_mb": peak_mb()}) + "\n")
