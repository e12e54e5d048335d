"""What all commands have: streams, -q and -v, exit codes in the help, credentials. In processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from callphases.cli.command import EXIT_CODES
from callphases.cli.program import app
from callphases.tables.schema import CALLS, PHASES, object_name
from commands import Run, call, parquet, phase
from doubles import DAY, KEY, Speech, Store, Web, answer, chat_answer

COMMANDS = [one.callback.__name__ for one in app.registered_commands if one.callback is not None]
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """Runs ``callphases …`` in a process of its own, without any settings of this one."""

    def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS", "CALLP"))}
        home = {
            "HOME": str(tmp_path / "home"),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "AWS_EC2_METADATA_DISABLED": "1",
        }
        command = [sys.executable, "-c", "from callphases.cli import main; main()", *map(str, arguments)]
        settings = {**kept, **home, "AWS_EC2_METADATA_DISABLED": "1", **environment}
        return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=90)

    return process


@pytest.fixture
def file(s3: Store, tmp_path: Path) -> Path:
    path = tmp_path / "support.yaml"
    path.write_text(yaml.safe_dump(s3.pipeline().model_dump(mode="json", exclude_unset=True)))
    return path


@pytest.fixture
def published(s3: Store) -> Store:
    s3.tables.put(object_name("calls", DAY), parquet(CALLS, call("a.mp3")))
    s3.tables.put(object_name("phases", DAY), parquet(PHASES, phase("a.mp3", 0, "Goodbye", 0, 75)))
    s3.put(f"calls/{DAY}/a.mp3")
    return s3


def connections(s3: Store, web: Web | None = None, models: Web | None = None) -> dict[str, str]:
    """Airflow's connections as environment variables."""
    extra = {"endpoint_url": s3.url, "region_name": "us-east-1"}
    found = {"AWS": {"conn_type": "aws", "login": "x", "password": KEY, "extra": extra}}
    if web is not None and models is not None:
        gateway = {"llm_gateway_url": models.url}
        found["ASSEMBLYAI"] = {"conn_type": "assemblyai", "host": web.url, "password": KEY, "extra": gateway}
    return {f"AIRFLOW_CONN_{name}_DEFAULT": json.dumps(connection) for name, connection in found.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_ends_with_the_exit_codes(run: Run, command: str) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert out.rstrip().splitlines()[-1].strip() == EXIT_CODES
    assert "--verbose" in out


def test_help_of_the_program_names_the_credentials(process: Process) -> None:
    done = process("--help", COLUMNS="400")
    assert done.returncode == 0
    for words in ("AWS_PROFILE", "ASSEMBLYAI_API_KEY", "Airflow connections", EXIT_CODES, "--install-completion"):
        assert words in done.stdout
    assert [command for command in COMMANDS if f" {command} " not in done.stdout] == []


@pytest.mark.integration
def test_doctor_with_airflows_connections_prints_only_findings(
    process: Process, published: Store, file: Path, speech: Speech, models: Web, tmp_path: Path
) -> None:
    pytest.importorskip("airflow")
    models.respond = lambda _: chat_answer("hello")
    missing = answer({"error": "audio_url is required"}, 400)
    speech.refuse = lambda request: missing if request.method == "POST" else None
    environment = {"AIRFLOW_HOME": str(tmp_path / "airflow"), **connections(published, speech.web, models)}
    done = process("doctor", file, **environment)
    assert done.stdout.splitlines()[0] == "✓ pipeline support: Its file is valid."
    assert [line for line in done.stdout.splitlines() if line[:2] not in ("✓ ", "– ")] == []
    assert (done.returncode, done.stderr) == (0, "")
    done = process("-v", "doctor", file, **environment)
    assert "info: S3 is configured by the Airflow connection 'aws_default'." in done.stderr.splitlines()
    assert all(line[:2] in ("✓ ", "– ") for line in done.stdout.splitlines())
    done = process("doctor", "-vv", file, **environment)
    assert len(done.stderr.splitlines()) > 3, "Airflow's own lines"
    assert all(line[:2] in ("✓ ", "– ") for line in done.stdout.splitlines())
    assert KEY not in done.stdout + done.stderr


@pytest.mark.integration
@pytest.mark.parametrize("way", ["environment", "profile", "airflow"])
def test_show_and_plan_accept_the_same_credentials(
    process: Process, published: Store, file: Path, tmp_path: Path, way: str
) -> None:
    if way == "airflow":
        pytest.importorskip("airflow")
    (tmp_path / "aws").write_text(
        f"[work]\naws_access_key_id = x\naws_secret_access_key = {KEY}\nregion = us-east-1\n"
        f"endpoint_url = {published.url}\n"
    )
    nowhere = {"conn_type": "aws", "extra": {"endpoint_url": "http://127.0.0.1:9"}}
    environment = {
        "environment": {
            "AWS_ENDPOINT_URL": published.url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        # A profile that is set goes before a connection.
        "profile": {
            "AWS_PROFILE": "work",
            "AWS_CONFIG_FILE": str(tmp_path / "aws2"),
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(nowhere),
        },
        "airflow": connections(published),
    }[way]
    (tmp_path / "aws2").write_text((tmp_path / "aws").read_text().replace("[work]", "[profile work]"))
    done = process("show", file, "--date", DAY, "--format", "json", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["call_id"] == "a.mp3"
    done = process("plan", file, "--date", DAY, **environment)
    assert done.stdout.startswith(f"{DAY}: 1 recordings, 1 to do")


@pytest.mark.integration
def test_missing_connection_falls_back_to_boto3_in_one_line(
    process: Process, published: Store, file: Path, tmp_path: Path
) -> None:
    environment = {"AIRFLOW_HOME": str(tmp_path / "airflow"), "AWS_ENDPOINT_URL": published.url}
    environment |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": KEY, "AWS_DEFAULT_REGION": "us-east-1"}
    done = process("show", file, "--date", DAY, "--format", "csv", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("dt,")
    done = process("run", file, "--date", DAY, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "AIRFLOW_CONN_ASSEMBLYAI_DEFAULT" in done.stderr or "ASSEMBLYAI_API_KEY" in done.stderr


def test_completion_is_printed_for_a_shell(process: Process) -> None:
    done = process("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (done.returncode, "_COMPLETE=" in done.stdout) == (0, True)
