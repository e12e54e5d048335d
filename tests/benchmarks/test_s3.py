"""Tests of the benchmark's S3 server through boto3."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from callphases.state.storage import ObjectPrefix
from servers import s3_client

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
START = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("httptools")
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.s3"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def s3(url: str) -> Any:
    client = s3_client(url)
    client.create_bucket(Bucket="warehouse")
    return client


def control(url: str, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
    body = None if document is None else json.dumps(document).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, body, method=method), timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def recordings(url: str, prefix: str, **changes: Any) -> None:
    document = {"bucket": "recordings", "prefix": prefix, "pattern": "%Y-%m-%d/", "count": 10, "spacing_s": 1.0}
    control(url, "POST", "/_recordings", document | {"start": START.isoformat(), "size": 100} | changes)


def keys(s3: Any, prefix: str, **more: Any) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="recordings", Prefix=prefix, **more)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def code(error: Any) -> str:
    return error.value.response["Error"]["Code"]


def test_object_is_returned_as_it_was_written(s3: Any) -> None:
    body = bytes(range(256)) * 1000
    etag = s3.put_object(Bucket="warehouse", Key="a b/ü+&%.bin", Body=body)["ETag"]
    got = s3.get_object(Bucket="warehouse", Key="a b/ü+&%.bin")
    assert got["Body"].read() == body
    assert got["ETag"] == etag
    assert abs((dt.datetime.now(dt.UTC) - got["LastModified"]).total_seconds()) < 60
    assert s3.head_object(Bucket="warehouse", Key="a b/ü+&%.bin")["ContentLength"] == len(body)
    s3.delete_object(Bucket="warehouse", Key="a b/ü+&%.bin")
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="warehouse", Key="a b/ü+&%.bin")


@pytest.mark.parametrize(("asked", "part"), [("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89")])
def test_range_request_returns_a_part(s3: Any, asked: str, part: bytes) -> None:
    s3.put_object(Bucket="warehouse", Key="digits", Body=b"0123456789")
    got = s3.get_object(Bucket="warehouse", Key="digits", Range=asked)
    assert (got["Body"].read(), got["ResponseMetadata"]["HTTPStatusCode"]) == (part, 206)
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="warehouse", Key="digits", Range="bytes=10-")
    assert code(error) == "InvalidRange"


def test_conditional_requests_fail_with_the_right_error(s3: Any) -> None:
    first = s3.put_object(Bucket="warehouse", Key="lease", Body=b"1", IfNoneMatch="*")["ETag"]
    with pytest.raises(ClientError) as there:
        s3.put_object(Bucket="warehouse", Key="lease", Body=b"2", IfNoneMatch="*")
    s3.put_object(Bucket="warehouse", Key="lease", Body=b"3", IfMatch=first)
    with pytest.raises(ClientError) as other:
        s3.put_object(Bucket="warehouse", Key="lease", Body=b"4", IfMatch=first)
    with pytest.raises(ClientError) as unread:
        s3.get_object(Bucket="warehouse", Key="lease", IfMatch=first)
    with pytest.raises(ClientError) as missing:
        s3.put_object(Bucket="warehouse", Key="no lease", Body=b"5", IfMatch=first)
    assert [code(error) for error in (there, other, unread, missing)] == ["PreconditionFailed"] * 3 + ["NoSuchKey"]
    assert s3.get_object(Bucket="warehouse", Key="lease")["Body"].read() == b"3"


def test_conditional_writes_of_callphases_work(s3: Any) -> None:
    folder = ObjectPrefix(s3, "s3://warehouse/state/", "output.state")
    etag = folder.put_if_match("a.json", b"1", None)
    assert folder.put_if_match("a.json", b"2", None) is None
    assert folder.put_if_match("a.json", b"2", etag) is not None
    assert folder.get("a.json") == b"2"
    assert list(folder.names("")) == ["a.json"]


def test_unknown_bucket_is_an_error(s3: Any) -> None:
    with pytest.raises(ClientError) as error:
        s3.list_objects_v2(Bucket="nowhere")
    assert code(error) == "NoSuchBucket"


def test_virtual_recordings_are_listed_in_pages(s3: Any, url: str) -> None:
    recordings(url, "pages/", count=2500, spacing_s=86.4)
    listed = keys(s3, "pages/")
    assert len(set(listed)) == 2500
    assert listed == sorted(listed)
    assert listed[0] == "pages/2026-11-01/0000000.wav"
    assert [key for key in listed if key.startswith("pages/2026-11-02/")] == keys(s3, "pages/2026-11-02/")
    assert keys(s3, "pages/", PaginationConfig={"PageSize": 7}) == listed
    assert keys(s3, "pages/", StartAfter=listed[1800]) == listed[1801:]


def test_virtual_recording_matches_its_list_entry(s3: Any, url: str) -> None:
    recordings(url, "same/")
    [first, *_] = s3.list_objects_v2(Bucket="recordings", Prefix="same/")["Contents"]
    got = s3.get_object(Bucket="recordings", Key=first["Key"])
    assert (got["ETag"], got["LastModified"]) == (first["ETag"], first["LastModified"])
    assert (first["LastModified"], first["Size"], len(got["Body"].read())) == (START, 100, 100)
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="recordings", Key="same/2026-11-01/0000010.wav")


def test_uploads_are_listed_among_virtual_recordings(s3: Any, url: str) -> None:
    recordings(url, "both/")
    s3.put_object(Bucket="recordings", Key="both/2026-11-01/0000003 again.wav", Body=b"")
    listed = keys(s3, "both/")
    assert len(listed) == 11
    assert listed == sorted(listed)


def test_requests_are_counted_by_kind(s3: Any, url: str) -> None:
    recordings(url, "counted/")
    control(url, "DELETE", "/_counts")
    keys(s3, "counted/")
    s3.get_object(Bucket="recordings", Key="counted/2026-11-01/0000000.wav")["Body"].read()
    for key in ("state/ledger/dt=2026-11-01/lease.json", "state/runs/a", "tables/calls/b", "c"):
        s3.put_object(Bucket="warehouse", Key=key, Body=b"x")
    assert control(url, "GET", "/_counts") == {
        "GET": {"audio": 1},
        "LIST": {"audio": 1},
        "PUT": {"lease": 1, "runs": 1, "tables": 1, "other": 1},
    }
