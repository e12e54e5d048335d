"""Tests of a pipeline's own columns, added to a definition as the README says, with older days that lack them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from callphases.tables.schema import SCHEMAS, object_name, schema_of
from doubles import pipeline
from engines import definition

COLUMNS = {"agent": {"metadata": "agent"}, "crm_id": {"tag": "crm", "type": "int64"}}
EXPECTED = [("2026-11-19", None, None), ("2026-11-20", "Ada", 17)]
ADDED = {
    "duckdb": "CAST(agent AS VARCHAR) AS agent, CAST(crm_id AS BIGINT) AS crm_id,",
    "datafusion": "agent VARCHAR, crm_id BIGINT,",
}
LAST = {
    "duckdb": {"calls": "AS warnings,", "phases": "AS confidence,"},
    "datafusion": {"calls": "warnings VARCHAR,", "phases": "confidence DOUBLE,"},
}
"""The ends of the lines after which they are added."""


@pytest.fixture
def tables(tmp_path: Path) -> str:
    for day, columns in (("2026-11-19", {}), ("2026-11-20", COLUMNS)):
        for table in SCHEMAS:
            schema = schema_of(table, pipeline(recordings={"columns": columns}))
            row: dict[str, Any] = {"call_id": day, "agent": "Ada", "crm_id": 17}
            path = tmp_path / object_name(table, day)
            path.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in schema.names}], schema), path)
    return f"{tmp_path}/"


@pytest.mark.parametrize("table", SCHEMAS)
def test_duckdb_reads_own_columns_added_to_its_definition(tables: str, table: str) -> None:
    import duckdb

    after, more = LAST["duckdb"][table], ADDED["duckdb"]
    with duckdb.connect() as connection:
        for statement in definition("duckdb", tables=tables):
            connection.execute(statement.replace(after, f"{after} {more}"))
        assert connection.execute(f"SELECT call_id, agent, crm_id FROM {table} ORDER BY 1").fetchall() == EXPECTED


@pytest.mark.parametrize("table", SCHEMAS)
def test_datafusion_reads_own_columns_added_to_its_definition(tables: str, table: str) -> None:
    context = pytest.importorskip("datafusion", reason="needs the extra engines").SessionContext()
    after, more = LAST["datafusion"][table], ADDED["datafusion"]
    for statement in definition("datafusion", tables=tables):
        context.sql(statement.replace(after, f"{after} {more}")).collect()
    answer = context.sql(f"SELECT call_id, agent, crm_id FROM {table} ORDER BY 1").to_arrow_table()
    assert list(zip(*(column.to_pylist() for column in answer.columns), strict=True)) == EXPECTED


@pytest.mark.parametrize("table", SCHEMAS)
def test_definition_without_own_columns_keeps_working(tables: str, table: str) -> None:
    import duckdb

    with duckdb.connect() as connection:
        for statement in definition("duckdb", tables=tables):
            connection.execute(statement)
        names = [column[0] for column in connection.execute(f"SELECT * FROM {table}").description or []]
    assert names == [*SCHEMAS[table].names, "dt"]
