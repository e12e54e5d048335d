"""deploy/celery.env: names that Airflow and its Celery provider know, values that Celery then has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from celery_settings import celery_settings

SETTINGS = celery_settings()


def test_every_name_is_known() -> None:
    from airflow.configuration import conf
    from airflow.providers.celery.get_provider_info import get_provider_info

    known: dict[str, Any] = {**conf.configuration_description, **get_provider_info()["config"]}
    unknown = []
    for name in SETTINGS:
        prefix, section, option = name.split("__")
        assert prefix == "AIRFLOW"
        if option.lower() not in known.get(section.lower(), {}).get("options", {}):
            unknown.append(name)
    # The scheduler reads this one; Airflow's list of settings does not have it.
    assert unknown == ["AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES"]


def test_nothing_in_it_is_secret() -> None:
    secret = ("CONN", "PASSWORD", "SECRET", "KEY", "BROKER_URL", "RESULT_BACKEND")
    assert [name for name in SETTINGS if name.split("__")[-1].endswith(secret)] == []


@pytest.fixture(scope="module")
def celery() -> dict[str, Any]:
    """What Celery is set to under these settings."""
    code = (
        "import json; from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG as it;"
        "print(json.dumps(it, default=str))"
    )
    environment = {**os.environ, **SETTINGS, "AIRFLOW__CELERY__BROKER_URL": "redis://127.0.0.1/0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_message_outlives_its_worker_and_waits_for_no_other(celery: dict[str, Any]) -> None:
    assert celery["task_acks_late"] is True
    assert celery["worker_prefetch_multiplier"] == 1


def test_a_message_is_not_sent_twice_while_a_task_may_run(celery: dict[str, Any]) -> None:
    assert celery["broker_transport_options"]["visibility_timeout"] >= 12 * 3600


def test_a_broker_that_is_away_is_a_time_out_which_is_tried_again(celery: dict[str, Any]) -> None:
    assert celery["task_publish_retry_policy"]["max_retries"] is None
