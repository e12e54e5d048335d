"""How many recordings days have, where listing them all would take too many requests."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archives import days, s3_of
from callphases.inspection.day_counts import DayCount, DayCounter, Planned, Requests, Source, _common_beginning, _groups
from callphases.listing.archive import Archive
from callphases.pipeline import Pipeline
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import ObjectPrefix
from doubles import Store, Web, pipeline

YEAR = days("2025-01-01", "2025-12-31")
BY_KEY = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}


def counter(client: Any, ours: Pipeline, most: int = 45, planned: Planned | None = None) -> DayCounter:
    state = ObjectPrefix(client, ours.output.state, "output.state")
    bucket = RecordingBucket(client, ours.recordings.bucket)
    return DayCounter(bucket, ours, state, Requests(most), planned)


def large(template: str, of_each: int = 100) -> list[str]:
    """A year of 36,500 recordings, with requests for half of it."""
    return [template.format(day=day, number=number) for day in YEAR for number in range(of_each)]


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        ("calls/{date:%Y-%m-%d}/", "calls/{day:%Y-%m-%d}/{number:04}.mp3"),
        ("{date:%Y/%m/%d}/audio/", "{day:%Y/%m/%d}/audio/{number:04}.mp3"),
        ("in/{date:%d.%m.%Y}/", "in/{day:%d.%m.%Y}/{number:04}.mp3"),
    ],
)
def test_folders_of_a_large_year_say_which_days_there_are(web: Web, prefix: str, key: str) -> None:
    absent = dt.date(2025, 3, 7)
    keys = [one for one in large(key) if key.format(day=absent, number=0)[:-8] not in one]
    ours = counter(s3_of(web, keys), pipeline(recordings={"prefix": prefix}))
    found = ours.count(YEAR, reserve=15)
    assert found.source is Source.FOLDERS
    assert found.of(absent) == DayCount(0)
    assert all(
        count == DayCount(None) for day, count in found.days.items() if day != absent and count.recordings != 100
    )
    assert len(found.days) == len(YEAR)
    assert ours.requests.used == len(web.requests) <= 30


def test_days_that_were_listed_before_it_was_given_up_have_their_numbers(web: Web) -> None:
    ours = counter(s3_of(web, large("calls/{day:%Y-%m-%d}/{number:04}.mp3")), pipeline())
    found = ours.count(YEAR)
    known = {day: count.recordings for day, count in found.days.items() if count.recordings is not None}
    assert known == dict.fromkeys(YEAR[: len(known)], 100)
    assert len(known) == found.listed_days > 0


def test_saved_plan_is_taken_in_place_of_a_large_listing(web: Web) -> None:
    made_at = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    planned = Planned(dict.fromkeys(YEAR, DayCount(100, 1)), 0.02, made_at)
    for source in ({}, {"prefix": "calls/", "call_time": BY_KEY}):
        web.requests.clear()
        client = s3_of(web, large("calls/{day:%Y-%m-%d}/{number:04}.mp3"))
        ours = counter(client, pipeline(recordings=source), planned=planned)
        found = ours.count(YEAR, reserve=15)
        assert (found.source, found.counted_at) == (Source.PLAN, made_at)
        assert found.days == dict.fromkeys(YEAR, DayCount(100, 1))
        assert ours.requests.used == len(web.requests) <= 1


def test_large_archive_without_plan_and_index_is_not_known(web: Web) -> None:
    client = s3_of(web, large("calls/{day:%Y%m%d}-{number:04}.mp3"))
    ours = counter(client, pipeline(recordings={"prefix": "calls/", "call_time": BY_KEY}))
    found = ours.count(YEAR, reserve=15)
    assert (found.source, found.days) == (Source.NOTHING, {})
    assert ours.requests.used == len(web.requests) <= 30


@pytest.mark.parametrize("prefix", ["calls/{date:%Y%m%d}", "{date:%Y%m%d}_"])
def test_days_without_folders_are_counted_as_far_as_requests_reach(web: Web, prefix: str) -> None:
    keys = large(prefix.replace("date:", "day:") + "{number:04}.mp3")
    ours = counter(s3_of(web, keys), pipeline(recordings={"prefix": prefix}))
    found = ours.count(YEAR, reserve=15)
    assert ours.requests.used == len(web.requests) <= 31
    assert all(count.recordings in (100, None) for count in found.days.values())


@pytest.mark.integration
def test_index_of_an_archive_tells_what_its_last_listing_found(s3: Store) -> None:
    for day in ("20261118", "20261119"):
        s3.put(f"calls/{day}-a.mp3")
    s3.put("calls/20261119-b.mp3")
    ours = s3.pipeline(recordings={"prefix": "calls/", "call_time": BY_KEY})
    bucket = RecordingBucket(s3.client, s3.recordings)
    Archive(bucket, ours, s3.state).take(dt.date(2026, 11, 19), None, "run-1")
    asked = days("2026-11-17", "2026-11-19")
    numbers = {asked[0]: DayCount(0), asked[1]: DayCount(1), asked[2]: DayCount(2)}
    listed = counter(s3.client, ours).count(asked)
    assert listed.source is Source.LISTING
    assert {day: listed.of(day) for day in asked} == numbers
    found = counter(s3.client, ours, most=0).count(asked)
    assert found.source is Source.NOTHING
    found = counter(s3.client, ours, most=1).count(asked)
    assert found.source is Source.INDEX
    assert {day: found.of(day) for day in asked} == numbers
    assert found.counted_at is not None


@pytest.mark.integration
def test_index_keeps_the_days_of_calls_whose_time_is_that_of_the_upload(s3: Store) -> None:
    first = dt.datetime(2026, 11, 18, 12, tzinfo=dt.UTC)
    s3.put("calls/a.mp3")
    s3.written["calls/a.mp3"] = first
    ours = s3.pipeline(recordings={"prefix": "calls/"})
    Archive(RecordingBucket(s3.client, s3.recordings), ours, s3.state).take(first.date(), None, "run-1")
    s3.written["calls/a.mp3"] = first + dt.timedelta(days=1)  # it was copied onto itself
    found = counter(s3.client, ours).count([first.date(), first.date() + dt.timedelta(days=1)])
    assert found.source is Source.INDEX
    assert found.of(first.date()) == DayCount(1)


@pytest.mark.parametrize(
    "prefix", ["calls/{date:%Y-%m-%d}/", "{date:%d-%m-%y}_", "x/{date:%Y}/{date:%j}/", "{date:%A %F}/"]
)
@given(first=st.dates(dt.date(1999, 1, 1), dt.date(2040, 1, 1)), count=st.integers(1, 500))
def test_each_day_is_below_one_group_alone(prefix: str, first: dt.date, count: int) -> None:
    ours = pipeline(recordings={"prefix": prefix})
    some = [first + dt.timedelta(days=number) for number in range(count)]
    groups = _groups(ours, some)
    assert sorted(day for of_group in groups.values() for day in of_group) == some
    for day in some:
        begin = [group for group in groups if ours.recordings.prefix_of(day).startswith(group)]
        assert len(begin) == 1
        assert day in groups[begin[0]]


@given(st.text("ab"), st.lists(st.text("ab"), min_size=1))
def test_common_beginning_is_the_longest(head: str, tails: list[str]) -> None:
    texts = [head + tail for tail in tails]
    common = _common_beginning(texts)
    assert all(text.startswith(common) for text in texts)
    assert len(common) == min(map(len, texts)) or len({text[len(common)] for text in texts}) > 1
