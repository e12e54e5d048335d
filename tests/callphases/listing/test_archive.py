"""A flat archive is listed once for all of its days: when a day is taken from the index, and when it is listed anew."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import ConfigurationError, DayHeld
from callphases.listing.archive import Archive, Index, RecordingsByDay
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from callphases.state.lease import FRESH_S, LIFE_S
from callphases.state.storage import ObjectPrefix
from doubles import DAY, NOON, Clock, Store, pipeline, recording

BY_KEY = {"key_pattern": r"(?P<time>\d{8}T\d{6})", "format": "%Y%m%dT%H%M%S"}
ONE_DAY = dt.timedelta(days=1)


class Shelf:
    """A flat archive of a call a day, and what runs of its days find in it."""

    def __init__(self, s3: Store) -> None:
        self.s3 = s3
        self.settings: dict[str, Any] = {"recordings": {"prefix": "calls/", "call_time": BY_KEY}}
        self.used: dict[dt.date, str] = {}

    def put(self, *days: dt.date, time: str = "120000", name: str = "") -> None:
        for day in days:
            self.s3.put(f"calls/{day:%Y%m%d}T{time}{name}.mp3", name.encode())

    def archive(self, **more: Any) -> Archive:
        pipeline = self.s3.pipeline(**self.settings)
        bucket = RecordingBucket(self.s3.client, pipeline.recordings.bucket)
        return Archive(bucket, pipeline, self.s3.state, **more)

    def run(self, day: dt.date, **more: Any) -> list[str]:
        """The keys of a day, as one run after the other takes them."""
        self.used[day], recordings = self.archive(**more).take(day, self.used.get(day), f"run-{len(self.s3.asked)}")
        return [one.key.removeprefix("calls/").removesuffix(".mp3") for one in recordings]

    @property
    def listings(self) -> int:
        """How often the archive was listed since it was asked last."""
        count = self.s3.listed.count("calls/")
        self.s3.listed.clear()
        return count

    @property
    def objects(self) -> list[str]:
        keys = (key.removeprefix("state/index/") for key in self.s3.keys("state/index/"))
        return [key.partition("/")[2] for key in keys]

    @property
    def index(self) -> dict[str, Any]:
        (key,) = (key for key in self.s3.keys("state/index/") if key.endswith("index.json"))
        return json.loads(self.s3.bytes_of(key))

    def writes(self, ending: str) -> int:
        return sum(operation == "PutObject" and key.endswith(ending) for operation, key in self.s3.asked)


@pytest.fixture
def shelf(s3: Store) -> Shelf:
    return Shelf(s3)


DAYS = [DAY - number * ONE_DAY for number in range(10)]

# When it is listed


@pytest.mark.integration
def test_all_days_of_an_archive_are_listed_once(shelf: Shelf) -> None:
    shelf.put(*DAYS)
    for day in DAYS:
        assert shelf.run(day) == [f"{day:%Y%m%d}T120000"]
    assert shelf.listings == 1


@pytest.mark.integration
def test_all_days_run_again_are_listed_once_more_and_what_came_late_is_found(shelf: Shelf) -> None:
    shelf.put(*DAYS)
    for day in DAYS:
        shelf.run(day)
    shelf.put(*DAYS, name="-late")
    assert shelf.listings == 1
    for _ in range(2):
        for day in DAYS:
            assert shelf.run(day) == [f"{day:%Y%m%d}T120000-late", f"{day:%Y%m%d}T120000"]
        assert shelf.listings == 1


@pytest.mark.integration
def test_a_day_is_listed_anew_where_the_index_is_older_than_its_end(shelf: Shelf) -> None:
    today = dt.datetime.now(dt.UTC).date()
    shelf.put(today - ONE_DAY, today)
    assert len(shelf.run(today - ONE_DAY)) == 1
    for run in range(3):
        shelf.used.clear()
        shelf.put(today, time=f"11000{run}")
        assert len(shelf.run(today)) == 2 + run, "it is not over"
    assert shelf.listings == 4


@pytest.mark.integration
def test_a_day_is_over_in_its_own_zone(shelf: Shelf) -> None:
    now = dt.datetime.now(dt.UTC)
    far_east, far_west = (f"Etc/GMT{sign}12" for sign in "-+")  # the signs of POSIX: it is later in the first
    shelf.settings["timezone"] = far_east
    over = (now + dt.timedelta(hours=12)).date() - ONE_DAY
    shelf.run(over)
    shelf.used.clear()
    shelf.run(over)
    assert shelf.listings == 1
    shelf.settings["timezone"] = far_west
    not_over = (now - dt.timedelta(hours=12)).date()
    shelf.run(not_over)
    shelf.used.clear()
    shelf.run(not_over)
    assert shelf.listings == 2


@pytest.mark.integration
@pytest.mark.parametrize(
    "change",
    [
        {"timezone": "Europe/Berlin"},
        {"recordings": {"prefix": "calls/", "call_time": "last_modified"}},
        {"recordings": {"prefix": "calls/", "call_time": BY_KEY, "suffixes": [".mp3"]}},
        {"recordings": {"prefix": "calls/", "call_time": {**BY_KEY, "format": "%Y%d%mT%H%M%S"}}},
    ],
)
def test_what_decides_which_call_is_whose_day_has_an_index_of_its_own(shelf: Shelf, change: dict[str, Any]) -> None:
    shelf.run(DAY)
    before = shelf.settings
    shelf.settings = before | change
    shelf.run(DAY)
    assert shelf.listings == 2
    assert len({key.split("/")[2] for key in shelf.s3.keys("state/index/")}) == 2
    shelf.settings = before
    shelf.used.clear()
    shelf.run(DAY)
    assert shelf.listings == 0


@pytest.mark.integration
def test_an_index_is_read_with_few_requests(shelf: Shelf) -> None:
    shelf.put(*DAYS)
    shelf.run(DAYS[0])
    shelf.s3.asked.clear()
    shelf.run(DAYS[1])
    assert shelf.s3.counted() == {"GetObject": 2}
    shelf.s3.asked.clear()
    assert shelf.run(DAYS[-1] - ONE_DAY) == []
    assert shelf.s3.counted() == {"GetObject": 1}


@pytest.mark.integration
def test_an_archive_that_is_empty_is_listed_once_too(shelf: Shelf) -> None:
    for day in DAYS:
        assert shelf.run(day) == []
    assert shelf.listings == 1


MIDNIGHT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.mark.parametrize(
    ("listed_at", "now", "serves", "serves_none"),
    [
        (MIDNIGHT - HOUR / 3600, MIDNIGHT, False, False),
        (MIDNIGHT, MIDNIGHT, True, True),
        (MIDNIGHT, MIDNIGHT + HOUR, True, True),
        (MIDNIGHT, MIDNIGHT + 1.1 * HOUR, True, False),
        (MIDNIGHT, MIDNIGHT + 24 * HOUR, True, False),
        (MIDNIGHT, MIDNIGHT + 24.1 * HOUR, False, False),
        (MIDNIGHT + 24 * HOUR, MIDNIGHT + 23 * HOUR, True, True),
    ],
)
def test_a_listing_serves_for_a_day_and_for_an_hour_where_it_has_nothing(
    listed_at: dt.datetime, now: dt.datetime, serves: bool, serves_none: bool
) -> None:
    flat = pipeline(recordings={"prefix": ""})
    entries = {str(DAY): {"recordings": 1, "object": "x"}}
    assert Index("listing", listed_at, entries).is_usable(flat, DAY, "another", now) == serves
    assert Index("listing", listed_at, {}).is_usable(flat, DAY, None, now) == serves_none
    assert not Index("listing", listed_at, entries).is_usable(flat, DAY, "listing", now)


# Which day a call is on


@pytest.mark.integration
def test_a_day_is_that_of_the_upload_in_the_pipelines_zone(shelf: Shelf) -> None:
    # In New York the 20th lasts from 05:00 UTC to 05:00 UTC of the 21st.
    written = {"a": (20, 4, 59), "b": (20, 5, 0), "c": (21, 4, 59), "d": (21, 5, 0)}
    for name, (day, hour, minute) in written.items():
        shelf.s3.put(f"calls/{name}.mp3")
        shelf.s3.written[f"calls/{name}.mp3"] = dt.datetime(2026, 11, day, hour, minute, tzinfo=dt.UTC)
    shelf.settings = {"recordings": {"prefix": "calls/"}, "timezone": "America/New_York"}
    assert [shelf.run(DAY + number * ONE_DAY) for number in (-1, 0, 1)] == [["a"], ["b", "c"], ["d"]]


@pytest.mark.integration
def test_a_day_is_that_of_the_key_in_the_pipelines_zone(shelf: Shelf) -> None:
    for time in ("20261119T235959", "20261120T000000", "20261120T235959", "20261121T000000"):
        shelf.s3.put(f"calls/{time}.mp3")
    shelf.settings["timezone"] = "America/New_York"
    assert shelf.run(DAY) == ["20261120T000000", "20261120T235959"]


@pytest.mark.integration
def test_a_recording_is_taken_from_the_index_as_it_was_listed(shelf: Shelf) -> None:
    keys = ["calls/a+b 100%.mp3", "calls/☎️ 🎧.mp3", """calls/"it's" a\u2028b.mp3"""]
    put = [shelf.s3.put(key) for key in keys]
    shelf.s3.written.update(dict.fromkeys(keys, NOON))
    shelf.settings = {"recordings": {"prefix": "calls/"}}
    _, found = shelf.archive().take(DAY, None, "run-1")
    assert list(found) == sorted(put, key=lambda one: one.key.encode())


@pytest.mark.integration
def test_keys_without_a_time_are_warned_about_once_a_listing(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    shelf.s3.put("calls/voicemail.mp3")
    for day in DAYS:
        shelf.run(day)
    assert caplog.text.count("1 keys do not match recordings.call_time.key_pattern") == 1


# What is written


@pytest.mark.integration
def test_only_days_that_have_changed_are_written_again(shelf: Shelf) -> None:
    shelf.put(*DAYS)
    shelf.run(DAY)
    shelf.put(DAYS[3], time="130000")
    shelf.run(DAY)
    assert shelf.listings == 2
    assert shelf.writes(".jsonl.gz") == len(DAYS) + 1
    assert shelf.index["days"][str(DAYS[3])]["recordings"] == 2
    assert len(shelf.index["days"]) == len(DAYS)


@pytest.mark.integration
def test_who_has_read_an_older_index_still_finds_its_days(shelf: Shelf) -> None:
    shelf.put(DAY)
    shelf.run(DAY)
    older = shelf.index["days"][str(DAY)]["object"]
    shelf.put(DAY, time="130000")
    shelf.run(DAY)
    assert shelf.index["days"][str(DAY)]["object"] != older
    assert older in shelf.objects


@pytest.mark.integration
def test_objects_that_were_deleted_are_all_written_again_by_one_listing(shelf: Shelf) -> None:
    shelf.put(*DAYS)
    shelf.run(DAY)
    for key in shelf.s3.keys("state/index/"):
        if key.endswith(".gz"):
            shelf.s3.client.delete_object(Bucket=shelf.s3.warehouse, Key=key)
    for day in DAYS[1:]:
        assert shelf.run(day) == [f"{day:%Y%m%d}T120000"]
    assert shelf.listings == 2


@pytest.mark.integration
def test_a_day_that_has_lost_its_recordings_is_empty(shelf: Shelf) -> None:
    shelf.put(DAY)
    shelf.run(DAY)
    shelf.s3.client.delete_object(Bucket=shelf.s3.recordings, Key=f"calls/{DAY:%Y%m%d}T120000.mp3")
    assert shelf.run(DAY) == []


@pytest.mark.integration
def test_a_bucket_that_is_not_there_names_the_setting_and_keeps_nobody_waiting(shelf: Shelf) -> None:
    good = shelf.settings
    shelf.settings = {"recordings": {**good["recordings"], "bucket": "nowhere"}}
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"recordings\.bucket"):
            shelf.run(DAY)


# Runs at the same moment


@pytest.fixture
def half_way(shelf: Shelf) -> Iterator[dict[str, Any]]:
    """What another run does while the first one has listed the archive and written nothing yet."""
    doing: dict[str, Any] = {}

    def pause(**_: object) -> None:
        if (what := doing.pop("what", None)) is not None:
            doing["got"] = what()

    shelf.s3.client.meta.events.register("after-call.s3.ListObjectsV2", pause)
    yield doing
    assert "got" in doing


@pytest.mark.integration
def test_a_run_waits_for_the_one_that_lists(shelf: Shelf, half_way: dict[str, Any]) -> None:
    shelf.put(*DAYS)

    def another() -> float:
        with pytest.raises(DayHeld, match="lists the archive") as held:
            shelf.run(DAYS[1])
        return held.value.wait_s

    half_way["what"] = another
    assert len(shelf.run(DAYS[0])) == 1
    assert 0 < half_way["got"] <= LIFE_S
    assert len(shelf.run(DAYS[1])) == 1
    assert shelf.listings == 1


@pytest.mark.integration
def test_a_run_that_comes_when_another_has_just_listed_takes_that(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw no index, and has its turn when there is one."""
    shelf.put(*DAYS)
    look, looked = ObjectPrefix.look, threading.Event()

    def late(folder: ObjectPrefix, name: str) -> Any:
        stored = look(folder, name)
        if name.endswith("index.json") and not looked.is_set():
            looked.set()
            shelf.run(DAYS[0])
        return stored

    monkeypatch.setattr(ObjectPrefix, "look", late)
    assert len(shelf.run(DAYS[1])) == 1
    assert shelf.listings == 1


@pytest.mark.integration
def test_a_run_that_was_silent_for_too_long_leaves_the_index_to_the_other(
    shelf: Shelf, half_way: dict[str, Any], clock: Clock
) -> None:
    shelf.put(*DAYS)

    def another() -> dict[str, Any]:
        clock.now += LIFE_S
        assert len(shelf.run(DAYS[1])) == 1
        return shelf.index

    half_way["what"] = another
    with pytest.raises(DayHeld):
        shelf.run(DAYS[0])
    assert shelf.index == half_way["got"]
    assert len(shelf.run(DAYS[0])) == 1
    assert shelf.listings == 2


@pytest.mark.integration
def test_a_listing_that_was_overtaken_unseen_is_not_written_over_the_other(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put(*DAYS)
    shelf.run(DAYS[0])
    monkeypatch.setattr(
        ObjectPrefix,
        "put_if_match",
        lambda folder, name, *rest, put_if_match=ObjectPrefix.put_if_match: (
            None if name.endswith("index.json") else put_if_match(folder, name, *rest)
        ),
    )
    before = shelf.index
    with pytest.raises(DayHeld, match="meanwhile") as held:
        shelf.run(DAYS[0])
    assert held.value.wait_s == 0
    assert shelf.index == before


@pytest.mark.integration
def test_who_lists_for_long_is_heard_of(shelf: Shelf, clock: Clock) -> None:
    shelf.put(*DAYS)
    shelf.s3.client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=1)
    )
    alive: list[float] = []

    def page(**_: object) -> None:
        clock.now += FRESH_S
        with pytest.raises(DayHeld):
            shelf.archive().take(DAYS[1], None, "another")

    shelf.s3.client.meta.events.register("after-call.s3.ListObjectsV2", page)
    assert len(shelf.run(DAYS[0], heartbeat=lambda: alive.append(clock.now))) == 1
    assert len(set(alive)) == len(DAYS)


# On disk


@given(
    st.lists(
        st.builds(
            recording,
            st.text(st.characters(exclude_categories=["Cs"])),
            size=st.integers(0, 2**50),
            call_time=st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 6), timezones=st.just(dt.UTC)),
        )
    )
)
def test_every_recording_is_on_the_day_of_its_call_in_its_place(recordings: list[Recording]) -> None:
    tokyo = pipeline(recordings={"prefix": ""}, timezone="Asia/Tokyo")
    found = RecordingsByDay(tokyo, recordings)
    expected: dict[dt.date, list[Recording]] = {}
    for one in recordings:
        expected.setdefault((one.call_time + dt.timedelta(hours=9)).date(), []).append(one)
    assert found.counts == {day: len(ones) for day, ones in expected.items()}
    assert {day: list(found.recordings_of(day)) for day in expected} == expected
    found.close()


def test_days_that_hold_the_same_have_the_same_name_whatever_is_on_others() -> None:
    flat = pipeline(recordings={"prefix": ""})
    a, b = recording("a"), recording("b")
    other = recording("b", call_time=NOON + ONE_DAY)
    names = [
        RecordingsByDay(flat, ones).digest(DAY) for ones in ([a, b], [other, a, b], [a, recording("b", etag="e2")], [a])
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3
