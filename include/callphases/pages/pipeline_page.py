"""The page of a pipeline: which days are done, how far an archive is, and the nights over time.

It reads what runs have left behind, at most ``inspection.calendar.REQUESTS_PER_YEAR`` S3 requests for each year that is
shown, and never lists the bucket of the recordings: of days that no run has taken it knows what a saved plan knows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile, groupby

from callphases.inspection.calendar import Calendar, Day, State, read_calendar
from callphases.inspection.calendar_views import FINAL, LETTERS, Step, pace_line, steps
from callphases.inspection.day_counts import Counts, Source
from callphases.inspection.trends import Change, DayFigures, read_trends
from callphases.local_days import DAY, last_complete_day
from callphases.pages.pipelines import Stores
from callphases.pages.strips import Mark, phase_marks
from callphases.planning.saved import planned
from callphases.state.summaries import DaySummary

MONTHS = 12
"""Months on a page."""
OLDEST = dt.date(1970, 1, 1)
"""No calls are older, and a page needs some days before its last."""
NIGHTS, FEWEST_NIGHTS = 92, 14
"""The most and the fewest days of the charts."""
_FINAL = "failed_for_good"
_STATUSES = ("completed", "no_speech", "failed")


@dataclass(frozen=True)
class Cell:
    """A day of the calendar: its letter and what that means, and what is known of it in words."""

    day: dt.date
    state: str
    letter: str
    says: str
    is_published: bool


@dataclass(frozen=True)
class Month:
    """A month of the calendar: a cell for each day from the 1st on, None for one that is not of the calendar."""

    name: str
    cells: list[Cell | None]
    done: int
    days: int
    usd: float


@dataclass(frozen=True)
class Meaning:
    """A letter of the calendar: what it means, and how many days have it."""

    state: str
    letter: str
    meaning: str
    days: int


@dataclass(frozen=True)
class Part:
    """A part of a day's bar, from ``start`` on, both in percent of the chart's height."""

    name: str
    start: float
    size: float
    says: str


@dataclass(frozen=True)
class Bar:
    """A day in a chart; ``x`` and ``width`` are percent of its width."""

    day: dt.date
    x: float
    width: float
    parts: list[Part]


@dataclass(frozen=True)
class Chart:
    """Bars of parts above a time axis. ``most`` is the value at the top, ``ticks`` are days to write below, with x."""

    bars: list[Bar]
    most: float
    ticks: list[tuple[float, dt.date]]

    def x_of(self, day: dt.date) -> float:
        """Where a day begins."""
        return next(bar.x for bar in self.bars if bar.day == day)


@dataclass(frozen=True)
class PipelinePage:
    """What the page shows.

    Attributes:
        pipeline, zone: names.
        first, last: the days of the calendar.
        older, newer: the last day of the page before and after; None if there is none.
        calendar: its figures.
        months, legend: the calendar.
        pace: how fast it goes, in a sentence.
        steps: what to do about days that are not done.
        calls, usd: charts of the last ``NIGHTS`` days; None without a publication.
        shares: chart of the shares of phases in these days, in percent; None if no day has left any.
        marks: how phases look.
        changes: on these days another prompt or model took over.
        nights: the same days as figures, the last first.
    """

    pipeline: str
    zone: str
    first: dt.date
    last: dt.date
    older: dt.date | None
    newer: dt.date | None
    calendar: Calendar
    months: list[Month]
    legend: list[Meaning]
    pace: str
    steps: list[Step]
    calls: Chart | None
    usd: Chart | None
    shares: Chart | None
    marks: dict[str, Mark]
    changes: list[Change]
    nights: list[DayFigures]

    @property
    def colors(self) -> dict[str, str]:
        """The class of each phase's color."""
        return {name: mark.classes for name, mark in self.marks.items()}


def pipeline_page(stores: Stores, until: dt.date | None = None, now: dt.datetime | None = None) -> PipelinePage:
    """The page of a pipeline.

    Args:
        stores: of the pipeline.
        until: the last day; by default the last that is over.
        now: the moment; by default this one.

    Raises:
        ConfigurationError, ServiceUnavailable: a bucket can't be read.
    """
    pipeline = stores.pipeline
    now = now or dt.datetime.now(dt.UTC)
    today = last_complete_day(now, pipeline.zone)
    last = max(min(until or today, today), OLDEST)
    first = _months_before(last, MONTHS - 1)
    plan = planned(stores.state)
    counts = Counts({}, Source.NOTHING) if plan is None else Counts(plan.days, Source.PLAN, plan.made_at)
    calendar = read_calendar(pipeline, stores.s3, first, last, planned=plan, counts=counts, now=now)
    # What is before the first recording says nothing.
    days = list(dropwhile(lambda day: day.state in (State.EMPTY, State.NEVER_RUN), calendar.days)) or calendar.days[-1:]
    trends = read_trends(stores.state, last, NIGHTS)
    nights = trends.days
    axis = _axis(nights, last)
    with_shares = [(one.day, {name: 100 * share for name, share in one.phase_shares.items()}) for one in nights]
    names = [*(phase.name for phase in pipeline.phases), *(name for one in nights for name in one.phase_shares)]
    # In the pipeline's order, so that a phase is at about the same height each day.
    order = {name: number for number, name in enumerate(phase_marks(names))}
    shares = [(day, dict(sorted(of_day.items(), key=lambda one: order[one[0]]))) for day, of_day in with_shares]
    return PipelinePage(
        pipeline=pipeline.pipeline,
        zone=pipeline.timezone,
        first=first,
        last=last,
        older=first - DAY if first > OLDEST else None,
        newer=min(_months_before(last, -MONTHS), today) if last < today else None,
        calendar=calendar,
        months=list(_months(days)),
        legend=list(_legend(days)),
        pace=pace_line(calendar),
        steps=list(steps(calendar, f"{pipeline.pipeline}.yaml")),
        calls=_chart(axis, [(one.day, _counts(one)) for one in nights]) if nights else None,
        usd=_chart(axis, [(one.day, _costs(one)) for one in nights]) if nights else None,
        shares=_chart(axis, shares) if any(of_day for _, of_day in shares) else None,
        marks=phase_marks(names),
        changes=trends.changes,
        nights=nights[::-1],
    )


def _months_before(day: dt.date, months: int) -> dt.date:
    """The first of the month so many months before ``day``'s; with a negative number, the last day of one after."""
    number = day.year * 12 + day.month - 1 - months
    if months >= 0:
        return dt.date(number // 12, number % 12 + 1, 1)
    return dt.date((number + 1) // 12, (number + 1) % 12 + 1, 1) - DAY


def _months(days: Sequence[Day]) -> Iterator[Month]:
    for name, of_month in groupby(days, key=lambda one: f"{one.day:%Y-%m}"):
        some = list(of_month)
        cells: list[Cell | None] = [None] * 31
        for one in some:
            cells[one.day.day - 1] = _cell(one)
        with_calls = [one for one in some if one.state not in (State.EMPTY, State.NEVER_RUN)]
        done = sum(one.state in (State.DONE, State.PUBLISHED) or one.is_final for one in with_calls)
        yield Month(name, cells, done, len(with_calls), sum(one.usd for one in some))


def _cell(day: Day) -> Cell:
    letter, _, meaning = FINAL if day.is_final else LETTERS[day.state]
    state = _FINAL if day.is_final else day.state.value
    says = f"{day.day}: {meaning}"
    if day.summary is not None:
        counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in _counts(day.summary).items())
        says += f". {counts or 'No calls'}"
    elif day.recordings:
        says += f". {day.recordings:,} recordings"
    return Cell(day.day, state, letter, says, day.is_published)


def _legend(days: Sequence[Day]) -> Iterator[Meaning]:
    for state, (letter, _, meaning) in LETTERS.items():
        if count := sum(day.state is state and not day.is_final for day in days):
            yield Meaning(state.value, letter, meaning, count)
        if state is State.FAILED and (count := sum(day.is_final for day in days)):
            yield Meaning(_FINAL, FINAL[0], FINAL[2], count)


def _counts(one: DaySummary | DayFigures) -> dict[str, float]:
    """Calls by status, the usual ones first."""
    order = [*_STATUSES, *(name for name in one.statuses if name not in _STATUSES)]
    return {name: one.statuses[name] for name in order if one.statuses.get(name)}


def _costs(one: DayFigures) -> dict[str, float]:
    return {"speech": one.speech_usd, "language models": one.llm_usd}


def _axis(nights: Sequence[DayFigures], last: dt.date) -> list[dt.date]:
    """The days of the charts, without gaps: at least ``FEWEST_NIGHTS``, as one bar alone would fill a chart."""
    first = min([last - (FEWEST_NIGHTS - 1) * DAY, *(one.day for one in nights[:1])])
    return [first + number * DAY for number in range((last - first).days + 1)]


def _chart(axis: Sequence[dt.date], values: Iterable[tuple[dt.date, dict[str, float]]]) -> Chart:
    """A bar for each day that has values, stacked in their order."""
    of_day = dict(values)
    most = max((sum(parts.values()) for parts in of_day.values()), default=0) or 1
    width = 100 / len(axis)
    bars = []
    for number, day in enumerate(axis):
        parts, below = [], 0.0
        for name, value in of_day.get(day, {}).items():
            size = 100 * value / most
            below += size
            parts.append(Part(name, 100 - below, size, f"{day}: {value:,.4g} {name.replace('_', ' ')}"))
        bars.append(Bar(day, number * width, width, parts))
    step = max(len(axis) // 3, 1)  # there is room for four dates in a narrow window
    return Chart(bars, most, [(bar.x + width / 2, bar.day) for bar in bars[::step]])
