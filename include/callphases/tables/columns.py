"""A pipeline's own columns: values from a recording's key, its object's metadata and its tags.

Keys are parsed when rows are built. Metadata and tags cost a request each, so they are read once per version of a
recording, while it is being transcribed, and kept in the ledger.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Any

import pyarrow as pa

from callphases.errors import ConfigurationError
from callphases.pipeline import Column, Pipeline
from callphases.recordings import Recording
from callphases.state.bucket import AccessDenied, RecordingBucket
from callphases.state.ledger import Event, Ledger, LedgerView, digest

REQUESTS_AT_ONCE = 16
BATCH = 200
"""Recordings to describe between two renewals of the lease."""

_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def fields(pipeline: Pipeline) -> list[pa.Field[Any]]:
    """The columns, in the order of the pipeline file."""
    return [pa.field(name, _TYPES[column.type]) for name, column in pipeline.recordings.columns.items()]


def values(recording: Recording, pipeline: Pipeline, known: LedgerView) -> dict[str, Any]:
    """The columns' values for a recording; None if there is no value, or none of the column's type."""
    columns = pipeline.recordings.columns
    if not columns:
        return {}
    described = known.find(_key(recording, pipeline)) or {}
    return {
        name: converted(_text(name, column, recording, described), column, pipeline.zone)
        for name, column in columns.items()
    }


def _text(name: str, column: Column, recording: Recording, described: Event) -> str | None:
    if column.key_pattern is not None:
        match = re.search(column.key_pattern, recording.key)
        if match is None:
            return None
        groups = match.re.groupindex
        return match[name if name in groups else next(iter(groups))]
    found: dict[str, str] = described.get("tags" if column.metadata is None else "metadata", {})
    return found.get(column.tag or (column.metadata or "").lower())


def converted(text: str | None, column: Column, zone: dt.tzinfo) -> Any:
    """Parse ``text`` as the column's type; None if that fails. Times without a UTC offset are in ``zone``."""
    if text is None or column.type == "string":
        return text
    text = text.strip()
    try:
        if column.type == "int64":
            number = int(text)
            return number if -(1 << 63) <= number < 1 << 63 else None
        if column.type == "double":
            return value if math.isfinite(value := float(text)) else None
        if column.type == "boolean":
            return _BOOLEANS.get(text.lower())
        moment = dt.datetime.strptime(text, column.format) if column.format else dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def is_described(recording: Recording, pipeline: Pipeline, known: LedgerView) -> bool:
    """Whether the ledger has all the metadata and tags of a recording that the pipeline's columns need."""
    return not _wanted(pipeline) or known.find(_key(recording, pipeline)) is not None


def describe(bucket: RecordingBucket, recordings: Sequence[Recording], pipeline: Pipeline, ledger: Ledger) -> None:
    """Read the metadata and tags that the pipeline's columns need, and note them in the ledger.

    A recording that has been deleted from the bucket has none.

    Raises:
        ConfigurationError: the connection lacks the right to read them.
        ServiceUnavailable: S3 does not answer.
        DayHeld, RunStopped: as ``Lease.hold``.
    """
    wanted = _wanted(pipeline)
    todo = iter([one for one in recordings if not is_described(one, pipeline, ledger)])
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        while batch := list(itertools.islice(todo, BATCH)):
            events = list(pool.map(lambda one: _described(bucket, one, pipeline, wanted), batch))
            ledger.note(events)
            ledger.lease.hold()


def look(bucket: RecordingBucket, recording: Recording, pipeline: Pipeline) -> dict[str, Any]:
    """The columns' values for a recording, read from S3 now and not kept; raises as ``describe``."""
    event = {**_described(bucket, recording, pipeline, _wanted(pipeline)), "at": ""}
    return values(recording, pipeline, LedgerView([event]))


def _described(
    bucket: RecordingBucket, recording: Recording, pipeline: Pipeline, wanted: dict[str, list[str]]
) -> Event:
    event: Event = {"event": "described", "key": _key(recording, pipeline), "recording": recording.key}
    try:
        if names := wanted.get("metadata"):
            metadata = bucket.metadata(recording.key)
            if metadata is None:
                return event
            event["metadata"] = {name: _decoded(metadata[name]) for name in names if name in metadata}
        if names := wanted.get("tags"):
            tags = bucket.tags(recording.key)
            if tags is not None:
                event["tags"] = {name: tags[name] for name in names if name in tags}
    except AccessDenied as denied:
        raise ConfigurationError(
            f"{denied.uri}: the AWS connection may not read what recordings.columns asks for: grant it {denied.right}, "
            "or remove the column from the pipeline file."
        ) from None
    return event


def _decoded(text: str) -> str:
    """Metadata as text: S3 returns non-ASCII values encoded as in mail headers (RFC 2047)."""
    try:
        return str(make_header(decode_header(text))) if "=?" in text else text
    except (HeaderParseError, LookupError, ValueError):
        return text


def _wanted(pipeline: Pipeline) -> dict[str, list[str]]:
    """The names of the metadata and tags that the columns need, sorted."""
    columns = pipeline.recordings.columns.values()
    kinds = {
        "metadata": sorted({one.metadata.lower() for one in columns if one.metadata is not None}),
        "tags": sorted({one.tag for one in columns if one.tag is not None}),
    }
    return {kind: names for kind, names in kinds.items() if names}


def _key(recording: Recording, pipeline: Pipeline) -> str:
    """The ledger key of a recording's metadata and tags; a new ETag or other names make a new key, so a new request."""
    return f"described/{digest(recording.bucket, recording.key, recording.etag, _wanted(pipeline))}"
