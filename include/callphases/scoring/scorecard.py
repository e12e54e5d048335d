"""Scores many calls: totals, as tables for a terminal and as a JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from rich import box
from rich.table import Table

from callphases.errors import ConfigurationError
from callphases.scoring import metrics
from callphases.scoring.labelled import LabelledCall, PredictedCall
from callphases.scoring.metrics import UNLABELLED, CallScore, Mean, PhaseScore
from callphases.scoring.predictions import Spent

LABELS = {
    "accuracy": "accuracy",
    "mean_iou": "mean IoU",
    "boundary_f1": f"F1 ±{metrics.COLLAR_S:g} s",
    "pk": "Pk",
    "window_diff": "WindowDiff",
}
NOTABLE_S = 1.0
"""A larger difference between the lengths is not rounding: the prediction may be of another recording."""


@dataclass(frozen=True)
class ScoredCall:
    """A labelled call, the prediction for it, and its score."""

    labelled: LabelledCall
    predicted: PredictedCall | None
    score: CallScore

    @property
    def problem(self) -> str:
        """Why there is no prediction, or what is suspicious about it; empty if nothing is."""
        if self.predicted is None:
            return "no prediction"
        if not self.predicted.phases:
            return f"no phases: {self.predicted.why}"
        if self.difference_s is not None and abs(self.difference_s) > NOTABLE_S:
            return f"predicted to last {self.difference_s:+.1f} s"
        return ""

    @property
    def difference_s(self) -> float | None:
        """How many seconds later than the labels the prediction ends the call."""
        if self.predicted is None or self.predicted.end_s is None:
            return None
        return self.predicted.end_s - self.labelled.end_s

    @property
    def missing(self) -> bool:
        """Whether there is no prediction, or one without phases."""
        return self.predicted is None or not self.predicted.phases


@dataclass(frozen=True)
class Scorecard:
    """Scored calls (at least one), worst first, and how many labelled calls were not scored, by reason."""

    calls: list[ScoredCall]
    without_phases: int
    left_out: int
    unlabelled: int
    spent: Spent | None = None

    @cached_property
    def means(self) -> dict[str, Mean]:
        """The mean of each metric."""
        return metrics.means([call.score for call in self.calls])

    @cached_property
    def confusion(self) -> dict[tuple[str, str], float]:
        """Seconds by (labelled name, predicted name)."""
        # By call_id, not worst first: then phase names tend to appear in their usual order.
        ordered = sorted(self.calls, key=lambda call: (call.missing, call.labelled.call_id))
        return metrics.confusion(call.score.seconds for call in ordered)

    @property
    def phases(self) -> list[PhaseScore]:
        """The score of each phase name over all calls."""
        return metrics.by_phase([self.confusion])

    @property
    def missing(self) -> int:
        """The number of calls that count as wrong because they have no prediction."""
        return sum(call.missing for call in self.calls)


def scorecard(
    labelled: Sequence[LabelledCall],
    predicted: Sequence[PredictedCall | None],
    *,
    only_matched: bool = False,
    unlabelled: int = 0,
    spent: Spent | None = None,
) -> Scorecard:
    """Score labelled calls against the prediction for each.

    Args:
        labelled: calls without phases are not scored.
        predicted: parallel to ``labelled``; a missing prediction counts as entirely wrong.
        only_matched: leave out calls without a prediction instead.
        unlabelled: the number of predictions that match no labelled call.
        spent: what the predictions cost.

    Raises:
        ConfigurationError: no call is left to score, or a library is missing.
    """
    calls: list[ScoredCall] = []
    left_out = 0
    for one, other in zip(labelled, predicted, strict=True):
        if not one.phases:
            continue
        if only_matched and (other is None or not other.phases):
            left_out += 1
            continue
        score = metrics.score_call(one.phases, other.phases if other is not None else (), one.end_s)
        calls.append(ScoredCall(one, other, score))
    if not calls:
        raise ConfigurationError(
            f"There is nothing to score: of {len(labelled)} labelled calls {sum(not one.phases for one in labelled)} "
            f"have no phases, and {left_out} have no prediction."
        )
    calls.sort(key=lambda call: (call.score.accuracy, call.labelled.call_id))
    return Scorecard(calls, sum(not one.phases for one in labelled), left_out, unlabelled, spent)


def document(card: Scorecard) -> dict[str, Any]:
    """A scorecard as a JSON document."""
    return {
        "calls_scored": len(card.calls),
        "calls_missing": card.missing,
        "calls_left_out": card.left_out,
        "calls_labelled_without_phases": card.without_phases,
        "predictions_not_labelled": card.unlabelled,
        "mean": {name: asdict(mean) for name, mean in card.means.items()},
        "worst": card.calls[0].labelled.call_id,
        "phases": [
            {**asdict(phase), "precision": phase.precision, "recall": phase.recall, "iou": phase.iou}
            for phase in card.phases
        ],
        "confusion": [
            {"labelled": labelled, "predicted": predicted or None, "seconds": seconds}
            for (labelled, predicted), seconds in card.confusion.items()
        ],
        "calls": [
            {
                "call_id": call.labelled.call_id,
                "end_s": call.labelled.end_s,
                "predicted": not call.missing,
                "problem": call.problem or None,
                "end_difference_s": call.difference_s,
                **{name: getattr(call.score, name) for name in LABELS},
            }
            for call in card.calls
        ],
        "spent": asdict(card.spent) if card.spent is not None else None,
    }


def tables(card: Scorecard) -> list[Table]:
    """Tables for a terminal: calls, phases, confusion matrix, and means."""
    return [_calls(card), _phases(card), _confusion(card), _means(card)]


def remarks(card: Scorecard) -> list[str]:
    """Sentences about the figures: the worst call, what was not counted, and the cost."""
    worst = card.calls[0]
    sentences = [f"Worst call: {worst.labelled.call_id} ({worst.labelled.path}), accuracy {worst.score.accuracy:.3f}."]
    for number, what in (
        (card.missing, "labelled but not predicted, and counted as wrong"),
        (card.left_out, "labelled but not predicted, and left out"),
        (card.without_phases, "labelled as having no phases, and not scored"),
        (card.unlabelled, "predicted but not labelled"),
    ):
        if number:
            sentences.append(f"{number} {'call is' if number == 1 else 'calls are'} {what}.")
    if card.spent is not None:
        spent = card.spent
        cost = "cost unknown (set prices.llm_usd_per_million in a pipeline file)"
        if spent.usd is not None:
            cost = f"${spent.usd:.4f}, ${spent.usd / len(card.calls):.5f} a call"
        sentences.append(
            f"{', '.join(spent.models) or 'Nothing'} answered: {spent.input_tokens:,} tokens in, "
            f"{spent.output_tokens:,} out, {cost}."
        )
    return sentences


def _calls(card: Scorecard) -> Table:
    table = _table("call", "length", *LABELS.values(), "")
    for call in card.calls:
        figures = [f"{getattr(call.score, name):.3f}" for name in LABELS]
        table.add_row(call.labelled.call_id, f"{call.labelled.end_s:.1f} s", *figures, call.problem)
    return table


def _phases(card: Scorecard) -> Table:
    table = _table("phase", "labelled", "predicted", "precision", "recall", "IoU")
    for phase in card.phases:
        figures = ["–" if value is None else f"{value:.3f}" for value in (phase.precision, phase.recall, phase.iou)]
        table.add_row(phase.name, f"{phase.labelled_s:.1f} s", f"{phase.predicted_s:.1f} s", *figures)
    return table


def _confusion(card: Scorecard) -> Table:
    names = metrics.names(card.confusion)
    labelled = [name for name in names if any(pair[0] == name for pair in card.confusion)]
    predicted = [name for name in names if any(pair[1] == name for pair in card.confusion)]
    table = _table("seconds labelled ↓ predicted →", *(name if name != UNLABELLED else "none" for name in predicted))
    for name in labelled:
        seconds = [card.confusion.get((name, other)) for other in predicted]
        table.add_row(name, *("·" if value is None else f"{value:.1f}" for value in seconds))
    return table


def _means(card: Scorecard) -> Table:
    table = _table(f"mean of {len(card.calls)} calls", *LABELS.values())
    table.add_row("", *(f"{card.means[name].mean:.3f}" for name in LABELS))
    table.add_row("95 % interval", *(f"{card.means[name].low:.3f}–{card.means[name].high:.3f}" for name in LABELS))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True, max_width=40)
    for header in others:
        table.add_column(header, justify="right" if header else "left")
    return table
