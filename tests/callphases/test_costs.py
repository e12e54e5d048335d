"""What a call cost: nothing is guessed where a price is not known."""

from __future__ import annotations

import pytest

from callphases.costs import llm_usd, speech_usd
from callphases.pipeline import DEFAULT_LLM_MODELS, DEFAULT_SPEECH_MODELS


@pytest.mark.parametrize(
    ("model", "audio_s", "speaker_labels", "usd"),
    [
        ("universal-3-5-pro", 3600, False, 0.21),
        ("universal-3-5-pro", 3600, True, 0.23),
        ("universal-2", 360, False, 0.015),
        ("universal-2", 0, True, 0),
        ("a-model-of-tomorrow", 3600, True, None),
        (None, 3600, True, None),
    ],
)
def test_speech_is_paid_by_the_hour(model: str | None, audio_s: float, speaker_labels: bool, usd: float | None) -> None:
    assert speech_usd(model, audio_s, speaker_labels=speaker_labels) == (usd if usd is None else pytest.approx(usd))


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
def test_answers_are_paid_by_the_token(
    model: str | None, input_tokens: int, output_tokens: int, usd: float | None
) -> None:
    assert llm_usd(model, input_tokens, output_tokens) == (usd if usd is None else pytest.approx(usd))


def test_the_default_models_have_prices() -> None:
    assert all(speech_usd(model, 1, speaker_labels=True) for model in DEFAULT_SPEECH_MODELS)
    assert all(llm_usd(model, 1, 1) for model in DEFAULT_LLM_MODELS)
