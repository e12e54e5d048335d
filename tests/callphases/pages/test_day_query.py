"""What a reader asks of a day's calls, in an address and back."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.pages.day_query import LONGEST_TEXT, ORDERS, OWN, Query, length_text

COLUMNS = ("agent", "queue", "page")
"""Own columns; one is named as a parameter is."""

texts = st.text(min_size=1, max_size=LONGEST_TEXT).filter(lambda text: text == text.strip())
lengths = st.none() | st.integers(0, 999_999).map(float) | st.decimals(0, 999_999, places=3).map(float)
queries = st.builds(
    Query,
    status=st.none() | texts,
    failure_class=st.none() | texts,
    phase=st.none() | texts,
    min_s=lengths,
    max_s=lengths,
    own=st.dictionaries(st.sampled_from(COLUMNS), texts).map(lambda own: tuple(sorted(own.items()))),
    text=st.just("") | texts,
    sort=st.sampled_from(ORDERS)
    | st.sampled_from(COLUMNS).map(OWN.__add__)
    | st.tuples(st.sampled_from(["length.", "share."]), st.text(min_size=1, max_size=20)).map("".join).map(str.strip),
    descending=st.booleans(),
    page=st.integers(1, 1_000_000),
    day=st.just("") | st.dates().map(str),
).filter(lambda query: not query.sort.endswith("."))


@given(queries)
def test_address_of_a_query_is_read_as_the_same_query(query: Query) -> None:
    address = query.address(page=query.page)
    parameters = parse_qsl(address.removeprefix("?"), keep_blank_values=True)
    assert Query.parse(parameters, COLUMNS) == (query, [])


names = st.sampled_from(
    [
        "status",
        "class",
        "phase",
        "min",
        "max",
        "q",
        "sort",
        "desc",
        "page",
        "day",
        "own.agent",
        "own.",
        "own.nobody",
        "x",
    ]
)


@given(st.lists(st.tuples(names, st.text(max_size=300))))
def test_whatever_is_in_an_address_is_a_query_or_is_said_to_be_wrong(parameters: list[tuple[str, str]]) -> None:
    query, mistakes = Query.parse(parameters, COLUMNS)
    assert query.page >= 1
    assert len(mistakes) <= len(parameters)
    # What is left is a query that has no mistakes any more.
    assert Query.parse(query.parameters(), COLUMNS) == (query, [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("1:30", 90.0),
        ("01:05", 65.0),
        ("1:02:03", 3723.0),
        ("0:00.25", 0.25),
        (" 90 ", 90.0),
        ("-1", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("1:75", None),
        ("1:", None),
        ("٣", None),
        ("9999999", None),
        ("two minutes", None),
    ],
)
def test_lengths_are_seconds_or_minutes_and_seconds(text: str, seconds: float | None) -> None:
    query, mistakes = Query.parse([("min", text), ("max", text)], [])
    assert (query.min_s, query.max_s) == (seconds, seconds)
    assert len(mistakes) == (2 if seconds is None else 0)
    assert all(repr(text.strip()) in mistake for mistake in mistakes)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ([("page", "0")], "'0' is no number of a page"),
        ([("page", "two")], "'two' is no number of a page"),
        ([("page", "99999999999999999999")], "is no number of a page"),
        ([("sort", "colour")], "can't be sorted by 'colour'"),
        ([("sort", "own.colour")], "can't be sorted by 'own.colour'"),
        ([("sort", "length.")], "can't be sorted by 'length.'"),
        ([("own.colour", "red")], "no column colour"),
    ],
)
def test_nonsense_is_left_out_and_said(parameters: list[tuple[str, str]], said: str) -> None:
    query, [mistake] = Query.parse(parameters, COLUMNS)
    assert query == Query()
    assert said in mistake


def test_first_of_several_values_that_is_not_empty_counts() -> None:
    query, mistakes = Query.parse([("status", ""), ("status", " failed "), ("status", "completed")], [])
    assert (query.status, mistakes) == ("failed", [])


def test_parameters_of_others_are_ignored() -> None:
    assert Query.parse([("utm_source", "mail"), ("desc", "yes"), ("day", "tomorrow")], []) == (Query(), [])


def test_long_text_is_cut_off() -> None:
    assert Query.parse([("q", "a" * 5000)], [])[0].text == "a" * LONGEST_TEXT


def test_another_order_begins_on_the_first_page_and_the_same_is_turned_round() -> None:
    query = Query(status="failed", page=7, day="2026-11-20")
    assert query.sorted_by("cost") == "?day=2026-11-20&status=failed&sort=cost"
    assert query.sorted_by("started") == "?day=2026-11-20&status=failed&desc=1"
    assert Query(descending=True).sorted_by("started") == "?"
    assert query.only(phase="Greeting") == "?day=2026-11-20&phase=Greeting"


@pytest.mark.parametrize(("changes", "is_filter"), [({}, False), ({"page": 2}, False), ({"day": "2026-11-20"}, False)])
def test_order_page_and_day_leave_no_call_out(changes: dict[str, Any], is_filter: bool) -> None:
    assert Query(**changes, sort="cost", descending=True).is_filter is is_filter
    assert Query(**changes, text="x").is_filter
    assert Query(**changes, min_s=0.0).is_filter


@pytest.mark.parametrize(
    ("length_s", "text"), [(None, ""), (0.0, "0:00"), (90.0, "1:30"), (3723.0, "62:03"), (1.5, "1.5")]
)
def test_length_is_shown_as_it_may_be_written(length_s: float | None, text: str) -> None:
    assert length_text(length_s) == text
    assert Query.parse([("min", text)], [])[0].min_s == length_s
