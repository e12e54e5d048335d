"""Says why there is nothing to show: what does not exist, is not published, or is still to come."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from callphases.errors import ConfigurationError
from callphases.pipeline import Pipeline
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import published_days
from callphases.tables.schema import object_name

LATEST_ZONE = dt.timezone(dt.timedelta(hours=14))
"""Where each day begins first: what is in the future there has begun nowhere."""


def why_unpublished(tables: ObjectPrefix | Path, days: Sequence[dt.date]) -> str | None:
    """Why tables have no calls of some of ``days``, or of any day if there are none; None if all have an object.

    Raises:
        ConfigurationError: the bucket or the folder of ``tables`` does not exist.
        ServiceUnavailable: S3 does not answer.
    """
    if isinstance(tables, Path) and not tables.is_dir():
        raise ConfigurationError(f"{tables}: there is no such folder.")
    where = tables.uri if isinstance(tables, ObjectPrefix) else str(tables)
    published = published_days(tables)
    if not published:
        return (
            f"{where} doesn't exist, or nothing is published there: it has no {object_name('calls', '…')}. Check its "
            "name; output.tables in the pipeline file says where a pipeline publishes."
        )
    missing = [day for day in days if day not in published]
    if not missing:
        return None
    known = f"{published[0]} to {published[-1]} ({len(published)} days)" if len(published) > 1 else str(published[0])
    today = dt.datetime.now(LATEST_ZONE).date()
    reasons = [
        f"{day} is in the future" if day > today else f"{day} doesn't exist (not run, or without calls)"
        for day in missing
    ]
    return f"{where}: {', '.join(reasons)}. Published: {known}."


def why_unlisted(bucket: RecordingBucket, pipeline: Pipeline, day: dt.date) -> tuple[str, bool]:
    """Why a day has no recordings, and whether that is a mistake: nothing is there at all, or the day is to come.

    Raises:
        ConfigurationError, ServiceUnavailable: as listing the bucket.
    """
    source = pipeline.recordings
    if day > dt.datetime.now(pipeline.zone).date():
        return f"{day} is in the future, in {pipeline.timezone}.", True
    fixed = source.prefix.partition("{")[0]
    if not next(iter(bucket.pages(fixed))).objects:
        return f"s3://{bucket.name}/{fixed} doesn't exist: no object is below it. Check recordings.prefix.", True
    prefix = source.prefix_of(day) if source.is_daily else source.prefix
    return (
        f"No recording of {day} is below s3://{bucket.name}/{prefix}, but other objects are below "
        f"s3://{bucket.name}/{fixed}: check recordings.prefix and recordings.suffixes if there should be one.",
        False,
    )
