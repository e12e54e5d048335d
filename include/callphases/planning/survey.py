"""Lists the recordings of many days: counts what is paid for, and keeps on disk what is still to pay for."""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from callphases import date_prefixes
from callphases.day_range import DayRange
from callphases.errors import ConfigurationError
from callphases.inspection.call_times import CallTimes
from callphases.inspection.paid_again import PaidAgain
from callphases.listing.archive import Archive
from callphases.listing.listing import Listing
from callphases.pipeline import Pipeline
from callphases.progress import DayPass, Progress
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.bucket import RecordingBucket
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import read_ledger_day
from callphases.state.storage import ObjectPrefix
from callphases.temporary_database import temporary_database

Told = Callable[[str, int, int | None], object]
"""Is told what is being done, how much of it is done, and of how much; None where that is not known."""
CERTAIN = 200
"""The largest recordings, which are looked at whatever else is."""
CLASS_FACTOR_BITS = 2
"""Recordings of one class differ in size by up to this power of two."""
_LAST_SIGN = "\U0010ffff"
_AT_ONCE = 5_000
"""Rows that are inserted together."""
_TOLD_EACH = 5_000


@dataclass
class DayCount:
    """The recordings of a day, their bytes, and how many can't be read."""

    recordings: int = 0
    bytes: int = 0
    unreadable: int = 0


@dataclass
class MonthCount:
    """What a month has, by the listing and the ledger.

    Attributes:
        days: with recordings.
        recordings, bytes: listed.
        settled: recordings that a run would leave as they are.
        to_transcribe: recordings that would be sent to the speech service.
        ask_s: the lengths of transcribed calls that only the language model would be asked about, in seconds.
        empty: recordings without a byte, which cost nothing.
        archived, archived_bytes: recordings that have to be restored first, by storage class.
        paid_speech_usd, paid_llm_usd: what the recordings' results have cost.
        paid_audio_s: the length of what was transcribed.
    """

    days: int = 0
    recordings: int = 0
    bytes: int = 0
    settled: int = 0
    to_transcribe: int = 0
    ask_s: list[float] = field(default_factory=list)
    empty: int = 0
    archived: Counter[str] = field(default_factory=Counter)
    archived_bytes: Counter[str] = field(default_factory=Counter)
    paid_speech_usd: float = 0.0
    paid_llm_usd: float = 0.0
    paid_audio_s: float = 0.0
    paid_again: int = 0


Cell = tuple[str, int, str]
"""Recordings that are alike: suffix, class of size, month."""


@dataclass
class CellCount:
    """How many recordings a cell has, and their bytes; ``number`` names it."""

    number: int
    count: int = 0
    size: int = 0


class ToTranscribe:
    """Recordings in a temporary database, by cell: they need not fit into memory. Nothing stays on disk."""

    def __init__(self, bucket: str) -> None:
        self.cells: dict[Cell, CellCount] = {}
        self._bucket = bucket
        self._rows: list[tuple[int, int, bytes]] = []
        self._largest: list[tuple[int, int, int]] = []
        self._database = temporary_database()
        self._database.execute(
            "CREATE TABLE recordings (cell INTEGER, number INTEGER, line BLOB, PRIMARY KEY (cell, number)) "
            "WITHOUT ROWID"
        )

    def __len__(self) -> int:
        return sum(cell.count for cell in self.cells.values())

    def add(self, recording: Recording, month: str) -> None:
        """Add a recording of a month."""
        cell = self.cells.setdefault(
            (_suffix(recording.key), _class(recording.size), month), CellCount(len(self.cells))
        )
        self._rows.append((cell.number, cell.count, recording.as_line()))
        heapq.heappush(self._largest, (recording.size, cell.number, cell.count))
        if len(self._largest) > CERTAIN:
            heapq.heappop(self._largest)
        cell.count += 1
        cell.size += recording.size
        if len(self._rows) == _AT_ONCE:
            self._flush()

    def largest(self, most: int = CERTAIN) -> set[tuple[int, int]]:
        """The largest, ``CERTAIN`` at most: numbers of their cells, and theirs within them."""
        return {(cell, number) for _, cell, number in heapq.nlargest(most, self._largest)}

    def get(self, cell: CellCount, numbers: Collection[int] | None = None) -> Iterator[tuple[int, Recording]]:
        """Recordings of a cell with their numbers, all or some."""
        self._flush()
        if numbers is None:
            rows = self._database.execute("SELECT number, line FROM recordings WHERE cell = ?", (cell.number,))
            for number, line in rows:
                yield number, Recording.from_line(self._bucket, line)
            return
        for number in sorted(numbers):
            (line,) = self._database.execute(
                "SELECT line FROM recordings WHERE cell = ? AND number = ?", (cell.number, number)
            ).fetchone()
            yield number, Recording.from_line(self._bucket, line)

    def close(self) -> None:
        """Free the disk space."""
        self._database.close()

    def _flush(self) -> None:
        self._database.executemany("INSERT INTO recordings VALUES (?, ?, ?)", self._rows)
        self._rows.clear()


@dataclass
class Survey:
    """What was listed.

    Attributes:
        days: the range.
        months: by month, like ``2026-11``.
        by_day: days with recordings.
        todo: what is to be transcribed.
        paid_again: why calls are paid for again.
        times: how the times of calls were read.
    """

    days: DayRange
    months: dict[str, MonthCount]
    by_day: dict[dt.date, DayCount]
    todo: ToTranscribe
    paid_again: PaidAgain
    times: CallTimes


@contextmanager
def survey(
    pipeline: Pipeline, bucket: RecordingBucket, state: ObjectPrefix, days: DayRange | None, told: Told
) -> Iterator[Survey]:
    """List the recordings of days, all that there are by default.

    The bucket takes one LIST request for each thousand keys, and one for each day if each has its own prefix; the
    ledger one for each thousand objects of these days, and one for each object of a day that has a ledger.

    Raises:
        ConfigurationError, ServiceUnavailable: a bucket can't be listed; without days, if it has no recording.
    """
    times = CallTimes(pipeline)
    listed_days = _days_with_prefixes(pipeline, bucket) if days is None else list(days)
    span = days or DayRange(date_prefixes.FIRST, date_prefixes.LAST)
    with closing(ToTranscribe(pipeline.recordings.bucket)) as todo:
        found = Survey(span, {}, {}, todo, PaidAgain(pipeline), times)
        ledgers: set[dt.date] | None = None
        keys, day_pass = RecordingKeys(pipeline), DayPass(dt.datetime.now(dt.UTC))
        listed = 0
        for day, recordings in recordings_by_day(bucket, pipeline, state, listed_days, times, is_all=days is None):
            if ledgers is None:
                ledgers = _days_with_ledgers(state, span)
            view = read_ledger_day(state, day) if day in ledgers else None
            for recording in recordings:
                listed += 1
                times.see(recording, day)
                _count(found, day, recording, None if view is None else Progress(recording, keys, view), day_pass)
                if listed % _TOLD_EACH == 0:
                    told("recordings listed", listed, None)
        if days is None:
            if not found.by_day:
                raise ConfigurationError(
                    f"s3://{bucket.name}/ has no recording below the prefixes of recordings.prefix "
                    f"({pipeline.recordings.prefix}): check that and recordings.suffixes."
                )
            found.days = DayRange(min(found.by_day), max(found.by_day))
        told("recordings listed", listed, listed)
        yield found


def recordings_by_day(
    bucket: RecordingBucket,
    pipeline: Pipeline,
    state: ObjectPrefix,
    days: Sequence[dt.date],
    times: CallTimes,
    *,
    is_all: bool = False,
) -> Iterator[tuple[dt.date, Iterable[Recording]]]:
    """The recordings of each day; an archive is listed once for all of them.

    With ``is_all``, all days of an archive whose prefixes are those of ``days``.
    """
    source = pipeline.recordings
    if source.is_daily:
        for day in days:
            yield day, Listing(bucket, pipeline, source.prefix_of(day), unmatched=times.unmatched)
        return
    found = Archive(bucket, pipeline, state).survey(days, times.unmatched, times.dayless)
    try:
        for day in sorted(found.counts) if is_all else days:
            yield day, found.recordings_of(day)
    finally:
        found.close()


def _count(found: Survey, day: dt.date, recording: Recording, progress: Progress | None, day_pass: DayPass) -> None:
    month = found.months.setdefault(f"{day:%Y-%m}", MonthCount())
    if day not in found.by_day:
        month.days += 1
    of_day = found.by_day.setdefault(day, DayCount())
    month.recordings += 1
    month.bytes += recording.size
    of_day.recordings += 1
    of_day.bytes += recording.size
    if progress is not None:
        if (transcribed := progress.transcribed) is not None:
            month.paid_speech_usd += transcribed.speech_usd or 0.0
            month.paid_audio_s += transcribed.audio_s
        month.paid_llm_usd += sum(usage.llm_usd or 0.0 for usage in progress.usages())
        if progress.is_settled(day_pass):
            month.settled += 1
            return
        if progress.has_transcript:
            found.paid_again.see(progress)
            if progress.needs_answer(day_pass) and progress.transcribed is not None:
                month.paid_again += progress.former_answer is not None
                month.ask_s.append(progress.transcribed.audio_s)
            else:
                month.settled += 1  # only its object's metadata are asked for
            return
    if recording.archived_in:
        month.archived[recording.archived_in] += 1
        month.archived_bytes[recording.archived_in] += recording.size
        of_day.unreadable += 1
        return
    if not recording.size:
        month.empty += 1
        return
    if progress is not None:
        found.paid_again.see(progress)
        month.paid_again += progress.changed_settings is not None
    month.to_transcribe += 1
    found.todo.add(recording, f"{day:%Y-%m}")


def _days_with_ledgers(state: ObjectPrefix, days: DayRange) -> set[dt.date]:
    """The days of a range that a run has worked on: one listing for all of them."""
    common = _common_start(layout.ledger_of(days.first), layout.ledger_of(days.last))
    return {day for name in state.names(common) if (day := layout.ledger_day(name)) is not None}


def _days_with_prefixes(pipeline: Pipeline, bucket: RecordingBucket) -> list[dt.date]:
    """Of each prefix that has objects a day, in order: one or two LIST requests for each prefix."""
    source = pipeline.recordings
    if not date_prefixes.has_date(source.prefix):
        return [dt.datetime.now(pipeline.zone).date()]
    # What comes before the first date may stand for several folders.
    before = source.prefix[: source.prefix.index("{date")]
    same = date_prefixes.of_day(before, date_prefixes.FIRST)
    found: set[dt.date] = set()
    for start in bucket.expanded(same):
        day_of: dict[str, dt.date] = {}
        for number in range(date_prefixes.FIRST.toordinal(), date_prefixes.LAST.toordinal() + 1):
            day = dt.date.fromordinal(number)
            for prefix in date_prefixes.spellings(start + source.prefix_of(day).removeprefix(same)):
                day_of.setdefault(prefix, day)
        found.update(_days_that_have_objects(bucket, day_of))
    return sorted(found)


def _days_that_have_objects(bucket: RecordingBucket, day_of: dict[str, dt.date]) -> list[dt.date]:
    """The days whose prefixes, the keys of ``day_of``, have objects."""
    in_order, lengths = sorted(day_of), sorted({len(prefix) for prefix in day_of}, reverse=True)
    fixed = _common_start(in_order[0], in_order[-1])
    found: list[dt.date] = []
    after = ""
    while objects := bucket.look_below(fixed, after=after, most=1):
        key = objects[0].key
        prefix = next((key[:length] for length in lengths if key[:length] in day_of), None)
        if prefix is not None:
            found.append(day_of[prefix])
            after = prefix + _LAST_SIGN
        else:
            place = bisect_right(in_order, key)
            if place == len(in_order):
                break
            after = max(key, _before(in_order[place]))
    return found


def _common_start(one: str, other: str) -> str:
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(sign for sign, _ in pairs)


def _before(prefix: str) -> str:
    """A key that comes shortly before all that begin with ``prefix``."""
    return prefix[:-1] + chr(ord(prefix[-1]) - 1) + _LAST_SIGN


def _suffix(key: str) -> str:
    found = re.search(r"\.[A-Za-z0-9]{1,8}$", key)
    return found[0].lower() if found else ""


def _class(size: int) -> int:
    return size.bit_length() // CLASS_FACTOR_BITS
