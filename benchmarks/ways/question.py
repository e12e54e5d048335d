"""The question of the alternatives: one per call, built from its captions."""

from __future__ import annotations

from typing import Any

import webvtt

NAMES = ("Introduction", "Complaint", "Resolution", "Goodbye")


def question(captions: str) -> dict[str, Any]:
    """Return the body of a chat completion that asks for the phases of one call.

    The guide appends the captions to a prompt in prose. speechbox needs a JSON document, which takes no more CPU time.
    """
    import json

    cues = [
        {"cue": number, "speaker": "A", "text": cue.text}
        for number, cue in enumerate(webvtt.from_string(captions), start=1)
    ]
    document = {
        "phases": [{"name": name, "description": name} for name in NAMES],
        "calls": [{"call": 1, "cues": cues}],
    }
    return {
        "model": "claude-sonnet-4-6",
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": json.dumps(document)}],
    }


def answer(completion: dict[str, Any]) -> str:
    """Return the text of the model's answer."""
    return str(completion["choices"][0]["message"]["content"])
