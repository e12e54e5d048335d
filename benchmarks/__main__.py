"""``python -m benchmarks``: measures what is asked for, prints one table, and writes it below ``.callphases/bench``."""

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
    """Measure; returns 0 unless something broke. A target that is missed is no error, it is in the table."""
    asked = _parser().parse_args(arguments)
    if asked.list:
        for scenario in SCENARIOS.values():
            say(f"{scenario.name:18} {scenario.minutes:3g} min  {scenario.about}")
        return 0
    if unknown := set(asked.scenarios) - set(SCENARIOS):
        raise SystemExit(f"There is no scenario {', '.join(sorted(unknown))}; see python -m benchmarks --list")
    chosen = [scenario for name, scenario in SCENARIOS.items() if not asked.scenarios or name in asked.scenarios]
    say(
        f"==> {len(chosen)} scenarios, some {sum(scenario.minutes for scenario in chosen) + 1:.0f} minutes on two cores"
    )
    results: dict[str, list[Figure]] = {}
    broken: dict[str, str] = {}
    paths: list[Path] = []
    about = {**machine(), "scale": asked.scale, "broken": broken}
    for _ in _measure(chosen, asked.scale, results, broken):
        paths = write(results, about, FOLDER)  # each time: a bench that is interrupted leaves what it has
    Console(width=None if sys.stdout.isatty() else 150).print(table(results))
    for name, mistake in broken.items():
        say(f"BROKEN {name}: {mistake}")
    say(f"==> Written: {', '.join(str(path) for path in paths)}")
    return 1 if broken else 0


def _measure(
    chosen: Sequence[Scenario], scale: float, results: dict[str, list[Figure]], broken: dict[str, str]
) -> Iterator[None]:
    """Fill in the figures of each scenario, or why it has none, one by one."""
    pipelines = {scenario.name: scenario.night.pipeline for scenario in chosen if scenario.night}
    dag_ids = {scenario.dag_id for scenario in chosen if scenario.dag_id}
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
                # Targets are for the sizes that they were set for.
                results[scenario.name] = (
                    figures if scale == 1 else [dataclasses.replace(figure, target=None) for figure in figures]
                )
            say(f"    measured in {time.monotonic() - began:.0f} s")
            yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures nights on the real stack (Airflow's processes, Postgres where there is one) against "
        "scripted services on this machine, beside other ways of doing them. All of it takes 35 to 40 minutes on two "
        "cores, which carry the test servers too.",
        epilog='With make: make bench ONLY="night-5000 rivals"',
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="what to measure; without any, everything")
    parser.add_argument("--list", action="store_true", help="say which scenarios there are")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="make nights smaller, to try the bench: 0.02 is 100 calls of 5,000"
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        raise SystemExit("\n==> Interrupted; everything that was started is ended.") from None
