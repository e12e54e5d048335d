"""Tests of deploy/make-env.sh: the files that it writes, their permissions, and that it keeps existing files."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet

ROOT = Path(__file__).resolve().parents[2]
SECRETS = ("ADMIN_PASSWORD", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "FERNET_KEY", "API_SECRET_KEY", "JWT_SECRET")


def made(folder: Path) -> dict[str, str]:
    """Run the script in ``folder``; returns the variables of the ``.env`` there."""
    (folder / "deploy").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "deploy" / "make-env.sh", folder / "deploy")
    said = subprocess.run([folder / "deploy" / "make-env.sh"], check=True, capture_output=True, text=True).stdout
    lines = [line for line in (folder / ".env").read_text().splitlines() if not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines)
    assert not [name for name in SECRETS if variables[name] in said]
    return variables


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made(tmp_path)
    return tmp_path


def test_script_writes_every_variable_that_compose_needs(folder: Path) -> None:
    needed = set(re.findall(r"\$\{(\w+)(?::\?[^}]*)?\}", (ROOT / "docker-compose.yaml").read_text()))
    assert needed <= made(folder).keys()
    assert set(SECRETS) <= needed


def test_files_are_readable_only_by_their_owner(folder: Path) -> None:
    for path in (folder / ".env", folder / "deploy" / "secrets" / "connections.yaml"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_containers_run_as_the_owner_of_the_connections_and_not_as_root(folder: Path) -> None:
    user = int(made(folder)["CALLPHASES_UID"])
    assert user == (os.getuid() or 50000)
    assert (folder / "deploy" / "secrets" / "connections.yaml").stat().st_uid == user


def test_second_execution_changes_nothing(folder: Path) -> None:
    paths = (folder / ".env", folder / "deploy" / "secrets" / "connections.yaml")
    before = [path.read_bytes() for path in paths]
    made(folder)
    assert [path.read_bytes() for path in paths] == before


def test_secrets_differ_between_machines(tmp_path: Path) -> None:
    first, second = made(tmp_path / "one"), made(tmp_path / "two")
    assert not [name for name in (*SECRETS, "SPEECHBOX_API_KEY") if first[name] == second[name]]


def test_secrets_are_long_and_safe_in_urls_and_json(folder: Path) -> None:
    variables = made(folder)
    for name in SECRETS:
        assert re.fullmatch(r"[\w-]{24,}=?", variables[name], re.ASCII), name
    Fernet(variables["FERNET_KEY"])


def test_connections_point_to_the_servers_of_the_profile_local(folder: Path) -> None:
    connections = yaml.safe_load((folder / "deploy" / "secrets" / "connections.yaml").read_text())
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    assert connections["assemblyai_default"]["password"] == made(folder)["SPEECHBOX_API_KEY"]
    text = str(connections)
    assert set(re.findall(r"http://([\w-]+):", text)) == {name for name in ("s3", "speechbox") if name in services}


def test_git_and_docker_ignore_the_files() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "deploy/secrets/"} <= set(ignored)
    context = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert context[0] == "*"  # excludes everything that is not named
    assert not [line for line in context if line.startswith("!") and re.search(r"env$|secrets|^!\*|^!deploy/?$", line)]
