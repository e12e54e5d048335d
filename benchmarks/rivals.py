"""Measures the alternatives at sizes that take minutes, and scales them to the size of a callphases night."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.accounting import Accounting
from benchmarks.airflow import COMPONENTS
from benchmarks.bench import Bench
from benchmarks.bound import Service, bound_s
from benchmarks.figures import Figure, Target
from benchmarks.processes import Broken, measured, say
from benchmarks.report import OVER_BOUND
from benchmarks.services import KEY, RECORDINGS

DAG_ID = "one_task_per_recording"
SERVICE = Service()


def measure(bench: Bench, ours: Sequence[Figure] | None, full_size: int, slower: Target) -> list[Figure]:
    """Measure each alternative.

    Args:
        bench: with a running Airflow.
        ours: the figures of a callphases night of ``full_size`` calls on the same services, if measured.
        full_size: number of calls to scale to.
        slower: target for how many times slower than callphases one task per recording is.
    """
    makespan_s = next((figure.value for figure in ours or () if figure.name == "makespan"), None)
    figures: list[Figure] = []
    programs = (("guide's loop", "benchmarks.ways.loop", 12), ("official SDK", "benchmarks.ways.sdk", 200))
    for name, module, calls in programs:
        say(f"    {name}, {calls} calls")
        took_s, more = _program(bench, name, module, calls)
        figures += _scaled(name, calls, took_s, 0.0, full_size, makespan_s, None)
        figures += more
    calls = 80
    say(f"    one mapped task per recording, {calls} calls")
    took_s, start_s, more = _mapped(bench, calls)
    figures += _scaled("one task per recording", calls, took_s, start_s, full_size, makespan_s, slower)
    return figures + more


def _scaled(
    name: str, calls: int, took_s: float, start_s: float, full_size: int, ours_s: float | None, target: Target | None
) -> Iterator[Figure]:
    """Scale a makespan to ``full_size`` calls: the start counts once, the rest grows with the calls."""
    scaled_s = start_s + (took_s - start_s) * full_size / calls
    bound = bound_s(SERVICE, full_size, full_size)
    scaled = f"scaled from {calls} calls"
    yield Figure(f"{name}: makespan of {calls} calls", took_s, "s")
    yield Figure(f"{name}: makespan of {full_size:,} calls", scaled_s, "s", note=scaled)
    yield Figure(f"{OVER_BOUND} {name}", scaled_s / bound, note=f"{scaled}; bound {bound:.1f} s")
    if ours_s is not None:
        yield Figure(f"{name}: times slower than callphases", scaled_s / ours_s, target=target, note=scaled)


def _program(bench: Bench, name: str, module: str, calls: int) -> tuple[float, list[Figure]]:
    """Run an alternative that is a program; returns its makespan and its figures."""
    with bench.services(SERVICE) as services:
        services.fill("ways/", calls, "%Y-%m-%d/")
        s3 = services.s3()
        keys = [item["Key"] for item in s3.list_objects_v2(Bucket=RECORDINGS, Prefix="ways/")["Contents"]]
        urls = [s3.generate_presigned_url("get_object", {"Bucket": RECORDINGS, "Key": key}) for key in keys]
        task = {"speech_url": bench.ports.speech_url, "key": KEY, "urls": urls}
        used = measured(module, task, bench.folder / "logs" / f"{module}.log")
        figures = list(_requests(name, services.health(), calls))
    figures.append(Figure(f"{name}: core-ms a call", used.core_s / calls * 1000, note="including its imports"))
    figures.append(Figure(f"{name}: largest process", used.peak_mb, "MB"))
    return float(used.said["makespan_s"]), figures


def _mapped(bench: Bench, calls: int) -> tuple[float, float, list[Figure]]:
    """Run the Dag; returns its makespan, the time until its first recording starts, and its figures."""
    with bench.services(SERVICE) as services:
        services.fill("ways/", calls, "%Y-%m-%d/")
        with Accounting(bench.airflow.pids) as used:
            run = bench.airflow.run(DAG_ID, {"prefix": "ways/"}, 900)
        if run.state != "success":
            raise Broken(f"{DAG_ID} ended as {run.state!r}; see the logs of its tasks below {bench.folder}")
        figures = list(_requests("one task per recording", services.health(), calls))
    name = "one task per recording"
    figures.append(Figure(f"{name}: core-ms a call", used.of(*COMPONENTS) / calls * 1000, note="all of Airflow"))
    figures.append(Figure(f"{name}: worker-slot seconds a call", run.slot_s / calls))
    return run.makespan_s, bench.airflow.first_start_s(run, "calls.transcribe"), figures


def _requests(name: str, health: dict[str, Any], calls: int) -> Iterator[Figure]:
    asked = health.get("requests")
    if asked:
        yield Figure(f"{name}: provider requests a call", sum(asked.values()) / calls)
