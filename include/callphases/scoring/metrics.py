"""Metrics of predicted phases against labelled ones, for one call and over many.

Overlaps in time are computed exactly. Boundary metrics come from ``mir_eval`` and ``nltk``, which the extra
``score`` installs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from callphases.errors import ConfigurationError
from callphases.pipeline import OTHER

COLLAR_S = 3.0
"""A boundary counts as found if it is at most this far from the labelled one."""
GRID_S = 0.1
"""The length of the units that Pk and WindowDiff slide their window over."""
UNLABELLED = ""
"""The name of time that a prediction gives no phase. No label has it, so such time is always wrong."""
RESAMPLES, SEED = 2000, 0
"""Of the bootstrap. The seed is fixed, so equal scores have equal intervals."""
METRICS = ("accuracy", "mean_iou", "boundary_f1", "pk", "window_diff")


@dataclass(frozen=True)
class Span:
    """A phase as it is scored: its name, start and end, in seconds since the start of the call."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class CallScore:
    """One call's metrics, each from 0 to 1; 0 is the best ``pk`` and ``window_diff``, 1 the best of the others.

    ``seconds`` maps (labelled name, predicted name) to the time that has both.
    """

    accuracy: float
    mean_iou: float
    boundary_f1: float
    pk: float
    window_diff: float
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseScore:
    """One phase name's time over all calls. A ratio is None if its denominator is 0."""

    name: str
    labelled_s: float
    predicted_s: float
    both_s: float

    @property
    def precision(self) -> float | None:
        """The share of its predicted time that is labelled with it."""
        return _ratio(self.both_s, self.predicted_s)

    @property
    def recall(self) -> float | None:
        """The share of its labelled time that is predicted as it."""
        return _ratio(self.both_s, self.labelled_s)

    @property
    def iou(self) -> float | None:
        """Intersection over union."""
        return _ratio(self.both_s, self.labelled_s + self.predicted_s - self.both_s)


@dataclass(frozen=True)
class Mean:
    """A mean over calls, with its 95 % bootstrap confidence interval."""

    mean: float
    low: float
    high: float


def fit_to_call(spans: Iterable[Span], end_s: float, *, stretch: bool = True) -> list[Span]:
    """Sort phases by start and make them cover exactly 0 to ``end_s``.

    A phase ends at the latest where the next one starts. Time outside the call is cut off, adjacent phases with the
    same name are merged, and gaps become ``UNLABELLED``.

    Args:
        spans: phases in any order.
        end_s: the end of the call.
        stretch: end the last phase at ``end_s`` wherever it ended, since lengths of audio are rounded.
    """
    inside = sorted((span for span in spans if span.start_s < end_s), key=lambda span: span.start_s)
    ends = [min(span.end_s, after.start_s) for span, after in pairwise(inside)]
    ends += [end_s if stretch else min(inside[-1].end_s, end_s)] if inside else []
    found: list[Span] = []

    def add(name: str, start_s: float, until_s: float) -> None:
        if found and found[-1].name == name:
            start_s = found.pop().start_s
        found.append(Span(name, start_s, until_s))

    for span, until_s in zip(inside, ends, strict=True):
        start_s, covered_s = max(span.start_s, 0.0), found[-1].end_s if found else 0.0
        if until_s <= start_s:
            continue
        if covered_s < start_s:
            add(UNLABELLED, covered_s, start_s)
        add(span.name, start_s, until_s)
    if (covered_s := found[-1].end_s if found else 0.0) < end_s:
        add(UNLABELLED, covered_s, end_s)
    return found


def score_call(labelled: Sequence[Span], predicted: Sequence[Span], end_s: float) -> CallScore:
    """Score a call over 0 to ``end_s``.

    Args:
        labelled: phases that cover the call, as ``fit_to_call`` returns them.
        predicted: any phases; without any, the whole call is wrong.
        end_s: the end of the labelled call; greater than 0.

    Raises:
        ConfigurationError: a library of the extra ``score`` is not installed.
    """
    if not predicted:
        return CallScore(0.0, 0.0, 0.0, 1.0, 1.0, {(span.name, UNLABELLED): _length(span) for span in labelled})
    predicted = fit_to_call(predicted, end_s)
    seconds: dict[tuple[str, str], float] = {}
    for one in labelled:
        for other in predicted:
            both_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
            if both_s > 0:
                seconds[one.name, other.name] = seconds.get((one.name, other.name), 0.0) + both_s
    right_s = math.fsum(both_s for (name, other_name), both_s in seconds.items() if name == other_name)
    ious = [phase.iou or 0.0 for phase in by_phase([seconds]) if phase.labelled_s]
    return CallScore(
        accuracy=min(right_s / end_s, 1.0),
        mean_iou=math.fsum(ious) / len(ious),
        boundary_f1=_boundary_f1(labelled, predicted),
        seconds=seconds,
        **_windows(labelled, predicted, end_s),
    )


def by_phase(calls: Iterable[dict[tuple[str, str], float]]) -> list[PhaseScore]:
    """The score of each labelled or predicted phase name, over the ``seconds`` of calls; ``Other`` comes last."""
    total = confusion(calls)
    return [
        PhaseScore(
            name,
            math.fsum(seconds for (labelled, _), seconds in total.items() if labelled == name),
            math.fsum(seconds for (_, predicted), seconds in total.items() if predicted == name),
            total.get((name, name), 0.0),
        )
        for name in names(total)
        if name != UNLABELLED
    ]


def confusion(calls: Iterable[dict[tuple[str, str], float]]) -> dict[tuple[str, str], float]:
    """The sum of the ``seconds`` of calls."""
    parts: dict[tuple[str, str], list[float]] = {}
    for seconds in calls:
        for pair, both_s in seconds.items():
            parts.setdefault(pair, []).append(both_s)
    return {pair: math.fsum(found) for pair, found in parts.items()}


def names(seconds: Iterable[tuple[str, str]]) -> list[str]:
    """The names in a confusion matrix: labelled ones in their order, only predicted ones, ``Other``, ``UNLABELLED``."""
    pairs = list(seconds)
    found = dict.fromkeys([*(labelled for labelled, _ in pairs), *(predicted for _, predicted in pairs)])
    return sorted(found, key=lambda name: (name == UNLABELLED, name == OTHER))


def means(calls: Sequence[CallScore]) -> dict[str, Mean]:
    """The mean of each metric over calls (at least one). The bootstrap resamples whole calls.

    Raises:
        ConfigurationError: numpy is not installed.
    """
    try:
        import numpy as np
    except ImportError:
        raise _without("numpy") from None
    figures = np.array([[getattr(call, metric) for metric in METRICS] for call in calls])
    draw = np.random.default_rng(SEED)
    drawn = np.array([figures[draw.integers(len(calls), size=len(calls))].mean(axis=0) for _ in range(RESAMPLES)])
    lows, highs = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {
        metric: Mean(float(mean), float(low), float(high))
        for metric, mean, low, high in zip(METRICS, figures.mean(axis=0), lows, highs, strict=True)
    }


def _boundary_f1(labelled: Sequence[Span], predicted: Sequence[Span]) -> float:
    """F1 of the boundaries inside the call, by the largest one-to-one matching within the collar."""
    if len(labelled) == 1 or len(predicted) == 1:
        return float(len(labelled) == len(predicted))  # one side has no boundary: right only if neither has
    try:
        from mir_eval.util import match_events
    except ImportError:
        raise _without("mir_eval") from None
    boundaries = [[span.start_s for span in spans[1:]] for spans in (labelled, predicted)]
    found = len(match_events(*boundaries, window=COLLAR_S))
    return 2 * found / sum(map(len, boundaries))


def _windows(labelled: Sequence[Span], predicted: Sequence[Span], end_s: float) -> dict[str, float]:
    """Pk and WindowDiff; the window is half the mean length of the labelled phases, as is usual."""
    try:
        from nltk.metrics.segmentation import pk, windowdiff
    except ImportError:
        raise _without("nltk") from None
    units = max(math.ceil(end_s / GRID_S), 1)
    width = max(round(units / (2 * len(labelled))), 1)
    edges = []
    for spans in (labelled, predicted):
        begun = {min(int(span.start_s / GRID_S), units - 1) for span in spans[1:]}
        edges.append("".join("1" if unit in begun else "0" for unit in range(units)))
    return {"pk": float(pk(*edges, k=width)), "window_diff": float(windowdiff(*edges, k=width))}


def _length(span: Span) -> float:
    return span.end_s - span.start_s


def _ratio(part: float, whole: float) -> float | None:
    return min(part / whole, 1.0) if whole > 0 else None


def _without(package: str) -> ConfigurationError:
    return ConfigurationError(f"Scoring needs {package}: pip install 'callphases[score]'.")
