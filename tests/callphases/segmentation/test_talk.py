"""Talk statistics: those of the phases add up to those of the call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.cues import Cue
from callphases.segmentation.talk import TalkStatistics, talk_statistics
from callphases.segmentation.timeline import Label, Phase, call_end_s, timeline
from callphases.tables.talk_columns import speaker_columns, talk_columns
from doubles import cue

Call = tuple[list[Cue], list[Phase], float]

# Small numbers of milliseconds, so that edges meet; large ones, so that cues last for hours.
MOMENTS_MS = st.integers(-2, 20) | st.integers(-1_000, 40_000_000)
NAMES = st.sampled_from(["A", "B", "C", "1A", None])


@st.composite
def cues(draw: st.DrawFn) -> list[Cue]:
    """Cues that overlap, have no duration, end before they start, or lie outside the call, unlike real ones."""
    starts = sorted(draw(st.lists(MOMENTS_MS, min_size=1, max_size=12)))
    return [
        Cue(
            number,
            start_ms / 1000,
            (start_ms + draw(st.integers(-3, 1_000))) / 1000,
            draw(NAMES),
            " ".join(["w"] * draw(st.integers(0, 3))),
            draw(st.none() | st.floats(0, 1)),
        )
        for number, start_ms in enumerate(starts, start=1)
    ]


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A call with any cues, whose phases cover it like a timeline."""
    said, length_ms = draw(cues()), draw(st.integers(0, 60) | st.integers(0, 50_000_000))
    edges = [0, *sorted(draw(st.sets(st.integers(0, length_ms), max_size=3))), length_ms]
    numbers = [0, *sorted(draw(st.integers(0, len(said))) for _ in edges[2:]), len(said)]
    phases = [
        Phase("Other", start_ms / 1000, end_ms / 1000, first + 1, last, 0, "")
        for start_ms, end_ms, first, last in zip(edges, edges[1:], numbers, numbers[1:], strict=False)
    ]
    return said, phases, length_ms / 1000


def rows(call: Call) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The columns of a call and of its phases."""
    said, (_, phases, end_s) = talk_statistics(*call), call
    lengths = [phase.end_s - phase.start_s for phase in phases]
    return talk_columns(said.call, end_s), [
        talk_columns(of, length) for of, length in zip(said.phases, lengths, strict=True)
    ]


SUMS = ["turn_count", "silence_s", "speaker_1_talk_s", "speaker_2_talk_s", "other_talk_s", "interruption_count"]


@given(calls())
def test_phases_add_up_to_the_call(call: Call) -> None:
    whole, parts = rows(call)
    for name in SUMS:
        if whole[name] is None:
            assert all(part[name] is None for part in parts)
        else:
            assert sum(part[name] for part in parts) == pytest.approx(whole[name], abs=1e-6)


@given(cues(), st.data())
def test_phases_of_a_timeline_add_up_to_the_call(said: list[Cue], data: st.DataObject) -> None:
    starts = sorted(data.draw(st.sets(st.integers(1, len(said)), min_size=1)))
    end_s = call_end_s(data.draw(st.integers(0, 60)), said)
    labels = [Label(data.draw(st.sampled_from(["Complaint", "Goodbye"])), start, "") for start in starts]
    whole, parts = rows((said, timeline(said, labels, end_s), end_s))
    assert [sum(part[name] or 0 for part in parts) for name in SUMS] == pytest.approx(
        [whole[name] or 0 for name in SUMS], abs=1e-6
    )


@given(calls())
def test_values_are_not_negative_and_shares_at_most_one(call: Call) -> None:
    whole, parts = rows(call)
    for row in (whole, *parts):
        assert all(value >= 0 for value in row.values() if value is not None)
        assert (row["interruption_count"] or 0) <= (row["turn_count"] or 0)
        for name in ("speaker_1_talk_share", "speaker_2_talk_share", "confidence"):
            assert row[name] is None or row[name] <= 1


@given(calls())
def test_talk_times_are_consistent_with_spoken_time(call: Call) -> None:
    said, (_, phases, end_s) = talk_statistics(*call), call
    lengths = [end_s, *(one.end_s - one.start_s for one in phases)]
    for of, length_s in zip([said.call, *said.phases], lengths, strict=True):
        assert max(of.get("talk_s", [0.0])) <= of["spoken_s"] <= length_s + 1e-9
        if "talk_s" in of:
            unknown = any(not cue.speaker for cue in call[0])
            assert of["spoken_s"] <= sum(of["talk_s"]) + of.get("other_s", 0.0) + 1e-6
            assert "other_s" not in of or unknown or len({cue.speaker for cue in call[0]}) > 2


@given(calls())
def test_statistics_omit_unknown_values_and_survive_json(call: Call) -> None:
    said = talk_statistics(*call)
    assert all(value is not None for of in (said.call, *said.phases) for value in of.values())
    assert json.loads(json.dumps(said.phases)) == said.phases


def of(*said: Cue, edges: Sequence[tuple[float, int]] = (), end_s: float = 10.0) -> TalkStatistics:
    """The statistics of a call whose phases start at ``edges``: at which second, and with which cue."""
    bounds = [(0.0, 1), *edges, (end_s, len(said) + 1)]
    phases = [
        Phase("Other", start_s, until_s, first, after - 1, 0, "")
        for (start_s, first), (until_s, after) in pairwise(bounds)
    ]
    return talk_statistics(said, phases, end_s)


def test_statistics_of_a_call_with_two_speakers() -> None:
    said = of(
        cue(1, 0.5, 2.5, "a b c d", "B"),
        cue(2, 3.0, 4.0, "a b", "A"),
        cue(3, 4.0, 6.0, "a b c d", "A"),
        cue(4, 6.0, 7.0, "a b", "B"),
        edges=[(3.0, 2)],
    )
    assert said.call == {
        "speakers": ["B", "A"],
        "spoken_s": 6.0,
        "talk_s": [3.0, 3.0],
        "turn_count": 3,
        "interruption_count": 0,
        "words_per_minute": 120.0,
    }
    assert [(part["turn_count"], part["spoken_s"], part["talk_s"]) for part in said.phases] == [
        (1, 2.0, [2.0, 0.0]),
        (2, 4.0, [1.0, 3.0]),
    ]


def test_turn_across_a_phase_edge_counts_where_it_starts() -> None:
    said = of(cue(1, 0, 2), cue(2, 2, 4), cue(3, 4, 6, speaker="B"), edges=[(2.0, 2)])
    assert [part["turn_count"] for part in said.phases] == [1, 1]


def test_speech_across_a_phase_edge_is_split() -> None:
    said = of(cue(1, 0, 4), cue(2, 3, 5, speaker="B"), edges=[(3.0, 2)])
    assert [(part["spoken_s"], part["talk_s"]) for part in said.phases] == [(3.0, [3.0, 0.0]), (2.0, [1.0, 2.0])]


def test_speakers_are_the_two_who_talk_most_in_order_of_appearance() -> None:
    said = of(
        cue(1, 0, 1, speaker="menu"),
        cue(2, 1, 3, speaker="B"),
        cue(3, 3, 7, speaker="A"),
        cue(4, 7, 7.5, speaker="C"),
        edges=[(7.0, 4)],
    )
    assert said.call["speakers"] == ["B", "A"]
    assert speaker_columns(said.call) == {"speaker_1": "B", "speaker_2": "A"}
    assert (said.call["talk_s"], said.call["other_s"]) == ([2.0, 4.0], 1.5)
    assert (said.phases[1]["talk_s"], said.phases[1]["other_s"]) == ([0.0, 0.0], 0.5)


def test_single_speaker_has_the_whole_talk_time() -> None:
    said = of(cue(1, 0, 2), cue(2, 4, 6))
    found = speaker_columns(said.call) | talk_columns(said.call, 10.0)
    assert (found["speaker_1"], found["speaker_1_talk_s"], found["speaker_1_talk_share"]) == ("A", 4.0, 1.0)
    assert [found[name] for name in ("speaker_2", "speaker_2_talk_s", "speaker_2_talk_share")] == [None] * 3
    assert (found["other_talk_s"], found["silence_s"], found["turn_count"]) == (0.0, 6.0, 1)


def test_unknown_speakers_have_silence_but_no_turns() -> None:
    said = of(cue(1, 0, 2, speaker=None), cue(2, 4, 6, "a b c d", speaker=None))
    assert said.call == {"speakers": [], "spoken_s": 4.0, "words_per_minute": 90.0}
    found = speaker_columns(said.call) | talk_columns(said.call, 10.0)
    assert {name for name, value in found.items() if value is not None} == {"silence_s", "words_per_minute"}


def test_cue_without_speaker_is_other_speech_and_ends_no_turn() -> None:
    said = of(cue(1, 0, 2), cue(2, 2, 3, speaker=None), cue(3, 3, 4), cue(4, 4, 5, speaker="B"))
    assert (said.call["turn_count"], said.call["talk_s"], said.call["other_s"]) == (2, [3.0, 1.0], 1.0)


@pytest.mark.parametrize(
    ("second", "interruptions"),
    [((2.0, 4.0), 0), ((1.7, 4.0), 0), ((1.699, 4.0), 1), ((0.0, 4.0), 1), ((1.0, 1.5), 1), ((3.0, 4.0), 0)],
    ids=["in turn", "at the edge", "before the edge", "at once", "and is done first", "after a pause"],
)
def test_overlap_above_the_tolerance_is_an_interruption(second: tuple[float, float], interruptions: int) -> None:
    assert of(cue(1, 0, 2), cue(2, *second, speaker="B")).call["interruption_count"] == interruptions


def test_interruption_counts_in_the_phase_where_it_starts() -> None:
    said = of(cue(1, 0, 4), cue(2, 3, 5, speaker="B"), edges=[(3.0, 2)])
    assert [part["interruption_count"] for part in said.phases] == [0, 1]


def test_continuing_speaker_does_not_interrupt() -> None:
    said = of(cue(1, 0, 4), cue(2, 3, 6, speaker="B"), cue(3, 4.2, 8), cue(4, 6, 9, speaker="B"))
    assert (said.call["interruption_count"], said.call["turn_count"]) == (1, 4)


def test_second_sentence_of_an_interruption_is_not_counted() -> None:
    assert of(cue(1, 0, 9), cue(2, 3, 4, speaker="B"), cue(3, 5, 6, speaker="B")).call["interruption_count"] == 1


def test_simultaneous_speakers_do_not_double_the_pace() -> None:
    said = of(cue(1, 0, 2, "a b c d"), cue(2, 0, 2, "a b c d", speaker="B"))
    assert (said.call["words_per_minute"], said.call["spoken_s"]) == (120.0, 2.0)


def test_words_without_duration_have_no_pace() -> None:
    said = of(cue(1, 2, 2), cue(2, 5, 4))
    assert "words_per_minute" not in said.call
    assert (said.call["spoken_s"], talk_columns(said.call, 10.0)["speaker_1_talk_share"]) == (0.0, None)


def test_confidence_is_weighted_by_words() -> None:
    said = of(
        Cue(1, 0, 2, "A", "a b c", 0.9),
        Cue(2, 2, 3, "A", "a", 0.5),
        Cue(3, 3, 4, "A", "a b c d"),
        edges=[(2.0, 2), (3.0, 3)],
    )
    assert [part.get("confidence") for part in (said.call, *said.phases)] == [0.8, 0.9, 0.5, None]


def test_unknown_statistics_give_empty_columns() -> None:
    assert set(talk_columns({}, 10.0).values()) == {None}
    assert set(speaker_columns({}).values()) == {None}
    silence = talk_columns({"spoken_s": 0.0}, 10.0)
    assert {name: value for name, value in silence.items() if value is not None} == {"silence_s": 10.0}
    assert talk_columns({"spoken_s": 0.0}, None)["silence_s"] is None
