"""Writes docs/settings.md and docs/pipeline.schema.json from the models of the pipeline file: ``make settings``.

Types, defaults and allowed values come from the models, descriptions from the docstrings of their attributes, and
examples from ``EXAMPLES``. Values without an example of their own show their default.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from callphases import pipeline as models

DOCS = Path(__file__).parents[1] / "docs"
PAGE, SCHEMA = DOCS / "settings.md", DOCS / "pipeline.schema.json"

EXAMPLES: dict[str, str] = {
    "pipeline": "support_calls",
    "schedule": '"30 1 * * *"',
    "timezone": "Europe/Berlin",
    "connections.gateway": "my_llm",
    "recordings.bucket": "call-recordings",
    "recordings.layout": "amazon_connect",
    "recordings.key_pattern": "'/CallRecordings/'",
    "recordings.channels": "{1: customer, 2: agent}",
    "recordings.prefix": '"support/{date:%Y/%m/%d}/"',
    "recordings.call_time": "{key_pattern: '(?P<time>\\d{8}T\\d{6})', format: \"%Y%m%dT%H%M%S\"}",
    "recordings.call_time.key_pattern": "'_(?P<time>\\d{10})\\.'",
    "recordings.call_time.format": "epoch",
    "recordings.call_time.timezone": "America/New_York",
    "recordings.call_time.metadata": "call-start",
    "recordings.call_time.tag": "call-start",
    "recordings.call_time.audio_tag": "date",
    "recordings.call_time.sidecar": '"{stem}.json"',
    "recordings.call_time.path": "$.Agent.ConnectedToAgentTimestamp",
    "recordings.call_time.inventory": "s3://inventories/call-recordings/daily/",
    "recordings.call_time.field": "started_at",
    "recordings.call_time.id_field": "call_sid",
    "recordings.call_time.id_pattern": "'/(?P<id>CA[0-9a-f]{32})'",
    "recordings.suffixes": "[.wav]",
    "recordings.send": "upload",
    "recordings.when_deleted": "drop",
    "recordings.look_back_days": "7",
    "recordings.columns": '{agent: {key_pattern: "/agent-(?P<agent>[^/]+)/"}}',
    "recordings.columns.<name>.key_pattern": '"/agent-(?P<agent>[^/]+)/"',
    "recordings.columns.<name>.metadata": "queue",
    "recordings.columns.<name>.tag": "crm",
    "recordings.columns.<name>.audio_tag": "comment",
    "recordings.columns.<name>.sidecar": '"{key}_metadata.json"',
    "recordings.columns.<name>.path": "$.Agent.Username",
    "recordings.columns.<name>.inventory": "s3://crm-exports/calls.parquet",
    "recordings.columns.<name>.field": "queue",
    "recordings.columns.<name>.id_field": "call_sid",
    "recordings.columns.<name>.id_pattern": "'/(?P<id>CA[0-9a-f]{32})'",
    "recordings.columns.<name>.type": "timestamp",
    "recordings.columns.<name>.format": '"%d.%m.%Y %H:%M"',
    "transcription": "{speech_models: [assemblyai-stt-3-7], speaker_labels: true, language_code: de}",
    "phases": '[{name: Identification, description: "The agent checks who is calling."}]',
    "phases.name": "Identification",
    "phases.description": '"The agent checks who is calling."',
    "segmentation.models": "[openai/gpt-5-mini]",
    "segmentation.side_by_side": "true",
    "segmentation.calls_per_question": "1",
    "output.tables": "s3://warehouse/call_phases/support_calls/",
    "output.state": "s3://warehouse/_callphases/support_calls/",
    "limits.transcriptions_at_once": "50",
    "limits.ramp": "false",
    "limits.llm_requests_per_minute": "300",
    "limits.max_failed_ratio": "0.1",
    "limits.backfill.transcriptions_at_once": "50",
    "limits.backfill.usd_per_day": "100",
    "limits.backfill.hours": '"20:00-06:00"',
    "privacy.delete_after": "true",
    "prices.speech_usd_per_hour": "{assemblyai-stt-3-7: 0.18}",
    "prices.speaker_labels_usd_per_hour": "0",
    "prices.options_usd_per_hour": "{redact_pii: 0.04}",
    "prices.llm_usd_per_million": "{openai/gpt-5-mini: {input: 0.25, output: 2}}",
    "prices.llm_usd_per_million.<model>.input": "0.25",
    "prices.llm_usd_per_million.<model>.output": "2",
    "budget.usd_per_run": "50",
    "deadline": '{by: "06:00"}',
    "deadline.by": '"06:00"',
    "deadline.notify": "my_company.alerts.page",
    "notify.failed_night": "[team, my_company.alerts.page]",
    "notify.budget_reached": "[team]",
    "notify.model_fallback": "[team]",
    "notify.deadline": "[team]",
    "notify.channels": "{team: {slack_webhook_conn_id: slack_calls}}",
    "notify.channels.<channel>.slack_webhook_conn_id": "slack_calls",
    "notify.channels.<channel>.slack_conn_id": "slack_default",
    "notify.channels.<channel>.channel": '"#calls"',
    "notify.channels.<channel>.to": "[calls@example.com]",
    "notify.channels.<channel>.from_email": "airflow@example.com",
    "pages.audio": "stream",
}
"""Examples as they are written in a pipeline file, by dotted key."""

_NAMES = {"recordings.columns": "<name>", "prices.llm_usd_per_million": "<model>", "notify.channels": "<channel>"}
"""What stands for the keys of a mapping whose values have settings of their own."""
_ONE_OR_SEVERAL = {
    "EmailChannel": ("to",),
    "Notify": ("failed_night", "budget_reached", "model_fallback", "deadline"),
}
"""Lists for which a file may have one value without brackets: the models take it, but do not say so in their schema."""
_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}
_HEAD = """\
# Settings of a pipeline file

<!-- Written by `make settings` from include/callphases/pipeline.py. -->

A pipeline file is YAML in UTF-8. Only `pipeline`, `recordings.bucket`, `recordings.prefix` or `recordings.layout`,
`output.tables` and `output.state` are required. A key that is not listed here is an error, which names the file and the
key. `callphases init` writes a file for a bucket, `include/pipelines/support_calls.yaml` has every setting with a
comment, and `callphases doctor` checks a file and what it refers to.

An editor with a YAML language server completes and checks a file with [pipeline.schema.json](pipeline.schema.json),
if the file begins with the line `# yaml-language-server: $schema=<path or URL of the schema>`. Regular expressions,
formats and time zones are only checked when the file is loaded.
"""


def schema() -> dict[str, Any]:
    """The JSON schema of a pipeline file, with the descriptions of all settings."""
    document = models.Pipeline.model_json_schema()
    for name, part in {"Pipeline": document, **document["$defs"]}.items():
        described = _docstrings(getattr(models, name))
        part.pop("title", None)
        for key, setting in part["properties"].items():
            setting.pop("title", None)
            if key in _ONE_OR_SEVERAL.get(name, ()):
                items = {inner: setting.pop(inner) for inner in ("type", "items", "minItems") if inner in setting}
                setting["anyOf"] = [{"type": "string"}, items]
            if key in described:
                setting["description"] = described[key]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the attributes of a model and of those that it inherits from, each in one line."""
    found: dict[str, str] = {}
    for one in reversed([base for base in model.__mro__ if base.__module__ == models.__name__]):
        body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
        assert isinstance(body, ast.ClassDef)
        for attribute, text in zip(body.body, body.body[1:], strict=False):
            match attribute, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split()).replace("``", "`")
    return found


@dataclass(frozen=True)
class Section:
    """Settings that are beside each other in a file.

    Attributes:
        key: the dotted key of what they are in; empty for those at the top.
        kind: which of several kinds of values they make up, if there are several.
        about: what they are for.
        settings: of each its dotted key, its schema, and whether it is required.
    """

    key: str
    kind: str
    about: str
    settings: list[tuple[str, dict[str, Any], bool]]


def sections(document: Mapping[str, Any]) -> Iterator[Section]:
    """The sections of a schema, each before those inside it."""
    pending: list[tuple[str, str, Mapping[str, Any]]] = [("", "", document)]
    while pending:
        prefix, kind, part = pending.pop(0)
        own, below = [], []
        for key, setting in part["properties"].items():
            name = f"{prefix}.{key}" if prefix else key
            kinds = _kinds(setting)
            for inner in kinds:
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", inner).capitalize() if len(kinds) > 1 else ""
                below.append((f"{name}.{_NAMES[name]}" if name in _NAMES else name, words, document["$defs"][inner]))
            # A section's own keys say what it holds.
            if not kinds or "description" in setting:
                own.append((name, setting, key in part.get("required", [])))
        about = str(part.get("description", "")).replace("``", "`")
        yield Section(prefix, kind, " ".join(about.split()), own)
        pending = below + pending


def _kinds(setting: Mapping[str, Any]) -> list[str]:
    """The names of the models that a setting's values are of, if they have settings of their own."""
    named = _values_by_name(setting)
    places = [setting, setting.get("items", {}), *_alternatives(setting), named, *_alternatives(named)]
    return [place["$ref"].rpartition("/")[2] for place in places if "$ref" in place]


def _values_by_name(setting: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the values of a mapping whose keys are names; empty if any value will do."""
    for inner in (setting.get("additionalProperties"), *setting.get("patternProperties", {}).values()):
        if isinstance(inner, dict):
            return inner
    return {}


def _alternatives(setting: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [one for key in ("anyOf", "oneOf") for one in setting.get(key, [])]


def values(setting: Mapping[str, Any]) -> str:
    """What a setting may be, in words."""
    if others := _alternatives(setting):
        return " or ".join(dict.fromkeys(values(one) for one in others))
    if "const" in setting:
        return f"`{setting['const']}`"
    if "enum" in setting:
        return " or ".join(f"`{one}`" for one in setting["enum"])
    match setting.get("type"):
        case "null":
            return "`null`"
        case "array":
            return f"list of {values(setting['items'])}"
        case "object" if inner := _values_by_name(setting):
            return f"mapping of names to {values(inner)}"
        case "object":
            return "mapping"
        case None:  # a section
            return "settings, see below"
        case kind:
            return _TYPES[str(kind)] + _range(setting)


def _range(setting: Mapping[str, Any]) -> str:
    least, most, above = (setting.get(key) for key in ("minimum", "maximum", "exclusiveMinimum"))
    if above is not None:
        return f" above {above:g}"
    if least is not None and most is not None:
        return f", {least:g} to {most:g}"
    if least is not None:
        return f", at least {least:g}"
    if "maxLength" in setting:
        return f", at most {setting['maxLength']} characters"
    if "pattern" in setting:
        return f" that matches `{setting['pattern']}`".replace("|", "\\|")
    return ""


def flow(value: Any) -> str:
    """A value as it is written in YAML, in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def example(name: str, setting: Mapping[str, Any]) -> str:
    """A value of a setting as in a pipeline file.

    Raises:
        LookupError: it has neither an example nor a default that shows what is expected.
    """
    if name in EXAMPLES:
        return EXAMPLES[name]
    if setting.get("default") in (None, "", {}, []):
        raise LookupError(f"{name}: add an example to EXAMPLES in tools/settings.py")
    return flow(setting["default"])


def page() -> str:
    """docs/settings.md.

    Raises:
        LookupError: a setting has no description or no example.
    """
    text = [_HEAD]
    for section in sections(schema()):
        if not section.settings:
            continue
        key = f"`{section.key}[]`" if section.key == "phases" else f"`{section.key}`"
        text.append(f"## {key if section.key else 'At the top'}{f', {section.kind}' if section.kind else ''}\n")
        if section.key:
            text.append(f"{section.about}\n")
        text.append("| setting | value | default | | example |\n|---|---|---|---|---|")
        for name, setting, required in section.settings:
            if "description" not in setting:
                raise LookupError(f"{name}: add a docstring below it in include/callphases/pipeline.py")
            key = name.rpartition(".")[2]
            cells = [f"`{key}`", values(setting), _default(setting, required), setting["description"]]
            text.append("| {} | {} | {} | {} | {} |".format(*cells, f"`{key}: {example(name, setting)}`"))
        text.append("")
    return "\n".join(text)


def _default(setting: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = setting.get("default")
    if isinstance(default, list) and default and isinstance(default[0], dict):
        return ", ".join(str(one["name"]) for one in default)
    return "none" if default in (None, "", {}, []) else f"`{flow(default)}`"


def schema_text() -> str:
    """docs/pipeline.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write both files."""
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    print(f"{PAGE} and {SCHEMA} are current.")


if __name__ == "__main__":
    main()
