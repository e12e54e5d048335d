"""Each recording belongs to one day: whatever the prefix, the time in the key, the time zone and LastModified."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callphases.day_run import DayRun
from callphases.errors import ConfigurationError
from callphases.inspection.call_times import CallTimes
from callphases.listing.archive import Archive
from callphases.listing.late import late_days
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import StoredObject
from doubles import pipeline
from prefixes import DAILY, NOT_DAILY

ONE_DAY = dt.timedelta(days=1)
MIDDLE_DAYS = {
    "UTC": ["2026-11-30", "2027-01-01", "2028-02-29"],
    "Europe/Berlin": ["2026-03-29", "2026-10-25", "2026-11-30"],
    "America/New_York": ["2026-11-01", "2026-12-31"],
    "Asia/Kathmandu": ["2026-11-30"],
    "Pacific/Kiritimati": ["2026-11-30"],
    # Midnight does not exist, or exists twice.
    "Africa/Cairo": ["2026-04-24", "2026-10-30"],
    "America/Sao_Paulo": ["2017-10-15", "2018-02-18"],
    "Asia/Beirut": ["2021-03-28", "2021-10-31"],
    "America/Havana": ["2026-03-08", "2026-11-01"],
    "America/St_Johns": ["2006-10-29"],
    # A whole day does not exist.
    "Pacific/Apia": ["2011-12-30"],
}
FORMATS = [
    "%Y%m%dT%H%M%S", "%Y-%m-%d_%H-%M", "%Y/%m/%d/%H", "%Y%m%d", "%y%j%I%M%p", "%d %B %Y %H.%M", "%Y%m%dT%H%M%S%z",
    "%Y%m%dT%H:%M_%Z", "%Y-%m-%dT%H:%M:%SZ", "epoch",
]  # fmt: skip


@dataclass
class Bucket:
    """The client of a bucket of recordings: keys with ETag and LastModified. ``listed`` keeps the prefixes."""

    objects: dict[str, tuple[str, dt.datetime]] = field(default_factory=dict)
    listed: list[str] = field(default_factory=list)

    def get_paginator(self, _: str) -> Bucket:
        return self

    def paginate(self, Bucket: str, Prefix: str, **_: object) -> Iterator[dict[str, Any]]:  # noqa: N803
        self.listed.append(Prefix)
        yield {
            "Contents": [
                {"Key": key, "ETag": f'"{etag}"', "Size": 9, "LastModified": written}
                for key, (etag, written) in sorted(self.objects.items())
                if key.startswith(Prefix)
            ]
        }


@dataclass
class Memory:
    """``ObjectPrefix``, on a dict. Each object is old, so that no run waits for the lease of the one before."""

    objects: dict[str, StoredObject] = field(default_factory=dict)
    uri: str = "s3://warehouse/state/"

    def uri_of(self, name: str) -> str:
        return self.uri + name

    def put(self, name: str, body: bytes, content_type: str = "") -> str:
        self.objects[name] = StoredObject(body, f"e{len(self.objects)}-{hash(body)}", 3600.0)
        return self.uri_of(name)

    def put_if_match(self, name: str, body: bytes, etag: str | None, content_type: str = "") -> str | None:
        there = self.objects.get(name)
        if (there.etag if there else None) != etag:
            return None
        self.put(name, body)
        return self.objects[name].etag

    def look(self, name: str) -> StoredObject | None:
        return self.objects.get(name)

    def get(self, name: str) -> bytes | None:
        there = self.look(name)
        return there.body if there else None

    def names(self, below: str) -> Iterator[str]:
        return iter(sorted(name for name in self.objects if name.startswith(below)))


class Runs:
    """Runs of the days of a pipeline, up to what each of them would pay for."""

    def __init__(self, **settings: Any) -> None:
        self.pipeline = pipeline(**settings)
        self.bucket, self.state = Bucket(), Memory()
        services: Any = (self.bucket, SimpleNamespace(check=lambda: None), Models())
        self.day_run = DayRun(self.pipeline, *services)
        self.day_run.state = self.state  # type: ignore[assignment]
        self.runs = 0

    def put(self, key: str, written: str = "2024-11-20T12:00", etag: str = "e1") -> None:
        self.bucket.objects[key] = etag, dt.datetime.fromisoformat(f"{written}+00:00")

    def run(self, day: dt.date) -> list[str]:
        """The keys that a run of a day pays for, in order."""
        self.runs += 1
        listed = self.day_run.begin(day, f"run-{self.runs}")
        return [one.key for uri in listed.chunks for one in self.day_run.load(uri).recordings]

    @property
    def archive(self) -> Archive:
        return Archive(RecordingBucket(self.bucket, "recordings"), self.pipeline, self.state)  # type: ignore[arg-type]

    def list_anew(self) -> None:
        """Make the next run list its prefixes, as it does a day later."""
        for name, stored in list(self.state.objects.items()):
            if name.endswith("index.json"):
                self.state.put(name, stored.body.replace(b'"listed_at": "2', b'"listed_at": "1'))


class Models:
    """A gateway that serves all models."""

    def limited_by(self, _: object) -> Models:
        return self

    def check(self, models: list[str]) -> bool:
        return True


@dataclass(frozen=True)
class Call:
    """A recording below the prefix of ``folder``, written at ``written``; if it can be read, its key has ``local``."""

    folder: dt.date
    local: dt.datetime
    written: dt.datetime
    is_readable: bool

    def key(self, template: str, number: int, format: str | None, zone: dt.tzinfo) -> str:
        text = "voicemail"
        if self.is_readable and format is not None:
            moment = self.local.replace(tzinfo=dt.UTC if format.endswith("Z") else zone)
            text = f"{moment.timestamp():.0f}" if format == "epoch" else moment.strftime(format)
        return f"{template.format(date=self.folder)}{number}<{text}>.mp3"


def calls_around(day: dt.date) -> st.SearchStrategy[Call]:
    noon = dt.datetime.combine(day, dt.time(12))
    near = st.datetimes(noon - 2.5 * ONE_DAY, noon + 2.5 * ONE_DAY)
    midnight = st.builds(
        lambda number, minutes: noon + dt.timedelta(days=number + 0.5, minutes=minutes),
        st.integers(-2, 2),
        st.integers(-130, 130),
    )
    moments = st.one_of(near, midnight, near, midnight, st.datetimes(noon - 40 * ONE_DAY, noon + 40 * ONE_DAY))
    folders = st.one_of(st.integers(-1, 1), st.integers(-5, 5), st.sampled_from([-366, -40, -31, 31, 40, 365]))
    return st.builds(
        Call,
        folder=folders.map(lambda number: day + number * ONE_DAY),
        local=moments.map(lambda moment: moment.replace(fold=0)),
        written=moments.map(lambda moment: moment.replace(microsecond=0, tzinfo=dt.UTC)),
        is_readable=st.booleans() | st.just(True),
    )


def expected_day(call: Call, format: str | None, zone: ZoneInfo, in_keys: ZoneInfo) -> dt.date:
    """The local day of a call, by other means than the product's."""
    if format is None or not call.is_readable:
        return call.written.astimezone(zone).date()
    if format == "%Y%m%d":
        midnight = dt.datetime.combine(call.local, dt.time(), zone)
        return midnight.astimezone(dt.UTC).astimezone(zone).date()
    local = call.local.replace(tzinfo=dt.UTC if format.endswith("Z") else in_keys)
    if format == "%Y/%m/%d/%H":
        local = local.replace(minute=0)
    return local.astimezone(dt.UTC).astimezone(zone).date()


@settings(max_examples=100)
@given(data=st.data(), template=st.sampled_from(DAILY + NOT_DAILY), zone_name=st.sampled_from(sorted(MIDDLE_DAYS)))
def test_each_recording_is_paid_for_on_one_day(data: st.DataObject, template: str, zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    middle = dt.date.fromisoformat(data.draw(st.sampled_from(MIDDLE_DAYS[zone_name])))
    format = data.draw(st.none() | st.sampled_from(FORMATS))
    in_keys = data.draw(st.sampled_from([zone_name, "UTC"])) if format != "%Y%m%d" else zone_name
    look_back_days = data.draw(st.integers(0, 3))
    rule = {"key_pattern": "<(?P<time>.+)>", "format": format, "timezone": in_keys} if format else "last_modified"
    recordings = {"prefix": template, "call_time": rule, "look_back_days": look_back_days, "bucket": "recordings"}
    runs = Runs(recordings=recordings, timezone=zone_name)
    days = {}
    for number, call in enumerate(data.draw(st.lists(calls_around(middle), min_size=1, max_size=12))):
        key = call.key(template, number, format, ZoneInfo(in_keys))
        runs.bucket.objects[key] = (f"etag-{number}", call.written)
        days[key] = expected_day(call, format, zone, ZoneInfo(in_keys)), call.folder
    paid: dict[str, dt.date] = {}
    for number in (-1, 0, 1):
        day = middle + number * ONE_DAY
        for key in runs.run(day):
            assert key not in paid, f"paid for on {paid[key]} and {day}"
            paid[key] = day
        copied = data.draw(st.sets(st.sampled_from(sorted(runs.bucket.objects))))
        if copied or data.draw(st.booleans()):
            runs.list_anew()
        for key in copied:  # onto itself
            etag, written = runs.bucket.objects[key]
            runs.bucket.objects[key] = etag, written + data.draw(st.integers(1, 2)) * ONE_DAY
            if key not in paid and (format is None or "voicemail" in key):
                days.pop(key, None)  # on another day now, unless it was listed before
    for key, (day, folder) in days.items():
        if template in DAILY:
            assert paid.get(key) == (folder if abs(folder - middle) <= ONE_DAY else None)
        elif key in paid:
            assert paid[key] == day
        elif abs(day - middle) <= ONE_DAY:
            assert abs(folder - day) > max(look_back_days, 1) * ONE_DAY, "its prefix is that of quite another day"
            survey = CallTimes(runs.pipeline)
            runs.archive.survey([folder], survey.unmatched, survey.dayless).close()
            assert survey.dayless.count, "it is counted"


BY_KEY = {"key_pattern": r"(?P<time>\d{8}T\d{6})", "format": "%Y%m%dT%H%M%S"}
NOV_30, DEC_1 = dt.date(2024, 11, 30), dt.date(2024, 12, 1)


def of_a_month(call_time: object = "last_modified", **more: Any) -> Runs:
    return Runs(recordings={"prefix": "in/{date:%Y/%m}/", "call_time": call_time}, **more)


def test_prefix_of_a_month_is_listed_once_for_its_days() -> None:
    runs = of_a_month()
    for day in range(10, 21):
        runs.put(f"in/2024/11/{day}.mp3", f"2024-11-{day}T12:00")
    for day in range(10, 21):
        assert runs.run(dt.date(2024, 11, day)) == [f"in/2024/11/{day}.mp3"]
    assert runs.bucket.listed == ["in/2024/11/"]


def test_neighboring_months_are_listed_only_near_their_days_and_once() -> None:
    runs = of_a_month()
    runs.put("in/2024/11/a.mp3", "2024-11-30T12:00")
    runs.put("in/2024/11/b.mp3", "2024-12-01T00:10")
    runs.put("in/2024/12/c.mp3", "2024-12-01T12:00")
    days = [NOV_30 + number * ONE_DAY for number in range(-4, 6)]
    assert [runs.run(day) for day in days if day in (NOV_30, DEC_1)] == [
        ["in/2024/11/a.mp3"],
        ["in/2024/11/b.mp3", "in/2024/12/c.mp3"],
    ]
    for day in days:
        runs.run(day)
    assert sorted(runs.bucket.listed) == ["in/2024/11/"] * 2 + ["in/2024/12/"] * 2, "once more for the two rerun"


def test_month_of_the_prefix_may_go_by_another_time_zone() -> None:
    runs = of_a_month({**BY_KEY, "timezone": "UTC"}, timezone="America/New_York")
    runs.put("in/2024/12/20241201T030000.mp3")  # 22:00 of November 30 in New York
    runs.put("in/2024/12/20241201T060000.mp3")
    assert runs.run(NOV_30) == ["in/2024/12/20241201T030000.mp3"]
    assert runs.run(DEC_1) == ["in/2024/12/20241201T060000.mp3"]


def test_recording_far_from_the_days_of_its_prefix_is_named_and_not_paid_for(caplog: pytest.LogCaptureFixture) -> None:
    runs = of_a_month(BY_KEY)
    runs.put("in/2024/11/20230101T120000.mp3")
    runs.put("in/2024/11/20241120T120000.mp3")
    for day in (dt.date(2023, 1, 1), dt.date(2024, 11, 20)):
        runs.run(day)
    assert "1 recordings are on no day" in caplog.text
    assert "'in/2024/11/20230101T120000.mp3'" in caplog.text
    assert runs.run(dt.date(2024, 11, 21)) == []


def test_look_back_finds_late_recordings_of_the_previous_month() -> None:
    runs = of_a_month(BY_KEY)
    for day in (NOV_30, DEC_1, DEC_1 + ONE_DAY):
        runs.run(day)
        runs.list_anew()
    runs.put("in/2024/11/20241130T120000.mp3")
    runs.run(DEC_1 + 2 * ONE_DAY)
    bucket: Any = RecordingBucket(runs.bucket, "recordings")  # type: ignore[arg-type]
    state: Any = runs.state
    assert list(late_days(bucket, runs.pipeline, state, lambda _: set(), DEC_1 + 2 * ONE_DAY)) == [NOV_30]


@pytest.mark.parametrize("prefix", ["in/", "in/{date:%Y/%m}/", "in/{date:%-m}"])
def test_recording_copied_onto_itself_stays_on_its_day(prefix: str) -> None:
    runs = Runs(recordings={"prefix": prefix})
    key = f"{prefix.format(date=DEC_1)}a.mp3"
    runs.put(key, "2024-12-01T12:00")
    assert runs.run(DEC_1) == [key]
    for number in (1, 2, 3):
        runs.put(key, f"2024-12-0{1 + number}T12:00")
        runs.list_anew()
        assert runs.run(DEC_1 + number * ONE_DAY) == []
    runs.put(key, "2024-12-05T12:00", etag="other bytes")
    runs.list_anew()
    assert runs.run(DEC_1 + 4 * ONE_DAY) == [key]


def test_day_that_a_prefix_with_two_digits_of_a_year_can_not_tell_is_refused() -> None:
    runs = Runs(recordings={"prefix": "in/{date:%y%m%d}/"})
    runs.put("in/261120/a.mp3")
    with pytest.raises(ConfigurationError, match=r"1926-11-20 has no prefix in recordings\.prefix"):
        runs.run(dt.date(1926, 11, 20))
    assert runs.run(dt.date(2026, 11, 20)) == ["in/261120/a.mp3"]
