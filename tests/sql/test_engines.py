"""Tests that every engine, with only the files and include/sql, gives the same answers as plain Python."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from answers import ANSWERS
from callphases.tables.schema import SCHEMAS
from engines import ENGINES, SQL, Ask
from month import EMPTY, LAST_OF_VERSION_1, ODD_TEXTS, Month, make
from servers import remove, s3_client

CALLS_A_DAY, MANY_CALLS_A_DAY = 40, 2_000
ORDER = {"calls": ["dt", "call_id"], "phases": ["dt", "call_id", "phase_index"]}
STARTS_SERVERS = ("clickhouse", "spark")  # S3, a JVM


SMALL = pytest.param(CALLS_A_DAY, id="small")
LARGE = pytest.param(MANY_CALLS_A_DAY, id="large", marks=pytest.mark.slow)
of_a_small_month = pytest.mark.parametrize("month", [SMALL], indirect=True, scope="session")
of_any_month = pytest.mark.parametrize("month", [SMALL, LARGE], indirect=True, scope="session")


@pytest.fixture(scope="session")  # shared by all engines
def month(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Month:
    return make(tmp_path_factory.mktemp("month"), request.param)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.integration] if name in STARTS_SERVERS else []) for name in ENGINES],
)
def ask(request: pytest.FixtureRequest, month: Month) -> Iterator[Ask]:
    tables, client = f"{month.tables}/", None
    if request.param == "clickhouse":
        url = request.getfixturevalue("s3_url")
        client = s3_client(url)
        _upload(client, "month-of-calls", month.tables)
        tables = f"{url}/month-of-calls/"
    with ENGINES[request.param](tables) as opened:
        yield opened
    if client is not None:
        remove(client, "month-of-calls")


def _upload(client: Any, bucket: str, tables: Path) -> None:
    client.create_bucket(Bucket=bucket)
    for path in tables.rglob("*.parquet"):
        key = str(path.relative_to(tables))
        client.put_object(
            Bucket=bucket, Key=key, Body=path.read_bytes(), ACL="public-read"
        )  # so that reading needs no keys


def plain(value: Any) -> Any:
    """A value as a Python type: engines differ in how they return dates, decimals and UTC."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
    return value


def is_same(value: Any, expected: Any) -> bool:
    value, expected = plain(value), plain(expected)
    if value is None or expected is None or not isinstance(expected, float):
        return bool(value == expected)
    return math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-6)


def differences(rows: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> list[tuple[int, Any, Any]]:
    assert len(rows) == len(expected)
    return [
        (number, got, wanted)
        for number, (row, line) in enumerate(zip(rows, expected, strict=True))
        for got, wanted in zip(row, line, strict=True)
        if not is_same(got, wanted)
    ]


@of_any_month
@pytest.mark.parametrize("question", ANSWERS)
def test_engine_answers_a_question_as_plain_python_does(ask: Ask, month: Month, question: str) -> None:
    names, rows = ask((SQL / "questions" / f"{question}.sql").read_text())
    expected_names, expected = ANSWERS[question](month)
    assert list(names) == expected_names
    assert expected, "a question with an empty answer tests nothing"
    assert differences(rows, expected) == []


@of_a_small_month
@pytest.mark.parametrize("table", SCHEMAS)
def test_engine_reads_every_value_of_every_row(ask: Ask, month: Month, table: str) -> None:
    columns = ["dt", *SCHEMAS[table].names]
    names, rows = ask(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(ORDER[table])}")
    assert list(names) == columns
    assert differences(rows, [tuple(row[column] for column in columns) for row in month.rows(table)]) == []


@of_a_small_month
@pytest.mark.parametrize("table", SCHEMAS)
def test_engine_shows_the_schema_columns_in_order_and_then_dt(ask: Ask, table: str) -> None:
    names, _ = ask(
        f"SELECT * FROM {table} WHERE phase_count < 0" if table == "calls" else f"SELECT * FROM {table} LIMIT 1"
    )
    assert list(names) == [*SCHEMAS[table].names, "dt"]


@of_a_small_month
@pytest.mark.parametrize("table", SCHEMAS)
def test_pyarrow_dataset_reads_every_value_of_every_row(month: Month, table: str) -> None:
    day = pa.field("dt", pa.date32())
    dataset = ds.dataset(
        month.tables / table,
        schema=pa.schema([*SCHEMAS[table], day]),
        partitioning=ds.partitioning(pa.schema([day]), flavor="hive"),
        format="parquet",
    )
    read = dataset.to_table(use_threads=False).sort_by([(column, "ascending") for column in ORDER[table]])
    assert read.select(["dt", *SCHEMAS[table].names]).to_pylist() == month.rows(table)


@of_any_month
def test_month_contains_the_difficult_cases(month: Month) -> None:
    """Without these cases the tests above would be weaker than they seem."""
    days = {row["dt"] for row in month.calls}
    assert EMPTY not in days
    assert not (month.tables / "calls" / f"dt={EMPTY}").exists()
    assert {row["schema_version"] for row in month.calls if row["dt"] < EMPTY} == {1, 2, 3}
    later = SCHEMAS["phases"].names[SCHEMAS["phases"].names.index(LAST_OF_VERSION_1) + 1 :]
    assert all(row[column] is None for row in month.phases if row["schema_version"] == 1 for column in later)
    warnings = {version: set() for version in (1, 2, 3)}
    for row in month.calls:
        warnings[row["schema_version"]].add(row["warnings"])
    assert warnings[1] == warnings[2] == {None}
    assert len(warnings[3]) == 2
    assert set(ODD_TEXTS) <= {row["summary"] for row in month.phases}
    assert {row["failure_class"] for row in month.calls} > {None}
