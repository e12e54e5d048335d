"""``callphases backfill`` with Airflow's database: the runs that it creates are over the local days asked for."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import delete, select, update

from callphases.airflow.ranges import RangeRun
from callphases.cli import main
from callphases.day_range import DayRange
from callphases.local_days import exists
from callphases.pipeline import load
from callphases.state.storage import ObjectPrefix
from callphases.state.summaries import DaySummary, record
from servers import remove, s3_client
from versions import parsed, store

pytestmark = pytest.mark.integration

DAG_FILE = Path(__file__).parents[2] / "dags" / "call_phases.py"
PIPELINE = """\
pipeline: {name}
timezone: {zone}
schedule: {schedule}
recordings: {{bucket: recordings, prefix: p/}}
output: {{tables: s3://archives/{name}/t/, state: s3://archives/{name}/s/}}
"""
NUMBERS = itertools.count(1)
Run = Callable[..., str]


@pytest.fixture
def folder(airflow_database: None, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The pipelines' folder, and a bucket for their state; runs are removed before and after the test."""
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path))
    # No API server answers there, so runs are created in Airflow's database.
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "x")  # boto3's settings count
    for name, value in {
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3 = s3_client(s3_url)
    for bucket in ("archives", "recordings"):
        s3.create_bucket(Bucket=bucket)
    remove_runs()
    yield tmp_path
    remove_runs()
    for bucket in ("archives", "recordings"):
        remove(s3, bucket)


def live(folder: Path, zone: str, schedule: str = "0 0 * * *", is_paused: bool = False) -> Path:
    """A pipeline file whose Dag is in Airflow's database, under a name of its own: a change takes half a minute."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    name = f"archive_{next(NUMBERS)}"
    path = folder / f"{name}.yaml"
    path.write_text(PIPELINE.format(name=name, zone=zone, schedule=schedule))
    bag = parsed(str(DAG_FILE))
    assert not bag.import_errors
    store(bag)
    with create_session() as session:
        session.execute(update(DagModel).where(DagModel.dag_id == dag_id(path)).values(is_paused=is_paused))
    return path


def dag_id(path: Path) -> str:
    return f"call_phases_{path.stem}"


@pytest.fixture
def backfill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; returns what it prints."""

    def run(path: Path, first: str, last: str, *options: str, code: int = 0) -> str:
        argv = ["callphases", "backfill", str(path), "--from", first, "--to", last, *options]
        monkeypatch.setattr(sys, "argv", argv)
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        printed = captured.out + captured.err
        assert exit_.value.code == code, printed
        return printed

    return run


def remove_runs() -> None:
    from airflow.models.backfill import Backfill, BackfillDagRun
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        for table in (BackfillDagRun, DagRun, Backfill):
            session.execute(delete(table))


def runs() -> list[Any]:
    """The runs in the database, in the order of their creation."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        found = list(session.scalars(select(DagRun).order_by(DagRun.id)))
        session.expunge_all()
    return found


def range_runs() -> list[RangeRun]:
    """What the created runs are over."""
    assert all(one.run_id.startswith("archive__") and str(one.state) == "queued" for one in runs())
    found = [RangeRun.of(one.conf) for one in runs()]
    return [one for one in found if one is not None]


def steps() -> list[tuple[str, str]]:
    """The ranges of all runs of the backfill: those that were created, and those that these will create."""
    created = range_runs()
    every = [*created, *created[-1].following()]
    return [(str(one.days.first), str(one.days.last)) for one in every]


def days(path: Path) -> list[str]:
    """The days that all runs of the backfill process, in their order."""
    zone = load(path).zone
    ranges = [DayRange(dt.date.fromisoformat(first), dt.date.fromisoformat(last)) for first, last in steps()]
    return [str(day) for days in ranges for day in days if exists(day, zone)]


def range_of(first: str, last: str) -> list[str]:
    return [str(day) for day in DayRange(dt.date.fromisoformat(first), dt.date.fromisoformat(last))]


def publish(path: Path, day: str, **changes: Any) -> None:
    """Let the state area say that a day was published."""
    state = ObjectPrefix(s3_client(os.environ["AWS_ENDPOINT_URL"]), load(path).output.state, "output.state")
    summary = {
        "run_id": "scheduled__1",
        "listed": 2,
        "kept": 0,
        "statuses": {"completed": 2},
        "failures": {},
        "unfinished": 0,
        "audio_s": 20.0,
        "speech_usd": 0.1,
        "llm_usd": 0.1,
    }
    now = dt.datetime.now(dt.UTC)
    record(state, [DaySummary(day=dt.date.fromisoformat(day), published_at=now, **{**summary, **changes})])


@pytest.mark.parametrize(
    ("zone", "first", "last"),
    [
        ("UTC", "2026-08-01", "2026-08-03"),
        ("Europe/Berlin", "2026-03-28", "2026-03-30"),
        ("Europe/Berlin", "2026-10-24", "2026-11-02"),
        ("America/New_York", "2026-03-07", "2026-03-09"),
        ("America/New_York", "2026-10-31", "2026-11-02"),
        ("America/Havana", "2026-10-31", "2026-11-01"),
        # The clocks skip midnight of April 24: in between, on the first day, on the last, alone, and the day before.
        ("Africa/Cairo", "2026-04-22", "2026-04-26"),
        ("Africa/Cairo", "2026-04-24", "2026-04-25"),
        ("Africa/Cairo", "2026-04-23", "2026-04-24"),
        ("Africa/Cairo", "2026-04-24", "2026-04-24"),
        ("Africa/Cairo", "2026-04-23", "2026-04-23"),
        ("Africa/Cairo", "2026-10-29", "2026-10-31"),
    ],
)
def test_runs_are_over_exactly_the_local_days_asked_for(
    folder: Path, backfill: Run, zone: str, first: str, last: str
) -> None:
    path = live(folder, zone)
    expected = range_of(first, last)
    for by in ("day", "week", "month"):
        remove_runs()
        printed = backfill(path, first, last, "--by", by, "--yes")
        assert f"{dag_id(path)}: {first} to {last} in {zone} (days: {len(expected)}, of which 0 are done)." in printed
        assert days(path) == expected
        assert f"Runs: {len(steps())}, each over a {by} at most, 3 at a time:" in printed
        assert f"Created: {min(len(steps()), 3)}." in printed


@pytest.mark.parametrize(
    ("by", "options", "expected"),
    [
        ("week", [], [("2026-08-01", "2026-08-02"), ("2026-08-03", "2026-08-09"), ("2026-08-10", "2026-08-12")]),
        ("month", [], [("2026-08-01", "2026-08-12")]),
        (
            "week",
            ["--run-backwards"],
            [("2026-08-10", "2026-08-12"), ("2026-08-03", "2026-08-09"), ("2026-08-01", "2026-08-02")],
        ),
    ],
)
def test_by_says_how_many_days_a_run_is_over(
    folder: Path, backfill: Run, by: str, options: list[str], expected: list[tuple[str, str]]
) -> None:
    path = live(folder, "Europe/Berlin")
    backfill(path, "2026-08-01", "2026-08-12", "--by", by, "--yes", "--max-active-runs", "1", *options)
    assert len(runs()) == 1
    assert steps() == expected


@pytest.mark.parametrize("by", ["day", "month"])
def test_day_that_a_zone_does_not_have_is_in_no_run(folder: Path, backfill: Run, by: str) -> None:
    path = live(folder, "Pacific/Apia")
    printed = backfill(path, "2011-12-29", "2011-12-31", "--yes", "--by", by)
    assert "(days: 2, of which 0 are done)" in printed
    assert "2011-12-30 to 2011-12-30" not in printed
    assert days(path) == ["2011-12-29", "2011-12-31"]
    assert "Pacific/Apia has no 2011-12-30" in backfill(path, "2011-12-30", "2011-12-30", "--yes", code=1)


def test_pipeline_without_a_schedule_is_backfilled_too(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin", "null")
    backfill(path, "2026-08-01", "2026-08-03", "--yes", "--by", "day")
    assert days(path) == ["2026-08-01", "2026-08-02", "2026-08-03"]


def test_dry_run_shows_the_runs_and_creates_nothing(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin", is_paused=True)
    printed = backfill(path, "2026-08-01", "2026-09-03", "--dry-run", "--max-active-runs", "2")
    lines = printed.splitlines()
    assert lines[0] == f"{dag_id(path)}: 2026-08-01 to 2026-09-03 in Europe/Berlin (days: 34, of which 0 are done)."
    assert lines[-3:] == [
        "Runs: 2, each over a month at most, 2 at a time:",
        "  2026-08-01 to 2026-08-31",
        "  2026-09-01 to 2026-09-03",
    ]
    assert runs() == []


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        ("none", ["2026-08-03", "2026-08-04"]),
        ("failed", ["2026-08-02", "2026-08-03", "2026-08-04"]),
        ("completed", ["2026-08-01", "2026-08-02", "2026-08-03", "2026-08-04"]),
    ],
)
def test_reprocess_behavior_decides_on_days_that_are_done(
    folder: Path, backfill: Run, behavior: str, expected: list[str]
) -> None:
    path = live(folder, "Europe/Berlin")
    publish(path, "2026-08-01")
    publish(path, "2026-08-02", statuses={"completed": 1, "failed": 1}, failures={"bad_audio": 1})
    publish(path, "2026-08-03", unfinished=1)
    options = ["--reprocess-behavior", behavior, "--by", "day", "--max-active-runs", "12"]
    printed = backfill(path, "2026-08-01", "2026-08-04", "--yes", *options)
    assert f"(days: 4, of which {4 - len(expected)} are done)" in printed
    assert days(path) == expected
    assert {one.again for one in range_runs()} == {behavior}


def test_range_whose_days_are_all_done_has_no_run(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin")
    publish(path, "2026-08-01")
    printed = backfill(path, "2026-08-01", "2026-08-01", "--yes")
    assert "Nothing to do. To run days that are done again: --reprocess-behavior completed." in printed
    assert runs() == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_created_without_a_yes(folder: Path, backfill: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = live(folder, "Europe/Berlin")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "give --yes" in backfill(path, "2026-08-01", "2026-08-03", code=1)
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert "Create them? [y/N]" in backfill(path, "2026-08-01", "2026-08-03", code=1)
    assert runs() == []
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert "Created: 1." in backfill(path, "2026-08-01", "2026-08-03")
    assert days(path) == ["2026-08-01", "2026-08-02", "2026-08-03"]


def test_backfill_of_a_paused_dag_is_refused(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin", is_paused=True)
    told = backfill(path, "2026-08-01", "2026-08-03", "--yes", code=1)
    assert f"is paused, and Airflow would not start its runs: airflow dags unpause {dag_id(path)}" in told
    assert runs() == []


def test_dag_that_airflow_does_not_know_is_named(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin")
    path.write_text(path.read_text().replace("archive_", "elsewhere_"))
    told = backfill(path, "2026-08-01", "2026-08-03", "--yes", code=1)
    assert f"Airflow has no Dag {dag_id(path).replace('archive_', 'elsewhere_')}" in told


@pytest.mark.parametrize(
    ("first", "last", "error"),
    [
        ("2026-08-03", "2026-08-01", "--from 2026-08-03 is after --to 2026-08-01."),
        ("2026-08-03", "2999-01-01", "2999-01-01 is not over in Europe/Berlin"),
    ],
)
def test_impossible_range_is_refused(folder: Path, backfill: Run, first: str, last: str, error: str) -> None:
    path = live(folder, "Europe/Berlin")
    assert error in backfill(path, first, last, "--yes", code=1)
    assert runs() == []


def test_database_that_is_not_airflows_is_named(folder: Path, backfill: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow import settings
    from sqlalchemy import create_engine
    from sqlalchemy.orm import sessionmaker

    path = live(folder, "Europe/Berlin")
    with monkeypatch.context() as patched:
        patched.setattr(settings, "Session", sessionmaker(create_engine("sqlite://")))
        told = backfill(path, "2026-08-01", "2026-08-03", code=1)
    assert "Airflow's database can't be used (OperationalError): run this where airflow db check succeeds" in told


def test_run_that_airflow_has_is_not_created_again(folder: Path) -> None:
    from callphases.airflow.api import LocalAirflow

    path = live(folder, "Europe/Berlin")
    run = {"from": "2026-08-01", "to": "2026-08-02"}
    airflow = LocalAirflow()
    assert airflow.trigger(dag_id(path), "archive__1", run)
    assert not airflow.trigger(dag_id(path), "archive__1", run)
    assert len(runs()) == 1


def test_run_that_airflow_refuses_is_named(folder: Path) -> None:
    from callphases.airflow.api import LocalAirflow
    from callphases.errors import ConfigurationError

    path = live(folder, "Europe/Berlin")
    with pytest.raises(ConfigurationError, match=r"Airflow did not create the run archive__1: .*again"):
        LocalAirflow().trigger(dag_id(path), "archive__1", {"again": "perhaps"})
    assert runs() == []


def create(path: Path, first: str, last: str, *options: str) -> None:
    """Airflow's own backfill."""
    from airflow.cli.cli_parser import get_parser

    bounds = ["--from-date", first, "--to-date", last, "--max-active-runs", "1"]
    arguments = get_parser().parse_args(["backfill", "create", "--dag-id", dag_id(path), *bounds, *options])
    arguments.func(arguments)


def test_backfill_of_airflow_has_a_run_for_each_day(folder: Path) -> None:
    from callphases.airflow.schedule import span_of_dag_run

    path = live(folder, "Europe/Berlin")
    create(path, "2026-08-01T00:00:00+02:00", "2026-08-03T00:00:00+02:00")
    assert {one.run_type for one in runs()} == {"backfill"}
    spans = [str(span_of_dag_run(one, ZoneInfo("Europe/Berlin"))) for one in runs()]
    assert spans == ["2026-08-01", "2026-08-02", "2026-08-03"]


def test_backfill_with_the_param_date_processes_nothing(folder: Path, capfd: Any) -> None:
    from airflow.cli.cli_parser import get_parser
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    path = live(folder, "Europe/Berlin")
    create(path, "2026-08-01T00:00:00+02:00", "2026-08-02T00:00:00+02:00", "--dag-run-conf", '{"date": "2026-07-01"}')
    with create_session() as session:  # `tasks test` of 3.1 needs a run that has started
        session.execute(update(DagRun).where(DagRun.dag_id == dag_id(path)).values(start_date=dt.datetime.now(dt.UTC)))
    task = get_parser().parse_args(["tasks", "test", dag_id(path), "list", "backfill__2026-08-01T22:00:00+00:00"])
    task.func(task)
    captured = capfd.readouterr()
    assert "create it again without date, for example with callphases backfill" in captured.out + captured.err
