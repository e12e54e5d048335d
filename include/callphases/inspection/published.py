"""Checks what is below ``output.tables``: whether published days fit the schema, and whether foreign objects are there.

Only the footers of Parquet objects are read.
"""

from __future__ import annotations

import datetime as dt
import io
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from callphases.inspection.findings import Finding, Health
from callphases.pipeline import Pipeline
from callphases.state.storage import ObjectPrefix
from callphases.tables.schema import SCHEMA_VERSION, SCHEMAS, day_of, object_name, own_columns, schema_of

FOOTER_BYTES = 64 * 1024
"""How much of an object's end is read at first; most footers fit."""
FOOTERS_AT_ONCE = 8
NAMED_AT_MOST = 10
"""Objects named in findings of one kind; the rest are only counted."""


@dataclass
class _Objects:
    """The objects below ``output.tables``: the days of each table, and foreign objects."""

    days: dict[str, list[dt.date]] = field(default_factory=lambda: {table: [] for table in SCHEMAS})
    foreign: list[str] = field(default_factory=list)
    foreign_count: int = 0


def published_findings(tables: ObjectPrefix, pipeline: Pipeline, days: int) -> Generator[Finding, None, None]:
    """Check all names below ``output.tables``, and the schemas of each table's newest ``days`` days.

    Raises:
        ConfigurationError, ServiceUnavailable: the bucket can't be listed or read.
    """
    found = _objects(tables)
    if found.foreign:
        rest = found.foreign_count - len(found.foreign)
        more = f" and {rest} more" if rest else ""
        # Readers list the prefix of one table, so objects outside of both do no harm.
        is_read = any(name.partition("/")[0] in SCHEMAS for name in found.foreign)
        yield Finding(
            Health.BAD if is_read else Health.UNSURE,
            tables.uri,
            f"Objects that callphases did not write: {', '.join(map(repr, found.foreign))}{more}. Readers take every "
            "object of a table's prefix for a part of the table: move these elsewhere.",
        )
    if alone := sorted(set(found.days["phases"]) - set(found.days["calls"])):
        detail = f"phases without calls, of {', '.join(map(str, alone[:NAMED_AT_MOST]))}: run these days again."
        yield Finding(Health.BAD, tables.uri, detail)
    for table, of_table in found.days.items():
        schema = schema_of(table, pipeline)
        yield from _table_findings(tables, table, schema, sorted(of_table, reverse=True)[:days], len(of_table))


def _objects(tables: ObjectPrefix) -> _Objects:
    found = _Objects()
    for name in tables.names(""):
        table = name.partition("/")[0]
        day = day_of(table, name) if table in SCHEMAS else None
        if day is not None:
            found.days[table].append(day)
            continue
        found.foreign_count += 1
        if len(found.foreign) < NAMED_AT_MOST:
            found.foreign.append(name)
    return found


def _table_findings(
    tables: ObjectPrefix, table: str, schema: pa.Schema, days: list[dt.date], published: int
) -> Iterator[Finding]:
    if not days:
        yield Finding(Health.UNSURE, f"table {table}", "No day is published yet.")
        return
    names = [object_name(table, day) for day in days]
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        checked = list(zip(names, pool.map(lambda name: _check_object(tables, schema, name), names), strict=True))
    versions: Counter[int] = Counter()
    bad = 0
    for name, (version, mistakes) in checked:
        versions[version] += 1
        if not mistakes:
            continue
        bad += 1
        if bad <= NAMED_AT_MOST:
            detail = f"{'; '.join(mistakes)}. Move it elsewhere and run the day again."
            yield Finding(Health.BAD, tables.uri_of(name), detail)
    if bad > NAMED_AT_MOST:
        yield Finding(Health.BAD, f"table {table}", f"{bad - NAMED_AT_MOST} more objects do not fit the schema.")
    counts = ", ".join(f"{count} of version {version}" for version, count in sorted(versions.items()) if version)
    if any(version > SCHEMA_VERSION for version in versions):
        detail = (
            f"{counts}: a newer callphases published some days, with columns that this one does not know. Update it."
        )
        yield Finding(Health.UNSURE, f"table {table}", detail)
    elif not bad:
        detail = f"The newest {len(days)} of {published} days fit the schema ({counts})."
        yield Finding(Health.GOOD, f"table {table}", detail)


def _check_object(tables: ObjectPrefix, expected: pa.Schema, name: str) -> tuple[int, list[str]]:
    """The ``schema_version`` of an object and its schema mistakes; version 0 if it is not Parquet."""
    try:
        schema = _read_schema(tables, name)
    except (pa.ArrowException, OSError, ValueError):
        return 0, ["it is no Parquet file"]
    try:
        version = int((schema.metadata or {}).get(b"schema_version", b"1"))
    except ValueError:
        return 0, ["its schema_version is not a number"]
    return version, schema_mistakes(expected, schema, version)


def schema_mistakes(expected: pa.Schema, schema: pa.Schema, version: int) -> list[str]:
    """How the schema of an object differs from what schema version ``version`` of the ``expected`` table allows.

    Schema versions only append columns: an older one lacks the last columns, a newer one has more. The columns of
    ``recordings.columns`` come and go with the pipeline file.
    """
    found = [
        f"column {name} is {schema.field(name).type}, expected {expected.field(name).type}"
        for name in expected.names
        if name in schema.names and schema.field(name).type != expected.field(name).type
    ]
    own, own_once = own_columns(expected), own_columns(schema)
    fixed = [name for name in expected.names if name not in own]
    if version <= SCHEMA_VERSION:
        unknown = [name for name in schema.names if name not in expected.names and name not in own_once]
        found += [f"there is no column {name} in the table" for name in unknown]
    missing = [name for name in fixed if name not in schema.names]
    if missing and (version >= SCHEMA_VERSION or missing != fixed[-len(missing) :]):
        found.append(f"it lacks {', '.join(missing)}")
    return found


def _read_schema(tables: ObjectPrefix, name: str) -> pa.Schema:
    tail = _last_bytes(tables, name, FOOTER_BYTES)
    if not tail.endswith(b"PAR1"):
        raise ValueError("not Parquet")
    # The four bytes before the magic number are the footer's length.
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if needed > len(tail):
        tail = _last_bytes(tables, name, needed)
    return pq.read_schema(io.BytesIO(tail))


def _last_bytes(tables: ObjectPrefix, name: str, count: int) -> bytes:
    tail = tables.tail(name, count)
    return b"" if tail is None else tail.body
