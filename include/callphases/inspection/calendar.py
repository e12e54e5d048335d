"""How far an archive is, day by day: from the ledger's folders, the summaries, the tables and the bucket alone."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from callphases.day_range import DayRange, Span
from callphases.errors import Archived, permanent_classes
from callphases.inspection.day_counts import PAGE, Counts, DayCount, DayCounter, Planned, Requests
from callphases.inspection.pace import Pace, pace_of
from callphases.local_days import DAY, exists, last_complete_day
from callphases.pipeline import Pipeline
from callphases.state import layout
from callphases.state.bucket import RecordingBucket
from callphases.state.lease import Holder, holder_of
from callphases.state.storage import ObjectPrefix
from callphases.state.summaries import DaySummary, read_summaries
from callphases.tables.reading import published_days, read_table_day

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

REQUESTS_PER_YEAR = 100
LEASES_PER_YEAR = 20
"""Of these requests, those that are kept for leases: they say which days a run works on."""
SILENT_S = 600.0
"""How long a run that has not released its lease counts as running without renewing it. While all of its tasks wait for
jobs at the provider, nothing renews it."""
HELD_S = 25 * 3600.0
"""How long such a run counts as holding its days after that. A task that waits for ``limits.backfill`` wakes within a
day, and renews the lease when it goes on."""
_FIGURES = ["status", "failure_class", "duration_s", "speech_usd", "llm_usd", "run_id", "processed_at"]


class State(StrEnum):
    """What has become of a day.

    - ``done``: published, and no recording failed.
    - ``failed``: published with failed or unfinished recordings, or taken by a run that ended without publishing it.
    - ``running``: a run works on it.
    - ``held``: a run has it, and was not heard of for ``SILENT_S``: it waits without a worker, or was killed.
    - ``late``: published, and the bucket has more recordings now than the run has listed.
    - ``unreadable``: some recordings have to be restored from an archive before they can be read.
    - ``to_do``: there are recordings, and no run has ever taken the day.
    - ``never_run``: no run has ever taken it, and it is not known whether there are recordings.
    - ``published``: published by an earlier version, which has left no figures.
    - ``empty``: no recordings, so nothing to do.
    """

    DONE = "done"
    FAILED = "failed"
    RUNNING = "running"
    HELD = "held"
    LATE = "late"
    UNREADABLE = "unreadable"
    TO_DO = "to_do"
    NEVER_RUN = "never_run"
    PUBLISHED = "published"
    EMPTY = "empty"


@dataclass(frozen=True)
class Day:
    """A day of the calendar.

    Attributes:
        day: of the calls, in the pipeline's zone.
        state: what has become of it.
        count: what the bucket has of it; None if that is not known.
        summary: its last publication; None if it is not published, or if that left no figures.
        is_published, is_taken: whether it is in the tables, and whether a run has ever taken it.
        left: recordings that a run of it would do, as far as is known; None if their number is not known.
        is_final: failed, and another run would do nothing more, unless a recording is replaced.
        silent_s: of a day that is running or held, the seconds since its run was last heard of.
    """

    day: dt.date
    state: State
    count: DayCount | None
    summary: DaySummary | None
    is_published: bool
    is_taken: bool
    left: int | None
    is_final: bool = False
    silent_s: float | None = None

    @property
    def recordings(self) -> int | None:
        """Recordings in the bucket, else as many as the last run has listed; None if it is not known."""
        if self.count is not None and self.count.recordings is not None:
            return self.count.recordings
        return self.summary.listed if self.summary is not None else None

    @property
    def usd(self) -> float:
        """What the day's rows cost."""
        return self.summary.speech_usd + self.summary.llm_usd if self.summary is not None else 0.0


@dataclass(frozen=True)
class FailedClass:
    """The failed recordings of a class: how many, on which days."""

    failure_class: str
    recordings: int
    days: list[dt.date]


@dataclass(frozen=True)
class Calendar:
    """An archive, day by day.

    Attributes:
        pipeline: whose.
        as_of: when it was read, in UTC.
        days: in order, without those that the zone does not have.
        counts: where the numbers of recordings come from.
        pace: of the latest publications; None if there are none.
        planned_usd_per_recording: what a saved plan expects one to cost.
        requests: S3 requests that it took.
    """

    pipeline: Pipeline
    as_of: dt.datetime
    days: list[Day]
    counts: Counts
    pace: Pace | None
    planned_usd_per_recording: float | None
    requests: int

    def of(self, *states: State) -> list[Day]:
        """The days in some states."""
        return [day for day in self.days if day.state in states]

    @property
    def speech_usd(self) -> float:
        """What speech cost."""
        return sum(day.summary.speech_usd for day in self.days if day.summary is not None)

    @property
    def llm_usd(self) -> float:
        """What language models cost."""
        return sum(day.summary.llm_usd for day in self.days if day.summary is not None)

    @property
    def recordings(self) -> int:
        """Recordings of all days whose number is known."""
        return sum(day.recordings or 0 for day in self.days)

    @property
    def uncounted_days(self) -> list[Day]:
        """Days that may have recordings, whose number is not known."""
        return [day for day in self.days if day.recordings is None and day.state is not State.PUBLISHED]

    @property
    def left(self) -> float:
        """Recordings to do; a day whose recordings were not counted counts as an average one."""
        known = [day.recordings for day in self.days if day.recordings]
        average = sum(known) / len(known) if known else 0.0
        return sum(average if day.left is None else day.left for day in self.days if day.state is not State.NEVER_RUN)

    @property
    def is_left_estimated(self) -> bool:
        """Whether ``left`` has days in it whose recordings were not counted."""
        return any(day.left is None for day in self.days if day.state is not State.NEVER_RUN)

    @property
    def usd_per_recording(self) -> float | None:
        """What a recording has cost on average, else what a plan expects; None if neither is known."""
        rows = sum(sum(day.summary.statuses.values()) for day in self.days if day.summary is not None)
        return (self.speech_usd + self.llm_usd) / rows if rows else self.planned_usd_per_recording

    @property
    def to_pay_usd(self) -> float | None:
        """What is left to pay at ``usd_per_recording``; None if that is not known."""
        if not self.left:
            return 0.0
        each = self.usd_per_recording
        return None if each is None else self.left * each

    @property
    def is_working(self) -> bool:
        """Whether a run works on a day now."""
        return bool(self.of(State.RUNNING))

    @property
    def last_heard_of_at(self) -> dt.datetime | None:
        """When a run that holds days was last heard of; None if none does."""
        silent = [day.silent_s for day in self.of(State.HELD) if day.silent_s is not None]
        return self.as_of - dt.timedelta(seconds=min(silent)) if silent else None

    @property
    def expected_end(self) -> dt.datetime | None:
        """When nothing will be left at the pace of now; None if nothing is running, or the pace is not known."""
        if not self.left or not self.is_working or self.pace is None or not self.pace.is_current(self.as_of):
            return None
        if not self.pace.recordings_per_hour:
            return None
        try:
            return self.as_of + dt.timedelta(hours=self.left / self.pace.recordings_per_hour)
        except OverflowError:
            return None

    @property
    def is_finished(self) -> bool:
        """Whether no run is needed any more: what is not done can't be read, or failed for good."""
        waiting = self.of(State.RUNNING, State.HELD, State.LATE, State.TO_DO, State.NEVER_RUN)
        return not waiting and all(day.is_final for day in self.of(State.FAILED))

    @property
    def failures(self) -> list[FailedClass]:
        """Failed recordings by class, the most frequent first."""
        counts: Counter[str] = Counter()
        days: dict[str, list[dt.date]] = {}
        for day in self.days:
            for name, count in (day.summary.failures if day.summary is not None else {}).items():
                counts[name] += count
                days.setdefault(name, []).append(day.day)
        return [FailedClass(name, count, days[name]) for name, count in counts.most_common()]


def read_calendar(
    pipeline: Pipeline,
    s3: S3Client,
    first: dt.date | None = None,
    last: dt.date | None = None,
    *,
    planned: Planned | None = None,
    counts: Counts | None = None,
    now: dt.datetime | None = None,
) -> Calendar:
    """Read how far an archive is, with at most ``REQUESTS_PER_YEAR`` S3 requests for each year of it.

    Args:
        pipeline: whose days.
        s3: reaches its three buckets.
        first: the first day; by default the first that anything is known of.
        last: the last day; by default the last that is over.
        planned: what a saved plan says of the archive.
        counts: what the bucket has of each day, if it was counted shortly before.
        now: the moment; by default this one.

    Raises:
        ConfigurationError, ServiceUnavailable: a bucket can't be listed or read.
    """
    return _Reading(pipeline, s3, planned, now or dt.datetime.now(dt.UTC)).read(first, last, counts)


class _Reading:
    """One reading of a calendar."""

    def __init__(self, pipeline: Pipeline, s3: S3Client, planned: Planned | None, now: dt.datetime) -> None:
        self.pipeline, self.now, self.planned = pipeline, now, planned
        self.state = ObjectPrefix(s3, pipeline.output.state, "output.state")
        self.tables = ObjectPrefix(s3, pipeline.output.tables, "output.tables")
        self.requests = Requests(REQUESTS_PER_YEAR)
        bucket = RecordingBucket(s3, pipeline.recordings.bucket)
        self.counter = DayCounter(bucket, pipeline, self.state, self.requests, planned)

    def read(self, first: dt.date | None, last: dt.date | None, counts: Counts | None) -> Calendar:
        published = set(published_days(self.tables))
        self.requests.used += 1 + len(published) // PAGE
        taken, ranges = self._taken()
        last = last or last_complete_day(self.now, self.pipeline.zone)
        known = [*published, *taken, *(one.first for one in ranges)]
        if first is None:
            if self.planned is not None:
                known += [day for day, one in self.planned.days.items() if one.recordings]
            if counts is not None:
                known += counts.days
            elif self.counter.knows_days:
                known += [day for day in [self.counter.earliest(last)] if day is not None]
        since = first or min([day for day in known if day <= last], default=last)
        self._allow(since, last)
        leases = self.requests.most * LEASES_PER_YEAR // REQUESTS_PER_YEAR
        if counts is None:
            counts = self.counter.count(self._days(since, last), reserve=leases + _months(since, last))
        if first is None:
            since = min([since, *(day for day, one in counts.days.items() if one.recordings != 0)])
            self._allow(since, last)
        days = self._days(since, last)
        summaries = read_summaries(self.state, since, last)
        self.requests.used += _months(since, last)
        found = [self._day(day, counts, summaries.get(day), published, taken) for day in days]
        alive = self._alive(found, ranges, leases)
        found = [_in_run(day, alive) for day in found]
        found = self._with_leases(found, alive, leases)
        found = self._with_tables(found, counts)
        pace = pace_of((day.summary for day in found if day.summary is not None and day.day in summaries), self.now)
        expected = self.planned.usd_per_recording if self.planned is not None else None
        if first is None:  # what is before the first recording says nothing
            while len(found) > 1 and found[0].state in (State.EMPTY, State.NEVER_RUN):
                found.pop(0)
        return Calendar(self.pipeline, self.now, found, counts, pace, expected, self.requests.used)

    def _allow(self, first: dt.date, last: dt.date) -> None:
        self.requests.most = max(REQUESTS_PER_YEAR, REQUESTS_PER_YEAR * ((last - first).days + 1) // 365)

    def _days(self, first: dt.date, last: dt.date) -> list[dt.date]:
        days = (first + number * DAY for number in range((last - first).days + 1))
        return [day for day in days if exists(day, self.pipeline.zone)]

    def _taken(self) -> tuple[set[dt.date], list[DayRange]]:
        """The days that a run has ever taken, and the ranges of runs over several days."""
        taken: set[dt.date] = set()
        ranges: list[DayRange] = []
        for page in self.state.children(layout.LEDGERS):
            self.requests.used += 1
            for folder in page:
                span = layout.span_of(folder)
                if isinstance(span, DayRange):
                    ranges.append(span)
                elif span is not None:
                    taken.add(span)
        return taken, ranges

    def _day(
        self,
        day: dt.date,
        counts: Counts,
        summary: DaySummary | None,
        published: Collection[dt.date],
        taken: Collection[dt.date],
    ) -> Day:
        is_published = day in published or summary is not None
        return _judged(day, counts, summary, is_published=is_published, is_taken=day in taken)

    def _alive(self, days: Sequence[Day], ranges: Sequence[DayRange], most: int) -> dict[DayRange, Holder]:
        """The runs over several days that have not ended, those that were heard of lately first.

        Runs with open days are looked at first, and of these the latest days'.
        """
        open_days = {day.day for day in days if day.state not in (State.DONE, State.EMPTY) and not day.is_final}
        wanted = sorted(
            (any(one.first <= day <= one.last for day in open_days), one.last, one.first)
            for one in ranges
            if one.first <= days[-1].day and one.last >= days[0].day
        )
        alive: dict[DayRange, Holder] = {}
        for _, last, first in wanted[::-1][:most]:
            holder = self._holder(DayRange(first, last))
            if holder is not None and _has_days(holder):
                alive[DayRange(first, last)] = holder
        return dict(sorted(alive.items(), key=lambda one: one[1].silent_s))

    def _holder(self, span: Span) -> Holder | None:
        self.requests.used += 1
        return holder_of(self.state, span)

    def _with_leases(self, days: list[Day], alive: Mapping[DayRange, Holder], most: int) -> list[Day]:
        """The days, those running or held that a run of this day alone has, or that one over several has claimed.

        Leases are read of days that are not done, the latest first.
        """
        suspects = [day for day in days if day.state is State.FAILED and not day.is_published]
        others = [day for day in days if day.state in (State.FAILED, State.LATE) and day.is_published and day.is_taken]
        silent: dict[dt.date, float] = {}
        for day in [*reversed(suspects), *reversed(others)][: min(most, self.requests.left)]:
            holder = self._holder(day.day)
            if holder is not None and holder.days is not None:
                holder = alive.get(holder.days)
            if holder is not None and _has_days(holder):
                silent[day.day] = holder.silent_s
        return [_taken_by_run(day, silent[day.day]) if day.day in silent else day for day in days]

    def _with_tables(self, days: list[Day], counts: Counts) -> list[Day]:
        """The days, with figures from the tables where there is no summary: the latest first, as requests are left."""
        read: dict[dt.date, Day] = {}
        for day in reversed(days):
            if day.state is State.PUBLISHED and self.requests.left:
                self.requests.used += 1
                summary = _summary(self.tables, day.day)
                read[day.day] = _judged(day.day, counts, summary, is_published=True, is_taken=day.is_taken)
        return [read.get(day.day, day) for day in days]


def _months(first: dt.date, last: dt.date) -> int:
    """How many months the days from ``first`` to ``last`` are of."""
    return (last.year - first.year) * 12 + last.month - first.month + 1


def _has_days(holder: Holder) -> bool:
    return not holder.is_released and holder.silent_s < HELD_S


def _in_run(day: Day, alive: Mapping[DayRange, Holder]) -> Day:
    """A day, running or held if a run over several surely has to publish it; of one that is done, its lease says so."""
    if day.state is State.EMPTY:
        return day
    for days, holder in alive.items():
        if days.first <= day.day <= days.last and (
            day.summary is None
            or not (day.summary.is_done or holder.began is None or day.summary.published_at >= holder.began)
        ):
            return _taken_by_run(day, holder.silent_s)
    return day


def _taken_by_run(day: Day, silent_s: float) -> Day:
    state = State.RUNNING if silent_s < SILENT_S else State.HELD
    return replace(day, state=state, is_final=False, silent_s=silent_s)


def _judged(day: dt.date, counts: Counts, summary: DaySummary | None, *, is_published: bool, is_taken: bool) -> Day:
    """A day, as if no run worked on it now."""
    count = counts.of(day)
    recordings = count.recordings if count is not None else None
    if summary is not None:
        final = permanent_classes() | {Archived.failure_class}
        # Most unfinished recordings have a row with a failure.
        again = max(summary.unfinished, sum(number for name, number in summary.failures.items() if name not in final))
        is_later = counts.counted_at is None or counts.counted_at > summary.published_at
        late = max((recordings or 0) - summary.listed, 0) if is_later else 0
        archived = summary.failures.get(Archived.failure_class, 0)
        failed = sum(summary.failures.values()) or summary.statuses.get("failed", 0)
        left = again + late + archived
        is_final = False
        if again or summary.stopped is not None:
            state = State.FAILED
        elif archived:
            state = State.UNREADABLE
        elif late:
            state = State.LATE
        elif failed:
            state, is_final = State.FAILED, True
        else:
            state = State.DONE if summary.statuses or summary.listed else State.EMPTY
        return Day(day, state, count, summary, True, is_taken, left, is_final)
    if is_published:
        return Day(day, State.PUBLISHED, count, None, True, is_taken, 0)
    if is_taken:
        # A run that found no recordings has published nothing, and before there were summaries left no other trace.
        state = State.EMPTY if recordings == 0 else State.FAILED
    elif count is None:
        state = State.NEVER_RUN
    elif recordings == 0:
        state = State.EMPTY
    else:
        state = State.UNREADABLE if count.unreadable else State.TO_DO
    return Day(day, state, count, None, False, is_taken, recordings)


def _summary(tables: ObjectPrefix, day: dt.date) -> DaySummary | None:
    """What the rows of a day say, where no summary does; None if it has none."""
    rows = read_table_day(tables, "calls", day, _FIGURES)
    if rows is None:
        return None
    columns: dict[str, list[Any]] = {name: rows[name].to_pylist() for name in _FIGURES}
    failures = Counter(name for name in columns["failure_class"] if name)
    processed = [moment for moment in columns["processed_at"] if moment is not None]
    return DaySummary(
        day=day,
        published_at=max(processed, default=dt.datetime.min.replace(tzinfo=dt.UTC)),
        run_id=next((one for one in reversed(columns["run_id"]) if one), ""),
        listed=rows.num_rows,
        kept=0,
        statuses=dict(Counter(columns["status"])),
        failures=dict(failures),
        unfinished=failures.get("unfinished", 0),
        audio_s=sum(filter(None, columns["duration_s"])),
        speech_usd=sum(filter(None, columns["speech_usd"])),
        llm_usd=sum(filter(None, columns["llm_usd"])),
    )
