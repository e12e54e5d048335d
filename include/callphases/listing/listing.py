"""A bucket and a day → the day's recordings, and the chunks that they are worked on in."""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from callphases.pipeline import KeyTime, Pipeline
from callphases.recordings import Recording
from callphases.state.storage import explain

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

TASK_EACH_UP_TO = 20
"""Up to so many recordings get a task each, so that people see their calls in the grid."""
MAX_CHUNKS = 200
"""Mapped tasks of a run: Airflow's grid grows slow with more, and its max_map_length is 1024."""
HEAVIEST = 20.0
"""A recording counts for so many of the mean at most, so that one huge file does not crowd the others together."""


@dataclass
class Listing:
    """The recordings below a prefix, in key order, read with a LIST request for each thousand objects.

    Args:
        client: of S3.
        pipeline: says where recordings lie, what they are called and when their calls began.
        prefix: of the keys; ``recordings.prefix_of`` a day where the prefix is dated.
        alive: called after each request.

    Iterating raises:
        ConfigurationError: no such bucket, no rights.
        ServiceUnavailable: S3 does not answer.
    """

    client: S3Client
    pipeline: Pipeline
    prefix: str
    alive: Callable[[], object] = lambda: None
    began: dt.datetime | None = None
    """What was written before is listed: when the first request was sent or answered, by our clock and the store's,
    whichever is behind."""

    def __iter__(self) -> Iterator[Recording]:
        source = self.pipeline.recordings
        suffixes = tuple(source.suffixes)
        unmatched = 0
        for item in self._objects():
            key: str = item["Key"]
            if key.endswith("/") or not key.lower().endswith(suffixes):
                continue
            call_time: dt.datetime | None = item["LastModified"]
            if isinstance(source.call_time, KeyTime):
                read = _time_in_key(key, source.call_time, self.pipeline)
                unmatched += read is None
                call_time = read or call_time
            assert call_time is not None
            yield Recording(source.bucket, key, item["ETag"].strip('"'), item["Size"], call_time.astimezone(dt.UTC))
        if unmatched:
            # Better a call on the day of its upload than a call that is silently in no day.
            log.warning(
                "%d keys do not match recordings.call_time.key_pattern or its format; their LastModified was taken.",
                unmatched,
            )

    def _objects(self) -> Iterator[Any]:
        bucket = self.pipeline.recordings.bucket
        self.began = dt.datetime.now(dt.UTC)
        first = True
        try:
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=self.prefix):
                if first:
                    self.began, first = min(self.began, time_of(page) or self.began), False
                yield from page.get("Contents", [])
                self.alive()
        except (ClientError, BotoCoreError) as error:
            raise explain(error, bucket, "recordings.bucket") from None


def time_of(answer: Any) -> dt.datetime | None:
    """The store's clock when it gave an answer, in whole seconds, or None where it does not tell."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, ValueError, TypeError):
        return None


def _time_in_key(key: str, rule: KeyTime, pipeline: Pipeline) -> dt.datetime | None:
    match = re.search(rule.key_pattern, key)
    if match is None or match["time"] is None:
        return None
    try:
        moment = dt.datetime.strptime(match["time"], rule.format)
        moment = moment.astimezone(pipeline.zone) if moment.tzinfo else moment.replace(tzinfo=pipeline.zone)
        return moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # a year that no calendar of ours has, perhaps
        return None


class Spool:
    """Recordings of one bucket on disk, in the order that they were added: a night's need not fit into memory.

    The file has no name, so that nothing of it stays, however the process ends.
    """

    def __init__(self, bucket: str) -> None:
        self.sizes = array("Q")
        """In bytes, of each."""
        self._bucket = bucket
        self._file = tempfile.TemporaryFile(prefix="callphases-")  # noqa: SIM115 - closed with the spool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, recording: Recording) -> None:
        """Put one at the end."""
        self._file.write(recording.as_line())
        self.sizes.append(recording.size)

    def __iter__(self) -> Iterator[Recording]:
        """From the first on; one reader at a time."""
        self._file.seek(0)
        for line in self._file:
            yield Recording.from_line(self._bucket, line)


def chunk_counts(sizes: Sequence[int]) -> list[int]:
    """How many recordings each chunk of a night holds, of recordings with ``sizes`` (bytes) in their order.

    Few recordings get a chunk each. Else there are about half as many chunks as the square root of the recordings: the
    two tasks that Airflow starts for a chunk are shared by many calls, and several chunks are under way at once. All
    chunks weigh about the same, where half of a recording's weight is its size: a chunk of long calls has fewer.
    """
    count = len(sizes)
    if count <= TASK_EACH_UP_TO:
        return [1] * count
    most = min(max(round(math.sqrt(count) / 2), 2), MAX_CHUNKS)
    mean = sum(sizes) / count or 1.0
    weights = array("d", (min(0.5 + 0.5 * size / mean, HEAVIEST) for size in sizes))
    share = sum(weights) / most
    counts, before = [0] * most, 0.0
    for weight in weights:
        counts[min(int((before + weight / 2) / share), most - 1)] += 1  # where its middle lies
        before += weight
    return [count for count in counts if count]
