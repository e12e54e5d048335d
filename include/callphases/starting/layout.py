"""From some of a bucket's keys to the settings that list them: prefixes, times of calls and columns.

Every way to read a date at a place of the keys is a candidate. The one is proposed that most keys have, that is not
after their upload, and that says the most.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from callphases import date_prefixes, time_formats
from callphases.starting import readings
from callphases.starting.columns import columns_of, folder_column, named
from callphases.starting.readings import Part, Reading

ENOUGH = 0.8
"""The share of keys that a proposal must fit: a few strays are common."""
MOST_PIPELINES = 20
"""More folders than this above the date are no tenants with a pipeline each, but agents, say."""
SOON = dt.timedelta(days=3)
"""How long after a call its recording is usually in the bucket."""
_COPIES = re.compile(r"^(?:[^/]*/)*(?:redacted|analysis)/", re.IGNORECASE)
"""Folders of what Amazon Connect's Contact Lens makes of recordings: Analysis/Voice/Redacted/…"""
_SWAPPED = {"%d": "%m", "%m": "%d"}
_OF_DATE = frozenset(("%Y", "%y", "%m", "%d", "%b", "%B", "%j"))


class Seen(NamedTuple):
    """A recording that was looked at."""

    key: str
    last_modified: dt.datetime


@dataclass(frozen=True)
class Layout:
    """Settings for ``recordings`` in a pipeline file, and the keys that they are for.

    Attributes:
        name: what tells it from other layouts of the bucket; empty if there are none.
        call_time: ``key_pattern``, ``format`` and perhaps ``timezone``; None stands for ``last_modified``.
        columns: ``key_pattern`` by column.
        vendor: ``recordings.layout``, which then sets all but a prefix; empty if it is no vendor's.
    """

    prefix: str
    call_time: Mapping[str, str] | None
    columns: Mapping[str, str]
    keys: Sequence[str]
    name: str = ""
    vendor: str = ""

    def settings(self, bucket: str, suffixes: Sequence[str] | None = None) -> dict[str, Any]:
        """The section ``recordings``."""
        if self.vendor:
            return {"bucket": bucket, "layout": self.vendor, **({"prefix": self.prefix} if self.prefix else {})}
        columns = {name: {"key_pattern": pattern} for name, pattern in self.columns.items()}
        return {
            "bucket": bucket,
            "prefix": self.prefix,
            "call_time": dict(self.call_time) if self.call_time else "last_modified",
            **({"suffixes": list(suffixes)} if suffixes else {}),
            **({"columns": columns} if columns else {}),
        }


@dataclass(frozen=True)
class Proposal:
    """What is proposed for a bucket.

    Attributes:
        layouts: one, or one for each folder above the dates.
        together: one layout for all of these folders, if there are several.
        notes: what the user should know.
        orders: how an ambiguous date reads with the day first and with the month first; None if none is ambiguous.
    """

    layouts: Sequence[Layout]
    together: Layout | None = None
    notes: Sequence[str] = ()
    orders: tuple[str, dt.date, dt.date] | None = None


@dataclass
class _Slot:
    """A way to read a time at a place of the keys: readings by the number of the key."""

    place: tuple[str, int, int]
    format: str
    readings: dict[int, Reading] = field(default_factory=dict)

    @property
    def sample(self) -> Reading:
        return next(iter(self.readings.values()))

    @property
    def is_month_first(self) -> bool | None:
        """Whether the month precedes the day; None if the year is first or a name makes it clear."""
        directives = [part.directive for part in self.sample.parts]
        if "%m" not in directives or "%d" not in directives or directives[0] in ("%Y", "%y"):
            return None
        return directives.index("%m") < directives.index("%d")


def propose(seen: Sequence[Seen], folders: Iterable[str] = (), *, day_first: bool | None = None) -> Proposal:
    """The settings for a bucket.

    Args:
        seen: some of its recordings.
        folders: some of the prefixes of its keys, each with a slash at its end; there may be more than of ``seen``.
        day_first: how a date such as 05/06/2026 is read; None decides by the keys and their uploads.

    Raises:
        ValueError: nothing was seen.
    """
    if not seen:
        raise ValueError("no recordings")
    own = [one for one in seen if not _COPIES.search(one.key)]
    if not own or len(own) == len(seen):
        return _Proposer(seen, list(folders), day_first).propose()
    proposal = propose(own, [one for one in folders if not _COPIES.search(one)], day_first=day_first)
    copies = next(match[0] for one in seen if (match := _COPIES.search(one.key)))
    left_out = (
        f"Recordings below {copies} are left out: they are other versions of calls that are elsewhere in the bucket, "
        "and would be paid for as well. To use them instead, name their folder with --prefix."
    )
    return replace(proposal, notes=[*proposal.notes, left_out])


class _Proposer:
    def __init__(self, seen: Sequence[Seen], folders: Sequence[str], day_first: bool | None) -> None:
        self.seen, self.folders, self.day_first = seen, folders, day_first
        self.keys = [one.key for one in seen]
        self.uploads = [one.last_modified.astimezone(dt.UTC).replace(tzinfo=None) for one in seen]
        self.latest = max(self.uploads) + dt.timedelta(days=366)
        self.notes: list[str] = []
        self._known: dict[str, list[Reading]] = {}
        self.orders: tuple[str, dt.date, dt.date] | None = None

    def propose(self) -> Proposal:
        slots = self._slots(readings.readings)
        slots = self._in_one_order(slots)
        dated = self._best_date(slots)
        if dated is None:
            dated = self._best_date(self._slots(readings.months))
        rule = self._best_time(slots, dated)
        if dated is None:
            return self._undated(rule)
        return self._grouped(dated, rule)

    # Candidates

    def _slots(self, read: Callable[[str, dt.datetime], Iterable[Reading]]) -> list[_Slot]:
        """The candidates that enough keys have. A place is counted from the left and from the right."""
        found: dict[tuple[tuple[str, int, int], str], _Slot] = {}
        for number, key in enumerate(self.keys):
            before: Counter[tuple[str, int]] = Counter()
            slashes = key.count("/")
            for reading in read(key, self.latest):
                left = key.count("/", 0, reading.start)
                ordinal = before[reading.format, left]
                before[reading.format, left] += 1
                for place in (("left", left, ordinal), ("right", slashes - left, ordinal)):
                    slot = found.setdefault((place, reading.format), _Slot(place, reading.format))
                    slot.readings.setdefault(number, reading)
        enough = ENOUGH * len(self.keys)
        return [slot for slot in found.values() if len(slot.readings) >= enough and self._is_plausible(slot)]

    def _is_plausible(self, slot: _Slot) -> bool:
        """Whether what is read may be dates of calls: not after the upload, and no number that happens to be a date."""
        count = len(slot.readings)
        in_time = self._share(slot, lambda moment, upload: moment <= upload + readings.SLACK)
        if slot.format == time_formats.EPOCH or any(part.directive == "%y" for part in slot.sample.parts):
            soon = self._share(slot, lambda moment, upload: abs(upload - moment) < dt.timedelta(days=45))
            return in_time >= ENOUGH and (count >= 3 or soon >= ENOUGH)
        return count >= 3 or in_time >= 0.5 or slot.sample.parts[0].directive == "%Y"

    def _share(self, slot: _Slot, holds: Callable[[dt.datetime, dt.datetime], bool]) -> float:
        found = [holds(reading.moment, self.uploads[number]) for number, reading in slot.readings.items()]
        return sum(found) / len(found)

    def _is_soon(self, slot: _Slot) -> float:
        """The share of keys whose upload followed on the date that is read."""
        return self._share(slot, lambda moment, upload: -readings.SLACK <= upload - moment <= SOON)

    # The order of day and month

    def _in_one_order(self, slots: list[_Slot]) -> list[_Slot]:
        """Without the candidates that have day and month the wrong way round."""
        places = {(slot.place, slot.format): slot for slot in slots}
        plain = [slot for slot in slots if slot.is_month_first is None and slot.format != time_formats.EPOCH]
        wrong: list[_Slot] = []
        for day in slots:
            twin = places.get((day.place, re.sub("%[dm]", lambda found: _SWAPPED[found[0]], day.format)))
            if day.is_month_first is not False or twin is None:
                continue
            scores = [self._order(slot, plain) for slot in (day, twin)]
            if scores[0] != scores[1]:
                wrong.append(day if scores[1] > scores[0] else twin)
                continue
            if self.day_first is None and self.orders is None:
                self._note_order(day, twin)
            wrong.append(day if self.day_first is False else twin)
        return [slot for slot in slots if slot not in wrong]

    def _order(self, slot: _Slot, plain: Sequence[_Slot]) -> tuple[float, ...]:
        """How much speaks for an order: keys that have it, folders that fit, other dates, uploads that follow."""
        agrees = max((self._agreement(slot, other) for other in plain), default=0.0)
        return len(slot.readings), self._fits_folders(slot), round(agrees, 1), round(self._is_soon(slot), 1)

    def _note_order(self, day: _Slot, month: _Slot) -> None:
        number = next(iter(day.readings))
        one, other = day.readings[number], month.readings.get(number, month.sample)
        text = self.keys[number][one.start : one.parts[-1].end]
        self.orders = (text, one.moment.date(), other.moment.date())
        self.notes.append(
            f"{text} may be {one.moment:%d %B} or {other.moment:%d %B}. It is read with the day first; if that is "
            "wrong, use --month-first."
        )

    def _fits_folders(self, slot: _Slot) -> float:
        """Whether all folders beside those of the keys have a number that can be the day, or the month, of the slot."""
        reading = slot.sample
        key = self.keys[next(iter(slot.readings))]
        for part in reading.parts:
            if part.directive not in ("%d", "%m"):
                continue
            begin = key.rfind("/", 0, part.start) + 1
            limit = 31 if part.directive == "%d" else 12
            depth = key.count("/", 0, begin)
            for folder in self.folders:
                names = folder.rstrip("/").split("/")
                if len(names) <= depth:
                    continue
                number = re.fullmatch(_shape(key[begin : key.find("/", begin)], part, begin), names[depth])
                if number is not None and not 1 <= int(number[1]) <= limit:
                    return 0.0
        return 1.0

    # Dates of prefixes

    def _best_date(self, slots: Sequence[_Slot]) -> _Dated | None:
        found = [dated for slot in slots if (dated := self._dated(slot)) is not None]
        if not found:
            return None
        best = max(found, key=lambda dated: dated.rank)
        slash = "/" if all("/" in self.keys[number][one.end :] for number, one in best.slot.readings.items()) else ""
        return replace(best, is_daily=best.is_daily and date_prefixes.is_daily(best.template + slash))

    def _dated(self, slot: _Slot) -> _Dated | None:
        """What a candidate makes of prefixes; None if it can't be a part of one."""
        if slot.format == time_formats.EPOCH:
            return None
        in_folder = all("/" in self.keys[number][_date_parts(one)[-1].end :] for number, one in slot.readings.items())
        befores = self._befores(slot)
        template = self._template(slot)
        if template is None:
            return None
        many = len(befores) > max(1, len(slot.readings) // 2)
        if many and (not in_folder or len(slot.readings) > 3):
            return None
        if not in_folder and any(before and before[-1] != "/" and len(of) < 3 for before, of in befores.items()):
            return None  # what precedes the date in a name is the same in all names, or no part of a prefix
        directives = {part.directive for part in _date_parts(slot.sample)}
        days = 2 if directives & {"%d", "%j"} else 1 if directives & {"%m", "%b", "%B"} else 0
        soon = self._share(slot, lambda moment, upload: moment <= upload + readings.SLACK)
        rank = (
            days,
            round(len(slot.readings) / len(self.keys), 1),
            soon >= ENOUGH,
            len({reading.moment.date() for reading in slot.readings.values()}) > 1,
            in_folder,
            slot.sample.parts[0].directive == "%Y",
            -len(befores),
            round(self._is_soon(slot), 1),
            slot.sample.precision,
        )
        return _Dated(slot, template, befores, days == 2, rank)

    def _befores(self, slot: _Slot) -> dict[str, list[int]]:
        """The numbers of keys by what precedes the date in them, as it is written in ``recordings.prefix``.

        What repeats the date or a part of it, such as the month in 2026-11/20261120.wav, is a placeholder as well.
        """
        spelled: dict[int, str] = {}
        for number, reading in slot.readings.items():
            before, text, at = self.keys[number][: _date_parts(reading)[0].start], "", 0
            for part in self._repeated(before, reading.moment.date()):
                digits = before[part.start : part.end]
                is_short = part.directive in ("%m", "%d") and len(digits) == 1
                is_unclear = part.directive in ("%m", "%d") and not is_short and digits[0] != "0"
                is_upper = part.directive in ("%b", "%B") and digits.isupper()
                padding = "-" if is_short else "?" if is_unclear else "^" if is_upper else ""
                text += f"{_literal(before[at : part.start])}{{date:%{padding}{part.directive[1]}}}"
                at = part.end
            spelled[number] = text + _literal(before[at:])
        # 10 to 12 look the same with and without zeros in front of others.
        padding = "-" if any("{date:%-" in text for text in spelled.values()) else ""
        befores: dict[str, list[int]] = defaultdict(list)
        for number, text in spelled.items():
            befores[text.replace("{date:%?", f"{{date:%{padding}")].append(number)
        return befores

    def _repeated(self, before: str, day: dt.date) -> list[Part]:
        """The parts of dates in what precedes a date that are those of the date."""
        if before not in self._known:
            found = [*readings.readings(before, self.latest), *readings.months(before, self.latest)]
            found = [one for one in found if one.precision == 0 and one.format != time_formats.EPOCH]
            names = ("%b", "%B")  # of months; strftime does not write them in lower case
            found = [
                one
                for one in found
                if not any(part.directive in names and before[part.start : part.end].islower() for part in one.parts)
            ]
            self._known[before] = sorted(found, key=lambda one: (-len(one.parts), one.start))
        parts: list[Part] = []
        for reading in self._known[before]:
            if _is_part_of(reading, day) and all(one.end <= reading.start or reading.end <= one.start for one in parts):
                parts += reading.parts
        return sorted(parts, key=lambda one: one.start)

    def _template(self, slot: _Slot) -> str | None:
        """The placeholders of the date of a candidate; None if its keys spell it in different ways."""
        spelled = [self._directives(slot, part) for part in range(len(_date_parts(slot.sample)))]
        if any(one is None for one in spelled):
            return None
        if self._is_unpadded(slot):
            # Of a number from 10 on nobody can tell; but dates are padded as a whole, or not at all.
            spelled = [
                f"%-{one[1]}" if one in ("%m", "%d") and not self._has_zero(slot, part) else one
                for part, one in enumerate(spelled)
                if one is not None
            ]
        key, reading = self.keys[next(iter(slot.readings))], slot.sample
        parts = _date_parts(reading)
        gaps = [key[one.end : other.start] for one, other in itertools.pairwise(parts)] + [""]
        return "".join(f"{{date:{one}}}{_literal(gap)}" for one, gap in zip(spelled, gaps, strict=True))

    def _is_unpadded(self, slot: _Slot) -> bool:
        """Whether a month, a day or an hour has one digit in any key."""
        return any(
            part.end - part.start == 1
            for reading in slot.readings.values()
            for part in reading.parts
            if part.directive in ("%m", "%d", "%H", "%I")
        ) or any(self._directives(slot, part) in ("%-m", "%-d") for part in range(len(_date_parts(slot.sample))))

    def _has_zero(self, slot: _Slot, index: int) -> bool:
        parts = ((self.keys[number], _date_parts(reading)[index]) for number, reading in slot.readings.items())
        return any(key[part.start] == "0" for key, part in parts)

    def _directives(self, slot: _Slot, index: int) -> str | None:
        """The directive of strftime that spells one part of the dates as the keys do."""
        texts = []
        for number, reading in slot.readings.items():
            part = _date_parts(reading)[index]
            texts.append(self.keys[number][part.start : part.end])
        directive = _date_parts(slot.sample)[index].directive
        if directive in ("%b", "%B"):
            if all(text == text.title() for text in texts):
                return directive
            return f"%^{directive[1]}" if all(text == text.upper() for text in texts) else None
        if directive in ("%m", "%d"):
            if all(len(text) == 2 for text in texts):
                return self._padding(slot, index, directive)
            return f"%-{directive[1]}" if all(not text.startswith("0") for text in texts) else None
        return directive

    def _padding(self, slot: _Slot, index: int, directive: str) -> str:
        """With all numbers from 10 on: whether a folder beside them has one digit."""
        number = next(iter(slot.readings))
        key, part = self.keys[number], _date_parts(slot.sample)[index]
        begin, end = key.rfind("/", 0, part.start) + 1, key.find("/", part.end)
        if end < 0 or key[begin : part.start].count("/"):
            return directive
        depth = key.count("/", 0, begin)
        head, tail = re.escape(key[begin : part.start]), re.escape(key[part.end : end])
        for folder in self.folders:
            names = folder.rstrip("/").split("/")
            if len(names) > depth and re.fullmatch(f"{head}[1-9]{tail}", names[depth]):
                return f"%-{directive[1]}"
        return directive

    # Times of calls

    def _best_time(self, slots: Sequence[_Slot], dated: _Dated | None) -> Mapping[str, str] | None:
        """The rule for times of calls; None if uploads have to do, as for a date alone where the prefix has the day."""
        is_daily = dated is not None and dated.is_daily
        timed = [slot for slot in slots if slot.sample.precision or not is_daily]
        if dated is not None:
            timed = [slot for slot in timed if self._agreement(slot, dated.slot, month=not is_daily) >= ENOUGH]
        for slot in sorted(timed, key=lambda slot: self._time_rank(slot, timed), reverse=True):
            if self._is_constant(slot):
                continue
            if (rule := self._rule(slot)) is not None:
                return rule
        return None

    def _time_rank(self, slot: _Slot, others: Sequence[_Slot]) -> tuple[float, ...]:
        sample = slot.sample
        others = [one for one in others if one is not slot and one.format != time_formats.EPOCH]
        return (
            round(len(slot.readings) / len(self.keys), 1),
            self._share(slot, lambda moment, upload: moment <= upload + readings.SLACK) >= ENOUGH,
            slot.format != time_formats.EPOCH,
            min(sample.precision, 1),
            sample.precision,
            sample.parts[-1].directive == "%z",
            all(part.directive != "%y" for part in sample.parts),
            sum(self._agreement(slot, one) >= ENOUGH for one in others),
            -slot.sample.format.count("/"),
            self._is_soon(slot),
        )

    def _is_constant(self, slot: _Slot) -> bool:
        """Whether the time of day is the same in all of several keys: then it is no time."""
        moments = {reading.moment.time() for reading in slot.readings.values()}
        return slot.sample.precision > 0 and len(moments) == 1 and len(slot.readings) > 3

    def _agreement(self, slot: _Slot, other: _Slot, *, month: bool = False) -> float:
        """The share of keys for which two candidates give the same day, or the one before or after; or month."""
        both = slot.readings.keys() & other.readings.keys()
        if not both:
            return 0.0
        most = 32 if month else 1
        near = [
            abs((slot.readings[one].moment.date() - other.readings[one].moment.date()).days) <= most for one in both
        ]
        if month and {part.directive for part in _date_parts(other.sample)} == {"%Y"}:
            near = [slot.readings[one].moment.year == other.readings[one].moment.year for one in both]
        return sum(near) / len(near)

    def _rule(self, slot: _Slot) -> Mapping[str, str] | None:
        """``recordings.call_time`` of a candidate, with a pattern that finds it where it is in every key."""
        time = self._pattern(slot)
        format = slot.format
        try:
            time_formats.check(format)
        except ValueError:
            return None
        zones = {reading.zone for reading in slot.readings.values()}
        zone = {"timezone": "UTC"} if zones == {"UTC"} and format != time_formats.EPOCH else {}
        for pattern in self._anchored(slot, f"(?P<time>{time})"):
            if self._finds(pattern, slot):
                return {"key_pattern": pattern, "format": format, **zone}
        return None

    def _pattern(self, slot: _Slot) -> str:
        """A regular expression for the text of a candidate."""
        key, reading = self.keys[next(iter(slot.readings))], slot.sample
        pattern, at = "", reading.start
        for index, part in enumerate(reading.parts):
            pattern += named(key[at : part.start])
            widths = {one.parts[index].end - one.parts[index].start for one in slot.readings.values()}
            if self._may_be_short(slot, index):
                widths = {1, 2}
            pattern += _digits(part.directive, widths)
            at = part.end
        while (joined := re.sub(r"\\d\{(\d+)\}\\d\{(\d+)\}", _added, pattern)) != pattern:
            pattern = joined
        return pattern

    def _may_be_short(self, slot: _Slot, index: int) -> bool:
        """Whether a number may have one digit in keys that were not looked at: none that was seen has a zero for it."""
        parts = slot.sample.parts
        part = parts[index]
        if part.directive not in ("%m", "%d", "%H", "%I"):
            return False
        is_alone = not any(one.end == part.start or one.start == part.end for one in parts if one is not part)
        texts = [self.keys[number][one.parts[index].start :][:1] for number, one in slot.readings.items()]
        return is_alone and "0" not in texts and self._is_unpadded(slot)

    def _anchored(self, slot: _Slot, time: str) -> Iterable[str]:
        """The pattern with more and more around it, until it fits only once in each key."""
        texts = {
            (self.keys[number][: one.start], self.keys[number][one.end :]) for number, one in slot.readings.items()
        }
        alone = rf"(?<!\d){time}(?!\d)"
        yield alone
        yield rf"{alone}[^/]*$"
        head = _common([before for before, _ in texts], at_end=True)
        tail = _common([after for _, after in texts], at_end=False)
        yield rf"(?<!\d){named(head)}{time}(?!\d){named(tail)}"
        yield rf"{named(head)}{time}(?!\d){named(tail)}[^/]*$"
        heads = {before.count("/") for before, _ in texts}
        if len(heads) == 1:
            yield rf"^(?:[^/]*/){{{heads.pop()}}}[^/]*?{alone}"
        for sign in "-_. ":
            counts = {before.rpartition("/")[2].count(sign) for before, _ in texts}
            if len(counts) == 1:
                yield rf"(?:^|/)(?:[^/{sign}]*[{sign}]){{{counts.pop()}}}{time}(?!\d)[^/]*$"
            counts = {after.count(sign) for _, after in texts}
            if len(counts) == 1:
                yield rf"(?<!\d){time}(?!\d)[^/{sign}]*(?:[{sign}][^/{sign}]*){{{counts.pop()}}}$"

    def _finds(self, pattern: str, slot: _Slot) -> bool:
        try:
            compiled = re.compile(pattern)
        except re.error:
            return False
        found = ((compiled.search(self.keys[number]), reading) for number, reading in slot.readings.items())
        return all(match is not None and match.span("time") == (one.start, one.end) for match, one in found)

    # Layouts

    def _undated(self, rule: Mapping[str, str] | None) -> Proposal:
        prefix = _common(self.keys, at_end=False)
        prefix = prefix[: prefix.rfind("/") + 1]
        if rule is None:
            self.notes.append(
                "No date was found that most keys have: the time of the upload gives the day, and every run lists all "
                "objects. If the bucket has several layouts, run init for each of them with --prefix."
            )
        else:
            self.notes.append("No folder has the date: every run lists all objects below the prefix.")
        return self._proposal([self._layout(_literal(prefix), rule, range(len(self.keys)))])

    def _grouped(self, dated: _Dated, rule: Mapping[str, str] | None) -> Proposal:
        """One layout for each folder above the dates, and one for all of them."""
        depths: Counter[int] = Counter()
        for before, numbers in dated.befores.items():
            depths[before.count("/")] += len(numbers)
        depth = depths.most_common(1)[0][0]
        groups = {before: numbers for before, numbers in dated.befores.items() if before.count("/") == depth}
        self._note_others(dated, groups)
        if not dated.is_daily and rule is None:
            self.notes.append("The folders give only the month or the year: the time of the upload gives the day.")
        names = _names(list(groups))
        layouts = []
        for before, numbers in sorted(groups.items()):
            prefix = _merged(f"{before}{dated.template}{self._rest(dated.slot, numbers)}")
            columns = names[before][1] if len(groups) > 1 else {}
            layouts.append(replace(self._layout(prefix, rule, numbers, columns), name=names[before][0]))
        if len(layouts) == 1:
            return self._proposal([replace(layouts[0], name="")])
        head = _common(list(groups), at_end=False)
        head = head[: head.rfind("/") + 1]
        numbers = sorted(number for group in groups.values() for number in group)
        day = rule or self._rule(dated.slot)
        whole = self._layout(_merged(head), day, numbers, names[next(iter(groups))][1])
        if len(layouts) > MOST_PIPELINES:
            self.notes.append(
                f"The date is below {len(layouts)} folders or more, so one pipeline for all lists everything below "
                f"{head or 'the bucket'} in every run: a thousand objects per request."
            )
            return self._proposal([whole])
        if self._are_periods(dated, groups):
            self.notes.append(
                "The folders above the dates follow on one another like weeks, so one pipeline lists everything below "
                f"{head or 'the bucket'} in every run: a thousand objects per request."
            )
            return self._proposal([self._layout(whole.prefix, day, numbers)])
        return self._proposal(layouts, whole)

    def _are_periods(self, dated: _Dated, groups: Mapping[str, list[int]]) -> bool:
        """Whether folders differ only in a number, and each has a time of its own: weeks or batches, not tenants."""
        if len({re.sub(r"\d+", "0", before) for before in groups}) > 1:
            return False
        spans = []
        for numbers in groups.values():
            days = [dated.slot.readings[number].moment.date() for number in numbers]
            spans.append((min(days), max(days)))
        spans.sort()
        return len(spans) > 2 and all(one[1] <= other[0] for one, other in itertools.pairwise(spans))

    def _note_others(self, dated: _Dated, groups: Mapping[str, list[int]]) -> None:
        others = {before: len(numbers) for before, numbers in dated.befores.items() if before not in groups}
        for before, count in sorted(others.items()):
            self.notes.append(
                f"{count} of the recordings looked at are below {before or 'the bucket itself'}, which the prefix does "
                f"not cover: for these, run init again with --prefix {before!r}."
            )
        strays = [key for number, key in enumerate(self.keys) if number not in dated.slot.readings]
        if strays:
            self.notes.append(
                f"{len(strays)} of the recordings looked at are not in folders like the others, and the prefix does "
                f"not cover them, such as {strays[0]!r}."
            )

    def _rest(self, slot: _Slot, numbers: Iterable[int]) -> str:
        """What follows on the date in all keys, up to the end of its folder."""
        rests = set()
        for number in numbers:
            key = self.keys[number]
            end = _date_parts(slot.readings[number])[-1].end
            rests.add(key[end : key.find("/", end) + 1] if "/" in key[end:] else "")
        rest = rests.pop() if len(rests) == 1 else ""
        return _literal(rest) if len(rest) < 40 and not re.search(r"\d", rest) else ""

    def _layout(
        self,
        prefix: str,
        rule: Mapping[str, str] | None,
        numbers: Iterable[int],
        more: Mapping[str, str] | None = None,
    ) -> Layout:
        keys = [self.keys[number] for number in numbers]
        return Layout(prefix, rule, {**columns_of(keys, prefix), **(more or {})}, keys)

    def _proposal(self, layouts: Sequence[Layout], together: Layout | None = None) -> Proposal:
        return Proposal(layouts, together, self.notes, self.orders)


@dataclass(frozen=True)
class _Dated:
    """What a candidate makes of prefixes: the placeholders, and the keys by what precedes the date."""

    slot: _Slot
    template: str
    befores: Mapping[str, list[int]]
    is_daily: bool
    rank: tuple[float, ...]


def _date_parts(reading: Reading) -> list[Part]:
    return [part for part in reading.parts if part.directive in _OF_DATE]


def _is_part_of(reading: Reading, day: dt.date) -> bool:
    """Whether a date, a month or a year is the day, its month or its year."""
    moment, directives = reading.moment.date(), {part.directive for part in reading.parts}
    if directives & {"%d", "%j"}:
        return moment == day
    return moment.year == day.year and (directives == {"%Y"} or moment.month == day.month)


def _merged(prefix: str) -> str:
    """The prefix with one placeholder for neighbors: {date:%Y/%m/%d} for {date:%Y}/{date:%m}/{date:%d}."""
    merged = re.sub(r"\{date:([^{}]*)\}([-_./]?)\{date:([^{}]*)\}", r"{date:\1\2\3}", prefix)
    return merged if merged == prefix else _merged(merged)


def _shape(folder: str, part: Part, begin: int) -> str:
    """A pattern for folders like one, whose group is the part."""
    start, end = part.start - begin, part.end - begin
    parts = [re.sub(r"\d+", r"\\d+", re.escape(text)) for text in (folder[:start], folder[end:])]
    return rf"{parts[0]}(\d{{1,2}}){parts[1]}"


def _digits(directive: str, widths: set[int]) -> str:
    if directive in ("%b", "%B"):
        return "[A-Za-z]{3}" if widths == {3} else "[A-Za-z]+"
    if directive == "%p":
        return "[AaPp][Mm]"
    if directive == "%z":
        return r"[+-]\d{2}:?\d{2}"
    low, high = min(widths), max(widths)
    return rf"\d{{{low}}}" if low == high else rf"\d{{{low},{high}}}"


def _added(found: re.Match[str]) -> str:
    return rf"\d{{{int(found[1]) + int(found[2])}}}"


def _literal(text: str) -> str:
    """Text as it is written in ``recordings.prefix``."""
    return text.replace("{", "{{").replace("}", "}}")


def _common(texts: Sequence[str], *, at_end: bool) -> str:
    """What all texts begin with, or end with."""
    turned = [text[::-1] if at_end else text for text in texts]
    low, high = min(turned), max(turned)
    shortest = min(len(low), len(high))
    length = next((at for at in range(shortest) if low[at] != high[at]), shortest)
    return low[:length][::-1] if at_end else low[:length]


def _names(befores: Sequence[str]) -> dict[str, tuple[str, dict[str, str]]]:
    """For what precedes dates, of one depth: a name that tells it from the others, and columns for these names."""
    split = {before: before.split("/") for before in befores}
    first = next(iter(split.values()))
    differing = [at for at in range(len(first)) if len({parts[at] for parts in split.values()}) > 1]
    columns: dict[str, str] = {}
    for at in differing:
        column, head = folder_column({parts[at] for parts in split.values()})
        if column in columns:
            column = f"{column}_{at + 1}"
        columns[column] = f"^{'[^/]*/' * at}{head}(?P<{column}>[^/]+)/"
    return {
        before: ("_".join(_plain(parts[at]) for at in differing).lower(), columns) for before, parts in split.items()
    }


def _plain(folder: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r"\{date:[^}]*\}", "", folder)).strip("_")
