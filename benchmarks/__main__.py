"""``python -m benchmarks``: runs scenarios, prints a table, and writes it to ``.callphases/bench``."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.bench import FOLDER, bench
from benchmarks.figures import Figure
from benchmarks.processes import Broken, say
from benchmarks.report import machine, table, write
from benchmarks.scenarios import SCENARIOS, Scenario


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios; returns 1 if one broke. A missed target is not an error but shown in the table."""
    asked = _parser().parse_args(arguments)
    if asked.list:
        for scenario in SCENARIOS.values():
            say(f"{scenario.name:18} {scenario.minutes:3g} min  {scenario.about}")
        return 0
    if unknown := set(asked.scenarios) - set(SCENARIOS):
        raise SystemExit(f"Unknown scenario: {', '.join(sorted(unknown))}; see python -m benchmarks --list")
    chosen = [scenario for name, scenario in SCENARIOS.items() if not asked.scenarios or name in asked.scenarios]
    say(f"==> {len(chosen)} scenarios, about {sum(one.minutes for one in chosen) + 1:.0f} minutes on two cores")
    results: dict[str, list[Figure]] = {}
    broken: dict[str, str] = {}
    paths: list[Path] = []
    about = {**machine(), "scale": asked.scale, "broken": broken}
    for _ in _measure(chosen, asked.scale, results, broken):
        paths = write(results, about, FOLDER)  # after each scenario, so that an interrupted benchmark keeps its results
    Console(width=None if sys.stdout.isatty() else 150).print(table(results))
    for name, mistake in broken.items():
        say(f"BROKEN {name}: {mistake}")
    say(f"==> Written: {', '.join(str(path) for path in paths)}")
    return 1 if broken else 0


def _measure(
    chosen: Sequence[Scenario], scale: float, results: dict[str, list[Figure]], broken: dict[str, str]
) -> Iterator[None]:
    """Run the scenarios one by one; each adds its figures to ``results`` or its error to ``broken``."""
    nights = [night for scenario in chosen for night in scenario.nights]
    pipelines = {night.name: night.pipeline for night in nights}
    dag_ids = {night.dag_id for night in nights} | {scenario.dag_id for scenario in chosen if scenario.dag_id}
    with bench(pipelines, dag_ids, scale) as ready:
        for scenario in chosen:
            say(f"==> {scenario.name}: {scenario.about}")
            began = time.monotonic()
            try:
                figures = scenario.measure(ready, results)
            except Broken as mistake:
                broken[scenario.name] = str(mistake)
                say(f"    BROKEN: {mistake}")
            else:
                # Targets apply to full-size scenarios only.
                results[scenario.name] = (
                    figures if scale == 1 else [dataclasses.replace(figure, target=None) for figure in figures]
                )
            say(f"    measured in {time.monotonic() - began:.0f} s")
            yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures nightly runs on the real stack (Airflow's processes; Postgres if it is installed) and "
        "alternatives, against scripted services on this machine. All scenarios take 35 to 40 minutes on two cores "
        "that also run the test servers.",
        epilog='With make: make bench ONLY="night-5000 rivals"',
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="scenarios to run; default: all")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="scale for trying the benchmark: 0.02 turns 5,000 calls into 100"
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        raise SystemExit("\n==> Interrupted; all processes are stopped.") from None
