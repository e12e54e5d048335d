"""The columns that hold talk statistics: talk time, turns, interruptions, pace and confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def speaker_columns(talk: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that name a call's speakers."""
    names: list[str] = talk.get("speakers", [])
    first, second, *_ = [*names, None, None]
    return {"speaker_1": first, "speaker_2": second}


def talk_columns(talk: Mapping[str, Any], length_s: float | None) -> dict[str, Any]:
    """The columns with the talk statistics of a call or a phase, except the speakers' names.

    Args:
        talk: from ``talk_statistics``; empty if unknown.
        length_s: the length of the call or the phase in seconds; None if unknown.
    """
    spoken_s: float | None = talk.get("spoken_s")
    talk_s: list[float] = talk.get("talk_s", [])
    first_s, second_s, *_ = [*talk_s, None, None]
    return {
        "turn_count": talk.get("turn_count"),
        "silence_s": None if spoken_s is None or length_s is None else max(round(length_s - spoken_s, 3), 0.0),
        "speaker_1_talk_s": first_s,
        "speaker_1_talk_share": _share(first_s, spoken_s),
        "speaker_2_talk_s": second_s,
        "speaker_2_talk_share": _share(second_s, spoken_s),
        "other_talk_s": talk.get("other_s", 0.0) if talk_s else None,
        "interruption_count": talk.get("interruption_count"),
        "words_per_minute": talk.get("words_per_minute"),
        "confidence": talk.get("confidence"),
    }


def _share(part_s: float | None, spoken_s: float | None) -> float | None:
    return part_s / spoken_s if part_s is not None and spoken_s else None
