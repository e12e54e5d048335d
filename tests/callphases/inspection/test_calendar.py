"""What becomes of the days of an archive, and how many S3 requests it takes to know."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from archives import LEASE, days, lease, publish, put_all, s3_of, summary
from callphases.day_range import DayRange
from callphases.inspection.calendar import HELD_S, SILENT_S, Calendar, State, read_calendar
from callphases.inspection.day_counts import DayCount, Planned, Source
from callphases.pipeline import Pipeline
from callphases.state.range_lease import RangeLease
from callphases.tables.schema import CALLS
from commands import call, parquet
from doubles import NOON, Store, Web, pipeline

pytestmark = pytest.mark.integration
FIRST, LAST = dt.date(2026, 11, 1), dt.date(2026, 11, 7)
NOW = dt.datetime(2026, 11, 21, 3, tzinfo=dt.UTC)
BY_KEY = {"prefix": "calls/", "call_time": {"key_pattern": r"(?P<time>\d{8}T\d{4})", "format": "%Y%m%dT%H%M"}}


def read(store: Store, first: dt.date | None = FIRST, last: dt.date | None = LAST, **more: Any) -> Calendar:
    """The calendar; that it counts its own requests rightly is part of every test."""
    pipeline: Pipeline = more.pop("pipeline", None) or store.pipeline()
    store.asked.clear()
    found = read_calendar(pipeline, store.client, first, last, now=NOW, **more)
    assert found.requests == len(store.asked), store.counted()
    return found


def states(calendar: Calendar) -> str:
    """The states of all days, in order."""
    return " ".join(day.state for day in calendar.days)


def recordings(store: Store, day: dt.date | str, count: int = 2, storage: str = "STANDARD") -> None:
    put_all(store.recordings, (f"calls/{day}/{number}.mp3" for number in range(count)), storage=storage)


def test_days_that_are_done_late_to_do_and_without_recordings(s3: Store) -> None:
    for day in days("2026-11-01", "2026-11-04"):
        recordings(s3, day)
    recordings(s3, "2026-11-02", 5)
    publish(s3, summary("2026-11-01"), summary("2026-11-02"))
    found = read(s3, last=dt.date(2026, 11, 5))
    assert states(found) == "done late to_do to_do empty"
    assert [day.left for day in found.days] == [0, 3, 2, 2, 0]
    assert (found.recordings, found.left, found.is_left_estimated) == (11, 7, False)
    assert found.speech_usd + found.llm_usd == pytest.approx(0.8)
    assert found.to_pay_usd == pytest.approx(7 * 0.2)
    assert found.counts.source is Source.LISTING
    assert not found.is_finished


def test_day_fails_by_what_another_run_would_do_again(s3: Store) -> None:
    publish(
        s3,
        summary("2026-11-01", failures={"provider_error": 1}, statuses={"completed": 1, "failed": 1}),
        summary("2026-11-02", failures={"bad_audio": 1}, statuses={"completed": 1, "failed": 1}),
        summary("2026-11-03", unfinished=2, statuses={}),
        summary("2026-11-04", stopped="The balance is negative."),
        summary("2026-11-05", failures={"archived": 2}, statuses={"failed": 2}),
        summary("2026-11-06", listed=0, statuses={}),
    )
    found = read(s3, last=dt.date(2026, 11, 6))
    assert states(found) == "failed failed failed failed unreadable empty"
    assert [day.is_final for day in found.days] == [False, True, False, False, False, False]
    assert [day.left for day in found.days] == [1, 0, 2, 0, 2, 0]
    assert [(one.failure_class, one.recordings) for one in found.failures] == [
        ("archived", 2),
        ("provider_error", 1),
        ("bad_audio", 1),
    ]


def test_days_with_recordings_in_glacier_are_unreadable(s3: Store) -> None:
    recordings(s3, "2026-11-01", storage="GLACIER")
    recordings(s3, "2026-11-02", 3, storage="DEEP_ARCHIVE")
    recordings(s3, "2026-11-02", 1)
    recordings(s3, "2026-11-03", storage="GLACIER_IR")
    found = read(s3, last=dt.date(2026, 11, 3))
    assert states(found) == "unreadable unreadable to_do"
    assert [day.count.unreadable for day in found.days if day.count] == [2, 2, 0]


def test_run_has_its_day_until_it_releases_its_lease_or_is_silent_for_long(s3: Store) -> None:
    for day in days("2026-11-01", "2026-11-05"):
        recordings(s3, day)
    publish(s3, summary("2026-11-04", unfinished=1), summary("2026-11-05"))
    lease(s3, "dt=2026-11-01")
    s3.clock.wait(SILENT_S)
    lease(s3, "dt=2026-11-02", released=True)
    lease(s3, "dt=2026-11-03")
    lease(s3, "dt=2026-11-04")
    s3.clock.wait(100.0)
    found = read(s3, last=dt.date(2026, 11, 5))
    assert states(found) == "held failed running running done"
    assert [day.silent_s for day in found.days] == [SILENT_S + 100.0, None, 100.0, 100.0, None]
    assert found.is_working
    s3.clock.wait(SILENT_S)
    found = read(s3, last=dt.date(2026, 11, 5))
    assert states(found) == "held failed held held done"
    assert found.last_heard_of_at == NOW - dt.timedelta(seconds=SILENT_S + 100)
    assert (found.is_working, found.expected_end, found.is_finished) == (False, None, False)
    s3.clock.wait(HELD_S)
    assert states(read(s3, last=dt.date(2026, 11, 5))) == "failed failed failed failed done"


def test_nothing_is_running_after_the_last_publication(s3: Store) -> None:
    recordings(s3, "2026-11-02")
    publish(s3, summary("2026-11-01", published_at=NOW - dt.timedelta(minutes=5), began_at=NOW - dt.timedelta(hours=1)))
    found = read(s3, last=dt.date(2026, 11, 2))
    assert (states(found), found.is_working, found.expected_end) == ("done to_do", False, None)
    assert found.pace is not None


def test_run_of_several_days_is_running_until_it_has_published_each(s3: Store) -> None:
    for number in (1, 2, 3, 5, 6):
        recordings(s3, f"2026-11-0{number}")
    began = NOW - dt.timedelta(hours=1)
    publish(
        s3,
        summary("2026-11-01", published_at=began - dt.timedelta(days=2), unfinished=1),
        summary("2026-11-02", published_at=began + dt.timedelta(minutes=30)),
    )
    lease(s3, "days=2026-11-01_2026-11-04", began=began.isoformat())
    for number in (1, 3, 4):
        lease(s3, f"dt=2026-11-0{number}", range="2026-11-01/2026-11-04")
    assert states(read(s3, last=dt.date(2026, 11, 6))) == "running done running empty to_do to_do"
    s3.clock.wait(SILENT_S)
    assert states(read(s3, last=dt.date(2026, 11, 6))) == "held done held empty to_do to_do"
    s3.clock.wait(HELD_S)
    assert states(read(s3, last=dt.date(2026, 11, 6))) == "failed done failed empty to_do to_do"


def test_claims_of_a_run_over_several_days_are_understood(s3: Store) -> None:
    for day in days("2026-11-01", "2026-11-04"):
        recordings(s3, day)
    publish(s3, summary("2026-11-02", failures={"provider_error": 1}), summary("2026-11-03"))
    span = DayRange(dt.date(2026, 11, 1), dt.date(2026, 11, 4))
    lease_of_range = RangeLease(s3.state, span, "archive__1", [span.first, dt.date(2026, 11, 2), span.last])
    lease_of_range.take()
    assert states(read(s3, last=span.last)) == "running running done running"
    lease_of_range.release()
    assert states(read(s3, last=span.last)) == "failed failed done failed"


def test_days_without_a_summary_are_read_from_their_tables(s3: Store) -> None:
    recordings(s3, "2026-11-01")
    recordings(s3, "2026-11-02", 3)
    rows = [
        call("a", speech_usd=0.2, llm_usd=0.1, processed_at=NOON, run_id="scheduled__1"),
        call("b", status="failed", failure_class="provider_error"),
    ]
    for day in days("2026-11-01", "2026-11-02"):
        s3.tables.put(f"calls/dt={day}/calls.parquet", parquet(CALLS, *rows))
    found = read(s3, last=dt.date(2026, 11, 2))
    assert states(found) == "failed failed"
    one = found.days[0].summary
    assert one is not None
    assert (one.run_id, one.published_at, one.statuses, one.audio_s) == (
        "scheduled__1",
        NOON,
        {"completed": 1, "failed": 1},
        150.0,
    )
    assert found.speech_usd == pytest.approx(0.4)
    assert found.pace is None, "the rows say when each was processed, and not when the day was published"


def test_calendar_begins_with_the_first_day_that_anything_is_known_of(s3: Store) -> None:
    recordings(s3, "2026-11-14")
    assert [str(day.day) for day in read(s3, None, None).days][::6] == ["2026-11-14", "2026-11-20"]
    publish(s3, summary("2026-11-13"))
    assert [str(day.day) for day in read(s3, None, None).days][::7] == ["2026-11-13", "2026-11-20"]
    by_month = s3.pipeline(recordings={"prefix": "in/{date:%Y}/{date:%m/%d}/audio/"})
    put_all(s3.recordings, ["in/2025/11/30/audio/a.mp3", "in/2026/01/02/audio/a.mp3"])
    found = read(s3, None, None, pipeline=by_month)
    assert (str(found.days[0].day), len(found.of(State.TO_DO))) == ("2025-11-30", 2)


def test_nothing_is_known_of_an_empty_bucket(s3: Store) -> None:
    found = read(s3, None, None)
    assert states(found) == "empty"
    assert found.is_finished


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Pacific/Apia"])
def test_days_are_those_of_the_pipelines_zone(s3: Store, zone: str) -> None:
    put_all(s3.recordings, ["calls/20111229T2330.mp3", "calls/20111231T0030.mp3", "calls/20111231T2330.mp3"])
    pipeline = s3.pipeline(timezone=zone, recordings=BY_KEY)
    found = read(s3, dt.date(2011, 12, 29), dt.date(2011, 12, 31), pipeline=pipeline)
    expected = {"Pacific/Apia": "to_do to_do"}  # which had no 2011-12-30
    assert states(found) == expected.get(zone, "to_do empty to_do")
    assert [day.recordings for day in found.days if day.recordings] == [1, 2]


def year_of_runs(store: Store, year: list[dt.date]) -> None:
    """365 days of 20 calls as this version has published them, with 22 objects of each day's ledger."""
    publish(store, *(summary(day, listed=20, statuses={"completed": 20}) for day in year))
    put_all(store.warehouse, (f"tables/phases/dt={day}/phases.parquet" for day in year))
    put_all(
        store.warehouse,
        (f"state/ledger/dt={day}/run-{day}/chunk-{number:04}.jsonl" for day in year for number in range(21)),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "key"),
    [
        ({}, "calls/{day:%Y-%m-%d}/{number}.mp3"),
        ({"prefix": "in/{date:%Y/%m/%d}/"}, "in/{day:%Y/%m/%d}/{number}.mp3"),
        ({"prefix": "{date:%d.%m.%Y}/"}, "{day:%d.%m.%Y}/{number}.mp3"),
        (BY_KEY, "calls/{day:%Y%m%d}T{number:02}00.mp3"),
        ({**BY_KEY, "prefix": "calls/{date:%Y-%m}/"}, "calls/{day:%Y-%m}/{day:%Y%m%d}T{number:02}00.mp3"),
    ],
)
def test_year_of_small_days_takes_less_than_a_hundred_requests(s3: Store, source: dict[str, Any], key: str) -> None:
    year = days("2025-01-01", "2025-12-31")
    put_all(s3.recordings, (key.format(day=day, number=number) for day in year for number in range(20)))
    year_of_runs(s3, year[:300])
    found = read(s3, year[0], year[-1], pipeline=s3.pipeline(recordings=source))
    assert found.counts.source is Source.LISTING
    assert [len(found.of(state)) for state in (State.DONE, State.TO_DO)] == [300, 65]
    assert (found.recordings, found.left) == (7300, 1300)
    assert found.requests < 50


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "state"),
    [
        ({}, State.TO_DO),
        (
            {"prefix": "calls/", "call_time": {"key_pattern": r"/(?P<time>[\d-]{10})", "format": "%Y-%m-%d"}},
            State.NEVER_RUN,
        ),
    ],
)
def test_large_year_takes_less_than_a_hundred_requests(web: Web, source: dict[str, Any], state: State) -> None:
    year = days("2025-01-01", "2025-12-31")
    keys = [f"calls/{day}/{number:03}.mp3" for day in year for number in range(550)]
    # Runs that ended have left all of their days' leases, and no object to read.
    keys += [f"state/ledger/dt={day}/lease.json" for day in year[:100]]
    keys += [f"tables/calls/dt={day}/calls.parquet" for day in year[100:200]]
    found = read_calendar(pipeline(recordings=source), s3_of(web, keys), year[0], year[-1], now=NOW)
    assert [day.state for day in found.days] == [State.FAILED] * 100 + [State.PUBLISHED] * 100 + [state] * 165
    assert found.requests == len(web.requests) <= 100


@pytest.mark.slow
def test_years_of_days_without_summaries_are_read_within_their_requests(s3: Store) -> None:
    years = days("2024-01-01", "2025-12-31")
    put_all(s3.warehouse, (f"tables/calls/dt={day}/calls.parquet" for day in years), parquet(CALLS, call("a")))
    put_all(s3.warehouse, (f"state/ledger/dt={day}/lease.json" for day in years), LEASE.encode())
    found = read(s3, None, years[-1])
    assert len(found.days) == len(years)
    assert 100 < found.requests <= 200
    newest = [day.state for day in found.days[-90:]]
    assert newest == [State.DONE] * 90, "the latest days first"
    assert found.days[0].state is State.PUBLISHED


def test_saved_plan_gives_the_first_day_and_the_price(s3: Store) -> None:
    pipeline = s3.pipeline(recordings={"prefix": "calls/", "call_time": "last_modified"})
    planned = Planned({dt.date(2026, 11, 19): DayCount(10), dt.date(2026, 11, 20): DayCount(5)}, 0.25)
    found = read(s3, None, None, pipeline=pipeline, planned=planned)
    assert states(found) == "to_do to_do"
    assert (found.left, found.to_pay_usd, found.counts.source) == (15, 3.75, Source.PLAN)
