"""Lists a day's recordings, spools them to disk, and splits them into chunks."""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from callphases.pipeline import KeyTime, Pipeline
from callphases.recordings import Recording
from callphases.state.bucket import ListedObject, RecordingBucket

log = logging.getLogger(__name__)

TASK_EACH_UP_TO = 20
"""Up to this many recordings get a task each, so that each call has a square of its own in Airflow's grid."""
MAX_CHUNKS = 200
"""Mapped tasks per run: Airflow's grid gets slow with more, and its max_map_length is 1024."""
HEAVIEST = 20.0
"""The most that one recording may weigh, in multiples of the mean, so that a huge file does not distort the chunks."""


@dataclass
class Listing:
    """The recordings below a prefix, in key order; one LIST request for each thousand objects.

    Args:
        bucket: ``recordings.bucket``.
        pipeline: its settings say which objects are recordings and when their calls started.
        prefix: of the keys; ``recordings.prefix_of`` a day if the prefix is dated.
        heartbeat: called after each request.

    Iterating raises:
        ConfigurationError: no such bucket, no rights.
        ServiceUnavailable: S3 does not answer.
    """

    bucket: RecordingBucket
    pipeline: Pipeline
    prefix: str
    heartbeat: Callable[[], object] = lambda: None
    began: dt.datetime | None = None
    """Every object written before this moment is listed: when the first request was sent by our clock, or answered by
    the store's clock, whichever is earlier."""

    def __iter__(self) -> Iterator[Recording]:
        source = self.pipeline.recordings
        suffixes = tuple(source.suffixes)
        unmatched = 0
        for item in self._objects():
            if item.key.endswith("/") or not item.key.lower().endswith(suffixes):
                continue
            call_time = item.last_modified
            if isinstance(source.call_time, KeyTime):
                from_key = _time_in_key(item.key, source.call_time, self.pipeline)
                unmatched += from_key is None
                call_time = from_key or call_time
            started_at = call_time.astimezone(dt.UTC)
            yield Recording(source.bucket, item.key, item.etag, item.size, started_at, item.archived_in)
        if unmatched:
            # A call on the day of its upload can be noticed; a call on no day would be lost silently.
            log.warning(
                "%d keys do not match recordings.call_time.key_pattern or its format; their LastModified was used.",
                unmatched,
            )

    def _objects(self) -> Iterator[ListedObject]:
        self.began = dt.datetime.now(dt.UTC)
        for number, page in enumerate(self.bucket.pages(self.prefix)):
            if number == 0:
                self.began = min(self.began, page.answered_at or self.began)
            yield from page.objects
            self.heartbeat()


def _time_in_key(key: str, rule: KeyTime, pipeline: Pipeline) -> dt.datetime | None:
    match = re.search(rule.key_pattern, key)
    if match is None or match["time"] is None:
        return None
    try:
        moment = dt.datetime.strptime(match["time"], rule.format)
        moment = moment.astimezone(pipeline.zone) if moment.tzinfo else moment.replace(tzinfo=pipeline.zone)
        return moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # OverflowError: year 1 or 9999, once converted to UTC
        return None


class Spool:
    """Recordings of one bucket in a temporary file, in insertion order: a night's need not fit into memory.

    The file is unlinked when it is opened, so nothing stays on disk, however the process ends.
    """

    def __init__(self, bucket: str) -> None:
        self.sizes = array("Q")
        """Of each recording, in bytes."""
        self._bucket = bucket
        self._file = tempfile.TemporaryFile(prefix="callphases-")  # noqa: SIM115 - closed with the spool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, recording: Recording) -> None:
        """Append a recording."""
        self._file.write(recording.as_line())
        self.sizes.append(recording.size)

    def __iter__(self) -> Iterator[Recording]:
        """From the first recording on; supports one iterator at a time."""
        self._file.seek(0)
        for line in self._file:
            yield Recording.from_line(self._bucket, line)


def chunk_counts(sizes: Sequence[int]) -> list[int]:
    """Split recordings with ``sizes`` (bytes), in their order, into chunks; returns how many each chunk holds.

    Up to ``TASK_EACH_UP_TO`` recordings get a chunk each. More get about half as many chunks as the square root of
    their number: many calls share the cost of starting a chunk's two tasks, and several chunks still run at once. All
    chunks weigh about the same. Half of a recording's weight is its size, so a chunk of long calls has fewer of them.
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
        counts[min(int((before + weight / 2) / share), most - 1)] += 1  # the chunk that its midpoint falls into
        before += weight
    return [count for count in counts if count]
