"""What is shown of how the times and days of calls are read."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from callphases.inspection.call_times import CallTimes
from callphases.inspection.findings import Finding, Health
from callphases.listing.listing import time_in_key
from callphases.pipeline import KeyTime
from doubles import DAY, NOON, pipeline, recording

BY_KEY = {"key_pattern": r"(?P<time>\d{8}T\d{6})", "format": "%Y%m%dT%H%M%S"}


def seen(*keys: str, day: dt.date | None = None, timezone: str = "UTC", **recordings: Any) -> list[Finding]:
    """The findings after looking at recordings that were uploaded on noon of the day."""
    ours = pipeline(recordings=recordings, timezone=timezone)
    times, rule = CallTimes(ours), ours.recordings.call_time
    for key in keys:
        in_key = time_in_key(key, rule, ours.zone) if isinstance(rule, KeyTime) else None
        if isinstance(rule, KeyTime) and in_key is None:
            times.unmatched.add(key)
        times.see(recording(key, call_time=in_key or NOON), day)
    return list(times.findings())


def test_three_recordings_are_shown_with_time_and_day() -> None:
    keys = [f"in/20261120T{hour}3000.mp3" for hour in (21, 22, 23, 20)]
    found = seen(*keys, prefix="in/", call_time={**BY_KEY, "timezone": "UTC"}, timezone="Europe/Berlin")
    assert found == [
        Finding(Health.GOOD, "call times", f"{keys[0]}: 2026-11-20 22:30:00+01:00, day 2026-11-20"),
        Finding(Health.GOOD, "call times", f"{keys[1]}: 2026-11-20 23:30:00+01:00, day 2026-11-20"),
        Finding(Health.GOOD, "call times", f"{keys[2]}: 2026-11-21 00:30:00+01:00, day 2026-11-21"),
    ]


def test_daily_prefix_gives_the_day() -> None:
    [found] = seen("calls/2026-11-20/20261119T235900.mp3", day=DAY, call_time=BY_KEY)
    assert found.detail.endswith("2026-11-19 23:59:00+00:00, day 2026-11-20")


@pytest.mark.parametrize(
    ("prefix", "used_for"),
    [("calls/{date}/", "as call_started_at. "), ("calls/", "as call_started_at and the call's day. ")],
)
def test_last_modified_in_place_of_the_calls_time_is_unsure(prefix: str, used_for: str) -> None:
    sample, warning = seen("calls/2026-11-20/a.mp3", day=DAY, prefix=prefix)
    assert (sample.health, warning.health) == (Health.UNSURE, Health.UNSURE)
    assert "recordings.call_time is last_modified" in warning.detail
    assert used_for in warning.detail
    assert "key_pattern" in warning.detail


def test_keys_without_a_time_are_counted_and_some_are_named() -> None:
    sample, warning = seen(
        *[f"in/{name}.mp3" for name in "abcd"], "in/20261120T120000.mp3", prefix="in/", call_time=BY_KEY
    )
    assert sample.detail.startswith("in/20261120T120000.mp3: ")
    assert warning.health is Health.UNSURE
    assert warning.detail.startswith("4 keys do not match recordings.call_time.key_pattern or its format: ")
    assert "'in/a.mp3', 'in/b.mp3', 'in/c.mp3', …. LastModified" in warning.detail


def test_recordings_on_no_day_are_counted_and_named() -> None:
    keys = ["in/2026/11/20261120T120000.mp3", "in/2026/11/20250101T120000.mp3"]
    sample, warning = seen(*keys, prefix="in/{date:%Y/%m}/", call_time=BY_KEY)
    assert sample.detail.startswith(keys[0])
    assert "1 recordings are on no day" in warning.detail
    assert repr(keys[1]) in warning.detail


@pytest.mark.parametrize(
    ("key", "rule", "timezone", "overlooked"),
    [
        ("in/20261120T120000Z.mp3", {}, "Europe/Berlin", True),
        ("in/20261120T120000_UTC.mp3", {}, "Europe/Berlin", True),
        ("in/20261120T120000+0000.mp3", {}, "Europe/Berlin", True),
        ("in/20261120T120000Z.mp3", {}, "UTC", False),
        ("in/20261120T120000Z.mp3", {"timezone": "UTC"}, "Europe/Berlin", False),
        ("in/20261120T120000-Zoe.mp3", {}, "Europe/Berlin", False),
        ("in/20261120T120000.mp3", {}, "Europe/Berlin", False),
        ("in/20261120Z.mp3", {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}, "Europe/Berlin", False),
    ],
)
def test_utc_behind_a_time_that_is_read_in_another_zone_is_mentioned(
    key: str, rule: dict[str, str], timezone: str, overlooked: bool
) -> None:
    found = seen(key, prefix="in/", call_time={**BY_KEY, **rule}, timezone=timezone)
    assert any("set recordings.call_time.timezone: UTC" in one.detail for one in found) == overlooked


def test_nothing_is_said_without_recordings() -> None:
    assert seen() == []


def test_times_from_elsewhere_are_shown_and_missing_ones_named_with_the_reason() -> None:
    ours = pipeline(recordings={"prefix": "in/", "call_time": {"metadata": "start"}})
    times = CallTimes(ours)
    times.unmatched.add("in/b.mp3", "it has none")
    for name in "abc":
        times.see(recording(f"in/{name}.mp3", call_time=NOON), None)
    first, second, missing = times.findings()
    assert [first.health, second.health, missing.health] == [Health.GOOD, Health.GOOD, Health.UNSURE]
    assert (first.detail[:9], second.detail[:9]) == ("in/a.mp3:", "in/c.mp3:")
    assert missing.detail.startswith(
        "1 recordings have no time where recordings.call_time says that it is: 'in/b.mp3' (it has none). LastModified"
    )


def test_copy_in_bulk_is_reported() -> None:
    found = seen(*[f"in/{number}.mp3" for number in range(1000)], prefix="in/")
    assert "1000 of 1000 recordings were uploaded on 2026-11-20, as a copy in bulk does" in found[-1].detail
