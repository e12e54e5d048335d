"""Baselines for segmentation: guesses from the phases of the other calls, and a few rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from callphases.scoring.labelled import LabelledCall, PredictedCall
from callphases.scoring.metrics import Span

NEED = re.compile(
    r"\b(i need|i want|i['’]?d like|i would like|i was wondering|i['’]?m calling|calling (about|because|to)|i lost|"
    r"i can['’]?t|i cannot|can you|could you|can i|problem|issue|trouble|wrong|broken|not working|doesn['’]?t|"
    r"hasn['’]?t|never arrived|charged|locked|cancel|change|refund|order|schedule|check)\b",
    re.IGNORECASE,
)
CLOSING = re.compile(
    r"\b(anything else|something else|good ?bye|bye|have a (good|great|nice|lovely)|thank(s| you) for calling|"
    r"thank you (so|very) much|that['’]?s all|that is all|that['’]?ll be all)\b",
    re.IGNORECASE,
)

Guess = Callable[[LabelledCall, Sequence[LabelledCall]], list[Span]]
"""Predicts a call's phases from the call without its labels and from the other calls with theirs."""


def floors(calls: Sequence[LabelledCall]) -> dict[str, list[PredictedCall | None]]:
    """Return each baseline's predictions for labeled calls, of which at least two must have phases."""
    labelled = [call for call in calls if call.phases]
    ways: dict[str, Guess] = {"always the longest phase": _longest, "mean proportions": _proportions, "rules": _rules}
    return {
        name: [
            PredictedCall(call.call_id, "", tuple(way(call, [other for other in labelled if other is not call])))
            if call.phases
            else None
            for call in calls
        ]
        for name, way in ways.items()
    }


def _longest(call: LabelledCall, others: Sequence[LabelledCall]) -> list[Span]:
    """Predict one phase: the one that lasts longest in the other calls."""
    shares = _shares(others)
    return [Span(max(shares, key=lambda name: shares[name]), 0.0, call.end_s)]


def _proportions(call: LabelledCall, others: Sequence[LabelledCall]) -> list[Span]:
    """Predict the other calls' phases with their mean shares, ordered by their mean positions."""
    places: dict[str, list[float]] = {}
    for other in others:
        for span in other.phases:
            places.setdefault(span.name, []).append((span.start_s + span.end_s) / 2 / other.end_s)
    shares = _shares(others)
    spans, begun = [], 0.0
    for name in sorted(shares, key=lambda name: sum(places[name]) / len(places[name])):
        spans.append(Span(name, begun * call.end_s, (begun + shares[name]) * call.end_s))
        begun += shares[name]
    return spans


def _rules(call: LabelledCall, _: Sequence[LabelledCall]) -> list[Span]:
    """Start Complaint where the caller states a need, Resolution at the agent's next turn, Goodbye at closing words.

    Unless a speaker is labeled ``agent``, the first speaker is taken for the agent.
    """
    cues = [cue for cue in call.cues if cue.text.strip()]
    if not cues:
        return [Span("Introduction", 0.0, call.end_s)]
    agent = "agent" if any(cue.speaker == "agent" for cue in cues) else cues[0].speaker
    callers = [cue for cue in cues if cue.speaker != agent]
    need = next((cue for cue in callers if NEED.search(cue.text)), callers[0] if callers else cues[0])
    act = next((cue for cue in cues if cue.number > need.number and cue.speaker == agent), None)
    begun_s = act.start_s if act is not None else need.start_s
    end = next((cue for cue in cues if cue.start_s > begun_s and CLOSING.search(cue.text)), None)
    starts = [("Introduction", 0.0), ("Complaint", need.start_s)]
    starts += [("Resolution", act.start_s)] if act is not None else []
    starts += [("Goodbye", end.start_s)] if end is not None else []
    # Scoring ends each span where the next one starts.
    return [Span(name, start_s, call.end_s) for name, start_s in starts]


def _shares(calls: Sequence[LabelledCall]) -> dict[str, float]:
    """Return the mean share of each phase; the shares add up to 1."""
    shares: dict[str, float] = {}
    for call in calls:
        for span in call.phases:
            shares[span.name] = shares.get(span.name, 0.0) + (span.end_s - span.start_s) / call.end_s / len(calls)
    return shares
