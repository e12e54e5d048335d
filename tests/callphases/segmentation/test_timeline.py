"""Whatever a model answers, the phases of a call cover it from 0 to its end."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from callphases.cues import Cue
from callphases.segmentation.timeline import LONGEST_SUMMARY, Label, call_end_s, shorten, timeline
from doubles import cue

NAMES = ["Introduction", "Complaint", "Resolution", "Goodbye", "Other"]
Call = tuple[list[Cue], list[Label], float]


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Cues in the order of their starts, labels of some of them, and where the call ends."""
    # Small numbers, so that starts are often equal, and often at the start or the end of the call.
    starts = sorted(draw(st.lists(st.integers(0, 12) | st.integers(0, 10_000_000), min_size=1, max_size=12)))
    cues = [
        Cue(
            number,
            start / 1000,
            (start + draw(st.integers(0, 5))) / 1000,
            None,
            " ".join(["w"] * draw(st.integers(0, 3))),
        )
        for number, start in enumerate(starts, start=1)
    ]
    chosen = draw(st.sets(st.sampled_from(range(1, len(cues) + 1)), min_size=1))
    labels = [Label(draw(st.sampled_from(NAMES)), number, draw(st.text(max_size=5))) for number in sorted(chosen)]
    return cues, labels, call_end_s(draw(st.integers(0, 10_000)), cues)


@given(calls())
def test_phases_cover_the_call_without_gaps_or_overlaps(call: Call) -> None:
    phases = timeline(*call)
    edges = [phase.start_s for phase in phases] + [phases[-1].end_s]
    assert edges[0] == 0
    assert edges[-1] == call[2]
    assert [phase.end_s for phase in phases] == edges[1:]


@given(calls())
def test_every_phase_has_a_duration(call: Call) -> None:
    phases = timeline(*call)
    if call[2] > 0:
        assert all(phase.end_s > phase.start_s for phase in phases)
    else:
        assert len(phases) == 1


@given(calls())
def test_every_cue_is_in_exactly_one_phase(call: Call) -> None:
    cues = call[0]
    phases = timeline(*call)
    ranges = [range(phase.start_cue, phase.end_cue + 1) for phase in phases]
    assert list(itertools.chain.from_iterable(ranges)) == [cue.number for cue in cues]
    assert all(ranges)


@given(calls())
def test_every_word_is_counted_once(call: Call) -> None:
    assert sum(phase.word_count for phase in timeline(*call)) == sum(cue.word_count for cue in call[0])


@given(calls())
def test_phases_start_with_their_first_cue(call: Call) -> None:
    cues = call[0]
    assert all(phase.start_s == cues[phase.start_cue - 1].start_s for phase in timeline(*call)[1:])


@given(calls())
def test_phase_names_are_given_ones_and_never_repeat_in_a_row(call: Call) -> None:
    names = [phase.name for phase in timeline(*call)]
    assert set(names) <= {label.name for label in call[1]} | {"Other"}
    assert all(before != after for before, after in itertools.pairwise(names))


CUES = [cue(1, 0.5, 2), cue(2, 2.5, 5), cue(3, 5, 8, "a b c"), cue(4, 8, 9)]


def shown(cues: list[Cue], labels: list[tuple[str, int]], end_s: float) -> list[tuple[str, float, float]]:
    phases = timeline(cues, [Label(name, start_cue, name) for name, start_cue in labels], end_s)
    return [(phase.name, phase.start_s, phase.end_s) for phase in phases]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([("Complaint", 1)], [("Complaint", 0, 10)]),
        ([("Introduction", 1), ("Complaint", 2)], [("Introduction", 0, 2.5), ("Complaint", 2.5, 10)]),
        ([("Complaint", 3)], [("Other", 0, 5), ("Complaint", 5, 10)]),
        ([("Other", 3)], [("Other", 0, 10)]),
        ([("Complaint", 1), ("Complaint", 3), ("Goodbye", 4)], [("Complaint", 0, 8), ("Goodbye", 8, 10)]),
        (
            [("Complaint", 1), ("Goodbye", 2), ("Complaint", 3)],
            [("Complaint", 0, 2.5), ("Goodbye", 2.5, 5), ("Complaint", 5, 10)],
        ),
    ],
    ids=["one", "two", "late start is Other", "Other joins Other", "same name joins", "a phase comes back"],
)
def test_phase_times_are_derived_from_the_cues(
    labels: list[tuple[str, int]], expected: list[tuple[str, float, float]]
) -> None:
    assert shown(CUES, labels, 10) == expected


def test_silence_belongs_to_the_earlier_phase() -> None:
    cues = [cue(1, 3, 4), cue(2, 60, 61)]
    assert shown(cues, [("Introduction", 1), ("Goodbye", 2)], 90) == [("Introduction", 0, 60), ("Goodbye", 60, 90)]


def test_later_of_two_simultaneous_phases_is_kept() -> None:
    cues = [cue(1, 0, 4), cue(2, 5, 6), cue(3, 5, 9)]
    labels = [("Introduction", 1), ("Complaint", 2), ("Goodbye", 3)]
    assert shown(cues, labels, 9) == [("Introduction", 0, 5), ("Goodbye", 5, 9)]


def test_phase_that_would_start_at_the_end_is_dropped() -> None:
    cues = [cue(1, 0, 4), cue(2, 9, 9)]
    assert shown(cues, [("Introduction", 1), ("Goodbye", 2)], 9) == [("Introduction", 0, 9)]


def test_phase_has_its_cues_words_and_summary() -> None:
    first, second = timeline(CUES, [Label("Introduction", 1, "Hello."), Label("Complaint", 3, "Broken.")], 10)
    assert (first.start_cue, first.end_cue, first.word_count, first.summary) == (1, 2, 4, "Hello.")
    assert (second.start_cue, second.end_cue, second.word_count, second.summary) == (3, 4, 5, "Broken.")


def test_joined_phases_join_their_summaries() -> None:
    (phase,) = timeline(CUES, [Label("Complaint", 1, "Broken."), Label("Complaint", 2, "Still broken.")], 10)
    assert phase.summary == "Broken. Still broken."


@pytest.mark.parametrize(("audio_s", "end_s"), [(0, 9.4), (9, 9.4), (10, 10), (8, 8)])
def test_call_ends_with_its_audio_allowing_for_rounding(audio_s: float, end_s: float) -> None:
    assert call_end_s(audio_s, [cue(1, 0, 9.4), cue(2, 1, 2)]) == end_s


@given(st.text(st.characters(exclude_categories=[])))
@example("\ud800 half a pair")
@example("a\u2028b\x00c\u202ed")
def test_summary_is_one_printable_line(summary: str) -> None:
    short = shorten(summary)
    assert short.isprintable()
    assert short == short.strip()
    assert len(short.encode().decode()) <= LONGEST_SUMMARY


@pytest.mark.parametrize(
    ("summary", "short"),
    [("a\n b\tc", "a b c"), ("x" * 300, "x" * 300), ("x" * 301, "x" * 299 + "…"), ("x" * 298 + " yz", "x" * 298 + "…")],
)
def test_summary_is_truncated(summary: str, short: str) -> None:
    assert shorten(summary) == short
