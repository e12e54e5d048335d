"""What came late: days that were run, and whose recordings are not those that were published any more."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from callphases.listing.archive import Archive
from callphases.listing.listing import Listing
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.state.lease import has_run
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import read_table_day

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def late_days(
    s3: S3Client, pipeline: Pipeline, state: ObjectPrefix, tables: ObjectPrefix, day: dt.date
) -> Iterator[dt.date]:
    """The days before ``day`` to run again, the latest first.

    ``recordings.look_back_days`` says how many are looked at. A day is run again that has a recording which the table
    ``calls`` does not have, or has of other bytes; and, where ``recordings.when_deleted`` is ``drop``, one that lacks
    a recording which the table has. A flat archive is not listed for this: what its last listing says is taken.

    Args:
        s3: where the recordings are.
        pipeline: the pipeline.
        state: ``output.state``.
        tables: ``output.tables``.
        day: of the run that looks back.

    Raises:
        ConfigurationError, ServiceUnavailable: a bucket does not answer.
    """
    source = pipeline.recordings
    for number in range(1, source.look_back_days + 1):
        earlier = day - dt.timedelta(days=number)
        if not has_run(state, earlier):
            continue
        listed: Iterable[Recording]
        if source.dated:
            listed = Listing(s3, pipeline, source.prefix_of(earlier))
        else:
            listed = Archive(s3, pipeline, state).last_seen(earlier)
        if _differ(listed, _published(tables, earlier), source.when_deleted == "drop"):
            yield earlier


def _differ(listed: Iterable[Recording], published: set[int], gone_count: bool) -> bool:
    count = 0
    for recording in listed:
        count += 1
        if hash((recording.uri, recording.etag)) not in published:
            return True
    return gone_count and count < len(published)


def _published(tables: ObjectPrefix, day: dt.date) -> set[int]:
    """Stands for the recordings that a day's rows are of: numbers, as a day may have a million."""
    calls = read_table_day(tables, "calls", day, ["recording_uri", "recording_etag"])
    batches = [] if calls is None else calls.to_batches()
    return {
        hash(pair) for batch in batches for pair in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    }
