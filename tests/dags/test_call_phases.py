"""Tests of the Dag file: the Dags that it makes of pipeline files, and the cost of parsing it."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MINIMAL = "pipeline: {name}\nrecordings: {{bucket: b, prefix: p/}}\noutput: {{tables: s3://w/t/, state: s3://w/s/}}\n"


def parse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("CALLPHASES_PIPELINES", str(folder))
    bag = DagBag(collect_dags=False)
    bag.process_file(str(ROOT / "dags" / "call_phases.py"))
    return bag


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


def test_invalid_file_shows_its_error_and_leaves_other_pipelines_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.yaml").write_text(MINIMAL.format(name="good"))
    (tmp_path / "bad.yaml").write_text("pipeline: bad\nrecordings: {bucket: b, prefix: p/}\n")
    bag = parse(tmp_path, monkeypatch)
    assert set(bag.dags) == {"call_phases_good", "call_phases_bad_unreadable"}
    assert "bad.yaml: output: missing" in bag.dags["call_phases_bad_unreadable"].doc_md


def test_missing_pipelines_folder_is_an_import_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = parse(tmp_path / "nowhere", monkeypatch)
    assert "CALLPHASES_PIPELINES" in "".join(bag.import_errors.values())


@pytest.mark.parametrize(("zone", "first_day"), [("UTC", "2026-11-19"), ("Europe/Berlin", "2026-11-20")])
def test_scheduled_run_covers_a_whole_day_in_the_time_zone(
    zone: str, first_day: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction
    from pendulum import instance

    (tmp_path / "p.yaml").write_text(MINIMAL.format(name="p") + f"timezone: {zone}\n")
    dag = parse(tmp_path, monkeypatch).dags["call_phases_p"]
    start = instance(dt.datetime(2026, 11, 18, 23, 30, tzinfo=dt.UTC))
    info = coerce_to_core_timetable(dag.timetable).next_dagrun_info(
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
