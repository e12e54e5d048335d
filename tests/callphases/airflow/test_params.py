"""The form to trigger a Dag, and what the API takes."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.definitions.param import ParamsDict

from callphases.airflow.params import params
from callphases.errors import failure_classes
from callphases.replay import Replay
from doubles import pipeline


def given(**values: Any) -> ParamsDict:
    """The Params of a run with a conf, validated as Airflow does."""
    found = ParamsDict(params(pipeline(timezone="Europe/Berlin")))
    found.update(values)
    found.validate()
    return found


def test_form_explains_the_day_and_an_empty_field() -> None:
    date = params(pipeline(timezone="Europe/Berlin"))["date"].serialize()
    assert date["value"] is None
    assert "Europe/Berlin. Empty: the last day that is over there." in date["description"]


def test_form_offers_all_failure_classes_with_what_to_do() -> None:
    schema = params(pipeline())["replay"].serialize()["schema"]
    # The form shows a list to choose from if the first type but null is an array of strings with examples.
    assert next(one for one in schema["type"] if one != "null") == "array"
    assert schema["items"] == {"type": "string"}
    assert set(schema["examples"]) == {"all", *failure_classes()}
    assert schema["values_display"]["bad_audio"].startswith("bad_audio: fix the recording")


@pytest.mark.parametrize(
    ("values", "replay"),
    [
        ({}, None),
        ({"replay": None, "calls": None}, None),
        ({"replay": [], "calls": []}, None),
        ({"replay": "bad_audio,too_short"}, Replay(frozenset({"bad_audio", "too_short"}))),
        ({"replay": ["bad_audio", "too_short"]}, Replay(frozenset({"bad_audio", "too_short"}))),
        ({"replay": "all", "calls": "a.mp3, 0123456789abcdef"}, Replay(None, frozenset({"a.mp3", "0123456789abcdef"}))),
        ({"calls": ["a, b.mp3"]}, Replay(None, frozenset({"a, b.mp3"}))),
    ],
)
def test_replay_and_calls_are_lists_or_texts_with_commas(values: dict[str, Any], replay: Replay | None) -> None:
    params = given(**values)
    assert Replay.of(params["replay"], params["calls"]) == replay


def test_form_takes_calls_one_a_line() -> None:
    schema = params(pipeline())["calls"].serialize()["schema"]
    # The form shows a field with a line for each item if the first type but null is an array of strings.
    assert next(one for one in schema["type"] if one != "null") == "array"
    assert (schema["items"], "examples" in schema) == ({"type": "string"}, False)
