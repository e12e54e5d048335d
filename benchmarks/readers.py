"""Measures the pages: the first one of a day of 10,000 calls, and what twenty readers do to Airflow's own API.

A reader looks at a page and then opens the next, of the day's calls or of one of them. The readers run in a process of
their own, ``python -m benchmarks.readers``, which reads its task from standard input.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import re
import sys
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import psutil

from benchmarks import bulk
from benchmarks.bench import Bench
from benchmarks.bound import Service
from benchmarks.figures import Figure, at_most
from benchmarks.processes import MB, Broken, measured, peak_mb, say
from benchmarks.services import DAY

MODULE = "benchmarks.readers"
CALLS = 10_000
READERS = 20
LOOKS_S = 10.0
"""How long a reader looks at a page, on average."""
TURNS = 6
TURN_S = 30.0
"""With and without readers by turns, so that other load on the machine affects both."""
EVERY_S = 0.1
"""How often Airflow's API is asked."""
PAGES = 9
"""Pages that are opened one after the other after the first."""


class Readers:
    """The scenario, with the pipeline that Airflow must have."""

    name = "bulk"
    dag_id = "call_phases_bulk"

    @property
    def pipeline(self) -> dict[str, Any]:
        """Content of the pipeline file."""
        return {**bulk.bulk_document(), "schedule": None}

    def measure(self, bench: Bench) -> list[Figure]:
        """Publish the day, open its page, then ask Airflow's API with and without readers.

        Raises:
            Broken: a page or the API did not answer.
        """
        with bench.services(Service()):
            bulk.publish_calls(bench, bench.scaled(CALLS))
            server = _Server(bench.airflow.url, _token(bench))
            day = f"/callphases/dags/{self.dag_id}/days/{DAY}"
            first = self._first_page(bench, server, day)
            calls = re.findall(
                rf'href="[^"]*(/callphases/dags/{self.dag_id}/days/{DAY}/calls/[^"?#]+)"', server.get(day)
            )
            task = {"url": server.url, "token": server.token, "pages": [day, *dict.fromkeys(calls)][:200]}
            return first + self._api(bench, server, task)

    def _first_page(self, bench: Bench, server: _Server, day: str) -> list[Figure]:
        memory = _Memory(bench.airflow.pids["api-server"])
        server.get("/api/v2/version")
        before_mb = memory.peak_mb()
        first_s = _timed(server, day)
        later_s = [_timed(server, day) for _ in range(PAGES)]
        return [
            Figure("calls of the day", bench.scaled(CALLS)),
            Figure("first page after the server's start", first_s, "s", at_most(1)),
            Figure("page, later", median(later_s), "s", at_most(1), f"median of {PAGES}"),
            Figure("length of the page", len(server.get(day).encode()) / 1024, "KB", note="uncompressed"),
            Figure("memory that pages add to the API server", memory.peak_mb() - before_mb, "MB", at_most(200)),
        ]

    def _api(self, bench: Bench, server: _Server, task: Mapping[str, Any]) -> list[Figure]:
        paths = ["/api/v2/dags?limit=50", f"/api/v2/dags/{self.dag_id}", f"/api/v2/dags/{self.dag_id}/dagRuns"]
        _latencies(server, paths, 5.0)
        without: list[float] = []
        beside: list[float] = []
        read: list[dict[str, Any]] = []
        with ThreadPoolExecutor(1) as pool:
            for turn in range(TURNS):
                without += _latencies(server, paths, TURN_S)
                log = bench.folder / "logs" / f"readers-{turn}.log"
                readers = pool.submit(measured, MODULE, {**task, "seed": turn, "seconds": TURN_S + 2}, log)
                time.sleep(2)  # until they have started
                beside += _latencies(server, paths, TURN_S)
                read.append(readers.result().said)
        say(f"    {len(without)} requests without readers, {len(beside)} beside them")
        pages = sum(one["pages"] for one in read)
        if wrong := sum(one["wrong"] for one in read):
            raise Broken(f"{wrong} of {pages} pages did not answer 200; see {bench.folder / 'logs'}")
        return [
            Figure(
                "readers", READERS, note=f"each opens a page every {LOOKS_S:.0f} s on average: {pages} pages in all"
            ),
            Figure("page beside other readers", median(one["median_s"] for one in read), "s", note="median"),
            Figure("Airflow's API without readers", 1000 * mean(without), "ms", note="mean"),
            Figure(f"Airflow's API beside {READERS} readers", 1000 * mean(beside), "ms", note="mean"),
            Figure("API beside readers / without", mean(beside) / mean(without), target=at_most(1.1), note="of means"),
            Figure("… of medians", median(beside) / median(without)),
            Figure("… of 95th percentiles", quantiles(beside, n=20)[-1] / quantiles(without, n=20)[-1]),
        ]


class _Server:
    """A connection to Airflow's API server, kept open, of one user."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        where = urllib.parse.urlsplit(url)
        assert where.hostname is not None
        self._connection = http.client.HTTPConnection(where.hostname, where.port, timeout=120)

    def get(self, path: str) -> str:
        """The body of an answer.

        Raises:
            Broken: the status is not 200.
        """
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer = self._connection.getresponse()
        body = answer.read().decode(errors="replace")
        if answer.status != 200:
            raise Broken(f"GET {path}: {answer.status} {body[:300]}")
        return body


class _Memory:
    """The peak of the resident memory of a process and its children; Linux lets it start anew."""

    def __init__(self, pid: int) -> None:
        root = psutil.Process(pid)
        self._processes = [root, *root.children(recursive=True)]
        for process in self._processes:
            with suppress(OSError):
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """In MB (2**20 bytes); elsewhere, what they have now."""
        return sum(map(self._of, self._processes))

    def _of(self, process: psutil.Process) -> float:
        status = Path(f"/proc/{process.pid}/status")
        if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)):
            return int(found[1]) * 1024 / MB
        return float(process.memory_info().rss) / MB


def _token(bench: Bench) -> str:
    bench.airflow.call("GET", "/version")  # this gets one
    return str(bench.airflow.session.headers["Authorization"]).removeprefix("Bearer ")


def _timed(server: _Server, path: str) -> float:
    began = time.monotonic()
    server.get(path)
    return time.monotonic() - began


def _latencies(server: _Server, paths: Iterable[str], for_s: float) -> list[float]:
    """Ask for the paths in turn at a steady pace; returns how long each answer took, in seconds."""
    began, found = time.monotonic(), []
    for number, path in enumerate(itertools.cycle(paths)):
        due = began + number * EVERY_S
        if due > began + for_s:
            return found
        time.sleep(max(due - time.monotonic(), 0))
        found.append(_timed(server, path))
    raise AssertionError("cycle has no end")


def _read(task: dict[str, Any]) -> dict[str, Any]:
    """Be twenty readers, for some seconds."""
    until = time.monotonic() + task["seconds"]

    def reader(number: int) -> tuple[list[float], int]:
        rng = random.Random(f"{task['seed']} {number}")  # noqa: S311
        server, took_s, wrong = _Server(task["url"], task["token"]), [], 0
        day, *calls = task["pages"]
        time.sleep(rng.uniform(0, LOOKS_S))
        while time.monotonic() < until:
            try:
                took_s.append(_timed(server, rng.choice(calls) if calls and rng.random() < 0.5 else day))
            except Broken as mistake:
                sys.stderr.write(f"{mistake}\n")
                wrong += 1
            time.sleep(rng.uniform(0, 2 * LOOKS_S))
        return took_s, wrong

    with ThreadPoolExecutor(READERS) as pool:
        read = list(pool.map(reader, range(READERS)))
    took_s = [one for of_reader, _ in read for one in of_reader]
    wrong = sum(count for _, count in read)
    return {"pages": len(took_s) + wrong, "wrong": wrong, "median_s": median(took_s) if took_s else 0.0}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_read(json.load(sys.stdin)) | {"peak_mb": peak_mb()}) + "\n")
