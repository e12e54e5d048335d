"""Reads published tables: a day of a table, and the days that exist."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from callphases.errors import ConfigurationError
from callphases.state.storage import ObjectPrefix
from callphases.tables.schema import SCHEMAS, day_of, object_name


def read_table_day(tables: ObjectPrefix, table: str, day: dt.date, only: list[str] | None = None) -> pa.Table | None:
    """A day of a table, or some of its columns; None if it has no rows."""
    body = tables.get(object_name(table, day))
    return None if body is None else read_table(body, table, only)


def read_rows(tables: ObjectPrefix | Path, table: str, day: dt.date) -> list[dict[str, Any]]:
    """A day of a table as dicts; ``tables`` is ``output.tables``, or a local folder with a copy of it."""
    if isinstance(tables, ObjectPrefix):
        read = read_table_day(tables, table, day)
        return [] if read is None else read.to_pylist()
    path = tables / object_name(table, day)
    return read_table(path, table).to_pylist() if path.is_file() else []


def read_table(source: bytes | Path, table: str, only: list[str] | None = None) -> pa.Table:
    """The object of a day of a table, or some of its columns: its bytes, or a file of them."""
    # Not with pq.read_table: it starts threads even with use_threads=False, and a process that ends while Arrow still
    # starts them is aborted (1 in 150 reads of a small day by three processes on two cores).
    with pq.ParquetFile(source if isinstance(source, Path) else pa.BufferReader(source), pre_buffer=False) as file:
        more = [column for column in file.schema_arrow if column.name not in SCHEMAS[table].names]
        fields = [field for field in (*SCHEMAS[table], *more) if only is None or field.name in only]
        read = file.read([field.name for field in fields], use_threads=False)
    return with_columns(read, fields)


def with_columns(read: pa.Table, fields: Sequence[pa.Field[Any]]) -> pa.Table:
    """The table with just these columns, which files of older versions may lack."""
    columns = [
        read.column(field.name).cast(field.type) if field.name in read.column_names else pa.nulls(len(read), field.type)
        for field in fields
    ]
    return pa.table(columns, schema=pa.schema(fields))


def published_days(tables: ObjectPrefix | Path, table: str = "calls") -> list[dt.date]:
    """The published days of a table, in order.

    Raises:
        ConfigurationError: a local folder can't be read.
    """
    if isinstance(tables, ObjectPrefix):
        names: Iterable[str] = tables.names(f"{table}/dt=")
    else:
        try:
            names = [path.relative_to(tables).as_posix() for path in tables.glob(object_name(table, "*"))]
        except OSError as error:
            raise ConfigurationError(f"{tables}: can't be read: {error.strerror}") from None
    return sorted(day for name in names if (day := day_of(table, name)) is not None)


def published_versions(tables: ObjectPrefix, day: dt.date) -> set[int]:
    """The recordings that a day's rows are of, as hashes of URI and ETag: numbers, as a day may have a million."""
    calls = read_table_day(tables, "calls", day, ["recording_uri", "recording_etag"])
    batches = [] if calls is None else calls.to_batches()
    return {
        hash(pair) for batch in batches for pair in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    }
