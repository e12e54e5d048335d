"""Shows a calendar of an archive: as lines for a terminal, as one line, and as a JSON document."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.text import Text

from callphases.errors import REMEDIES, permanent_classes
from callphases.inspection.calendar import Calendar, Day, State
from callphases.inspection.day_counts import Source
from callphases.recordings import counted

# Letters carry the meaning; the colors are Okabe and Ito's, which color-blind readers can tell apart too.
LETTERS = {
    State.DONE: ("D", "#009E73", "done"),
    State.RUNNING: ("R", "bold #56B4E9", "running"),
    State.HELD: ("H", "#56B4E9", "held by a run not heard of for ten minutes: it waits, or was killed"),
    State.TO_DO: ("T", "", "to do: no run yet"),
    State.LATE: ("L", "bold #E69F00", "late: more recordings now than when it was run"),
    State.FAILED: ("F", "bold #D55E00", "failed: it needs another run"),
    State.UNREADABLE: ("U", "bold #CC79A7", "unreadable: recordings are to be restored first"),
    State.PUBLISHED: ("P", "", "published by an earlier version, no figures"),
    State.NEVER_RUN: ("N", "", "never run, recordings not counted"),
    State.EMPTY: (".", "dim", "without recordings"),
}
FINAL = ("f", "#D55E00", "failed for good: only a new recording or new settings help")
_RULER = "1   5    10   15   20   25   30 "
DATES_SHOWN = 3
"""How many days the lines name in a command; the JSON document names all."""
_SOURCES = {
    Source.LISTING: "the bucket was listed",
    Source.PLAN: "the saved plan",
    Source.INDEX: "the index of the archive's last listing",
    Source.FOLDERS: "only the folders of the days were listed, as the bucket has too many recordings. How many a day "
    "has is known once a run has listed it, or once a plan of all days is saved",
    Source.NOTHING: "what runs have listed, as the bucket has too many recordings to list it. How many other days "
    "have is known once a plan of all days is saved",
}


@dataclass(frozen=True)
class Step:
    """Something to do: what is wrong, what helps, and the command that does it."""

    what: str
    remedy: str
    command: str
    days: list[dt.date]
    failure_class: str | None = None
    recordings: int | None = None

    @property
    def whole_command(self) -> str:
        """The command, for all of the days."""
        return self._with(self.days)

    @property
    def shown_command(self) -> str:
        """The command, for the first days, and how many it leaves out."""
        more = len(self.days) - DATES_SHOWN
        if "{dates}" not in self.command or more <= 0:
            return self.whole_command
        return f"{self._with(self.days[:DATES_SHOWN])}   # and {counted(more, 'more day')}: see --format json"

    def _with(self, days: Sequence[dt.date]) -> str:
        return self.command.format(
            dates=" ".join(f"--date {day}" for day in days), first=self.days[0], last=self.days[-1]
        )


def steps(calendar: Calendar, file: str) -> Iterator[Step]:
    """What is to be done about the days that are not done; ``file`` is the pipeline's."""
    file = file.replace("{", "{{").replace("}", "}}")
    run = f"callphases run {file} {{dates}}"
    backfill = f"callphases backfill {file} --from {{first}} --to {{last}}"
    for one in calendar.failures:
        name = one.failure_class
        # A replay is of calls that failed; a recording that was replaced has not failed yet.
        command = run if name in permanent_classes() else f"callphases replay {file} {{dates}} --class {name}"
        remedy = REMEDIES.get(name, "see failure_message")
        yield Step(f"{one.recordings} {name}", remedy, command, one.days, name, one.recordings)
    if days := [day.day for day in calendar.of(State.FAILED) if not day.is_published]:
        remedy = "see the log of its run; run it again, which pays for nothing twice"
        yield Step(f"{counted(len(days), 'day')} taken by a run that ended without publishing", remedy, run, days)
    if days := [day.day for day in calendar.of(State.FAILED) if day.summary is not None and _is_stopped(day)]:
        remedy = "the run was stopped; run it again, which pays for nothing twice"
        yield Step(f"{counted(len(days), 'day')} stopped before all was done", remedy, run, days)
    if days := [day.day for day in calendar.of(State.LATE)]:
        yield Step(f"{counted(len(days), 'day')} with late recordings", "run again", run, days)
    if days := [day.day for day in calendar.of(State.UNREADABLE) if day.summary is None]:
        remedy = f"{REMEDIES['archived']} (S3 Batch Operations restore many)"
        yield Step(f"{counted(len(days), 'day')} with unreadable recordings", remedy, run, days)
    if days := [day.day for day in calendar.of(State.TO_DO)]:
        is_busy = bool(calendar.of(State.RUNNING, State.HELD))
        remedy = "have Airflow run them" + (", unless a backfill in Airflow is on its way to them" if is_busy else "")
        yield Step(f"{counted(len(days), 'day')} to do", remedy, backfill, days)
    if days := [day.day for day in calendar.of(State.HELD)]:
        what = f"{counted(len(days), 'day')} held by a run that was last heard of at {_held_at(calendar)}"
        remedy = "it may wait for its hours, its dollars or the provider; if it is not in Airflow any more, begin again"
        yield Step(what, remedy, backfill, days)
    if days := [day.day for day in calendar.of(State.PUBLISHED)]:
        remedy = "a run writes its figures, and pays for nothing that is done"
        yield Step(f"{counted(len(days), 'day')} published without figures", remedy, run, days)


def _is_stopped(day: Day) -> bool:
    return day.summary is not None and (day.summary.stopped is not None or not day.summary.failures)


def lines(calendar: Calendar, file: str) -> Iterator[Text]:
    """The calendar for a terminal of 80 columns and more: a month a line, a legend, totals, and what to do."""
    days = calendar.days
    zone = calendar.pipeline.zone
    yield Text(
        f"{calendar.pipeline.pipeline}: {days[0].day} to {days[-1].day} ({calendar.pipeline.timezone}), "
        f"as of {calendar.as_of.astimezone(zone):%Y-%m-%d %H:%M}"
    )
    yield Text()
    for year, of_year in groupby(days, key=lambda day: day.day.year):
        yield Text(
            f"{year:<8}1   5    10   15   20   25   30  {'days done':>9} {'recordings':>11} {'paid':>11}", "bold"
        )
        months = [list(of_month) for _, of_month in groupby(of_year, key=lambda day: day.day.month)]
        for is_empty, group in groupby(months, key=lambda month: all(day.state is State.EMPTY for day in month)):
            some = list(group)
            if is_empty and len(some) > 1:
                yield Text(f"{some[0][0].day:%Y-%m} to {some[-1][0].day:%Y-%m}: no recordings", "dim")
            else:
                yield from map(_month, some)
    yield Text()
    yield from _legend(days)
    yield Text()
    for line in _totals(calendar):
        yield Text(line)
    todo = list(steps(calendar, file))
    if todo:
        yield Text()
    for step in todo:
        yield Text(f"{step.what}: {step.remedy}.")
        yield Text(f"  {step.shown_command}")


def _month(days: Sequence[Day]) -> Text:
    strip: dict[int, tuple[str, str]] = {day.day.day: _mark(day) for day in days}
    line = Text(f"{days[0].day:%Y-%m} ")
    for number in range(1, 32):
        letter, style = strip.get(number, (" ", ""))
        line.append(letter, style)
    with_calls = [day for day in days if day.state is not State.EMPTY]
    done = sum(day.state in (State.DONE, State.PUBLISHED) or day.is_final for day in with_calls)
    known = [day.recordings for day in with_calls if day.recordings is not None]
    recordings = f"{sum(known):,}" if known or not with_calls else ""
    recordings += "" if len(known) == len(with_calls) else " + ?" if known else "?"
    of_days = f"{done} of {len(with_calls)}"
    line.append(f"  {of_days:>9} {recordings:>11} {_usd(sum(day.usd for day in days)):>11}")
    return line


def _mark(day: Day) -> tuple[str, str]:
    letter, style, _ = FINAL if day.is_final else LETTERS[day.state]
    return letter, style


def _legend(days: Sequence[Day]) -> Iterator[Text]:
    """A line for each letter that the calendar has: what it means, and how many days have it."""
    for state, (letter, style, meaning) in LETTERS.items():
        if count := sum(day.state is state and not day.is_final for day in days):
            yield Text.assemble((letter, style), f"  {counted(count, 'day')} {meaning}")
        if state is State.FAILED and (count := sum(day.is_final for day in days)):
            letter, style, meaning = FINAL
            yield Text.assemble((letter, style), f"  {counted(count, 'day')} {meaning}")


def _totals(calendar: Calendar) -> Iterator[str]:
    about = "about " if calendar.is_left_estimated else ""
    uncounted = len(calendar.uncounted_days)
    unknown = f", without {counted(uncounted, 'day')} that were not counted" if uncounted else ""
    yield f"Recordings: {calendar.recordings:,}{unknown}; {about}{round(calendar.left):,} to do."
    speech, llm = calendar.speech_usd, calendar.llm_usd
    paid = f"{_usd(speech + llm)} ({_usd(speech)} speech, {_usd(llm)} language models)"
    yield f"Paid: {paid}. {_to_pay(calendar)}"
    yield pace_line(calendar)
    yield source_line(calendar)


def _to_pay(calendar: Calendar) -> str:
    if calendar.to_pay_usd is None:
        return "To pay: not known, as nothing is published yet and no plan is saved."
    if not calendar.left:
        return "To pay: nothing."
    return f"To pay: about {_usd(calendar.to_pay_usd)} (${calendar.usd_per_recording:.4f} a recording)."


def pace_line(calendar: Calendar) -> str:
    """How fast it goes, and when it will end."""
    zone, pace = calendar.pipeline.zone, calendar.pace
    if not calendar.is_working:
        if calendar.last_heard_of_at is not None:
            return f"Pace: the run that holds days was last heard of at {_held_at(calendar)}: it waits, or was killed."
        if pace is None:
            return "Pace: nothing is running."
        return f"Pace: nothing is running; the last day was published at {pace.until.astimezone(zone):%Y-%m-%d %H:%M}."
    if pace is None or not pace.is_current(calendar.as_of) or pace.recordings_per_hour is None:
        return "Pace: a run works on it; how fast is known once a run has published."
    said = (
        f"Pace: {pace.recordings_per_hour:,.0f} recordings and {_usd(pace.usd_per_hour or 0.0)} an hour since "
        f"{pace.since.astimezone(zone):%Y-%m-%d %H:%M}."
    )
    if calendar.expected_end is not None:
        said += f" Expected end: {calendar.expected_end.astimezone(zone):%Y-%m-%d %H:%M}."
    return said


def _held_at(calendar: Calendar) -> str:
    at = calendar.last_heard_of_at
    return f"{at.astimezone(calendar.pipeline.zone):%Y-%m-%d %H:%M}" if at is not None else ""


def source_line(calendar: Calendar) -> str:
    """Where the numbers of recordings come from."""
    counts = calendar.counts
    said = f"Numbers of recordings: {_SOURCES[counts.source]}"
    if counts.counted_at is not None:
        said += f" of {counts.counted_at.astimezone(calendar.pipeline.zone):%Y-%m-%d %H:%M}"
    if counts.listed_days and counts.source is not Source.LISTING:
        said += f"; {counted(counts.listed_days, 'day')} were listed"
    return f"{said}. S3 requests: {calendar.requests}."


def line(calendar: Calendar) -> str:
    """The calendar in one line, for a log."""
    done = sum(day.state in (State.DONE, State.PUBLISHED) or day.is_final for day in calendar.days)
    with_calls = sum(day.state is not State.EMPTY for day in calendar.days)
    others = [
        f"{count} {state.value.replace('_', ' ')}"
        for state in LETTERS
        if state not in (State.DONE, State.EMPTY, State.PUBLISHED)
        and (count := sum(day.state is state and not day.is_final for day in calendar.days))
    ]
    paid = _usd(calendar.speech_usd + calendar.llm_usd)
    to_pay = "?" if calendar.to_pay_usd is None else _usd(calendar.to_pay_usd)
    end = calendar.expected_end
    when = f"end {end.astimezone(calendar.pipeline.zone):%Y-%m-%d %H:%M}" if end is not None else ""
    when = when or ("" if calendar.of(State.RUNNING, State.HELD) else "nothing is running")
    parts = [f"{done} of {counted(with_calls, 'day')} done", *others, f"{paid} paid", f"{to_pay} to pay", when]
    at = calendar.as_of.astimezone(calendar.pipeline.zone)
    return f"{at:%Y-%m-%d %H:%M:%S} {calendar.pipeline.pipeline}: {', '.join(filter(None, parts))}"


def document(calendar: Calendar, file: str) -> dict[str, Any]:
    """The calendar as a JSON document. Times are ISO 8601 in UTC; numbers are not rounded; what is unknown is null."""
    pace, end, counts = calendar.pace, calendar.expected_end, calendar.counts
    return {
        "pipeline": calendar.pipeline.pipeline,
        "timezone": calendar.pipeline.timezone,
        "from": str(calendar.days[0].day),
        "to": str(calendar.days[-1].day),
        "as_of": _iso(calendar.as_of),
        "s3_requests": calendar.requests,
        "recordings_source": counts.source.value,
        "recordings_counted_at": _iso(counts.counted_at or calendar.as_of),
        "days_by_state": {state.value: len(calendar.of(state)) for state in LETTERS},
        "recordings": calendar.recordings,
        "days_not_counted": len(calendar.uncounted_days),
        "recordings_left": calendar.left,
        "recordings_left_is_estimated": calendar.is_left_estimated,
        "paid_usd": calendar.speech_usd + calendar.llm_usd,
        "paid_speech_usd": calendar.speech_usd,
        "paid_llm_usd": calendar.llm_usd,
        "usd_per_recording": calendar.usd_per_recording,
        "to_pay_usd": calendar.to_pay_usd,
        "is_working": calendar.is_working,
        "recordings_per_hour": pace.recordings_per_hour if pace is not None else None,
        "usd_per_hour": pace.usd_per_hour if pace is not None else None,
        "pace_since": _iso(pace.since) if pace is not None else None,
        "pace_until": _iso(pace.until) if pace is not None else None,
        "expected_end": _iso(end) if end is not None else None,
        "is_finished": calendar.is_finished,
        "steps": [
            {
                "what": step.what,
                "failure_class": step.failure_class,
                "recordings": step.recordings,
                "days": [str(day) for day in step.days],
                "remedy": step.remedy,
                "command": step.whole_command,
            }
            for step in steps(calendar, file)
        ],
        "days": [_day(day) for day in calendar.days],
    }


def _day(day: Day) -> dict[str, Any]:
    one = day.summary
    return {
        "dt": str(day.day),
        "state": day.state.value,
        "is_final": day.is_final,
        "is_taken": day.is_taken,
        "is_published": day.is_published,
        "recordings": day.recordings,
        "recordings_left": day.left,
        "unreadable": day.count.unreadable if day.count is not None else None,
        "silent_s": day.silent_s,
        "published_at": _iso(one.published_at) if one is not None else None,
        "run_id": one.run_id if one is not None else None,
        "listed": one.listed if one is not None else None,
        "statuses": one.statuses if one is not None else None,
        "failures": one.failures if one is not None else None,
        "unfinished": one.unfinished if one is not None else None,
        "stopped": one.stopped if one is not None else None,
        "audio_s": one.audio_s if one is not None else None,
        "speech_usd": one.speech_usd if one is not None else None,
        "llm_usd": one.llm_usd if one is not None else None,
    }


def _iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat()


def _usd(amount: float) -> str:
    return f"${amount:,.2f}"
