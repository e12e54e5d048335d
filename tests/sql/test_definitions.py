"""Tests that every definition has the schema's columns in order, with their types, by parsing the SQL files."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from answers import ANSWERS
from callphases.tables.schema import SCHEMAS
from engines import SQL, definition

TEXT, TIME, INT, LONG, DOUBLE = pa.string(), pa.timestamp("us", tz="UTC"), pa.int32(), pa.int64(), pa.float64()
TYPES: dict[str, dict[pa.DataType, str]] = {  # as sqlglot writes them: it uses one name for synonyms
    "athena": {TEXT: "STRING", TIME: "TIMESTAMP", INT: "INT", LONG: "BIGINT", DOUBLE: "DOUBLE"},
    "bigquery": {TEXT: "STRING", TIME: "TIMESTAMP", INT: "INT64", LONG: "INT64", DOUBLE: "FLOAT64"},
    "clickhouse": {
        TEXT: "Nullable(String)",
        TIME: "Nullable(DateTime64(6, 'UTC'))",
        INT: "Nullable(Int32)",
        LONG: "Nullable(Int64)",
        DOUBLE: "Nullable(Float64)",
    },
    "datafusion": {TEXT: "VARCHAR", TIME: "TIMESTAMP WITH TIME ZONE", INT: "INT", LONG: "BIGINT", DOUBLE: "DOUBLE"},
    "duckdb": {TEXT: "TEXT", TIME: "TIMESTAMPTZ", INT: "INT", LONG: "BIGINT", DOUBLE: "DOUBLE"},
    "redshift": {TEXT: "VARCHAR(2048)", TIME: "TIMESTAMP", INT: "INTEGER", LONG: "BIGINT", DOUBLE: "DOUBLE PRECISION"},
    "snowflake": {TEXT: "VARCHAR", TIME: "TIMESTAMPNTZ", INT: "INT", LONG: "BIGINT", DOUBLE: "DOUBLE"},
    "spark": {TEXT: "STRING", TIME: "TIMESTAMP", INT: "INT", LONG: "BIGINT", DOUBLE: "DOUBLE"},
    "trino": {TEXT: "VARCHAR", TIME: "TIMESTAMP(6)", INT: "INTEGER", LONG: "BIGINT", DOUBLE: "DOUBLE"},
}
LONG_TEXTS = ("summary", "failure_message")
FILLED = {
    "tables": "s3://warehouse/call_phases/support_calls/",
    "database": "catalog.support",
    "first_day": "2026-01-01",
    "connection": "aws-us-east-1.callphases",
    "integration": "callphases",
}
UNKNOWN_TO_SQLGLOT = {
    "bigquery": r"WITH PARTITION COLUMNS \(dt DATE\)\nWITH CONNECTION `[^`]+`\n",
    "redshift": r"\nTABLE PROPERTIES \([^)]+\)$",
}
"""Clauses that sqlglot can't parse."""
COMMANDS = {"spark": tuple(f"MSCK REPAIR TABLE {table} SYNC PARTITIONS" for table in SCHEMAS)}
"""Statements that sqlglot does not parse."""
RUN_HERE_ALONE = ("datafusion",)
"""Dialects that sqlglot does not support; test_engines.py runs them in their own engine."""


def parsed(engine: str) -> list[Any]:
    """The statements that define a table, parsed in the dialect of the engine."""
    sqlglot = pytest.importorskip("sqlglot", reason="needs the extra engines")
    statements = []
    for text in definition(engine, **FILLED):
        if text in COMMANDS.get(engine, ()):
            continue
        known = text
        if engine in UNKNOWN_TO_SQLGLOT:
            known, cut = re.subn(UNKNOWN_TO_SQLGLOT[engine], "", text)
            assert cut == 1, text
        statement = sqlglot.parse_one(known, dialect=dialect(engine))
        assert not isinstance(statement, sqlglot.exp.Command), f"sqlglot can't parse: {known}"
        if isinstance(statement, sqlglot.exp.Create) and statement.kind in ("TABLE", "VIEW"):
            statements.append(statement)
    return statements


def dialect(engine: str) -> str:
    return "postgres" if engine in RUN_HERE_ALONE else engine


def columns(statement: Any, engine: str) -> list[tuple[str, str]]:
    """Names and types of a definition's columns; dt is last if the definition has it."""
    from sqlglot import exp

    written = "hive" if engine == "athena" else dialect(engine)  # Athena's definitions use the Hive dialect
    found = [(one.name, one.kind.sql(written)) for one in statement.find_all(exp.ColumnDef)]
    if not found:  # a view
        found = [
            (one.alias_or_name, one.this.to.sql("duckdb") if isinstance(one, exp.Alias) else "DATE")
            for one in statement.expression.selects
        ]
    return found


def test_each_engine_has_a_folder_and_there_is_no_other() -> None:
    assert {path.parent.name for path in SQL.glob("*/tables.sql")} == set(TYPES)
    assert {path.name for path in SQL.iterdir()} == {*TYPES, "questions"}


@pytest.mark.parametrize("engine", [engine for engine in TYPES if engine not in RUN_HERE_ALONE])
def test_definition_has_the_columns_of_the_schema_in_order(engine: str) -> None:
    statements = parsed(engine)
    assert [name_of(statement) for statement in statements] == list(SCHEMAS)
    for statement, (table, schema) in zip(statements, SCHEMAS.items(), strict=True):
        expected = [(field.name, TYPES[engine][field.type]) for field in schema]
        if engine == "redshift":  # long texts have the maximum length
            expected = [(name, "VARCHAR(65535)" if name in LONG_TEXTS else kind) for name, kind in expected]
        if engine != "bigquery":
            expected.append(("dt", "DATE"))
        found = [(name, "DATE" if kind == "Date" else kind) for name, kind in columns(statement, engine)]
        assert found == expected, table


def name_of(statement: Any) -> str:
    from sqlglot import exp

    return str(statement.find(exp.Table).name.split(".")[-1])


@pytest.mark.parametrize("engine", TYPES)
def test_each_table_is_read_from_its_own_prefix(engine: str) -> None:
    for statement in definition(engine, **FILLED):
        for table in SCHEMAS:
            if re.match(rf"CREATE [A-Z ]*(TABLE|VIEW)[A-Z ]* `?([a-z.]+[.])?{table}\b", statement):
                others = [other for other in SCHEMAS if other != table]
                place = f"@callphases_tables/{table}/" if engine == "snowflake" else f"{FILLED['tables']}{table}"
                assert place in statement
                assert not any(f"/{other}" in statement for other in others)


@pytest.mark.parametrize("engine", TYPES)
def test_comment_explains_exactly_the_placeholders_in_use(engine: str) -> None:
    text = (SQL / engine / "tables.sql").read_text()
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("--"))
    named = set(re.findall(r"\{(\w+)\}", text))
    assert "tables" in named
    assert named <= set(FILLED)
    assert named == set(re.findall(r"\{(\w+)\}:", comment))
    assert not re.search(r"\{\w+\}", " ".join(definition(engine, **FILLED)))


# The questions


def test_each_of_the_ten_questions_starts_with_a_comment_that_asks_it() -> None:
    files = sorted((SQL / "questions").iterdir())
    assert [path.stem for path in files] == list(ANSWERS)
    for path in files:
        assert re.match(r"-- [A-Z].*\?( \(.*\))?\n", path.read_text()), path.name


@pytest.mark.parametrize("question", ANSWERS)
@pytest.mark.parametrize("engine", [engine for engine in TYPES if engine not in RUN_HERE_ALONE])
def test_question_parses_in_every_dialect(question: str, engine: str) -> None:
    """Unchanged, except that BigQuery and Redshift have another name for a double (docs/warehouses.md)."""
    sqlglot = pytest.importorskip("sqlglot", reason="needs the extra engines")
    text = (SQL / "questions" / f"{question}.sql").read_text()
    if engine in ("bigquery", "redshift"):
        text = text.replace("AS DOUBLE)", f"AS {TYPES[engine][DOUBLE]})")
    asked = sqlglot.parse_one(text, dialect=engine)
    (translated,) = sqlglot.transpile((SQL / "questions" / f"{question}.sql").read_text(), write=engine)
    assert sqlglot.parse_one(translated, dialect=engine).named_selects == asked.named_selects
    assert not list(asked.find_all(sqlglot.exp.Anonymous)), "a function that some engines lack"
    tables = {table.name for table in asked.find_all(sqlglot.exp.Table)}
    assert tables - {named.alias for named in asked.find_all(sqlglot.exp.CTE)} <= set(SCHEMAS)
