"""The times of calls that are neither in the keys nor known: read from elsewhere, a page of a listing at once."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol
from zoneinfo import ZoneInfo

from callphases import time_formats
from callphases.errors import AccessDenied, CallFailure, ConfigurationError
from callphases.pipeline import Pipeline, TimeElsewhere
from callphases.sources.elsewhere import Reader
from callphases.state.bucket import ListedObject, RecordingBucket

THREADS = 16
HEARTBEAT_S = 5.0
MANY_REFUSED = 10
"""Recordings that S3 refuses to tell the time of, and none that it tells: then it is no recording that is wrong."""


class Times(Protocol):
    """Reads the times of calls from elsewhere."""

    def of(self, items: Sequence[ListedObject], heartbeat: Callable[[], object]) -> Iterable[dt.datetime | str]:
        """The time of each, in UTC, or why it has none; ``heartbeat`` is called every few seconds meanwhile."""

    def check_rights(self) -> None:
        """Raise ConfigurationError if S3 has refused all that it was asked, and that was more than a few."""


class _NoTimes:
    def of(self, items: Sequence[ListedObject], heartbeat: Callable[[], object]) -> list[dt.datetime | str]:  # noqa: ARG002
        """See ``Times``."""
        return [item.last_modified for item in items]

    def check_rights(self) -> None:
        """See ``Times``."""


NO_TIMES: Times = _NoTimes()
"""Reads nothing, for those who do not need the times: each is LastModified."""


def times_of(bucket: RecordingBucket, pipeline: Pipeline) -> Times:
    """Reads the times of a pipeline's recordings where ``recordings.call_time`` says that they are elsewhere.

    An inventory is read once, so listings of several prefixes should share it.

    Its methods raise:
        ConfigurationError: an inventory can't be read; or S3 refuses all of many recordings.
        ServiceUnavailable: S3 does not answer.
    """
    rule = pipeline.recordings.call_time
    return _Elsewhere(bucket, rule, pipeline.zone) if isinstance(rule, TimeElsewhere) else NO_TIMES


class _Elsewhere:
    def __init__(self, bucket: RecordingBucket, rule: TimeElsewhere, zone: dt.tzinfo) -> None:
        self._rule, self._zone = rule, ZoneInfo(rule.timezone) if rule.timezone else zone
        self._reader = Reader(bucket, [rule])
        self._lock = threading.Lock()
        self._read = self._refused = 0

    def of(self, items: Sequence[ListedObject], heartbeat: Callable[[], object]) -> list[dt.datetime | str]:
        """See ``Times``."""
        if not items:
            return []
        rule = self._rule
        # An inventory is read on this thread, which holds the lease meanwhile.
        if rule.inventory is not None and self._reader.inventory(rule, heartbeat).is_of_s3 and rule.timezone is None:
            self._zone = dt.UTC
        pool = ThreadPoolExecutor(THREADS)
        try:
            futures = [pool.submit(self._one, item) for item in items]
            waiting = set(futures)
            while waiting:
                _, waiting = wait(waiting, HEARTBEAT_S)
                heartbeat()
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)

    def check_rights(self) -> None:
        """See ``Times``."""
        if self._refused >= MANY_REFUSED and not self._read:
            raise ConfigurationError(
                f"S3 refuses to show the times of all {self._refused} recordings where recordings.call_time says that "
                "they are: check the rights of the AWS connection."
            )

    def _one(self, item: ListedObject) -> dt.datetime | str:
        try:
            found = self._reader.read(item, [self._rule])
        except CallFailure as failure:
            with self._lock:
                self._refused += isinstance(failure, AccessDenied)
            return str(failure)
        with self._lock:
            self._read += 1
        for text in found.texts.values():
            try:
                return moment_of(text, self._rule.format, self._zone)
            except ValueError as error:
                return f"{text[:40]!r} is no time: {error}"
        return next(iter(found.reasons.values()))


def moment_of(text: str, format: str | None, zone: dt.tzinfo) -> dt.datetime:
    """The time that a text gives, in UTC; without a format, of ISO 8601 or seconds or milliseconds since 1970.

    Raises:
        ValueError: it gives none.
    """
    text = text.strip()
    if format is None:
        format = time_formats.EPOCH if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else None
    if format == time_formats.EPOCH:
        text = text.partition(".")[0]
    moment = time_formats.parse_iso(text, zone) if format is None else time_formats.parse(text, format, zone)
    if not 1 < moment.year < dt.MAXYEAR:
        raise ValueError("its year is out of range")
    return moment
