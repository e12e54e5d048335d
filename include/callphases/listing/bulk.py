"""Notices that recordings were copied in bulk, so that LastModified does not say when the calls were."""

from __future__ import annotations

import datetime as dt
import statistics
from collections import Counter

from callphases.pipeline import Pipeline

MANY = 1000
"""Recordings of a day that a copy may explain."""
TIMES_OTHERS = 10
"""How many times the median of the other days a day must have."""
FEW_HOURS, MOST = 6, 0.8
"""Without other days to compare with: most recordings within a few hours, while calls spread over a working day."""


class Uploads:
    """Counts recordings by the hour of their LastModified, where that stands in for the time of the call."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._is_used = pipeline.recordings.call_time == "last_modified"
        self._zone = pipeline.zone
        self._hours: Counter[tuple[dt.date, int]] = Counter()

    def see(self, uploaded_at: dt.datetime) -> None:
        """Count a recording."""
        if self._is_used:
            local = uploaded_at.astimezone(self._zone)
            self._hours[local.date(), local.hour] += 1

    def warning(self) -> str | None:
        """What a user should know; None if nothing looks like a copy."""
        days: Counter[dt.date] = Counter()
        for (day, _), count in self._hours.items():
            days[day] += count
        if not days:
            return None
        [(day, count)] = days.most_common(1)
        others = [number for other, number in days.items() if other != day]
        busiest = sum(number for _, number in self._hours.most_common(FEW_HOURS))
        stands_out = bool(others) and count >= TIMES_OTHERS * statistics.median(others)
        if count < MANY or not (stands_out or busiest >= MOST * days.total()):
            return None
        return (
            f"{count} of {days.total()} recordings were uploaded on {day}, as a copy in bulk does, and "
            "recordings.call_time is last_modified: if their calls were on other days, set it before they are paid for "
            "on this one. It can be in the key (key_pattern), in the object (metadata, tag), in the audio file "
            "(audio_tag), in a document beside it (sidecar), or in a list (inventory), such as S3 Inventory's of the "
            "bucket that they were copied from."
        )
