"""A bucket and a day → recordings, chunks, manifests."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import ConfigurationError
from callphases.recordings import Manifest, chunks, list_day, new_holder
from callphases.storage import Folder
from doubles import DAY, NOON, Store, manifest, recording

LONG = "calls/" + "é" * 447  # 900 bytes
ODD_KEYS = [
    "calls/a b.mp3",
    "calls/a+b.mp3",
    "calls/100%.mp3",
    "calls/%20.mp3",
    """calls/"it's".mp3""",
    "calls/☎️ 🎧.mp3",
    "/calls/leading.mp3",
    "calls//twice.mp3",
    "calls/a&b=c?d#e.mp3",
    f"{LONG}.mp3",
]
BY_KEY = {"key_pattern": r"(?P<time>\d{8}T\d{6})", "format": "%Y%m%dT%H%M%S"}


def listed_keys(s3: Store, day: dt.date = DAY, **settings: Any) -> list[str]:
    return [found.key for found in list_day(s3.client, s3.pipeline(**settings), day)]


@pytest.mark.integration
def test_a_dated_prefix_is_the_only_one_listed(s3: Store) -> None:
    for day in (19, 20, 21):
        s3.put(f"calls/2026-11-{day}/a.mp3")
    assert listed_keys(s3) == ["calls/2026-11-20/a.mp3"]
    assert s3.listed == ["calls/2026-11-20/"]


@pytest.mark.integration
def test_a_dated_prefix_is_the_day_whenever_the_object_was_written(s3: Store) -> None:
    s3.put("calls/2026-11-20/a.mp3")
    s3.written["calls/2026-11-20/a.mp3"] = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    assert listed_keys(s3) == ["calls/2026-11-20/a.mp3"]


@pytest.mark.integration
def test_a_flat_prefix_takes_the_day_of_the_upload_in_the_pipelines_zone(s3: Store) -> None:
    # In New York the 20th lasts from 05:00 UTC to 05:00 UTC of the 21st.
    written = {"a": (20, 4, 59), "b": (20, 5, 0), "c": (21, 4, 59), "d": (21, 5, 0)}
    for name, (day, hour, minute) in written.items():
        s3.put(f"calls/{name}.mp3")
        s3.written[f"calls/{name}.mp3"] = dt.datetime(2026, 11, day, hour, minute, tzinfo=dt.UTC)
    settings = {"recordings": {"prefix": "calls/"}, "timezone": "America/New_York"}
    assert listed_keys(s3, **settings) == ["calls/b.mp3", "calls/c.mp3"]


@pytest.mark.integration
def test_a_flat_prefix_takes_the_day_of_the_key_in_the_pipelines_zone(s3: Store) -> None:
    for time in ("20261119T235959", "20261120T000000", "20261120T235959", "20261121T000000"):
        s3.put(f"calls/{time}.mp3")
    settings = {"recordings": {"prefix": "calls/", "call_time": BY_KEY}, "timezone": "America/New_York"}
    found = list(list_day(s3.client, s3.pipeline(**settings), DAY))
    assert [one.call_time.isoformat() for one in found] == ["2026-11-20T05:00:00+00:00", "2026-11-21T04:59:59+00:00"]


@pytest.mark.integration
def test_a_zone_within_the_key_wins_over_the_pipelines(s3: Store) -> None:
    s3.put("calls/20261120T233000-0500.mp3")
    rule = {"key_pattern": r"(?P<time>\d{8}T\d{6}[-+]\d{4})", "format": "%Y%m%dT%H%M%S%z"}
    settings = {"recordings": {"prefix": "calls/", "call_time": rule}}
    assert listed_keys(s3, dt.date(2026, 11, 20), **settings) == []
    assert listed_keys(s3, dt.date(2026, 11, 21), **settings) == ["calls/20261120T233000-0500.mp3"]


@pytest.mark.integration
def test_keys_without_a_time_fall_back_to_their_upload_with_a_warning(
    s3: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("20261120T100000", "voicemail", "20269920T100000"):
        s3.put(f"calls/{name}.mp3")
        s3.written[f"calls/{name}.mp3"] = NOON
    assert len(listed_keys(s3, recordings={"prefix": "calls/", "call_time": BY_KEY})) == 3
    assert "2 keys do not match recordings.call_time.key_pattern" in caplog.text


@pytest.mark.integration
def test_a_time_before_all_times_falls_back_too(s3: Store) -> None:
    s3.put("calls/2026-11-20/00010101T000000.mp3")
    settings = {"recordings": {"call_time": BY_KEY}, "timezone": "Europe/Berlin"}
    assert listed_keys(s3, **settings) == ["calls/2026-11-20/00010101T000000.mp3"]


@pytest.mark.integration
def test_only_recordings_are_listed(s3: Store) -> None:
    for name in ("a.mp3", "B.MP3", "c.Wav", "notes.txt", "mp3", "folder.mp3/"):
        s3.put(f"calls/2026-11-20/{name}")
    assert listed_keys(s3) == [f"calls/2026-11-20/{name}" for name in ("B.MP3", "a.mp3", "c.Wav")]


@pytest.mark.integration
@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_key_is_listed_as_it_is(s3: Store, key: str) -> None:
    put = s3.put(key)
    s3.written[key] = NOON
    assert list(list_day(s3.client, s3.pipeline(recordings={"prefix": ""}), DAY)) == [put]


@pytest.mark.integration
def test_a_day_of_several_pages_is_listed_whole(s3: Store) -> None:
    keys = [s3.put(f"calls/2026-11-20/{number}.mp3").key for number in range(5)]
    s3.client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=2)
    )
    assert listed_keys(s3) == keys
    assert len(s3.listed) == 3


@pytest.mark.integration
def test_a_day_without_recordings_is_empty(s3: Store) -> None:
    assert listed_keys(s3) == []


@pytest.mark.integration
def test_a_bucket_that_is_not_there_names_the_setting(s3: Store) -> None:
    with pytest.raises(ConfigurationError, match=r"no bucket 'nowhere': check recordings\.bucket"):
        listed_keys(s3, recordings={"bucket": "nowhere"})


def test_the_id_of_a_call_follows_from_its_uri_alone() -> None:
    first = recording("calls/a.mp3")
    assert first.uri == "s3://recordings/calls/a.mp3"
    assert first.call_id == "77fe6f0507270151"
    assert recording("calls/a.mp3", etag="e2", size=1, call_time=NOON.replace(year=2020)).call_id == first.call_id


def test_every_recording_has_an_id_of_its_own() -> None:
    ids = {recording(key, bucket=bucket).call_id for key in ODD_KEYS for bucket in ("a", "b")}
    assert len(ids) == 2 * len(ODD_KEYS)


MANY = [recording(f"calls/{number}.mp3") for number in range(12_000)]


@given(st.integers(0, len(MANY)))
def test_every_recording_is_in_one_chunk_and_chunks_are_few(count: int) -> None:
    cut = chunks(MANY[:count])
    assert list(itertools.chain.from_iterable(cut)) == MANY[:count]
    assert all(cut)
    assert len(cut) <= 200


@pytest.mark.parametrize(
    ("count", "tasks"), [(0, 0), (1, 1), (20, 20), (21, 1), (40, 1), (41, 2), (8000, 200), (8001, 196)]
)
def test_few_recordings_get_a_task_each(count: int, tasks: int) -> None:
    assert len(chunks(MANY[:count])) == tasks


@pytest.mark.integration
@pytest.mark.parametrize(
    "key",
    [
        *ODD_KEYS,
        "calls/a\tb\n.mp3",
        "calls/a\u2028b\x85c.mp3",
    ],
)
def test_a_manifest_is_read_back_as_it_was_written(s3: Store, key: str) -> None:
    written = manifest(
        recording("calls/a.mp3"),
        recording(key),
        name="chunk-0007",
        holder="run-1-abc",
        term=3,
        known=[{"event": "submitted", "key": "k", "recording": key, "at": "2026-11-20T01:00:00+00:00"}],
        first=175,
        replay=True,
        budget_usd=0.125,
    )
    uri = written.save(s3.state)
    assert uri == f"{s3.state.uri}runs/dt=2026-11-20/run-1-abc/chunk-0007.jsonl"
    assert Manifest.load(s3.state, uri) == written


@pytest.mark.integration
def test_a_manifest_that_is_gone_says_what_to_do(s3: Store) -> None:
    with pytest.raises(ConfigurationError, match="clear the run's first task"):
        Manifest.load(s3.state, s3.state.uri_of("runs/gone.jsonl"))


@pytest.mark.integration
def test_a_manifest_of_another_state_area_is_not_read(s3: Store) -> None:
    uri = manifest().save(s3.state)
    with pytest.raises(ConfigurationError, match=r"gone from output\.state"):
        Manifest.load(Folder(s3.client, f"s3://{s3.warehouse}/elsewhere/", "output.state"), uri)


@pytest.mark.parametrize("run_id", ["scheduled__2026-11-20T00:00:00+00:00", "../../escape", "a b/c?d", "ü"])
def test_a_run_has_a_name_that_is_one_folder_and_nobody_elses(run_id: str) -> None:
    holders = {new_holder(run_id) for _ in range(20)}
    assert len(holders) == 20
    assert not [holder for holder in holders if set(holder) & set("/?: ü")]
