"""Tests of training: the gradient, the improvement, and the degraded forms of calls."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from speechbox import training
from speechbox.segmenter import LocalSegmenter

CALLS = Path(__file__).parent / "calls" / "development"
FEW = ("bank-wire", "bank-fraud", "short-busy")


@pytest.fixture(scope="module")
def calls() -> list[training.Json]:
    return [call for call in training.read([CALLS]) if call["call_id"] in FEW]


@pytest.fixture(scope="module")
def few(calls: list[training.Json]) -> list[training.Example]:
    model = LocalSegmenter()
    return [example for call in calls for example in training.examples(call, model)]


def loss(weights: training.Weights, batch: training.Batch) -> float:
    """Return the negative log-likelihood, computed call by call without the optimizations of `gradient`."""
    total = 0.0
    count = len(training.PHASES)
    changes = 1.0 - np.eye(count)
    switch = training.segmenter._SWITCH + weights.switch * changes
    for call in range(len(batch.phase)):
        length = int(batch.real[call].sum())
        right = batch.phase[call, :length]
        inside = batch.inside[call, :length] + batch.features[call, :length] @ weights.inside
        inside += training.MARGIN * (1 - np.eye(count)[right])
        opens = batch.opens[call, :length] + batch.features[call, :length] @ weights.opens
        start = training.segmenter._START + weights.start + opens[0]
        ways, gold = start + inside[0], start[right[0]] + inside[0, right[0]]
        for now in range(1, length):
            step = switch + changes * opens[now]
            ways = np.log(np.exp(ways[:, None] + step).sum(axis=0)) + inside[now]
            gold += step[right[now - 1], right[now]] + inside[now, right[now]]
        total += batch.count[call] * (np.log(np.exp(ways).sum()) - gold)
    held = training.RESTRAINT * (np.sum(weights.inside**2) + np.sum(weights.opens**2))
    return float(total + held + np.sum(weights.start**2) + np.sum(weights.switch**2))


def test_gradient_matches_finite_differences_of_the_loss(few: list[training.Example]) -> None:
    batch = training.Batch(few)
    batch.features = batch.features.astype(np.float64)
    weights = training.Weights.none(batch.features.shape[2])
    rng = np.random.default_rng(0)
    for array in weights.arrays():
        array += rng.normal(0, 0.05, array.shape)
    slopes = training.gradient(weights, batch).arrays()
    for array, slope, place in zip(weights.arrays(), slopes, [(3, 1), (8, 2), (1,), (1, 2)], strict=True):
        kept, losses = array[place], []
        for step in (1e-4, -1e-4):
            array[place] = kept + step
            losses.append(loss(weights, batch))
        array[place] = kept
        assert slope[place] == pytest.approx((losses[0] - losses[1]) / 2e-4, rel=1e-3, abs=1e-3)


def test_training_improves_the_scores_of_its_own_calls(few: list[training.Example]) -> None:
    learned = training.fit(few)
    rules = training.Weights.none(few[0].features.shape[1])
    before = [training.scores(rules, one)[0] for one in few]
    after = [training.scores(learned, one)[0] for one in few]
    assert sum(after) > sum(before)
    assert min(after) >= 0.9


def test_correct_phases_have_the_maximum_scores(few: list[training.Example]) -> None:
    rules = training.Weights.none(few[0].features.shape[1])
    one = next(one for one in few if len(one.truth) == 4)
    names = len(training.PHASES)
    told = dataclasses.replace(one, inside=100.0 * np.eye(names)[one.phase])
    assert training.scores(rules, told) == pytest.approx((1, 1))
    one_phase = dataclasses.replace(one, inside=np.tile(100.0 * np.eye(names)[2], (len(one.phase), 1)))
    share, overlap = training.scores(rules, one_phase)
    assert overlap == pytest.approx(share / 4)


def test_degraded_call_has_no_speakers_and_similar_words(calls: list[training.Json]) -> None:
    call = next(call for call in calls if call["call_id"] == "bank-wire")
    cues = training.degraded(call, seed=0)
    assert cues == training.degraded(call, seed=0)
    assert cues != training.degraded(call, seed=1)
    assert {cue["speaker"] for cue in cues} == {None}
    assert [cue["cue"] for cue in cues] == list(range(1, len(cues) + 1))
    assert [cue["start_s"] for cue in cues] == sorted(cue["start_s"] for cue in cues)
    said = " ".join(cue["text"] for cue in call["cues"]).lower().split()
    heard = " ".join(cue["text"] for cue in cues).lower().split()
    assert 0.6 * len(said) <= len(set(said) & set(heard)) + len(said) - len(set(said)) < len(said)


def test_training_writes_weights_of_the_packaged_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "calls"
    folder.mkdir()
    (folder / "one.json").write_text((CALLS / "bank-wire.json").read_text(encoding="utf-8"), encoding="utf-8")
    out = tmp_path / "weights.npz"
    monkeypatch.setattr(
        "sys.argv", ["training", str(folder), "--leave-one-out", str(CALLS.parent / "none"), "--out", str(out)]
    )
    training.main()
    with np.load(out) as written, np.load(training.segmenter._WEIGHTS) as shipped:
        assert {name: written[name].shape for name in written} == {name: shipped[name].shape for name in shipped}


def test_windows_have_no_position_features(calls: list[training.Json]) -> None:
    call = next(call for call in calls if call["call_id"] == "bank-wire")
    parts = training.window_examples(call, LocalSegmenter())
    place = slice(1 + 3 * 15, -512)
    assert parts
    for part in parts:
        assert len(part.phase) == len(part.features) >= training.SHORTEST_WINDOW
        assert not part.features[:, place].any()
        assert part.features[:, -512:].any()


def test_development_and_held_out_calls_are_disjoint() -> None:
    texts = {
        folder: {
            json.loads(path.read_text(encoding="utf-8"))["cues"][0]["text"]
            for path in (CALLS.parent / folder).iterdir()
        }
        for folder in ("development", "held-out")
    }
    assert texts["development"].isdisjoint(texts["held-out"])
