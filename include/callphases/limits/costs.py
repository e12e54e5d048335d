"""Costs of calls in US dollars: prices, what a run has spent, and estimates to compare with a budget beforehand.

Defaults are the providers' public list prices of October 2026; the pipeline file's ``prices`` override them.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable

from callphases.errors import ConfigurationError
from callphases.pipeline import LlmPrice, Pipeline
from callphases.state.events import Answered, Event, Failed, Transcribed

SPEECH_USD_PER_HOUR = {"universal-3-5-pro": 0.21, "universal-3-pro": 0.21, "universal-2": 0.15}
LLM_USD_PER_MILLION = {
    "claude-sonnet-4-6": LlmPrice(input=3.0, output=15.0),
    "claude-sonnet-4-5-20250929": LlmPrice(input=3.0, output=15.0),
    "claude-haiku-4-5-20251001": LlmPrice(input=1.0, output=5.0),
}
TOKENS_PER_SECOND_IN, TOKENS_PER_SECOND_OUT = 7.5, 1.1
"""Tokens per second of audio: a call of six minutes has about 2,500 tokens and an answer of 400."""
QUESTION_TOKENS, ANSWER_TOKENS = 700, 60
"""Tokens of the instructions, and of an answer without its phases."""
MARGIN = 1.1
"""Allows for answers that are requested twice."""


def speech_usd(pipeline: Pipeline, model: str | None, audio_s: float) -> float | None:
    """The price of transcribing ``audio_s`` seconds with ``model``; None if the model's price is unknown."""
    per_hour = (SPEECH_USD_PER_HOUR | pipeline.prices.speech_usd_per_hour).get(model or "")
    if per_hour is None:
        return None
    labels = bool(pipeline.transcription.get("speaker_labels"))
    return audio_s / 3600 * (per_hour + (pipeline.prices.speaker_labels_usd_per_hour if labels else 0))


def llm_usd(pipeline: Pipeline, model: str | None, input_tokens: int, output_tokens: int) -> float | None:
    """The price of a model's tokens; None if the model's price is unknown."""
    price = (LLM_USD_PER_MILLION | pipeline.prices.llm_usd_per_million).get(model or "")
    if price is None:
        return None
    return (input_tokens * price.input + output_tokens * price.output) / 1e6


def estimated_speech_usd(pipeline: Pipeline, audio_s: float) -> float:
    """The cost of transcribing ``audio_s`` seconds with the most expensive of the pipeline's models.

    Raises:
        ConfigurationError: the price of one of them is unknown.
    """
    models = pipeline.speech_models
    return max(_required(speech_usd(pipeline, model, audio_s), model, "speech_usd_per_hour") for model in models)


def estimated_llm_usd(pipeline: Pipeline, audio_s: float) -> float:
    """The cost of segmenting a call of ``audio_s`` seconds with the most expensive of the pipeline's models.

    Raises:
        ConfigurationError: the price of one of them is unknown.
    """
    tokens_out = ANSWER_TOKENS + TOKENS_PER_SECOND_OUT * audio_s
    return highest_llm_usd(pipeline, MARGIN * (QUESTION_TOKENS + TOKENS_PER_SECOND_IN * audio_s), MARGIN * tokens_out)


def spent_usd(events: Iterable[Event], run_id: str, since: dt.datetime) -> tuple[float, float]:
    """What a run has spent since ``since`` on speech models and on language models, from the ledger's events."""
    speech = llm = 0.0
    for event in events:
        if event.run_id != run_id or event.at < since:
            continue
        if isinstance(event, Transcribed):
            speech += event.speech_usd or 0.0
        elif isinstance(event, Answered | Failed) and event.usage is not None:
            llm += event.usage.llm_usd or 0.0
    return speech, llm


def highest_llm_usd(pipeline: Pipeline, tokens_in: float, tokens_out: float) -> float:
    """The cost of an answer from the most expensive of the pipeline's models.

    Raises:
        ConfigurationError: the price of one of them is unknown.
    """
    return max(
        _required(llm_usd(pipeline, model, math.ceil(tokens_in), math.ceil(tokens_out)), model, "llm_usd_per_million")
        for model in pipeline.segmentation.models
    )


def _required(usd: float | None, model: str, setting: str) -> float:
    if usd is None:
        raise ConfigurationError(
            f"budget.usd_per_run is set, but the price of {model} is unknown: set it in prices.{setting}."
        )
    return usd
