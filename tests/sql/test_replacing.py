"""Tests that reads of a day are atomic while it is being replaced: no error, no partial day, no duplicate row."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from typing import Any

import pyarrow.parquet as pq
import pytest

from callphases.state.storage import ObjectPrefix
from callphases.tables.schema import SCHEMAS, object_name
from doubles import DAY
from engines import Ask, clickhouse
from month import calls_of, publish_day
from servers import remove, s3_client

pytestmark = pytest.mark.integration

BUCKET = "replaced-days"
VERSIONS = 15
"""How often the day is published; the first time before the reader starts."""
MOST_READS = 5_000
COLUMNS = {
    "calls": ["call_id", "run_id", "recording_etag"],
    "phases": ["call_id", "run_id", "phase_index", "summary", "duration_s"],
}

Row = dict[str, Any]
Read = Callable[[str], list[Row]]


def version(number: int) -> list[Row]:
    """The calls of a version: ten more than the version before, and every row differs."""
    return calls_of(DAY, 50 + 10 * number, f"run-{number}")


@pytest.fixture
def client(s3_url: str) -> Iterator[Any]:
    client = s3_client(s3_url)
    client.create_bucket(Bucket=BUCKET)
    yield client
    remove(client, BUCKET)


def publish(client: Any, number: int, when_deleted: str = "keep") -> None:
    tables, state = (ObjectPrefix(client, f"s3://{BUCKET}/{name}/", f"output.{name}") for name in ("tables", "state"))
    calls = version(number) if when_deleted == "keep" else []
    publish_day(tables, state, DAY, calls, when_deleted)


def publish_all(client: Any) -> None:
    for number in range(1, VERSIONS):
        publish(client, number)


def of_whole_object(client: Any) -> Read:
    """A reader that gets the object with one request."""

    def read(table: str) -> list[Row]:
        body = client.get_object(Bucket=BUCKET, Key=f"tables/{object_name(table, DAY)}")["Body"].read()
        return pq.read_table(io.BytesIO(body), schema=SCHEMAS[table], use_threads=False).to_pylist()

    return read


def with_clickhouse(ask: Ask) -> Read:
    """A reader that gets an object with several requests, and retries if they are of different versions."""

    def read(table: str) -> list[Row]:
        for _ in range(MOST_READS):
            try:
                names, rows = ask(f"SELECT {', '.join(COLUMNS[table])} FROM {table}")
            except Exception as error:
                if "was replaced during read" not in str(error):
                    raise
            else:
                return [dict(zip(names, row, strict=True)) for row in rows]
        raise AssertionError("the object was replaced during every read")

    return read


@cache
def expected(number: int, table: str) -> list[Row]:
    rows = (
        version(number) if table == "calls" else [{**call, **one} for call in version(number) for one in call["phases"]]
    )
    return sorted(({name: row[name] for name in COLUMNS[table]} for row in rows), key=_place)


def _place(row: Row) -> tuple[str, int]:
    return str(row["call_id"]), row.get("phase_index", 0)


def check(rows: list[Row], table: str) -> int:
    """The number of the version that the rows are; fails if they are not all of its rows."""
    number = int(rows[0]["run_id"].removeprefix("run-"))
    wanted = expected(number, table)
    assert sorted(({name: row[name] for name in COLUMNS[table]} for row in rows), key=_place) == wanted
    return number


def poll(read: Read, writing: Future[None]) -> list[tuple[int, int]]:
    """Read ``phases``, then ``calls``, until all versions are written; returns the pairs of versions that were read."""
    seen = []
    for _ in range(MOST_READS):
        is_last = writing.done()
        phases, calls = read("phases"), read("calls")
        seen.append((check(phases, "phases"), check(calls, "calls")))
        assert {row["call_id"] for row in phases} <= {row["call_id"] for row in calls}
        if is_last:
            break
    return seen


@pytest.mark.parametrize("reader", ["whole object", "clickhouse"])
def test_polling_reader_sees_only_whole_versions_in_order(
    s3_url: str, client: Any, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(client, 0)
    with ExitStack() as opened:
        read = of_whole_object(s3_client(s3_url))
        if reader == "clickhouse":
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "x")
            read = with_clickhouse(opened.enter_context(clickhouse(f"{s3_url}/{BUCKET}/tables/")))
        writing = opened.enter_context(ThreadPoolExecutor(1)).submit(publish_all, client)
        seen = poll(read, writing)
        writing.result()
    assert seen[-1] == (VERSIONS - 1, VERSIONS - 1)
    assert seen == sorted(seen)
    assert all(calls >= phases for phases, calls in seen)
    assert len(set(seen)) > 2, "the day was replaced while it was being read"


def test_day_that_loses_all_rows_leaves_no_object(client: Any) -> None:
    publish(client, 0)
    publish(client, 0, when_deleted="drop")
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="tables/")
    assert listed["KeyCount"] == 0
