"""A bucket and a day → the day's recordings, and the chunks that they are worked on in."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import math
import re
import tempfile
import uuid
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from callphases.errors import ConfigurationError
from callphases.pipeline import KeyTime, Pipeline
from callphases.storage import Folder, explain

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

TASK_EACH_UP_TO = 20
"""Up to so many recordings get a task each, so that people see their calls in the grid."""
MAX_CHUNKS = 200
"""Mapped tasks of a run: Airflow's grid grows slow with more, and its max_map_length is 1024."""
HEAVIEST = 20.0
"""A recording counts for so many of the mean at most, so that one huge file does not crowd the others together."""


@dataclass(frozen=True)
class Recording:
    """One object of the bucket. ``call_time`` is when the call began, in UTC; ``size`` is in bytes."""

    bucket: str
    key: str
    etag: str
    size: int
    call_time: dt.datetime

    @property
    def uri(self) -> str:
        """``s3://bucket/key``, the key as it is."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def call_id(self) -> str:
        """16 hex digits that follow from the URI alone: the same recording has the same id in every run."""
        return hashlib.sha256(self.uri.encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """For manifests."""
        return {
            "bucket": self.bucket,
            "key": self.key,
            "etag": self.etag,
            "size": self.size,
            "call_time": self.call_time.isoformat(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Recording:
        """The inverse of ``as_json``."""
        return cls(**{**document, "call_time": dt.datetime.fromisoformat(document["call_time"])})

    def as_line(self) -> bytes:
        """For long lists of one bucket, which is not in it: JSON with a line feed."""
        row = [self.key, self.etag, self.size, self.call_time.isoformat()]
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_line(cls, bucket: str, line: bytes) -> Recording:
        """The inverse of ``as_line``."""
        key, etag, size, call_time = json.loads(line)
        return cls(bucket, key, etag, size, dt.datetime.fromisoformat(call_time))


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


@dataclass(frozen=True)
class Manifest:
    """A chunk of a day's recordings, as a task hands it to the next.

    Attributes:
        name: of the chunk in its run: ``chunk-`` and a number.
        day: the day of the calls.
        run_id: of the run that listed it.
        holder: names the run for the lease of the day, and the folders of its own; unlike that of any other run.
        term: of the lease when it was listed.
        listed_at: when the pass over the day began: what failed before it may be tried again, what failed since not.
        recordings: in key order.
        known: what the ledger held about them.
        first: how many recordings of the run's other chunks come before this one's, to pace them all by one clock.
        total: how many recordings the run's chunks have.
        replay: whether what failed for good is tried again too.
        budget_usd: what may be spent on them; None is without limit.
    """

    name: str
    day: dt.date
    run_id: str
    holder: str
    term: int
    listed_at: dt.datetime
    recordings: list[Recording]
    known: list[dict[str, Any]] = field(default_factory=list)
    first: int = 0
    total: int = 0
    replay: bool = False
    budget_usd: float | None = None

    def save(self, state: Folder) -> str:
        """Write the manifest below ``runs/`` in the state area; returns its URI."""
        head = {
            "name": self.name,
            "day": self.day.isoformat(),
            "run_id": self.run_id,
            "holder": self.holder,
            "term": self.term,
            "listed_at": self.listed_at.isoformat(),
            "recordings": len(self.recordings),
            "first": self.first,
            "total": self.total,
            "replay": self.replay,
            "budget_usd": self.budget_usd,
        }
        lines = [head, *(item.as_json() for item in self.recordings), *self.known]
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        return state.put(f"runs/dt={self.day}/{self.holder}/{self.name}.jsonl", body.encode(), "application/x-ndjson")

    @classmethod
    def load(cls, state: Folder, uri: str) -> Manifest:
        """Read a manifest by its URI.

        Raises:
            ConfigurationError: it is gone, or lies in another state area.
        """
        body = _body(state, uri)
        head, *items = (json.loads(line) for line in body.splitlines())
        count = head.pop("recordings")
        return cls(
            **{
                **head,
                "day": dt.date.fromisoformat(head["day"]),
                "listed_at": dt.datetime.fromisoformat(head["listed_at"]),
            },
            recordings=[Recording.from_json(item) for item in items[:count]],
            known=items[count:],
        )


@dataclass(frozen=True)
class DayList:
    """A day as a run has listed it: what its last task must know of the lists that the others were given.

    Attributes:
        day: the day of the calls.
        run_id: of the run that listed it.
        holder: names the run for the lease of the day, and the folders of its own; unlike that of any other run.
        term: of the lease when it was listed.
        listed_at: when the pass over the day began.
        listed: how many recordings the day has.
        chunks: how many chunks were made of what is to do.
        rest: how many parts hold the rows of what is in no chunk.
        replay: whether only what had failed was to do.
    """

    day: dt.date
    run_id: str
    holder: str
    term: int
    listed_at: dt.datetime
    listed: int
    chunks: int
    rest: int
    replay: bool = False

    def save(self, state: Folder) -> str:
        """Write it below ``runs/`` in the state area; returns its URI."""
        document = {**asdict(self), "day": self.day.isoformat(), "listed_at": self.listed_at.isoformat()}
        name = f"runs/dt={self.day}/{self.holder}/day.json"
        return state.put(name, json.dumps(document).encode(), "application/json")

    @classmethod
    def load(cls, state: Folder, uri: str) -> DayList:
        """Read it by its URI; raises as ``Manifest.load``."""
        document = json.loads(_body(state, uri))
        times = {
            "day": dt.date.fromisoformat(document["day"]),
            "listed_at": dt.datetime.fromisoformat(document["listed_at"]),
        }
        return cls(**{**document, **times})


def _body(state: Folder, uri: str) -> bytes:
    body = state.get(uri.removeprefix(state.uri)) if uri.startswith(state.uri) else None
    if body is None:
        raise ConfigurationError(f"{uri}: this run's list is gone from output.state; clear the run's first task.")
    return body


def new_holder(run_id: str) -> str:
    """A name for one execution of a run, fit for a folder. A run's id is not unique: it may be cleared, or in two
    Airflows at once."""
    return f"{re.sub(r'[^A-Za-z0-9_.+-]', '_', run_id)}-{uuid.uuid4().hex[:8]}"
