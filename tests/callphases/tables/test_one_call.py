"""The rows of one call are read by a few requests, whichever part of the object they are in."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from callphases.errors import ConfigurationError, ServiceUnavailable
from callphases.tables import one_call
from callphases.tables.one_call import rows_of_call
from callphases.tables.schema import SCHEMAS, object_name
from doubles import DAY, Store

pytestmark = pytest.mark.integration


def put(s3: Store, calls: int = 1000, *, rows_a_group: int = 30, of_each: int = 4, **how: Any) -> None:
    """Publish a day's phases; a call's may be in two row groups."""
    rows = [
        {"call_id": f"{number:016x}", "phase_index": index, "summary": f"{number * 7919 % 104729}" * 20}
        for number in range(calls)
        for index in range(of_each)
    ]
    body = io.BytesIO()
    table = pa.Table.from_pylist(rows, SCHEMAS["phases"])
    pq.write_table(table, body, row_group_size=rows_a_group, compression="none", **how)
    s3.tables.put(object_name("phases", DAY), body.getvalue())
    s3.asked.clear()


@pytest.mark.parametrize("how", [{}, {"write_statistics": False}, {"use_dictionary": False}])
@pytest.mark.parametrize("number", [0, 7, 500, 999])
def test_rows_are_those_of_the_call(s3: Store, number: int, how: Any) -> None:
    put(s3, **how)
    found = rows_of_call(s3.tables, "phases", DAY, f"{number:016x}")
    assert found is not None
    assert [(row["call_id"], row["phase_index"]) for row in found.to_pylist()] == [
        (f"{number:016x}", index) for index in range(4)
    ]
    assert found.schema == SCHEMAS["phases"]


def test_few_requests_read_a_row_group_alone(s3: Store) -> None:
    put(s3, calls=20_000, rows_a_group=5_000)
    found = rows_of_call(s3.tables, "phases", DAY, f"{12_345:016x}")
    assert found is not None
    assert found.num_rows == 4
    assert s3.counted() == {"GetObject": 2}


def test_small_day_is_read_by_one_request(s3: Store) -> None:
    put(s3, calls=20, rows_a_group=5_000)
    assert rows_of_call(s3.tables, "phases", DAY, f"{3:016x}") is not None
    assert s3.counted() == {"GetObject": 1}


def test_long_footer_is_read_by_one_more(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_call, "TAIL_BYTES", 100)
    put(s3)
    found = rows_of_call(s3.tables, "phases", DAY, f"{3:016x}")
    assert found is not None
    assert found.num_rows == 4


def test_unknown_call_has_no_rows_and_unknown_day_none(s3: Store) -> None:
    put(s3)
    found = rows_of_call(s3.tables, "phases", DAY, "zzz")
    assert found is not None
    assert found.num_rows == 0
    assert rows_of_call(s3.tables, "phases", DAY + dt.timedelta(1), "zzz") is None


@pytest.mark.parametrize("body", [b"", b"PAR1", b"not Parquet", b"PAR1\xff\xff\xff\x7fPAR1"])
def test_object_that_is_no_table_is_named(s3: Store, body: bytes) -> None:
    s3.tables.put(object_name("phases", DAY), body)
    with pytest.raises(ConfigurationError, match=r"dt=2026-11-20/phases\.parquet: can't be read as the table phases"):
        rows_of_call(s3.tables, "phases", DAY, "x")


def test_table_without_call_ids_is_named(s3: Store) -> None:
    body = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), body)
    s3.tables.put(object_name("phases", DAY), body.getvalue())
    with pytest.raises(ConfigurationError, match="no column call_id"):
        rows_of_call(s3.tables, "phases", DAY, "x")


def test_day_that_is_replaced_meanwhile_is_read_anew(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_call, "TAIL_BYTES", 20_000)
    put(s3)
    replaced: list[int] = []

    def replace(params: Any, **_: object) -> None:
        if "IfMatch" in params and len(replaced) < most:
            replaced.append(1)
            put(s3, calls=1000 + len(replaced))

    s3.client.meta.events.register("provide-client-params.s3.GetObject", replace)
    most = 1
    found = rows_of_call(s3.tables, "phases", DAY, f"{3:016x}")
    assert found is not None
    assert (found.num_rows, replaced) == (4, [1])
    most = 100
    with pytest.raises(ServiceUnavailable, match="was replaced whenever it was read"):
        rows_of_call(s3.tables, "phases", DAY, f"{3:016x}")
