"""Tests of a running cluster (``make cluster``) from outside: health, ports, users, and where keys are.

They need Docker, so they are not collected by default: run ``make cluster-check``.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = {"api-server", "scheduler", "dag-processor", "triggerer", "worker"}


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def containers() -> list[dict[str, Any]]:
    """Docker's description of each running container of the cluster."""
    env = dict(line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if not line.startswith("#"))
    project = env["COMPOSE_PROJECT_NAME"]
    labels = (f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False")
    ids = docker("ps", "--quiet", *(f"--filter=label={label}" for label in labels)).split()
    assert ids, "no container is running: make cluster"
    found: list[dict[str, Any]] = json.loads(docker("inspect", *ids))
    return found


def service(container: dict[str, Any]) -> str:
    name: str = container["Config"]["Labels"]["com.docker.compose.service"]
    return name


def keys() -> list[str]:
    """The passwords of all connections, without short placeholders."""
    connections = yaml.safe_load((ROOT / "deploy" / "secrets" / "connections.yaml").read_text())
    found = [connection["password"] for connection in connections.values() if len(connection["password"]) > 8]
    assert found
    return found


def test_every_role_is_running_and_healthy(containers: list[dict[str, Any]]) -> None:
    assert {service(container) for container in containers} >= ROLES | {"postgres", "redis"}
    assert {container["State"]["Health"]["Status"] for container in containers} == {"healthy"}


def test_only_the_ui_is_published_and_only_on_localhost(containers: list[dict[str, Any]]) -> None:
    published = [
        (service(container), where["HostIp"])
        for container in containers
        for bindings in container["NetworkSettings"]["Ports"].values()
        for where in bindings or []
    ]
    assert published == [("api-server", "127.0.0.1")]


def test_no_process_of_our_images_runs_as_root(containers: list[dict[str, Any]]) -> None:
    for container in containers:
        if container["Config"]["Image"].startswith("callphases"):
            users = [line.split()[0] for line in docker("top", container["Id"], "-eo", "uid,pid").splitlines()[1:]]
            assert users, service(container)
            assert "0" not in users, service(container)


def test_no_provider_key_is_in_container_metadata_or_logs(containers: list[dict[str, Any]]) -> None:
    for container in containers:
        if service(container) in ROLES:
            log = docker("logs", container["Id"])
            assert not [key for key in keys() if key in json.dumps(container) or key in log], service(container)


def test_airflow_reads_the_provider_key(containers: list[dict[str, Any]]) -> None:
    worker = next(container for container in containers if service(container) == "worker")
    look = "from airflow.sdk import Connection; print(Connection.get('assemblyai_default').password)"
    key = docker("exec", worker["Id"], "python", "-c", look).splitlines()[-1]
    assert key in keys()


def test_no_image_layer_contains_a_secret(containers: list[dict[str, Any]]) -> None:
    env = [line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if not line.startswith("#")]
    secrets = [value for name, value in env if name.endswith(("PASSWORD", "KEY", "SECRET"))] + keys()
    for image in {c["Config"]["Image"] for c in containers if c["Config"]["Image"].startswith("callphases")}:
        made = docker("history", "--no-trunc", image) + docker("inspect", image)
        assert not [secret for secret in secrets if secret in made], image
