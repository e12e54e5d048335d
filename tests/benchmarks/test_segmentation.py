"""Tests of the segmentation benchmark: its baselines, and its table with the local model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import segmentation
from benchmarks.floors import floors
from callphases.scoring.labelled import read_labelled
from callphases.scoring.metrics import Span
from callphases.scoring.scorecard import scorecard

SAMPLES = read_labelled([segmentation.SAMPLES])
WAYS = ["always the longest phase", "mean proportions", "rules"]


@pytest.mark.parametrize("way", WAYS)
def test_baseline_ignores_the_labels_of_the_call_itself(way: str) -> None:
    one = next(place for place, call in enumerate(SAMPLES) if len(call.phases) > 2)
    wrong = replace(SAMPLES[one], phases=(Span("Goodbye", 0, 1), Span("Introduction", 1, SAMPLES[one].end_s)))
    others = [*SAMPLES[:one], wrong, *SAMPLES[one + 1 :]]
    guessed, again = floors(SAMPLES)[way][one], floors(others)[way][one]
    assert guessed is not None
    assert guessed == again


def test_mean_proportions_cover_the_whole_call() -> None:
    for call, guess in zip(SAMPLES, floors(SAMPLES)["mean proportions"], strict=True):
        if guess is not None:
            assert sum(span.end_s - span.start_s for span in guess.phases) == pytest.approx(call.end_s)


def test_rules_beat_proportions_and_proportions_beat_one_phase() -> None:
    found = [scorecard(SAMPLES, predicted).means["accuracy"].mean for predicted in floors(SAMPLES).values()]
    assert list(floors(SAMPLES)) == WAYS
    assert found == sorted(found)
    assert found[0] < 0.6 < found[2]


@pytest.mark.integration
def test_local_model_scores_higher_than_the_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(segmentation, "FOLDER", tmp_path)
    monkeypatch.delenv("ASSEMBLYAI_API_KEY", raising=False)
    assert segmentation.main([]) == 0
    ways = json.loads((tmp_path / "segmentation.json").read_text())["ways"]
    assert list(ways) == [*WAYS, segmentation.LOCAL]
    assert ways[segmentation.LOCAL]["mean"]["accuracy"]["mean"] > ways["rules"]["mean"]["accuracy"]["mean"]
    assert segmentation.LOCAL in (tmp_path / "segmentation.txt").read_text()
    assert "mean proportions" in capsys.readouterr().out


@pytest.mark.integration
def test_failing_model_does_not_prevent_the_other_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(segmentation, "FOLDER", tmp_path)
    monkeypatch.delenv("CALLPHASES_LLM_KEY", raising=False)
    assert segmentation.main(["--model", "some", "--url", "http://127.0.0.1:9"]) == 1
    assert "BROKEN some: Set CALLPHASES_LLM_KEY" in capsys.readouterr().out
    assert segmentation.LOCAL in (tmp_path / "segmentation.txt").read_text()
