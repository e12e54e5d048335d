"""What all commands share: one-line errors, usage errors, help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from commands import Run, labelled_call
from doubles import KEY, Store


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("s3://", "s3://: expected s3://bucket/prefix/ for the argument TABLES"),
        ("s3:///call_phases/", "s3:///call_phases/: expected s3://bucket/prefix/"),
        ("s3:/warehouse/x", "did you mean s3://warehouse/x?"),
        ("S3://warehouse/x", "did you mean s3://warehouse/x?"),
        ("s3a://warehouse/x", "did you mean s3://warehouse/x?"),
        ("s3:warehouse", "did you mean s3://warehouse?"),
        ("gs://warehouse/x", "gs://warehouse/x: expected s3://bucket/prefix/"),
        ("https://warehouse.s3.amazonaws.com/x", "expected s3://bucket/prefix/"),
        ("s3//warehouse/x", "did you mean s3://warehouse/x?"),
        ("s3/warehouse", "s3/warehouse doesn't exist: there is no such folder."),
        ("nowhere/tables", "nowhere/tables doesn't exist: there is no such folder."),
        ("nowhere.yaml", "nowhere.yaml: can't be read: No such file or directory"),
    ],
)
def test_tables_that_are_nowhere_are_reported(run: Run, tmp_path: Path, place: str, words: str) -> None:
    code, out, err = run("show", place, "--date", "2026-11-20")
    assert code == 1
    assert words in out + err
    code, out, err = run("score", labelled_call(tmp_path / "truth"), "--tables", place)
    assert (code, out) == (1, "")
    assert words.replace("the argument TABLES", "--tables") in err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("pipeline: [support", "expected YAML"),
        ("pipeline: support", "recordings: missing"),
        ("recordings: {call_time: {key_pattern: '[a-z]+[/b]', format: x}}", "(it is '[a-z]+[/b]')"),
    ],
)
def test_invalid_pipeline_file_is_a_one_line_error(run: Run, tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "support.yaml"
    path.write_text(content)
    code, out, err = run("plan", path, "--date", "2026-11-20")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {path}: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.integration
def test_missing_bucket_is_a_one_line_error(run: Run, aws: Store) -> None:
    code, _, err = run("show", "s3://nowhere/tables/", "--date", "2026-11-20")
    assert code == 1
    assert err.startswith("error: There is no bucket 'nowhere': check the argument TABLES.")
    assert err.count("\n") == 1


def test_unreachable_store_is_a_one_line_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code, _, err = run("show", "s3://warehouse/tables/", "--date", "2026-11-20")
    assert code == 1
    assert err.startswith("error: S3 can't be reached for bucket 'warehouse'")
    assert KEY not in err


def test_missing_credentials_are_a_one_line_error(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    code, _, err = run("show", "s3://warehouse/tables/", "--date", "2026-11-20")
    assert code == 1
    assert "NoCredentialsError" in err
    assert err.count("\n") == 1


def test_missing_aws_profile_is_a_one_line_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    code, _, err = run("show", "s3://warehouse/tables/", "--date", "2026-11-20")
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "plan"])
def test_invalid_date_is_a_usage_error(run: Run, command: str) -> None:
    code, _, err = run(command, "x", "--date", "yesterday")
    assert code == 2
    assert "yesterday" in err


def test_help_lists_all_commands_in_a_fresh_process() -> None:
    command = [sys.executable, "-c", "from callphases.cli import main; main()", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert all(command in done.stdout for command in ("plan", "replay", "show", "doctor", "score"))
