"""A pipeline's own columns: values from a recording's key, and from elsewhere.

Keys are parsed when rows are built. Metadata, tags, documents and so on cost a request each, so they are read once per
version of a recording, while it is being transcribed, and kept in the ledger.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from callphases import time_formats
from callphases.errors import CallFailure
from callphases.pipeline import Column, Elsewhere, Pipeline
from callphases.progress import DayPass, Progress
from callphases.recordings import Recording
from callphases.sources.elsewhere import Reader, name_of_rule
from callphases.state.bucket import RecordingBucket
from callphases.state.events import Described, failed
from callphases.state.keys import RecordingKeys, description_key, wanted_descriptions
from callphases.state.ledger import Ledger, LedgerView
from callphases.state.workers import Done, work_off

log = logging.getLogger(__name__)

REQUESTS_AT_ONCE = 16

_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
# How values are written. Python's own int() and float() also read 1_000, nan and ١٢.
_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]+)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def fields(pipeline: Pipeline) -> list[pa.Field[Any]]:
    """The columns, in the order of the pipeline file."""
    return [pa.field(name, _TYPES[column.type]) for name, column in pipeline.recordings.columns.items()]


def values(recording: Recording, pipeline: Pipeline, known: LedgerView) -> dict[str, Any]:
    """The columns' values for a recording; None if there is no value, or none of the column's type."""
    columns = pipeline.recordings.columns
    if not columns:
        return {}
    event = known.find(description_key(recording, wanted_descriptions(pipeline)))
    described = event if isinstance(event, Described) else None
    zone = pipeline.zone
    return {
        name: converted(_text(name, column, recording, described), column, zone) for name, column in columns.items()
    }


def _text(name: str, column: Column, recording: Recording, described: Described | None) -> str | None:
    if column.key_pattern is not None:
        match = re.search(column.key_pattern, recording.key)
        if match is None:
            return None
        groups = match.re.groupindex
        return match[name if name in groups else next(iter(groups))]
    if described is None:
        return None
    if column.metadata is not None:
        return described.metadata.get(column.metadata.lower())
    if column.tag is not None:
        return described.tags.get(column.tag)
    return (described.elsewhere or {}).get(column.source or "")


def converted(text: str | None, column: Column, zone: dt.tzinfo) -> Any:
    """Parse ``text`` as the column's type; None if that fails. Times without a UTC offset are in ``zone``.

    Spaces around a value are ignored. An int64 is ``-?[0-9]+``; a double is as in JSON, or as ``007.5`` or ``.5``; a
    boolean is true, yes or 1, or false, no or 0, in any case; a timestamp is of the column's format, else ISO 8601's
    calendar date, alone or with a time.
    """
    if text is None or column.type == "string":
        return text
    text = text.strip(" ")
    try:
        if column.type == "int64":
            number = int(text) if _INTEGER.fullmatch(text) else None
            return number if number is not None and -(1 << 63) <= number < 1 << 63 else None
        if column.type == "double":
            return value if _NUMBER.fullmatch(text) and math.isfinite(value := float(text)) else None
        if column.type == "boolean":
            return _BOOLEANS.get(text.lower())
        if column.format is not None:
            return time_formats.parse(text, column.format, zone)
        return time_formats.parse_iso(text, zone)
    except ValueError:
        return None


def describe(
    bucket: RecordingBucket,
    recordings: Sequence[Recording],
    pipeline: Pipeline,
    ledger: Ledger,
    day_pass: DayPass,
) -> None:
    """Read what the pipeline's columns need besides keys, and note it in the ledger.

    A recording that has been deleted from the bucket has no metadata and no tags. One whose metadata, tags or document
    may not be read fails: it is not submitted in ``day_pass``. If it has a transcript already, its columns are null.

    Raises:
        ConfigurationError, ServiceUnavailable: S3 can't be used, or does not answer; an inventory can't be read.
        DayHeld, RunStopped: as ``Lease.hold``.
    """
    keys, rules = RecordingKeys(pipeline), _rules(pipeline)
    todo = (one for recording in recordings if not (one := Progress(recording, keys, ledger)).is_described)
    with Reader(bucket, rules) as reader:
        tasks = (partial(_describe_one, reader, one, rules, keys.wanted_descriptions, day_pass) for one in todo)
        worked = work_off(ledger, tasks, threads=REQUESTS_AT_ONCE)
    if worked.problem is not None:
        raise worked.problem


def look(bucket: RecordingBucket, recording: Recording, pipeline: Pipeline) -> dict[str, Any]:
    """The columns' values for a recording, read from S3 now and not kept; raises as ``describe``."""
    rules = _rules(pipeline)
    with Reader(bucket, rules) as reader:
        event = _described(reader, recording, rules, wanted_descriptions(pipeline))
    return values(recording, pipeline, LedgerView([event]))


def _rules(pipeline: Pipeline) -> list[Elsewhere]:
    """Of the columns that are not read from keys, one for each value."""
    columns = pipeline.recordings.columns.values()
    return list({name_of_rule(one): one for one in columns if one.key_pattern is None}.values())


def _describe_one(
    reader: Reader,
    progress: Progress,
    rules: Sequence[Elsewhere],
    wanted: dict[str, list[str]],
    day_pass: DayPass,
) -> Done:
    recording = progress.recording
    try:
        return Done([_described(reader, recording, rules, wanted)])
    except CallFailure as failure:
        log.warning("%s: %s", recording.key, failure)
        keys = [description_key(recording, wanted)]
        if progress.needs_transcript(day_pass) and not progress.may_be_at_provider:
            keys.append(progress.key)
        return Done([failed(key, failure, recording.key) for key in keys])


def _described(
    reader: Reader, recording: Recording, rules: Sequence[Elsewhere], wanted: dict[str, list[str]]
) -> Described:
    texts = reader.read(recording, rules).texts
    found = [(rule, texts[name]) for rule in rules if (name := name_of_rule(rule)) in texts]
    return Described(
        key=description_key(recording, wanted),
        recording=recording.key,
        metadata={rule.metadata.lower(): text for rule, text in found if rule.metadata is not None},
        tags={rule.tag: text for rule, text in found if rule.tag is not None},
        elsewhere={rule.source: text for rule, text in found if rule.source is not None} or None,
    )
