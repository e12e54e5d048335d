"""Copies in bulk that put recordings on the day of the copy."""

from __future__ import annotations

import datetime as dt
import logging
from itertools import chain
from typing import Any

import pytest

from callphases.listing.archive import RecordingsByDay
from callphases.listing.bulk import Uploads
from doubles import DAY, pipeline, recording

HOUR, ONE_DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def calls(day: dt.date, count: int, hours: int = 12) -> list[dt.datetime]:
    """Uploads of a day, spread over some hours from 8 o'clock on."""
    start = dt.datetime.combine(day, dt.time(8), dt.UTC)
    return [start + number * hours * HOUR / count for number in range(count)]


def warning(*uploads: list[dt.datetime], **recordings: Any) -> str | None:
    seen = Uploads(pipeline(recordings={"prefix": "calls/", **recordings}))
    for moment in chain.from_iterable(uploads):
        seen.see(moment)
    return seen.warning()


NIGHTS = [calls(DAY + number * ONE_DAY, 90) for number in range(1, 9)]


@pytest.mark.parametrize(
    ("uploads", "told"),
    [
        ([calls(DAY, 5000, 3)], "5000 of 5000 recordings were uploaded on 2026-11-20"),
        ([calls(DAY, 5000), *NIGHTS], "5000 of 5720 recordings were uploaded on 2026-11-20"),
        ([calls(DAY, 1000, 3)], "1000 of 1000"),
        ([calls(DAY, 999, 3)], None),
        ([calls(DAY, 5000)], None),
        ([calls(DAY + number * ONE_DAY, 3000) for number in range(9)], None),
        ([calls(DAY, 890), *NIGHTS], None),
        ([], None),
    ],
)
def test_day_that_holds_far_more_than_others_is_noticed(uploads: list[Any], told: str | None) -> None:
    said = warning(*uploads)
    assert (said is None) == (told is None)
    if said is not None:
        assert said.startswith(str(told))
        assert all(name in said for name in ("key_pattern", "metadata", "tag", "audio_tag", "sidecar", "inventory"))


def test_times_from_elsewhere_are_no_uploads() -> None:
    assert warning(calls(DAY, 5000, 1), call_time={"metadata": "start"}) is None


def test_listing_of_an_archive_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    found = (recording(f"calls/{n}.mp3", call_time=at) for n, at in enumerate(calls(DAY, 1200, 2)))
    with caplog.at_level(logging.WARNING):
        RecordingsByDay(pipeline(recordings={"prefix": "calls/"}), found).close()
    assert "1200 of 1200 recordings were uploaded on 2026-11-20, as a copy in bulk does" in caplog.text
