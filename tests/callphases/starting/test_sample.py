"""Looks at buckets: how much is read, and what of it."""

from __future__ import annotations

import datetime as dt

import pytest

from callphases.starting.sample import DEFAULT_SUFFIXES, REQUESTS, look_at
from callphases.state.bucket import RecordingBucket
from doubles import Store

pytestmark = pytest.mark.integration
NEWEST = dt.datetime(2026, 11, 20)


def bucket_of(s3: Store, *keys: str) -> RecordingBucket:
    for key in keys:
        s3.put(key, b"x")
    s3.listed.clear()
    return RecordingBucket(s3.client, s3.recordings)


def test_oldest_and_newest_days_are_looked_into(s3: Store) -> None:
    days = [NEWEST - dt.timedelta(days=number) for number in range(0, 300, 3)]
    sample = look_at(bucket_of(s3, *[f"c/{day:%Y/%m/%d}/{day:%j}.mp3" for day in days]))
    keys = {one.key for one in sample.objects}
    assert {f"c/{day:%Y/%m/%d}/{day:%j}.mp3" for day in (days[0], days[-1])} <= keys
    assert sample.requests == len(s3.listed) <= REQUESTS
    assert "c/2026/" in sample.folders


def test_all_of_some_tenants_are_looked_into(s3: Store) -> None:
    tenants = ["acme", "globex", "hooli", "initech", "umbrella"]
    keys = [f"{tenant}/2026/11/{day:02}/a.mp3" for tenant in tenants for day in range(1, 28)]
    sample = look_at(bucket_of(s3, *keys))
    assert {one.key.partition("/")[0] for one in sample.recordings()} == set(tenants)


def test_requests_are_bounded_however_many_folders_there_are(s3: Store) -> None:
    bucket = bucket_of(s3, *[f"{number:04}/{inner}/x/y/a.mp3" for number in range(60) for inner in "abcd"])
    sample = look_at(bucket, requests=12)
    assert len(s3.listed) <= 12
    assert sample.recordings()


def test_only_what_is_below_the_prefix_is_looked_at(s3: Store) -> None:
    sample = look_at(bucket_of(s3, "a/1.mp3", "b/2.mp3", "b/c/3.mp3"), "b/")
    assert [one.key for one in sample.recordings()] == ["b/2.mp3", "b/c/3.mp3"]


def test_other_files_are_no_recordings(s3: Store) -> None:
    sample = look_at(bucket_of(s3, "a/", "a/1.MP3", "a/1.json", "a/2.amr", "a/readme"))
    assert [one.key for one in sample.recordings()] == ["a/1.MP3"]
    assert sample.suffixes() == [*DEFAULT_SUFFIXES, ".amr"]
    assert [one.key for one in sample.recordings(sample.suffixes())] == ["a/1.MP3", "a/2.amr"]
    assert sample.endings() == {".mp3": 1, ".json": 1, ".amr": 1, "": 1}


def test_empty_bucket_takes_one_request(s3: Store) -> None:
    sample = look_at(bucket_of(s3))
    assert (sample.objects, len(s3.listed)) == ([], 1)


def test_newest_names_of_a_large_flat_folder_are_looked_at(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.starting.sample._PAGE", 50)
    today = dt.datetime.now(dt.UTC)
    days = [today - dt.timedelta(days=number) for number in range(120)]
    sample = look_at(bucket_of(s3, *[f"c/{day:%Y%m%d}-{day:%H%M%S}.mp3" for day in days]))
    names = {one.key for one in sample.objects}
    assert {f"c/{day:%Y%m%d}-{day:%H%M%S}.mp3" for day in (days[0], days[-1])} <= names
    assert sample.requests <= 8
