"""Tests of the values for the official Helm chart: settings exist in Airflow and match other files; no secrets.

The chart itself is not rendered; docs/deployment.md says what was checked manually.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.configuration import conf
from airflow.jobs import scheduler_job_runner

from tools import sizing

ROOT = Path(__file__).parents[2]
CELERY, KUBERNETES = (ROOT / "deploy" / "helm" / name for name in ("values.yaml", "kubernetes-executor.yaml"))
BOTH = pytest.mark.parametrize("path", [CELERY, KUBERNETES], ids=["celery", "kubernetes"])
AS_TEXT = {"fernetKey", "apiSecretKey", "jwtSecret", "webserverSecretKey", "password", "pass", "brokerUrl",
           "metadataConnection", "resultBackendConnection"}  # fmt: skip
"""Keys of the chart whose value is a secret, not the name of a Secret."""


def values(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def settings(path: Path) -> dict[tuple[str, str], str]:
    """Airflow's settings in the values, by section and name, from ``config`` and ``env``."""
    document = values(path)
    found = {
        (section, name): str(value)
        for section, options in document.get("config", {}).items()
        for name, value in options.items()
    }
    variables = {one["name"]: one["value"] for one in document.get("env", [])}
    return found | {key: value for name, value in variables.items() if (key := _setting(name))}


def celery_env() -> dict[tuple[str, str], str]:
    lines = (ROOT / "deploy" / "celery.env").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line.strip() and not line.startswith("#"))
    return {key: value for name, value in pairs if (key := _setting(name))}


def _setting(variable: str) -> tuple[str, str] | None:
    named = re.fullmatch(r"AIRFLOW__([A-Z0-9_]+?)__([A-Z0-9_]+)", variable)
    return (named[1].lower(), named[2].lower()) if named else None


def _keys(document: Any) -> set[str]:
    if isinstance(document, dict):
        return set(document).union(*map(_keys, document.values()))
    return set().union(*map(_keys, document)) if isinstance(document, list) else set()


@BOTH
def test_every_setting_exists_in_airflow(path: Path) -> None:
    known = conf.configuration_description
    unknown = [key for key in settings(path) if key[1] not in known.get(key[0], {}).get("options", {})]
    # Airflow reads some settings that it does not describe.
    read = inspect.getsource(scheduler_job_runner)
    assert not [name for section, name in unknown if section != "scheduler" or f'"{name}"' not in read]


@BOTH
def test_settings_shared_with_celery_env_have_the_same_values(path: Path) -> None:
    ours, theirs = settings(path), celery_env()
    shared = ours.keys() & theirs.keys()
    assert shared
    assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}


def test_executor_matches_whether_celery_env_is_used() -> None:
    # Its variable overrides the chart's file, so it must be absent if another executor is used.
    assert values(CELERY)["executor"] == celery_env()["core", "executor"]
    assert "callphases-celery" in values(CELERY)["extraEnvFrom"]
    assert values(KUBERNETES)["executor"] != celery_env()["core", "executor"]
    assert values(KUBERNETES)["extraEnvFrom"] is None


def test_airflow_version_is_the_installed_one() -> None:
    assert values(CELERY)["airflowVersion"] == version("apache-airflow")


@BOTH
def test_values_contain_no_secret(path: Path) -> None:
    assert not _keys(values(path)) & AS_TEXT


def test_named_classes_can_be_imported() -> None:
    found = settings(CELERY)
    for key in (("core", "auth_manager"), ("secrets", "backend")):
        module, name = found[key].rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name)


def test_files_that_settings_refer_to_are_mounted() -> None:
    document = values(CELERY)
    mounts = {one["mountPath"]: one["name"] for one in document["volumeMounts"]}
    mounted = {one["name"]: one for one in document["volumes"]}
    assert set(mounts.values()) == mounted.keys()
    variables = {one["name"]: one["value"] for one in document["env"]}
    pipelines = mounted[mounts[variables["CALLPHASES_PIPELINES"]]]
    file = Path(json.loads(variables["AIRFLOW__SECRETS__BACKEND_KWARGS"])["connections_file_path"])
    connections = mounted[mounts[str(file.parent)]]
    page = (ROOT / "docs" / "deployment.md").read_text()
    assert f"kubectl create configmap {pipelines['configMap']['name']} " in page
    assert f"kubectl create secret generic {connections['secret']['secretName']} --from-file={file.name}=" in page


def test_docs_create_exactly_the_secrets_and_configmaps_in_use() -> None:
    made = re.findall(
        r"kubectl create (?:configmap|secret generic) ([\w-]+)", (ROOT / "docs" / "deployment.md").read_text()
    )
    text = CELERY.read_text()
    named = re.findall(r"(?:[sS]ecretName|configMap(?:Ref)?): (?:\{name: )?([\w-]+)", text)
    assert set(named) == set(made)


def test_worker_size_is_that_of_the_sizing_model() -> None:
    workers = values(CELERY)["workers"]
    assert settings(CELERY)["celery", "worker_concurrency"] == str(sizing.WORKER_SLOTS)
    assert workers["resources"]["limits"]["memory"] == f"{sizing.WORKER_MB:.0f}Mi"


def test_autoscaling_allows_the_slots_for_a_million_calls() -> None:
    site = sizing.needed(1_000_000, sizing.PAPER, sizing.WINDOW_H * sizing.HOUR_S)
    assert values(CELERY)["workers"]["keda"]["maxReplicaCount"] * sizing.WORKER_SLOTS >= site.slots
