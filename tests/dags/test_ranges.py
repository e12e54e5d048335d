"""Runs over several days, by ``dag.test()``: what they publish, what they say, and the run that they create."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from callphases.airflow import listener
from callphases.airflow.listener import stored_xcoms
from callphases.airflow.report import NOTE, PROBLEM
from callphases.errors import ServiceUnavailable
from callphases.transcription.transcriber import Transcriber
from night import Night

pytestmark = pytest.mark.integration

DAYS = [f"2026-10-{day}" for day in (29, 30, 31)] + ["2026-11-01", "2026-11-02"]


@pytest.fixture
def archive(night: Night) -> Night:
    """Two calls a day, none on October 31; one of the first day is no audio."""
    night.pipeline(timezone="Europe/Berlin")
    for day in DAYS:
        for name in ("a", "b"):
            if day != "2026-10-31":
                night.put(f"calls/{day}/{name}.wav", b"" if (day, name) == (DAYS[0], "b") else b"RIFF")
    return night


def run(night: Night, **conf: Any) -> str:
    return night.run(None, **conf)


def xcom(night: Night, task: str, key: str) -> str:
    from airflow.utils.session import create_session

    with create_session() as session:
        found = stored_xcoms(session, "call_phases_night", night.last.run_id)
    return str(found[task, key])


def note(night: Night) -> str:
    return xcom(night, "verify", NOTE)


def statuses(night: Night, day: str) -> list[str]:
    return sorted(row["failure_class"] or row["status"] for row in night.table("calls", day))


def created(night: Night) -> list[tuple[str, dict[str, Any]]]:
    """The id and the Params of the runs that wait for a scheduler."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        runs = session.scalars(
            select(DagRun).where(DagRun.dag_id == "call_phases_night", DagRun.run_id.startswith("archive__"))
        ).all()
        return sorted((one.run_id, dict(one.conf or {})) for one in runs if str(one.state) == "queued")


def test_range_is_listed_once_and_each_day_published(archive: Night) -> None:
    assert run(archive, **{"from": DAYS[0], "to": DAYS[-1]}) == "success"
    assert [len(archive.table("calls", day)) for day in DAYS] == [2, 2, 0, 2, 2]
    assert archive.submitted() == 7
    states = archive.states()
    assert [name for name in states if name.startswith("calls.")] == ["calls.segment[0]", "calls.transcribe[0]"]
    said = note(archive)
    assert said.startswith("2026-10-29 to 2026-11-02: 8 listed = 7 completed + 1 failed (1 empty_file).")
    # Every day is done, so nothing is listed again.
    assert run(archive, **{"from": DAYS[0], "to": DAYS[-1]}) == "success"
    assert note(archive) == "2026-10-29 to 2026-11-02: nothing to do, as every day of it is done."
    assert archive.submitted() == 7


def test_next_run_of_a_backfill_is_created_when_one_is_over(archive: Night) -> None:
    then = {"from": DAYS[2], "to": DAYS[-1], "by": "month", "backwards": False}
    assert run(archive, **{"from": DAYS[0], "to": DAYS[1], "then": then}) == "success"
    ((run_id, conf),) = created(archive)
    assert run_id.startswith("archive__2026-10-31_2026-10-31__")
    rest = {"from": "2026-11-01", "to": DAYS[-1], "by": "month", "backwards": False}
    assert conf == {"from": "2026-10-31", "to": "2026-10-31", "then": rest}


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"from": DAYS[0]}, "belong together"),
        ({"from": DAYS[1], "to": DAYS[0]}, "is after"),
        ({"from": DAYS[0], "to": DAYS[1], "date": DAYS[0]}, "one or the other"),
        ({"from": DAYS[0], "to": str(dt.date.today() + dt.timedelta(days=3))}, "has not begun"),
    ],
)
def test_contradicting_params_are_refused(archive: Night, conf: dict[str, Any], message: str) -> None:
    day = conf.pop("date", None)
    assert archive.run(day, **conf) == "failed"
    assert message in xcom(archive, "list", PROBLEM)
    assert archive.submitted() == 0


class Interrupted(Transcriber):
    """Whose task fails once the first chunk's recordings are paid for."""

    def run(self, patience_s: float) -> Any:
        waiting = super().run(patience_s)
        if self._recordings and min(self._numbers.values()) == 0:
            raise ServiceUnavailable("The service is gone.")
        return waiting


def test_next_run_finishes_what_a_failed_task_has_left_and_pays_once(
    archive: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callphases.listing.listing.LEAST_CALLS_OF_ARCHIVE", 3)
    with monkeypatch.context() as patched:
        patched.setattr("callphases.day_run.Transcriber", Interrupted)
        assert run(archive, **{"from": DAYS[0], "to": DAYS[-1]}) == "failed"
    states = archive.states()
    assert (states["calls.transcribe[0]"], states["calls.transcribe[1]"]) == ("failed", "success")
    assert (states["publish[-1]"], states["verify[-1]"]) == ("success", "failed")
    assert "not finished" in note(archive)
    whole = [day for day in DAYS if statuses(archive, day) == ["completed"] * 2]
    assert DAYS[-1] in whole
    assert DAYS[0] not in whole
    assert run(archive, **{"from": DAYS[0], "to": DAYS[-1]}) == "success"
    assert [statuses(archive, day) for day in DAYS] == [
        ["completed", "empty_file"],
        ["completed"] * 2,
        [],
        *[["completed"] * 2] * 2,
    ]
    assert archive.submitted() == 7
    assert "8 listed" not in note(archive), "days that were whole are not listed again"


def test_replay_over_a_range_tries_only_failed_calls_of_these_days(archive: Night) -> None:
    for day in (DAYS[1], DAYS[3], DAYS[4]):
        archive.put(f"calls/{day}/broken.wav")
    assert run(archive, **{"from": DAYS[0], "to": DAYS[-1]}) == "success"
    assert archive.submitted() == 10
    assert run(archive, **{"from": DAYS[1], "to": DAYS[3], "replay": ["bad_audio"]}) == "success"
    assert archive.submitted() == 12
    assert [statuses(archive, day).count("bad_audio") for day in DAYS] == [0, 1, 0, 1, 1]
    assert note(archive).startswith("2026-10-30 to 2026-11-01: 6 listed = 4 completed + 2 failed (2 bad_audio).")
    of_last = {"calls": f"{DAYS[4]}/broken.wav"}
    assert run(archive, **{"from": DAYS[1], "to": DAYS[4], **of_last}) == "success"
    assert archive.submitted() == 13
    assert run(archive, **{"from": DAYS[1], "to": DAYS[3], **of_last}) == "failed"
    assert f"calls: {DAYS[1]} to {DAYS[3]} has no recording {DAYS[4]}/broken.wav." in xcom(archive, "list", PROBLEM)


def test_asset_event_has_each_day_that_was_published(archive: Night) -> None:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    assert run(archive, **{"from": DAYS[0], "to": DAYS[-1]}) == "success"
    with create_session() as session:
        events = session.execute(
            select(AssetModel.name, AssetEvent.extra)
            .join(AssetEvent, AssetEvent.asset_id == AssetModel.id)
            .where(AssetEvent.source_run_id == archive.last.run_id)
        ).all()
    extras = dict(tuple(event) for event in events)
    for table, rows in (("calls", 8), ("phases", 28)):
        extra = extras[f"call_phases_night.{table}"]
        assert (extra["dt"], extra["rows"]) == (f"{DAYS[0]} to {DAYS[-1]}", rows)
        assert (extra["statuses"], extra["failures"]) == ({"completed": 7, "failed": 1}, {"empty_file": 1})
        assert [day["dt"] for day in extra["late"]] == DAYS
        assert [sum(day["statuses"].values()) for day in extra["late"]] == [2, 2, 0, 2, 2]


def test_note_of_a_run_is_its_days_while_it_runs_and_what_they_came_to_after(archive: Night) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    assert run(archive, **{"from": DAYS[0], "to": DAYS[-1]}) == "success"
    with create_session() as session:
        dag_run = session.scalars(select(DagRun).where(DagRun.run_id == archive.last.run_id)).one()
        dag_run.dag = archive.last.dag
        dag_run.note = None
        listener.on_dag_run_running(dag_run, "")
        assert dag_run.note == f"{DAYS[0]} to {DAYS[-1]}"
        listener.on_dag_run_success(dag_run, "")
        assert str(dag_run.note).startswith(f"{DAYS[0]} to {DAYS[-1]}: 8 listed = 7 completed + 1 failed")
        session.rollback()


def test_calls_of_a_flat_prefix_are_on_their_local_day_where_the_clocks_skip_midnight(night: Night) -> None:
    when = {"key_pattern": r"(?P<time>\d{8}T\d{6})", "format": "%Y%m%dT%H%M%S"}
    night.pipeline(recordings={"prefix": "flat/", "call_time": when}, timezone="Africa/Cairo")
    for moment in ("20260422T235959", "20260423T000000", "20260423T235959", "20260424T010000", "20260425T000000"):
        night.put(f"flat/{moment}.wav")
    assert run(night, **{"from": "2026-04-23", "to": "2026-04-24"}) == "success"
    keys = {day: [row["recording_uri"].rsplit("/", 1)[-1] for row in night.table("calls", day)] for day in CAIRO}
    assert list(keys.values()) == [[], ["20260423T000000.wav", "20260423T235959.wav"], ["20260424T010000.wav"], []]


CAIRO = [f"2026-04-{day}" for day in (22, 23, 24, 25)]
