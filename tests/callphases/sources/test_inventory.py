"""Lists of recordings: CSV, Parquet, folders of them, and S3 Inventory as it is documented."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from callphases.errors import ConfigurationError
from callphases.sources.inventory import BATCH_ROWS, Inventory, Wanted
from doubles import Store

AT = dt.datetime(2026, 11, 20, 8, 30)


def put(s3: Store, key: str, body: bytes) -> str:
    s3.client.put_object(Bucket=s3.warehouse, Key=key, Body=body)
    return f"s3://{s3.warehouse}/{key}"


def parquet(**columns: Any) -> bytes:
    body = io.BytesIO()
    pq.write_table(pa.table(columns), body)
    return body.getvalue()


def found(
    s3: Store, uri: str, *keys: str, field: str | None = "queue", join: str = "key", by_key: bool = True
) -> list[Any]:
    inventory = Inventory(s3.client, Wanted(uri, join, by_key), [field])
    values = [inventory.find("recordings", key, field) for key in keys]
    inventory.close()
    return values


@pytest.mark.integration
@pytest.mark.parametrize(
    "body",
    [
        b"key,queue\ncalls/a.mp3,sales\ncalls/b.mp3,\n",
        b"queue,key\r\nsales,calls/a.mp3\r\n,calls/b.mp3\r\n",
        "\ufeffKey;Queue\ncalls/a.mp3;sales\ncalls/b.mp3;\n".encode(),
        b'key\tqueue\n"calls/a.mp3"\t"sales"\n\ncalls/b.mp3\t\n',
        gzip.compress(b"key|queue\ncalls/a.mp3|sales", mtime=0),
        b"key,queue\ns3://recordings/calls/a.mp3,sales\n",
        b"key,queue\ncalls/a.mp3,old\ncalls/a.mp3,sales\nbroken\n",
    ],
)
def test_csv_is_joined_by_key(s3: Store, body: bytes) -> None:
    uri = put(s3, "list.csv", body)
    assert found(s3, uri, "calls/a.mp3", "calls/b.mp3", "calls/c.mp3") in (["sales", "", None], ["sales", None, None])


@pytest.mark.integration
def test_quoted_line_feeds_and_delimiters_stay(s3: Store) -> None:
    uri = put(s3, "list.csv", b'key,note\na,"one\ntwo, ""three"""\n')
    assert found(s3, uri, "a", field="note") == ['one\ntwo, "three"']


@pytest.mark.integration
def test_parquet_values_become_text(s3: Store) -> None:
    uri = put(
        s3,
        "list.parquet",
        parquet(
            call_id=["1", "2", None],
            at=pa.array([AT, None, AT], pa.timestamp("ms")),
            crm=pa.array([7.0, None, 1.0]),
            other=["x"] * 3,
        ),
    )
    for field, values in (("at", ["2026-11-20T08:30:00", None]), ("crm", ["7", None])):
        assert found(s3, uri, "1", "2", field=field, join="call_id", by_key=False) == values


@pytest.mark.integration
def test_folder_stands_for_all_of_its_files(s3: Store) -> None:
    put(s3, "lists/part-0.csv", b"key,queue\na,sales\n")
    put(s3, "lists/more/part-1.parquet", parquet(key=["b"], queue=["care"]))
    put(s3, "lists/_SUCCESS", b"")
    assert found(s3, f"s3://{s3.warehouse}/lists/", "a", "b") == ["sales", "care"]


@pytest.mark.integration
def test_list_longer_than_a_batch_is_read_with_heartbeats(s3: Store) -> None:
    rows = "".join(f"calls/{number}.mp3,q{number}\n" for number in range(2 * BATCH_ROWS + 1))
    uri = put(s3, "list.csv", f"key,queue\n{rows}".encode())
    beats: list[int] = []
    inventory = Inventory(s3.client, Wanted(uri, "key", by_key=True), ["queue"], lambda: beats.append(1))
    assert inventory.find("recordings", f"calls/{2 * BATCH_ROWS}.mp3", "queue") == f"q{2 * BATCH_ROWS}"
    assert len(beats) == 4
    inventory.close()


def published(s3: Store, at: str, format_: str, schema: str, *bodies: bytes) -> str:
    """S3 Inventory of a bucket, as it is published; returns the URI of its manifest."""
    ending = {"CSV": "csv.gz", "Parquet": "parquet", "ORC": "orc"}[format_]
    files = [{"key": f"inv/source/all/data/{at}-{number}.{ending}", "size": len(b)} for number, b in enumerate(bodies)]
    for file, body in zip(files, bodies, strict=True):
        put(s3, str(file["key"]), body)
    document = {
        "sourceBucket": "source",
        "destinationBucket": f"arn:aws:s3:::{s3.warehouse}",
        "version": "2016-11-30",
        "creationTimestamp": "1514944800000",
        "fileFormat": format_,
        "fileSchema": schema,
        "files": [{**file, "MD5checksum": "f11166069f1990abeb9c97ace9cdfabc"} for file in files],
    }
    put(s3, f"inv/source/all/{at}/manifest.checksum", b"x")
    return put(s3, f"inv/source/all/{at}/manifest.json", json.dumps(document).encode())


SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"


@pytest.mark.integration
def test_csv_of_s3_inventory_has_no_head_and_quoted_keys(s3: Store) -> None:
    row = '"source","{}","v","{}","false","9","2024-02-0{}T10:00:00.000Z","e","STANDARD"\n'
    keys = ["calls%2F2024%2Fa%20b.mp3", "calls/c+d.mp3", "calls/%2B49%C3%BC.mp3"]
    first = "".join(row.format(key, "true", 1) for key in keys).encode()
    second = (row.format("calls/e.mp3", "false", 2) + row.format("calls/e.mp3", "true", 3)) * 2
    uri = published(s3, "2024-02-04T01-00Z", "CSV", SCHEMA, gzip.compress(first), gzip.compress(second.encode()))
    names = ["calls/2024/a b.mp3", "calls/c+d.mp3", "calls/c d.mp3", "calls/+49ü.mp3"]
    assert found(s3, uri, *names, field=None) == ["2024-02-01T10:00:00.000Z"] * 4
    assert found(s3, uri, "calls/e.mp3", field="last_modified_date") == ["2024-02-03T10:00:00.000Z"]


@pytest.mark.integration
def test_parquet_of_s3_inventory_is_read_by_other_names(s3: Store) -> None:
    body = parquet(
        bucket=["source"], key=["calls/a b.mp3"], size=[9], last_modified_date=pa.array([AT], pa.timestamp("ms"))
    )
    uri = published(s3, "2024-02-04T01-00Z", "Parquet", "message s3.inventory {...}", body)
    inventory = Inventory(s3.client, Wanted(uri, "key", by_key=True), [None])
    assert inventory.find("recordings", "calls/a b.mp3", None) == "2026-11-20T08:30:00"
    assert inventory.is_of_s3
    inventory.close()


@pytest.mark.integration
def test_newest_complete_publication_of_a_folder_is_used(s3: Store) -> None:
    for day in (3, 4):
        row = f'"source","a","2024-02-0{day}T10:00:00.000Z"\n'.encode()
        published(s3, f"2024-02-0{day}T01-00Z", "CSV", "Bucket, Key, LastModifiedDate", gzip.compress(row))
    put(s3, "inv/source/all/2024-02-05T01-00Z/manifest.checksum", b"x")
    put(s3, "inv/source/all/hive/dt=2024-02-04-01-00/symlink.txt", b"x")
    assert found(s3, f"s3://{s3.warehouse}/inv/source/all/", "a", field=None) == ["2024-02-04T10:00:00.000Z"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "body", "told"),
    [
        ("list.csv", None, "there is no s3://"),
        ("list.csv", b"key;name\na;b\n", "it has no column queue, but key, name"),
        ("list.csv", b"", "it has no column key, but none at all"),
        ("list.csv", b"key,queue\n\xff\xfe,x\n", "is no CSV in UTF-8 (UnicodeDecodeError)"),
        ("list.csv.gz", gzip.compress(b"key,queue\na,b\n" * 99, mtime=0)[:40], "is no CSV in UTF-8 (EOFError)"),
        ("list.parquet", b"PAR1", "is no Parquet (ArrowInvalid)"),
        ("manifest.json", None, "there is no such object"),
        ("manifest.json", b"[]", "its manifest.json is none of S3 Inventory"),
        ("lists/none.txt", b"x", "the folder has no CSV or Parquet file"),
    ],
)
def test_list_that_can_not_be_read_is_a_mistake_in_the_file(
    s3: Store, name: str, body: bytes | None, told: str
) -> None:
    uri = f"s3://{s3.warehouse}/{name}"
    if body is not None:
        put(s3, name, body)
    if name.endswith(".txt"):
        uri = f"s3://{s3.warehouse}/lists/"
    with pytest.raises(ConfigurationError) as error:
        found(s3, uri, "a")
    assert told in str(error.value)
    assert uri in str(error.value)


@pytest.mark.integration
def test_orc_of_s3_inventory_is_not_read(s3: Store) -> None:
    uri = published(s3, "2024-02-04T01-00Z", "ORC", "struct<...>", b"ORC")
    with pytest.raises(ConfigurationError, match="its format is ORC; choose CSV or Parquet"):
        found(s3, uri, "a", field=None)
