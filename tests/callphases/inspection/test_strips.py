"""The picture: a PNG with a strip per call, in the colors of its phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from callphases.inspection.strips import COLORS, GRAY, LIGHT_GRAY, draw
from doubles import NOON


def call(name: str, **changes: Any) -> dict[str, Any]:
    row = {"status": "completed", "failure_class": None, "duration_s": 10.0, "call_started_at": NOON}
    return {"call_id": name, "recording_uri": f"s3://recordings/calls/{name}", **row, **changes}


def phase(name: str, phase_name: str, start_s: float, duration_s: float) -> dict[str, Any]:
    return {"call_id": name, "phase_name": phase_name, "start_s": start_s, "duration_s": duration_s}


def colors(path: Path) -> set[str]:
    """The colors that fill more than 1,000 pixels."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    found, counts = np.unique(pixels @ [0x10000, 0x100, 1], return_counts=True)
    return {f"#{color:06X}" for color in found[counts > 1000]}


def test_each_phase_name_has_its_own_color(tmp_path: Path) -> None:
    path = tmp_path / "new" / "day.png"
    phases = [phase("a", "Introduction", 0, 4), phase("a", "Complaint", 4, 3), phase("a", "Other", 7, 3)]
    draw([call("a")], phases, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert {COLORS[0], COLORS[1], GRAY} <= colors(path)
    assert COLORS[2] not in colors(path)


def test_call_without_phases_is_light_gray(tmp_path: Path) -> None:
    path = tmp_path / "day.png"
    draw([call("a"), call("b", status="no_speech")], [phase("a", "Introduction", 0, 10)], path)
    assert {COLORS[0], LIGHT_GRAY} <= colors(path)


def test_failed_call_without_a_duration_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "day.png"
    failure = call("b", status="failed", failure_class="bad_audio", duration_s=None)
    draw([call("a"), failure], [phase("a", "Introduction", 0, 10)], path)
    assert COLORS[0] in colors(path)


def test_picture_height_grows_with_the_number_of_calls(tmp_path: Path) -> None:
    heights = []
    for count in (1, 5):
        path = tmp_path / f"{count}.png"
        names = [str(number) for number in range(count)]
        draw([call(name) for name in names], [phase(name, "Introduction", 0, 10) for name in names], path)
        heights.append(matplotlib.image.imread(path).shape[0])
    assert heights[0] < heights[1]


@pytest.mark.parametrize("name", ["$x_{$.mp3", "x" * 200, "a_b^c\\d.mp3", "call [1].mp3"])
def test_any_call_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    draw([call(name)], [phase(name, "Introduction", 0, 10)], tmp_path / "day.png")
    assert COLORS[0] in colors(tmp_path / "day.png")


@pytest.mark.parametrize("name", ["100% sure", "Cost $x_{$", "_hidden"])
def test_any_phase_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    draw([call("a")], [phase("a", name, 0, 10)], tmp_path / "day.png")
    assert COLORS[0] in colors(tmp_path / "day.png")
