"""Deprecated and retired speech models, and what they are replaced by."""

from __future__ import annotations

import pytest

from callphases.limits.costs import SPEECH_USD_PER_HOUR
from callphases.speech_models import DEFAULT_SPEECH_MODELS, SUCCESSORS, models_of, outdated, without_models


def test_defaults_and_successors_are_current_and_have_a_price() -> None:
    current = {*DEFAULT_SPEECH_MODELS, *(successor.name for successor in SUCCESSORS.values())}
    assert current.isdisjoint(SUCCESSORS)
    assert current <= SPEECH_USD_PER_HOUR.keys()


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (["universal-3-5-pro"], "universal-3-5-pro is deprecated and replaced by assemblyai-stt-3-7: name it in"),
        (["slam-1", "nano"], "nano is retired and replaced by universal-2: name assemblyai-stt-3-7, universal-2 in"),
        (["best", "best"], "best is retired and replaced by assemblyai-stt-3-7: name it in"),
    ],
)
def test_model_that_is_not_current_is_told_with_its_successor(models: list[str], told: str) -> None:
    assert told in f"{outdated(models)}"


@pytest.mark.parametrize("models", [[], DEFAULT_SPEECH_MODELS, ["tomorrow"]])
def test_current_and_unknown_models_are_not_outdated(models: list[str]) -> None:
    assert outdated(models) is None


@pytest.mark.parametrize(
    ("options", "models"),
    [
        ({"speech_models": ["a", "b"], "speech_model": "c"}, ["a", "b"]),
        ({"speech_models": "a"}, ["a"]),
        ({"speech_models": [], "speech_model": "c"}, ["c"]),
        ({"speech_models": None, "speech_model": None}, []),
        ({}, []),
    ],
)
def test_models_come_from_either_option(options: dict[str, object], models: list[str]) -> None:
    assert models_of(options) == models
    assert without_models({**options, "punctuate": True}) == {"punctuate": True}
