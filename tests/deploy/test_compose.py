"""Tests of docker-compose.yaml, without Docker: Compose v2 and docker-compose 1.29 can both read it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ROLES = ("init", "api-server", "scheduler", "dag-processor", "triggerer", "worker")
ONCE = ("init", "demo")
SETTINGS = dict(
    line.split("=", 1)
    for line in (ROOT / "deploy" / "celery.env").read_text().splitlines()
    if line and not line.startswith("#")
)


def test_file_uses_only_keys_that_docker_compose_1_29_knows() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"services", "secrets", "volumes"}
    for name, service in SERVICES.items():
        assert isinstance(service.get("env_file", ""), str), name
        assert "start_interval" not in service.get("healthcheck", {}), name
        conditions = service.get("depends_on", {}).values()
        assert all(needed.keys() == {"condition"} for needed in conditions), name


def test_every_role_uses_the_same_image_and_settings() -> None:
    assert {SERVICES[role]["image"] for role in ROLES} == {"callphases:${CALLPHASES_TAG:-latest}"}
    assert {SERVICES[role]["env_file"] for role in ROLES} == {"deploy/celery.env"}


def test_every_server_has_a_health_check_and_is_restarted() -> None:
    for name, service in SERVICES.items():
        if name not in ONCE:
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_services_wait_until_their_dependencies_are_healthy() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == expected, f"{name} needs {needed}"


def test_only_the_ui_is_published_and_only_on_localhost() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api-server": ["127.0.0.1:${CALLPHASES_PORT:-8080}:8080"]}


@pytest.mark.parametrize("path", ["docker-compose.yaml", "deploy/celery.env", "Dockerfile", "deploy/make-env.sh"])
def test_no_file_contains_a_password(path: str) -> None:
    for line in (ROOT / path).read_text().splitlines():
        for found in re.findall(r"://[^/@\s]*:([^@/\s]+)@", line):
            assert found.startswith("${"), line
        if match := re.search(r"^\s*[A-Z_]*(?:PASSWORD|SECRET_KEY|FERNET_KEY|API_KEY|_SECRET)\s*[:=]\s*(.+)", line):
            assert match[1].strip('"').startswith(("$", "{")), line


def test_no_role_has_a_provider_key_in_its_environment() -> None:
    for role in ROLES:
        environment = SERVICES[role]["environment"]
        assert not [name for name in environment if "CONN_" in name.replace("SQL_ALCHEMY_CONN", "")], role
        assert not [value for value in environment.values() if "SPEECHBOX" in str(value)], role
        assert environment["AIRFLOW__SECRETS__BACKEND"].endswith(".LocalFilesystemBackend"), role
        assert SERVICES[role]["secrets"] == ["connections.yaml"], role


def test_no_role_runs_as_root_or_can_become_root() -> None:
    for role in ROLES:
        assert SERVICES[role]["user"] == "${CALLPHASES_UID:-50000}:0"
        assert SERVICES[role]["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in SERVICES[role]["security_opt"]


def test_logs_and_data_are_on_volumes() -> None:
    for role in ROLES:
        assert "logs:/opt/airflow/logs" in SERVICES[role]["volumes"], role
    named = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= named
    assert {"postgres", "redis"} <= set(COMPOSE["volumes"])


def test_optional_services_are_in_their_profiles() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"s3": ["local"], "speechbox": ["local"], "demo": ["demo"]}


def test_celery_settings_are_only_in_celery_env() -> None:
    ours = {name for role in ROLES for name in SERVICES[role]["environment"]}
    assert not ours & SETTINGS.keys()
    assert SETTINGS["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"


def test_stopped_worker_gets_five_minutes_for_its_tasks() -> None:
    assert SERVICES["worker"]["stop_grace_period"] == "5m"
    assert SERVICES["worker"]["init"]  # passes the signal only to the main process
