"""Definitions of tables with a pipeline's own columns, in every engine's words."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from callphases.inspection.definitions import definition, engines, placeholders
from callphases.shipped import shipped
from callphases.tables.schema import SCHEMAS, object_name, schema_of
from doubles import pipeline

TYPES = {"agent": "string", "crm_id": "int64", "score": "double", "vip": "boolean", "seen": "timestamp"}
OWN = pipeline(recordings={"columns": {name: {"tag": name, "type": kind} for name, kind in TYPES.items()}})


def test_every_shipped_folder_is_an_engine() -> None:
    assert engines() == [
        "athena", "bigquery", "clickhouse", "datafusion", "duckdb", "redshift", "snowflake", "spark", "trino",
    ]  # fmt: skip


@pytest.mark.parametrize("engine", engines())
def test_own_columns_follow_the_last_one_in_both_tables(engine: str) -> None:
    text = definition(engine, OWN)
    original = (shipped("sql") / engine / "tables.sql").read_text(encoding="utf-8")
    lines, before = text.splitlines(), original.splitlines()
    assert len(lines) == len(before) + len(SCHEMAS) * len(TYPES)
    for table, schema in SCHEMAS.items():
        start = next(at for at, line in enumerate(lines) if re.match(rf"CREATE .*\b{table}\b", line))
        last = next(at for at in range(start, len(lines)) if re.search(rf"\b{schema.names[-1]}\b", lines[at]))
        for number, (name, kind) in enumerate(TYPES.items(), start=1):
            line = lines[last + number]
            assert re.search(rf"\b{name}\b", line)
            assert lines[last + number - 1].endswith(",")
            assert kind != "boolean" or re.search("(?i)bool", line)
    assert "{tables}" not in "".join(line for line in lines if not line.startswith("--"))
    assert placeholders(text) == [name for name in placeholders(original) if name != "tables"]


def test_duckdb_reads_own_columns_of_every_type(tmp_path: Path) -> None:
    import duckdb

    for table in SCHEMAS:
        path = tmp_path / object_name(table, "2026-11-20")
        path.parent.mkdir(parents=True)
        schema = schema_of(table, OWN)
        pq.write_table(
            pa.Table.from_pylist([dict.fromkeys(schema.names) | {"agent": "Ada", "vip": True}], schema), path
        )
    with duckdb.connect() as connection:
        connection.execute(definition("duckdb", OWN, {"tables": f"{tmp_path}/"}))
        for table in SCHEMAS:
            assert connection.execute(f"SELECT agent, vip, crm_id FROM {table}").fetchall() == [("Ada", True, None)]
