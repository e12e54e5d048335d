"""What a call cost, from what was really used: audio seconds and tokens.

Prices are the providers' public list prices of October 2026.
"""

from __future__ import annotations

SPEECH_USD_PER_HOUR = {"universal-3-5-pro": 0.21, "universal-3-pro": 0.21, "universal-2": 0.15}
SPEAKER_LABELS_USD_PER_HOUR = 0.02
LLM_USD_PER_MILLION = {  # (input, output)
    "claude-sonnet-4-6": (3.0, 15.0),
    "claude-sonnet-4-5-20250929": (3.0, 15.0),
    "claude-haiku-4-5-20251001": (1.0, 5.0),
}


def speech_usd(model: str | None, audio_s: float, *, speaker_labels: bool) -> float | None:
    """The price of transcribing ``audio_s`` seconds; None where the model's price is not known."""
    per_hour = SPEECH_USD_PER_HOUR.get(model or "")
    if per_hour is None:
        return None
    return audio_s / 3600 * (per_hour + (SPEAKER_LABELS_USD_PER_HOUR if speaker_labels else 0))


def llm_usd(model: str | None, input_tokens: int, output_tokens: int) -> float | None:
    """The price of one answer; None where the model's price is not known."""
    prices = LLM_USD_PER_MILLION.get(model or "")
    if prices is None:
        return None
    return (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6
