"""Pipeline files: defaults, validation and error messages."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import ConfigurationError
from callphases.pipeline import DEFAULT_SPEECH_MODELS, Pipeline, load, load_all, name_key, pipeline_files
from doubles import merged, pipeline

MINIMAL = {
    "pipeline": "support",
    "recordings": {"bucket": "call-recordings", "prefix": "support/{date:%Y/%m/%d}/"},
    "output": {"tables": "s3://warehouse/call_phases/", "state": "s3://warehouse/_state/"},
}
FULL = r"""
pipeline: support_calls
schedule: "0 0 * * *"
timezone: UTC
connections: {assemblyai: assemblyai_eu, aws: minio, gateway: my_llm}
recordings:
  bucket: call-recordings
  prefix: "support/{date:%Y/%m/%d}/"
  call_time: {key_pattern: '(?P<time>\d{8}T\d{6})', format: "%Y%m%dT%H%M%S"}
  suffixes: [.mp3, .wav, .m4a, .flac, .ogg, .opus, .webm, .mp4]
  send: presigned
  when_deleted: keep
  look_back_days: 3
  columns:
    crm_id: {key_pattern: null, metadata: null, tag: crm, type: int64, format: null}
transcription:
  speech_models: [universal-3-pro]
  speaker_labels: true
phases:
  - {name: Introduction, description: "Until the reason for the call is known."}
  - {name: Complaint, description: "What is wrong."}
  - {name: Resolution, description: "What is done about it."}
  - {name: Goodbye, description: "The end."}
segmentation: {models: [claude-sonnet-4-5-20250929], side_by_side: false, calls_per_question: 20}
output:
  tables: s3://warehouse/call_phases/support_calls/
  state: s3://warehouse/_callphases/support_calls/
limits: {transcriptions_at_once: 200, ramp: true, llm_requests_per_minute: 30, max_failed_ratio: 0.05}
privacy: {delete_after: false}
prices:
  speech_usd_per_hour: {universal-3-pro: 0.15}
  speaker_labels_usd_per_hour: 0.02
  llm_usd_per_million: {claude-sonnet-4-5-20250929: {input: 2.5, output: 12.5}}
budget: {usd_per_run: 50}
deadline: {by: "06:00", notify: pagers.page}
"""


def write(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def mistake(path: Path) -> str:
    with pytest.raises(ConfigurationError) as error:
        load(path)
    return str(error.value)


def test_full_file_loads_with_its_values_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "support.yaml"
    path.write_text(FULL, encoding="utf-8")
    assert load(path).model_dump() == yaml.safe_load(FULL)


def test_minimal_file_gets_all_defaults(tmp_path: Path) -> None:
    loaded = load(write(tmp_path / "support.yaml", MINIMAL))
    assert loaded.dag_id == "call_phases_support"
    assert loaded.schedule == "0 0 * * *"
    assert loaded.timezone == "UTC"
    assert loaded.recordings.send == "presigned"
    assert loaded.recordings.when_deleted == "keep"
    assert loaded.transcription["speaker_labels"] is True
    assert loaded.phase_names == ["Introduction", "Complaint", "Resolution", "Goodbye", "Other"]
    assert loaded.budget.usd_per_run is None


@pytest.mark.parametrize(
    "written",
    [
        "introduction",
        "  INTRODUCTION ",
        "**Introduction**",
        "_Introduction_",
        "`Introduction`",
        "### Introduction",
        '"Introduction"',
        "“Introduction”",
        "«Introduction»",
        "Introduction.",
        "Introduction:",
        "Intro\u00adduction",
        "\ufeffIntroduction",
        "Ｉntroduction",
    ],
)
def test_name_is_recognized_however_a_model_writes_it(written: str) -> None:
    assert name_key(written) == name_key("Introduction")


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("Customer’s need", "customer's  need"),
        ("Follow-up", "Follow\u2011up"),
        ("Hold music", "Hold\u00a0music"),
        ("Caf\u00e9", "Cafe\u0301"),
        ("Straße", "STRASSE"),
    ],
)
def test_names_that_differ_in_writing_only_are_the_same(one: str, another: str) -> None:
    assert name_key(one) == name_key(another)


@pytest.mark.parametrize(
    ("one", "another"), [("Follow-up", "Follow up"), ("Hold", "Holds"), ("***", "___"), ("1", "2")]
)
def test_other_names_differ(one: str, another: str) -> None:
    assert name_key(one) != name_key(another)


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1).map(" ".join))
def test_a_name_has_one_form(name: str) -> None:
    assert name_key(name_key(name)) == name_key(name) == name_key(f" “{name}” ")


@pytest.mark.parametrize("key", ["pipeline", "recordings.bucket", "recordings.prefix", "output.tables", "output.state"])
def test_missing_required_key_is_reported(tmp_path: Path, key: str) -> None:
    document = merged(MINIMAL, {})
    section, _, name = key.rpartition(".")
    del (document[section] if section else document)[name]
    path = write(tmp_path / "support.yaml", document)
    assert mistake(path) == f"{path}: {key}: missing; it has no default"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"piplines": 1}, "piplines: no such setting"),
        ({"limits": {"llm_rpm": 30}}, "limits.llm_rpm: no such setting"),
        ({"pipeline": "support calls"}, "pipeline: String should match pattern"),
        ({"limits": {"llm_requests_per_minute": "many"}}, "limits.llm_requests_per_minute: should be a valid integer"),
        ({"limits": {"max_failed_ratio": 5}}, "limits.max_failed_ratio: should be less than or equal to 1 (it is 5)"),
        ({"budget": {"usd_per_run": 0}}, "budget.usd_per_run: should be greater than 0"),
        ({"recordings": {"bucket": "s3://calls"}}, "recordings.bucket: expected only a bucket's name"),
        ({"recordings": {"bucket": "calls/2026"}}, "recordings.bucket: expected only a bucket's name"),
        ({"recordings": {"bucket": ""}}, "recordings.bucket: "),
        (
            {"recordings": {"prefix": "{day}/"}},
            "recordings.prefix: expected text with {date:…} as its only placeholder",
        ),
        ({"recordings": {"prefix": "{}/"}}, "recordings.prefix: expected text with {date:…}"),
        ({"recordings": {"prefix": "{date/"}}, "recordings.prefix: expected text with {date:…}"),
        ({"recordings": {"prefix": "{date.year}/"}}, "recordings.prefix: expected text with {date:…}"),
        ({"recordings": {"send": "email"}}, "recordings.send: should be 'presigned' or 'upload' (it is 'email')"),
        ({"deadline": {"by": "6 am"}}, "deadline.by: "),
        ({"deadline": {"by": "06:00", "notify": "page()"}}, "deadline.notify: "),
        ({"deadline": {"by": "06:00"}, "schedule": "0 * * * *"}, "a deadline needs a schedule with one run a day"),
        ({"deadline": {"by": "06:00"}, "schedule": None}, "a deadline needs a schedule with one run a day"),
        ({"recordings": {"when_deleted": "forget"}}, "recordings.when_deleted: should be 'keep' or 'drop'"),
        ({"recordings": {"call_time": "created"}}, "recordings.call_time: should be 'last_modified'"),
        (
            {"recordings": {"call_time": {"key_pattern": "(?P<time>", "format": "%Y"}}},
            "recordings.call_time.key_pattern: expected a regular expression",
        ),
        (
            {"recordings": {"call_time": {"key_pattern": r"\d+", "format": "%Y"}}},
            "recordings.call_time.key_pattern: expected a group (?P<time>…)",
        ),
        ({"recordings": {"call_time": {"key_pattern": "(?P<time>.)"}}}, "recordings.call_time.format: missing"),
        ({"recordings": {"suffixes": ".mp3"}}, "recordings.suffixes: should be a valid list"),
        ({"output": {"tables": "/srv/tables"}}, "output.tables: expected s3://bucket/prefix/ (it is '/srv/tables')"),
        ({"output": {"state": "s3:///state"}}, "output.state: expected s3://bucket/prefix/"),
        (
            {"output": {"state": "s3://warehouse/call_phases/_state"}},
            "output: expected separate locations for state and tables",
        ),
        (
            {"output": {"state": "s3://warehouse/call_phases"}},
            "output: expected separate locations for state and tables",
        ),
        ({"output": {"tables": "s3://warehouse"}}, "output: expected separate locations for state and tables"),
        ({"timezone": "Europe"}, "timezone: expected an IANA time zone"),
        ({"timezone": ""}, "timezone: expected an IANA time zone"),
        ({"timezone": "Mars/Olympus"}, "timezone: expected an IANA time zone, such as Europe/Berlin (it is 'Mars/"),
        ({"schedule": "every night"}, "schedule: expected a cron expression"),
        ({"transcription": {"audio_url": "x"}}, "transcription: audio_url is set for each recording"),
        ({"phases": []}, "phases: "),
        ({"phases": [{"name": "Hold"}, {"name": "HOLD"}]}, "phases: expected unique names"),
        ({"phases": [{"name": "Hold"}, {"name": "Hold"}]}, "phases: expected unique names; 'Hold' and 'Hold' count as"),
        ({"phases": [{"name": "Wrap-up"}, {"name": "Wrap–up"}]}, "phases: expected unique names; 'Wrap-up' and"),
        ({"phases": [{"name": "Caf\u00e9"}, {"name": "Cafe\u0301"}]}, "phases: expected unique names"),
        ({"phases": [{"name": "“Other”."}]}, "phases: Other is always available and can't be defined"),
        ({"connections": {"gateway": ""}}, "connections.gateway: "),
        ({"phases": [{"name": "other"}]}, "phases: Other is always available and can't be defined"),
        ({"phases": [{"name": " Hold"}]}, "phases.0.name: expected one line without leading or trailing spaces"),
        ({"phases": [{"name": "Hold\nmusic"}]}, "phases.0.name: expected one line"),
        ({"phases": [{"description": "x"}]}, "phases.0.name: missing"),
        ({"segmentation": {"models": []}}, "segmentation.models: "),
        ({"segmentation": {"calls_per_question": 0}}, "segmentation.calls_per_question: "),
    ],
)
def test_invalid_setting_names_file_key_and_expected_value(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    path = write(tmp_path / "support.yaml", merged(MINIMAL, changes))
    told = mistake(path)
    assert told.startswith(f"{path}: ")
    assert expected in told


def test_single_error_is_reported_once(tmp_path: Path) -> None:
    changes = {"recordings": {"call_time": {"key_pattern": "(?P<time>.)"}}}
    path = write(tmp_path / "support.yaml", merged(MINIMAL, changes))
    assert mistake(path) == f"{path}: recordings.call_time.format: missing; it has no default"


def test_all_errors_of_a_file_are_reported_together(tmp_path: Path) -> None:
    changes = {"timezone": "Europe", "limits": {"ramp": "maybe"}, "colour": "blue"}
    told = mistake(write(tmp_path / "support.yaml", merged(MINIMAL, changes)))
    assert all(f"{key}: " in told for key in ("timezone", "limits.ramp", "colour"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"pipeline: [support", "expected YAML: "),
        (b"- pipeline: support", "expected keys and values"),
        (b"", "expected keys and values"),
        (b"# nothing yet\n", "expected keys and values"),
        ("pipeline: grün".encode("latin-1"), "expected text in UTF-8"),
    ],
)
def test_file_that_is_not_a_pipeline_is_reported_on_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "support.yaml"
    path.write_bytes(content)
    told = mistake(path)
    assert told.startswith(f"{path}: {expected}")
    assert "\n" not in told


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    assert mistake(tmp_path / "gone.yaml") == f"{tmp_path / 'gone.yaml'}: can't be read: No such file or directory"


def test_invalid_files_do_not_affect_valid_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path))
    write(tmp_path / "a.yaml", MINIMAL)
    write(tmp_path / "b.yml", MINIMAL)
    write(tmp_path / "c.yaml", MINIMAL | {"schedule": "nightly"})
    write(tmp_path / "d.yaml", MINIMAL | {"pipeline": "sales"})
    write(tmp_path / "notes.txt", {})
    loaded, mistakes = load_all()
    assert [one.pipeline for one in loaded] == ["support", "sales"]
    assert list(mistakes) == [tmp_path / "b.yml", tmp_path / "c.yaml"]
    assert "pipeline: 'support' is also the name in a.yaml" in mistakes[tmp_path / "b.yml"]
    assert "schedule: expected a cron expression" in mistakes[tmp_path / "c.yaml"]


def test_missing_folder_names_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match="CALLPHASES_PIPELINES"):
        load_all()


def test_default_folder_is_next_to_the_package() -> None:
    assert all(path.parts[-3:-1] == ("include", "pipelines") for path in pipeline_files())


@pytest.mark.parametrize(
    ("prefix", "dated", "listed"),
    [
        ("support/{date:%Y/%m/%d}/", True, "support/2026/11/20/"),
        ("{date}/", True, "2026-11-20/"),
        ("{date:%Y}/in/{date:%m%d}/", True, "2026/in/1120/"),
        ("support/", False, "support/"),
        ("", False, ""),
        ("odd{{brace}}/", False, "odd{brace}/"),
    ],
)
def test_prefix_is_formatted_with_the_day(prefix: str, dated: bool, listed: str) -> None:
    recordings = pipeline(recordings={"prefix": prefix}).recordings
    assert recordings.dated is dated
    assert recordings.prefix_of(dt.date(2026, 11, 20)) == listed


def test_output_locations_get_a_trailing_slash() -> None:
    output = pipeline(output={"tables": "s3://warehouse/tables", "state": "s3://state"}).output
    assert (output.tables, output.state) == ("s3://warehouse/tables/", "s3://state/")


def test_suffixes_are_lowercased() -> None:
    assert pipeline(recordings={"suffixes": [".MP3", ".Wav"]}).recordings.suffixes == [".mp3", ".wav"]


@pytest.mark.parametrize(
    ("transcription", "models"),
    [
        ({"speech_models": ["a", "b"]}, ["a", "b"]),
        ({"speech_model": "a"}, ["a"]),
        ({"speaker_labels": True}, DEFAULT_SPEECH_MODELS),
        ({"speech_models": []}, DEFAULT_SPEECH_MODELS),
    ],
)
def test_speech_models_come_from_either_option(transcription: dict[str, Any], models: list[str]) -> None:
    document = pipeline().model_dump() | {"transcription": transcription}
    assert Pipeline.model_validate(document).speech_models == models
