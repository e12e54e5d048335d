"""Lists the days of a run: writes the manifests of what there is to do, in chunks, and the rows of everything else."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from callphases.day_range import DayRange
from callphases.errors import ConfigurationError, OverBudget
from callphases.limits.budget import Budget, within_budget
from callphases.listing.archive import Archive, listed_day
from callphases.listing.listing import Spool, chunk_counts
from callphases.listing.times import times_of
from callphases.pipeline import Pipeline
from callphases.progress import DayPass, Progress
from callphases.recordings import Recording, counted
from callphases.replay import Replay
from callphases.state import layout
from callphases.state.bucket import RecordingBucket
from callphases.state.events import stopped
from callphases.state.keys import RecordingKeys, stop_key
from callphases.state.ledger import Ledger
from callphases.state.manifests import DayList, Manifest, save_days
from callphases.state.range_lease import RangeLease
from callphases.tables.parts import PartWriter

log = logging.getLogger(__name__)

REST_PART = 10_000
"""Calls in a part of the rows of recordings that are in no chunk."""
NAMED_AT_MOST = 5
"""Calls in a message."""


@dataclass(frozen=True)
class Listed:
    """What a run has listed: URIs of its list of the day, or of the days, and of the chunks to do.

    ``budget_usd`` is what is left of the run's budget for other days; None where there is no limit.
    """

    day: str
    chunks: list[str]
    budget_usd: float | None = None


class WorkList:
    """The work of one run.

    Args:
        pipeline: the pipeline.
        bucket: of the recordings.
        ledger: of the task that lists, open.
        replay: as for ``DayRun.begin``.
        is_archive: as for ``DayRun.begin``.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        bucket: RecordingBucket,
        ledger: Ledger,
        replay: Replay | None = None,
        *,
        is_archive: bool = False,
    ) -> None:
        self.todo = Spool(pipeline.recordings.bucket)
        self._pipeline, self._bucket, self._ledger = pipeline, bucket, ledger
        self._keys = RecordingKeys(pipeline)
        self._times = times_of(bucket, pipeline)
        self._replay, self._named = replay, set[str]()
        self._listed_at = dt.datetime.now(dt.UTC)
        self._is_archive = is_archive
        self._days: list[_Day] = []

    def add(self, day: dt.date) -> None:
        """List a day.

        Raises:
            DayHeld: another run lists the archive that the day is in.
            ConfigurationError, ServiceUnavailable: as iterating a ``Listing``.
        """
        lease = self._ledger.lease
        head = DayList(
            day=day,
            run_id=self._ledger.run_id,
            run_token=lease.run_token,
            fencing_token=lease.fencing_token,
            listed_at=self._listed_at,
            listed=0,
            chunks=0,
            rest=0,
            replay=self._replay is not None,
            is_archive=self._is_archive,
            days=lease.days if isinstance(lease, RangeLease) else None,
        )
        one = _Day(head, _Rest(self._ledger, self._pipeline, head))
        self._days.append(one)
        one.index, recordings = self._recordings(day)
        before = len(self.todo)
        for recording in recordings:
            one.listed += 1
            lease.hold()
            if self._is_to_do(recording, head):
                self.todo.add(recording)
            else:
                one.rest.add(recording)
        one.todo = len(self.todo) - before
        one.rest.write()
        log.info(
            "%s: %s listed; %d to do, %d left as earlier runs have left %s.",
            day,
            counted(one.listed),
            one.todo,
            one.listed - one.todo,
            "it" if one.listed - one.todo == 1 else "them",
        )

    def write(self, cap_usd: float | None) -> Listed:
        """Write the manifests of what ``cap_usd`` pays for of what there is to do; the others fail.

        Raises:
            ConfigurationError: one of the calls to replay is not on these days; the store does not take them.
            ServiceUnavailable: the store does not take them.
        """
        self._check_calls()
        chunks, left_usd = self._chunks(cap_usd) if self.todo else ([], cap_usd)
        lease, state = self._ledger.lease, self._ledger.state
        lists = [one.as_list() for one in self._days]
        if isinstance(lease, RangeLease):
            return Listed(save_days(state, lease.days, lease.run_token, lists), chunks, left_usd)
        ((one, day),) = zip(self._days, lists, strict=True)
        if one.index is not None:
            lease.take_from(one.index)
        return Listed(replace(day, index=None).save(state), chunks, left_usd)

    def _recordings(self, day: dt.date) -> tuple[str | None, Iterable[Recording]]:
        """The recordings of a day, and the listing of an archive that they are taken from, if any."""
        source, lease = self._pipeline.recordings, self._ledger.lease
        if source.is_daily:
            return None, listed_day(self._bucket, self._pipeline, self._ledger.state, day, lease.hold, self._times)
        archive = Archive(self._bucket, self._pipeline, self._ledger.state, lease.hold, self._times)
        before = lease.indexes.get(day) if isinstance(lease, RangeLease) else lease.index
        return archive.take(day, before, lease.run_token)

    def _is_to_do(self, recording: Recording, day: DayList) -> bool:
        """Whether there is something to do for a recording; in a replay, whether it is one of those to replay."""
        replay, named = self._replay, frozenset[str]()
        if replay is not None and replay.calls is not None:
            if not (named := replay.named(recording)):
                return False
            self._named |= named
        progress = Progress(recording, self._keys, self._ledger)
        is_to_do = not progress.is_settled(DayPass(day.listed_at, day.replay))
        is_to_do &= replay is None or progress.has_failed(replay.classes)
        if named and not is_to_do:
            outcome = progress.outcome("")
            log.warning(
                "calls: %s of %s is not tried again. It is %s, and a replay is for calls that a run has tried and that "
                "have failed%s.",
                recording.uri,
                day.day,
                outcome.failure.failure_class if outcome.failure is not None else outcome.status,
                f" with {' or '.join(sorted(replay.classes))}" if replay is not None and replay.classes else "",
            )
        return is_to_do

    def _check_calls(self) -> None:
        """Raise if the run is to replay calls that are not on its days."""
        calls = self._replay.calls if self._replay is not None else None
        if unknown := sorted((calls or frozenset()) - self._named):
            days = dict.fromkeys(str(one.head.day) for one in (self._days[0], self._days[-1]))
            more = f" and {len(unknown) - NAMED_AT_MOST} more" if len(unknown) > NAMED_AT_MOST else ""
            raise ConfigurationError(
                f"calls: {' to '.join(days)} has no recording {', '.join(unknown[:NAMED_AT_MOST])}{more}. Expected the "
                "call_id of a call of the day, or its recording's name or URI; recordings that were deleted can't be "
                "tried again. Nothing was sent."
            )

    def _chunks(self, cap_usd: float | None) -> tuple[list[str], float | None]:
        """Write the manifests; returns their URIs, and what is left of ``cap_usd``."""
        hold = self._ledger.lease.hold
        measure = self._is_archive and self._pipeline.limits.backfill.usd_per_day is not None
        budget = within_budget(self.todo, cap_usd, self._pipeline, self._bucket, self._ledger, hold, measure=measure)
        sizes = self.todo.sizes if cap_usd is None else self.todo.sizes[: len(budget.estimates_usd)]
        waiting, days = iter(self.todo), iter(self._in_order())
        first, uris = 0, []
        for number, count in enumerate(chunk_counts(sizes, is_archive=self._is_archive)):
            of_days = list(itertools.islice(days, count))
            for day in dict.fromkeys(of_days):
                day.take_chunk(number)
            manifest = self._manifest(
                number, list(itertools.islice(waiting, count)), of_days, first, len(sizes), budget
            )
            uris.append(manifest.save(self._ledger.state))
            hold()
            first += count
        self._fail_over_budget(waiting, days, cap_usd)
        return uris, budget.left_usd

    def _in_order(self) -> Iterator[_Day]:
        """The day of each recording that is to do."""
        return itertools.chain.from_iterable(itertools.repeat(day, day.todo) for day in self._days)

    def _manifest(
        self,
        number: int,
        recordings: list[Recording],
        days: Sequence[_Day],
        first: int,
        total: int,
        budget: Budget,
    ) -> Manifest:
        """A chunk; ``days`` has the day of each of its recordings."""
        head = days[0].head
        counts = [(day.head.day, len(list(same))) for day, same in itertools.groupby(days)]
        return Manifest(
            name=layout.part_name(layout.CHUNK, number),
            day=head.span,
            run_id=head.run_id,
            run_token=head.run_token,
            fencing_token=head.fencing_token,
            listed_at=head.listed_at,
            recordings=recordings,
            counts=counts if isinstance(head.span, DayRange) else [],
            known=self._ledger.of(recordings),
            first=first,
            total=total,
            replay=head.replay,
            is_archive=head.is_archive,
            budget_usd=budget.share_usd(first, len(recordings)),
            lengths=budget.lengths(first, len(recordings)),
        )

    def _fail_over_budget(self, left: Iterator[Recording], days: Iterator[_Day], cap_usd: float | None) -> None:
        """Record that the budget does not pay for the recordings that are left."""
        while over := list(itertools.islice(zip(left, days, strict=True), REST_PART)):
            why = OverBudget(f"The run's budget of ${cap_usd:.2f} was used up by other recordings; nothing was sent.")
            self._ledger.lease.hold()
            self._ledger.write(
                stopped(stop_key(Progress(one, self._keys, self._ledger).key), why, one.key) for one, _ in over
            )
            for one, day in over:
                day.rest.add(one)
        for day in self._days:
            day.rest.write()


class _Day:
    """A day of the run, while it is listed.

    Attributes:
        head: its list, before the counts are known.
        rest: takes the rows of what is in no chunk.
        index: the listing of an archive that it was taken from.
        listed, todo: recordings.
    """

    def __init__(self, head: DayList, rest: _Rest) -> None:
        self.head, self.rest = head, rest
        self.index: str | None = None
        self.listed = self.todo = 0
        self._chunks: list[int] = []

    def take_chunk(self, number: int) -> None:
        """Note that a chunk has recordings of the day; chunks come in order."""
        self._chunks.append(number)

    def as_list(self) -> DayList:
        """The list, with counts."""
        return replace(
            self.head,
            listed=self.listed,
            chunks=len(self._chunks),
            first_chunk=min(self._chunks, default=0),
            rest=self.rest.parts,
            index=self.index,
        )


class _Rest:
    """The rows of recordings that a run lists and gives to no chunk, written in parts; ``parts`` counts these."""

    def __init__(self, ledger: Ledger, pipeline: Pipeline, day: DayList) -> None:
        self.parts = 0
        self._ledger = ledger
        self._writer = PartWriter(ledger.state, pipeline, day, day.day)

    def add(self, recording: Recording) -> None:
        """Add a recording's rows, as the ledger has them."""
        self._writer.add(recording, self._ledger)
        if len(self._writer) >= REST_PART:
            self.write()

    def write(self) -> None:
        """Write what was added since the last part."""
        if len(self._writer):
            self._ledger.lease.hold()
            self._writer.write(layout.part_name(layout.REST, self.parts))
            self.parts += 1
