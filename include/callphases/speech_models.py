"""The speech models of AssemblyAI for recordings, by name: which to use, and what replaces those that are not current.

From the service's pages on models, on their deprecation, and on the migration to ``assemblyai-stt-3-7``, November 2026.
A deprecated model is served as before. A retired one is routed to its successor, or rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

DEFAULT_SPEECH_MODELS = ["assemblyai-stt-3-7", "universal-2"]
"""The second is for languages that the first does not have: the service falls back to no model that is not named."""
FORMER_DEFAULTS = (["universal-3-5-pro", "universal-2"],)
"""What earlier versions of callphases asked for where the pipeline file names no models."""
MODEL_OPTIONS = ("speech_models", "speech_model")
"""The options of ``POST /v2/transcript`` that name models."""


class Successor(NamedTuple):
    """What replaces a model, and whether the service still serves the model itself."""

    name: str
    is_served: bool


SUCCESSORS: dict[str, Successor] = {
    "universal-3-5-pro": Successor("assemblyai-stt-3-7", is_served=True),
    "universal-3-pro": Successor("assemblyai-stt-3-7", is_served=False),
    "slam-1": Successor("assemblyai-stt-3-7", is_served=False),
    "best": Successor("assemblyai-stt-3-7", is_served=False),
    "universal": Successor("universal-2", is_served=False),
    "nano": Successor("universal-2", is_served=False),
}
KNOWN_SPEECH_MODELS = tuple(dict.fromkeys([*DEFAULT_SPEECH_MODELS, *SUCCESSORS]))


def models_of(options: Mapping[str, Any]) -> list[str]:
    """The speech models that options ask for, in order of preference; empty where they leave it to the service."""
    named = options.get("speech_models") or [options.get("speech_model")]
    return [str(model) for model in (named if isinstance(named, list) else [named]) if model]


def without_models(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that do not name models."""
    return {name: value for name, value in options.items() if name not in MODEL_OPTIONS}


def outdated(models: Iterable[str]) -> str | None:
    """What to say of deprecated and retired models among ``models``, with the remedy; None if there are none."""
    found = {model: SUCCESSORS[model] for model in models if model in SUCCESSORS}
    if not found:
        return None
    states = (
        f"{model} is {'deprecated' if successor.is_served else 'retired'} and replaced by {successor.name}"
        for model, successor in found.items()
    )
    names = list(dict.fromkeys(successor.name for successor in found.values()))
    named = "it" if len(names) == 1 else ", ".join(names)
    return f"{'; '.join(states)}: name {named} in transcription.speech_models instead."
