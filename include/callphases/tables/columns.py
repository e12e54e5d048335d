"""A pipeline's own columns: what a recording's key, its object's metadata and its tags say of the call.

Keys are read when rows are made. Metadata and tags cost a request each, so they are asked for once for the bytes of a
recording, beside its transcription, and kept in the ledger.
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
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError

from callphases.errors import ConfigurationError
from callphases.pipeline import Column, Pipeline
from callphases.recordings import Recording
from callphases.state.ledger import Event, Ledger, LedgerView, digest
from callphases.state.storage import explain

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

AT_ONCE = 16
BATCH = 200
"""Recordings whose metadata are asked for between two signs of life."""

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
    said = known.find(_key(recording, pipeline)) or {}
    return {
        name: converted(_text(name, column, recording, said), column, pipeline.zone) for name, column in columns.items()
    }


def _text(name: str, column: Column, recording: Recording, said: Event) -> str | None:
    if column.key_pattern is not None:
        match = re.search(column.key_pattern, recording.key)
        if match is None:
            return None
        groups = match.re.groupindex
        return match[name if name in groups else next(iter(groups))]
    found: dict[str, str] = said.get("tags" if column.metadata is None else "metadata", {})
    return found.get(column.tag or (column.metadata or "").lower())


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


def is_described(recording: Recording, pipeline: Pipeline, known: LedgerView) -> bool:
    """Whether nothing more has to be asked about a recording."""
    return not _wanted(pipeline) or known.find(_key(recording, pipeline)) is not None


def describe(s3: S3Client, recordings: Sequence[Recording], pipeline: Pipeline, ledger: Ledger) -> None:
    """Ask for the metadata and tags that the pipeline wants of recordings, and note what it wants of them.

    A recording that is gone has none.

    Raises:
        ConfigurationError: they may not be read.
        ServiceUnavailable: S3 does not answer.
        DayHeld, RunStopped: as ``Lease.hold``.
    """
    wanted = _wanted(pipeline)
    todo = iter([one for one in recordings if not is_described(one, pipeline, ledger)])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while batch := list(itertools.islice(todo, BATCH)):
            events = list(pool.map(lambda one: _described(s3, one, pipeline, wanted), batch))
            ledger.note(events)
            ledger.lease.hold()


def look(s3: S3Client, recording: Recording, pipeline: Pipeline) -> dict[str, Any]:
    """What the columns hold for a recording, asked for now; raises as ``describe``."""
    event = {**_described(s3, recording, pipeline, _wanted(pipeline)), "at": ""}
    return values(recording, pipeline, LedgerView([event]))


def _described(s3: S3Client, one: Recording, pipeline: Pipeline, wanted: dict[str, list[str]]) -> Event:
    place: Any = {"Bucket": one.bucket, "Key": one.key}
    event: Event = {"event": "described", "key": _key(one, pipeline), "recording": one.key}
    try:
        if names := wanted.get("metadata"):
            # Names are without case, as those of HTTP's headers are.
            found = {name.lower(): _plain(text) for name, text in s3.head_object(**place)["Metadata"].items()}
            event["metadata"] = {name: found[name] for name in names if name in found}
        if names := wanted.get("tags"):
            tags = {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(**place)["TagSet"]}
            event["tags"] = {name: tags[name] for name in names if name in tags}
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError):
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404:
                return event
            if status == 403:
                right = "s3:GetObjectTagging" if error.operation_name == "GetObjectTagging" else "s3:GetObject"
                raise ConfigurationError(
                    f"s3://{one.bucket}/{one.key}: the AWS connection may not read what recordings.columns wants: "
                    f"give it the right {right}, or take the column out of the pipeline file."
                ) from None
        raise explain(error, one.bucket, "recordings.bucket") from None
    return event


def _plain(text: str) -> str:
    """The store's form of what is not ASCII (RFC 2047), decoded."""
    try:
        return str(make_header(decode_header(text))) if "=?" in text else text
    except (HeaderParseError, LookupError, ValueError):
        return text


def _wanted(pipeline: Pipeline) -> dict[str, list[str]]:
    """The names to ask for, in order."""
    columns = pipeline.recordings.columns.values()
    kinds = {
        "metadata": sorted({one.metadata.lower() for one in columns if one.metadata is not None}),
        "tags": sorted({one.tag for one in columns if one.tag is not None}),
    }
    return {kind: names for kind, names in kinds.items() if names}


def _key(recording: Recording, pipeline: Pipeline) -> str:
    """The key of what a recording's object says: other bytes, or other names to ask for, are asked about again."""
    return f"described/{digest(recording.bucket, recording.key, recording.etag, _wanted(pipeline))}"
