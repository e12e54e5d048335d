"""The page of a day: which calls are on it, in which order, and what it says of the day."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import ConfigurationError
from callphases.pages import day_page as module
from callphases.pages import day_tables
from callphases.pages.day_page import CALLS_A_PAGE, DayPage, axis_of, day_page
from callphases.pages.day_tables import day_version
from callphases.pages.links import Links
from callphases.pages.rendering import render
from callphases.pipeline import Pipeline
from callphases.state.storage import ObjectVersion
from callphases.tables.schema import SCHEMAS, object_name, schema_of
from doubles import DAY, NOON, pipeline

Row = dict[str, Any]

OWN = {
    "agent": {"key_pattern": r"(?P<agent>a\d+)"},
    "score": {"key_pattern": r"(?P<score>\d+)", "type": "int64"},
    "vip": {"key_pattern": r"(?P<vip>v\w+)", "type": "boolean"},
    "at": {"key_pattern": r"(?P<at>t\w+)", "type": "timestamp"},
}


class Objects:
    """An ``ObjectPrefix`` in memory; ``read`` counts GET requests."""

    def __init__(self, uri: str = "s3://warehouse/tables/") -> None:
        self.uri, self.bodies, self.read = uri, dict[str, bytes](), 0

    def version(self, name: str) -> ObjectVersion | None:
        body = self.bodies.get(name)
        return None if body is None else ObjectVersion(hashlib.md5(body).hexdigest(), len(body))

    def get(self, name: str) -> bytes | None:
        self.read += 1
        return self.bodies.get(name)

    def put(self, table: str, rows: list[Row], schema: pa.Schema) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema), sink)
        self.bodies[object_name(table, DAY)] = sink.getvalue().to_pybytes()


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    day_tables._kept._values.clear()
    day_tables._found._values.clear()


def call(number: int, *, phases: list[tuple[str, float, float]] | None = None, **changes: Any) -> Row:
    """A completed call of ten minutes, without phases unless they are given as name, start and end."""
    usual = {
        "call_id": f"{number:016x}",
        "recording_uri": f"s3://recordings/calls/call-{number}.mp3",
        "recording_etag": "e1",
        "call_started_at": NOON + dt.timedelta(minutes=number),
        "status": "completed",
        "duration_s": 600.0,
        "phase_count": len(phases or []),
        "speech_model": "universal-3-5-pro",
        "llm_model": "claude-sonnet-4-6",
        "speech_usd": 0.1,
        "llm_usd": 0.02,
    }
    return {**usual, **changes, "phases": phases or []}


def stores_with(calls: list[Row], summary: str = "She asks for a refund.", **changes: Any) -> Any:
    of = pipeline(timezone="Europe/Berlin", recordings={"columns": OWN}, **changes)
    tables = Objects()
    publish(tables, of, calls, summary)
    return SimpleNamespace(pipeline=of, tables=tables)


def publish(tables: Objects, of: Pipeline, calls: list[Row], summary: str = "She asks for a refund.") -> None:
    phases = [
        {**one, "phase_index": index, "phase_name": name, "start_s": start, "end_s": end, "summary": summary}
        for one in calls
        for index, (name, start, end) in enumerate(one["phases"])
    ]
    tables.put("calls", calls, schema_of("calls", of))
    tables.put("phases", phases, schema_of("phases", of))


def shown(stores: Any, query: str = "", **rights: Any) -> DayPage:
    version = day_version(stores, DAY)
    assert version is not None
    return day_page(stores, version, parse_qsl(query, keep_blank_values=True), **rights)


def numbers(page: DayPage) -> list[int]:
    return [int(call.call_id, 16) for call in page.calls]


def html(page: DayPage, **more: Any) -> str:
    values: Row = {
        "run": None,
        "waits": False,
        "problem": None,
        "day": page.day,
        "links": Links(""),
        "dag_id": "call_phases_support",
    }
    values |= {"action": "/here", "may_replay": False, "token": ""} | more
    return render("day", page=page, **values).html


CALLS = [
    call(0, phases=[("Greeting", 0, 60), ("Complaint", 60, 600)], agent="a1", score=10, vip=True, at=NOON),
    call(1, phases=[("Greeting", 0, 100), ("Goodbye", 100, 200)], duration_s=200.0, agent="a2", score=9, vip=False),
    call(2, status="no_speech", duration_s=5.0, llm_usd=None, agent="a1"),
    call(3, status="failed", failure_class="bad_audio", failure_message="It is no refund.", duration_s=None)
    | {"speech_usd": None, "llm_usd": None, "speech_model": None, "llm_model": None, "phase_count": None},
    call(4, phases=[("Complaint", 0, 30), ("Greeting", 30, 90), ("Complaint", 90, 130)], duration_s=130.0, score=100),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("status=failed", [3]),
        ("status=nonsense", []),
        ("class=bad_audio", [3]),
        ("phase=Complaint", [0, 4]),
        ("phase=complaint", []),
        ("min=130", [0, 1, 4]),
        ("min=2:10&max=3:20", [1, 4]),
        ("max=5", [2]),
        ("own.agent=a1", [0, 2]),
        ("own.score=9", [1]),
        ("own.vip=true", [0]),
        ("own.at=2026-11-20 13:00:00", [0]),
        ("own.agent=a1&status=completed", [0]),
        ("own.nobody=x", [0, 1, 2, 3, 4]),
        ("q=CALL-3", [3]),
        ("q=a2", [1]),
        ("q=0000000000000004", [4]),
        ("q=100", [4]),
        ("q=.", [0, 1, 2, 3, 4]),
        ("q=.*x", []),
        ("q=refund", []),
        ("sort=duration", [2, 4, 1, 0, 3]),
        ("sort=duration&desc=1", [0, 1, 4, 2, 3]),
        ("sort=started&desc=1", [4, 3, 2, 1, 0]),
        ("sort=name&desc=1", [4, 3, 2, 1, 0]),
        ("sort=status", [0, 1, 4, 3, 2]),
        ("sort=phases&desc=1", [4, 0, 1, 2, 3]),
        ("sort=cost", [2, 0, 1, 4, 3]),
        ("sort=own.score", [1, 0, 4, 2, 3]),
        ("sort=own.vip&desc=1", [0, 1, 2, 3, 4]),
        ("sort=own.at", [0, 1, 2, 3, 4]),
        ("sort=length.Complaint", [4, 0, 1, 2, 3]),
        ("sort=length.Complaint&desc=1", [0, 4, 1, 2, 3]),
        ("sort=share.Greeting&desc=1", [1, 4, 0, 2, 3]),
        ("sort=length.Nothing", [0, 1, 2, 3, 4]),
        ("phase=Greeting&sort=share.Greeting", [0, 4, 1]),
    ],
)
def test_calls_are_filtered_and_sorted(query: str, found: list[int]) -> None:
    page = shown(stores_with(CALLS), query)
    assert numbers(page) == found
    assert (page.found, page.total) == (len(found), len(CALLS))


def test_summaries_and_failure_messages_are_searched_for_who_may_read_them() -> None:
    stores = stores_with(CALLS)
    assert numbers(shown(stores, "q=REFUND", may_read=True)) == [0, 1, 3, 4]
    assert numbers(shown(stores, "q=refund&phase=Goodbye", may_read=True)) == [1]
    assert numbers(shown(stores, "q=refund", may_read=False)) == []
    assert "summaries" in shown(stores, may_read=True).searched
    assert "summaries" not in shown(stores).searched


def test_row_has_name_start_length_status_phases_cost_and_own_columns() -> None:
    first, _, silent, failed, _ = shown(stores_with(CALLS)).calls
    assert (first.name, first.duration_s, first.status, first.failure_class) == ("call-0.mp3", 600.0, "completed", None)
    assert first.started_at.isoformat() == "2026-11-20T13:00:00+01:00"
    assert [(phase.name, phase.start_s, phase.end_s) for phase in first.phases] == CALLS[0]["phases"]
    assert first.own == ["a1", "10", "true"]
    assert first.usd == pytest.approx(0.12)
    assert (silent.usd, silent.phases) == (0.1, [])
    assert (failed.usd, failed.failure_class, failed.own) == (None, "bad_audio", ["", "", ""])


def test_page_says_what_became_of_the_day_and_what_it_cost() -> None:
    stores = stores_with([*CALLS, call(5, warnings="decoded 61.5 s of 90.0 s")], budget={"usd_per_run": 5})
    page = shown(stores, may_read=True)
    assert {one.value: one.count for one in page.statuses} == {"completed": 4, "no_speech": 1, "failed": 1}
    [failures] = page.failures
    assert (failures.failure_class, failures.count) == ("bad_audio", 1)
    assert "fix the recording" in failures.remedy
    assert [(one.value, one.count) for one in page.warnings] == [("decoded 61.5 s of 90.0 s", 1)]
    assert (page.speech_usd, page.llm_usd) == (pytest.approx(0.5), pytest.approx(0.08))
    assert page.budget_usd == 5
    assert page.speech_models == {"universal-3-5-pro": 5}
    assert shown(stores).warnings == []


def test_page_says_which_models_answered_instead_of_the_first() -> None:
    page = shown(stores_with([call(0), call(1, llm_model="another")], segmentation={"models": ["first", "another"]}))
    assert page.llm_models == {"another": 1, "claude-sonnet-4-6": 1}
    assert any("1 call by another instead of first" in one for one in page.fallbacks)


def test_phases_are_added_up_over_the_day() -> None:
    page = shown(stores_with(CALLS))
    complaint, greeting = (next(one for one in page.phases if one.name == name) for name in ("Complaint", "Greeting"))
    assert (complaint.calls, complaint.seconds) == (2, 610.0)
    assert (greeting.calls, greeting.seconds) == (3, 220.0)
    assert sum(one.share for one in page.phases) == pytest.approx(1)
    assert [one.name for one in page.phases] == page.phase_names


def test_phases_are_in_the_order_of_the_pipeline_file() -> None:
    defined = [{"name": "Goodbye", "description": "The end."}, {"name": "Greeting", "description": "The start."}]
    assert shown(stores_with(CALLS, phases=defined)).phase_names == ["Goodbye", "Greeting", "Complaint"]


def test_own_columns_are_chosen_from_or_typed_if_there_are_many_values() -> None:
    stores = stores_with([call(number, agent=f"a{number % 3}", score=number) for number in range(60)])
    agent, score, vip, at = shown(stores, "own.score=7").facets
    assert [(one.value, one.count) for one in agent.choices] == [("a0", 20), ("a1", 20), ("a2", 20)]
    assert (score.parameter, score.value, score.choices) == ("own.score", "7", [])
    assert (vip.choices, at.choices) == ([], [])


def test_every_choice_finds_its_calls_and_no_other_is_offered() -> None:
    values = ["plain", " spaced", "two\nlines", "x" * 201, "a&b=c", "100 %"]
    stores = stores_with([call(number, agent=value) for number, value in enumerate(values)])
    [agent] = [one for one in shown(stores).facets if one.column == "agent"]
    assert {one.value for one in agent.choices} == {"plain", "a&b=c", "100 %"}
    for one in agent.choices:
        assert shown(stores, urlencode({agent.parameter: one.value})).found == one.count


def test_many_own_columns_are_folded_away() -> None:
    columns = {f"c{number}": {"key_pattern": f"(?P<c{number}>x)"} for number in range(9)}
    of = pipeline(recordings={"columns": columns})
    tables = Objects()
    publish(tables, of, [call(1, **dict.fromkeys(columns, "x"))])
    page = shown(SimpleNamespace(pipeline=of, tables=tables))
    assert [one.column for one in (*page.facets, *page.more_facets)] == list(columns)
    assert "<summary>3 more columns</summary>" in html(page)


calls = st.lists(
    st.builds(
        lambda number, status, length, agent: (number, status, length, agent),
        st.integers(0, 50),
        st.sampled_from(["completed", "failed"]),
        st.none() | st.sampled_from([1.0, 2.0, 300.0]),
        st.none() | st.sampled_from(["a1", "a2"]),
    ),
    unique_by=lambda values: values[0],
)
asked = st.tuples(
    st.sampled_from(["", "status=completed", "own.agent=a1", "q=1", "min=2", "phase=Greeting", "status=failed&q=2"]),
    st.sampled_from(["started", "name", "duration", "status", "phases", "cost", "own.agent", "length.Greeting"]),
    st.booleans(),
)


@given(calls, asked, st.integers(1, 7))
def test_pages_are_a_partition_of_the_calls_that_the_filter_leaves(
    rows: list[tuple[int, str, float | None, str | None]], query: tuple[str, str, bool], a_page: int
) -> None:
    made = [call(n, status=s, duration_s=d, agent=a, phases=[("Greeting", 0.0, d)] if d else []) for n, s, d, a in rows]
    test: dict[str, Callable[[Row], bool]] = {
        "": lambda row: True,
        "status=completed": lambda row: row["status"] == "completed",
        "own.agent=a1": lambda row: row["agent"] == "a1",
        "q=1": lambda row: any("1" in str(row[name]) for name in ("recording_uri", "call_id", "agent") if row[name]),
        "min=2": lambda row: (row["duration_s"] or 0) >= 2,
        "phase=Greeting": lambda row: bool(row["phases"]),
        "status=failed&q=2": lambda row: (
            row["status"] == "failed" and any("2" in str(row[name]) for name in ("recording_uri", "call_id", "agent"))
        ),
    }
    stores = stores_with(made)
    parameters = f"{query[0]}&sort={query[1]}" + ("&desc=1" if query[2] else "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CALLS_A_PAGE", a_page)
        page = shown(stores, parameters)
        found = numbers(page)
        first = page
        while page.next:
            page = shown(stores, page.next.removeprefix("?"))
            assert len(page.calls) <= a_page
            found += numbers(page)
    assert sorted(found) == sorted(int(row["call_id"], 16) for row in made if test[query[0]](row))
    assert first.found == len(found)
    assert page.page == page.pages == first.pages


@pytest.mark.parametrize(("number", "page"), [("1", 1), ("2", 2), ("3", 3), ("4", 3), ("1000000", 3)])
def test_page_after_the_last_is_the_last(number: str, page: int) -> None:
    found = shown(stores_with([call(number) for number in range(2 * CALLS_A_PAGE + 1)]), f"page={number}")
    assert found.page == page
    assert len(found.calls) == (1 if page == 3 else CALLS_A_PAGE)
    assert bool(found.next) == (page < 3)
    assert bool(found.previous) == (page > 1)


@pytest.mark.parametrize(
    ("lengths", "axis_s"),
    [
        ([], 10),
        ([None], 10),
        ([0.0], 10),
        ([59.0], 60),
        ([60.0], 60),
        ([61.0], 120),
        ([300.0] * 99 + [10_000.0], 300),
        ([300.0, 800.0], 900),
        ([100_000.0], 172_800),
    ],
)
def test_axis_ends_at_a_round_number_that_nearly_all_calls_fit_into(lengths: list[float | None], axis_s: float) -> None:
    assert axis_of(pa.array(lengths, pa.float64())) == axis_s


def test_call_that_is_longer_than_the_axis_says_so() -> None:
    usual = [call(number, duration_s=100.0) for number in range(CALLS_A_PAGE - 1)]
    page = shown(stores_with([*usual, call(CALLS_A_PAGE, duration_s=9000.0)]))
    assert [one.is_longer for one in page.calls] == [False] * len(usual) + [True]


def test_day_without_phases_and_without_calls_of_today_s_columns_is_shown() -> None:
    stores = stores_with([])
    stores.tables.put("calls", [call(0)], SCHEMAS["calls"])
    del stores.tables.bodies[object_name("phases", DAY)]
    page = shown(stores, "own.agent=a1&sort=own.score")
    assert (page.total, page.facets, page.own, page.phases) == (1, [], [], [])
    assert len(page.notes) == 2


def test_tables_are_read_once_until_the_day_is_published_again() -> None:
    stores = stores_with(CALLS)
    shown(stores)
    shown(stores, "page=2&sort=cost")
    assert stores.tables.read == 2
    shown(stores, "q=refund", may_read=True)
    shown(stores, "q=Refund&page=2", may_read=True)
    assert stores.tables.read == 4
    publish(stores.tables, stores.pipeline, CALLS[:2])
    assert shown(stores).total == 2
    assert shown(stores, "q=refund", may_read=True).found == 2


def test_day_that_is_not_published_has_no_page() -> None:
    stores = stores_with([])
    stores.tables.bodies.clear()
    assert day_version(stores, DAY) is None


def test_object_that_is_no_table_is_named() -> None:
    stores = stores_with(CALLS)
    stores.tables.bodies[object_name("calls", DAY)] = b"nonsense"
    with pytest.raises(ConfigurationError, match=r"s3://warehouse/tables/: 2026-11-20 can't be read as tables"):
        shown(stores)


def test_day_that_is_too_large_for_the_api_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_tables, "MOST_BYTES", 100)
    with pytest.raises(ConfigurationError, match="Query the tables instead"):
        shown(stores_with(CALLS))


def test_phases_of_a_call_that_is_no_longer_there_are_left_out() -> None:
    stores = stores_with(CALLS)
    stores.tables.put("calls", CALLS[1:], schema_of("calls", stores.pipeline))
    page = shown(stores)
    assert numbers(page) == [1, 2, 3, 4]
    assert next(one.calls for one in page.phases if one.name == "Complaint") == 1


def test_row_that_others_have_left_holes_in_does_not_hide_the_day() -> None:
    nameless: Any = [(None, 0.0, 30.0)]
    odd = call(1, phases=nameless, call_started_at=None, recording_uri=None, status="failed", failure_class="of_2031")
    page = shown(stores_with([odd, call(2, phases=[("Intro", 0.0, 30.0)])]), may_read=True)
    assert {one.name for one in page.calls} >= {odd["call_id"]}
    assert page.total == 2
    made = html(page, may_replay=True)
    assert "of 2031" in made
    assert 'value="of_2031"><input' not in made


def test_costs_without_a_price_are_not_zero() -> None:
    page = shown(stores_with([call(1, speech_usd=None, llm_usd=None)]))
    assert (page.speech_usd, page.llm_usd, page.usd) == (None, None, None)
    assert "$0.00" not in html(page)
    page = shown(stores_with([call(1, speech_usd=0.5, llm_usd=None), call(2, speech_usd=None, llm_usd=None)]))
    assert (page.speech_usd, page.llm_usd, page.usd) == (0.5, None, 0.5)


def test_table_can_be_read_by_a_screen_reader() -> None:
    text = html(shown(stores_with(CALLS), "sort=duration&desc=1"))
    assert text[text.index("<main") : text.index("</main>")].count("aria-sort=") == 1
    assert re.search(r'<th scope="col" aria-sort="descending"><a href="\?sort=duration">Length</a>', text)
    assert re.search(r"<caption>.*5 of 5 calls.*Europe/Berlin", text)
    assert re.search(r'<tr data-call="0{16}">\s*<th scope="row"><a href="[^"]*/calls/0{16}">call-0.mp3</a></th>', text)
    assert re.search(r'data-phase="1" data-start="60\.0"', text)


def test_filter_is_a_form_that_keeps_what_was_asked() -> None:
    query = "day=2026-11-20&status=failed&own.agent=gone&min=1:30&q=%22%3E%3Cscript%3E&sort=cost&desc=1"
    text = html(shown(stores_with(CALLS), query))
    form = text[text.index('<form id="filter" method="get" action="/here"') : text.index("</form>")]
    for part in (
        '<input type="hidden" name="day" value="2026-11-20">',
        '<input type="hidden" name="sort" value="cost">',
        '<input type="hidden" name="desc" value="1">',
        '<option value="failed" selected>',
        "<option selected>gone</option>",
        'name="min" size="6" placeholder="m:ss" value="1:30"',
        "&#34;&gt;&lt;script&gt;",
    ):
        assert part in form
    assert "<script>" not in form
    assert "No call of this day matches the filter." in text


def test_what_is_in_the_tables_is_escaped() -> None:
    bad = "<script>alert(1)</script>"
    rows = [call(0, phases=[(bad, 0, 60)], recording_uri=f"s3://recordings/{bad}.mp3", agent=bad, warnings=bad)]
    text = html(shown(stores_with([*rows, call(1, status="failed", failure_class=bad)])), may_replay=True)
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)") > 5


def test_failed_calls_of_a_class_can_be_tried_again_by_who_may() -> None:
    page = shown(stores_with(CALLS))
    assert "replay-class" not in html(page)
    text = html(page, may_replay=True, token="t-1")
    assert re.search(r'name="class" value="bad_audio"><input type="hidden" name="token" value="t-1">', text)


def test_page_is_made_without_pandas_and_without_threads_of_arrow() -> None:
    """In a process of its own: here, other tests have imported pandas."""
    program = """
import os, sys
from urllib.parse import parse_qsl, urlencode
sys.path[:0] = {path!r}
import test_day_page as here
sys.modules.pop("pandas", None)
stores = here.stores_with(here.CALLS)
for name in [one for one in sys.modules if one.partition(".")[0] == "pandas"]:
    del sys.modules[name]
class No:
    def find_spec(self, name, path=None, target=None):
        assert name != "pandas", "pandas is imported"
sys.meta_path.insert(0, No())
before = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
for query in ("", "q=refund", "phase=Greeting&sort=share.Greeting", "min=1&own.score=9&sort=own.vip", "sort=cost"):
    here.shown(stores, query, may_read=True)
after = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
print(after - before)
"""
    path = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", program.format(path=path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("0", 0), done.stderr
