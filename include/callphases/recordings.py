"""A bucket and a day → the day's recordings, and the chunks that they are worked on in."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import math
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from callphases.errors import ConfigurationError
from callphases.pipeline import KeyTime, Pipeline
from callphases.storage import Folder, explain

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

TASK_EACH_UP_TO = 20
"""Up to so many recordings get a task each, so that people see their calls in the grid."""
CHUNK_SIZE = 40
MAX_CHUNKS = 200
"""Mapped tasks of a run: Airflow's grid grows slow with more, and its max_map_length is 1024."""


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
        return {**asdict(self), "call_time": self.call_time.isoformat()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Recording:
        """The inverse of ``as_json``."""
        return cls(**{**document, "call_time": dt.datetime.fromisoformat(document["call_time"])})


def list_day(client: S3Client, pipeline: Pipeline, day: dt.date) -> Iterator[Recording]:
    """The recordings of ``day`` (a day of the pipeline's time zone), in key order.

    With a dated prefix only that day's prefix is listed, and it decides the day. With a flat one the whole prefix is
    listed and the call's time decides.

    Raises:
        ConfigurationError: no such bucket, no rights.
        ServiceUnavailable: S3 does not answer.
    """
    source = pipeline.recordings
    suffixes = tuple(source.suffixes)
    unmatched = 0
    for item in _objects(client, source.bucket, source.prefix_of(day)):
        key: str = item["Key"]
        if key.endswith("/") or not key.lower().endswith(suffixes):
            continue
        written: dt.datetime = item["LastModified"]
        call_time = written
        if isinstance(source.call_time, KeyTime):
            read = _time_in_key(key, source.call_time, pipeline)
            unmatched += read is None
            call_time = read or written
        if not source.dated and call_time.astimezone(pipeline.zone).date() != day:
            continue
        yield Recording(
            bucket=source.bucket,
            key=key,
            etag=item["ETag"].strip('"'),
            size=item["Size"],
            call_time=call_time.astimezone(dt.UTC),
        )
    if unmatched:
        # Better a call on the day of its upload than a call that is silently in no day.
        log.warning(
            "%d keys do not match recordings.call_time.key_pattern or its format; their LastModified was taken.",
            unmatched,
        )


def _objects(client: S3Client, bucket: str, prefix: str) -> Iterator[Any]:
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            yield from page.get("Contents", [])
    except (ClientError, BotoCoreError) as error:
        raise explain(error, bucket, "recordings.bucket") from None


def _time_in_key(key: str, rule: KeyTime, pipeline: Pipeline) -> dt.datetime | None:
    match = re.search(rule.key_pattern, key)
    if match is None or match["time"] is None:
        return None
    try:
        moment = dt.datetime.strptime(match["time"], rule.format)
        return (moment if moment.tzinfo else moment.replace(tzinfo=pipeline.zone)).astimezone(dt.UTC)
    except (ValueError, OverflowError):  # a year that no calendar of ours has, perhaps
        return None


def chunks(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """Cut a day into the lists that one mapped task each works on; every recording is in exactly one."""
    if not recordings:
        return []
    size = 1 if len(recordings) <= TASK_EACH_UP_TO else max(CHUNK_SIZE, math.ceil(len(recordings) / MAX_CHUNKS))
    return [list(recordings[start : start + size]) for start in range(0, len(recordings), size)]


@dataclass(frozen=True)
class Manifest:
    """Some recordings of one day, as a task hands them to the next: a list of the day, or a chunk of it.

    Attributes:
        name: of this list in its run: ``day``, or ``chunk-`` and a number.
        day: the day of the calls.
        run_id: of the run that listed it.
        holder: names the run for the lease of the day, and the folders of its own; unlike that of any other run.
        term: of the lease when it was listed.
        listed_at: when the pass over the day began: what failed before it may be tried again, what failed since not.
        recordings: in key order.
        known: what the ledger held about them.
        first: how many recordings of the run's other chunks come before this one's, to pace them all by one clock.
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
        body = state.get(uri.removeprefix(state.uri)) if uri.startswith(state.uri) else None
        if body is None:
            raise ConfigurationError(f"{uri}: this run's list is gone from output.state; clear the run's first task.")
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
    """A day as it was listed: what the task that publishes it needs to know.

    Attributes:
        day: the day of the calls.
        run_id: of the run that listed it.
        holder: names the run for the lease of the day, and the folders of its own.
        term: of the lease when it was listed.
        listed_at: when the pass over the day began.
        listed: how many recordings were listed.
        chunks: how many chunks are worked on, ``chunk-0000`` and so on.
        rest: how many parts hold the rows of the other recordings, ``rest-0000`` and so on.
        replay: whether what failed for good is tried again too.
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


def new_holder(run_id: str) -> str:
    """A name for one execution of a run, fit for a folder. A run's id is not unique: it may be cleared, or in two
    Airflows at once."""
    return f"{re.sub(r'[^A-Za-z0-9_.+-]', '_', run_id)}-{uuid.uuid4().hex[:8]}"
