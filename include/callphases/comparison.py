"""A picture of scored calls: for each a pair of strips, the labelled phases above the predicted ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from callphases.errors import ConfigurationError
from callphases.pipeline import OTHER
from callphases.scorecard import ScoredCall
from callphases.scoring import UNLABELLED, Span, fitted
from callphases.strips import COLOURS, GREY, LIGHT_GREY

MOST_CALLS = 200
"""A picture of more could not be looked at; the first ones are drawn."""


def draw(calls: Sequence[ScoredCall], path: Path) -> None:
    """Draw calls from top to bottom, up to ``MOST_CALLS``, into a PNG.

    Raises:
        ConfigurationError: matplotlib is not installed, or the file can't be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("Drawing needs matplotlib: pip install 'callphases[demo]'.") from None
    drawn = [(call, _strips(call)) for call in calls[:MOST_CALLS]]
    found = dict.fromkeys(span.name for _, pair in drawn for strip in pair for span in strip)
    names = [name for name in found if name not in (OTHER, UNLABELLED)]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    colours |= {OTHER: GREY, UNLABELLED: LIGHT_GREY}
    figure = Figure(figsize=(11, 1.4 + 0.6 * len(drawn)), dpi=130 if len(drawn) <= 100 else 80)
    axes = figure.add_subplot()
    for row, (_, pair) in enumerate(drawn):
        for place, strip in enumerate(pair):
            for span in strip:
                axes.barh(
                    row + (-0.2, 0.18)[place],
                    span.end_s - span.start_s,
                    left=span.start_s,
                    color=colours[span.name],
                    edgecolor="white",
                    linewidth=0.8,
                    height=(0.42, 0.3)[place],
                )
    axes.set_yticks(range(len(drawn)), [_label(call) for call, _ in drawn], fontsize=8)
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlabel("seconds since the call began; above what is labelled, below what is predicted")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    shown = [*names, *(name for name in (OTHER, UNLABELLED) if name in found)]
    axes.legend(
        [axes.barh(0, 0, color=colours[name]) for name in shown],
        [_plain(name or "no phase") for name in shown],
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncol=max(len(shown), 1),
        frameon=False,
        fontsize=9,
    )
    figure.tight_layout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: the picture can't be written: {error}") from None


def _strips(call: ScoredCall) -> tuple[Sequence[Span], Sequence[Span]]:
    end_s = call.labelled.end_s
    return call.labelled.phases, fitted(call.predicted.phases if call.predicted is not None else (), end_s)


def _label(call: ScoredCall) -> str:
    name = call.labelled.call_id
    short = name if len(name) <= 30 else name[:29] + "…"
    return _plain(f"{short}  {call.score.accuracy:.2f}")


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a bare dollar begins a formula
