"""The picture of scored calls: two strips per call, in the colors of the phases."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from callphases.errors import ConfigurationError
from callphases.inspection.strips import COLORS, GRAY, LIGHT_GRAY
from callphases.scoring.comparison import MOST_CALLS, draw
from callphases.scoring.labelled import LabelledCall, PredictedCall
from callphases.scoring.metrics import Span
from callphases.scoring.scorecard import ScoredCall, scorecard


def scored(*calls: tuple[tuple[Span, ...], tuple[Span, ...]], name: str = "a") -> list[ScoredCall]:
    labelled = [LabelledCall(f"{name}{n}", None, (), one, 10.0, Path("a")) for n, (one, _) in enumerate(calls)]
    return scorecard(labelled, [PredictedCall("a", "a", other) if other else None for _, other in calls]).calls


def colors(path: Path) -> dict[str, int]:
    """The number of pixels of each color in a picture."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    found, counts = np.unique(pixels @ [0x10000, 0x100, 1], return_counts=True)
    return {f"#{color:06X}": int(count) for color, count in zip(found, counts, strict=True)}


def test_labels_are_drawn_above_predictions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    draw(scored(((Span("A", 0, 10),), (Span("B", 0, 10),))), path)
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int) @ [0x10000, 0x100, 1]
    # Rows of pixels that a strip fills; the legend fills less.
    rows = [np.nonzero((pixels == int(color[1:], 16)).sum(axis=1) > 500)[0] for color in COLORS[:2]]
    assert len(rows[0])
    assert len(rows[1])
    assert rows[0].max() < rows[1].min()


def test_time_without_a_prediction_is_light_gray(tmp_path: Path) -> None:
    draw(scored(((Span("A", 0, 5), Span("Other", 5, 10)), ())), tmp_path / "a.png")
    found = colors(tmp_path / "a.png")
    assert min(found.get(color, 0) for color in (COLORS[0], GRAY, LIGHT_GRAY)) > 1000


def test_number_of_drawn_calls_is_limited(tmp_path: Path) -> None:
    whole = (Span("A", 0, 10),)
    heights = []
    for count in (MOST_CALLS, MOST_CALLS + 50):
        draw(scored(*[(whole, whole)] * count), tmp_path / "a.png")
        heights.append(matplotlib.image.imread(tmp_path / "a.png").shape[0])
    assert heights[0] == heights[1]


@pytest.mark.parametrize("name", ["$x_{$", "x" * 200, "100% _sure", "call [1]"])
def test_any_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    whole = (Span(name, 0, 10),)
    draw(scored((whole, whole), name=name), tmp_path / "a.png")
    assert colors(tmp_path / "a.png")[COLORS[0]] > 1000


def test_unwritable_file_is_an_error(tmp_path: Path) -> None:
    whole = (Span("A", 0, 10),)
    (tmp_path / "a").write_text("a file, no folder")
    with pytest.raises(ConfigurationError, match="the picture can't be written"):
        draw(scored((whole, whole)), tmp_path / "a" / "b.png")
