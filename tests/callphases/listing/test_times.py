"""Times of calls from elsewhere: each kind of place, read once, on threads, and what happens where there is none."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import logging
import wave
from collections import Counter
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import ConfigurationError, ServiceUnavailable
from callphases.listing.archive import Archive, listed_day
from callphases.listing.listing import Listing, SomeKeys
from callphases.listing.times import moment_of
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from callphases.state.ledger import Ledger
from callphases.work_list import WorkList
from doubles import DAY, NOON, Store, pipeline

BERLIN = dt.timezone(dt.timedelta(hours=1))
SIDECAR = {"sidecar": "{stem}.json", "path": "$.Agent.ConnectedToAgentTimestamp"}
AT = "2026-11-20T08:30:00Z"
MOMENT = dt.datetime(2026, 11, 20, 8, 30, tzinfo=dt.UTC)


class Runs:
    """Runs of the days of an archive, one after the other."""

    def __init__(self, s3: Store, call_time: Any, **recordings: Any) -> None:
        self.s3 = s3
        self.pipeline = s3.pipeline(recordings={"prefix": "calls/", "call_time": call_time, **recordings})
        self.used: dict[dt.date, str] = {}

    @property
    def bucket(self) -> RecordingBucket:
        return RecordingBucket(self.s3.client, self.s3.recordings)

    def run(self, day: dt.date = DAY, **more: Any) -> dict[str, dt.datetime]:
        """The times of a day's calls, by the name of the recording."""
        archive = Archive(self.bucket, self.pipeline, self.s3.state, **more)
        self.used[day], found = archive.take(day, self.used.get(day), f"run-{len(self.s3.asked)}")
        return names(found)

    def asked(self) -> Counter[str]:
        """The requests for single objects of the recordings' bucket since the last time."""
        kinds = ("HeadObject", "GetObjectTagging", "GetObject")
        count = Counter(kind for kind, key in self.s3.asked if kind in kinds and key.startswith(("calls/", "meta/")))
        self.s3.asked.clear()
        return count


def names(found: Any) -> dict[str, dt.datetime]:
    return {one.key.rpartition("/")[2].partition(".")[0]: one.call_time for one in found}


def wav(chunks: bytes = b"") -> bytes:
    """A short WAV file with some chunks behind its samples."""
    body = io.BytesIO()
    with wave.open(body, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    content = body.getvalue()[12:] + chunks
    return b"RIFF" + (len(content) + 4).to_bytes(4, "little") + b"WAVE" + content


def put_with(s3: Store, kind: str, name: str = "a", at: str = AT) -> None:
    """A recording whose time is in a place of the kind."""
    key = f"calls/{name}.wav"
    if kind == "metadata":
        s3.client.put_object(Bucket=s3.recordings, Key=key, Body=name.encode(), Metadata={"Call-Start": at})
    elif kind == "tag":
        s3.client.put_object(Bucket=s3.recordings, Key=key, Body=name.encode(), Tagging=urlencode({"start": at}))
    elif kind == "audio_tag":
        text = at.encode() + b"\0" * (2 - len(at) % 2)
        info = b"INFOICRD" + len(at).to_bytes(4, "little") + text
        s3.put(key, wav(b"LIST" + len(info).to_bytes(4, "little") + info))
    else:
        s3.put(key, name.encode())
        s3.put(f"calls/{name}.json", json.dumps({"Agent": {"ConnectedToAgentTimestamp": at}}).encode())
    s3.written[key] = NOON + dt.timedelta(days=400)


RULES = {
    "metadata": {"metadata": "call-start"},
    "tag": {"tag": "start"},
    "audio_tag": {"audio_tag": "date"},
    "sidecar": SIDECAR,
}


@pytest.mark.integration
@pytest.mark.parametrize("kind", RULES)
def test_time_is_read_once_for_all_days_and_runs(s3: Store, kind: str) -> None:
    runs = Runs(s3, RULES[kind])
    put_with(s3, kind)
    put_with(s3, kind, "b", "2026-11-21T00:10:00+01:00")
    put_with(s3, kind, "c", "2026-11-19T00:10:00")
    assert runs.run() == {"a": MOMENT, "b": dt.datetime(2026, 11, 20, 23, 10, tzinfo=dt.UTC)}
    most = 2 if kind == "audio_tag" else 1  # by the version of the library that reads them
    each, rest = divmod(runs.asked().total(), 3)
    assert (1 <= each <= most, rest) == (True, 0)
    assert list(runs.run(DAY - dt.timedelta(days=1))) == ["c"]
    put_with(s3, kind, "d")
    assert list(runs.run()) == ["a", "b", "d"], "lists again"
    assert runs.asked().total() == each
    put_with(s3, kind, "c", "2026-11-20T00:10:00")
    if kind == "audio_tag":  # its bytes are others, which the other kinds do not notice
        assert list(runs.run()) == ["a", "b", "c", "d"]


@pytest.mark.integration
def test_daily_prefix_keeps_the_day_and_the_times_of_its_calls(s3: Store) -> None:
    pipeline = s3.pipeline(recordings={"prefix": "calls/{date}/", "call_time": SIDECAR})
    bucket = RecordingBucket(s3.client, s3.recordings)
    for name, at in (("a", AT), ("b", "2020-01-01T00:00:00Z")):
        s3.put(f"calls/{DAY}/{name}.mp3", name.encode())
        s3.put(f"calls/{DAY}/{name}.json", json.dumps({"Agent": {"ConnectedToAgentTimestamp": at}}).encode())
    s3.put(f"calls/{DAY}/c.mp3", b"c")
    for first in (True, False):
        s3.asked.clear()
        found = names(listed_day(bucket, pipeline, s3.state, DAY))
        assert found["a"] == MOMENT
        assert found["b"] == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        read = [key for kind, key in s3.asked if kind == "GetObject" and key.startswith("calls/")]
        assert sorted(read) == [f"calls/{DAY}/{one}.json" for one in ("a", "b", "c")][0 if first else 2 :]
    s3.put(f"calls/{DAY}/c.json", json.dumps({"Agent": {"ConnectedToAgentTimestamp": AT}}).encode())
    assert names(listed_day(bucket, pipeline, s3.state, DAY))["c"] == MOMENT


BAD = {
    "missing": (None, "there is no calls/bad.json"),
    "no JSON": (b"{", "calls/bad.json is no JSON"),
    "deep": (b"[" * 100_000, "calls/bad.json is no JSON"),
    "without": (b'{"Agent": []}', "it has none"),
    "null": (b'{"Agent": {"ConnectedToAgentTimestamp": null}}', "it has none"),
    "word": (b'{"Agent": {"ConnectedToAgentTimestamp": "soon"}}', "'soon' is no time"),
    "year 1": (b'{"Agent": {"ConnectedToAgentTimestamp": "0001-01-02"}}', "'0001-01-02' is no time"),
    "list": (b'{"Agent": {"ConnectedToAgentTimestamp": [1]}}', "'[1]' is no time"),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", BAD)
def test_recording_without_a_readable_time_falls_back_and_is_named(
    s3: Store, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    body, told = BAD[case]
    put_with(s3, "sidecar")
    put_with(s3, "sidecar", "bad")
    s3.written["calls/bad.wav"] = NOON
    s3.client.delete_object(Bucket=s3.recordings, Key="calls/bad.json")
    if body is not None:
        s3.put("calls/bad.json", body)
    with caplog.at_level(logging.WARNING):
        assert Runs(s3, SIDECAR).run() == {"a": MOMENT, "bad": NOON}
    assert "1 recordings have no time where recordings.call_time says that it is; their LastModified was used: " in (
        caplog.text
    )
    assert f"'calls/bad.wav' ({told}" in caplog.text


@pytest.mark.integration
def test_unread_time_is_read_again_until_its_day_has_run(s3: Store) -> None:
    runs = Runs(s3, SIDECAR)
    for name in ("late", "lost"):
        s3.put(f"calls/{name}.mp3", name.encode())
        s3.written[f"calls/{name}.mp3"] = NOON + dt.timedelta(days=1)
    assert runs.run(DAY - dt.timedelta(days=1)) == {}
    put = json.dumps({"Agent": {"ConnectedToAgentTimestamp": AT}}).encode()
    s3.put("calls/late.json", put)
    assert runs.run(DAY - dt.timedelta(days=1)) == {}, "lists again"
    assert runs.run() == {"late": MOMENT}
    with_lost = DAY + dt.timedelta(days=1)
    s3.lease("run", day=with_lost).take()
    s3.put("calls/lost.json", put)
    runs.asked()
    assert runs.run() == {"late": MOMENT}, "lists again"
    assert runs.asked().total() == 0
    assert list(runs.run(with_lost)) == ["lost"]


def refuse(s3: Store, operation: str, status: int, only: str = "") -> None:
    def answer(params: dict[str, Any], **_: object) -> None:
        if only in str(params["url_path"]) and "index" not in str(params["url_path"]):
            head = {"HTTPStatusCode": status, "HostId": "", "HTTPHeaders": {}, "RequestId": "", "RetryAttempts": 0}
            raise ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": head}, operation)

    s3.client.meta.events.register(f"before-call.s3.{operation}", answer)


@pytest.mark.integration
def test_one_refused_document_is_one_time_less_and_all_are_a_mistake(s3: Store) -> None:
    put_with(s3, "sidecar")
    put_with(s3, "sidecar", "b")
    s3.written["calls/b.wav"] = NOON
    refuse(s3, "GetObject", 403, "calls/b.json")
    assert Runs(s3, SIDECAR).run() == {"a": MOMENT, "b": NOON}
    for number in range(8):
        put_with(s3, "sidecar", f"c{number}")
    refuse(s3, "GetObject", 403, "calls/")
    other = Runs(s3, {**SIDECAR, "path": "$.Agent['ConnectedToAgentTimestamp']"})
    with pytest.raises(ConfigurationError, match="S3 refuses to show the times of all 10 recordings"):
        other.run()
    s3.client.delete_object(Bucket=s3.recordings, Key="calls/a.wav")
    assert other.run() == {"b": NOON}, "so few may be wrong themselves"


@pytest.mark.integration
def test_store_that_does_not_answer_ends_the_listing(s3: Store) -> None:
    put_with(s3, "sidecar")
    refuse(s3, "GetObject", 503, "calls/a.json")
    with pytest.raises(ServiceUnavailable):
        Runs(s3, SIDECAR).run()


@pytest.mark.integration
def test_lease_is_renewed_while_times_are_read(s3: Store) -> None:
    for number in range(20):
        put_with(s3, "metadata", f"{number:02}")
    beats: list[int] = []
    found = Runs(s3, RULES["metadata"]).run(heartbeat=lambda: beats.append(1))
    assert list(found) == sorted(found)
    assert len(found) == 20
    assert len(beats) >= 2


@pytest.mark.integration
def test_listing_can_be_left_in_the_middle(s3: Store) -> None:
    put_with(s3, "metadata")
    put_with(s3, "metadata", "b")
    runs = Runs(s3, RULES["metadata"])
    first = next(iter(Listing(runs.bucket, runs.pipeline, "calls/", unmatched=SomeKeys())))
    assert first.call_time == MOMENT


INVENTORIES = {
    "csv": ("lists/calls.csv", b"key,started\r\ncalls/a.mp3,2026-11-20T08:30:00Z\r\n"),
    "uris": ("lists/calls.csv", "\ufeffKey;Started\ns3://{bucket}/calls/a.mp3;2026-11-20 08:30\n".encode()),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", INVENTORIES)
def test_time_from_an_inventory_takes_no_request_per_recording(s3: Store, case: str) -> None:
    name, body = INVENTORIES[case]
    s3.put(name, body.replace(b"{bucket}", s3.recordings.encode()))
    s3.put("calls/a.mp3")
    s3.put("calls/b.mp3")
    s3.written["calls/b.mp3"] = NOON
    runs = Runs(s3, {"inventory": f"s3://{s3.recordings}/{name}", "field": "started"})
    assert runs.run() == {"a": MOMENT, "b": NOON}
    assert runs.asked().total() == 0


@pytest.mark.integration
@pytest.mark.parametrize("prefix", ["calls/{date:%Y-%m}/", "calls/{date:%Y-%m-%d}/"])
def test_inventory_is_read_once_for_all_prefixes_of_a_run(s3: Store, prefix: str) -> None:
    days = [DAY - dt.timedelta(days=20 * number) for number in range(5)]
    keys = [f"{prefix.format(date=day)}{day}.mp3" for day in days]
    rows = "".join(f"{key},{day}T08:30\n" for key, day in zip(keys, days, strict=True))
    s3.put("lists/calls.csv", f"key,at\n{rows}".encode())
    for key in keys:
        s3.put(key)
    rule = {"inventory": f"s3://{s3.recordings}/lists/calls.csv", "field": "at"}
    runs = Runs(s3, rule, prefix=prefix)
    if runs.pipeline.recordings.is_daily:
        lease = s3.lease("run", "list")
        lease.take()
        work = WorkList(runs.pipeline, runs.bucket, Ledger.open(s3.state, lease, "run", "list"))
        for day in days:
            work.add(day)
        assert len(work.todo) == 5
    else:
        found = Archive(runs.bucket, runs.pipeline, s3.state).survey(days, SomeKeys(), SomeKeys())
        assert all(names(found.recordings_of(day)) for day in days)
        found.close()
    assert s3.asked.count(("GetObject", "lists/calls.csv")) == 1


@pytest.mark.integration
def test_time_from_an_inventory_by_the_id_in_the_key(s3: Store) -> None:
    s3.put("lists/calls.csv", b"call_sid,start_time\nCA1,1795163400\nCA2,1795163400000\n")
    for one in ("CA1", "CA2"):
        s3.put(f"calls/rec-{one}-x.mp3", one.encode())
    rule = {"inventory": f"s3://{s3.recordings}/lists/calls.csv", "field": "start_time"}
    runs = Runs(s3, {**rule, "id_field": "call_sid", "id_pattern": r"-(?P<id>CA\d)-"})
    assert runs.run() == {"rec-CA1-x": MOMENT, "rec-CA2-x": MOMENT}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("uri", "told"),
    [("s3://{bucket}/lists/none.csv", "there is no s3://"), ("s3://no-such-bucket-x/a.csv", "no-such-bucket-x")],
)
def test_inventory_that_can_not_be_read_is_a_mistake(s3: Store, uri: str, told: str) -> None:
    s3.put("calls/a.mp3")
    rule = {"inventory": uri.format(bucket=s3.recordings), "field": "started"}
    with pytest.raises(ConfigurationError, match=told):
        Runs(s3, rule).run()


@pytest.mark.parametrize(
    ("text", "format", "moment"),
    [
        (" 2026-11-20T09:30:00 ", None, MOMENT),
        ("2026-11-20T08:30:00.000+0000", None, MOMENT),
        ("2026-11-20 03:30:00-05:00", None, MOMENT),
        ("1795163400", None, MOMENT),
        ("1795163400000", None, MOMENT),
        ("1795163400.25", None, MOMENT),
        ("1795163400", "epoch", MOMENT),
        ("20.11.2026 09:30", "%d.%m.%Y %H:%M", MOMENT),
        ("Fri, 20 Nov 2026 08:30:00 GMT", "%a, %d %b %Y %H:%M:%S GMT", MOMENT),
    ],
)
def test_text_is_read_as_a_time(text: str, format: str | None, moment: dt.datetime) -> None:
    assert moment_of(text, format, BERLIN) == moment


@pytest.mark.parametrize(
    "text", ["", "soon", "20", "17951634", "2026-13-01", "0001-01-01", "9999-12-31T23:00:00-05:00"]
)
def test_other_text_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        moment_of(text, None, BERLIN)


@given(st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2200, 1, 1)))
def test_any_iso_time_is_read_back(moment: dt.datetime) -> None:
    assert moment_of(moment.isoformat(), None, dt.UTC) == moment.replace(tzinfo=dt.UTC)


@pytest.mark.integration
def test_index_of_an_archive_has_the_name_it_had(s3: Store) -> None:
    """Of settings that existed before: another name would forget the times of every recording."""

    def digest(**recordings: Any) -> str:
        ours = pipeline(recordings={"prefix": "calls/", **recordings})
        s3.asked.clear()
        with contextlib.suppress(ConfigurationError):
            Archive(RecordingBucket(s3.client, s3.recordings), ours, s3.state).take(DAY, None, "run")
        return next(key for _, key in s3.asked if "index/" in key).split("/")[-2]

    by_key = {"key_pattern": r"(?P<time>\d{8}T\d{6})", "format": "%Y%m%dT%H%M%S"}
    assert digest() == "87cc00d7222d0a84"
    assert digest(call_time=by_key) == "c5c062a092c87d9e"
    assert digest(key_pattern="x") != digest()
    assert digest(call_time={**by_key, "timezone": "Asia/Tokyo"}) != digest(call_time=by_key)
    assert len({digest(call_time=rule) for rule in RULES.values()}) == len(RULES)
    assert digest(channels={1: "agent"}, columns={"q": {"tag": "q"}}) == digest()


def test_recording_lines_are_as_before() -> None:
    assert Recording.from_line("b", Recording("b", "k", "e", 1, NOON).as_line()).call_time == NOON
