"""The order in which Airflow starts tasks, by the scheduler's objects."""

from __future__ import annotations

import os
import uuid
from importlib.metadata import PackageNotFoundError

import pytest
from airflow.models.taskinstance import TaskInstance

from callphases.airflow import priority
from callphases.airflow.dag import call_phases
from callphases.airflow.operators import SegmentCalls
from callphases.airflow.priority import NightsFirst, weight_rule
from doubles import pipeline
from versions import serialized

NIGHTS = ("scheduled__2026-11-20T00:00:00+00:00", "manual__2026-11-20T08:00:00+00:00", "asset_triggered__2026", "x")
BACKFILLS = ("backfill__2026-01-01T00:00:00+00:00", "archive__2026-01-01_2026-01-31")
TASKS = ("list", "calls.transcribe", "calls.segment", "publish", "verify")


def weights(run_id: str) -> list[int]:
    """The weights of the tasks of a run, as the scheduler makes them: mapped tasks too."""
    dag = serialized(call_phases(pipeline()))
    made = [TaskInstance(task=dag.task_dict[task], run_id=run_id, dag_version_id=uuid.uuid4()) for task in TASKS]
    for one in made:
        one.refresh_from_task(one.task)
    return [one.priority_weight for one in made]


def test_every_task_of_a_night_goes_before_every_task_of_a_backfill() -> None:
    first = min(weight for run_id in NIGHTS for weight in weights(run_id))
    last = max(weight for run_id in BACKFILLS for weight in weights(run_id))
    assert first > last


@pytest.mark.parametrize("run_id", NIGHTS + BACKFILLS)
def test_tasks_of_a_run_that_are_further_along_go_first(run_id: str) -> None:
    of_run = weights(run_id)
    assert of_run == sorted(set(of_run))


def test_dag_of_an_installed_package_names_the_rule_that_its_plugin_registers() -> None:
    from airflow.task.priority_strategy import validate_and_load_priority_weight_strategy

    assert isinstance(validate_and_load_priority_weight_strategy(weight_rule()), NightsFirst)


def test_without_the_plugin_the_dag_is_as_valid_as_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(priority, "distribution", missing)
    assert weights(NIGHTS[0]) == weights(BACKFILLS[0]) == [1, 2, 3, 4, 5]
    assert "not installed as a package" in caplog.text


@pytest.mark.parametrize(("run_id", "niceness"), [*((one, 0) for one in NIGHTS), *((one, 15) for one in BACKFILLS)])
def test_process_of_a_backfill_yields_the_processor(
    run_id: str, niceness: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    seen: list[int] = []
    monkeypatch.setattr(SegmentCalls, "work", lambda *_: seen.append(os.getpriority(os.PRIO_PROCESS, 0)))
    task = SegmentCalls(task_id="segment", pipeline=pipeline(), manifest="s3://warehouse/state/runs/chunk")
    task.execute({"run_id": run_id})  # type: ignore[typeddict-item]
    assert seen == [max(before, niceness)]
