"""Tests of the sample calls: they are complete and small, and their truth files match the audio."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml

SAMPLES = Path(__file__).parents[2] / "include" / "samples"
TRUTHS = sorted((SAMPLES / "truth").glob("*.json"))
PHASES = {"Introduction", "Complaint", "Resolution", "Goodbye", "Other"}


def read(path: Path) -> dict[str, Any]:
    truth: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return truth


def decoded(path: Path) -> tuple[int, np.ndarray[Any, Any]]:
    """The rate in Hz and the samples of each channel (rows)."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp")
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return frames[0].sample_rate, np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


def test_every_script_has_audio_and_truth() -> None:
    scripts = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (SAMPLES / "scripts").glob("*.yaml")]
    ids = {f"{script['called_at']:%H%M%S}-{script['name']}" for script in scripts}
    assert len(scripts) == len(ids) >= 10
    assert {path.stem for path in TRUTHS} == ids
    audio = {path.relative_to(SAMPLES / "audio").as_posix() for path in (SAMPLES / "audio").rglob("*.*")}
    assert audio == {read(path)["recording"] for path in TRUTHS}


def test_audio_is_at_most_three_megabytes() -> None:
    assert sum(path.stat().st_size for path in (SAMPLES / "audio").rglob("*.*")) <= 3_000_000


@pytest.mark.parametrize("path", TRUTHS, ids=lambda path: path.stem)
def test_truth_matches_the_audio(path: Path) -> None:
    truth = read(path)
    rate, signal = decoded(SAMPLES / "audio" / truth["recording"])
    assert truth["call_id"] == path.stem == Path(truth["recording"]).stem
    assert signal.shape[0] == truth["channels"]
    assert signal.shape[1] / rate == pytest.approx(truth["duration_s"], abs=0.01)
    for cue in truth["cues"]:
        spoken = signal[:, int(cue["start_s"] * rate) : int(cue["end_s"] * rate)]
        loudness = np.sqrt(np.mean(spoken**2, axis=1))
        assert loudness.max() > 0.03
        if truth["channels"] == 2:
            assert int(np.argmax(loudness)) == ["agent", "caller"].index(cue["speaker"])


@pytest.mark.parametrize("path", TRUTHS, ids=lambda path: path.stem)
def test_truth_is_an_ordered_timeline(path: Path) -> None:
    truth = read(path)
    cues, phases = truth["cues"], truth["phases"]
    assert [cue["cue"] for cue in cues] == list(range(1, len(cues) + 1))
    times = [time for cue in cues for time in (cue["start_s"], cue["end_s"])]
    assert times == sorted(times)
    assert all(0 <= time <= truth["duration_s"] for time in times)
    starts = [phase["start_cue"] for phase in phases]
    assert starts[:1] == [1][: len(cues)]
    assert starts == sorted(set(starts))
    assert not starts or starts[-1] <= len(cues)
    assert {phase["name"] for phase in phases} <= PHASES


def test_samples_include_the_difficult_cases() -> None:
    truths = [read(path) for path in TRUTHS]
    assert {truth["recording"][:10] for truth in truths} == {"2026/11/19", "2026/11/20"}
    assert any(not truth["cues"] for truth in truths)
    assert any(phase["name"] == "Other" for truth in truths for phase in truth["phases"])
    assert sum(truth["channels"] == 2 for truth in truths) >= 2
    assert len({Path(truth["recording"]).suffix for truth in truths}) >= 5
