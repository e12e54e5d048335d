"""Only days whose recordings have changed are run again."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import Any

import pytest

from callphases.listing.late import late_days
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from callphases.state.lease import Lease
from callphases.state.manifests import DayList
from callphases.tables.publishing import publish
from callphases.tables.reading import published_versions
from doubles import DAY, LONG_AGO, Store

pytestmark = pytest.mark.integration
BEFORE = [DAY - dt.timedelta(days=number) for number in range(1, 6)]


def ours(s3: Store, **recordings: Any) -> Pipeline:
    return s3.pipeline(recordings=recordings)


def put(s3: Store, day: dt.date, name: str, body: bytes = b"RIFF") -> Recording:
    return s3.put(f"calls/{day}/{name}.mp3", body)


def ran(s3: Store, day: dt.date, *recordings: Recording) -> None:
    """Publish a day as a run that listed these recordings and has processed none of them."""
    lease = Lease(s3.state, day, "run-1")
    listed = DayList(day, "run-1", "run-1", lease.take(), LONG_AGO, listed=len(recordings), chunks=1, rest=0)
    known = s3.known()
    publish(s3.tables, s3.state, s3.pipeline(), listed, lambda _: ((one, known) for one in recordings))
    lease.release()


def late(s3: Store, **recordings: Any) -> list[dt.date]:
    bucket, published = RecordingBucket(s3.client, s3.recordings), partial(published_versions, s3.tables)
    return list(late_days(bucket, ours(s3, **recordings), s3.state, published, DAY))


def test_unchanged_days_are_not_late(s3: Store) -> None:
    for day in BEFORE:
        ran(s3, day, put(s3, day, "a"), put(s3, day, "b"))
    assert late(s3) == []


def test_day_with_a_new_recording_is_late(s3: Store) -> None:
    for day in BEFORE:
        ran(s3, day, put(s3, day, "a"))
    put(s3, BEFORE[1], "late")
    put(s3, BEFORE[4], "too late")
    assert late(s3) == [BEFORE[1]]
    assert late(s3, look_back_days=5) == [BEFORE[1], BEFORE[4]]
    assert late(s3, look_back_days=0) == []


def test_day_with_a_replaced_recording_is_late(s3: Store) -> None:
    ran(s3, BEFORE[0], put(s3, BEFORE[0], "a"))
    put(s3, BEFORE[0], "a", b"RIFF, again")
    assert late(s3) == [BEFORE[0]]


def test_empty_day_with_its_first_recording_is_late(s3: Store) -> None:
    ran(s3, BEFORE[0])
    assert late(s3) == []
    put(s3, BEFORE[0], "late")
    assert late(s3) == [BEFORE[0]]


def test_day_without_any_run_is_not_late(s3: Store) -> None:
    put(s3, BEFORE[0], "a")
    assert late(s3) == []


@pytest.mark.parametrize(("when_deleted", "found"), [("keep", []), ("drop", [BEFORE[0]])])
def test_deleted_recording_makes_its_day_late_only_with_when_deleted_drop(
    s3: Store, when_deleted: str, found: list[dt.date]
) -> None:
    ran(s3, BEFORE[0], put(s3, BEFORE[0], "a"), put(s3, BEFORE[0], "b"))
    s3.client.delete_object(Bucket=s3.recordings, Key=f"calls/{BEFORE[0]}/b.mp3")
    assert late(s3, when_deleted=when_deleted) == found
