"""Tokens of calls that have no transcript yet."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.cues import Cue
from callphases.planning import questions
from callphases.planning.questions import calls_per_chunk, expected, learned
from callphases.segmentation import segmenter
from callphases.segmentation.tokens import CHARS_PER_TOKEN
from callphases.tables.schema import CALLS, object_name
from commands import call, parquet
from doubles import DAY, Store, pipeline

SAMPLES = Path(__file__).resolve().parents[3] / "include" / "samples" / "truth"


def sample_calls() -> list[tuple[float, list[Cue]]]:
    found = []
    for path in sorted(SAMPLES.glob("*.json")):
        document = json.loads(path.read_text())
        cues = [
            Cue(number, one["start_s"], one["end_s"], "A", one["text"])
            for number, one in enumerate(document["cues"], start=1)
        ]
        if cues:
            found.append((document["duration_s"], cues))
    return found


def test_questions_about_sample_calls_have_as_many_tokens_as_assumed() -> None:
    ours = pipeline()
    calls = sample_calls()
    content = segmenter._messages(ours, [cues for _, cues in calls], None)
    asked = sum(len(one["content"]) for one in content) / CHARS_PER_TOKEN
    tokens = expected(ours, len(calls))
    assert sum(tokens.of(seconds).input for seconds, _ in calls) == pytest.approx(asked, rel=0.1)
    instructions = segmenter.question_chars(ours) / CHARS_PER_TOKEN
    assert asked > tokens.instructions == instructions


def test_calls_that_share_a_question_share_its_instructions() -> None:
    many, alone = expected(pipeline(), 10_000), expected(pipeline(segmentation={"calls_per_question": 1}), 10_000)
    assert alone.of(60).questions == 1
    assert many.of(60).questions == pytest.approx(1 / 20, rel=0.3)
    assert alone.of(60).input - many.of(60).input == pytest.approx(0.94 * alone.instructions, rel=0.05)


@given(st.floats(0.2, 36_000), st.floats(1.01, 3))
def test_longer_calls_take_more(seconds: float, factor: float) -> None:
    tokens = expected(pipeline(), 500)
    short, long = tokens.of(seconds), tokens.of(seconds * factor)
    assert 0 < short.output <= long.output
    assert 0 < short.questions <= 1 or seconds > 3000
    assert long.input > 0.9 * short.input


def test_call_of_hours_is_asked_about_in_windows() -> None:
    taken = expected(pipeline(), 500).of(3 * 3600)
    assert taken.questions == 3
    assert taken.input > 1.1 * questions.TOKENS_PER_SECOND * 3 * 3600


def test_call_without_audio_takes_nothing() -> None:
    assert expected(pipeline(), 1).of(0) == (0, 0, 0)


@pytest.mark.parametrize("calls", [0, 1, 20, 500, 5_000])
def test_chunks_have_as_many_calls_as_those_of_a_run(calls: int) -> None:
    assert 1 <= calls_per_chunk(calls) <= max(calls, 1)


def published(s3: Store, day: dt.date, *rows: dict[str, Any]) -> None:
    s3.tables.put(object_name("calls", day), parquet(CALLS, *rows))


@pytest.mark.integration
def test_tokens_are_learned_from_calls_with_and_without_speech(s3: Store) -> None:
    spoken = [
        call(
            f"{number}", duration_s=10.0 * number, llm_input_tokens=50 + 60 * number, llm_output_tokens=40 + 5 * number
        )
        for number in range(1, 31)
    ]
    silent = [call(f"s{number}", status="no_speech", duration_s=10.0 * number) for number in range(1, 31)]
    failed = [call("f", status="failed", duration_s=None)]
    published(s3, DAY, *spoken, *silent, *failed)
    base = expected(pipeline(), 100)
    found = learned(base, s3.tables, [DAY, DAY + dt.timedelta(days=1)])
    assert (found.calls, found.days) == (60, (DAY,))
    taken = found.of(100)
    assert (taken.input, taken.output) == pytest.approx(((50 + 600) / 2, (40 + 50) / 2))
    assert taken.questions == base.of(100).questions


@pytest.mark.integration
def test_few_calls_or_a_broken_table_tell_nothing(s3: Store) -> None:
    base = expected(pipeline(), 100)
    published(s3, DAY, call("a", duration_s=10.0, llm_input_tokens=10, llm_output_tokens=1))
    s3.tables.put(object_name("calls", DAY + dt.timedelta(days=1)), b"not Parquet")
    assert learned(base, s3.tables, [DAY, DAY + dt.timedelta(days=1)]) is base


@pytest.mark.parametrize(
    ("values", "line"),
    [([3, 5, 7], (1, 2)), ([2, 4, 6], (0, 2)), ([1, 3, 6], (0, 10 / 6)), ([7, 5, 3], (5, 0)), ([4, 4, 4], (4, 0))],
)
def test_line_through_values_is_never_below_zero(values: list[float], line: tuple[float, float]) -> None:
    assert questions._line([1, 2, 3], values) == pytest.approx(line)
