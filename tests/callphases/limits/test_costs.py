"""Prices, estimates and spending; an unknown price is estimated against a budget, and never in the tables."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.cues import Cue
from callphases.errors import AnswerInvalid, BadAudio
from callphases.limits import costs
from callphases.limits.costs import llm_usd, speech_usd
from callphases.pipeline import DEFAULT_LLM_MODELS, DEFAULT_SPEECH_MODELS
from callphases.segmentation import tokens
from callphases.segmentation.tokens import estimated_question_usd, expected_tokens
from callphases.state.events import Answered, Event, ModelUsage, Submitted, Transcribed, failed, stamped
from doubles import NOON, cue, pipeline


@pytest.mark.parametrize(
    ("model", "audio_s", "options", "usd"),
    [
        ("assemblyai-stt-3-7", 3600, {}, 0.21),
        ("universal-3-5-pro", 3600, {}, 0.21),
        ("universal-3-5-pro", 3600, {"speaker_labels": True}, 0.23),
        ("universal-2", 360, {"speaker_labels": False}, 0.015),
        ("universal-2", 0, {"speaker_labels": True}, 0),
        ("a-model-of-tomorrow", 3600, {"speaker_labels": True}, None),
        (None, 3600, {}, None),
    ],
)
def test_speech_is_priced_per_hour(model: str | None, audio_s: float, options: Any, usd: float | None) -> None:
    paid = speech_usd(pipeline(transcription=options), model, audio_s)
    assert paid == (usd if usd is None else pytest.approx(usd))


@pytest.mark.parametrize(
    ("model", "input_tokens", "output_tokens", "usd"),
    [
        ("claude-sonnet-4-6", 2500, 400, 0.0135),
        ("claude-haiku-4-5-20251001", 1_000_000, 1_000_000, 6.0),
        ("claude-sonnet-4-6", 0, 0, 0),
        ("gpt-of-tomorrow", 1000, 1000, None),
        (None, 1000, 1000, None),
    ],
)
def test_answers_are_priced_per_token(
    model: str | None, input_tokens: int, output_tokens: int, usd: float | None
) -> None:
    paid = llm_usd(pipeline(), model, input_tokens, output_tokens)
    assert paid == (usd if usd is None else pytest.approx(usd))


def test_default_models_have_prices() -> None:
    assert all(speech_usd(pipeline(), model, 1) for model in DEFAULT_SPEECH_MODELS)
    assert all(llm_usd(pipeline(), model, 1, 1) for model in DEFAULT_LLM_MODELS)


OWN_PRICES: dict[str, Any] = {
    "prices": {
        "speech_usd_per_hour": {"universal-2": 0.1, "tomorrow": 1.0},
        "speaker_labels_usd_per_hour": 0.5,
        "llm_usd_per_million": {
            "claude-sonnet-4-6": {"input": 1, "output": 2},
            "gpt-of-tomorrow": {"input": 0, "output": 0},
        },
    }
}


def test_configured_prices_override_list_prices() -> None:
    ours = pipeline(**OWN_PRICES)
    assert speech_usd(ours, "universal-2", 3600) == pytest.approx(0.6)
    assert speech_usd(ours, "tomorrow", 3600) == pytest.approx(1.5)
    assert speech_usd(ours, "universal-3-5-pro", 3600) == pytest.approx(0.71)
    assert llm_usd(ours, "claude-sonnet-4-6", 1_000_000, 1_000_000) == 3
    assert llm_usd(ours, "gpt-of-tomorrow", 1_000_000, 1_000_000) == 0
    assert llm_usd(ours, "claude-haiku-4-5-20251001", 1_000_000, 1_000_000) == 6


def test_options_add_their_price() -> None:
    options = {"speech_models": ["universal-2"], "redact_pii": True, "entity_detection": False, "language_code": "de"}
    assert speech_usd(pipeline(transcription=options), "universal-2", 3600) == pytest.approx(0.15 + 0.08)
    own = pipeline(transcription=options, prices={"options_usd_per_hour": {"redact_pii": 0.5}})
    assert speech_usd(own, "universal-2", 3600) == pytest.approx(0.65)
    identified = options | {"speech_understanding": {"request": {"speaker_identification": {}, "tomorrow": {}}}}
    ours = pipeline(transcription=identified | {"unheard_of": True})
    assert costs.priced_options(ours) == {"redact_pii": 0.08, "speaker_identification": 0.02}
    assert costs.unpriced_options(ours) == ["unheard_of", "tomorrow"]
    assert costs.unpriced_options(pipeline()) == costs.unpriced_options(pipeline(transcription=options)) == []


def test_each_channel_is_billed_where_they_are_transcribed_one_by_one_and_options_once() -> None:
    options = {"speech_models": ["universal-2"], "speaker_labels": True}
    assert speech_usd(pipeline(transcription=options), "universal-2", 3600, 2) == pytest.approx(0.17)
    apart = pipeline(transcription=options | {"multichannel": True})
    assert speech_usd(apart, "universal-2", 3600, 2) == pytest.approx(0.32)
    assert speech_usd(apart, "universal-2", 3600) == pytest.approx(0.17)
    assert costs.estimated_speech_usd(apart, 3600) == pytest.approx(0.32), "estimates take two"
    assert costs.expected_speech_usd(apart, 3600, 3 * 3600) == pytest.approx(0.47)


def test_expected_costs_are_those_of_the_first_model_or_of_all_side_by_side() -> None:
    models = ["claude-haiku-4-5-20251001", "claude-sonnet-4-6"]
    ours = pipeline(
        transcription={"speech_models": ["universal-2", "universal-3-5-pro"]}, segmentation={"models": models}
    )
    assert costs.expected_speech_usd(ours, 3600) == pytest.approx(0.15)
    assert costs.expected_llm_usd(ours, 1e6, 1e6) == pytest.approx(6)
    both = pipeline(segmentation={"models": models, "side_by_side": True})
    assert costs.expected_llm_usd(both, 1e6, 1e6) == pytest.approx((6 + 18) / 2)
    unknown = pipeline(transcription={"speech_models": ["tomorrow"]}, segmentation={"models": ["later"]})
    assert costs.expected_speech_usd(unknown, 3600) == pytest.approx(0.21)
    assert costs.unpriced_models(unknown) == ["tomorrow", "later"]


# Estimates


def test_estimate_uses_the_most_expensive_model() -> None:
    ours = pipeline(transcription={"speech_models": ["universal-2", "universal-3-5-pro"]})
    assert costs.estimated_speech_usd(ours, 3600) == pytest.approx(0.21)
    cheap, dear = "claude-haiku-4-5-20251001", "claude-sonnet-4-6"
    both, one = (pipeline(segmentation={"models": models}) for models in ([cheap, dear], [dear]))
    assert costs.estimated_llm_usd(both, 360) == costs.estimated_llm_usd(one, 360)


def test_estimate_covers_a_typical_call_of_six_minutes() -> None:
    """Some 2,500 tokens of a call, the instructions, and an answer of 400."""
    taken = llm_usd(pipeline(), "claude-sonnet-4-6", 2_500 + costs.QUESTION_TOKENS, 400)
    assert taken is not None
    assert taken <= costs.estimated_llm_usd(pipeline(), 360) <= 2 * taken


def said(cues: int, chars: int = 60) -> list[Cue]:
    return [cue(number, number, number + 1, "x" * chars) for number in range(1, cues + 1)]


def test_question_estimate_grows_with_its_text() -> None:
    few, many = (estimated_question_usd(pipeline(), 360, said(cues)) for cues in (10, 100))
    assert 0 < few < many
    most = llm_usd(pipeline(), "claude-sonnet-4-6", 700 + 100 * 12 + 1500, 60 + 396)
    assert many == pytest.approx(most, rel=0.01)


def test_calls_that_share_a_question_share_its_instructions() -> None:
    one = estimated_question_usd(pipeline(), 360, said(100))
    three = estimated_question_usd(pipeline(), 3 * 360, said(300), calls=3)
    instructions = llm_usd(pipeline(), "claude-sonnet-4-6", costs.QUESTION_TOKENS, 0)
    assert instructions is not None
    assert three == pytest.approx(3 * one - 2 * instructions, rel=0.01)


def test_expected_tokens_of_a_call() -> None:
    assert expected_tokens(pipeline(), 360, said(100)) == pytest.approx((100 * 12 + 1500, 60 + 396), abs=1)
    assert expected_tokens(pipeline(), 20, said(8, 50)) == (8 * 12 + 100, 60 + 4 * 45), "its phases, once each"
    assert expected_tokens(pipeline(), 2, said(1, 0)) == (12, 60 + 45)
    assert min(expected_tokens(pipeline(), 0, [])) >= 1


@given(st.integers(0, 10**6), st.lists(st.integers(1, 10**5), min_size=1, max_size=30))
def test_shares_add_up_and_are_proportional(total: int, sizes: list[int]) -> None:
    shares = tokens.shares(total, sizes)
    assert sum(shares) == total
    assert all(abs(share - total * size / sum(sizes)) < 1.001 for share, size in zip(shares, sizes, strict=True))


def test_model_without_a_price_is_estimated_at_the_dearest() -> None:
    ours = pipeline(
        transcription={"speech_models": ["universal-2", "tomorrow"]},
        segmentation={"models": ["claude-haiku-4-5-20251001", "tomorrow"]},
        prices={"speech_usd_per_hour": {"own": 0.5}},
    )
    assert speech_usd(ours, "tomorrow", 3600) is None
    assert costs.estimated_speech_usd(ours, 3600) == pytest.approx(0.5)
    assert llm_usd(ours, "tomorrow", 1, 1) is None
    dear = pipeline(segmentation={"models": ["claude-sonnet-4-6"]})
    assert costs.estimated_llm_usd(ours, 60) == costs.estimated_llm_usd(dear, 60)
    assert estimated_question_usd(ours, 60, said(3)) == estimated_question_usd(dear, 60, said(3))


@pytest.mark.parametrize(
    ("input_usd", "output_usd", "tokens", "usd"),
    [(1, 100, (0, 10), 1e-3), (100, 1, (10, 0), 1e-3), (0, 0, (10, 10), 18e-5)],
)
def test_dearest_price_is_that_of_the_tokens(
    input_usd: float, output_usd: float, tokens: tuple[int, int], usd: float
) -> None:
    own = {"llm_usd_per_million": {"own": {"input": input_usd, "output": output_usd}}}
    ours = pipeline(segmentation={"models": ["tomorrow"]}, prices=own)
    assert costs.highest_llm_usd(ours, *tokens) == pytest.approx(usd)


@pytest.mark.parametrize("model", ["anthropic/claude-haiku-4-5-20251001", "eu/anthropic/claude-haiku-4-5-20251001"])
def test_model_of_a_provider_is_estimated_at_the_price_of_the_model(model: str) -> None:
    ours, bare = (pipeline(segmentation={"models": [one]}) for one in (model, "claude-haiku-4-5-20251001"))
    assert llm_usd(ours, model, 1, 1) is None, "the provider may ask for more or less"
    assert costs.highest_llm_usd(ours, 1000, 100) == costs.highest_llm_usd(bare, 1000, 100)
    free = pipeline(
        segmentation={"models": ["x/free"]}, prices={"llm_usd_per_million": {"free": {"input": 0, "output": 0}}}
    )
    assert costs.highest_llm_usd(free, 1000, 100) == 0


@pytest.mark.parametrize(("model", "per_hour"), [("best", 0.21), ("universal-3-pro", 0.21), ("nano", 0.15)])
def test_retired_model_is_estimated_at_the_price_of_its_successor(model: str, per_hour: float) -> None:
    ours = pipeline(transcription={"speech_models": [model]}, prices={"speech_usd_per_hour": {"own": 9}}, budget=BUDGET)
    assert costs.estimated_speech_usd(ours, 3600) == pytest.approx(per_hour)
    assert costs.unpriced(ours) == []


BUDGET = {"usd_per_run": 5}


def test_models_without_a_price_are_named_with_the_setting_under_a_budget_only() -> None:
    settings = {
        "transcription": {"speech_models": ["universal-2", "tomorrow"]},
        "segmentation": {"models": ["claude-sonnet-4-6", "x/claude-sonnet-4-6"]},
    }
    speech, llm = costs.unpriced(pipeline(**settings, budget=BUDGET))
    assert re.search(r"price of tomorrow is not known.*estimated.*prices\.speech_usd_per_hour", speech)
    assert re.search(r"price of x/claude-sonnet-4-6 is not known.*prices\.llm_usd_per_million", llm)
    assert costs.unpriced(pipeline(**settings)) == costs.unpriced(pipeline(budget=BUDGET)) == []


def test_zero_is_a_valid_price() -> None:
    ours = pipeline(transcription={"speech_models": ["own"]}, prices={"speech_usd_per_hour": {"own": 0}})
    assert costs.estimated_speech_usd(ours, 3600) == 0


def test_spending_of_a_run_is_summed_from_its_events() -> None:
    def at(minutes: int) -> dt.datetime:
        return NOON + dt.timedelta(minutes=minutes)

    def transcribed(run_id: str, minutes: int, usd: float | None) -> Event:
        return Transcribed(
            key="k", run_id=run_id, at=at(minutes), status="completed", transcript_id="t-1", speech_usd=usd
        )

    def answered(run_id: str, minutes: int, usd: float | None) -> Event:
        usage = ModelUsage(llm_usd=usd)
        return Answered(key="k", run_id=run_id, at=at(minutes), duration_s=1.0, phases=[], usage=usage)

    invalid = failed("k", AnswerInvalid("No phases."), "a.mp3", usage=ModelUsage(llm_usd=0.125))
    events = [
        transcribed("run", 1, 1.0),
        transcribed("run", 2, None),
        answered("run", 3, 0.125),
        answered("run", 4, None),
        stamped(invalid, at(4), 1, "run"),
        Submitted(key="k", run_id="run", at=at(4), transcript_id="t-1"),
        stamped(failed("k", BadAudio("No audio."), "a.mp3"), at(4), 1, "run"),
        transcribed("run", -1, 10.0),
        transcribed("other", 1, 100.0),
        answered("other", 1, 100.0),
    ]
    assert costs.spent_usd(events, "run", NOON) == (1.0, 0.25)
