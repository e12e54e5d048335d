"""The share of a chunk: what may be under way, and what becomes of it when lengths turn out to be others."""

from __future__ import annotations

import datetime as dt
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.limits import costs
from callphases.limits.chunk_budget import ChunkBudget
from callphases.pipeline import Pipeline
from callphases.state.events import Answered, Event, Failed, ModelUsage, Submitted, Transcribed, stamped
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import Ledger, LedgerView
from doubles import LONG_AGO, manifest, pipeline, recording

Lengths = list[tuple[float, float]]


class Task(LedgerView):
    """The ledger of a task, as far as a budget looks at it."""

    run_id = "run-1"

    def __init__(self) -> None:
        super().__init__()
        self.own: list[Event] = []

    def take(self, event: Event, run_id: str = "run-1") -> None:
        taken = stamped(event, LONG_AGO + dt.timedelta(seconds=len(self.own)), 1, run_id)
        self.own.append(taken)
        self.learn([taken])


class Chunk:
    """A chunk, and what happens to its recordings."""

    def __init__(self, lengths: Lengths, budget_usd: float | None, ours: Pipeline | None = None) -> None:
        self.pipeline, self.task = ours or pipeline(), Task()
        recordings = [recording(f"calls/{number}.mp3") for number in range(len(lengths))]
        self.keys = [RecordingKeys(self.pipeline).transcript(one) for one in recordings]
        chunk = manifest(*recordings, budget_usd=budget_usd, lengths=lengths)
        self.budget = ChunkBudget(self.pipeline, chunk, cast(Ledger, self.task))

    def submit(self, key: str) -> None:
        self.task.take(Submitted(key=key, transcript_id=f"t-{key}"))

    def complete(self, key: str, audio_s: float, run_id: str = "run-1", **more: Any) -> None:
        usd = {"speech_usd": costs.estimated_speech_usd(self.pipeline, audio_s), **more}
        event = Transcribed(key=key, status="completed", transcript_id=f"t-{key}", audio_s=audio_s, **usd)
        self.task.take(event, run_id)

    def price(self, audio_s: float) -> float:
        return costs.estimated_speech_usd(self.pipeline, audio_s) + costs.estimated_llm_usd(self.pipeline, audio_s)


def price(audio_s: float) -> float:
    return Chunk([], None).price(audio_s)


def test_chunk_without_a_budget_is_not_limited() -> None:
    chunk = Chunk([(60, 600)] * 3, None)
    assert chunk.budget.affordable(chunk.keys) == 3


def test_chunk_without_lengths_is_limited_by_its_list_alone() -> None:
    """A version before this one listed the day."""
    chunk = Chunk([], 0.000001)
    assert chunk.budget.affordable(["a", "b"]) == 2


def test_as_many_are_sent_as_the_share_pays_for_if_they_are_as_long_as_their_sizes_allow() -> None:
    chunk = Chunk([(60, 600)] * 5, 3.5 * price(600))
    assert chunk.budget.affordable(chunk.keys) == 3
    for key in chunk.keys[:2]:
        chunk.submit(key)
    assert chunk.budget.affordable(chunk.keys[2:]) == 1


def test_one_alone_is_sent_if_the_share_pays_for_what_its_header_states() -> None:
    chunk = Chunk([(60, 600)] * 2, 2.1 * price(60))
    assert chunk.budget.affordable(chunk.keys) == 1
    chunk.submit(chunk.keys[0])
    assert (chunk.budget.affordable(chunk.keys[1:]), chunk.budget.is_waiting(chunk.keys[1:])) == (0, True)
    chunk.complete(chunk.keys[0], 60)
    assert chunk.budget.affordable(chunk.keys[1:]) == 1


def test_header_is_believed_no_more_than_those_before_have_deserved() -> None:
    chunk = Chunk([(60, 600)] * 2, price(180) + price(100))
    chunk.complete(chunk.keys[0], 180)
    assert (chunk.budget.affordable(chunk.keys[1:]), chunk.budget.is_waiting(chunk.keys[1:])) == (0, False)


def test_headers_that_state_too_much_do_not_make_others_shorter() -> None:
    chunk = Chunk([(60, 600)] * 2, price(6) + price(59))
    chunk.complete(chunk.keys[0], 6)
    assert chunk.budget.affordable(chunk.keys[1:]) == 0


def test_recording_that_is_sent_again_does_not_wait_for_itself() -> None:
    chunk = Chunk([(60, 60)], 1.1 * price(60))
    chunk.submit(chunk.keys[0])
    assert (chunk.budget.affordable(chunk.keys), chunk.budget.is_waiting(chunk.keys)) == (1, False)


def test_transcripts_without_a_price_count_at_the_highest() -> None:
    chunk = Chunk([(60, 60)] * 2, 1.5 * price(60))
    chunk.complete(chunk.keys[0], 60, speech_usd=None)
    assert chunk.budget.spent_usd() == pytest.approx(costs.estimated_speech_usd(chunk.pipeline, 60))
    assert chunk.budget.affordable(chunk.keys[1:]) == 0


def test_answers_count_at_their_price_or_at_the_highest() -> None:
    chunk = Chunk([(60, 60)], 1.0)
    known = ModelUsage(llm_model="m", llm_input_tokens=10, llm_output_tokens=10, llm_usd=0.25)
    unknown = ModelUsage(llm_model="m", llm_input_tokens=1000, llm_output_tokens=100, llm_usd=None)
    chunk.task.take(Answered(key="a", duration_s=1.0, phases=[], usage=known))
    chunk.task.take(Failed(key="b", failure_class="answer_invalid", failure_message="", permanent=False, usage=unknown))
    assert chunk.budget.spent_usd() == pytest.approx(0.25 + costs.highest_llm_usd(chunk.pipeline, 1000, 100))


def test_spending_of_other_runs_does_not_count_but_their_questions_are_due() -> None:
    chunk = Chunk([(600, 600), (60, 60)], costs.estimated_llm_usd(pipeline(), 600) + 1.1 * price(60))
    chunk.complete(chunk.keys[0], 600, run_id="run-0")
    assert chunk.budget.spent_usd() == 0
    assert chunk.budget.affordable(chunk.keys[1:]) == 1
    less = Chunk([(600, 600), (60, 60)], 1.1 * price(60))
    less.complete(less.keys[0], 600, run_id="run-0")
    assert less.budget.affordable(less.keys[1:]) == 0


SECONDS = st.floats(1, 3600)


@given(
    st.lists(st.tuples(SECONDS, SECONDS, SECONDS).map(sorted), min_size=1, max_size=8),
    st.floats(0.0001, 3),
    st.booleans(),
    st.data(),
)
def test_share_is_exceeded_by_no_more_than_one_header_is_wrong_by(
    lengths: list[list[float]], budget_usd: float, is_honest: bool, data: st.DataObject
) -> None:
    """Whatever headers state, and in whatever order jobs end; honest headers never let it be exceeded."""
    stated = [(expected, most) for expected, _, most in lengths]
    chunk = Chunk(stated, budget_usd)
    actual = {key: (e if is_honest else a) for key, (e, a, _) in zip(chunk.keys, lengths, strict=True)}
    expected = dict(zip(chunk.keys, (e for e, _ in stated), strict=True))
    waiting, under_way, sent, refused = list(chunk.keys), list[str](), list[str](), list[str]()
    while waiting or under_way:
        count = chunk.budget.affordable(waiting)
        if count == 0 and waiting and not under_way:
            refused.append(waiting.pop(0))
            continue
        for key in waiting[:count]:
            chunk.submit(key)
        under_way += waiting[:count]
        sent += waiting[:count]
        waiting = waiting[count:]
        ended = data.draw(st.sampled_from(under_way))
        under_way.remove(ended)
        chunk.complete(ended, actual[ended])
    spent = sum(chunk.price(actual[key]) for key in sent)
    worst = max((chunk.price(actual[key]) - chunk.price(expected[key]) for key in sent), default=0.0)
    assert spent <= budget_usd + worst + 1e-9
    if is_honest:
        assert all(chunk.price(expected[key]) > budget_usd - spent for key in refused[-1:])
