"""Hours and nights at a pipeline's limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.planning.pace import AUDIO_S_PER_S, JOB_S, Pace, pace


def paced(**changes: Any) -> Pace:
    values = {
        "jobs": 100_000,
        "audio_s": 100_000 * 300,
        "questions": 10_000,
        "usd": 3_000.0,
        "transcriptions_at_once": 200,
        "ramp": False,
        "questions_per_minute": 30,
    }
    return pace(**{**values, **changes})


def test_slower_service_decides() -> None:
    found = paced()
    assert found.speech_hours == pytest.approx(100_000 * (JOB_S + 300 / AUDIO_S_PER_S) / 200 / 3600)
    assert found.question_hours == pytest.approx(10_000 / 30 / 60)
    assert found.hours == max(found.speech_hours, found.question_hours)
    assert found.nights == math.ceil(found.hours / 24)


def test_hours_of_a_night_and_dollars_of_a_day_make_nights() -> None:
    assert paced(night_hours=2).nights == math.ceil(paced().hours / 2)
    assert paced(usd_per_day=100).nights == 30
    assert paced(usd_per_day=10_000).nights == paced().nights


def test_nothing_to_do_takes_no_night() -> None:
    assert paced(jobs=0, audio_s=0, questions=0, usd=0).nights == 0


@given(st.integers(1, 10**6))
def test_ramp_makes_nothing_faster(jobs: int) -> None:
    assert paced(jobs=jobs, ramp=True).speech_hours >= paced(jobs=jobs, ramp=False).speech_hours
