"""Tests of deploy/celery.env: Airflow and its Celery provider know the names, and Celery gets the values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from celery_settings import celery_settings

SETTINGS = celery_settings()


def test_every_setting_is_known_to_airflow_or_its_celery_provider() -> None:
    from airflow.configuration import conf
    from airflow.providers.celery.get_provider_info import get_provider_info

    known: dict[str, Any] = {**conf.configuration_description, **get_provider_info()["config"]}
    unknown = []
    for name in SETTINGS:
        prefix, section, option = name.split("__")
        assert prefix == "AIRFLOW"
        if option.lower() not in known.get(section.lower(), {}).get("options", {}):
            unknown.append(name)
    # The scheduler reads this setting, though Airflow's list of settings does not include it.
    assert unknown == ["AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES"]


def test_settings_contain_no_secret() -> None:
    secret = ("CONN", "PASSWORD", "SECRET", "KEY", "BROKER_URL", "RESULT_BACKEND")
    assert [name for name in SETTINGS if name.split("__")[-1].endswith(secret)] == []


@pytest.fixture(scope="module")
def celery() -> dict[str, Any]:
    """Celery's configuration with these settings."""
    code = (
        "import json; from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG as it;"
        "print(json.dumps(it, default=str))"
    )
    environment = {**os.environ, **SETTINGS, "AIRFLOW__CELERY__BROKER_URL": "redis://127.0.0.1/0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_messages_are_acknowledged_late_and_not_prefetched(celery: dict[str, Any]) -> None:
    assert celery["task_acks_late"] is True
    assert celery["worker_prefetch_multiplier"] == 1


def test_visibility_timeout_exceeds_the_longest_task(celery: dict[str, Any]) -> None:
    assert celery["broker_transport_options"]["visibility_timeout"] >= 12 * 3600


def test_unreachable_broker_ends_in_a_timeout_which_is_retried(celery: dict[str, Any]) -> None:
    assert celery["task_publish_retry_policy"]["max_retries"] is None
