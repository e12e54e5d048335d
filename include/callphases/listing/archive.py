"""A flat archive, listed once for all of its days: which recordings are whose day, kept in the state area.

Below ``index/<16 digits>/``, where the digits follow from all that decides what is listed and on which day a call is:

- ``<day>-<digest>.jsonl.gz``, a line for each recording of a day. Its name follows from what it holds: who has read an
  older ``index.json`` still finds the day as it was then, and a day that has not changed is not written again.
- ``index.json``: when the listing began, and the days with their objects; written last, by a conditional PUT.
- ``lease.json``: which run lists the archive now. Others wait for its index instead of listing too.

A run takes its day from the index if that was listed after the day had ended, and if no earlier run of the day has
taken it from the very same listing: who runs a day again wants to find what has come late. Else it lists anew. So it
does where the listing is old, and soon where it has nothing of the day: an archive may have been filled up since.
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
from typing import TYPE_CHECKING, Any

from callphases.errors import DayHeld, ServiceUnavailable
from callphases.listing.listing import Listing
from callphases.pipeline import KeyTime, Pipeline
from callphases.recordings import Recording
from callphases.state.lease import Lease
from callphases.state.storage import ObjectPrefix

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SERVES = dt.timedelta(days=1)
"""For how long a listing is used."""
SERVES_NONE = dt.timedelta(hours=1)
"""For how long it is used for days that it has nothing of."""
WRITERS = 8
_CACHE_KIB = 16_000
_FORMAT = 1
"""Of the objects; another one has other digits."""


class ByDay:
    """Recordings of one bucket on disk, by the day of their call in the pipeline's time zone.

    The file has no name, so that nothing of it stays, however the process ends.

    Args:
        pipeline: whose recordings, and in which time zone a day is a day.
        recordings: of any days, in the order that each day is to have.
    """

    def __init__(self, pipeline: Pipeline, recordings: Iterable[Recording]) -> None:
        self.counts: Counter[dt.date] = Counter()
        self._bucket = pipeline.recordings.bucket
        self._digests: dict[dt.date, hashlib._Hash] = {}
        self._lock = threading.Lock()
        self._disk = sqlite3.connect("", check_same_thread=False)  # SQLite's name for a file without one
        self._disk.execute("PRAGMA journal_mode = OFF")
        self._disk.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._disk.execute(
            "CREATE TABLE found (day INTEGER, number INTEGER, line BLOB, PRIMARY KEY (day, number)) WITHOUT ROWID"
        )
        zone = pipeline.zone
        for recording in recordings:
            self._add(recording.call_time.astimezone(zone).date(), recording.as_line())

    def _add(self, day: dt.date, line: bytes) -> None:
        if day not in self._digests:
            self._digests[day] = hashlib.sha256()
        self._disk.execute("INSERT INTO found VALUES (?, ?, ?)", (day.toordinal(), self.counts[day], line))
        self._digests[day].update(line)
        self.counts[day] += 1

    def close(self) -> None:
        """Give the disk's space back."""
        self._disk.close()

    def digest(self, day: dt.date) -> str:
        """16 hex digits that follow from what a day holds."""
        return self._digests[day].hexdigest()[:16]

    def recordings_of(self, day: dt.date) -> Iterator[Recording]:
        """A day's recordings, in their order."""
        return (Recording.from_line(self._bucket, line) for line in self._lines(day))

    def packed(self, day: dt.date) -> bytes:
        """A day's lines, compressed; several threads may ask at once."""
        body = io.BytesIO()
        with self._lock, gzip.GzipFile(fileobj=body, mode="wb", compresslevel=5, mtime=0) as file:
            file.writelines(self._lines(day))
        return body.getvalue()

    def _lines(self, day: dt.date) -> Iterator[bytes]:
        found = self._disk.execute("SELECT line FROM found WHERE day = ? ORDER BY number", (day.toordinal(),))
        return (line for (line,) in found)


@dataclass(frozen=True)
class Index:
    """What ``index.json`` says.

    Attributes:
        listing: names this listing and no other.
        listed_at: what was written before is in it.
        days: the object of each day that has recordings, and how many it holds.
    """

    listing: str
    listed_at: dt.datetime
    days: dict[str, dict[str, Any]]

    def serves(self, pipeline: Pipeline, day: dt.date, former: str | None, now: dt.datetime) -> bool:
        """Whether a run takes ``day`` from this, where the day's former run took it from the listing ``former``."""
        end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), pipeline.zone)
        oldest = now - (SERVES if str(day) in self.days else SERVES_NONE)
        return self.listed_at >= max(end, oldest) and self.listing != former


@dataclass
class _Turn(Lease):
    """The right of one run to list an archive; ``folder`` is where its index lies."""

    folder: str = ""

    @property
    def _name(self) -> str:
        return f"{self.folder}lease.json"

    def take(self) -> int:
        try:
            return super().take()
        except DayHeld as held:
            raise DayHeld("Another run lists the archive for all of its days; waiting for it.", held.wait_s) from None


@dataclass
class Archive:
    """The recordings of a pipeline whose prefix is flat, a day at a time.

    Args:
        client: of S3.
        pipeline: with a flat ``recordings.prefix``.
        state: ``output.state``.
        alive: called often while the archive is listed.
    """

    client: S3Client
    pipeline: Pipeline
    state: ObjectPrefix
    alive: Callable[[], object] = lambda: None
    _folder: str = field(init=False)

    def __post_init__(self) -> None:
        self._folder = f"index/{_digits(self.pipeline)}/"

    def take(self, day: dt.date, former: str | None, run_token: str) -> tuple[str, Iterator[Recording]]:
        """The recordings of a day, in key order, and the name of the listing that they were taken from.

        Args:
            day: of the calls, in the pipeline's time zone.
            former: the listing that the day's former run took its recordings from.
            run_token: names the run.

        Raises:
            DayHeld: another run lists the archive right now.
            ConfigurationError, ServiceUnavailable: as iterating a ``Listing``, or the state area does not answer.
        """
        index, _ = self._look()
        body = self._served(index, day, former)
        if index is None or body is None:
            turn = _Turn(self.state, day, run_token, folder=self._folder)
            turn.take()
            try:
                index, etag = self._look()  # another run may have listed it a moment ago
                body = self._served(index, day, former)
                if index is None or body is None:
                    index = self._list(turn, self._there(index, day, former), etag)
                    body = self._body(index, day)
            finally:
                turn.release()
        if body is None:
            raise ServiceUnavailable(f"{self.state.uri_of(self._folder)}: an object was deleted before it was read.")
        return index.listing, _recordings(self.pipeline.recordings.bucket, body)

    def last_seen(self, day: dt.date) -> Iterator[Recording]:
        """The recordings of a day by the last listing, whenever that was."""
        index, _ = self._look()
        body = self._body(index, day) if index is not None else None
        return _recordings(self.pipeline.recordings.bucket, body or b"")

    def _serves(self, index: Index, day: dt.date, former: str | None) -> bool:
        return index.serves(self.pipeline, day, former, dt.datetime.now(dt.UTC))

    def _served(self, index: Index | None, day: dt.date, former: str | None) -> bytes | None:
        return self._body(index, day) if index is not None and self._serves(index, day, former) else None

    def _body(self, index: Index, day: dt.date) -> bytes | None:
        """A day's lines, compressed; None where their object was deleted."""
        entry = index.days.get(str(day))
        return self.state.get(self._folder + entry["object"]) if entry is not None else b""

    def _there(self, index: Index | None, day: dt.date, former: str | None) -> set[str]:
        """The objects that need not be written again: none where the index would serve, but for an object deleted."""
        if index is None or self._serves(index, day, former):
            return set()
        return {entry["object"] for entry in index.days.values()}

    def _list(self, turn: _Turn, there: set[str], etag: str | None) -> Index:
        def alive() -> None:
            self.alive()
            turn.hold()

        listing = Listing(self.client, self.pipeline, self.pipeline.recordings.prefix, alive)
        found = ByDay(self.pipeline, listing)
        try:
            assert listing.began is not None
            days = {day: f"{day}-{found.digest(day)}.jsonl.gz" for day in sorted(found.counts)}
            new = [day for day in days if days[day] not in there]
            with ThreadPoolExecutor(WRITERS) as pool:
                for _ in pool.map(lambda day: self._put(days[day], found.packed(day)), new):
                    alive()
            entries = {str(day): {"recordings": found.counts[day], "object": name} for day, name in days.items()}
            index = Index(uuid.uuid4().hex, listing.began, entries)
        finally:
            found.close()
        if self.state.put_if_match(f"{self._folder}index.json", self._document(index), etag) is None:
            raise DayHeld("Another run has listed the archive meanwhile; its index is taken.", 0)
        return index

    def _put(self, name: str, body: bytes) -> None:
        self.state.put(self._folder + name, body, "application/gzip")

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

    def _look(self) -> tuple[Index | None, str | None]:
        stored = self.state.look(f"{self._folder}index.json")
        if stored is None:
            return None, None
        document = json.loads(stored.body)
        listed_at = dt.datetime.fromisoformat(document["listed_at"])
        return Index(document["listing"], listed_at, document["days"]), stored.etag


def _recordings(bucket: str, body: bytes) -> Iterator[Recording]:
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as lines:
        for line in lines:
            yield Recording.from_line(bucket, line)


def _digits(pipeline: Pipeline) -> str:
    """16 hex digits that follow from all that decides what is listed and on which day a call is."""
    source = pipeline.recordings
    rule = source.call_time.model_dump() if isinstance(source.call_time, KeyTime) else source.call_time
    decides = [_FORMAT, source.bucket, source.prefix, rule, sorted(source.suffixes), pipeline.timezone]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
