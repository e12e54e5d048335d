"""Finds days to run again: processed days whose recordings have changed since they were published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator

from callphases.listing.archive import Archive
from callphases.listing.listing import Listing
from callphases.listing.times import NO_TIMES
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from callphases.state.lease import has_run
from callphases.state.storage import ObjectPrefix


def late_days(
    bucket: RecordingBucket,
    pipeline: Pipeline,
    state: ObjectPrefix,
    published: Callable[[dt.date], set[int]],
    day: dt.date,
) -> Iterator[dt.date]:
    """The days before ``day`` to run again, the latest first.

    Looks back ``recordings.look_back_days`` days. A day is run again if the bucket has a recording that its table
    ``calls`` lacks, or has with another ETag; and, if ``recordings.when_deleted`` is ``drop``, if the table has a
    recording that the bucket lacks. An archive is not listed for this; its last listing is used.

    Args:
        bucket: ``recordings.bucket``.
        pipeline: whose days.
        state: ``output.state``.
        published: the recordings that a day's rows are of; see ``tables.reading.published_versions``.
        day: the day of the run that looks back.

    Raises:
        ConfigurationError, ServiceUnavailable: a bucket does not answer.
    """
    source = pipeline.recordings
    for number in range(1, source.look_back_days + 1):
        earlier = day - dt.timedelta(days=number)
        if not has_run(state, earlier):
            continue
        listed: Iterable[Recording]
        if source.is_daily:
            listed = Listing(bucket, pipeline, source.prefix_of(earlier), times=NO_TIMES)
        else:
            listed = Archive(bucket, pipeline, state).last_seen(earlier)
        if _differ(listed, published(earlier), source.when_deleted == "drop"):
            yield earlier


def _differ(listed: Iterable[Recording], published: set[int], deletions_count: bool) -> bool:
    count = 0
    for recording in listed:
        count += 1
        if hash((recording.uri, recording.etag)) not in published:
            return True
    return deletions_count and count < len(published)
