"""Tests of the sizing model: against callphases' own rules, the measured nights, and docs/scaling.md."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bulk import _calls as calls_of_the_bench
from benchmarks.call import sentences
from callphases.airflow import operators
from callphases.cues import Cue
from callphases.listing.listing import chunk_counts
from callphases.state.events import parse, to_document
from callphases.state.ledger import LedgerView
from callphases.transcription import transcriber as product
from tools import sizing
from tools.sizing import HOUR_S, NIGHTS, PACED, PAPER, Measured, Site

DOCS = Path(__file__).parents[2] / "docs"


@given(st.integers(0, 5000))
def test_chunks_and_questions_match_callphases(calls: int) -> None:
    counts = chunk_counts([1_000_000] * calls)
    assert sizing.chunks_of(calls) == len(counts)
    together = sizing.calls_a_question(1)
    assert sizing.questions_of(calls) == sum(math.ceil(count / together) for count in counts)


def test_waiting_constants_match_callphases() -> None:
    ours = (sizing.POLL_IN_WORKER_S, sizing.LONGEST_SLEEP_S, sizing.QUICK_JOBS)
    assert ours == (operators.POLL_IN_WORKER_S, operators.LONGEST_SLEEP_S, product.QUICK_JOBS)


def test_memory_and_ledger_sizes_per_call_match_measurement() -> None:
    lines = [line for recording, known in calls_of_the_bench(500) for line in _lines_of(recording, known)]
    assert sum(map(len, lines)) / 500 == pytest.approx(sizing.LEDGER_BYTES, rel=0.1)
    # Read as a day, and learned by the task's own ledger.
    held = _held_bytes(lambda: [day := LedgerView(parse(line.encode())[0] for line in lines), LedgerView(day.all())])
    assert held / 500 == pytest.approx(sizing.KNOWN_BYTES, rel=0.25)
    said = sentences()
    cues = [
        Cue(place, one["start_s"], one["end_s"], one["speaker"], one["text"], 0.9) for place, one in enumerate(said)
    ]
    bundle = [json.dumps([asdict(cue) for cue in cues]) for _ in range(100)]
    held = _held_bytes(lambda: [json.loads(line) for line in bundle])
    assert held / 100 / len(cues) == pytest.approx(sizing.CUE_BYTES, rel=0.25)


def _lines_of(recording: Any, known: LedgerView) -> list[str]:
    """What the ledger has of a call in the end."""
    heard, said = map(to_document, known.all())
    shared = {name: heard[name] for name in ("key", "recording", "term", "run_id")}
    url = f"https://{recording.bucket}.s3.eu-central-1.amazonaws.com/{recording.key}"
    before = {"event": "intended", **shared, "at": heard["at"], "audio_url": url, "tries": 1}
    sent = {"event": "submitted", **shared, "at": heard["at"], "transcript_id": heard["transcript_id"], "tries": 1}
    return [json.dumps(event) + "\n" for event in (before, sent | {"model": heard["speech_model"]}, heard, said)]


def _held_bytes(make: Any) -> int:
    tracemalloc.start()
    try:
        kept = make()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept
    return held


@pytest.mark.parametrize("night", NIGHTS, ids=lambda night: night.name)
def test_model_is_close_to_measured_nights(night: Measured) -> None:
    site = sizing.site_of(night)
    assert sizing.makespan_s(night.calls, site) == pytest.approx(night.makespan_s, rel=0.2)
    assert sizing.core_s_of(night.calls, site) / night.calls * 1000 == pytest.approx(night.core_ms, rel=0.1)
    assert night.calls / sizing.questions_of(night.calls) == pytest.approx(night.calls_a_question, rel=0.001)


def test_gateway_limit_dominates_a_paced_night() -> None:
    limits = sizing.limits_s(PACED.calls, sizing.site_of(PACED))
    assert max(limits, key=lambda name: limits[name]) == "questions a minute"


@given(st.integers(200, 10**7))  # with fewer calls, or a single call more, another chunk may save a question
def test_makespan_grows_with_calls_and_not_with_cores(calls: int) -> None:
    assert sizing.makespan_s(calls, PAPER) <= sizing.makespan_s(2 * calls, PAPER)
    assert sizing.makespan_s(calls, replace(PAPER, cores=4)) <= sizing.makespan_s(calls, PAPER)


@settings(max_examples=50)
@given(st.integers(1, 600_000))
def test_night_fits_the_window_with_the_needed_resources(calls: int) -> None:
    window_s = 6 * HOUR_S
    assert sizing.makespan_s(calls, sizing.needed(calls, PAPER, window_s)) <= window_s


@given(st.integers(0, 10**6))
def test_most_finds_the_largest_number_that_fits(border: int) -> None:
    assert sizing.most(lambda calls: calls <= border) == border


def test_short_jobs_never_resume_from_the_triggerer() -> None:
    assert sizing.wake_ups_of(5000, Site()) == 0
    assert sizing.wake_ups_of(5000, PAPER) > 0


def test_scaling_page_contains_the_tables_of_the_model() -> None:
    page = (DOCS / "scaling.md").read_text()
    for table in sizing.tables():
        assert table in page, "update docs/scaling.md with the output of: python -m tools.sizing"


@pytest.mark.parametrize("night", NIGHTS[:2], ids=lambda night: night.name)
def test_measured_nights_match_the_performance_page(night: Measured) -> None:
    page = (DOCS / "performance.md").read_text()
    figures = (f"{night.makespan_s} s", night.core_ms, night.s3_a_call, night.provider_a_call, night.lists)
    assert all(f"| {figure} |" in page for figure in figures)
