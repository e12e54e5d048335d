"""Pipeline files: defaults, validation and error messages."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import yaml
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from callphases.errors import ConfigurationError
from callphases.pipeline import (
    DEFAULT_SPEECH_MODELS,
    BackfillLimits,
    DagSettings,
    Pipeline,
    TimeElsewhere,
    load,
    load_all,
    name_key,
    pipeline_files,
    readable_notify,
    readable_settings,
)
from doubles import DAY, merged, pipeline

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
  layout: null
  prefix: "support/{date:%Y/%m/%d}/"
  key_pattern: null
  call_time: {key_pattern: '(?P<time>\d{8}T\d{6})', format: "%Y%m%dT%H%M%S", timezone: America/New_York}
  suffixes: [.mp3, .wav, .m4a, .flac, .ogg, .opus, .webm, .mp4]
  send: presigned
  when_deleted: keep
  look_back_days: 3
  columns:
    crm_id:
      {key_pattern: null, metadata: null, tag: crm, audio_tag: null, sidecar: null, path: null, inventory: null,
       field: null, key_field: key, id_field: null, id_pattern: null, type: int64, format: null}
  channels: {1: customer, 2: agent}
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
limits:
  transcriptions_at_once: 200
  ramp: true
  llm_requests_per_minute: 30
  max_failed_ratio: 0.05
  backfill: {transcriptions_at_once: 50, usd_per_day: 100, hours: "20:00-06:00"}
privacy: {delete_after: false}
prices:
  speech_usd_per_hour: {universal-3-pro: 0.15}
  speaker_labels_usd_per_hour: 0.02
  options_usd_per_hour: {redact_pii: 0.04}
  llm_usd_per_million: {claude-sonnet-4-5-20250929: {input: 2.5, output: 12.5}}
budget: {usd_per_run: 50}
deadline: {by: "06:00", notify: pagers.page}
notify:
  failed_night: [hook, api]
  budget_reached: [mail]
  model_fallback: [pagers.page]
  deadline: [hook]
  channels:
    hook: {slack_webhook_conn_id: slack_default, slack_conn_id: null, channel: null}
    api: {slack_webhook_conn_id: null, slack_conn_id: slack_api_default, channel: "#calls"}
    mail: {to: [oncall@example.com], from_email: airflow@example.com, smtp_conn_id: smtp_default}
pages: {audio: redirect, transcripts: read, listening: read}
"""


def test_one_target_and_one_address_need_no_list() -> None:
    notify = pipeline(notify={"failed_night": "mail", "channels": {"mail": {"to": "a@example.com"}}}).notify
    assert notify.failed_night == ["mail"]
    assert notify.channels["mail"].model_dump() == {
        "to": ["a@example.com"],
        "from_email": None,
        "smtp_conn_id": "smtp_default",
    }


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("recording: {}\nnotify: {failed_night: my.page}\n", ["my.page"]),
        ("notify: {failed_night: nobody}\n", []),
        ("notify: [\n", []),
        ("- notify\n", []),
    ],
)
def test_notify_of_an_invalid_file_is_read_as_far_as_it_is_valid(text: str, targets: list[str], tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    assert readable_notify(path).failed_night == targets
    assert readable_notify(tmp_path / "missing.yaml").failed_night == []


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


@pytest.mark.parametrize(("text", "audio"), [("off", "off"), ('"off"', "off"), ("stream", "stream")])
def test_audio_is_off_with_and_without_quotes(text: str, audio: str, tmp_path: Path) -> None:
    path = tmp_path / "support.yaml"
    path.write_text(f"{yaml.safe_dump(MINIMAL)}pages: {{audio: {text}}}\n")
    assert load(path).pages.audio == audio


@pytest.mark.parametrize("text", ["on", "presigned", "0", "null"])
def test_other_words_for_audio_are_rejected(text: str, tmp_path: Path) -> None:
    path = tmp_path / "support.yaml"
    path.write_text(f"{yaml.safe_dump(MINIMAL)}pages: {{audio: {text}}}\n")
    assert "pages.audio: should be 'redirect', 'stream' or 'off'" in mistake(path)


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
        *(
            ({"limits": {"backfill": {"hours": hours}}}, "limits.backfill.hours: expected two times of day from 00:00")
            for hours in ("at night", "20-6", "20:00", "20:00-25:00", "24:00-06:00", "20:00-24:01", "20:60-06:00")
        ),
        ({"limits": {"backfill": {"hours": "6:00-06:00"}}}, "limits.backfill.hours: expected two different times"),
        ({"limits": {"backfill": {"hours": "00:00-24:00"}}}, "limits.backfill.hours: expected two different times"),
        ({"limits": {"backfill": {"hours": 20}}}, "limits.backfill.hours: should be a valid string (it is 20)"),
        ({"limits": {"backfill": {"usd_per_day": 0}}}, "limits.backfill.usd_per_day: should be greater than 0"),
        ({"limits": {"backfill": {"usd_a_day": 1}}}, "limits.backfill.usd_a_day: no such setting"),
        (
            {"limits": {"backfill": {"transcriptions_at_once": 0}}},
            "limits.backfill.transcriptions_at_once: should be greater than or equal to 1",
        ),
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
        (
            {"recordings": {"prefix": "in/{date:%Y/%m/%d/%H}/"}},
            "recordings.prefix: %H is a time of day, which is always midnight in {date}",
        ),
        (
            {"recordings": {"prefix": "in/{date:yyyy}/"}},
            "recordings.prefix: a {date:…} without a directive is the same",
        ),
        ({"recordings": {"send": "email"}}, "recordings.send: should be 'presigned' or 'upload' (it is 'email')"),
        ({"deadline": {"by": "6 am"}}, "deadline.by: "),
        ({"deadline": {"by": "06:00", "notify": "page()"}}, "deadline.notify: "),
        ({"deadline": {"by": "06:00"}, "schedule": "0 * * * *"}, "a deadline needs a schedule with one run a day"),
        ({"deadline": {"by": "06:00"}, "schedule": None}, "a deadline needs a schedule with one run a day"),
        (
            {"notify": {"failed_night": "slack"}},
            "failed_night: expected the name of one of notify.channels (none is def",
        ),
        ({"notify": {"failed_night": "page()"}}, "or the dotted path of a function, not 'page()'"),
        ({"notify": {"failed_night": 5}}, "notify.failed_night: "),
        ({"notify": {"failed": "a.b"}}, "notify.failed: no such setting"),
        ({"notify": {"deadline": "a.b"}}, "notify.deadline needs deadline.by"),
        (
            {"notify": {"channels": {"c": {}}}},
            "notify.channels.c: expected slack_webhook_conn_id, or slack_conn_id and",
        ),
        ({"notify": {"channels": {"c": {"slack_conn_id": "x"}}}}, "slack_conn_id and channel belong together"),
        ({"notify": {"channels": {"c": {"to": []}}}}, "notify.channels.c.to: "),
        ({"notify": {"channels": {"a.b": {"to": "x@example.com"}}}}, "notify.channels.a.b"),
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
        (
            {"recordings": {"call_time": {"key_pattern": "(?P<time>.+)", "format": "%H%M%S"}}},
            "recordings.call_time.format: expected a date with its year",
        ),
        (
            {"recordings": {"call_time": {"key_pattern": "(?P<time>.+)", "format": "yyyy/MM/dd"}}},
            "this may be %Y/%m/%d (it is 'yyyy/MM/dd')",
        ),
        (
            {"recordings": {"call_time": {"key_pattern": "(?P<time>.+)", "format": "%Y%m%d", "timezone": "Mars"}}},
            "recordings.call_time.timezone: expected an IANA time zone, such as Europe/Berlin (it is 'Mars')",
        ),
        (
            {
                "recordings": {
                    "call_time": {"key_pattern": "(?P<time>.+)", "format": "%Y%m%d", "timezone": "Asia/Tokyo"}
                }
            },
            "recordings.call_time.format gives a date without a time of day, which can't be converted to UTC",
        ),
        (
            {"recordings": {"call_time": {"key_pattern": "(?P<time>.+)", "format": "%Y%m%d%z"}}},
            "recordings.call_time.format gives a date without a time of day",
        ),
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
        ({"schedule": "every night"}, "schedule: expected a cron expression of five fields"),
        ({"schedule": ""}, "schedule: expected a cron expression of five fields"),
        ({"schedule": "0 0 * * * 0"}, "schedule: expected a cron expression of five fields"),
        ({"schedule": "0 0 * * * 0 2027"}, "schedule: expected a cron expression of five fields"),
        ({"schedule": 0}, "schedule: should be a valid string"),
        ({"schedule": "0 25 * * *"}, "schedule: expected a cron expression whose hour is 0 to 23, not '25'"),
        ({"schedule": "60 0 * * *"}, "whose minute is 0 to 59, not '60'"),
        ({"schedule": "*/0 0 * * *"}, "whose minute is 0 to 59, not '*/0'"),
        ({"schedule": "H H * * *"}, "whose minute is 0 to 59, not 'H'"),
        ({"schedule": "0 R(1-5) * * *"}, "whose hour is 0 to 23, not 'R(1-5)'"),
        ({"schedule": "0 0 0 * *"}, "whose day of the month is 1 to 31, not '0'"),
        ({"schedule": "0 0 * 13 *"}, "whose month is 1 to 12 or JAN to DEC, not '13'"),
        ({"schedule": "0 0 * * MO"}, "whose day of the week is 0 to 7 or SUN to SAT, not 'MO'"),
        ({"schedule": "at five in the morning"}, "whose minute is 0 to 59, not 'at'"),
        (
            {"schedule": "0 0 31 2 *"},
            "schedule: expected a cron expression that matches a day; there is none like this",
        ),
        ({"schedule": "0 0 31 4,6 *"}, "schedule: expected a cron expression that matches a day"),
        ({"schedule": "@once"}, "schedule: expected a cron expression, or one of @hourly, @daily"),
        ({"schedule": "@continuous"}, "schedule: expected a cron expression, or one of @hourly, @daily"),
        ({"schedule": "@"}, "schedule: expected a cron expression, or one of @hourly, @daily"),
        ({"schedule": "@nightly"}, "(it is '@nightly')"),
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
        (b"pipeline:\tsupport", "expected YAML: "),
        (b"limits: {ramp: true}\nlimits: {ramp: false}", "expected YAML: limits is there twice"),
        (b"limits: {ramp: true, ramp: true}", "expected YAML: ramp is there twice"),
        (b"pipeline: 2026-02-30", "expected YAML: "),
        (b"[" * 5000, "expected YAML: "),
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


def test_copy_does_not_replace_the_file_that_it_was_copied_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path))
    write(tmp_path / "support.yaml", MINIMAL | {"timezone": "Europe/Berlin"})
    write(tmp_path / "a copy of support.yaml", MINIMAL)
    loaded, mistakes = load_all()
    assert [one.timezone for one in loaded] == ["Europe/Berlin"]
    assert list(mistakes) == [tmp_path / "a copy of support.yaml"]


def test_unforeseen_error_in_a_file_does_not_affect_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path))
    write(tmp_path / "a.yaml", MINIMAL)
    write(tmp_path / "b.yaml", MINIMAL | {"pipeline": "sales"})

    def fail_for_a(path: Path) -> Pipeline:
        if path.name == "a.yaml":
            raise ZeroDivisionError("division by zero")
        return load(path)

    monkeypatch.setattr("callphases.pipeline.load", fail_for_a)
    loaded, mistakes = load_all()
    assert [one.pipeline for one in loaded] == ["sales"]
    assert mistakes == {
        tmp_path / "a.yaml": f"{tmp_path / 'a.yaml'}: can't be loaded: ZeroDivisionError: division by zero"
    }


def test_hidden_files_are_not_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path))
    write(tmp_path / "a.yaml", MINIMAL)
    (tmp_path / ".#a.yaml").symlink_to("somebody@somewhere.1234")
    assert [path.name for path in pipeline_files()] == ["a.yaml"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # the rest is invalid
        (
            "pipeline: support\nschedule: 0 3 * * *\ntimezone: Europe/Berlin\nrecording: {bucket: b}\n",
            {"pipeline": "support", "schedule": "0 3 * * *", "timezone": "Europe/Berlin"},
        ),
        ("pipeline: support\n", {"pipeline": "support"}),
        ("pipeline: support\nschedule: null\n", {"pipeline": "support", "schedule": None}),
        ("pipeline: support\nschedule: 0 25 * * *\ntimezone: Mars\n", {"pipeline": "support"}),
        ("pipeline: call centre\ntimezone: UTC\n", {"timezone": "UTC"}),
        ("pipeline: [support]\nschedule: {cron: 0 3 * * *}\n", {}),
        ("pipeline: support\nlimits: {}\nlimits: {}\n", {"pipeline": "support"}),
        # no YAML
        (
            "pipeline: support   # ours\nschedule: '0 3 * * *'\ntimezone: \"Europe/Berlin\"\noutput: [s3://\n",
            {"pipeline": "support", "schedule": "0 3 * * *", "timezone": "Europe/Berlin"},
        ),
        ("\ufeffpipeline:\tsupport\r\nschedule:\t@daily\r\n", {"pipeline": "support", "schedule": "@daily"}),
        ("pipeline: support\nschedule: ~\noutput: {\n", {"pipeline": "support", "schedule": None}),
        ('pipeline: support\nschedule: "0 3 * * *\ntimezone: UTC\n', {"pipeline": "support", "timezone": "UTC"}),
        ("recordings:\n  pipeline: inner\n\tprefix: calls/\n", {}),
        ("<<<<<<< HEAD\npipeline: ours\n=======\npipeline: theirs\n>>>>>>> branch\n", {"pipeline": "ours"}),
        ("pipeline: support\nschedule: */5 * * * *  # often\n", {"pipeline": "support", "schedule": "*/5 * * * *"}),
        ("pipeline: support\nlast: 2026-02-30\n", {"pipeline": "support"}),
        ("- a list\n", {}),
        ("", {}),
        ("\0\0\0", {}),
    ],
)
def test_name_schedule_and_zone_are_read_from_an_invalid_file(
    tmp_path: Path, content: str, expected: dict[str, str | None]
) -> None:
    path = tmp_path / "support.yaml"
    path.write_text(content, encoding="utf-8")
    assert readable_settings(path) == expected


def test_nothing_is_read_from_a_file_that_cannot_be_opened_or_decoded(tmp_path: Path) -> None:
    path = tmp_path / "support.yaml"
    assert readable_settings(path) == {}
    path.write_bytes("pipeline: support\n".encode("utf-16"))
    assert readable_settings(path) == {}
    path.write_bytes("# für uns\npipeline: support\n".encode("latin-1"))
    assert readable_settings(path) == {"pipeline": "support"}


@pytest.mark.parametrize(
    ("schedule", "kept", "cron", "hours"),
    [
        ("0 0 * * *", "0 0 * * *", "0 0 * * *", 0.0),
        (" 30  6\t* * * ", "30 6 * * *", "30 6 * * *", 6.5),
        ("@Daily", "@daily", "0 0 * * *", 0.0),
        ("@midnight", "@midnight", "0 0 * * *", 0.0),
        ("@quarterly", "@quarterly", "0 0 1 */3 *", None),
        ("0 3 * * MON-FRI", "0 3 * * MON-FRI", "0 3 * * MON-FRI", None),
        ("0 0 * JAN,mar sun", "0 0 * JAN,mar sun", "0 0 * JAN,mar sun", None),
        ("0 0 L * *", "0 0 L * *", "0 0 L * *", None),
        ("0 0 29 2 *", "0 0 29 2 *", "0 0 29 2 *", None),
        ("0 */6 * * *", "0 */6 * * *", "0 */6 * * *", None),
        (None, None, None, None),
    ],
)
def test_schedule_is_a_cron_expression_a_preset_or_none(
    schedule: str | None, kept: str | None, cron: str | None, hours: float | None
) -> None:
    settings = DagSettings(pipeline="support", schedule=schedule)
    assert (settings.schedule, settings.cron) == (kept, cron)
    assert settings.time_of_day == (None if hours is None else dt.timedelta(hours=hours))


@given(
    st.text("0123456789*/,-#?LWHRmonfri@ ", max_size=14)
    | st.lists(st.text("0123456789*/,-#?LWR"), min_size=5, max_size=5).map(" ".join)
)
def test_schedule_is_valid_or_a_validation_error(schedule: str) -> None:
    try:
        cron = DagSettings(pipeline="support", schedule=schedule).cron
    except ValidationError:
        return
    assert cron is not None
    assert croniter(cron, dt.datetime(2026, 1, 1)).get_next(dt.datetime) > dt.datetime(2026, 1, 1)


def test_missing_folder_names_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match="CALLPHASES_PIPELINES"):
        load_all()


def test_default_folder_is_next_to_the_package() -> None:
    assert all(path.parts[-3:-1] == ("include", "pipelines") for path in pipeline_files())


@pytest.mark.parametrize(
    ("prefix", "is_daily", "listed"),
    [
        ("support/{date:%Y/%m/%d}/", True, ["support/2026/11/20/"]),
        ("{date}/", True, ["2026-11-20/"]),
        ("{date:%Y}/in/{date:%m%d}/", True, ["2026/in/1120/"]),
        ("{date:%Y/%m}/", False, ["2026/11/"]),
        ("{date:%G/%V}/", False, ["2026/47/", "2026/48/"]),
        ("support/", False, ["support/"]),
        ("", False, [""]),
        ("odd{{brace}}/", False, ["odd{brace}/"]),
    ],
)
def test_prefixes_are_those_of_the_day_or_of_the_days_around(prefix: str, is_daily: bool, listed: list[str]) -> None:
    recordings = pipeline(recordings={"prefix": prefix}).recordings
    assert recordings.is_daily is is_daily
    assert recordings.prefix_of(DAY) == listed[0]
    assert list(recordings.prefixes(DAY)) == listed


def test_days_around_are_at_least_one_and_as_many_as_are_looked_back() -> None:
    for days, count in ((0, 3), (1, 3), (3, 7)):
        recordings = pipeline(recordings={"prefix": "{date:%d}/", "look_back_days": days}).recordings
        assert len(recordings.prefixes(DAY)) == count


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


def test_upgrade_is_true_or_false_and_not_sent() -> None:
    transcription = {"speech_models": ["universal-2"], "upgrade": True}
    ours = pipeline(transcription=transcription)
    assert (ours.upgrades_transcripts, ours.speech_options) == (True, {"speech_models": ["universal-2"]})
    assert pipeline().upgrades_transcripts is False
    with pytest.raises(ValidationError, match="expected true or false for upgrade, not 'once'"):
        pipeline(transcription={"upgrade": "once"})


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ("20:00-06:00", (dt.time(20), dt.time(6))),
        (" 8:30 – 17:05 ", (dt.time(8, 30), dt.time(17, 5))),
        ("18:00-24:00", (dt.time(18), dt.time(0))),
        (None, None),
    ],
)
def test_hours_of_backfills_are_two_times_of_day(hours: str | None, expected: object) -> None:
    assert BackfillLimits(hours=hours).open_hours == expected


# --- times from elsewhere, layouts and channels


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"metadata": "start", "tag": "start"}, "call_time: expected one of metadata, tag, audio_tag, sidecar and inv"),
        ({"metadata": "start", "key_pattern": "(?P<time>.)"}, "call_time.key_pattern: no such setting"),
        ({"metadata": "start", "format": "%H:%M"}, "call_time.format: expected a date with its year"),
        ({"metadata": "start", "timezone": "CEST"}, "call_time.timezone: expected an IANA time zone"),
        ({"sidecar": "{stem}.json"}, "call_time: sidecar needs path"),
        ({"sidecar": "{stem}.json", "path": "$..x"}, "call_time.path: expected a path of names and indexes"),
        ({"sidecar": "{stem}.json", "path": "x", "id_pattern": "("}, "id_pattern: expected a regular expression"),
        ({"inventory": "lists/calls.csv"}, "call_time.inventory: expected s3://bucket/key"),
        ({"pattern": "x"}, "call_time.key_pattern: missing"),
        ({"metadata": "day", "format": "%Y-%m-%d", "timezone": "Asia/Tokyo"}, "gives a date without a time of day"),
    ],
)
def test_time_from_elsewhere_that_can_not_be_read_is_refused(rule: dict[str, str], told: str, tmp_path: Path) -> None:
    assert told in mistake(write(tmp_path / "support.yaml", merged(MINIMAL, {"recordings": {"call_time": rule}})))


@pytest.mark.parametrize(
    "rule",
    [
        {"metadata": "call-start"},
        {"tag": "start", "format": "epoch"},
        {"audio_tag": "bext", "timezone": "America/New_York"},
        {"sidecar": "{stem}.json", "path": "$.Agent.ConnectedToAgentTimestamp"},
        {"sidecar": "s3://other/{id}.json", "path": "at", "id_pattern": "(?P<id>[0-9]+)"},
        {"inventory": "s3://lists/2026/"},
        {"inventory": "s3://lists/calls.csv", "field": "at", "id_field": "sid", "id_pattern": "(?P<sid>CA.*)"},
    ],
)
def test_time_from_elsewhere_loads_as_it_is_written(rule: dict[str, str], tmp_path: Path) -> None:
    loaded = load(write(tmp_path / "support.yaml", merged(MINIMAL, {"recordings": {"call_time": rule}})))
    assert isinstance(loaded.recordings.call_time, TimeElsewhere)
    assert loaded.recordings.call_time.model_dump(exclude_unset=True) == rule
    assert load(write(tmp_path / "again.yaml", loaded.model_dump(mode="json"))) == loaded


@pytest.mark.parametrize(
    ("recordings", "told"),
    [
        ({"layout": "nice"}, "layout: "),
        ({"key_pattern": "("}, "recordings.key_pattern: expected a regular expression"),
        ({"channels": {0: "agent"}}, "recordings.channels.0"),
        ({"channels": {1: "robot"}}, "recordings.channels.1: "),
        ({"prefix": "calls{any}/{date}/"}, "recordings.prefix: expected {any} to be a whole folder"),
    ],
)
def test_layout_and_channels_are_checked(recordings: dict[str, Any], told: str, tmp_path: Path) -> None:
    assert told in mistake(write(tmp_path / "support.yaml", merged(MINIMAL, {"recordings": recordings})))
