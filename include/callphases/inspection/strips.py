"""A picture of calls as coloured strips on a time axis, one colour for each phase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from callphases.errors import ConfigurationError
from callphases.pipeline import OTHER

# Okabe and Ito's palette, told apart by colour-blind readers too; Other and silence are grey.
COLOURS = ["#56B4E9", "#D55E00", "#009E73", "#F0E442", "#CC79A7", "#0072B2", "#E69F00"]
GREY, LIGHT_GREY = "#999999", "#E5E5E5"
MOST_CALLS = 200
"""A picture of more could not be looked at; the first ones are drawn."""


def colours_of(phase_names: Iterable[str]) -> dict[str, str]:
    """A colour for each name of a phase, in the order in which they come; ``Other`` is grey and last."""
    found = dict.fromkeys(phase_names)
    names = [name for name in found if name != OTHER]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    return colours | ({OTHER: GREY} if OTHER in found else {})


def draw(calls: Sequence[dict[str, Any]], phases: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw rows of ``calls``, from top to bottom and up to ``MOST_CALLS``, with their rows of ``phases`` into a PNG.

    Raises:
        ConfigurationError: matplotlib is not installed, or the file can't be written.
    """
    shown = calls[:MOST_CALLS]
    figure, axes = canvas([_label(call) for call in shown], row_inches=0.42)
    colours = colours_of(phase["phase_name"] for phase in phases)
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
                color=colours[phase["phase_name"]],
                edgecolor="white",
                linewidth=1,
                height=0.7,
            )
        if not parts:
            axes.barh(row, call["duration_s"] or 0, color=LIGHT_GREY, height=0.7)
            axes.text(0.4, row, call["failure_class"] or call["status"], va="center", fontsize=8, color="#555555")
    axes.set_xlabel("seconds since the call began")
    save(figure, axes, colours, path)


def canvas(labels: Sequence[str], row_inches: float) -> tuple[Any, Any]:
    """An empty picture with a labelled row for each call, the first on top: matplotlib's figure and axes.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("Drawing needs matplotlib: pip install 'callphases[demo]'.") from None
    figure = Figure(figsize=(11, 1.4 + row_inches * len(labels)), dpi=130 if len(labels) <= 100 else 80)
    axes = figure.add_subplot()
    axes.set_yticks(range(len(labels)), [plain(label) for label in labels], fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def save(figure: Any, axes: Any, colours: Mapping[str, str], path: Path) -> None:
    """Add a legend of names and their colours, and write the picture as a PNG.

    Raises:
        ConfigurationError: the file can't be written.
    """
    axes.legend(
        [axes.barh(0, 0, color=colour) for colour in colours.values()],
        [plain(name) for name in colours],
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncol=max(len(colours), 1),
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: the picture can't be written: {error}") from None


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a bare dollar begins a formula."""
    return text.replace("$", r"\$")


def _label(call: dict[str, Any]) -> str:
    name = call["recording_uri"].rsplit("/", 1)[-1]
    short = name if len(name) <= 32 else name[:31] + "…"
    return f"{call['call_started_at']:%m-%d} {short}"
