"""Tests of the lower bound of a night, and of the report."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.bound import Service, bound_s
from benchmarks.figures import Figure, at_least, at_most, number
from benchmarks.report import OVER_BOUND, table, write

RESULTS = {
    "night-500": [
        Figure("makespan", 21.4, "s", note="bound 9 s"),
        Figure(OVER_BOUND, 2.38, target=at_most(4.0)),
        Figure("calls an hour", 84_112.0, target=at_least(100_000)),
        Figure("requests", None, target=at_most(4.0)),
    ]
}


@pytest.mark.parametrize(
    ("calls", "questions", "seconds"),
    [
        (5000, 5000, 84.0),  # model: 84 batches of 60, one second each
        (5000, 300, 75.0),  # speech: 25 batches of 200, three seconds each
        (1, 1, 3.0),
        (0, 0, 0.0),
    ],
)
def test_slower_service_determines_the_bound(calls: int, questions: int, seconds: float) -> None:
    assert bound_s(Service(), calls, questions) == seconds


@pytest.mark.parametrize(("questions", "seconds"), [(30, 3.0), (31, 60.0), (150, 240.0)])
def test_questions_per_minute_determine_the_bound(questions: int, seconds: float) -> None:
    assert bound_s(Service(questions_per_minute=30), 1, questions) == seconds


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_bound_never_decreases_with_more_calls(calls: int, more: int) -> None:
    assert bound_s(Service(), calls, calls) <= bound_s(Service(), calls + more, calls + more)


def test_table_shows_which_targets_are_met() -> None:
    page = io.StringIO()
    Console(file=page, width=150).print(table(RESULTS))
    rows = {line.split("│")[2].strip(): line for line in page.getvalue().splitlines() if line.count("│") > 2}
    assert "21.4 s" in rows["makespan"]
    assert "≤ 4 " in rows[OVER_BOUND]
    assert "met" in rows[OVER_BOUND]
    assert "missed" in rows["calls an hour"]
    assert not {"met", "missed"} & set(rows["requests"].split()), "a figure without a value has no verdict"


def test_results_are_written_as_json_and_as_a_chart(tmp_path: Path) -> None:
    paths = {path.name: path for path in write(RESULTS, {"scale": 1.0}, tmp_path)}
    document = json.loads(paths["bench.json"].read_text())
    over = document["scenarios"]["night-500"][1]
    assert (document["scale"], over["value"], over["target"], over["verdict"]) == (1.0, 2.38, "≤ 4", "met")
    assert paths["bench.png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (3.0, "3"), (0.1234, "0.123"), (12.345, "12.3"), (123.45, "123.5"), (5000, "5,000")],
)
def test_numbers_are_formatted_with_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text
