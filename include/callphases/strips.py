"""A picture of calls as coloured strips on a time axis, one colour for each phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from callphases.errors import ConfigurationError
from callphases.pipeline import OTHER

# Okabe and Ito's palette, told apart by colour-blind readers too; Other and silence are grey.
COLOURS = ["#56B4E9", "#D55E00", "#009E73", "#F0E442", "#CC79A7", "#0072B2", "#E69F00"]
GREY, LIGHT_GREY = "#999999", "#E5E5E5"


def draw(calls: Sequence[dict[str, Any]], phases: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw rows of ``calls``, from top to bottom, with their rows of ``phases`` into a PNG.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("Drawing needs matplotlib: pip install 'callphases[demo]'.") from None
    names = list(dict.fromkeys(phase["phase_name"] for phase in phases if phase["phase_name"] != OTHER))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)} | {OTHER: GREY}
    figure = Figure(figsize=(11, 1.4 + 0.42 * len(calls)), dpi=130)
    axes = figure.add_subplot()
    for row, call in enumerate(calls):
        parts = [phase for phase in phases if phase["call_id"] == call["call_id"]]
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
    axes.set_yticks(range(len(calls)), [_label(call) for call in calls], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the call began")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    drawn = {name: colour for name, colour in colours.items() if any(phase["phase_name"] == name for phase in phases)}
    axes.legend(
        [axes.barh(0, 0, color=colour) for colour in drawn.values()],
        [_plain(name) for name in drawn],
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncol=max(len(drawn), 1),
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _label(call: dict[str, Any]) -> str:
    name = call["recording_uri"].rsplit("/", 1)[-1]
    short = name if len(name) <= 32 else name[:31] + "…"
    return _plain(f"{call['call_started_at']:%m-%d} {short}")


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a bare dollar begins a formula
