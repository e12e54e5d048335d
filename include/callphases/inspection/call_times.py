"""Shows how the times and days of calls are read, for ``callphases plan`` and ``callphases doctor``."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from callphases import time_formats
from callphases.inspection.findings import Finding, Health
from callphases.listing.bulk import Uploads
from callphases.listing.listing import SomeKeys, time_in_key, without_time
from callphases.pipeline import KeyTime, Pipeline, TimeElsewhere
from callphases.recordings import Recording

SAMPLES = 3
"""How many recordings are shown with the time and the day that were read."""
_WHAT = "call times"
_UPLOAD = "LastModified, when the file was uploaded, stands in for the time of the call"


class CallTimes:
    """Looks at listed recordings, and reports what a user should know of their times.

    Attributes:
        unmatched: keys that ``recordings.call_time`` finds no time for.
        dayless: recordings on no day; see ``listing.archive.RecordingsByDay``.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.unmatched, self.dayless = SomeKeys(), SomeKeys()
        self._pipeline = pipeline
        self._count = 0
        self._samples: dict[str, str] = {}
        self._utc: str | None = None
        self._uploads = Uploads(pipeline)

    def see(self, recording: Recording, day: dt.date | None) -> None:
        """Look at a recording that was listed for ``day``; without a day, its time decides."""
        self._count += 1
        self._uploads.see(recording.call_time)
        if day is None:
            day = recording.call_time.astimezone(self._pipeline.zone).date()
            if not self._pipeline.recordings.is_listed(recording.key, day):
                self.dayless.add(recording.key)
                return
        if len(self._samples) == SAMPLES or recording.key in self._samples:
            return
        rule, zone = self._pipeline.recordings.call_time, self._pipeline.zone
        if isinstance(rule, KeyTime):
            if time_in_key(recording.key, rule, zone) is None:
                return
            if self._utc is None and _is_utc_overlooked(recording, rule):
                self._utc = recording.key
        elif any(name.startswith(repr(recording.key)) for name in self.unmatched.names):
            return
        self._samples[recording.key] = f"{recording.call_time.astimezone(zone)}, day {day}"

    def findings(self) -> Iterator[Finding]:
        """What was seen; nothing if no recording was."""
        source = self._pipeline.recordings
        by_rule = isinstance(source.call_time, KeyTime | TimeElsewhere)
        for key, read in self._samples.items():
            yield Finding(Health.GOOD if by_rule else Health.UNSURE, _WHAT, f"{key}: {read}")
        if self._count and not by_rule:
            used_for = "call_started_at" if source.is_daily else "call_started_at and the call's day"
            detail = (
                f"recordings.call_time is last_modified: {_UPLOAD}, as {used_for}. If the keys contain the time, set "
                "recordings.call_time to {key_pattern: …, format: …}."
            )
            yield Finding(Health.UNSURE, _WHAT, detail)
        if (said := self._uploads.warning()) is not None:
            yield Finding(Health.UNSURE, _WHAT, said)
        if self.unmatched.count:
            detail = f"{without_time(self._pipeline, self.unmatched)}: {self.unmatched}. {_UPLOAD}."
            yield Finding(Health.UNSURE, _WHAT, detail)
        if self._utc is not None:
            detail = (
                f"{self._utc} says after its time that it is in UTC, but it is read as a time in another zone: set "
                "recordings.call_time.timezone: UTC."
            )
            yield Finding(Health.UNSURE, _WHAT, detail)
        if self.dayless.count:
            detail = (
                f"{self.dayless.count} recordings are on no day, because recordings.call_time gives them a day that is "
                f"far from that of their prefix; they are not transcribed: {self.dayless}."
            )
            yield Finding(Health.UNSURE, _WHAT, detail)


def _is_utc_overlooked(recording: Recording, rule: KeyTime) -> bool:
    """Whether a key says UTC right after its time, and the time was read as one of another zone."""
    match = re.search(rule.key_pattern, recording.key)
    if match is None or re.match(time_formats.SAYS_UTC, recording.key[match.end("time") :]) is None:
        return False
    as_utc = time_in_key(recording.key, rule.model_copy(update={"timezone": "UTC"}), dt.UTC)
    return as_utc != recording.call_time and not time_formats.is_date_only(rule.format)
