"""Tests of the Dag file: the Dags that it makes of pipeline files, and the cost of parsing it."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callphases.pipeline import CRON_OF_PRESET
from night import Night
from versions import parsed, serialized, store

ROOT = Path(__file__).parents[2]
MINIMAL = "pipeline: {name}\nrecordings: {{bucket: b, prefix: p/}}\noutput: {{tables: s3://w/t/, state: s3://w/s/}}\n"


def parse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(folder))
    return parsed(str(ROOT / "dags" / "call_phases.py"))


def stored(dag_id: str) -> Any:
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        model = session.get(DagModel, dag_id)
        assert model is not None
        session.expunge(model)
    return model


def test_each_pipeline_file_makes_one_dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sales", "support"):
        (tmp_path / f"{name}.yaml").write_text(MINIMAL.format(name=name))
    bag = parse(tmp_path, monkeypatch)
    assert not bag.import_errors
    assert set(bag.dags) == {"call_phases_sales", "call_phases_support"}


def test_example_pipeline_makes_a_dag_with_owner_retries_tags_and_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = parse(ROOT / "include" / "pipelines", monkeypatch)
    assert not bag.import_errors
    [dag] = bag.dags.values()
    assert dag.dag_id == "call_phases_support_calls"
    assert "callphases" in dag.tags
    assert dag.doc_md
    assert set(dag.task_ids) == {"list", "calls.transcribe", "calls.segment", "publish", "verify"}
    for task in dag.tasks:
        assert task.owner == "callphases"
        assert task.retries == 2


def timetable(dag: Any) -> dict[str, Any]:
    """The timetable as the scheduler gets it, which is also a test of the Dag's serialization."""
    return serialized(dag).timetable.serialize()


def cron(expression: str, zone: str) -> dict[str, Any]:
    return {"expression": expression, "timezone": zone}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ("schedule: 0 25 * * *\n", "bad.yaml: schedule: expected a cron expression whose hour is 0 to 23, not '25'"),
        ("schedule: '@once'\n", "bad.yaml: schedule: expected a cron expression, or one of @hourly"),
        ("schedule: 0 0 31 2 *\n", "bad.yaml: schedule: expected a cron expression that matches a day"),
        ("timezone: Mars\n", "bad.yaml: timezone: expected an IANA time zone"),
        ("deadline: {by: '06:00', notify: page()}\n", "bad.yaml: deadline.notify: "),
        ("recording: {bucket: b}\n", "bad.yaml: recording: no such setting"),
        ("limits: {\n", "bad.yaml: expected YAML: "),
        ("pipeline: good\n", "bad.yaml: expected YAML: pipeline is there twice"),
        ("last: 2026-02-30\n", "bad.yaml: expected YAML: day is out of range for month"),
    ],
)
def test_invalid_file_makes_a_dag_that_shows_its_error_and_leaves_others_alone(
    changes: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.yaml").write_text(MINIMAL.format(name="good"))
    (tmp_path / "bad.yaml").write_text(MINIMAL.format(name="bad") + changes)
    bag = parse(tmp_path, monkeypatch)
    assert not bag.import_errors
    assert set(bag.dags) == {"call_phases_good", "call_phases_bad"}
    bad, good = bag.dags["call_phases_bad"], bag.dags["call_phases_good"]
    assert error in bad.doc_md
    assert bad.task_ids == ["list"]
    assert timetable(bad) == timetable(good) == cron("0 0 * * *", "UTC")
    assert "publish" in good.task_ids


def test_pipeline_whose_dag_cannot_be_built_leaves_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callphases.airflow import dag

    for name in ("bad", "good"):
        (tmp_path / f"{name}.yaml").write_text(MINIMAL.format(name=name) + "schedule: 0 3 * * *\n")

    def fail_for_bad(pipeline: Any) -> None:
        if pipeline.pipeline == "bad":
            raise TypeError("no such alert")

    monkeypatch.setattr(dag, "deadline_alert", fail_for_bad)
    bag = parse(tmp_path, monkeypatch)
    assert not bag.import_errors
    assert set(bag.dags) == {"call_phases_bad", "call_phases_good"}
    bad = bag.dags["call_phases_bad"]
    assert "The Dag of the pipeline bad can't be built: TypeError: no such alert" in bad.doc_md
    assert (bad.task_ids, timetable(bad)) == (["list"], cron("0 3 * * *", "UTC"))


def test_schedule_that_only_airflow_rejects_fails_at_midnight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from callphases.airflow import dag as pipeline

    for name in ("bad", "good"):
        (tmp_path / f"{name}.yaml").write_text(MINIMAL.format(name=name) + f"schedule: 0 {len(name)} * * *\n")
    valid = pipeline.load_all

    def load_all(folder: Path) -> Any:
        loaded, mistakes = valid(folder)
        return [
            one.model_copy(update={"schedule": "0 25 * * *"}) if one.pipeline == "bad" else one for one in loaded
        ], mistakes

    monkeypatch.setattr(pipeline, "load_all", load_all)
    bag = parse(tmp_path, monkeypatch)
    assert not bag.import_errors
    bad, good = bag.dags["call_phases_bad"], bag.dags["call_phases_good"]
    assert (bad.task_ids, timetable(bad)) == (["list"], cron("0 0 * * *", "UTC"))
    assert timetable(good) == cron("0 4 * * *", "UTC")


@pytest.mark.parametrize(
    "settings",
    [
        *(f"schedule: '{schedule}'" for schedule in CRON_OF_PRESET),
        *("schedule: 0 3 * * MON-FRI", "schedule: 0 0 L JAN,jul *", "schedule: 0 0 * * sun#1"),
        *("schedule: 0-59/7 22-2 1-7 */2 ?", "schedule: null", "timezone: America/Argentina/Buenos_Aires"),
        *("timezone: Etc/GMT-14", "timezone: GMT0", "deadline: {by: '06:00', notify: not.there}"),
    ],
)
def test_dag_of_a_valid_file_is_serialized(settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.yaml").write_text(MINIMAL.format(name="p") + f"{settings}\n")
    bag = parse(tmp_path, monkeypatch)
    assert not bag.import_errors
    [dag] = bag.dags.values()
    assert "publish" in dag.task_ids
    timetable(dag)


@pytest.mark.usefixtures("airflow_database")
def test_all_names_are_stored_with_their_dags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"Night", "night", "NIGHT", "a.b", "a..b", ".", "-", "_", "x" * 100, "a.calls", "a"}
    for number, name in enumerate(sorted(names)):
        (tmp_path / f"{number}.yaml").write_text(MINIMAL.format(name=f"'{name}'"))
    bag = parse(tmp_path, monkeypatch)
    assert not bag.import_errors
    store(bag)
    assert {dag_id for dag_id in bag.dags if stored(dag_id).is_stale is False} == {
        f"call_phases_{one}" for one in names
    }


@pytest.mark.usefixtures("airflow_database")
def test_broken_file_of_a_live_pipeline_leaves_it_unpaused_and_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    path = tmp_path / "live.yaml"
    path.write_text(MINIMAL.format(name="live") + "schedule: 0 3 * * *\ntimezone: Europe/Berlin\n")
    store(parse(tmp_path, monkeypatch))
    with create_session() as session:
        session.execute(update(DagModel).where(DagModel.dag_id == "call_phases_live").values(is_paused=False))
    before = stored("call_phases_live")
    path.write_text(path.read_text().replace("recordings:", "recording:"))
    store(parse(tmp_path, monkeypatch))
    after = stored("call_phases_live")
    assert (after.is_paused, after.is_stale, after.has_import_errors) == (False, False, False)
    assert after.next_dagrun_create_after == before.next_dagrun_create_after


@pytest.mark.integration
def test_run_of_a_broken_file_fails_with_its_error(night: Night, capfd: Any) -> None:
    path = night.folder / "night.yaml"
    path.write_text(path.read_text().replace("recordings:", "recording:"))
    assert night.run("2026-11-20") == "failed"
    assert night.states() == {"list[-1]": "failed"}
    captured = capfd.readouterr()
    assert (
        "night.yaml: recordings: missing; it has no default; recording: no such setting" in captured.out + captured.err
    )


def test_missing_pipelines_folder_is_an_import_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = parse(tmp_path / "nowhere", monkeypatch)
    assert "CALLPHASES_PIPELINES" in "".join(bag.import_errors.values())


@pytest.mark.parametrize(("zone", "first_day"), [("UTC", "2026-11-19"), ("Europe/Berlin", "2026-11-20")])
def test_scheduled_run_covers_a_whole_day_in_the_time_zone(
    zone: str, first_day: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.timetables.base import TimeRestriction
    from pendulum import instance

    (tmp_path / "p.yaml").write_text(MINIMAL.format(name="p") + f"timezone: {zone}\n")
    dag = parse(tmp_path, monkeypatch).dags["call_phases_p"]
    start = instance(dt.datetime(2026, 11, 18, 23, 30, tzinfo=dt.UTC))
    info = serialized(dag).timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(start, None, catchup=True)
    )
    interval = info.data_interval
    assert interval.end - interval.start == dt.timedelta(days=1)
    assert interval.start.in_timezone(zone).to_datetime_string() == f"{first_day} 00:00:00"


PARSE = """
import socket, sys, time
def refused(*_): raise AssertionError("parsing opens a connection")
import airflow.sdk, airflow.triggers.base
before = set(sys.modules)
socket.socket.connect = refused
began = time.monotonic()
import runpy
runpy.run_path(sys.argv[1])
heavy = {"boto3", "botocore", "pyarrow", "pandas", "numpy", "matplotlib", "webvtt"} & (set(sys.modules) - before)
print(f"{time.monotonic() - began:.3f} {' '.join(sorted(heavy))}")
"""


def test_parsing_imports_nothing_heavy_and_opens_no_connection() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(ROOT / "dags" / "call_phases.py")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "CALLPHASES_PIPELINES": str(ROOT / "include" / "pipelines")},
    )
    _, *heavy = done.stdout.split()
    assert heavy == [], "modules that parsing does not need"
