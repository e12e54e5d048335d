"""Reads the rows of one call, from the part of a day's object that may have them.

Rows are sorted by ``call_id``, and each row group states its first and last one. So a call takes two requests for each
table, or three if the footer is long: the object's end with the footer, and a row group.
"""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from callphases.errors import ConfigurationError, ServiceUnavailable
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import with_columns
from callphases.tables.schema import SCHEMAS, no_rows, object_name

TAIL_BYTES = 128 * 1024
"""How much of an object's end is read at first: the footer of a day of 20,000 calls, or the whole of a small day."""
TRIES = 3
"""For an object that is replaced while it is read."""


def rows_of_call(tables: ObjectPrefix, table: str, day: dt.date, call_id: str) -> pa.Table | None:
    """The rows of a call in a day of a table, in the order of the object; None if the day has no object.

    Raises:
        ConfigurationError: the object is no such table; no bucket, no rights.
        ServiceUnavailable: S3 does not answer, or the object is replaced again and again.
    """
    name = object_name(table, day)
    for _ in range(TRIES):
        try:
            return _rows(tables, table, name, call_id)
        except _Replaced:
            continue
        except (pa.ArrowException, OSError) as error:
            raise ConfigurationError(f"{tables.uri_of(name)}: can't be read as the table {table}: {error}") from None
    raise ServiceUnavailable(f"{tables.uri_of(name)}: it was replaced whenever it was read. Try again.")


def _rows(tables: ObjectPrefix, table: str, name: str, call_id: str) -> pa.Table | None:
    tail = tables.tail(name, TAIL_BYTES)
    if tail is None:
        return None
    source = _Stretches(tables, name, tail.size, tail.etag)
    source.add(tail.size - len(tail.body), tail.body)
    with pq.ParquetFile(pa.PythonFile(source, mode="r"), pre_buffer=False) as file:
        more = [column for column in file.schema_arrow if column.name not in SCHEMAS[table].names]
        found = [no_rows(file.schema_arrow)]
        for number in _row_groups(file.metadata, call_id):
            source.load(*_bytes_of(file.metadata.row_group(number)))
            group = file.read_row_group(number, use_threads=False)
            found.append(group.filter(pc.equal(group["call_id"], pa.scalar(call_id))))
        return with_columns(pa.concat_tables(found), [*SCHEMAS[table], *more])


def _row_groups(metadata: Any, call_id: str) -> list[int]:
    """The row groups that may have the call: one, or two where its rows are cut."""
    column = metadata.schema.names.index("call_id") if "call_id" in metadata.schema.names else None
    if column is None:
        raise pa.ArrowInvalid("it has no column call_id")

    def may_have(number: int) -> bool:
        said = metadata.row_group(number).column(column).statistics
        return said is None or not said.has_min_max or said.min <= call_id <= said.max

    return [number for number in range(metadata.num_row_groups) if may_have(number)]


def _bytes_of(group: Any) -> tuple[int, int]:
    columns = [group.column(number) for number in range(group.num_columns)]
    # Some writers state 0 for no dictionary.
    starts = [min(filter(None, (one.dictionary_page_offset, one.data_page_offset))) for one in columns]
    return min(starts), max(start + one.total_compressed_size for start, one in zip(starts, columns, strict=True))


class _Replaced(Exception):
    """The object is not the one any more whose end was read."""


class _Stretches(io.RawIOBase):
    """An object as a file of which stretches are in memory; others are read when they are asked for."""

    def __init__(self, tables: ObjectPrefix, name: str, size: int, etag: str) -> None:
        self._tables, self._name, self._size, self._etag = tables, name, size, etag
        self._position = 0
        self._stretches: list[tuple[int, bytes]] = []

    def add(self, start: int, body: bytes) -> None:
        """What the object has from ``start`` on."""
        self._stretches.append((start, body))

    def load(self, start: int, end: int) -> None:
        """Have the bytes from ``start`` to ``end`` in memory, with one request."""
        if self._held(start, end) is None:
            body = self._tables.part(self._name, start, end, self._etag)
            if body is None:
                raise _Replaced
            self.add(start, body)

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        start = self._position
        end = self._size if size < 0 else min(start + size, self._size)
        if end <= start:
            return b""
        self.load(start, end)
        self._position = end
        held = self._held(start, end)
        if held is None:
            raise OSError("fewer bytes came than were asked for")
        return held

    def _held(self, start: int, end: int) -> bytes | None:
        for begin, body in self._stretches:
            if begin <= start and end <= begin + len(body):
                return body[start - begin : end - begin]
        return None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; returns it."""
        self._position = max({io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset, 0)
        return self._position
