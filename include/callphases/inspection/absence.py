"""Says why a command found nothing: what does not exist, what there is instead, and what may have been meant.

This takes requests of its own, so it is asked once nothing was found.
"""

from __future__ import annotations

import datetime as dt
import difflib
import string
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from callphases.errors import CallphasesError
from callphases.inspection.findings import Finding, Health
from callphases.pipeline import Pipeline
from callphases.state import layout
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import published_days
from callphases.tables.schema import SCHEMAS

Place = ObjectPrefix | Path
NAMED = 5
"""How many names of what is there instead a message has."""
EARLIEST_ZONE = dt.timedelta(hours=14)
"""The largest UTC offset: a day that has not begun there has begun nowhere."""


def no_tables(tables: Place, pipeline: Pipeline | None) -> str:
    """Why no day is published in ``tables``; ``pipeline`` is theirs, if the user named its file.

    Raises:
        ConfigurationError, ServiceUnavailable: the bucket does not exist or can't be listed.
    """
    check = " Check output.tables in the pipeline file, or run a day first." if pipeline is not None else ""
    if isinstance(tables, Path) and tables.is_file():
        return (
            f"{tables} is a file: expected a pipeline file, s3://bucket/prefix/, or a folder with a copy of the tables."
        )
    names = _names(tables)
    if not names and not _is_folder(tables):
        what = "there is no such folder" if isinstance(tables, Path) else "no object is below it"
        return f"{_text(tables)} doesn't exist: {what}.{_nearest(tables)}{check}"
    around = [*(_child(tables, name) for name in names[:NAMED] if name.endswith("/")), *_ancestors(tables)[:2]]
    meant = next((place for place in around if any(f"{table}/" in _names(place) for table in SCHEMAS)), None)
    instead = f" Did you mean {_text(meant)}?" if meant is not None else f" It has {_some(names)}." if names else ""
    return f"{_text(tables)} holds no published day: no calls/dt=…/calls.parquet is below it.{instead}{check}"


def no_calls(
    source: str, tables: Place, pipeline: Pipeline | None, days: Sequence[dt.date], call: str | None = None
) -> str:
    """Why ``tables`` have no calls, or not this ``call``, on ``days``; without days, on any day.

    ``source`` is what the user calls the tables. Raises as ``no_tables``.
    """
    published = sorted({day for table in SCHEMAS for day in published_days(tables, table)})
    if not published:
        return no_tables(tables, pipeline)
    known = f"Published: {published[0]}"
    if len(published) > 1:
        known += f" to {published[-1]} ({len(published)} days)"
    if len(days) == 1 and published[0] < days[0] < published[-1] and days[0] not in published:
        place = bisect_left(published, days[0])
        known += f", before and after it {published[place - 1]} and {published[place]}"
    if call is not None and (not days or any(day in published for day in days)):
        when = f" on {', '.join(map(str, days))}" if days else ""
        return f"{source} has no call {call}{when}. {known}."
    reasons = (_reason(day, published, tables, pipeline) for day in sorted(set(days)))
    return f"{source}: {', '.join(reasons)}. {known}."


def no_recordings(bucket: RecordingBucket, pipeline: Pipeline, day: dt.date) -> Finding:
    """Why nothing is listed for ``day``.

    That is bad if the day is to come, or if there is no object where those of all days should be.

    Raises:
        ConfigurationError, ServiceUnavailable: the bucket can't be listed.
    """
    source = pipeline.recordings
    if is_to_come(day, pipeline):
        return Finding(Health.BAD, str(day), f"This day is in the future (in {pipeline.timezone}).")
    listed = [_below(bucket, one) for prefix in source.prefixes(day) for one in bucket.expanded(prefix)]
    for place in listed:
        if names := place.folders():
            detail = f"No recording of this day is below {place.uri}, which has {_some(names)}"
            rule = f"; recordings.key_pattern is {source.key_pattern}" if source.key_pattern is not None else ""
            detail += f"; recordings.suffixes are {', '.join(source.suffixes) or 'empty'}{rule}."
            return Finding(Health.UNSURE, str(day), detail)
    # The text before the first {date:…} is the same for all days.
    of_all_days = _below(bucket, next((text for text, *_ in string.Formatter().parse(source.prefix)), ""))
    if names := of_all_days.folders():
        places = " or ".join(place.uri for place in listed)
        detail = f"No recording of this day is below {places}. {of_all_days.uri} has {_some(names)}."
        return Finding(Health.UNSURE, str(day), detail)
    detail = f"{of_all_days.uri} doesn't exist: no object is below it. Check recordings.prefix.{_nearest(of_all_days)}"
    return Finding(Health.BAD, str(day), detail)


def is_to_come(day: dt.date, pipeline: Pipeline | None) -> bool:
    """Whether a day has not begun: in the pipeline's time zone, or without a pipeline, anywhere."""
    if pipeline is not None:
        return day > dt.datetime.now(pipeline.zone).date()
    return day > (dt.datetime.now(dt.UTC) + EARLIEST_ZONE).date()


def _reason(day: dt.date, published: Sequence[dt.date], tables: Place, pipeline: Pipeline | None) -> str:
    if day in published:
        return f"{day} has no calls"
    if is_to_come(day, pipeline):
        return f"{day} is in the future"
    if pipeline is None or isinstance(tables, Path):
        return f"{day} doesn't exist (not run, or without calls)"
    state = replace(tables, uri=pipeline.output.state, setting="output.state")
    # A run takes the day's lease first, and its object stays. A day without rows has no object in the tables.
    was_run = state.get(layout.lease(day)) is not None
    return f"{day} doesn't exist ({'run, but without calls' if was_run else 'not run'})"


def _below(bucket: RecordingBucket, prefix: str) -> ObjectPrefix:
    return ObjectPrefix(bucket.client, f"s3://{bucket.name}/{prefix}", "recordings.bucket")


def _nearest(place: Place) -> str:
    """What the innermost folder around ``place`` that exists has instead."""
    for around in _ancestors(place):
        try:
            names = _names(around)
            if not names and not _is_folder(around):
                continue
            missing, *rest = _text(place).removeprefix(_text(around)).strip("/").split("/")
            similar = difflib.get_close_matches(missing, [name.rstrip("/") for name in names], n=1)
            meant = _child(around, "/".join([*similar, *rest]) + "/")
            if similar and (_names(meant) or _is_folder(meant)):
                return f" Did you mean {_text(meant)}?"
            return f" {_text(around)} has {_some(names)}." if names else ""
        except CallphasesError:  # the rights may end at the prefix
            return ""
    return ""


def _names(place: Place) -> list[str]:
    """What is directly below a place, without hidden files; the names of folders end with a slash."""
    if isinstance(place, ObjectPrefix):
        return place.folders()
    try:
        paths = [path for path in place.iterdir() if not path.name.startswith(".")]
        return sorted(f"{path.name}/" if path.is_dir() else path.name for path in paths)
    except OSError:
        return []


def _is_folder(place: Place) -> bool:
    return isinstance(place, Path) and place.is_dir()


def _child(place: Place, name: str) -> Place:
    return replace(place, uri=place.uri + name) if isinstance(place, ObjectPrefix) else place / name


def _ancestors(place: Place) -> Sequence[Place]:
    """The folders around a place, from the innermost on, up to the bucket or the root."""
    if isinstance(place, Path):
        return list(place.absolute().parents)
    scheme, bucket, *parts = place.uri.rstrip("/").replace("//", "/").split("/")
    return [replace(place, uri="/".join([f"{scheme}/", bucket, *parts[:count], ""])) for count in range(len(parts))][
        ::-1
    ]


def _text(place: Place) -> str:
    return place.uri if isinstance(place, ObjectPrefix) else str(place.absolute())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
