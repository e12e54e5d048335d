"""Listing a day, chunks, the spool, and manifests."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import ConfigurationError
from callphases.listing.listing import HEAVIEST, LEAST_CALLS, Listing, Spool, chunk_counts
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from callphases.state.events import Submitted
from callphases.state.manifests import DayList, Manifest, new_run_token
from callphases.state.storage import ObjectPrefix
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


def listing(s3: Store, **settings: Any) -> Listing:
    pipeline = s3.pipeline(**settings)
    return Listing(RecordingBucket(s3.client, pipeline.recordings.bucket), pipeline, pipeline.recordings.prefix_of(DAY))


def listed_keys(s3: Store, **settings: Any) -> list[str]:
    return [found.key for found in listing(s3, **settings)]


@pytest.mark.integration
def test_only_the_days_prefix_is_listed_if_the_prefix_is_dated(s3: Store) -> None:
    for day in (19, 20, 21):
        s3.put(f"calls/2026-11-{day}/a.mp3")
    assert listed_keys(s3) == ["calls/2026-11-20/a.mp3"]
    assert s3.listed == ["calls/2026-11-20/"]


@pytest.mark.integration
def test_dated_prefix_decides_the_day_whatever_last_modified_says(s3: Store) -> None:
    s3.put("calls/2026-11-20/a.mp3")
    s3.written["calls/2026-11-20/a.mp3"] = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    assert listed_keys(s3) == ["calls/2026-11-20/a.mp3"]


@pytest.mark.integration
def test_call_time_defaults_to_last_modified(s3: Store) -> None:
    s3.put("calls/a.mp3")
    s3.written["calls/a.mp3"] = NOON
    (found,) = listing(s3, recordings={"prefix": "calls/"})
    assert found.call_time == NOON


@pytest.mark.integration
def test_time_in_key_is_in_the_pipelines_time_zone(s3: Store) -> None:
    s3.put("calls/20261120T000000.mp3")
    (found,) = listing(s3, recordings={"prefix": "calls/", "call_time": BY_KEY}, timezone="America/New_York")
    assert found.call_time.isoformat() == "2026-11-20T05:00:00+00:00"


@pytest.mark.integration
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_utc_offset_in_key_overrides_the_pipelines_time_zone(s3: Store, zone: str) -> None:
    s3.put("calls/20261120T233000-0500.mp3")
    rule = {"key_pattern": r"(?P<time>\d{8}T\d{6}[-+]\d{4})", "format": "%Y%m%dT%H%M%S%z"}
    (found,) = listing(s3, recordings={"prefix": "calls/", "call_time": rule}, timezone=zone)
    assert found.call_time.isoformat() == "2026-11-21T04:30:00+00:00"


@pytest.mark.integration
def test_time_in_key_out_of_range_in_the_pipelines_zone_falls_back(s3: Store) -> None:
    s3.put("calls/00010101T000000+0000.mp3")
    s3.written["calls/00010101T000000+0000.mp3"] = NOON
    rule = {"key_pattern": r"(?P<time>\d{8}T\d{6}[-+]\d{4})", "format": "%Y%m%dT%H%M%S%z"}
    (found,) = listing(s3, recordings={"prefix": "calls/", "call_time": rule}, timezone="America/New_York")
    assert found.call_time == NOON


@pytest.mark.integration
def test_keys_without_a_time_use_last_modified_and_log_a_warning(s3: Store, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("20261120T100000", "voicemail", "20269920T100000"):
        s3.put(f"calls/{name}.mp3")
        s3.written[f"calls/{name}.mp3"] = NOON
    assert len(listed_keys(s3, recordings={"prefix": "calls/", "call_time": BY_KEY})) == 3
    assert "2 keys do not match recordings.call_time.key_pattern" in caplog.text
    assert "'calls/20269920T100000.mp3', 'calls/voicemail.mp3'." in caplog.text


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "rule", "utc"),
    [
        ("1_20260701T22:30_UTC", {"format": "%Y%m%dT%H:%M_%Z"}, "2026-07-01T22:30:00+00:00"),
        ("1_20260701T22:30+0200", {"format": "%Y%m%dT%H:%M%z"}, "2026-07-01T20:30:00+00:00"),
        ("1_20260701T22:30+02:00", {"format": "%Y%m%dT%H:%M%z"}, "2026-07-01T20:30:00+00:00"),
        ("1_20260701T22:30Z", {"format": "%Y%m%dT%H:%MZ"}, "2026-07-01T22:30:00+00:00"),
        ("1_20260701T22:30", {"format": "%Y%m%dT%H:%M"}, "2026-07-01T20:30:00+00:00"),
        ("1_20260701T22:30", {"format": "%Y%m%dT%H:%M", "timezone": "UTC"}, "2026-07-01T22:30:00+00:00"),
        ("1_20260701T22:30", {"format": "%Y%m%dT%H:%M", "timezone": "Asia/Tokyo"}, "2026-07-01T13:30:00+00:00"),
        ("1_1782945000", {"format": "epoch", "timezone": "Asia/Tokyo"}, "2026-07-01T22:30:00+00:00"),
    ],
)
def test_time_in_key_is_in_the_zone_it_says_or_that_of_call_time(
    s3: Store, name: str, rule: dict[str, str], utc: str
) -> None:
    s3.put(f"calls/{name}.mp3")
    call_time = {"key_pattern": r"_(?P<time>.+)\.mp3", **rule}
    (found,) = listing(s3, recordings={"prefix": "calls/", "call_time": call_time}, timezone="Europe/Berlin")
    assert found.call_time.isoformat() == utc


@pytest.mark.integration
@pytest.mark.parametrize("year", ["0001", "9999"])
def test_time_in_key_that_is_out_of_range_in_some_zone_falls_back(s3: Store, year: str) -> None:
    s3.put(f"calls/{year}1231T235959.mp3")
    s3.written[f"calls/{year}1231T235959.mp3"] = NOON
    rule = {**BY_KEY, "timezone": "UTC"}
    (found,) = listing(s3, recordings={"prefix": "calls/", "call_time": rule}, timezone="Asia/Tokyo")
    assert found.call_time == NOON


@pytest.mark.integration
def test_time_in_key_out_of_range_in_utc_falls_back(s3: Store) -> None:
    s3.put("calls/2026-11-20/00010101T000000.mp3")
    settings = {"recordings": {"call_time": BY_KEY}, "timezone": "Europe/Berlin"}
    assert listed_keys(s3, **settings) == ["calls/2026-11-20/00010101T000000.mp3"]


@pytest.mark.integration
def test_only_keys_with_a_recording_suffix_are_listed(s3: Store) -> None:
    for name in ("a.mp3", "B.MP3", "c.Wav", "notes.txt", "mp3", "folder.mp3/"):
        s3.put(f"calls/2026-11-20/{name}")
    assert listed_keys(s3) == [f"calls/2026-11-20/{name}" for name in ("B.MP3", "a.mp3", "c.Wav")]


@pytest.mark.integration
@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_with_unusual_characters_are_listed_unchanged(s3: Store, key: str) -> None:
    put = s3.put(key)
    s3.written[key] = NOON
    assert list(listing(s3, recordings={"prefix": ""})) == [put]


@pytest.mark.integration
def test_day_of_several_pages_is_listed_completely(s3: Store) -> None:
    keys = [s3.put(f"calls/2026-11-20/{number}.mp3").key for number in range(5)]
    s3.client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=2)
    )
    alive: list[int] = []
    pages = Listing(
        RecordingBucket(s3.client, s3.recordings), s3.pipeline(), f"calls/{DAY}/", lambda: alive.append(len(s3.listed))
    )
    assert [found.key for found in pages] == keys
    assert alive == [1, 2, 3]


@pytest.mark.integration
def test_listing_start_is_the_earlier_of_our_clock_and_the_stores(s3: Store) -> None:
    """Whichever clock is behind decides, so that no object is missed."""
    before = dt.datetime.now(dt.UTC)
    ours = listing(s3)
    list(ours)
    assert ours.began is not None
    assert before - dt.timedelta(seconds=1) <= ours.began <= dt.datetime.now(dt.UTC)

    def in_another_year(parsed: dict[str, Any], **_: object) -> None:
        parsed["ResponseMetadata"]["HTTPHeaders"]["date"] = f"Fri, 20 Nov {year} 12:00:00 GMT"

    s3.client.meta.events.register_last("after-call.s3.ListObjectsV2", in_another_year)
    year, behind = 2020, listing(s3)
    list(behind)
    assert behind.began == NOON.replace(year=2020)
    year, ahead = 3026, listing(s3)
    list(ahead)
    assert ahead.began is not None
    assert ahead.began <= dt.datetime.now(dt.UTC)


@pytest.mark.integration
def test_listing_start_is_our_clock_if_the_store_sends_no_date(s3: Store) -> None:
    def without_date(parsed: dict[str, Any], **_: object) -> None:
        del parsed["ResponseMetadata"]["HTTPHeaders"]["date"]

    s3.client.meta.events.register_last("after-call.s3.ListObjectsV2", without_date)
    before = dt.datetime.now(dt.UTC)
    found = listing(s3)
    list(found)
    assert found.began is not None
    assert before <= found.began <= dt.datetime.now(dt.UTC)


@pytest.mark.integration
def test_listing_of_a_day_without_recordings_is_empty(s3: Store) -> None:
    assert listed_keys(s3) == []


@pytest.mark.integration
def test_missing_bucket_error_names_the_setting(s3: Store) -> None:
    with pytest.raises(ConfigurationError, match=r"no bucket 'nowhere': check recordings\.bucket"):
        listed_keys(s3, recordings={"bucket": "nowhere"})


def test_call_id_depends_only_on_the_uri() -> None:
    first = recording("calls/a.mp3")
    assert first.uri == "s3://recordings/calls/a.mp3"
    assert first.call_id == "77fe6f0507270151"
    assert recording("calls/a.mp3", etag="e2", size=1, call_time=NOON.replace(year=2020)).call_id == first.call_id


def test_recordings_have_distinct_call_ids() -> None:
    ids = {recording(key, bucket=bucket).call_id for key in ODD_KEYS for bucket in ("a", "b")}
    assert len(ids) == 2 * len(ODD_KEYS)


# Chunks

SIZES = st.lists(st.integers(0, 10**9) | st.integers(0, 10), max_size=700)


@given(SIZES)
def test_chunks_contain_every_recording_once(sizes: list[int]) -> None:
    counts = chunk_counts(sizes)
    assert sum(counts) == len(sizes)
    assert all(counts)


@given(SIZES)
def test_number_and_size_of_chunks_are_bounded(sizes: list[int]) -> None:
    counts = chunk_counts(sizes)
    most = max(min(max(round(math.sqrt(len(sizes)) / 2), 2), len(sizes) // LEAST_CALLS), 1)
    assert len(counts) <= most
    assert max(counts, default=0) <= 2 * len(sizes) / most + 2


@given(SIZES)
def test_chunks_have_about_equal_weight(sizes: list[int]) -> None:
    """No chunk exceeds its share by more than half a recording at each end."""
    counts = chunk_counts(sizes)
    mean = sum(sizes) / max(len(sizes), 1) or 1
    weights = [min(0.5 + 0.5 * size / mean, HEAVIEST) for size in sizes]
    ends = list(itertools.accumulate(counts, initial=0))
    share = sum(weights) / max(min(max(round(math.sqrt(len(sizes)) / 2), 2), len(sizes) // LEAST_CALLS), 1)
    for start, end in itertools.pairwise(ends):
        assert sum(weights[start:end]) <= share + max(weights[start:end]) + 1e-6


@given(st.integers(1, 1000), st.integers(300, 3000))
def test_chunk_of_long_calls_has_fewer_recordings(times: int, count: int) -> None:
    counts = chunk_counts([1000 * (times + 1)] * count + [1000] * count)
    assert counts[0] <= counts[-1]
    if times > 1:
        assert counts[0] < counts[-1]


def test_one_huge_file_does_not_distort_the_other_chunks() -> None:
    counts = chunk_counts([1000] * 500 + [10**12] + [1000] * 499)
    assert len(counts) == 16
    assert max(counts) < 80


@pytest.mark.parametrize(
    ("count", "tasks"),
    [(0, 0), (1, 1), (89, 1), (90, 2), (320, 7), (500, 11), (5000, 35), (20_000, 71), (160_000, 200), (300_000, 200)],
)
def test_number_of_chunks_grows_with_the_number_of_recordings(count: int, tasks: int) -> None:
    counts = chunk_counts([50_000] * count)
    assert len(counts) == tasks
    assert max(counts, default=0) - min(counts, default=0) <= 1


@pytest.mark.parametrize(("count", "tasks"), [(299, 1), (300, 2), (600, 3), (15_000, 3), (15_001, 4), (300_000, 60)])
def test_chunks_of_an_archive_are_larger(count: int, tasks: int) -> None:
    assert len(chunk_counts([50_000] * count, is_archive=True)) == tasks


# Lists on disk and in the state area


@given(st.lists(st.builds(recording, st.text(st.characters(exclude_categories=["Cs"])), size=st.integers(0, 2**50))))
def test_spool_returns_its_recordings_in_order_each_time(recordings: list[Recording]) -> None:
    with Spool("recordings") as spool:
        for one in recordings:
            spool.add(one)
        assert list(spool.sizes) == [one.size for one in recordings]
        assert next(iter(spool), None) == next(iter(recordings), None)
        assert list(spool) == recordings
        assert len(spool) == len(recordings)


@pytest.mark.integration
@pytest.mark.parametrize(
    "key",
    [
        *ODD_KEYS,
        "calls/a\tb\n.mp3",
        "calls/a\u2028b\x85c.mp3",
    ],
)
def test_manifest_round_trips(s3: Store, key: str) -> None:
    written = manifest(
        recording("calls/a.mp3"),
        recording(key),
        name="chunk-0007",
        run_token="run-1-abc",
        fencing_token=3,
        known=[Submitted(key="k", recording=key, transcript_id="t", at=NOON)],
        first=175,
        replay=True,
        budget_usd=0.125,
    )
    uri = written.save(s3.state)
    assert uri == f"{s3.state.uri}runs/dt=2026-11-20/run-1-abc/chunk-0007.jsonl"
    assert Manifest.load(s3.state, uri) == written


@pytest.mark.integration
def test_missing_manifest_error_says_how_to_recover(s3: Store) -> None:
    with pytest.raises(ConfigurationError, match="clear the run's first task"):
        Manifest.load(s3.state, s3.state.uri_of("runs/gone.jsonl"))


@pytest.mark.integration
def test_manifest_of_another_state_area_is_rejected(s3: Store) -> None:
    uri = manifest().save(s3.state)
    with pytest.raises(ConfigurationError, match=r"gone from output\.state"):
        Manifest.load(ObjectPrefix(s3.client, f"s3://{s3.warehouse}/elsewhere/", "output.state"), uri)


def day_list(**changes: Any) -> DayList:
    values = {"day": DAY, "run_id": "run/1", "run_token": "run-1-abc", "fencing_token": 3, "listed_at": NOON}
    return DayList(**{**values, "listed": 7, "chunks": 2, "rest": 1, "replay": True, **changes})


@pytest.mark.integration
def test_day_list_round_trips(s3: Store) -> None:
    uri = day_list().save(s3.state)
    assert uri == f"{s3.state.uri}runs/dt=2026-11-20/run-1-abc/day.json"
    assert DayList.load(s3.state, uri) == day_list()


@pytest.mark.integration
def test_missing_day_list_error_says_how_to_recover(s3: Store) -> None:
    uri = day_list().save(s3.state)
    s3.state.delete(uri.removeprefix(s3.state.uri))
    with pytest.raises(ConfigurationError, match="clear the run's first task"):
        DayList.load(s3.state, uri)
    with pytest.raises(ConfigurationError, match="clear the run's first task"):
        DayList.load(
            s3.state, day_list().save(ObjectPrefix(s3.client, f"s3://{s3.warehouse}/elsewhere/", "output.state"))
        )


@pytest.mark.parametrize("run_id", ["scheduled__2026-11-20T00:00:00+00:00", "../../escape", "a b/c?d", "ü"])
def test_run_token_is_unique_and_a_single_path_segment(run_id: str) -> None:
    run_tokens = {new_run_token(run_id) for _ in range(20)}
    assert len(run_tokens) == 20
    assert not [run_token for run_token in run_tokens if set(run_token) & set("/?: ü")]
