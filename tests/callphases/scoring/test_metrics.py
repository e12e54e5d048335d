"""The figures of a call and of many: what they are bound to, and what other ways of counting make of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from callphases.scoring.metrics import (
    METRICS,
    SEED,
    UNLABELLED,
    Span,
    by_phase,
    confusion,
    fit_to_call,
    means,
    names,
    score_call,
)

END_S = st.floats(0.5, 300)
NAMES = st.sampled_from(["Introduction", "Complaint", "Resolution", "Goodbye", "Other"])


@st.composite
def timelines(draw: st.DrawFn, end_s: float, most: int = 7) -> list[Span]:
    """Phases that cover a call."""
    starts = draw(st.lists(st.floats(0, end_s, exclude_max=True), max_size=most - 1))
    return fit_to_call([Span(draw(NAMES), start_s, end_s) for start_s in [0.0, *starts]], end_s)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Span], list[Span], float]:
    end_s = draw(END_S)
    return draw(timelines(end_s)), draw(timelines(end_s)), end_s


@st.composite
def loose(draw: st.DrawFn) -> tuple[list[Span], float]:
    """Phases as others may write them, with gaps and overlaps."""
    time_s = st.floats(0, 120)
    spans = [Span(draw(NAMES), *sorted((draw(time_s), draw(time_s)))) for _ in range(draw(st.integers(1, 6)))]
    return spans, draw(st.floats(1, 100))


def sampled(labelled: list[Span], predicted: list[Span], end_s: float, step_s: float = 0.01) -> float:
    """Accuracy as a scorer has it that looks at moments."""
    moments = np.arange(step_s / 2, end_s, step_s)

    def names_at(spans: list[Span]) -> np.ndarray:
        place = np.searchsorted([span.start_s for span in spans], moments, side="right") - 1
        return np.array([span.name for span in spans])[place]

    return float((names_at(labelled) == names_at(predicted)).mean())


@given(pairs())
def test_prediction_equal_to_the_labels_scores_best(pair: tuple[list[Span], list[Span], float]) -> None:
    labelled, _, end_s = pair
    score = score_call(labelled, labelled, end_s)
    assert [score.accuracy, score.mean_iou] == pytest.approx([1.0, 1.0])
    assert (score.boundary_f1, score.pk, score.window_diff) == (1.0, 0.0, 0.0)


@given(pairs())
def test_every_metric_is_between_0_and_1(pair: tuple[list[Span], list[Span], float]) -> None:
    score = score_call(*pair)
    assert all(0 <= getattr(score, metric) <= 1 for metric in METRICS)


@given(pairs())
def test_accuracy_and_boundary_f1_are_symmetric(pair: tuple[list[Span], list[Span], float]) -> None:
    labelled, predicted, end_s = pair
    one, other = score_call(labelled, predicted, end_s), score_call(predicted, labelled, end_s)
    assert one.accuracy == pytest.approx(other.accuracy)
    assert one.boundary_f1 == pytest.approx(other.boundary_f1)
    assert one.seconds == pytest.approx({(name, label): s for (label, name), s in other.seconds.items()})


@st.composite
def on_a_grid(draw: st.DrawFn) -> tuple[list[Span], list[Span], float]:
    """Calls of some length, as few of their moments lie at an edge."""
    end_s = draw(st.floats(20, 300))
    return draw(timelines(end_s, 4)), draw(timelines(end_s, 4)), end_s


@given(on_a_grid())
def test_accuracy_agrees_with_a_sampling_scorer(pair: tuple[list[Span], list[Span], float]) -> None:
    assert score_call(*pair).accuracy == pytest.approx(sampled(*pair), abs=0.005)


@given(pairs())
def test_confusion_matrix_sums_to_the_length_of_the_call(pair: tuple[list[Span], list[Span], float]) -> None:
    score = score_call(*pair)
    assert sum(score.seconds.values()) == pytest.approx(pair[2])
    right_s = sum(seconds for (label, name), seconds in score.seconds.items() if label == name)
    assert right_s / pair[2] == pytest.approx(score.accuracy)


@given(pairs(), st.floats(1.01, 10))
def test_accuracy_is_invariant_to_the_time_scale(pair: tuple[list[Span], list[Span], float], factor: float) -> None:
    labelled, predicted, end_s = pair
    # A phase that is as short as a rounding error may disappear when it is scaled, and then counts no longer.
    assume(all(span.end_s - span.start_s > 1e-6 for span in (*labelled, *predicted)))
    slow = [[replace(span, start_s=span.start_s * factor, end_s=span.end_s * factor) for span in spans]
            for spans in (labelled, predicted)]  # fmt: skip
    one, other = score_call(labelled, predicted, end_s), score_call(*slow, end_s * factor)
    assert [one.accuracy, one.mean_iou] == pytest.approx([other.accuracy, other.mean_iou])


@given(loose(), st.booleans())
def test_fit_to_call_covers_the_call_without_gaps(given: tuple[list[Span], float], stretch: bool) -> None:
    spans, end_s = given
    found = fit_to_call(spans, end_s, stretch=stretch)
    assert (found[0].start_s, found[-1].end_s) == (0.0, end_s)
    assert all(one.end_s == other.start_s for one, other in pairwise(found))
    assert all(one.name != other.name for one, other in pairwise(found))
    assert all(span.start_s < span.end_s for span in found)
    assert fit_to_call(found, end_s) == found


def test_metrics_match_values_computed_by_hand() -> None:
    labelled = [Span("A", 0, 10), Span("B", 10, 20), Span("C", 20, 40)]
    predicted = [Span("A", 0, 12), Span("B", 12, 30), Span("A", 30, 40)]
    score = score_call(labelled, predicted, 40)
    assert score.accuracy == pytest.approx(18 / 40)
    assert score.mean_iou == pytest.approx((10 / 22 + 8 / 20 + 0) / 3)
    assert score.boundary_f1 == pytest.approx(1 / 2)  # 12 is near 10, 30 is near nothing
    phases = {phase.name: phase for phase in by_phase([score.seconds])}
    assert (phases["A"].precision, phases["A"].recall) == pytest.approx((10 / 22, 1.0))
    assert (phases["C"].precision, phases["C"].recall, phases["C"].iou) == (None, 0.0, 0.0)


def test_pk_and_window_diff_match_values_computed_by_hand() -> None:
    # Units of 0.1 s, and a window of half a phase: 50. The boundary at 100 is in windows 51 to 100 of the 151.
    score = score_call([Span("A", 0, 10), Span("B", 10, 20)], [Span("A", 0, 20)], 20)
    assert (score.pk, score.window_diff) == (pytest.approx(50 / 151), pytest.approx(50 / 151))


@pytest.mark.parametrize(("off_s", "f1"), [(2.9, 1.0), (3.0, 1.0), (3.1, 0.0), (-3.0, 1.0), (-3.1, 0.0)])
def test_boundary_counts_as_found_within_three_seconds(off_s: float, f1: float) -> None:
    labelled = [Span("A", 0, 10), Span("B", 10, 20)]
    assert score_call(labelled, [Span("A", 0, 10 + off_s), Span("B", 10 + off_s, 20)], 20).boundary_f1 == f1


def test_boundaries_are_matched_one_to_one_and_maximally() -> None:
    labelled = [Span("A", 0, 10), Span("B", 10, 14), Span("C", 14, 30)]
    # 12.5 is nearest to 14; with 10 it leaves 14 to 15.
    predicted = [Span("A", 0, 12.5), Span("B", 12.5, 15), Span("C", 15, 30)]
    assert score_call(labelled, predicted, 30).boundary_f1 == 1.0
    assert score_call(labelled, [Span("A", 0, 12.5), Span("B", 12.5, 30)], 30).boundary_f1 == pytest.approx(2 / 3)


def test_boundary_f1_of_calls_without_boundaries() -> None:
    whole, halves = [Span("A", 0, 10)], [Span("A", 0, 5), Span("B", 5, 10)]
    assert score_call(whole, whole, 10).boundary_f1 == 1.0
    assert score_call(whole, [Span("B", 0, 10)], 10).boundary_f1 == 1.0  # no boundary to find: the name is wrong
    assert score_call(whole, halves, 10).boundary_f1 == score_call(halves, whole, 10).boundary_f1 == 0.0


def test_empty_prediction_scores_worst() -> None:
    score = score_call([Span("A", 0, 4), Span("B", 4, 10)], [], 10)
    assert [getattr(score, metric) for metric in METRICS] == [0, 0, 0, 1, 1]
    assert score.seconds == {("A", UNLABELLED): 4, ("B", UNLABELLED): 6}


@pytest.mark.parametrize("end_s", [8.0, 10.0, 12.5])
def test_last_phase_is_stretched_to_the_end_of_the_labels(end_s: float) -> None:
    labelled = [Span("A", 0, 4), Span("B", 4, 10)]
    assert score_call(labelled, [Span("A", 0, 4), Span("B", 4, end_s)], 10).accuracy == 1.0


def test_time_without_a_predicted_phase_is_wrong() -> None:
    labelled = [Span("A", 0, 4), Span("B", 4, 10)]
    score = score_call(labelled, [Span("A", 1, 3), Span("B", 4, 10)], 10)
    assert score.accuracy == pytest.approx(0.8)
    assert score.seconds["A", UNLABELLED] == pytest.approx(2.0)
    assert all(phase.name != UNLABELLED for phase in by_phase([score.seconds]))


def test_very_short_call_is_scored() -> None:
    assert score_call([Span("A", 0, 0.01)], [Span("A", 0, 0.01)], 0.01).pk == 0.0


def test_other_and_unlabelled_come_last() -> None:
    pairs = [("Other", "B"), ("A", UNLABELLED), ("B", "X")]
    assert names(pairs) == ["A", "B", "X", "Other", UNLABELLED]


def test_confusion_sums_the_seconds_of_calls() -> None:
    assert confusion([{("A", "A"): 1.0}, {("A", "A"): 2.0, ("A", "B"): 3.0}]) == {("A", "A"): 3.0, ("A", "B"): 3.0}


@settings(max_examples=30)
@given(st.lists(pairs(), min_size=1, max_size=4))
def test_mean_is_inside_its_interval_and_reproducible(
    some: list[tuple[list[Span], list[Span], float]],
) -> None:
    scores = [score_call(*pair) for pair in some]
    found = means(scores)
    assert found == means(scores)
    assert found["accuracy"].mean == pytest.approx(sum(score.accuracy for score in scores) / len(scores))
    low, high = min(score.accuracy for score in scores), max(score.accuracy for score in scores)
    assert low - 1e-9 <= found["accuracy"].low <= found["accuracy"].high <= high + 1e-9


def test_interval_is_that_of_the_bootstrap() -> None:
    labelled = [Span("A", 0, 10)]
    scores = [score_call(labelled, [Span("A", 0, 5), Span(name, 5, 10)], 10) for name in "AAAAABBBBB"]
    draw = np.random.default_rng(SEED + 1)  # another draw has nearly the same interval
    drawn = [draw.choice([score.accuracy for score in scores], 10).mean() for _ in range(2000)]
    found = means(scores)["accuracy"]
    assert [found.mean, found.low, found.high] == pytest.approx([0.75, *np.quantile(drawn, [0.025, 0.975])], abs=0.03)
