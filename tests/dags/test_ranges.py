"""Runs over several days, by ``dag.test()``: what they publish, what they say, and the run that they create."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from callphases.airflow.listener import stored_xcoms
from callphases.airflow.report import NOTE
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


def note(night: Night) -> str:
    from airflow.utils.session import create_session

    with create_session() as session:
        found = stored_xcoms(session, "call_phases_night", night.last.run_id)
    return str(found["verify", NOTE])


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
    assert archive.submitted() == 0
