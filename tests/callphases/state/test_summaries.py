"""Summaries of days: written a month at a time, over what is there, and read in order."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pytest

from callphases.state.summaries import DaySummary, read_summaries, record
from doubles import Store

DAY = dt.date(2026, 10, 31)
SUMMARY = DaySummary(
    day=DAY,
    published_at=dt.datetime(2026, 11, 1, 2, tzinfo=dt.UTC),
    run_id="run/1",
    listed=7,
    kept=1,
    statuses={"completed": 6, "failed": 2},
    failures={"bad_audio": 2},
    unfinished=0,
    audio_s=1234.5,
    speech_usd=0.5,
    llm_usd=0.25,
)


def of(day: str, **changes: object) -> DaySummary:
    return replace(SUMMARY, day=dt.date.fromisoformat(day), **changes)  # type: ignore[arg-type]


def test_summaries_of_several_months_are_read_in_order_and_only_those_asked_for(s3: Store) -> None:
    figures = {"phase_s": {"Complaint": 60.5}, "lineage": {"prompt_version": {"1-abc": 6}}}
    days = [of("2027-02-01", began_at=SUMMARY.published_at, **figures), SUMMARY, of("2026-12-31"), of("2026-10-01")]
    record(s3.state, days)
    found = read_summaries(s3.state, dt.date(2026, 10, 2), dt.date(2027, 2, 1))
    assert list(found.values()) == [SUMMARY, of("2026-12-31"), days[0]]
    assert sorted(s3.state.names("summaries/")) == [
        f"summaries/{month}.json" for month in ("2026-10", "2026-12", "2027-02")
    ]


def test_a_day_that_is_published_again_is_replaced_and_its_neighbours_stay(s3: Store) -> None:
    record(s3.state, [SUMMARY, of("2026-10-30")])
    record(s3.state, [of("2026-10-31", unfinished=3)])
    found = read_summaries(s3.state, dt.date(2026, 10, 1), dt.date(2026, 10, 31))
    assert [(one.day.day, one.unfinished) for one in found.values()] == [(30, 0), (31, 3)]


@pytest.mark.parametrize(
    ("changes", "is_done"), [({}, True), ({"unfinished": 1}, False), ({"stopped": "balance"}, False)]
)
def test_a_day_is_done_if_nothing_is_left_of_it(changes: dict[str, object], is_done: bool) -> None:
    assert of("2026-10-31", **changes).is_done is is_done


def test_a_summary_of_an_earlier_version_is_read_without_what_that_did_not_count(s3: Store) -> None:
    record(s3.state, [of("2026-10-31", phase_s={"Complaint": 60.5}, lineage={"llm_model": {"m": 6}})])
    document = json.loads(s3.state.get("summaries/2026-10.json") or b"")
    for name in ("began_at", "phase_s", "lineage"):
        del document["days"]["2026-10-31"][name]
    s3.state.put("summaries/2026-10.json", json.dumps(document).encode())
    assert read_summaries(s3.state, DAY, DAY) == {DAY: SUMMARY}


def test_fields_of_a_newer_version_are_left_out(s3: Store) -> None:
    record(s3.state, [SUMMARY])
    body = s3.state.get("summaries/2026-10.json")
    assert body is not None
    s3.state.put(
        "summaries/2026-10.json",
        body.replace(b'"kept": 1', b'"kept": 1, "mood": "good"').replace(b'"kept":1', b'"kept":1,"mood":"good"'),
    )
    assert read_summaries(s3.state, DAY, DAY) == {DAY: SUMMARY}
