"""Tests of the settings' page and JSON schema: current, complete, and true for files that load."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from callphases.pipeline import Pipeline
from doubles import merged
from tools import settings

SCHEMA = settings.schema()
SETTINGS = {name: setting for section in settings.sections(SCHEMA) for name, setting, _ in section.settings}
TEMPLATE = Path(__file__).parents[2] / "include" / "pipelines" / "support_calls.yaml"
AROUND: dict[str, dict[str, Any]] = {
    "recordings.call_time": {"key_pattern": "(?P<time>.*)", "format": "epoch"},
    "recordings.columns.<name>": {"tag": "crm"},
    "phases": {"name": "Identification"},
    "prices.llm_usd_per_million.<model>": {"input": 1, "output": 1},
    "deadline": {"by": "06:00"},
}
"""What a section needs beside the setting that an example is of."""

_LIST = {"inventory": "s3://lists/calls.csv", "field": "queue"}
ELSEWHERE: dict[str, dict[str, Any]] = {
    "metadata": {},
    "tag": {},
    "audio_tag": {},
    "sidecar": {"path": "$.queue"},
    "path": {"sidecar": "{stem}.json"},
    "inventory": {"field": "queue"},
    "field": {"inventory": "s3://lists/calls.csv"},
    "key_field": _LIST,
    "id_field": {**_LIST, "id_pattern": "(?P<id>x)"},
    "id_pattern": {**_LIST, "id_field": "sid"},
}
"""What a setting of a value from elsewhere needs beside it."""


def a_file(name: str, value: Any) -> dict[str, Any]:
    """The document of a pipeline that has one more setting."""
    section, _, key = name.rpartition(".")
    beside = AROUND.get(section, {})
    if section == "recordings.columns.<name>":
        beside = {"type": "timestamp", **beside} if key == "format" else beside
        beside = {} if key == "key_pattern" else beside
    if section in ("recordings.call_time", "recordings.columns.<name>") and key in ELSEWHERE:
        beside = ELSEWHERE[key]
    if section == "notify":
        beside = {"channels": {"team": {"to": "calls@example.com"}}}
    if section == "notify.channels.<channel>":
        beside = {
            "slack_conn_id": {"channel": "#calls"},
            "channel": {"slack_conn_id": "slack_default"},
            "from_email": {"to": "calls@example.com"},
            "smtp_conn_id": {"to": "calls@example.com"},
        }.get(key, {})
    inner = {**beside, key: value}
    named = section.replace("<name>", "agent").replace("<model>", "claude-sonnet-4-6").replace("<channel>", "team")
    path = named.split(".") if section else []
    if section == "phases":
        return merged(yaml.safe_load(TEMPLATE.read_text()), {"phases": [inner]})
    changes = reduce(lambda below, part: {part: below}, reversed(path), inner)
    if name == "notify.deadline":
        changes["deadline"] = {"by": "06:00"}
    return merged(yaml.safe_load(TEMPLATE.read_text()), changes)


def test_page_and_schema_are_current() -> None:
    assert settings.PAGE.read_text(encoding="utf-8") == settings.page(), "run make settings"
    assert settings.SCHEMA.read_text(encoding="utf-8") == settings.schema_text(), "run make settings"


@pytest.mark.parametrize("name", SETTINGS)
def test_example_of_each_setting_is_valid_in_a_file(name: str) -> None:
    document = a_file(name, yaml.safe_load(settings.example(name, SETTINGS[name])))
    Pipeline.model_validate(document)
    jsonschema.validate(document, SCHEMA)


def test_examples_are_only_of_settings_that_exist() -> None:
    assert settings.EXAMPLES.keys() <= SETTINGS.keys()


def test_schema_rejects_what_a_file_may_not_have() -> None:
    for name, value in (("recordings.sufixes", []), ("limits.ramp", "no"), ("recordings.send", "ftp")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(a_file(name, value), SCHEMA)


def test_setting_without_default_or_example_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(settings.EXAMPLES, "deadline.by")
    with pytest.raises(LookupError, match=r"deadline\.by: add an example"):
        settings.page()


@pytest.mark.parametrize("name", ["notify.failed_night", "notify.deadline", "notify.channels.<channel>.to"])
def test_one_value_may_stand_for_a_list_of_one(name: str) -> None:
    for value in ("my_company.alerts.page", ["my_company.alerts.page"]):
        document = a_file(name, value)
        Pipeline.model_validate(document)
        jsonschema.validate(document, SCHEMA)
