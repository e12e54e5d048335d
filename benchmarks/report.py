"""Reports the results as a table, as JSON, and as a chart."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, number

Results = Mapping[str, Sequence[Figure]]
OVER_BOUND, CORE_MS = "makespan over the bound", "core-ms a call"
"""Prefixes of the figures that the chart shows."""


def table(results: Results) -> Table:
    """Create the table of all scenarios."""
    drawn = Table(title="callphases bench", title_justify="left")
    for name in ("scenario", "figure", "measured", "target", "", "note"):
        drawn.add_column(name, justify="right" if name in ("measured", "target") else "left", overflow="fold")
    for scenario, figures in results.items():
        for index, figure in enumerate(figures):
            style = {"met": "green", "missed": "red"}.get(figure.verdict, "")
            drawn.add_row(
                "" if index else scenario,
                figure.name,
                f"{number(figure.value)} {figure.unit}".strip(),
                "" if figure.target is None else str(figure.target),
                f"[{style}]{figure.verdict}[/]" if style else "",
                figure.note,
                end_section=index == len(figures) - 1,
            )
    return drawn


def write(results: Results, about: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``bench.json``, ``bench.txt`` and, if there is a night, ``bench.png``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "bench.json", folder / "bench.txt"]
    document = {
        **about,
        "scenarios": {
            name: [{**asdict(figure), "target": str(figure.target or "") or None, "verdict": figure.verdict or None}
                   for figure in figures]
            for name, figures in results.items()
        },
    }  # fmt: skip
    paths[0].write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    with paths[1].open("w") as out:
        Console(file=out, width=150).print(table(results))
    if bars := [name for name, figures in results.items() if _find(figures, OVER_BOUND) or _find(figures, CORE_MS)]:
        paths.append(folder / "bench.png")
        _draw({name: results[name] for name in bars}, paths[2])
    return paths


def machine() -> dict[str, Any]:
    """Describe the machine and the time of the measurement."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1024**3, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "airflow": version("apache-airflow"),
    }


def _find(figures: Sequence[Figure], beginning: str) -> list[Figure]:
    return [figure for figure in figures if figure.name.startswith(beginning) and figure.value is not None]


def _draw(results: Results, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, (left, right) = pyplot.subplots(1, 2, figsize=(13, 1.5 + 0.45 * len(results)), layout="constrained")
    bars = [(name, figure) for name, figures in results.items() for figure in _find(figures, OVER_BOUND)]
    labels = [f"{name}{figure.name.removeprefix(OVER_BOUND)}" for name, figure in bars]
    values = [figure.value or 0.0 for _, figure in bars]
    left.barh(labels, values, color="#3b6ea5")
    for row, (_, figure) in enumerate(bars):
        left.annotate(f" {number(figure.value)}", (figure.value or 0.0, row), va="center", fontsize=8)
        if figure.target is not None:
            left.plot([figure.target.value] * 2, [row - 0.4, row + 0.4], color="#c0392b", linewidth=2)
    left.set(title="Makespan over the bound of the services (red: target)", xscale="log")
    left.invert_yaxis()
    parts = sorted({figure.name for figures in results.values() for figure in _find(figures, CORE_MS)})
    nights = [name for name, figures in results.items() if _find(figures, CORE_MS)]
    before = [0.0] * len(nights)
    for part in parts:
        heights = [
            next((figure.value or 0.0 for figure in results[night] if figure.name == part), 0.0) for night in nights
        ]
        right.barh(nights, heights, left=before, label=part.removeprefix(CORE_MS).lstrip(": "))
        before = [low + height for low, height in zip(before, heights, strict=True)]
    right.set(title="Core-milliseconds a call")
    right.invert_yaxis()
    if parts:
        right.legend(fontsize=8)
    drawn.savefig(path, dpi=120)
    pyplot.close(drawn)
