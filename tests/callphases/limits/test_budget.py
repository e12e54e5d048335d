"""The budget of a run: which recordings it covers, and how it is shared out to chunks."""

from __future__ import annotations

import logging
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.limits import costs
from callphases.limits.budget import ESTIMATES_AT_MOST, Budget, within_budget
from callphases.limits.durations import FALLBACK_BYTES_PER_SECOND
from callphases.pipeline import Pipeline
from callphases.progress import Progress
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from callphases.state.events import Answered, Event, Transcribed
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import LedgerView
from doubles import Store, pipeline, recording

SECONDS = 60
CALLS = [recording(f"calls/{number}.bin", size=round(SECONDS * FALLBACK_BYTES_PER_SECOND)) for number in range(4)]
EACH_USD = costs.estimated_speech_usd(pipeline(), SECONDS) + costs.estimated_llm_usd(pipeline(), SECONDS)


def covered(
    s3: Store, cap_usd: float | None, *events: Event, calls: list[Recording] = CALLS, ours: Pipeline | None = None
) -> Budget:
    bucket = RecordingBucket(s3.client, s3.recordings)
    return within_budget(calls, cap_usd, ours or pipeline(), bucket, LedgerView(events), lambda: None)


def transcribed(call: Recording, status: Any = "completed") -> Transcribed:
    key = RecordingKeys(pipeline()).transcript(call)
    return Transcribed(key=key, recording=call.key, status=status, transcript_id="t-1", audio_s=SECONDS)


def answered(call: Recording) -> Answered:
    key = Progress(call, RecordingKeys(pipeline()), LedgerView()).answer_key
    return Answered(key=key, recording=call.key, duration_s=SECONDS, phases=[])


@pytest.mark.integration
def test_no_cap_means_no_estimates_and_no_limit(s3: Store) -> None:
    budget = covered(s3, None)
    assert len(budget.estimates_usd) == 0
    assert (budget.left_usd, budget.share_usd(0, 2)) == (None, None)
    assert s3.counted()["GetObject"] == 0


@pytest.mark.integration
@pytest.mark.parametrize(("cap_in_calls", "count"), [(0, 0), (0.9, 0), (1.1, 1), (3.5, 3), (4.1, 4), (100, 4)])
def test_budget_covers_the_first_recordings_that_fit(s3: Store, cap_in_calls: float, count: int) -> None:
    budget = covered(s3, cap_in_calls * EACH_USD)
    assert list(budget.estimates_usd) == pytest.approx([EACH_USD] * count)


@pytest.mark.integration
def test_recordings_that_the_budget_does_not_cover_are_logged(s3: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        covered(s3, 2.5 * EACH_USD)
    assert "holds 2 of 4 recordings" in caplog.text


@pytest.mark.integration
def test_only_what_is_not_paid_yet_is_estimated(s3: Store) -> None:
    done, silent, half, _new = CALLS
    known = [transcribed(done), answered(done), transcribed(silent, "no_speech"), transcribed(half)]
    budget = covered(s3, 100.0, *known)
    assert list(budget.estimates_usd) == pytest.approx(
        [0.0, 0.0, costs.estimated_llm_usd(pipeline(), SECONDS), EACH_USD]
    )


@pytest.mark.integration
def test_lease_is_renewed_before_each_estimate(s3: Store) -> None:
    held: list[None] = []
    bucket = RecordingBucket(s3.client, s3.recordings)
    within_budget(CALLS, 100.0, pipeline(), bucket, LedgerView(), lambda: held.append(None))
    assert len(held) == len(CALLS)


@pytest.mark.integration
def test_model_without_a_price_counts_at_the_dearest_known(s3: Store) -> None:
    ours = pipeline(transcription={"speech_models": ["tomorrow"]}, segmentation={"models": ["tomorrow"]})
    assert covered(s3, None, ours=ours).cap_usd is None
    dear = pipeline(
        transcription={"speech_models": ["assemblyai-stt-3-7"]}, segmentation={"models": ["claude-sonnet-4-6"]}
    )
    assert covered(s3, 100.0, ours=ours) == covered(s3, 100.0, ours=dear)


USD = st.floats(0, 100)


@given(st.lists(USD, max_size=8), USD, st.integers(0, 8))
def test_shares_of_chunks_never_exceed_the_cap(estimates: list[float], more: float, first: int) -> None:
    cap = sum(estimates) + more
    budget = Budget(cap, array("d", estimates))
    shares = [budget.share_usd(0, first), budget.share_usd(first, len(estimates))]
    total = sum(share for share in shares if share is not None)
    assert total <= cap * (1 + 1e-9)
    assert sum(estimates) * (1 - 1e-9) <= total <= sum(estimates) * ESTIMATES_AT_MOST * (1 + 1e-9)
    assert budget.left_usd == pytest.approx(cap - total, abs=1e-6)


def test_chunk_may_spend_twice_its_estimates_and_the_rest_is_left() -> None:
    budget = Budget(10.0, array("d", [1.0, 2.0]))
    assert (budget.share_usd(0, 1), budget.share_usd(1, 1)) == (2.0, 4.0)
    assert budget.left_usd == 4.0


def test_budget_without_recordings_is_left_whole() -> None:
    budget = Budget(5.0, array("d"))
    assert (budget.left_usd, budget.share_usd(0, 0)) == (5.0, 0.0)
