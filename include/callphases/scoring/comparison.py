"""Draws scored calls as pairs of strips: the labelled phases above the predicted ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from callphases.inspection.strips import LIGHT_GRAY, MOST_CALLS, canvas, phase_colors, save
from callphases.scoring.metrics import UNLABELLED, Span, fit_to_call
from callphases.scoring.scorecard import ScoredCall

NO_PHASE = "no phase"
"""The legend's name for time that a prediction gives no phase."""


def draw(calls: Sequence[ScoredCall], path: Path) -> None:
    """Draw the first ``MOST_CALLS`` calls, from the top, as a PNG file.

    Raises:
        ConfigurationError: matplotlib is not installed, or the file can't be written.
    """
    drawn = [(call, _strips(call)) for call in calls[:MOST_CALLS]]
    found = dict.fromkeys(span.name for _, pair in drawn for strip in pair for span in strip)
    colors = phase_colors(name for name in found if name != UNLABELLED)
    colors |= {NO_PHASE: LIGHT_GRAY} if UNLABELLED in found else {}
    figure, axes = canvas([_label(call) for call, _ in drawn], row_inches=0.6)
    for row, (_, pair) in enumerate(drawn):
        for place, strip in enumerate(pair):
            for span in strip:
                axes.barh(
                    row + (-0.2, 0.18)[place],
                    span.end_s - span.start_s,
                    left=span.start_s,
                    color=colors[span.name or NO_PHASE],
                    edgecolor="white",
                    linewidth=0.8,
                    height=(0.42, 0.3)[place],
                )
    axes.set_xlabel("seconds since the start of the call; labelled phases above, predicted phases below")
    save(figure, axes, colors, path)


def _strips(call: ScoredCall) -> tuple[Sequence[Span], Sequence[Span]]:
    end_s = call.labelled.end_s
    return call.labelled.phases, fit_to_call(call.predicted.phases if call.predicted is not None else (), end_s)


def _label(call: ScoredCall) -> str:
    name = call.labelled.call_id
    short = name if len(name) <= 30 else name[:29] + "…"
    return f"{short}  {call.score.accuracy:.2f}"
