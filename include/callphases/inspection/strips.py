"""Draws calls as colored strips on a time axis, one color per phase name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from callphases.errors import ConfigurationError
from callphases.pipeline import OTHER

# Okabe and Ito's palette, which color-blind readers can tell apart too; Other and calls without phases are gray.
COLORS = ["#56B4E9", "#D55E00", "#009E73", "#F0E442", "#CC79A7", "#0072B2", "#E69F00"]
GRAY, LIGHT_GRAY = "#999999", "#E5E5E5"
MOST_CALLS = 200
"""Only the first calls are drawn; a picture of more would be illegible."""


def phase_colors(phase_names: Iterable[str]) -> dict[str, str]:
    """A color for each phase name, in order of appearance; ``Other`` is gray and comes last."""
    found = dict.fromkeys(phase_names)
    names = [name for name in found if name != OTHER]
    colors = {name: COLORS[number % len(COLORS)] for number, name in enumerate(names)}
    return colors | ({OTHER: GRAY} if OTHER in found else {})


def phase_letters(phase_names: Iterable[str]) -> dict[str, str]:
    """A letter for each phase name: its first one that is free, so the same names in the same order have the same."""
    letters: dict[str, str] = {}
    for name in phase_names:
        free = [one for one in name.upper() + name.lower() + "#*+=%&@" if one.isprintable() and one.strip()]
        letters[name] = next((one for one in free if one not in letters.values()), "?")
    return letters


def draw(calls: Sequence[dict[str, Any]], phases: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw rows of ``calls`` (the first ``MOST_CALLS``, from the top) with their rows of ``phases``, as a PNG file.

    Raises:
        ConfigurationError: matplotlib is not installed, or the file can't be written.
    """
    shown = calls[:MOST_CALLS]
    figure, axes = canvas([_label(call) for call in shown], row_inches=0.42)
    colors = phase_colors(phase["phase_name"] for phase in phases)
    of_call: dict[str, list[dict[str, Any]]] = {call["call_id"]: [] for call in shown}
    for phase in phases:
        of_call.get(phase["call_id"], []).append(phase)
    for row, call in enumerate(shown):
        parts = of_call[call["call_id"]]
        for phase in parts:
            axes.barh(
                row,
                phase["duration_s"],
                left=phase["start_s"],
                color=colors[phase["phase_name"]],
                edgecolor="white",
                linewidth=1,
                height=0.7,
            )
        if not parts:
            axes.barh(row, call["duration_s"] or 0, color=LIGHT_GRAY, height=0.7)
            axes.text(0.4, row, call["failure_class"] or call["status"], va="center", fontsize=8, color="#555555")
    axes.set_xlabel("seconds since the start of the call")
    save(figure, axes, colors, path)


def canvas(labels: Sequence[str], row_inches: float) -> tuple[Any, Any]:
    """matplotlib's figure and axes of an empty picture with one labelled row per call, the first at the top.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("Drawing needs matplotlib: pip install 'callphases[pictures]'.") from None
    figure = Figure(figsize=(11, 1.4 + row_inches * len(labels)), dpi=130 if len(labels) <= 100 else 80)
    axes = figure.add_subplot()
    axes.set_yticks(range(len(labels)), [escaped(label) for label in labels], fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def save(figure: Any, axes: Any, colors: Mapping[str, str], path: Path) -> None:
    """Add a legend of names and colors, and write the picture as a PNG file.

    Raises:
        ConfigurationError: the file can't be written.
    """
    axes.legend(
        [axes.barh(0, 0, color=color) for color in colors.values()],
        [escaped(name) for name in colors],
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncol=max(len(colors), 1),
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: the picture can't be written: {error}") from None


def escaped(text: str) -> str:
    """Escape ``text`` for matplotlib, which takes a bare dollar sign for the start of a formula."""
    return text.replace("$", r"\$")


def _label(call: dict[str, Any]) -> str:
    name = call["recording_uri"].rsplit("/", 1)[-1]
    short = name if len(name) <= 32 else name[:31] + "…"
    return f"{call['call_started_at']:%m-%d} {short}"
