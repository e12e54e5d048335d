"""Costs of calls in US dollars: prices, what a run has spent, and estimates to compare with a budget beforehand.

Defaults are the providers' public list prices of November 2026, and those of options of April 2026 (a public copy of
AssemblyAI's price list); the pipeline file's ``prices`` override them. A model without a price has no cost in the
tables. Against a budget it counts at the dearest price that is known, as an estimate.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator
from typing import Any

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
OPTION_USD_PER_HOUR = {
    "auto_chapters": 0.08,
    "auto_highlights": 0.01,
    "content_safety": 0.15,
    "domain": 0.15,
    "entity_detection": 0.08,
    "filter_profanity": 0.01,
    "iab_categories": 0.15,
    "keyterms_prompt": 0.05,
    "prompt": 0.05,
    "redact_pii": 0.08,
    "redact_pii_audio": 0.05,
    "sentiment_analysis": 0.02,
    "summarization": 0.03,
}
"""What options of ``transcription`` add per hour of audio, besides ``speaker_labels``."""
UNDERSTANDING_USD_PER_HOUR = {"custom_formatting": 0.03, "speaker_identification": 0.02, "translation": 0.06}
"""The same for the requests within ``speech_understanding``."""
FREE_OPTIONS = frozenset({
    "audio_end_at", "audio_start_from", "boost_param", "content_safety_confidence", "custom_spelling",
    "disfluencies", "dual_channel", "format_text", "language_code", "language_codes", "language_confidence_threshold",
    "language_detection", "language_detection_options", "multichannel", "punctuate", "redact_pii_audio_options",
    "redact_pii_audio_quality", "redact_pii_policies", "redact_pii_sub", "remove_audio_tags", "speaker_labels",
    "speaker_options", "speakers_expected", "speech_model", "speech_models", "speech_threshold", "summary_model",
    "summary_type", "temperature", "webhook_auth_header_name", "webhook_auth_header_value", "webhook_url", "word_boost",
})  # fmt: skip
"""Options that add nothing, or that are counted elsewhere."""
TOKENS_PER_SECOND_IN, TOKENS_PER_SECOND_OUT = 7.5, 1.1
"""Tokens per second of audio: a call of six minutes has about 2,500 tokens and an answer of 400."""
QUESTION_TOKENS, ANSWER_TOKENS = 700, 60
"""Tokens of the instructions, and of an answer without its phases."""
USUAL_CHANNELS = 2
"""Of a recording whose channels are transcribed one by one (``multichannel``), in estimates: agent and customer."""
MARGIN = 1.1
"""Allows for answers that are requested twice."""


def speech_usd(pipeline: Pipeline, model: str | None, audio_s: float, channels: int | None = None) -> float | None:
    """The price of transcribing ``audio_s`` seconds with ``model``; None if the model's price is unknown.

    With the option ``multichannel`` the service bills each of the ``channels``, but options only once.
    """
    per_hour = _speech_prices(pipeline).get(model or "")
    return None if per_hour is None else _speech_usd(pipeline, per_hour, audio_s, channels or 1)


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


def expected_speech_usd(pipeline: Pipeline, audio_s: float, channel_s: float | None = None) -> float:
    """The cost of transcribing ``audio_s`` seconds with the first of the pipeline's models.

    ``channel_s`` counts each channel's seconds where the service bills them one by one.
    """
    per_hour = _speech_price(pipeline, pipeline.speech_models[0])
    if per_hour is None:
        per_hour = max(_speech_prices(pipeline).values())
    more_s = 0.0 if channel_s is None else channel_s - audio_s
    return _speech_usd(pipeline, per_hour, audio_s, 1) + more_s / 3600 * per_hour


def expected_llm_usd(pipeline: Pipeline, tokens_in: float, tokens_out: float) -> float:
    """The cost of tokens with the model that is asked first, or with all of them in turn if they are side by side."""
    models = pipeline.segmentation.models
    asked = models if pipeline.segmentation.side_by_side else models[:1]
    return sum(
        max(_llm_usd(price, tokens_in, tokens_out) for price in _prices_of(pipeline, model)) for model in asked
    ) / len(asked)


def priced_options(pipeline: Pipeline) -> dict[str, float]:
    """The options of the pipeline that cost something, in US dollars per hour of audio."""
    options = pipeline.speech_options
    known = OPTION_USD_PER_HOUR | {"speaker_labels": pipeline.prices.speaker_labels_usd_per_hour}
    known |= pipeline.prices.options_usd_per_hour
    found = {name: usd for name, usd in known.items() if options.get(name)}
    for name in _understanding(options):
        usd = pipeline.prices.options_usd_per_hour.get(name, UNDERSTANDING_USD_PER_HOUR.get(name))
        found |= {} if usd is None else {name: usd}
    return found


def unpriced_options(pipeline: Pipeline) -> list[str]:
    """The options of the pipeline whose price is not known: they may cost something."""
    options, priced = pipeline.speech_options, priced_options(pipeline)
    named = [name for name, value in options.items() if value and name != "speech_understanding"]
    return [name for name in [*named, *_understanding(options)] if name not in FREE_OPTIONS and name not in priced]


def unpriced_models(pipeline: Pipeline) -> list[str]:
    """The models of the pipeline whose price is not known."""
    speech = [model for model in pipeline.speech_models if _speech_price(pipeline, model) is None]
    return speech + [model for model in pipeline.segmentation.models if model not in _llm_prices(pipeline)]


def _understanding(options: dict[str, Any]) -> list[str]:
    found = options.get("speech_understanding")
    requests = found.get("request") if isinstance(found, dict) else None
    return list(requests) if isinstance(requests, dict) else []


def _prices_of(pipeline: Pipeline, model: str) -> list[LlmPrice]:
    """What a model may cost: all known prices where its own is not known."""
    known = _llm_prices(pipeline)
    price = known.get(model) or known.get(model.rpartition("/")[2])
    return list(known.values()) if price is None else [price]


def highest_llm_usd(pipeline: Pipeline, tokens_in: float, tokens_out: float) -> float:
    """The cost of an answer from the most expensive of the pipeline's models.

    A model without a price counts at that of the same model without its provider (``anthropic/…``), which may ask for
    more or less, or at the dearest.
    """
    of_models = (price for model in pipeline.segmentation.models for price in _prices_of(pipeline, model))
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


def _speech_usd(pipeline: Pipeline, per_hour: float, audio_s: float, channels: float = USUAL_CHANNELS) -> float:
    billed = channels if pipeline.speech_options.get("multichannel") else 1
    return audio_s / 3600 * (per_hour * billed + sum(priced_options(pipeline).values()))


def _llm_usd(price: LlmPrice, input_tokens: float, output_tokens: float) -> float:
    return (input_tokens * price.input + output_tokens * price.output) / 1e6
