"""Lists a day's recordings, spools them to disk, and splits them into chunks."""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from zoneinfo import ZoneInfo

from callphases import time_formats
from callphases.listing.times import Times, times_of
from callphases.pipeline import KeyTime, Pipeline, TimeElsewhere
from callphases.recordings import Recording
from callphases.state.bucket import ListedObject, RecordingBucket

log = logging.getLogger(__name__)

LEAST_CALLS, LEAST_CALLS_OF_ARCHIVE = 45, 150
"""Recordings that a chunk has at least, on average. Two tasks cost about as much processor time as a hundred calls; for
an archive it matters more what it costs than when the first of its calls is done."""
CHUNKS_OF_ARCHIVE, MOST_CALLS_OF_ARCHIVE = 3, 5000
"""Chunks of a backfill's run, so that its tasks leave workers to a night's; more where chunks would be larger than
this."""
MAX_CHUNKS = 200
"""Mapped tasks per run: Airflow's grid gets slow with more, and its max_map_length is 1024."""
HEAVIEST = 20.0
"""The most that one recording may weigh, in multiples of the mean, so that a huge file does not distort the chunks."""


NAMES = 3
"""How many of many keys a message names."""


@dataclass
class SomeKeys:
    """How many keys something applies to, and the first of them."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, key: str, why: str = "") -> None:
        """Count a key, and keep why it applies to it."""
        self.count += 1
        if len(self.names) < NAMES:
            self.names.append(f"{key!r} ({why})" if why else repr(key))

    def __str__(self) -> str:
        return ", ".join(self.names) + (", …" if self.count > len(self.names) else "")


@dataclass
class Listing:
    """The recordings below a prefix, in key order; one LIST request for each thousand objects.

    Args:
        bucket: ``recordings.bucket``.
        pipeline: its settings say which objects are recordings and when their calls started.
        prefix: of the keys; see ``recordings.prefixes``.
        heartbeat: called after each request.
        unmatched: counts the keys that ``recordings.call_time`` finds no time for. Without it, they are logged.
        known_time: the time of a call whose key has none, if it is known from an earlier listing.
        times: reads the times that are elsewhere. Without it, a listing makes its own; see ``times_of``.

    Iterating raises:
        ConfigurationError: no such bucket, no rights; as ``times_of``.
        ServiceUnavailable: S3 does not answer.
    """

    bucket: RecordingBucket
    pipeline: Pipeline
    prefix: str
    heartbeat: Callable[[], object] = lambda: None
    unmatched: SomeKeys | None = None
    known_time: Callable[[ListedObject], dt.datetime | None] = lambda _: None
    times: Times | None = None
    began: dt.datetime | None = None
    """Every object written before this moment is listed: when the first request was sent by our clock, or answered by
    the store's clock, whichever is earlier."""

    def __iter__(self) -> Iterator[Recording]:
        unmatched = SomeKeys() if self.unmatched is None else self.unmatched
        times = times_of(self.bucket, self.pipeline) if self.times is None else self.times
        yield from self._recordings(unmatched, times)
        times.check_rights()
        if self.unmatched is None and unmatched.count:
            # A call on the day of its upload can be noticed; a call on no day would be lost silently.
            log.warning("%s; their LastModified was used: %s.", without_time(self.pipeline, unmatched), unmatched)

    def _recordings(self, unmatched: SomeKeys, times: Times) -> Iterator[Recording]:
        source = self.pipeline.recordings
        suffixes, pattern = tuple(source.suffixes), re.compile(source.key_pattern or "")
        for page in self._pages():
            items = [
                item
                for item in page
                if item.key.lower().endswith(suffixes) and not item.key.endswith("/") and pattern.search(item.key)
            ]
            known = self._known_times(items, unmatched, times)
            for item, call_time in zip(items, known, strict=True):
                started_at = (call_time or item.last_modified).astimezone(dt.UTC)
                yield Recording(source.bucket, item.key, item.etag, item.size, started_at, item.archived_in)

    def _known_times(
        self, items: Sequence[ListedObject], unmatched: SomeKeys, times: Times
    ) -> list[dt.datetime | None]:
        """The times of a page's calls; None where there is none."""
        rule = self.pipeline.recordings.call_time
        if isinstance(rule, KeyTime):
            found = [time_in_key(item.key, rule, self.pipeline.zone) for item in items]
            for item, in_key in zip(items, found, strict=True):
                if in_key is None:
                    unmatched.add(item.key)
            return [in_key or self.known_time(item) for item, in_key in zip(items, found, strict=True)]
        known = [self.known_time(item) for item in items]
        if not isinstance(rule, TimeElsewhere):
            return known
        unknown = [item for item, time in zip(items, known, strict=True) if time is None]
        read = dict(zip([item.key for item in unknown], times.of(unknown, self.heartbeat), strict=True))
        for key, time in read.items():
            if isinstance(time, str):
                unmatched.add(key, time)
        answers = (time or read[item.key] for item, time in zip(items, known, strict=True))
        return [None if isinstance(time, str) else time for time in answers]

    def _pages(self) -> Iterator[list[ListedObject]]:
        self.began = dt.datetime.now(dt.UTC)
        for number, page in enumerate(self.bucket.pages(self.prefix)):
            if number == 0:
                self.began = min(self.began, page.answered_at or self.began)
            yield page.objects
            self.heartbeat()


def without_time(pipeline: Pipeline, keys: SomeKeys) -> str:
    """Says how many keys ``recordings.call_time`` finds no time for."""
    if isinstance(pipeline.recordings.call_time, TimeElsewhere):
        return f"{keys.count} recordings have no time where recordings.call_time says that it is"
    return f"{keys.count} keys do not match recordings.call_time.key_pattern or its format"


def time_in_key(key: str, rule: KeyTime, zone: dt.tzinfo) -> dt.datetime | None:
    """The time of a call in UTC, from its key; None if ``rule`` finds none. ``zone`` is the pipeline's."""
    match = re.search(rule.key_pattern, key)
    if match is None or match["time"] is None:
        return None
    try:
        moment = time_formats.parse(match["time"], rule.format, ZoneInfo(rule.timezone) if rule.timezone else zone)
    except ValueError:
        return None
    return moment if 1 < moment.year < dt.MAXYEAR else None  # so that it is a time in every zone


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


def chunk_counts(sizes: Sequence[int], *, is_archive: bool = False) -> list[int]:
    """Split recordings with ``sizes`` (bytes), in their order, into chunks; returns how many each chunk holds.

    There are about half as many chunks as the square root of the number of recordings, and fewer where there are not
    enough of them to be worth the cost of a chunk's two tasks (``LEAST_CALLS``). All chunks weigh about the same. Half
    of a recording's weight is its size, so a chunk of long calls has fewer of them.
    """
    count = len(sizes)
    if not count:
        return []
    most = round(math.sqrt(count) / 2)
    if is_archive:
        most = min(max(most, 2), count // LEAST_CALLS_OF_ARCHIVE, CHUNKS_OF_ARCHIVE)
        most = max(most, math.ceil(count / MOST_CALLS_OF_ARCHIVE))
    else:
        most = min(max(most, 2), count // LEAST_CALLS)
    most = min(max(most, 1), MAX_CHUNKS)
    mean = sum(sizes) / count or 1.0
    weights = array("d", (min(0.5 + 0.5 * size / mean, HEAVIEST) for size in sizes))
    share = sum(weights) / most
    counts, before = [0] * most, 0.0
    for weight in weights:
        counts[min(int((before + weight / 2) / share), most - 1)] += 1  # the chunk that its midpoint falls into
        before += weight
    return [count for count in counts if count]
