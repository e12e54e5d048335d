"""A pipeline's own columns: what a recording's key, its object's metadata and its tags say of the call.

Keys are read when rows are made. Metadata and tags cost a request each, so they are asked for once for the bytes of a
recording, beside its transcription, and kept in the ledger.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from functools import partial
from typing import Any

import pyarrow as pa

from callphases.errors import ConfigurationError
from callphases.pipeline import Column, Pipeline
from callphases.progress import Progress
from callphases.recordings import Recording
from callphases.state.bucket import AccessDenied, RecordingBucket
from callphases.state.events import Described
from callphases.state.keys import RecordingKeys, description_key, wanted_descriptions
from callphases.state.ledger import Ledger, LedgerView
from callphases.state.workers import Done, work_off

AT_ONCE = 16

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
    """What the columns hold for a recording: None where there is nothing, or nothing of the column's type."""
    columns = pipeline.recordings.columns
    if not columns:
        return {}
    zone = pipeline.zone
    said = known.find(description_key(recording, wanted_descriptions(pipeline)))
    return {
        name: converted(_text(name, column, recording, said if isinstance(said, Described) else None), column, zone)
        for name, column in columns.items()
    }


def _text(name: str, column: Column, recording: Recording, said: Described | None) -> str | None:
    if column.key_pattern is not None:
        match = re.search(column.key_pattern, recording.key)
        if match is None:
            return None
        groups = match.re.groupindex
        return match[name if name in groups else next(iter(groups))]
    if said is None:
        return None
    if column.metadata is not None:
        return said.metadata.get(column.metadata.lower())
    return said.tags.get(column.tag or "")


def converted(text: str | None, column: Column, zone: dt.tzinfo) -> Any:
    """A text as a value of the column's type, or None where it is none. Times without a zone are in ``zone``."""
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


def describe(bucket: RecordingBucket, recordings: Sequence[Recording], pipeline: Pipeline, ledger: Ledger) -> None:
    """Ask S3 for the metadata and tags that the pipeline's columns need, and record them.

    A recording that is gone has none.

    Raises:
        ConfigurationError: they may not be read.
        ServiceUnavailable: S3 does not answer.
        DayHeld, RunStopped: as ``Lease.hold``.
    """
    keys = RecordingKeys(pipeline)
    if not keys.wanted_descriptions:
        return
    todo = (one for one in recordings if not Progress(one, keys, ledger).is_described)
    worked = work_off(ledger, (partial(_task, bucket, one, keys.wanted_descriptions) for one in todo), threads=AT_ONCE)
    if worked.problem is not None:
        raise worked.problem


def look(bucket: RecordingBucket, recording: Recording, pipeline: Pipeline) -> dict[str, Any]:
    """The values of a recording's columns, asked for now; raises as ``describe``."""
    event = _described(bucket, recording, wanted_descriptions(pipeline))
    return values(recording, pipeline, LedgerView([event]))


def _task(bucket: RecordingBucket, recording: Recording, wanted: dict[str, list[str]]) -> Done:
    return Done([_described(bucket, recording, wanted)])


def _described(bucket: RecordingBucket, recording: Recording, wanted: dict[str, list[str]]) -> Described:
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    try:
        if names := wanted.get("metadata"):
            # Names have no case, like those of HTTP headers.
            found = bucket.metadata(recording.key) or {}
            metadata = {name: _plain(found[name]) for name in names if name in found}
        if names := wanted.get("tags"):
            found = bucket.tags(recording.key) or {}
            tags = {name: found[name] for name in names if name in found}
    except AccessDenied as denied:
        raise ConfigurationError(
            f"{denied.uri}: the AWS connection may not read what recordings.columns wants: "
            f"give it the right {denied.right}, or take the column out of the pipeline file."
        ) from None
    key = description_key(recording, wanted)
    return Described(key=key, recording=recording.key, metadata=metadata, tags=tags)


def _plain(text: str) -> str:
    """The store's form of what is not ASCII (RFC 2047), decoded."""
    try:
        return str(make_header(decode_header(text))) if "=?" in text else text
    except (HeaderParseError, LookupError, ValueError):
        return text
