"""Lists a flat archive once for all of its days, and keeps an index of which recording belongs to which day.

The index is below ``output.state``, in ``index/<16 hex digits>/``. The digits are a digest of every setting that
decides what is listed and which day a call belongs to.

- ``<day>-<digest>.jsonl.gz`` holds one line for each recording of a day. The digest in its name is that of its content,
  so an older ``index.json`` still refers to the day as it was then, and a day that did not change is not rewritten.
- ``index.json`` holds when the listing started and each day's object; written last, by a conditional PUT.
- ``lease.json`` is the lease of the run that is listing the archive; other runs wait for its index instead of listing
  too.

A run uses the index if the archive was listed after the day ended, unless the previous run of that day used the same
listing: running a day again is meant to find what has arrived late. Otherwise it lists the archive again. It also lists
again if the listing is older than a day, or older than an hour and without any recording of the day, since the archive
may have been filled since.
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import io
import json
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from callphases.errors import DayHeld, ServiceUnavailable
from callphases.listing.listing import Listing
from callphases.pipeline import KeyTime, Pipeline
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.bucket import RecordingBucket
from callphases.state.lease import Lease
from callphases.state.storage import ObjectPrefix

MAX_AGE = dt.timedelta(days=1)
"""How old a listing may be to be used."""
MAX_AGE_WITHOUT_RECORDINGS = dt.timedelta(hours=1)
"""How old it may be for a day that it has no recordings of."""
WRITERS = 8
_CACHE_KIB = 16_000
_FORMAT = 1
"""Version of the objects' format; part of the digest that names the index."""


class RecordingsByDay:
    """Recordings of one bucket in a temporary database, by the day of the call in the pipeline's time zone.

    The database is an unnamed file, so nothing stays on disk, however the process ends.

    Args:
        pipeline: its time zone decides when a day starts.
        recordings: of any days. Each day keeps their order.
    """

    def __init__(self, pipeline: Pipeline, recordings: Iterable[Recording]) -> None:
        self.counts: Counter[dt.date] = Counter()
        self._bucket = pipeline.recordings.bucket
        self._digests: dict[dt.date, hashlib._Hash] = {}
        self._lock = threading.Lock()
        self._database = sqlite3.connect("", check_same_thread=False)  # "" is a temporary file without a name
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute(
            "CREATE TABLE recordings (day INTEGER, number INTEGER, line BLOB, PRIMARY KEY (day, number)) WITHOUT ROWID"
        )
        zone = pipeline.zone
        for recording in recordings:
            self._add(recording.call_time.astimezone(zone).date(), recording.as_line())

    def _add(self, day: dt.date, line: bytes) -> None:
        if day not in self._digests:
            self._digests[day] = hashlib.sha256()
        self._database.execute("INSERT INTO recordings VALUES (?, ?, ?)", (day.toordinal(), self.counts[day], line))
        self._digests[day].update(line)
        self.counts[day] += 1

    def close(self) -> None:
        """Free the disk space."""
        self._database.close()

    def digest(self, day: dt.date) -> str:
        """16 hex digits of a hash of a day's content."""
        return self._digests[day].hexdigest()[:16]

    def recordings_of(self, day: dt.date) -> Iterator[Recording]:
        """A day's recordings, in their order."""
        return (Recording.from_line(self._bucket, line) for line in self._lines(day))

    def compressed(self, day: dt.date) -> bytes:
        """A day's lines, gzipped. Thread-safe."""
        body = io.BytesIO()
        with self._lock, gzip.GzipFile(fileobj=body, mode="wb", compresslevel=5, mtime=0) as file:
            file.writelines(self._lines(day))
        return body.getvalue()

    def _lines(self, day: dt.date) -> Iterator[bytes]:
        rows = self._database.execute("SELECT line FROM recordings WHERE day = ? ORDER BY number", (day.toordinal(),))
        return (line for (line,) in rows)


@dataclass(frozen=True)
class Index:
    """The content of ``index.json``.

    Attributes:
        listing: the id of the listing.
        listed_at: everything written before is listed.
        days: the object of each day that has recordings, and their number.
    """

    listing: str
    listed_at: dt.datetime
    days: dict[str, dict[str, Any]]

    def is_usable(self, pipeline: Pipeline, day: dt.date, previous_listing: str | None, now: dt.datetime) -> bool:
        """Whether a run may take ``day`` from this index if the day's previous run used ``previous_listing``."""
        end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), pipeline.zone)
        oldest = now - (MAX_AGE if str(day) in self.days else MAX_AGE_WITHOUT_RECORDINGS)
        return self.listed_at >= max(end, oldest) and self.listing != previous_listing


@dataclass
class Archive:
    """The recordings of a pipeline whose prefix is flat, one day at a time.

    Args:
        bucket: ``recordings.bucket``.
        pipeline: with a flat ``recordings.prefix``.
        state: ``output.state``.
        heartbeat: called often while the archive is listed.
    """

    bucket: RecordingBucket
    pipeline: Pipeline
    state: ObjectPrefix
    heartbeat: Callable[[], object] = lambda: None
    _digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._digest = _settings_digest(self.pipeline)

    def take(self, day: dt.date, previous_listing: str | None, run_token: str) -> tuple[str, Iterator[Recording]]:
        """The id of the listing that was used, and the recordings of a day in key order.

        Args:
            day: of the calls, in the pipeline's time zone.
            previous_listing: the listing that the day's previous run used.
            run_token: identifies the run.

        Raises:
            DayHeld: another run is listing the archive.
            ConfigurationError, ServiceUnavailable: as iterating a ``Listing``, or the state area does not answer.
        """
        index, _ = self._read_index()
        body = self._usable_body(index, day, previous_listing)
        if index is None or body is None:
            lease = Lease(
                self.state,
                day,
                run_token,
                object_name=layout.archive_lease(self._digest),
                held_message="Another run lists the archive for all of its days; waiting for it.",
            )
            lease.take()
            try:
                index, etag = self._read_index()  # another run may have just written it
                body = self._usable_body(index, day, previous_listing)
                if index is None or body is None:
                    index = self._list(lease, self._reusable(index, day, previous_listing), etag)
                    body = self._body(index, day)
            finally:
                lease.release()
        if body is None:
            uri = self.state.uri_of(layout.archive_index(self._digest))
            raise ServiceUnavailable(f"{uri}: an object that it names was deleted before it was read.")
        return index.listing, _recordings(self.pipeline.recordings.bucket, body)

    def last_seen(self, day: dt.date) -> Iterator[Recording]:
        """The recordings of a day in the last listing, however old it is."""
        index, _ = self._read_index()
        body = self._body(index, day) if index is not None else None
        return _recordings(self.pipeline.recordings.bucket, body or b"")

    def _is_usable(self, index: Index, day: dt.date, previous_listing: str | None) -> bool:
        return index.is_usable(self.pipeline, day, previous_listing, dt.datetime.now(dt.UTC))

    def _usable_body(self, index: Index | None, day: dt.date, previous_listing: str | None) -> bytes | None:
        if index is None or not self._is_usable(index, day, previous_listing):
            return None
        return self._body(index, day)

    def _body(self, index: Index, day: dt.date) -> bytes | None:
        """A day's lines, gzipped; None if their object was deleted."""
        entry = index.days.get(str(day))
        return self.state.get(layout.archive_day(self._digest, entry["object"])) if entry is not None else b""

    def _reusable(self, index: Index | None, day: dt.date, previous_listing: str | None) -> set[str]:
        """The objects that a new listing need not write again.

        None of them if the index is usable: then an object of it was deleted, and others may be gone too.
        """
        if index is None or self._is_usable(index, day, previous_listing):
            return set()
        return {entry["object"] for entry in index.days.values()}

    def _list(self, lease: Lease, reusable: set[str], etag: str | None) -> Index:
        def heartbeat() -> None:
            self.heartbeat()
            lease.hold()

        listing = Listing(self.bucket, self.pipeline, self.pipeline.recordings.prefix, heartbeat)
        found = RecordingsByDay(self.pipeline, listing)
        try:
            assert listing.began is not None
            days = {day: f"{day}-{found.digest(day)}.jsonl.gz" for day in sorted(found.counts)}
            new = [day for day in days if days[day] not in reusable]
            with ThreadPoolExecutor(WRITERS) as pool:
                for _ in pool.map(lambda day: self._put(days[day], found.compressed(day)), new):
                    heartbeat()
            entries = {str(day): {"recordings": found.counts[day], "object": name} for day, name in days.items()}
            index = Index(uuid.uuid4().hex, listing.began, entries)
        finally:
            found.close()
        if self.state.put_if_match(layout.archive_index(self._digest), self._document(index), etag) is None:
            raise DayHeld("Another run has listed the archive meanwhile; its index will be used.", 0)
        return index

    def _put(self, name: str, body: bytes) -> None:
        self.state.put(layout.archive_day(self._digest, name), body, "application/gzip")

    def _document(self, index: Index) -> bytes:
        source = self.pipeline.recordings
        document = {
            "bucket": source.bucket,
            "prefix": source.prefix,
            "listing": index.listing,
            "listed_at": index.listed_at.isoformat(),
            "days": index.days,
        }
        return json.dumps(document, ensure_ascii=False).encode()

    def _read_index(self) -> tuple[Index | None, str | None]:
        stored = self.state.look(layout.archive_index(self._digest))
        if stored is None:
            return None, None
        document = json.loads(stored.body)
        listed_at = dt.datetime.fromisoformat(document["listed_at"])
        return Index(document["listing"], listed_at, document["days"]), stored.etag


def _recordings(bucket: str, body: bytes) -> Iterator[Recording]:
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as lines:
        for line in lines:
            yield Recording.from_line(bucket, line)


def _settings_digest(pipeline: Pipeline) -> str:
    """16 hex digits of a hash of every setting that decides what is listed and which day a call belongs to."""
    source = pipeline.recordings
    rule = source.call_time.model_dump() if isinstance(source.call_time, KeyTime) else source.call_time
    settings = [_FORMAT, source.bucket, source.prefix, rule, sorted(source.suffixes), pipeline.timezone]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
