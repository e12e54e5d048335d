"""``callphases backfill`` with Airflow's database: whole days of the pipeline's zone, or a message."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import delete, select, update

from callphases.cli import main
from callphases.local_days import last_complete_day
from versions import parsed, store

DAG_FILE = Path(__file__).parents[2] / "dags" / "call_phases.py"
PIPELINE = """\
pipeline: {name}
timezone: {zone}
schedule: {schedule}
recordings: {{bucket: b, prefix: p/}}
output: {{tables: s3://w/{name}/t/, state: s3://w/{name}/s/}}
"""
NUMBERS = itertools.count(1)
Run = Callable[..., str]


@pytest.fixture
def folder(airflow_database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The pipelines' folder; runs are removed before and after the test."""
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path))
    remove_runs()
    yield tmp_path
    remove_runs()


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
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        found = list(session.scalars(select(DagRun).order_by(DagRun.logical_date)))
        session.expunge_all()
    return found


def days(zone: str) -> list[str]:
    """The days that the runs in the database process."""
    assert {one.run_type for one in runs()} <= {"backfill"}
    return [str(last_complete_day(one.data_interval_end, ZoneInfo(zone))) for one in runs()]


def range_of(first: str, last: str) -> list[str]:
    begin, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    return [str(begin + dt.timedelta(days=number)) for number in range((end - begin).days + 1)]


@pytest.mark.parametrize(
    ("zone", "first", "last", "schedule"),
    [
        ("UTC", "2026-08-01", "2026-08-03", "0 0 * * *"),
        ("Europe/Berlin", "2026-08-01", "2026-08-03", "0 0 * * *"),
        ("Europe/Berlin", "2026-08-01", "2026-08-03", "0 2 * * *"),
        ("America/New_York", "2026-08-01", "2026-08-03", "0 0 * * *"),
        ("America/New_York", "2026-08-01", "2026-08-03", "30 23 * * *"),
        ("Europe/Berlin", "2026-03-28", "2026-03-30", "0 0 * * *"),
        ("Europe/Berlin", "2026-10-24", "2026-10-26", "0 0 * * *"),
        ("America/New_York", "2026-11-01", "2026-11-02", "0 0 * * *"),
        ("America/Havana", "2026-10-31", "2026-11-01", "0 0 * * *"),
        ("Africa/Cairo", "2026-10-29", "2026-10-31", "0 0 * * *"),
        ("Africa/Cairo", "2026-10-29", "2026-10-31", "30 23 * * *"),
        # The clocks skip the time of a run: in between, on the first day, on the last, alone, and the day before.
        ("Africa/Cairo", "2026-04-22", "2026-04-26", "0 0 * * *"),
        ("Africa/Cairo", "2026-04-24", "2026-04-25", "0 0 * * *"),
        ("Africa/Cairo", "2026-04-23", "2026-04-24", "0 0 * * *"),
        ("Africa/Cairo", "2026-04-24", "2026-04-24", "0 0 * * *"),
        ("Africa/Cairo", "2026-04-23", "2026-04-23", "0 0 * * *"),
        ("Europe/Berlin", "2026-03-28", "2026-03-30", "30 2 * * *"),
        ("Europe/Berlin", "2026-03-29", "2026-03-29", "30 2 * * *"),
        ("Europe/Berlin", "2026-03-28", "2026-03-28", "0 2 * * *"),
    ],
)
def test_backfill_runs_whole_days_of_the_zone(
    folder: Path, backfill: Run, zone: str, first: str, last: str, schedule: str
) -> None:
    path = live(folder, zone, schedule)
    expected = range_of(first, last)
    printed = backfill(path, first, last, "--yes")
    assert f"{dag_id(path)}: {first} to {last} in {zone} (days: {len(expected)}), 4 at a time." in printed
    assert f"Runs to do: {len(expected)}." in printed
    assert days(zone) == expected


def test_day_that_a_zone_does_not_have_is_no_run(folder: Path, backfill: Run) -> None:
    path = live(folder, "Pacific/Apia")
    assert "(days: 2)" in backfill(path, "2011-12-29", "2011-12-31", "--yes")
    assert days("Pacific/Apia") == ["2011-12-29", "2011-12-31"]
    assert "Pacific/Apia has no 2011-12-30" in backfill(path, "2011-12-30", "2011-12-30", "--yes", code=1)


def test_dry_run_shows_days_and_command_and_creates_nothing(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin", is_paused=True)
    printed = backfill(path, "2026-08-01", "2026-08-03", "--dry-run", "--run-backwards", "--max-active-runs", "2")
    assert printed.splitlines() == [
        f"{dag_id(path)}: 2026-08-01 to 2026-08-03 in Europe/Berlin (days: 3), 2 at a time.",
        f"airflow backfill create --dag-id {dag_id(path)} --from-date 2026-08-01T00:00:00+02:00 --to-date "
        "2026-08-03T00:00:00+02:00 --max-active-runs 2 --reprocess-behavior none --run-backwards",
    ]
    assert runs() == []


def test_schedule_with_several_runs_a_day_runs_all_of_them(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin", "0 */6 * * *")
    assert "(days: 2, 8 runs)" in backfill(path, "2026-08-01", "2026-08-02", "--yes")
    assert days("Europe/Berlin") == ["2026-08-01"] * 4 + ["2026-08-02"] * 4


def finish(*states: str) -> None:
    """End the backfill and its runs."""
    from airflow.models.backfill import Backfill
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        session.execute(update(Backfill).values(completed_at=dt.datetime.now(dt.UTC)))
        for run, state in zip(session.scalars(select(DagRun).order_by(DagRun.logical_date)), states, strict=True):
            run._state = state


@pytest.mark.parametrize(
    ("behavior", "outcome"),
    [
        ("none", "Runs to do: 1, 2 left as they are (already exists)."),
        ("failed", "Runs to do: 2, 1 left as they are (already exists)."),
        ("completed", "Runs to do: 3."),
    ],
)
def test_reprocess_behavior_decides_on_days_that_have_a_run(
    folder: Path, backfill: Run, behavior: str, outcome: str
) -> None:
    path = live(folder, "Europe/Berlin")
    backfill(path, "2026-08-01", "2026-08-02", "--yes")
    finish("success", "failed")
    printed = backfill(path, "2026-08-01", "2026-08-03", "--yes", "--reprocess-behavior", behavior)
    assert f"Runs of these days: 1 failed, 1 success. --reprocess-behavior is {behavior}." in printed
    assert outcome in printed
    assert days("Europe/Berlin") == ["2026-08-01", "2026-08-02", "2026-08-03"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_created_without_a_yes(folder: Path, backfill: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = live(folder, "Europe/Berlin")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "give --yes" in backfill(path, "2026-08-01", "2026-08-03", code=1)
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert "Create it? [y/N]" in backfill(path, "2026-08-01", "2026-08-03", code=1)
    assert runs() == []
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert "Runs to do: 3." in backfill(path, "2026-08-01", "2026-08-03")


def test_backfill_of_a_paused_dag_is_refused(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin", is_paused=True)
    told = backfill(path, "2026-08-01", "2026-08-03", "--yes", code=1)
    assert f"is paused, and Airflow would not start its runs: airflow dags unpause {dag_id(path)}" in told
    assert runs() == []


def test_second_backfill_is_refused_while_one_is_running(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin")
    backfill(path, "2026-08-01", "2026-08-03", "--yes")
    told = backfill(path, "2026-08-04", "2026-08-04", "--yes", code=1)
    assert f"Another backfill of {dag_id(path)} is running" in told
    assert len(runs()) == 3


@pytest.mark.parametrize(
    ("schedule", "first", "last", "error"),
    [
        ("0 0 * * *", "2026-08-03", "2026-08-01", "--from 2026-08-03 is after --to 2026-08-01."),
        ("0 0 * * *", "2026-08-03", "2999-01-01", "2999-01-01 is not over in Europe/Berlin"),
        (
            "0 0 * * MON",
            *("2026-08-01", "2026-08-04"),
            "'0 0 * * MON' has none, or not yet, for 3 of 4 days, such as 2026-08-01. To run that day: airflow dags "
            'trigger {dag_id} --conf \'{{"date": "2026-08-01"}}\'',
        ),
        ("null", "2026-08-01", "2026-08-03", "has no schedule, and a backfill makes only runs of a schedule"),
    ],
)
def test_range_without_a_run_for_each_day_is_refused(
    folder: Path, backfill: Run, schedule: str, first: str, last: str, error: str
) -> None:
    path = live(folder, "Europe/Berlin", schedule)
    assert error.format(dag_id=dag_id(path)) in backfill(path, first, last, "--yes", code=1)
    assert runs() == []


def test_dag_that_airflow_does_not_know_as_it_is_in_the_file_is_refused(folder: Path, backfill: Run) -> None:
    path = live(folder, "Europe/Berlin")
    path.write_text(path.read_text().replace("Europe/Berlin", "Europe/London"))
    assert "has another schedule or time zone than the file" in backfill(path, "2026-08-01", "2026-08-03", code=1)
    path.write_text(path.read_text().replace("archive", "elsewhere"))
    assert "Airflow has no Dag call_phases_elsewhere" in backfill(path, "2026-08-01", "2026-08-03", code=1)


def test_database_that_is_not_airflows_is_named(folder: Path, backfill: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow import settings
    from sqlalchemy import create_engine
    from sqlalchemy.orm import sessionmaker

    path = live(folder, "Europe/Berlin")
    with monkeypatch.context() as patched:
        patched.setattr(settings, "Session", sessionmaker(create_engine("sqlite://")))
        told = backfill(path, "2026-08-01", "2026-08-03", code=1)
    assert "Airflow's database can't be used (OperationalError): run this where airflow db check succeeds" in told


def test_missing_airflow_is_named(folder: Path, backfill: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import callphases.airflow.backfill

    path = live(folder, "Europe/Berlin")
    monkeypatch.delattr(callphases.airflow, "backfill")
    monkeypatch.delitem(sys.modules, "callphases.airflow.backfill")
    monkeypatch.setitem(sys.modules, "airflow.models.backfill", None)
    assert "Airflow is not installed here" in backfill(path, "2026-08-01", "2026-08-03", code=1)
    monkeypatch.undo()


def test_backfill_with_the_param_date_processes_nothing(folder: Path, capfd: Any) -> None:
    from airflow.cli.cli_parser import get_parser
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    path = live(folder, "Europe/Berlin")
    bounds = ["--from-date", "2026-08-01T00:00:00+02:00", "--to-date", "2026-08-02T00:00:00+02:00"]
    command = ["backfill", "create", "--dag-id", dag_id(path), *bounds, "--max-active-runs", "1"]
    create = get_parser().parse_args([*command, "--dag-run-conf", '{"date": "2026-07-01"}'])
    create.func(create)
    with create_session() as session:  # `tasks test` of 3.1 needs a run that has started
        session.execute(update(DagRun).where(DagRun.dag_id == dag_id(path)).values(start_date=dt.datetime.now(dt.UTC)))
    task = get_parser().parse_args(["tasks", "test", dag_id(path), "list", "backfill__2026-08-01T22:00:00+00:00"])
    task.func(task)
    captured = capfd.readouterr()
    assert "create it again without date, for example with callphases backfill" in captured.out + captured.err
