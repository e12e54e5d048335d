"""How many recordings each day of an archive has, as far as a number of S3 requests tells."""

from __future__ import annotations

import datetime as dt
import string
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby

from callphases import date_prefixes
from callphases.listing.archive import Archive
from callphases.listing.listing import Listing, SomeKeys
from callphases.local_days import DAY, day_end
from callphases.pipeline import KeyTime, Pipeline
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import ObjectPrefix

DEEPEST = 4
"""Levels of folders that the earliest day is looked for in: a year, a month, a day, and one more."""
PAGE = 1000
"""Keys in a LIST response, as S3 has it."""
PAGES_BEFORE_GUESS = 3
HOPELESS = 2.0
"""A listing of daily prefixes is given up once it looks as if it took this many times the requests that are left."""


class Source(StrEnum):
    """Where the numbers of recordings come from."""

    LISTING = "listing"
    PLAN = "plan"
    INDEX = "index"
    FOLDERS = "folders"
    NOTHING = "nothing"


@dataclass
class Requests:
    """S3 requests: how many may be sent, and how many were."""

    most: int
    used: int = 0

    @property
    def left(self) -> int:
        """How many more may be sent."""
        return max(self.most - self.used, 0)


@dataclass(frozen=True)
class DayCount:
    """What the bucket has of a day.

    Attributes:
        recordings: how many; None if there are some and they were not counted.
        unreadable: those of them that have to be restored before they can be read.
    """

    recordings: int | None
    unreadable: int = 0


@dataclass(frozen=True)
class Counts:
    """What the bucket has of each day.

    Attributes:
        days: what is known. A day that is missing may have recordings.
        source: where the numbers come from; of days that are ``listed_days``, from a listing nevertheless.
        counted_at: when the bucket was listed, if not now.
        listed_days: how many days were counted by a listing that was given up later.
    """

    days: Mapping[dt.date, DayCount]
    source: Source
    counted_at: dt.datetime | None = None
    listed_days: int = 0

    def of(self, day: dt.date) -> DayCount | None:
        """What is known of a day; None if nothing is."""
        return self.days.get(day)


@dataclass(frozen=True)
class Planned:
    """What a saved plan says of an archive.

    Attributes:
        days: what the bucket had of each day that it covers, also of those without recordings.
        usd_per_recording: what one was expected to cost; None if that is not known.
        made_at: when the bucket was listed for it.
    """

    days: Mapping[dt.date, DayCount]
    usd_per_recording: float | None = None
    made_at: dt.datetime | None = None


class _TooManyError(Exception):
    """A listing takes more requests than are left."""


@dataclass
class DayCounter:
    """Counts the recordings of days.

    Args:
        bucket: ``recordings.bucket``.
        pipeline: whose recordings.
        state: ``output.state``, which has an archive's index.
        requests: what may be sent; what is sent is added.
        planned: what a saved plan says.

    Every method raises:
        ConfigurationError, ServiceUnavailable: a bucket can't be listed or read.
    """

    bucket: RecordingBucket
    pipeline: Pipeline
    state: ObjectPrefix
    requests: Requests
    planned: Planned | None = None
    _seen: Counter[dt.date] = field(default_factory=Counter, repr=False)
    _unreadable: Counter[dt.date] = field(default_factory=Counter, repr=False)

    @property
    def knows_days(self) -> bool:
        """Whether the names of folders tell which days there are, so that ``count`` must be given the days."""
        return date_prefixes.has_date(self.pipeline.recordings.prefix)

    def earliest(self, today: dt.date) -> dt.date | None:
        """The first day that there is a folder of, from 1970 to ``today``; None if there is none. A few requests."""
        template = self.pipeline.recordings.prefix
        days = [date_prefixes.FIRST + number * DAY for number in range((today - date_prefixes.FIRST).days + 1)]
        below = _literal_head(template)
        first = None
        for _ in range(DEEPEST):
            children = list(self._children(below))
            found = [
                (day, child)
                for day in days
                for child in _neighbours(children, template.format(date=day))
                if _may_hold(child, template.format(date=day))
            ]
            if not found:
                break
            first, below = min(found)
            days = [day for day, child in found if child == below]
            if len(days) == 1 or not below.endswith("/"):
                break
        return first

    def count(self, days: Sequence[dt.date], reserve: int = 0) -> Counts:
        """What is known of ``days``: by a listing if it takes few requests, else from what was found out before.

        If not ``knows_days``, that is all days. ``reserve`` requests are left for the caller.
        """
        rule = self.pipeline.recordings.call_time
        if self.pipeline.recordings.is_daily:
            return self._count_daily(days, reserve)
        known = [one for one in (self._planned(), self._indexed(days)) if one is not None]
        expected = max((_total(counts.days) for counts in known), default=0)
        most = self.requests.left - reserve
        # An index keeps the day that a call was first seen on, where a copy of the recording has a new LastModified.
        is_better_known = bool(known) and rule == "last_modified"
        if not is_better_known and expected <= most * PAGE and (isinstance(rule, KeyTime) or rule == "last_modified"):
            try:
                self._list_all(days, most)
            except _TooManyError:
                self._seen.clear()
            else:
                return Counts(self._listed([*days, *self._seen]), Source.LISTING)
        return known[0] if known else Counts({}, Source.NOTHING)

    def _count_daily(self, days: Sequence[dt.date], reserve: int) -> Counts:
        groups = _groups(self.pipeline, days)
        whole = self._list_daily(groups, len(days), self.requests.left - reserve - len(groups))
        listed = self._listed(whole)
        if len(listed) == len(days):
            return Counts(listed, Source.LISTING)
        if (planned := self._planned()) is not None:
            return Counts({**planned.days, **listed}, Source.PLAN, planned.counted_at, len(listed))
        found = self._folders(groups, set(days) - set(listed), self.requests.left - reserve)
        return Counts({**found, **listed}, Source.FOLDERS, None, len(listed))

    def _list_daily(self, groups: Mapping[str, Sequence[dt.date]], number: int, most: int) -> set[dt.date]:
        """List daily prefixes, a group after the other; returns the days that were listed to their end."""
        source = self.pipeline.recordings
        # The prefix gives the day, so nothing need be known of the time.
        timeless = self.pipeline.model_copy(
            update={"recordings": source.model_copy(update={"call_time": "last_modified"})}
        )
        whole: set[dt.date] = set()
        ended: set[dt.date] = set()
        used = 0

        def page_done() -> None:
            nonlocal used
            used += 1
            self.requests.used += 1
            projected = used * number / (len(whole) + len(ended) + 1)
            if used >= most or (used >= PAGES_BEFORE_GUESS and projected > HOPELESS * most):
                raise _TooManyError

        if self.planned is not None and _total(self.planned.days) > most * PAGE:
            return whole
        for group, days in groups.items():
            prefixes = sorted((source.prefix_of(day), day) for day in days)
            starts = [prefix for prefix, _ in prefixes]
            ended.clear()
            try:
                for one in Listing(self.bucket, timeless, group, page_done, SomeKeys()):
                    place = bisect_right(starts, one.key) - 1
                    if place > len(ended):  # in key order, so what comes before is listed to its end
                        ended.update(day for _, day in prefixes[:place])
                    if place >= 0 and one.key.startswith(starts[place]):
                        self._seen[prefixes[place][1]] += 1
                        self._unreadable[prefixes[place][1]] += bool(one.archived_in)
            except _TooManyError:
                whole.update(ended)
                break
            whole.update(days)
        return whole

    def _list_all(self, days: Sequence[dt.date], most: int) -> None:
        """List prefixes that several days share, within ``most`` requests."""
        source, zone = self.pipeline.recordings, self.pipeline.zone
        used = 0

        def page_done() -> None:
            nonlocal used
            used += 1
            self.requests.used += 1
            if used >= most:
                raise _TooManyError

        for prefix in sorted({prefix for day in days for prefix in source.prefixes(day)}):
            for one in Listing(self.bucket, self.pipeline, prefix, page_done, SomeKeys()):
                day = one.call_time.astimezone(zone).date()
                if source.is_listed(one.key, day):
                    self._seen[day] += 1
                    self._unreadable[day] += bool(one.archived_in)

    def _listed(self, days: Iterable[dt.date]) -> dict[dt.date, DayCount]:
        return {day: DayCount(self._seen[day], self._unreadable[day]) for day in days}

    def _planned(self) -> Counts | None:
        if self.planned is None:
            return None
        return Counts(self.planned.days, Source.PLAN, self.planned.made_at)

    def _indexed(self, days: Sequence[dt.date]) -> Counts | None:
        """The counts of an archive's index; None if no prefix has been listed."""
        prefixes = {prefix for day in days for prefix in self.pipeline.recordings.prefixes(day)}
        if len(prefixes) > self.requests.left:
            return None
        indexes = Archive(self.bucket, self.pipeline, self.state).indexes(days)
        self.requests.used += len(indexes)
        known = [index for index in indexes.values() if index is not None]
        if not known:
            return None
        counts: Counter[dt.date] = Counter()
        for index in known:
            for name, entry in index.days.items():
                counts[dt.date.fromisoformat(name)] += entry["recordings"]
        for day in days:  # of the others, it is known that they have none
            of_day = [indexes[prefix] for prefix in self.pipeline.recordings.prefixes(day)]
            if all(one is not None and one.listed_at >= day_end(day, self.pipeline.zone) for one in of_day):
                counts[day] += 0
        listed_at = min(index.listed_at for index in known)
        return Counts({day: DayCount(count) for day, count in counts.items()}, Source.INDEX, listed_at)

    def _folders(
        self, groups: Mapping[str, Sequence[dt.date]], wanted: Collection[dt.date], most: int
    ) -> dict[dt.date, DayCount]:
        """Which of the days have a folder, within ``most`` requests; a day without one has no recordings."""
        found: dict[dt.date, DayCount] = {}
        until = self.requests.used + most
        for group, days in groups.items():
            missing = [day for day in days if day in wanted]
            if missing and self.requests.used < until:
                children = list(self._children(group, until - self.requests.used))
                is_whole = self.requests.used < until
                for day in missing:
                    prefix = self.pipeline.recordings.prefix_of(day)
                    if any(_may_hold(child, prefix) for child in children):
                        found[day] = DayCount(None)
                    elif is_whole:
                        found[day] = DayCount(0)
        return found

    def _children(self, below: str, most: int = DEEPEST) -> Iterator[str]:
        """What is directly below a prefix, up to the next slash, in key order; at most so many requests."""
        place = ObjectPrefix(self.bucket.client, f"s3://{self.bucket.name}/", "recordings.bucket")
        for number, page in enumerate(place.children(below), 1):
            self.requests.used += 1
            yield from sorted(page)
            if number >= most:
                return


def _total(days: Mapping[dt.date, DayCount]) -> int:
    return sum(one.recordings or 0 for one in days.values())


def _literal_head(template: str) -> str:
    """The text before the first ``{date}``, up to its last slash."""
    head = next((text for text, *_ in string.Formatter().parse(template)), "")
    return head[: head.rfind("/") + 1]


def _neighbours(children: Sequence[str], prefix: str) -> Sequence[str]:
    """Those of sorted children that alone may hold a prefix: the last that does not come after it, and the next."""
    place = bisect_right(children, prefix)
    return children[max(place - 1, 0) : place + 1]


def _may_hold(child: str, prefix: str) -> bool:
    """Whether there may be keys with a prefix below what a LIST with a delimiter names."""
    return (child.endswith("/") and prefix.startswith(child)) or child.startswith(prefix)


def _groups(pipeline: Pipeline, days: Sequence[dt.date]) -> dict[str, list[dt.date]]:
    """What to list for days with a prefix of their own, with the days below each: what a month's prefixes begin with.

    No key is below two of them. In key order.
    """
    source = pipeline.recordings
    months = [list(of_month) for _, of_month in groupby(days, key=lambda day: (day.year, day.month))]
    shared = sorted({_common_beginning([source.prefix_of(day) for day in month]) for month in months})
    separate = [one for number, one in enumerate(shared) if not any(one.startswith(other) for other in shared[:number])]
    groups: dict[str, list[dt.date]] = {one: [] for one in separate}
    for day in days:
        prefix = source.prefix_of(day)
        groups[next(one for one in separate if prefix.startswith(one))].append(day)
    return groups


def _common_beginning(texts: Sequence[str]) -> str:
    """What all of some texts begin with."""
    first, last = min(texts), max(texts)
    return first[: next((place for place, one in enumerate(first) if not last.startswith(one, place)), len(first))]
