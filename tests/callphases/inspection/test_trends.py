"""Trends over days, from their summaries alone."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archives import summary
from callphases.inspection.trends import Change, DayFigures, Trends, _changes, read_trends
from callphases.state.summaries import record
from doubles import Store

LAST = dt.date(2026, 11, 30)


def on(day: int, **lineage: dict[str, int]) -> Any:
    return summary(f"2026-11-{day:02}", lineage=lineage)


@pytest.mark.integration
def test_days_have_their_calls_costs_and_shares(s3: Store) -> None:
    failed = {"statuses": {"completed": 2, "failed": 1}, "failures": {"bad_audio": 1}, "kept": 4}
    shares = {"Introduction": 30.0, "Complaint": 90.0}
    record(
        s3.state,
        [
            summary("2026-09-01"),
            summary("2026-09-02", phase_s=shares, **failed),
            summary("2026-11-30", phase_s={"Other": 0.0}),
        ],
    )
    assert read_trends(s3.state, LAST, days=90) == Trends(
        [
            DayFigures(
                dt.date(2026, 9, 2),
                {"completed": 2, "failed": 1},
                {"bad_audio": 1},
                4,
                0.3,
                0.1,
                {"Introduction": 0.25, "Complaint": 0.75},
            ),
            DayFigures(LAST, {"completed": 2}, {}, 0, 0.3, 0.1, {}),
        ],
        [],
    )


@pytest.mark.integration
def test_trends_take_one_request_a_month_and_list_nothing(s3: Store) -> None:
    record(s3.state, [summary("2026-09-02"), summary("2026-11-30")])
    asked: list[str] = []
    s3.client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    read_trends(s3.state, LAST, days=90)
    assert asked == ["GetObject"] * 3


@pytest.mark.integration
def test_a_pipeline_without_a_publication_has_no_trends(s3: Store) -> None:
    assert read_trends(s3.state, LAST, days=90) == Trends([], [])


def test_changes_are_those_of_most_calls_against_the_last_day_that_has_any() -> None:
    days = [
        on(1, prompt_version={"1-a": 9}, speech_model={"u-2": 9}, llm_model={"x": 9}),
        on(2, prompt_version={"1-a": 9}, speech_model={"u-2": 8, "u-3": 1}, llm_model={"x": 2, "y": 7}),
        on(3),  # of an earlier version
        on(4, prompt_version={}, speech_model={"u-2": 3}, llm_model={}),  # nobody speaks
        on(7, prompt_version={"2-b": 9}, speech_model={"u-2": 9}, llm_model={"y": 9}),
    ]
    assert _changes(days) == [
        Change(dt.date(2026, 11, 2), "llm_model", "x", "y"),
        Change(dt.date(2026, 11, 7), "prompt_version", "1-a", "2-b"),
    ]


def test_models_side_by_side_are_no_changes() -> None:
    days = [on(day, llm_model={"x": 50 + day % 3, "y": 51 - day % 2}) for day in range(1, 20)]
    assert _changes(days) == []


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)), max_size=20))
def test_changes_follow_each_other(counts: list[dict[str, int]]) -> None:
    changes = _changes([on(number + 1, llm_model=one) for number, one in enumerate(counts)])
    assert all(one.before != one.after for one in changes)
    assert [one.after for one in changes[:-1]] == [one.before for one in changes[1:]]
    for one in changes:
        of_day = counts[one.day.day - 1]
        assert of_day[one.after] == max(of_day.values())
        assert of_day[one.after] >= 2 * of_day.get(one.before, 0)
