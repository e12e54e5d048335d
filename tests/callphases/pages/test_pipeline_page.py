"""The page of a pipeline: each day once, charts that add up, and nothing listed but what runs have left."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.local_days import DAY
from callphases.pages.links import Links
from callphases.pages.pipeline_page import FEWEST_NIGHTS, MONTHS, _chart, _months_before, pipeline_page
from callphases.pages.pipelines import Stores
from callphases.pages.rendering import render
from callphases.pipeline import Pipeline
from callphases.state.summaries import DaySummary, record
from doubles import Store

NOW = dt.datetime(2026, 11, 29, 9, tzinfo=dt.UTC)
LAST = dt.date(2026, 11, 28)


def summary(day: dt.date, completed: int = 10, failed: int = 0, model: str = "one") -> DaySummary:
    return DaySummary(
        day=day,
        published_at=NOW,
        run_id="scheduled__1",
        listed=completed + failed,
        kept=0,
        statuses={"completed": completed} | ({"failed": failed} if failed else {}),
        failures={"bad_audio": failed} if failed else {},
        unfinished=0,
        audio_s=600.0,
        speech_usd=2.0,
        llm_usd=1.0,
        phase_s={"Complaint": 450.0, "<b>Odd</b>": 150.0},
        lineage={"speech_model": {model: completed}},
    )


@pytest.fixture
def stores(s3: Store) -> Stores:
    return Stores(s3.pipeline(), s3.client)


def html_of(page: object) -> str:
    return render("pipeline", page=page, links=Links("/af"), dag_id="call_phases_support").html


def test_days_failures_costs_and_changes_are_shown(stores: Stores) -> None:
    record(stores.state, [summary(LAST - 2 * DAY), summary(LAST - DAY, failed=3), summary(LAST, model="two")])
    page = pipeline_page(stores, now=NOW)
    assert page.calls is not None
    assert page.shares is not None
    assert [(one.name, [cell.letter for cell in one.cells if cell]) for one in page.months] == [
        ("2026-11", ["D", "f", "D"])
    ]
    assert page.calls.most == 13
    assert (len(page.shares.bars), page.shares.bars[0].parts) == (FEWEST_NIGHTS, [])
    assert [part.size for part in page.shares.bars[-1].parts] == [75.0, 25.0]
    assert [(one.day, one.before, one.after) for one in page.changes] == [(LAST, "one", "two")]
    html = html_of(page)
    assert f'href="/af/callphases/dags/call_phases_support/days/{LAST}"' in html
    assert "$6.00" in html
    assert "speech model two in place of one" in html
    assert "<b>Odd" not in html
    assert not re.search(r"\sstyle=|\son\w+=", html)


def test_pipeline_without_a_run_says_so(stores: Stores) -> None:
    page = pipeline_page(stores, now=NOW)
    assert page.calls is None
    assert "No night of these days has left figures." in html_of(page)


def test_bucket_of_recordings_is_never_listed(stores: Stores, s3: Store) -> None:
    record(stores.state, [summary(LAST)])
    s3.asked.clear()
    s3.listed.clear()
    pipeline_page(stores, now=NOW)
    assert len(s3.asked) < 30
    assert all(prefix.startswith(("tables/", "state/")) for prefix in s3.listed)


def test_earlier_and_later_pages_meet(stores: Stores) -> None:
    page = pipeline_page(stores, now=NOW)
    assert page.newer is None
    assert page.older is not None
    before = pipeline_page(stores, page.older, now=NOW)
    assert (before.last, before.newer) == (page.first - DAY, LAST)


@pytest.mark.parametrize("until", [dt.date.min, dt.date.max])
def test_page_of_any_day_is_made(stores: Stores, until: dt.date) -> None:
    page = pipeline_page(stores, until, now=NOW)
    assert (page.older is None) == (until == dt.date.min)
    assert page.last <= LAST


@given(st.dates(dt.date(1990, 1, 1), dt.date(2100, 1, 1)), st.integers(1, 48))
def test_months_are_counted_back_and_forth(day: dt.date, months: int) -> None:
    first = _months_before(day, months)
    assert (first.day, (day.year - first.year) * 12 + day.month - first.month) == (1, months)
    end = _months_before(first - DAY, -months) if first > dt.date.min else day
    assert ((end + DAY).day, end.month) == (1, (day.replace(day=1) - DAY).month)


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=4), min_size=1, max_size=20))
def test_bars_add_up_and_stay_within_the_chart(values: list[list[float]]) -> None:
    days = [LAST + number * DAY for number in range(len(values))]
    chart = _chart(
        days,
        [
            (day, {str(number): one for number, one in enumerate(of_day)})
            for day, of_day in zip(days, values, strict=True)
        ],
    )
    for bar, of_day in zip(chart.bars, values, strict=True):
        assert sum(part.size for part in bar.parts) == pytest.approx(100 * sum(of_day) / chart.most)
        assert all(-1e-6 <= part.start <= 100 + 1e-6 for part in bar.parts)
    assert chart.bars[-1].x + chart.bars[-1].width == pytest.approx(100)


def test_page_has_twelve_months(stores: Stores) -> None:
    record(stores.state, [summary(LAST - number * DAY) for number in range(500)])
    page = pipeline_page(stores, now=NOW)
    assert len(page.months) == MONTHS
    assert isinstance(page.calendar.pipeline, Pipeline)
