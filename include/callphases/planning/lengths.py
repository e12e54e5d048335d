"""Measures recordings, a sample or all of them, and estimates from it what all would cost."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from callphases.limits.durations import audio_of
from callphases.planning.questions import CallTokens
from callphases.planning.sampling import Stratum, allotted, deviation
from callphases.planning.survey import CellCount, Told, ToTranscribe
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket

HEADERS = 3_000
"""Recordings that are measured at most."""
THREADS = 10
"""As many as botocore has connections."""
SHORTEST_S = 0.160
"""The service refuses shorter recordings, and bills nothing for them."""
LEAST_OF_STRATUM = 6
"""Recordings that are measured of each stratum, if it has so many."""
_TOGETHER = 500


class Values(NamedTuple):
    """What is known of a recording once it is measured; the names are the places of ``sampling``.

    ``billed_s`` is in whole seconds, as the service states lengths; ``channel_s`` counts each channel that it bills.
    """

    calls: float = 0.0
    audio_s: float = 0.0
    billed_s: float = 0.0
    channel_s: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    questions: float = 0.0
    not_audio: float = 0.0
    not_read: float = 0.0


PLACE = {name: place for place, name in enumerate(Values._fields)}


@dataclass
class Measured:
    """Strata with what was measured of them.

    Attributes:
        read: recordings that were measured.
        examples: keys of recordings that are no audio, or could not be read.
    """

    strata: list[Stratum] = field(default_factory=list)
    read: int = 0
    examples: dict[str, list[str]] = field(default_factory=lambda: {"not_audio": [], "not_read": []})


@dataclass
class _Group:
    """The cells of a stratum, with their months."""

    stratum: Stratum
    cells: list[tuple[CellCount, str]]
    drawn: set[tuple[int, int]] = field(default_factory=set)


def measure(
    bucket: RecordingBucket,
    todo: ToTranscribe,
    tokens: CallTokens,
    *,
    is_multichannel: bool,
    most: int | None = HEADERS,
    told: Told,
) -> Measured:
    """Measure recordings: at most ``most``, chosen at random within strata and in two rounds, or all.

    The first round takes some of each stratum, in proportion to its bytes. The second takes more where lengths go less
    well with bytes. The largest recordings are measured in any case.
    """
    found = Measured()
    total = len(todo)
    most = total if most is None else min(most, total)
    certain = todo.largest(most // 4) if most < total else set()
    groups = _groups(todo, most)
    found.strata = [group.stratum for group in groups]

    def values(recording: Recording) -> Values:
        return _values(bucket, recording, tokens, is_multichannel=is_multichannel)

    def look(batch: Iterable[tuple[_Group, CellCount, str, int, Recording]], *, are_certain: bool = False) -> None:
        batch = iter(batch)
        with ThreadPoolExecutor(THREADS) as pool:
            while some := list(itertools.islice(batch, _TOGETHER)):
                for (group, _, month, _, recording), one in zip(
                    some, pool.map(values, (recording for *_, recording in some)), strict=True
                ):
                    if are_certain:
                        group.stratum.see_certain(month, recording.size, one)
                    else:
                        group.stratum.see(month, recording.size, one)
                    for kind, keys in found.examples.items():
                        if getattr(one, kind) and len(keys) < 3:
                            keys.append(recording.key)
                found.read += len(some)
                told("recordings measured", found.read, most)

    _set_apart(groups, certain, todo)
    look(_recordings(todo, groups, [sorted(group.drawn) for group in groups]), are_certain=True)
    chance = random.Random(total)  # noqa: S311 - the same bucket gives the same estimate
    counts = [group.stratum.count for group in groups]
    left = max(most - len(certain), 0)
    if left >= sum(counts):
        for group in groups:
            look(_all(todo, group))
        return found
    sizes = [float(group.stratum.size) for group in groups]
    first = [min(count, LEAST_OF_STRATUM) for count in counts]
    if sum(first) > left:
        first = allotted(counts, sizes, left)
    rest = max(left // 2 - sum(first), 0)
    more = allotted([count - one for count, one in zip(counts, first, strict=True)], sizes, rest)
    shares = [one + two for one, two in zip(first, more, strict=True)]
    look(_recordings(todo, groups, _drawn(groups, shares, chance)))
    place = PLACE["billed_s"]
    weights = [count * (deviation(group.stratum, place) or 0.0) for count, group in zip(counts, groups, strict=True)]
    open_counts = [count - share for count, share in zip(counts, shares, strict=True)]
    more = allotted(open_counts, weights, max(left - sum(shares), 0))
    look(_recordings(todo, groups, _drawn(groups, more, chance)))
    return found


def _values(bucket: RecordingBucket, recording: Recording, tokens: CallTokens, *, is_multichannel: bool) -> Values:
    try:
        found = audio_of(bucket, recording)
    except OSError:
        return Values(not_read=1.0)
    if found is None or not found.seconds:
        return Values(not_audio=1.0)
    if found.seconds < SHORTEST_S:
        return Values()
    billed_s = float(math.ceil(found.seconds))
    taken = tokens.of(billed_s)
    channel_s = billed_s * (found.channels if is_multichannel else 1)
    return Values(1.0, found.seconds, billed_s, channel_s, taken.input, taken.output, taken.questions)


def _groups(todo: ToTranscribe, most: int) -> list[_Group]:
    """A stratum for each suffix, class and month; for all months together where these are too many to sample each."""
    is_fine = 2 * LEAST_OF_STRATUM * len(todo.cells) <= most or most >= len(todo)
    groups: dict[object, _Group] = {}
    for (suffix, size_class, month), cell in todo.cells.items():
        key = (suffix, size_class, month if is_fine else "")
        group = groups.setdefault(key, _Group(Stratum(), []))
        group.cells.append((cell, month))
        group.stratum.counts[month] += cell.count
        group.stratum.sizes[month] += cell.size
    return list(groups.values())


def _set_apart(groups: list[_Group], certain: set[tuple[int, int]], todo: ToTranscribe) -> None:
    """Take the largest recordings out of what is drawn from."""
    for group in groups:
        for cell, month in group.cells:
            numbers = {number for of, number in certain if of == cell.number}
            group.drawn |= {(cell.number, number) for number in numbers}
            for _, recording in todo.get(cell, numbers):
                group.stratum.counts[month] -= 1
                group.stratum.sizes[month] -= recording.size


def _drawn(groups: list[_Group], shares: list[int], chance: random.Random) -> list[list[tuple[int, int]]]:
    """So many of each group that were not drawn before, at random."""
    found: list[list[tuple[int, int]]] = []
    for group, share in zip(groups, shares, strict=True):
        ends = list(itertools.accumulate(cell.count for cell, _ in group.cells))
        new: set[tuple[int, int]] = set()
        wanted = min(share, ends[-1] - len(group.drawn))
        if 2 * (wanted + len(group.drawn)) > ends[-1]:  # few are left to draw from
            left = [
                (cell.number, number)
                for cell, _ in group.cells
                for number in range(cell.count)
                if (cell.number, number) not in group.drawn
            ]
            new = set(chance.sample(left, wanted))
        while len(new) < wanted:
            place = chance.randrange(ends[-1])
            index = next(index for index, end in enumerate(ends) if place < end)
            one = (group.cells[index][0].number, place - (ends[index - 1] if index else 0))
            if one not in group.drawn:
                new.add(one)
        group.drawn |= new
        found.append(sorted(new))
    return found


def _recordings(
    todo: ToTranscribe, groups: list[_Group], numbers: list[list[tuple[int, int]]]
) -> Iterator[tuple[_Group, CellCount, str, int, Recording]]:
    for group, wanted in zip(groups, numbers, strict=True):
        for cell, month in group.cells:
            of_cell = [number for of, number in wanted if of == cell.number]
            for number, recording in todo.get(cell, of_cell):
                yield group, cell, month, number, recording


def _all(todo: ToTranscribe, group: _Group) -> Iterator[tuple[_Group, CellCount, str, int, Recording]]:
    for cell, month in group.cells:
        for number, recording in todo.get(cell):
            if (cell.number, number) not in group.drawn:
                yield group, cell, month, number, recording
