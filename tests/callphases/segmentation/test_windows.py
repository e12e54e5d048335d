"""Long calls in windows: their size, their coverage, and how disagreeing windows are merged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.cues import Cue
from callphases.errors import AnswerCut, AnswerInvalid, RequestRefused
from callphases.segmentation.timeline import Label
from callphases.segmentation.tokens import cue_tokens
from callphases.segmentation.windows import (
    LEAST_TOKENS,
    LEAST_TOKENS_TOO_LONG,
    OVERLAP,
    WINDOW_TOKENS,
    divisible,
    joined,
    label_call,
    windows,
)
from doubles import cue

NAMES = ["Introduction", "Complaint", "Resolution", "Goodbye"]


def call(count: int, chars: int = 60, cue_s: float = 4.0) -> list[Cue]:
    return [cue(number, cue_s * (number - 1), cue_s * number, "x" * chars) for number in range(1, count + 1)]


def tokens(cues: Sequence[Cue]) -> float:
    return sum(map(cue_tokens, cues))


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=60), st.floats(20, 3000))
def test_windows_cover_all_cues_within_their_size_and_overlap(chars: list[int], most: float) -> None:
    cues = [cue(number, number, number + 1, "x" * size) for number, size in enumerate(chars, start=1)]
    largest = max(map(cue_tokens, cues))
    found = windows(cues, most)
    assert {one.number for part in found for one in part} == {one.number for one in cues}
    assert all([one.number for one in part] == list(range(part[0].number, part[-1].number + 1)) for part in found)
    assert all(tokens(part) <= most + 2 * largest for part in found)
    for part, following in pairwise(found):
        assert part[0].number < following[0].number <= part[-1].number + 1
        assert part[-1].number < following[-1].number
    if tokens(cues) <= most:
        assert found == [cues]


def test_windows_overlap_by_the_configured_part() -> None:
    found = windows(call(2500), WINDOW_TOKENS)
    assert len(found) == 4
    for part, following in pairwise(found):
        assert tokens(part) <= WINDOW_TOKENS
        shared = tokens(following[: part[-1].number - following[0].number + 1])
        assert shared == pytest.approx(WINDOW_TOKENS * OVERLAP, rel=0.02)


def test_call_that_fits_one_question_is_asked_about_once() -> None:
    cues, asked = call(10), []
    labels = [Label("Introduction", 2, "Hi."), Label("Goodbye", 3, "Bye.")]

    def ask(part: Sequence[Cue]) -> list[Label]:
        asked.append(part)
        return labels

    assert label_call(cues, ask) == labels
    assert asked == [cues]


def truth(cues: Sequence[Cue], edges: dict[int, str]) -> list[Label]:
    """The answer of a perfect model about a window: the phase in progress, and those that start in it."""
    first = max((number for number in edges if number <= cues[0].number), default=min(edges))
    later = {number: name for number, name in edges.items() if cues[0].number < number <= cues[-1].number}
    return [Label(name, number, f"{name}.") for number, name in ({cues[0].number: edges[first]} | later).items()]


@given(st.data(), st.integers(900, 2500))
def test_agreeing_windows_merge_into_the_true_labels(data: st.DataObject, count: int) -> None:
    starts = sorted(data.draw(st.sets(st.integers(2, count), max_size=12)) | {1})
    names: list[str] = []
    for _ in starts:
        names.append(data.draw(st.sampled_from([name for name in NAMES if names[-1:] != [name]])))
    edges = dict(zip(starts, names, strict=True))
    cues = call(count)
    found = label_call(cues, lambda part: truth(part, edges))
    assert [(label.start_cue, label.name) for label in found] == list(edges.items())
    assert all(label.summary == f"{label.name}." for label in found)


def test_disagreeing_windows_are_weighted_by_distance_from_the_cut() -> None:
    cues = call(12)
    first, second = cues[:8], cues[4:]
    early = [Label("Introduction", 1, "Hi."), Label("Goodbye", 6, "Bye.")]
    late = [Label("Complaint", 5, "Broken.")]
    found = joined(cues, [first, second], [early, late])
    # Cues 5 to 8 are in both windows: 5 and 6 are closer to the cut of the second, 7 and 8 to that of the first.
    assert [(label.name, label.start_cue) for label in found] == [
        ("Introduction", 1),
        ("Goodbye", 6),
        ("Complaint", 7),
    ]


def test_unlabeled_first_cues_of_a_window_do_not_vote() -> None:
    cues = call(12)
    found = joined(cues, [cues[:6], cues[4:]], [[Label("Complaint", 1, "")], [Label("Goodbye", 10, "")]])
    assert [(label.name, label.start_cue) for label in found] == [("Complaint", 1), ("Goodbye", 10)]


@pytest.mark.parametrize(("cue_s", "names"), [(1.0, ["Complaint"]), (3.0, ["Complaint", "Goodbye", "Complaint"])])
def test_short_interruptions_of_a_phase_are_removed(cue_s: float, names: list[str]) -> None:
    cues = call(12, cue_s=cue_s)
    labels = [Label("Complaint", 1, ""), Label("Goodbye", 3, ""), Label("Complaint", 4, "")]
    found = joined(cues, [cues[:8], cues[6:]], [labels, [Label("Complaint", 7, "")]])
    assert [label.name for label in found] == names


def test_short_phases_between_different_phases_are_kept() -> None:
    cues = call(12, cue_s=1)
    labels = [Label("Introduction", 1, ""), Label("Complaint", 3, ""), Label("Resolution", 5, "")]
    found = joined(cues, [cues[:8], cues[6:]], [labels, [Label("Resolution", 7, ""), Label("Goodbye", 12, "")]])
    assert [label.name for label in found] == NAMES


@pytest.mark.parametrize("error", [AnswerCut, RequestRefused])
def test_window_that_is_too_long_is_divided(error: type[Exception]) -> None:
    edges, sizes = {1: "Introduction", 40: "Complaint", 300: "Resolution"}, []

    def ask(part: Sequence[Cue]) -> list[Label]:
        sizes.append(tokens(part))
        if tokens(part) > 4000:
            raise error("too long")
        return truth(part, edges)

    found = label_call(call(400), ask)
    assert {label.start_cue: label.name for label in found} == edges
    assert sizes[0] == tokens(call(400))
    assert all(size < sizes[0] for size in sizes[1:])


def test_windows_are_not_divided_below_the_minimum() -> None:
    sizes: list[float] = []

    def ask(part: Sequence[Cue]) -> list[Label]:
        sizes.append(tokens(part))
        raise AnswerCut("never")

    cues = call(1000)
    with pytest.raises(AnswerCut):
        label_call(cues, ask)
    assert LEAST_TOKENS < min(sizes) < 2 * LEAST_TOKENS
    assert len(sizes) < 10
    assert not divisible(call(60))


def test_window_beyond_a_small_context_is_divided_further() -> None:
    sizes: list[float] = []

    def ask(part: Sequence[Cue]) -> list[Label]:
        sizes.append(tokens(part))
        refused = RequestRefused("never")
        refused.too_long = True
        raise refused

    with pytest.raises(RequestRefused):
        label_call(call(400), ask)
    assert LEAST_TOKENS_TOO_LONG < min(sizes) < 2 * LEAST_TOKENS_TOO_LONG
    assert len(sizes) < 10


def test_other_failures_do_not_divide_the_window() -> None:
    sizes: list[int] = []

    def ask(part: Sequence[Cue]) -> list[Label]:
        sizes.append(len(part))
        raise AnswerInvalid("wrong")

    with pytest.raises(AnswerInvalid):
        label_call(call(400), ask)
    assert sizes == [400]


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=6))
def test_division_terminates_for_any_cues(chars: list[int]) -> None:
    cues = [cue(number, number, number + 1, "x" * size) for number, size in enumerate(chars, start=1)]

    def ask(_: Sequence[Cue]) -> list[Label]:
        raise RequestRefused("never")

    with pytest.raises(RequestRefused):
        label_call(cues, ask)
