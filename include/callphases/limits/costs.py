"""Costs of calls in US dollars: prices, what a run has spent, and estimates to compare with a budget beforehand.

Defaults are the providers' public list prices of November 2026; the pipeline file's ``prices`` override them. A model
without a price has no cost in the tables. Against a budget it counts at the dearest price that is known, as an
estimate.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator

from callphases.pipeline import LlmPrice, Pipeline
from callphases.speech_models import SUCCESSORS
from callphases.state.events import Answered, Event, Failed, Transcribed

SPEECH_USD_PER_HOUR = {
    "assemblyai-stt-3-7": 0.21,
    "universal-3-5-pro": 0.21,
    "universal-3-pro": 0.21,
    "universal-2": 0.15,
}
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
    per_hour = _speech_prices(pipeline).get(model or "")
    return None if per_hour is None else _speech_usd(pipeline, per_hour, audio_s)


def llm_usd(pipeline: Pipeline, model: str | None, input_tokens: int, output_tokens: int) -> float | None:
    """The price of a model's tokens; None if the model's price is unknown."""
    price = _llm_prices(pipeline).get(model or "")
    return None if price is None else _llm_usd(price, input_tokens, output_tokens)


def unpriced(pipeline: Pipeline) -> list[str]:
    """What to say of the pipeline's models whose prices are not known; empty without a budget, which needs them."""
    if pipeline.budget.usd_per_run is None:
        return []
    speech = [model for model in pipeline.speech_models if _speech_price(pipeline, model) is None]
    llm = [model for model in pipeline.segmentation.models if model not in _llm_prices(pipeline)]
    return [
        f"The price of {', '.join(models)} is not known, so costs are estimated at the dearest known price and count "
        f"against budget.usd_per_run. Set {setting} for exact ones."
        for models, setting in ((speech, "prices.speech_usd_per_hour"), (llm, "prices.llm_usd_per_million"))
        if models
    ]


def estimated_speech_usd(pipeline: Pipeline, audio_s: float) -> float:
    """The cost of transcribing ``audio_s`` seconds with the most expensive of the pipeline's models."""
    prices = (_speech_price(pipeline, model) for model in pipeline.speech_models)
    return max(
        _dearest_speech_usd(pipeline, audio_s) if one is None else _speech_usd(pipeline, one, audio_s) for one in prices
    )


def estimated_llm_usd(pipeline: Pipeline, audio_s: float) -> float:
    """The cost of segmenting a call of ``audio_s`` seconds with the most expensive of the pipeline's models."""
    tokens_out = ANSWER_TOKENS + TOKENS_PER_SECOND_OUT * audio_s
    return highest_llm_usd(pipeline, MARGIN * (QUESTION_TOKENS + TOKENS_PER_SECOND_IN * audio_s), MARGIN * tokens_out)


def highest_llm_usd(pipeline: Pipeline, tokens_in: float, tokens_out: float) -> float:
    """The cost of an answer from the most expensive of the pipeline's models.

    A model without a price counts at that of the same model without its provider (``anthropic/…``), which may ask for
    more or less, or at the dearest.
    """
    known = _llm_prices(pipeline)
    of_models: list[LlmPrice] = []
    for model in pipeline.segmentation.models:
        price = known.get(model) or known.get(model.rpartition("/")[2])
        of_models += known.values() if price is None else [price]
    return max(_llm_usd(price, math.ceil(tokens_in), math.ceil(tokens_out)) for price in of_models)


def spent_usd(events: Iterable[Event], run_id: str, since: dt.datetime) -> tuple[float, float]:
    """What a run has spent since ``since`` on speech models and on language models, from the ledger's events.

    What has no price is not counted; see ``unpriced_usd``.
    """
    speech = llm = 0.0
    for event in of_run(events, run_id, since):
        if isinstance(event, Transcribed):
            speech += event.speech_usd or 0.0
        elif isinstance(event, Answered | Failed) and event.usage is not None:
            llm += event.usage.llm_usd or 0.0
    return speech, llm


def unpriced_usd(pipeline: Pipeline, events: Iterable[Event], run_id: str, since: dt.datetime) -> tuple[float, float]:
    """Estimates of what ``spent_usd`` does not count, as its price is not known; on speech and on language models."""
    speech = llm = 0.0
    for event in of_run(events, run_id, since):
        speech_cost, llm_cost = _unpriced_usd(pipeline, event)
        speech, llm = speech + speech_cost, llm + llm_cost
    return speech, llm


def _unpriced_usd(pipeline: Pipeline, event: Event) -> tuple[float, float]:
    if isinstance(event, Transcribed) and event.speech_usd is None:
        return _dearest_speech_usd(pipeline, event.audio_s), 0.0
    if isinstance(event, Answered | Failed) and event.usage is not None and event.usage.llm_usd is None:
        return 0.0, highest_llm_usd(pipeline, event.usage.llm_input_tokens, event.usage.llm_output_tokens)
    return 0.0, 0.0


def of_run(events: Iterable[Event], run_id: str, since: dt.datetime) -> Iterator[Event]:
    """The events of a run since ``since``."""
    return (event for event in events if event.run_id == run_id and event.at >= since)


def _speech_prices(pipeline: Pipeline) -> dict[str, float]:
    return SPEECH_USD_PER_HOUR | pipeline.prices.speech_usd_per_hour


def _llm_prices(pipeline: Pipeline) -> dict[str, LlmPrice]:
    return LLM_USD_PER_MILLION | pipeline.prices.llm_usd_per_million


def _speech_price(pipeline: Pipeline, model: str) -> float | None:
    """A model's price per hour, or its successor's, which is what a retired model is routed to."""
    known = _speech_prices(pipeline)
    successor = SUCCESSORS.get(model)
    return known.get(model, None if successor is None else known.get(successor.name))


def _dearest_speech_usd(pipeline: Pipeline, audio_s: float) -> float:
    return _speech_usd(pipeline, max(_speech_prices(pipeline).values()), audio_s)


def _speech_usd(pipeline: Pipeline, per_hour: float, audio_s: float) -> float:
    labels = bool(pipeline.transcription.get("speaker_labels"))
    return audio_s / 3600 * (per_hour + (pipeline.prices.speaker_labels_usd_per_hour if labels else 0))


def _llm_usd(price: LlmPrice, input_tokens: int, output_tokens: int) -> float:
    return (input_tokens * price.input + output_tokens * price.output) / 1e6
