"""The index of a flat archive: when it is used, when the archive is listed again, and concurrent runs."""

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


class Runs:
    """A flat archive with a call per day, and runs of its days."""

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
        """How often the archive was listed since this property was last read."""
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
def runs(s3: Store) -> Runs:
    return Runs(s3)


DAYS = [DAY - number * ONE_DAY for number in range(10)]

# When the archive is listed


@pytest.mark.integration
def test_archive_is_listed_once_for_all_days(runs: Runs) -> None:
    runs.put(*DAYS)
    for day in DAYS:
        assert runs.run(day) == [f"{day:%Y%m%d}T120000"]
    assert runs.listings == 1


@pytest.mark.integration
def test_rerunning_all_days_lists_once_more_and_finds_late_recordings(runs: Runs) -> None:
    runs.put(*DAYS)
    for day in DAYS:
        runs.run(day)
    runs.put(*DAYS, name="-late")
    assert runs.listings == 1
    for _ in range(2):
        for day in DAYS:
            assert runs.run(day) == [f"{day:%Y%m%d}T120000-late", f"{day:%Y%m%d}T120000"]
        assert runs.listings == 1


@pytest.mark.integration
def test_index_older_than_the_end_of_the_day_is_not_used(runs: Runs) -> None:
    today = dt.datetime.now(dt.UTC).date()
    runs.put(today - ONE_DAY, today)
    assert len(runs.run(today - ONE_DAY)) == 1
    for run in range(3):
        runs.used.clear()
        runs.put(today, time=f"11000{run}")
        assert len(runs.run(today)) == 2 + run, "the day is not over"
    assert runs.listings == 4


@pytest.mark.integration
def test_end_of_day_is_in_the_pipelines_time_zone(runs: Runs) -> None:
    now = dt.datetime.now(dt.UTC)
    far_east, far_west = (f"Etc/GMT{sign}12" for sign in "-+")  # POSIX signs: Etc/GMT-12 is UTC+12
    runs.settings["timezone"] = far_east
    over = (now + dt.timedelta(hours=12)).date() - ONE_DAY
    runs.run(over)
    runs.used.clear()
    runs.run(over)
    assert runs.listings == 1
    runs.settings["timezone"] = far_west
    not_over = (now - dt.timedelta(hours=12)).date()
    runs.run(not_over)
    runs.used.clear()
    runs.run(not_over)
    assert runs.listings == 2


@pytest.mark.integration
@pytest.mark.parametrize(
    "change",
    [
        {"timezone": "Europe/Berlin"},
        {"recordings": {"prefix": "calls/", "call_time": "last_modified"}},
        {"recordings": {"prefix": "calls/", "call_time": BY_KEY, "suffixes": [".mp3"]}},
        {"recordings": {"prefix": "calls/", "call_time": {**BY_KEY, "format": "%Y%d%mT%H%M%S"}}},
        {"recordings": {"prefix": "calls/", "call_time": {**BY_KEY, "timezone": "Asia/Tokyo"}}},
    ],
)
def test_settings_that_affect_the_index_get_an_index_of_their_own(runs: Runs, change: dict[str, Any]) -> None:
    runs.run(DAY)
    before = runs.settings
    runs.settings = before | change
    runs.run(DAY)
    assert runs.listings == 2
    assert len({key.split("/")[2] for key in runs.s3.keys("state/index/")}) == 2
    runs.settings = before
    runs.used.clear()
    runs.run(DAY)
    assert runs.listings == 0


@pytest.mark.integration
def test_reading_the_index_takes_at_most_two_requests(runs: Runs) -> None:
    runs.put(*DAYS)
    runs.run(DAYS[0])
    runs.s3.asked.clear()
    runs.run(DAYS[1])
    assert runs.s3.counted() == {"GetObject": 2}
    runs.s3.asked.clear()
    assert runs.run(DAYS[-1] - ONE_DAY) == []
    assert runs.s3.counted() == {"GetObject": 1}


@pytest.mark.integration
def test_empty_archive_is_listed_once(runs: Runs) -> None:
    for day in DAYS:
        assert runs.run(day) == []
    assert runs.listings == 1


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
def test_index_is_usable_for_a_day_or_an_hour_if_it_lacks_the_day(
    listed_at: dt.datetime, now: dt.datetime, serves: bool, serves_none: bool
) -> None:
    flat = pipeline(recordings={"prefix": ""})
    entries = {str(DAY): {"recordings": 1, "object": "x"}}
    assert Index("listing", listed_at, entries).is_usable(flat, DAY, "another", now) == serves
    assert Index("listing", listed_at, {}).is_usable(flat, DAY, None, now) == serves_none
    assert not Index("listing", listed_at, entries).is_usable(flat, DAY, "listing", now)


# Which day a call is on


@pytest.mark.integration
def test_day_from_last_modified_is_in_the_pipelines_time_zone(runs: Runs) -> None:
    # In New York the 20th lasts from 05:00 UTC to 05:00 UTC of the 21st.
    written = {"a": (20, 4, 59), "b": (20, 5, 0), "c": (21, 4, 59), "d": (21, 5, 0)}
    for name, (day, hour, minute) in written.items():
        runs.s3.put(f"calls/{name}.mp3")
        runs.s3.written[f"calls/{name}.mp3"] = dt.datetime(2026, 11, day, hour, minute, tzinfo=dt.UTC)
    runs.settings = {"recordings": {"prefix": "calls/"}, "timezone": "America/New_York"}
    assert [runs.run(DAY + number * ONE_DAY) for number in (-1, 0, 1)] == [["a"], ["b", "c"], ["d"]]


@pytest.mark.integration
def test_day_from_key_is_in_the_pipelines_time_zone(runs: Runs) -> None:
    for time in ("20261119T235959", "20261120T000000", "20261120T235959", "20261121T000000"):
        runs.s3.put(f"calls/{time}.mp3")
    runs.settings["timezone"] = "America/New_York"
    assert runs.run(DAY) == ["20261120T000000", "20261120T235959"]


@pytest.mark.integration
def test_recordings_from_the_index_equal_those_listed(runs: Runs) -> None:
    keys = ["calls/a+b 100%.mp3", "calls/☎️ 🎧.mp3", """calls/"it's" a\u2028b.mp3"""]
    put = [runs.s3.put(key) for key in keys]
    runs.s3.written.update(dict.fromkeys(keys, NOON))
    runs.settings = {"recordings": {"prefix": "calls/"}}
    _, found = runs.archive().take(DAY, None, "run-1")
    assert list(found) == sorted(put, key=lambda one: one.key.encode())


@pytest.mark.integration
def test_keys_without_a_time_log_one_warning_per_listing(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    runs.s3.put("calls/voicemail.mp3")
    for day in DAYS:
        runs.run(day)
    assert caplog.text.count("1 keys do not match recordings.call_time.key_pattern") == 1


# Objects of the index


@pytest.mark.integration
def test_only_changed_days_are_rewritten(runs: Runs) -> None:
    runs.put(*DAYS)
    runs.run(DAY)
    runs.put(DAYS[3], time="130000")
    runs.run(DAY)
    assert runs.listings == 2
    assert runs.writes(".jsonl.gz") == len(DAYS) + 1
    assert runs.index["days"][str(DAYS[3])]["recordings"] == 2
    assert len(runs.index["days"]) == len(DAYS)


@pytest.mark.integration
def test_objects_of_an_older_index_are_kept(runs: Runs) -> None:
    runs.put(DAY)
    runs.run(DAY)
    older = runs.index["days"][str(DAY)]["object"]
    runs.put(DAY, time="130000")
    runs.run(DAY)
    assert runs.index["days"][str(DAY)]["object"] != older
    assert older in runs.objects


@pytest.mark.integration
def test_one_listing_restores_all_deleted_objects(runs: Runs) -> None:
    runs.put(*DAYS)
    runs.run(DAY)
    for key in runs.s3.keys("state/index/"):
        if key.endswith(".gz"):
            runs.s3.client.delete_object(Bucket=runs.s3.warehouse, Key=key)
    for day in DAYS[1:]:
        assert runs.run(day) == [f"{day:%Y%m%d}T120000"]
    assert runs.listings == 2


@pytest.mark.integration
def test_day_whose_recordings_were_deleted_is_empty(runs: Runs) -> None:
    runs.put(DAY)
    runs.run(DAY)
    runs.s3.client.delete_object(Bucket=runs.s3.recordings, Key=f"calls/{DAY:%Y%m%d}T120000.mp3")
    assert runs.run(DAY) == []


@pytest.mark.integration
def test_missing_bucket_error_names_the_setting_and_releases_the_lease(runs: Runs) -> None:
    good = runs.settings
    runs.settings = {"recordings": {**good["recordings"], "bucket": "nowhere"}}
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"recordings\.bucket"):
            runs.run(DAY)


# Concurrent runs


@pytest.fixture
def half_way(runs: Runs) -> Iterator[dict[str, Any]]:
    """What another run does after the first one has listed the archive, before it writes the index."""
    doing: dict[str, Any] = {}

    def pause(**_: object) -> None:
        if (what := doing.pop("what", None)) is not None:
            doing["got"] = what()

    runs.s3.client.meta.events.register("after-call.s3.ListObjectsV2", pause)
    yield doing
    assert "got" in doing


@pytest.mark.integration
def test_run_waits_while_another_lists_the_archive(runs: Runs, half_way: dict[str, Any]) -> None:
    runs.put(*DAYS)

    def another() -> float:
        with pytest.raises(DayHeld, match="lists the archive") as held:
            runs.run(DAYS[1])
        return held.value.wait_s

    half_way["what"] = another
    assert len(runs.run(DAYS[0])) == 1
    assert 0 < half_way["got"] <= LIFE_S
    assert len(runs.run(DAYS[1])) == 1
    assert runs.listings == 1


@pytest.mark.integration
def test_run_uses_an_index_written_while_it_took_the_lease(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees no index before it takes the lease, and finds one after."""
    runs.put(*DAYS)
    look, looked = ObjectPrefix.look, threading.Event()

    def late(folder: ObjectPrefix, name: str) -> Any:
        stored = look(folder, name)
        if name.endswith("index.json") and not looked.is_set():
            looked.set()
            runs.run(DAYS[0])
        return stored

    monkeypatch.setattr(ObjectPrefix, "look", late)
    assert len(runs.run(DAYS[1])) == 1
    assert runs.listings == 1


@pytest.mark.integration
def test_run_with_an_expired_lease_does_not_write_the_index(runs: Runs, half_way: dict[str, Any], clock: Clock) -> None:
    runs.put(*DAYS)

    def another() -> dict[str, Any]:
        clock.now += LIFE_S
        assert len(runs.run(DAYS[1])) == 1
        return runs.index

    half_way["what"] = another
    with pytest.raises(DayHeld):
        runs.run(DAYS[0])
    assert runs.index == half_way["got"]
    assert len(runs.run(DAYS[0])) == 1
    assert runs.listings == 2


@pytest.mark.integration
def test_conditional_put_protects_an_index_written_meanwhile(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.put(*DAYS)
    runs.run(DAYS[0])
    monkeypatch.setattr(
        ObjectPrefix,
        "put_if_match",
        lambda folder, name, *rest, put_if_match=ObjectPrefix.put_if_match: (
            None if name.endswith("index.json") else put_if_match(folder, name, *rest)
        ),
    )
    before = runs.index
    with pytest.raises(DayHeld, match="meanwhile") as held:
        runs.run(DAYS[0])
    assert held.value.wait_s == 0
    assert runs.index == before


@pytest.mark.integration
def test_lease_is_renewed_during_a_long_listing(runs: Runs, clock: Clock) -> None:
    runs.put(*DAYS)
    runs.s3.client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=1)
    )
    alive: list[float] = []

    def page(**_: object) -> None:
        clock.now += FRESH_S
        with pytest.raises(DayHeld):
            runs.archive().take(DAYS[1], None, "another")

    runs.s3.client.meta.events.register("after-call.s3.ListObjectsV2", page)
    assert len(runs.run(DAYS[0], heartbeat=lambda: alive.append(clock.now))) == 1
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
def test_recordings_by_day_keep_day_and_order(recordings: list[Recording]) -> None:
    tokyo = pipeline(recordings={"prefix": ""}, timezone="Asia/Tokyo")
    found = RecordingsByDay(tokyo, recordings)
    expected: dict[dt.date, list[Recording]] = {}
    for one in recordings:
        expected.setdefault((one.call_time + dt.timedelta(hours=9)).date(), []).append(one)
    assert found.counts == {day: len(ones) for day, ones in expected.items()}
    assert {day: list(found.recordings_of(day)) for day in expected} == expected
    found.close()


def test_digest_depends_only_on_the_days_own_recordings() -> None:
    flat = pipeline(recordings={"prefix": ""})
    a, b = recording("a"), recording("b")
    other = recording("b", call_time=NOON + ONE_DAY)
    names = [
        RecordingsByDay(flat, ones).digest(DAY) for ones in ([a, b], [other, a, b], [a, recording("b", etag="e2")], [a])
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3
