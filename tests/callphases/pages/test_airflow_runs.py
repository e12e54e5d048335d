"""What a run's page knows of the run, from Airflow's database."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from callphases.airflow import listener
from callphases.airflow.report import DAY as DAY_KEY
from callphases.pages.airflow_runs import MOST_DAYS, Run, run_of, unfinished
from doubles import DAY
from pages_app import Site

pytestmark = pytest.mark.integration

XComs = dict[tuple[str, str], Any]

PUBLISHED = {
    "dt": str(DAY),
    "statuses": {"completed": 3},
    "failures": {},
    "listed": 3,
    "kept": 0,
    "run_speech_usd": 0.5,
    "run_llm_usd": 0.25,
    "speech_usd": 0.5,
    "llm_usd": 0.25,
    "stopped": None,
    "late": [{"dt": "2026-11-18", "statuses": {"completed": 1}, "failures": {}, "listed": 1}],
}


def seen(site: Site, monkeypatch: pytest.MonkeyPatch, xcoms: XComs, state: str, **conf: Any) -> Run:
    """What is known of a run with these XComs and Params."""
    monkeypatch.setattr(listener, "stored_xcoms", lambda *_: xcoms)
    site.create_run("seen", state, **conf)
    found = run_of(site.pipeline, "seen")
    assert found is not None
    return found


def test_run_that_has_published(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = seen(site, monkeypatch, {("publish", "return_value"): PUBLISHED}, "success")
    assert (run.days, run.usd, run.is_listed, run.is_over) == ([DAY], 0.75, True, True)
    assert [(one.day, one.counts) for one in run.late] == [
        (dt.date(2026, 11, 18), "2026-11-18: 1 listed = 1 completed")
    ]


@pytest.mark.parametrize(
    ("conf", "days"),
    [
        ({"date": "2026-11-03"}, [dt.date(2026, 11, 3)]),
        ({"from": "2026-11-03", "to": "2026-11-05"}, [dt.date(2026, 11, number) for number in (3, 4, 5)]),
        ({}, [DAY - dt.timedelta(days=1)]),
        ({"date": "soon"}, []),
        ({"from": "2026-11-05", "to": "2026-11-03"}, []),
    ],
)
@pytest.mark.parametrize("state", ["queued", "success"])
def test_day_of_a_run_without_xcoms_is_that_of_its_params(
    site: Site, monkeypatch: pytest.MonkeyPatch, state: str, conf: dict[str, Any], days: list[dt.date]
) -> None:
    run = seen(site, monkeypatch, {}, state, **conf)
    assert (run.days, run.is_listed) == (days, False)
    assert ("XComs were deleted" in run.report) == (state == "success")
    assert "failed" not in run.report


def test_longest_range_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = seen(site, monkeypatch, {("list", DAY_KEY): "0001-01-01 to 9999-12-31"}, "running")
    assert len(run.days) == MOST_DAYS


@pytest.mark.parametrize(
    "xcoms",
    [
        {("list", DAY_KEY): "yesterday"},
        {("list", DAY_KEY): 5},
        {("publish", "return_value"): "published"},
        {("publish", "return_value"): {"dt": str(DAY)}},
        {("publish", "return_value"): PUBLISHED | {"run_speech_usd": None}},
        {("publish", "return_value"): PUBLISHED | {"late": [{"dt": "2026-11-18"}]}},
        {("publish", "return_value"): PUBLISHED | {"late": 5}},
        {("publish", "return_value"): PUBLISHED | {"dt": "never"}},
        {("publish", "return_value"): PUBLISHED | {"days": ["never"]}},
    ],
)
@pytest.mark.parametrize("state", ["running", "success", "failed"])
def test_xcoms_of_somebody_else_hide_no_run(
    site: Site, monkeypatch: pytest.MonkeyPatch, state: str, xcoms: XComs
) -> None:
    run = seen(site, monkeypatch, xcoms, state, date=str(DAY))
    assert run.days == [DAY]
    assert (run.usd, run.late) == (None, [])


def test_params_are_shown_as_text_and_only_ours(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = {"date": str(DAY), "replay": ["bad_audio", "timeout"], "calls": ["a", 5], "secret": "x"}
    run = seen(site, monkeypatch, {}, "queued", **conf)
    assert run.params == {"date": str(DAY), "replay": "bad_audio, timeout"}
    assert run.calls == ["a"]
    assert seen(site, monkeypatch, {}, "queued", calls=["a"]).calls == []


def test_unfinished_run_is_found_by_how_its_id_begins(site: Site) -> None:
    site.create_run("replay__1__a_b__x", "success")
    assert unfinished(site.dag_id, "replay__1__a_b__") is None
    site.create_run("replay__1__aXb__y", "queued")
    assert unfinished(site.dag_id, "replay__1__a_b__") is None
    site.create_run("replay__1__a_b__z", "running")
    assert unfinished(site.dag_id, "replay__1__a_b__") == "replay__1__a_b__z"
