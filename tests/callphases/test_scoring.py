"""Scores are what an independent count of small steps gives, and behave at the edges."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callphases.errors import ConfigurationError
from callphases.labelled import LabelledCall, PredictedCall, read_labelled, read_predicted
from callphases.predictions import matched, pipeline_of, published
from callphases.scorecard import document, remarks, scorecard
from callphases.scoring import UNLABELLED, Span, by_phase, fitted, means, score_call
from callphases.tables import published_days

NAMES = ["Introduction", "Complaint", "Resolution", "Goodbye", "Other"]
LABELLED = (
    Span("Introduction", 0, 10),
    Span("Complaint", 10, 40),
    Span("Resolution", 40, 90),
    Span("Goodbye", 90, 100),
)


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[Span], float]:
    """Phases that cover a call, at edges of whole hundredths of a second."""
    edges = sorted(draw(st.sets(st.integers(1, 60_000), min_size=1, max_size=8)))
    starts = [0, *edges[:-1]]
    spans = [
        Span(draw(st.sampled_from(NAMES)), start / 100, end / 100) for start, end in zip(starts, edges, strict=True)
    ]
    return fitted(spans, edges[-1] / 100), edges[-1] / 100


def at(spans: list[Span], moment_s: float) -> str | None:
    return next((span.name for span in spans if span.start_s <= moment_s < span.end_s), None)


@given(calls())
def test_what_is_labelled_scores_one(call: tuple[list[Span], float]) -> None:
    spans, end_s = call
    score = score_call(spans, spans, end_s)
    assert (score.accuracy, score.mean_iou, score.boundary_f1) == (pytest.approx(1), pytest.approx(1), 1)
    assert (score.pk, score.window_diff) == (0, 0)


@settings(max_examples=50)
@given(calls(), calls())
def test_accuracy_and_iou_are_those_of_small_steps(
    one: tuple[list[Span], float], other: tuple[list[Span], float]
) -> None:
    spans, end_s = one
    score = score_call(spans, other[0], end_s)
    predicted = fitted(other[0], end_s)
    step_s = end_s / 20_000
    steps = [(at(spans, step_s * (n + 0.5)), at(predicted, step_s * (n + 0.5))) for n in range(20_000)]
    assert score.accuracy == pytest.approx(sum(a == b for a, b in steps) / len(steps), abs=0.005)
    ious = []
    for name in {span.name for span in spans}:
        both, any_ = sum(a == b == name for a, b in steps), sum(name in pair for pair in steps)
        ious.append(both / any_ if any_ else None)
    if None not in ious:
        assert score.mean_iou == pytest.approx(math.fsum(ious) / len(ious), abs=0.02)
    for figure in (score.accuracy, score.mean_iou, score.boundary_f1, score.pk):
        assert 0 <= figure <= 1
    assert math.fsum(score.seconds.values()) == pytest.approx(end_s)


@given(
    st.lists(st.builds(Span, st.sampled_from(NAMES), st.floats(0, 50), st.floats(0, 50)), max_size=6), st.floats(1, 60)
)
def test_any_phases_are_made_to_cover_the_call(spans: list[Span], end_s: float) -> None:
    found = fitted(spans, end_s)
    assert (found[0].start_s, found[-1].end_s) == (0, end_s)
    for before, after in pairwise(found):
        assert before.end_s == after.start_s
        assert before.name != after.name
    assert all(span.end_s > span.start_s for span in found)


def test_a_boundary_is_found_within_three_seconds() -> None:
    predicted = (
        Span("Introduction", 0, 12.9),
        Span("Complaint", 12.9, 44),
        Span("Resolution", 44, 91),
        Span("Goodbye", 91, 100),
    )
    score = score_call(LABELLED, predicted, 100)
    assert score.boundary_f1 == pytest.approx(2 / 3)
    assert score.accuracy == pytest.approx(1 - (2.9 + 4 + 1) / 100)


def test_a_call_without_a_prediction_is_wrong_everywhere() -> None:
    score = score_call(LABELLED, (), 100)
    assert (score.accuracy, score.mean_iou, score.boundary_f1, score.pk, score.window_diff) == (0, 0, 0, 1, 1)


def test_the_last_phase_lasts_until_the_labelled_end() -> None:
    shorter = (*LABELLED[:3], Span("Goodbye", 90, 99.2))
    longer = (*LABELLED[:3], Span("Goodbye", 90, 101))
    assert [score_call(LABELLED, spans, 100).accuracy for spans in (shorter, longer)] == [1, 1]


def test_phases_have_precision_and_recall() -> None:
    predicted = (Span("Introduction", 0, 20), Span("Resolution", 20, 100))
    complaint, introduction, resolution = (
        {phase.name: phase for phase in by_phase([score_call(LABELLED, predicted, 100).seconds])}[name]
        for name in ("Complaint", "Introduction", "Resolution")
    )
    assert (introduction.precision, introduction.recall, introduction.iou) == (0.5, 1, 0.5)
    assert (resolution.precision, resolution.recall) == (pytest.approx(50 / 80), 1)
    assert (complaint.precision, complaint.recall) == (None, 0)


def test_intervals_hold_the_mean_and_are_the_same_each_time() -> None:
    scores = [score_call(LABELLED, fitted([Span("Complaint", 0, end)], 100), 100) for end in range(10, 100, 5)]
    found = means(scores)
    assert found == means(scores)
    assert all(mean.low <= mean.mean <= mean.high for mean in found.values())


# Files


def written(folder: Path, name: str = "a", **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    cues = [
        {"cue": 1, "speaker": "agent", "start_s": 0.5, "end_s": 9, "text": "Hello."},
        {"cue": 2, "speaker": "caller", "start_s": 10, "end_s": 39, "text": "It is broken."},
        {"cue": 3, "speaker": "agent", "start_s": 40, "end_s": 99.5, "text": "Let me see."},
    ]
    phases = [{"name": name, "start_cue": number} for number, name in enumerate(NAMES[:3], start=1)]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"call_id": name, "cues": cues, "phases": phases, **changes}))
    return path


def test_a_labelled_call_begins_at_0_and_ends_where_its_file_says(tmp_path: Path) -> None:
    written(tmp_path, "a")
    written(tmp_path, "b", duration_s=101.0)
    spans = [Span("Introduction", 0, 10), Span("Complaint", 10, 40), Span("Resolution", 40, 99.5)]
    first, second = read_labelled([tmp_path])
    assert (list(first.phases), first.end_s) == (spans, 99.5)
    assert (list(second.phases), second.end_s) == ([*spans[:2], Span("Resolution", 40, 101)], 101)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"phases": [{"name": "Complaint", "start_cue": 9}]}, r"phases\.0\.start_cue: there is no cue 9"),
        ({"phases": [{"name": "Complaint"}]}, r"phases\.0: expected start_cue or start_s"),
        ({"phases": [{"name": "A", "start_s": 5}, {"name": "B", "start_s": 1}]}, r"phases\.1: begins at 1 s"),
        ({"phases": "none"}, "phases: "),
        ({"cues": [{"cue": 1, "start_s": -1, "end_s": 2}]}, r"cues\.0\.start_s: "),
        ({"duration_s": 20}, r"phases\.2: begins at 40 s, and the call ends at 20"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, changes: dict[str, Any], mistake: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigurationError, match=mistake) as error:
        read_labelled([tmp_path])
    assert str(error.value).startswith(str(path))


def test_a_folder_without_calls_and_a_file_that_is_no_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no \*\.json"):
        read_labelled([tmp_path])
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"a\.json: expected JSON"):
        read_labelled([tmp_path])


def labelled(call_id: str, recording: str | None = None) -> LabelledCall:
    return LabelledCall(call_id, recording, (), LABELLED, 100, Path(f"{call_id}.json"))


def predicted(call_id: str, recording: str) -> PredictedCall:
    return PredictedCall(call_id, recording, LABELLED, 100)


def test_predictions_are_found_by_id_then_by_the_recordings_name() -> None:
    found = [
        predicted("id-1", "s3://b/x.wav"),
        predicted("0a", "s3://b/2026/11/20/two.mp3"),
        predicted("0b", "s3://b/2026/11/19/three.mp3"),
        predicted("0c", "s3://b/2026/11/20/three.mp3"),
        predicted("0d", "s3://b/four.ogg"),
    ]
    wanted = [labelled("id-1"), labelled("two"), labelled("3", "2026/11/20/three.wav"), labelled("nobody")]
    wanted[2] = labelled("3", "2026/11/20/three.mp3")
    assert matched(wanted, found) == [found[0], found[1], found[3], None]


def test_predictions_that_fit_several_ways_are_told() -> None:
    twice = [predicted("0b", "s3://b/19/three.mp3"), predicted("0c", "s3://b/20/three.mp3")]
    with pytest.raises(ConfigurationError, match="2 predictions fit 'three'"):
        matched([labelled("three")], twice)
    with pytest.raises(ConfigurationError, match="fits 'one' and 'ones'"):
        matched([labelled("one", "a.wav"), labelled("ones", "a.mp3")], [predicted("0a", "s3://b/a.wav")])


def test_a_scorecard_counts_what_is_missing_as_wrong() -> None:
    calls = [labelled("good"), labelled("missing"), LabelledCall("empty", None, (), (), 5, Path("empty.json"))]
    card = scorecard(calls, [predicted("good", "x"), None, None])
    assert (card.means["accuracy"].mean, card.missing, card.without_phases) == (0.5, 1, 1)
    assert "Worst call: missing" in remarks(card)[0]
    told = json.loads(json.dumps(document(card)))
    assert (told["worst"], told["calls_scored"], told["mean"]["accuracy"]["mean"]) == ("missing", 2, 0.5)
    assert scorecard(calls, [predicted("good", "x"), None, None], only_matched=True).means["accuracy"].mean == 1


def test_files_of_predictions_are_scored_like_labels(tmp_path: Path) -> None:
    written(tmp_path / "truth", "a")
    path = tmp_path / "predicted" / "a.json"
    path.parent.mkdir()
    phases = [{"name": "Introduction", "start_s": 0, "end_s": 20}, {"name": "Resolution", "start_s": 20, "end_s": 99.5}]
    path.write_text(json.dumps({"call_id": "a", "phases": phases}))
    truth, found = read_labelled([tmp_path / "truth"]), read_predicted([path.parent])
    card = scorecard(truth, matched(truth, found))
    assert card.means["accuracy"].mean == pytest.approx((10 + 59.5) / 99.5)


def test_a_tables_folder_without_days_is_told(tmp_path: Path) -> None:
    assert published_days(tmp_path) == []
    with pytest.raises(ConfigurationError, match="holds no calls of any day"):
        published(tmp_path, [])


def test_a_model_is_asked_with_the_pipelines_phases() -> None:
    assert pipeline_of("m", None).segmentation.models == ["m"]
    assert UNLABELLED not in pipeline_of("m", None).phase_names
