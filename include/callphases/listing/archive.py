"""Lists a prefix once for all of its days, and keeps an index of which recording belongs to which day.

This is for pipelines whose prefix is not daily: it is the same for all days, or for all days of a month, and the time
of a call gives its day. Each prefix has an index, below ``output.state`` in ``index/<16 hex digits>/``. The digits are
a digest of the prefix and of every setting that decides what is listed and which day a call belongs to.

- ``<day>-<digest>.jsonl.gz`` holds one line for each recording of a day. The digest in its name is that of its content,
  so an older ``index.json`` still refers to the day as it was then, and a day that did not change is not rewritten.
- ``index.json`` holds when the listing started and each day's object; written last, by a conditional PUT.
- ``lease.json`` is the lease of the run that is listing the prefix; other runs wait for its index instead of listing
  too.

A run uses an index if the prefix was listed after the day ended, unless the previous run of that day used the same
listing: running a day again is meant to find what has arrived late. Otherwise it lists the prefix again. It also lists
again if the listing is older than a day, or older than an hour and without any recording of the day, since the archive
may have been filled since.

If LastModified gives the time of a call, a new listing keeps the time that the last one had for the same key and ETag.
Copying an object onto itself (to change its metadata, storage class or encryption) changes its LastModified; the call
would move to another day, whose ledger does not know it, and be paid for again. Times that are read from elsewhere,
with a request for each recording, are kept as well. One that could not be read, so that LastModified stands in for it,
is read again until a run takes the day that it gave.

For the same reason a pipeline whose prefix is daily has ``<day>.jsonl.gz`` for each day, if its times are elsewhere.
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import io
import itertools
import json
import logging
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from callphases.date_prefixes import has_date
from callphases.errors import DayHeld, ServiceUnavailable
from callphases.listing.bulk import Uploads
from callphases.listing.listing import Listing, SomeKeys
from callphases.listing.times import Times, times_of
from callphases.pipeline import Pipeline, TimeElsewhere
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.bucket import ListedObject, RecordingBucket
from callphases.state.lease import Lease, has_run
from callphases.state.storage import ObjectPrefix
from callphases.temporary_database import temporary_database

log = logging.getLogger(__name__)

MAX_AGE = dt.timedelta(days=1)
"""How old a listing may be to be used."""
MAX_AGE_WITHOUT_RECORDINGS = dt.timedelta(hours=1)
"""How old it may be for a day that it has no recordings of."""
THREADS = 8
"""That read or write the objects of an index."""
_FORMAT = 1
"""Version of the objects' format; part of the digest that names the index."""


class RecordingsByDay:
    """Recordings of one bucket in a temporary database, by the day of the call in the pipeline's time zone.

    The database is an unnamed file, so nothing stays on disk, however the process ends.

    Args:
        pipeline: its time zone decides when a day starts.
        recordings: of any days. Each day keeps their order.
        dayless: counts the recordings that belong to no day, because a run of the day that their time gives does not
            list their prefix. Without it, they are logged, as is a copy in bulk.
    """

    def __init__(self, pipeline: Pipeline, recordings: Iterable[Recording], dayless: SomeKeys | None = None) -> None:
        self.counts: Counter[dt.date] = Counter()
        self._source = pipeline.recordings
        self._digests: dict[dt.date, hashlib._Hash] = {}
        self._lock = threading.Lock()
        self._database = temporary_database()
        self._database.execute(
            "CREATE TABLE recordings (day INTEGER, number INTEGER, line BLOB, PRIMARY KEY (day, number)) WITHOUT ROWID"
        )
        zone = pipeline.zone
        without = SomeKeys() if dayless is None else dayless
        uploads = Uploads(pipeline)
        for recording in recordings:
            uploads.see(recording.call_time)
            day = recording.call_time.astimezone(zone).date()
            self._add(day, recording.as_line())
            if not self._source.is_listed(recording.key, day):
                without.add(recording.key)
        if dayless is None and (said := uploads.warning()) is not None:
            log.warning("%s", said)
        if dayless is None and without.count:
            log.warning(
                "%d recordings are on no day, because recordings.call_time gives them a day that is far from that of "
                "their prefix; they are not transcribed: %s.",
                without.count,
                without,
            )

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
        found = (Recording.from_line(self._source.bucket, line) for line in self._lines(day))
        return (one for one in found if self._source.is_listed(one.key, day))

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

    def is_usable(
        self, pipeline: Pipeline, day: dt.date, previous_listing: str | None, now: dt.datetime, *, is_own: bool = True
    ) -> bool:
        """Whether a run may take ``day`` from this index if the day's previous run used ``previous_listing``.

        ``is_own``: the prefix is that of the day, so that the day's recordings should be there.
        """
        end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), pipeline.zone)
        oldest = now - (MAX_AGE_WITHOUT_RECORDINGS if is_own and str(day) not in self.days else MAX_AGE)
        return self.listed_at >= max(end, oldest) and self.listing not in (previous_listing or "").split()


class _KnownTimes:
    """The times that the last listing had, by key and ETag; read when the first is asked for.

    Args:
        read: the recordings of the last listing.
        may_move: whether a recording may get another time than its LastModified, which stood in for it.
    """

    def __init__(
        self, read: Callable[[], Iterable[Recording]], may_move: Callable[[dt.datetime], bool] = lambda _: False
    ) -> None:
        self._read, self._may_move = read, may_move
        self._database: sqlite3.Connection | None = None

    def __call__(self, item: ListedObject) -> dt.datetime | None:
        if self._database is None:
            self._database = temporary_database()
            self._database.execute("CREATE TABLE times (version BLOB PRIMARY KEY, time TEXT) WITHOUT ROWID")
            rows = ((_version(one.key, one.etag), one.call_time.isoformat()) for one in self._read())
            self._database.executemany("INSERT OR IGNORE INTO times VALUES (?, ?)", rows)
        found = self._database.execute("SELECT time FROM times WHERE version = ?", (_version(item.key, item.etag),))
        row = found.fetchone()
        if row is None:
            return None
        known = dt.datetime.fromisoformat(row[0])
        return None if known == item.last_modified and self._may_move(known) else known

    def close(self) -> None:
        """Free the disk space."""
        if self._database is not None:
            self._database.close()


def _version(key: str, etag: str) -> bytes:
    return hashlib.blake2b(f"{key}\n{etag}".encode(), digest_size=16).digest()


@dataclass
class Archive:
    """The recordings of a pipeline whose prefix is not daily, one day at a time.

    Args:
        bucket: ``recordings.bucket``.
        pipeline: whose ``recordings.prefixes`` of a day are listed.
        state: ``output.state``.
        heartbeat: called often while a prefix is listed.
        times: see ``Listing``; shared by all prefixes.
    """

    bucket: RecordingBucket
    pipeline: Pipeline
    state: ObjectPrefix
    heartbeat: Callable[[], object] = lambda: None
    times: Times | None = None

    def __post_init__(self) -> None:
        if self.times is None:
            self.times = times_of(self.bucket, self.pipeline)

    def take(self, day: dt.date, previous_listing: str | None, run_token: str) -> tuple[str, Iterator[Recording]]:
        """The listing that was used, and the recordings of a day in key order; of several prefixes, it has several ids.

        Args:
            day: of the calls, in the pipeline's time zone.
            previous_listing: the listing that the day's previous run used.
            run_token: identifies the run.

        Raises:
            DayHeld: another run is listing a prefix.
            ConfigurationError, ServiceUnavailable: as iterating a ``Listing``, or the state area does not answer.
        """
        taken = [prefix.take(day, previous_listing, run_token) for prefix in self._prefixes(day)]
        return " ".join(listing for listing, _ in taken), itertools.chain.from_iterable(found for _, found in taken)

    def last_seen(self, day: dt.date) -> Iterator[Recording]:
        """The recordings of a day in the last listing, however old it is."""
        return itertools.chain.from_iterable(prefix.last_seen(day) for prefix in self._prefixes(day))

    def indexes(self, days: Iterable[dt.date]) -> dict[str, Index | None]:
        """The last listing of each prefix of the ``days``, None where it has not been listed; a request for each."""
        prefixes = sorted({prefix for day in days for prefix in self.pipeline.recordings.prefixes(day)})
        return {prefix: self._prefix(prefix)._read_index()[0] for prefix in prefixes}

    def survey(self, days: Iterable[dt.date], unmatched: SomeKeys, dayless: SomeKeys) -> RecordingsByDay:
        """The recordings of some days, each prefix listed once now; no index is written.

        Args:
            days: which ``RecordingsByDay.recordings_of`` may be asked for.
            unmatched: as for ``Listing``.
            dayless: as for ``RecordingsByDay``.

        Raises:
            ConfigurationError, ServiceUnavailable: as ``take``.
        """
        prefixes = sorted({prefix for day in days for prefix in self.pipeline.recordings.prefixes(day)})

        def listed() -> Iterator[Recording]:
            for prefix in prefixes:
                with self._prefix(prefix).listing(self.heartbeat, unmatched) as listing:
                    yield from listing

        return RecordingsByDay(self.pipeline, listed(), dayless)

    def _prefixes(self, day: dt.date) -> Iterator[_IndexedPrefix]:
        return map(self._prefix, self.pipeline.recordings.prefixes(day))

    def _prefix(self, prefix: str) -> _IndexedPrefix:
        return _IndexedPrefix(self.bucket, self.pipeline, self.state, self.heartbeat, prefix, self.times)


def listed_day(
    bucket: RecordingBucket,
    pipeline: Pipeline,
    state: ObjectPrefix,
    day: dt.date,
    heartbeat: Callable[[], object] = lambda: None,
    times: Times | None = None,
) -> Iterable[Recording]:
    """The recordings below a day's own prefix, in key order; raises as iterating a ``Listing``.

    Times that are elsewhere are read once for the same key and ETag, and kept below ``output.state``. The listings of
    several days should share ``times``.
    """
    prefix = pipeline.recordings.prefix_of(day)
    if not isinstance(pipeline.recordings.call_time, TimeElsewhere):
        return Listing(bucket, pipeline, prefix, heartbeat)
    return _with_kept_times(bucket, pipeline, state, day, heartbeat, times)


def _with_kept_times(
    bucket: RecordingBucket,
    pipeline: Pipeline,
    state: ObjectPrefix,
    day: dt.date,
    heartbeat: Callable[[], object],
    times: Times | None,
) -> Iterator[Recording]:
    prefix = pipeline.recordings.prefix_of(day)
    name = layout.daily_times(_settings_digest(pipeline, prefix), day)
    before = state.get(name) or b""
    lines = io.BytesIO()
    # LastModified stands in for a time that could not be read. It is read again, as the day does not depend on it.
    with (
        closing(_KnownTimes(lambda: _lines_of(pipeline, before), lambda _: True)) as known_times,
        gzip.GzipFile(fileobj=lines, mode="wb", compresslevel=5, mtime=0) as file,
    ):
        for recording in Listing(bucket, pipeline, prefix, heartbeat, known_time=known_times, times=times):
            file.write(recording.as_line())
            yield recording
    if lines.getvalue() != before:
        state.put(name, lines.getvalue(), "application/gzip")


def _lines_of(pipeline: Pipeline, body: bytes) -> Iterator[Recording]:
    """The recordings of gzipped lines."""
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as lines:
        for line in lines:
            yield Recording.from_line(pipeline.recordings.bucket, line)


@dataclass
class _IndexedPrefix:
    """One prefix of an archive, and its index."""

    bucket: RecordingBucket
    pipeline: Pipeline
    state: ObjectPrefix
    heartbeat: Callable[[], object]
    prefix: str
    times: Times | None = None
    _digest: str = field(init=False, repr=False)
    _taken: dict[dt.date, bool] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._digest = _settings_digest(self.pipeline, self.prefix)

    def take(self, day: dt.date, previous_listing: str | None, run_token: str) -> tuple[str, Iterator[Recording]]:
        """As ``Archive.take``, for this prefix."""
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
        return index.listing, self._recordings(body)

    def last_seen(self, day: dt.date) -> Iterator[Recording]:
        """As ``Archive.last_seen``, for this prefix."""
        index, _ = self._read_index()
        body = self._body(index, day) if index is not None else None
        return self._recordings(body or b"")

    @contextmanager
    def listing(self, heartbeat: Callable[[], object], unmatched: SomeKeys | None = None) -> Iterator[Listing]:
        """A new listing, which keeps the times of the last one where they are not in the keys."""
        with closing(_KnownTimes(lambda: self._all_last_seen(heartbeat), self._may_move)) as known_times:
            yield Listing(self.bucket, self.pipeline, self.prefix, heartbeat, unmatched, known_times, self.times)

    def _may_move(self, time: dt.datetime) -> bool:
        """Whether a recording whose time could not be read may get another one: nothing was paid for on its day."""
        if not isinstance(self.pipeline.recordings.call_time, TimeElsewhere):
            return False
        day = time.astimezone(self.pipeline.zone).date()
        if day not in self._taken:
            self._taken[day] = has_run(self.state, day)
        return not self._taken[day]

    def _all_last_seen(self, heartbeat: Callable[[], object]) -> Iterator[Recording]:
        index, _ = self._read_index()
        if index is None:
            return
        with ThreadPoolExecutor(THREADS) as pool:
            names = (layout.archive_day(self._digest, entry["object"]) for entry in index.days.values())
            for body in pool.map(self.state.get, names):
                yield from self._recordings(body or b"")
                heartbeat()

    def _is_usable(self, index: Index, day: dt.date, previous_listing: str | None) -> bool:
        is_own = self.pipeline.recordings.prefix_of(day).startswith(self.prefix)
        return index.is_usable(self.pipeline, day, previous_listing, dt.datetime.now(dt.UTC), is_own=is_own)

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

        with self.listing(heartbeat) as listing:
            found = RecordingsByDay(self.pipeline, listing)
        try:
            assert listing.began is not None
            days = {day: f"{day}-{found.digest(day)}.jsonl.gz" for day in sorted(found.counts)}
            new = [day for day in days if days[day] not in reusable]
            with ThreadPoolExecutor(THREADS) as pool:
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
        document = {
            "bucket": self.pipeline.recordings.bucket,
            "prefix": self.prefix,
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

    def _recordings(self, body: bytes) -> Iterator[Recording]:
        return _lines_of(self.pipeline, body)


def _settings_digest(pipeline: Pipeline, prefix: str) -> str:
    """16 hex digits of a hash of every setting that decides what is listed and which day a call belongs to."""
    source = pipeline.recordings
    rule = source.call_time if source.call_time == "last_modified" else source.call_time.model_dump(exclude_none=True)
    listed = [source.prefix, prefix] if has_date(source.prefix) else source.prefix
    settings = [_FORMAT, source.bucket, listed, rule, sorted(source.suffixes), pipeline.timezone]
    if source.key_pattern is not None:
        settings.append(source.key_pattern)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
