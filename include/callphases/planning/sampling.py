"""Estimates totals of many recordings from some of them, with confidence intervals.

Recordings are in strata: kinds of file whose seconds go with their bytes in about the same way. Within a stratum a
total is predicted by the ratio of the sampled values to the sampled bytes (the ratio estimator of survey sampling;
W. G. Cochran, Sampling Techniques, chapter 6). What is sampled counts as it is, so a stratum that is read as a whole is
exact. The largest recordings should be given to ``see_certain``: they count as they are and tell nothing of the others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Z = 1.959964
"""The 97.5th percentile of the normal distribution, for intervals of 95 %."""
LEAST_FREEDOM = 3.0


class Estimate(NamedTuple):
    """A total, and the interval that has it with a confidence of 95 %."""

    total: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """All three in another unit."""
        return Estimate(self.total * factor, self.low * factor, self.high * factor)

    def plus(self, known: float) -> Estimate:
        """With what is known exactly."""
        return Estimate(self.total + known, self.low + known, self.high + known)


EXACTLY_NONE = Estimate(0.0, 0.0, 0.0)


@dataclass
class _Sums:
    count: int = 0
    x: float = 0.0
    xx: float = 0.0
    y: list[float] = field(default_factory=list)
    xy: list[float] = field(default_factory=list)
    yy: list[float] = field(default_factory=list)

    def add(self, x: float, values: Sequence[float]) -> None:
        if not self.y:
            self.y, self.xy, self.yy = ([0.0] * len(values) for _ in range(3))
        self.count += 1
        self.x += x
        self.xx += x * x
        for place, value in enumerate(values):
            self.y[place] += value
            self.xy[place] += x * value
            self.yy[place] += value * value

    def value(self, place: int) -> float:
        return self.y[place] if self.y else 0.0

    def residual_variance(self, place: int) -> float | None:
        """Of the values around their ratio to x; None with fewer than two."""
        if self.count < 2:
            return None
        ratio = self.y[place] / self.x if self.x else 0.0
        squares = self.yy[place] - 2 * ratio * self.xy[place] + ratio * ratio * self.xx
        return max(squares, 0.0) / (self.count - 1)


@dataclass
class Stratum:
    """How many recordings a stratum has in each month, and their bytes; ``certain`` ones are not among them."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sizes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seen: dict[str, _Sums] = field(default_factory=lambda: defaultdict(_Sums))
    certain: dict[str, _Sums] = field(default_factory=lambda: defaultdict(_Sums))

    @property
    def count(self) -> int:
        """Recordings in all months."""
        return sum(self.counts.values())

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(self.sizes.values())

    def see(self, month: str, size: int, values: Sequence[float]) -> None:
        """Add a recording that was drawn at random."""
        self.seen[month].add(size, values)

    def see_certain(self, month: str, size: int, values: Sequence[float]) -> None:
        """Add a recording that was looked at for its size."""
        self.certain[month].add(size, values)

    @property
    def sampled(self) -> _Sums:
        """All that were drawn at random."""
        total = _Sums()
        for one in self.seen.values():
            total.count += one.count
            total.x += one.x
            total.xx += one.xx
            for name in ("y", "xy", "yy"):
                mine, its = getattr(total, name), getattr(one, name)
                setattr(total, name, [a + b for a, b in zip(mine, its, strict=True)] if mine else list(its))
        return total


def deviation(stratum: Stratum, place: int) -> float | None:
    """The standard deviation of a value around its ratio to the bytes; None where too few were drawn."""
    variance = stratum.sampled.residual_variance(place)
    return None if variance is None else math.sqrt(variance)


def totals(strata: Iterable[Stratum], place: int, months: Iterable[str]) -> dict[str | None, Estimate]:
    """The total of the value at ``place`` in each month, and in all of them by None."""
    strata = list(strata)
    spreads = [one.sampled.residual_variance(place) for one in strata]
    # A stratum with one drawn recording is taken to vary as much, relative to its values, as all others together.
    known = [(spread, one.sampled) for spread, one in zip(spreads, strata, strict=True) if spread is not None]
    mean = sum(sums.value(place) for _, sums in known) / max(sum(sums.count for _, sums in known), 1)
    all_bytes = sum(one.sampled.x for one in strata)
    others = _Others(
        ratio=sum(one.sampled.value(place) for one in strata) / all_bytes if all_bytes else 0.0,
        variance=(sum(spread for spread, _ in known) / len(known) / mean**2) if known and mean else 0.0,
    )
    found: dict[str | None, Estimate] = {}
    for month in [*months, None]:
        total = variance = weighted = 0.0
        for stratum, spread in zip(strata, spreads, strict=True):
            part, uncertainty = _predicted(stratum, place, month, spread, others)
            total += part
            variance += uncertainty
            weighted += uncertainty**2 / max(stratum.sampled.count - 1, 1)
        freedom = variance**2 / weighted if weighted else math.inf  # Satterthwaite's
        margin = student(freedom) * math.sqrt(variance)
        found[month] = Estimate(total, max(total - margin, 0.0), total + margin)
    return found


class _Others(NamedTuple):
    """All strata together: their ratio, and the variance of a value relative to its square."""

    ratio: float
    variance: float


def _predicted(
    stratum: Stratum, place: int, month: str | None, spread: float | None, others: _Others
) -> tuple[float, float]:
    """A stratum's total in a month, and the variance of it."""

    def of(by_month: Mapping[str, _Sums]) -> list[_Sums]:
        return list(by_month.values()) if month is None else [by_month[month]] if month in by_month else []

    drawn, all_drawn = of(stratum.seen), stratum.sampled
    total = sum(one.value(place) for one in [*drawn, *of(stratum.certain)])
    count = stratum.count if month is None else stratum.counts.get(month, 0)
    size = stratum.size if month is None else stratum.sizes.get(month, 0)
    left = count - sum(one.count for one in drawn)
    left_bytes = max(size - sum(one.x for one in drawn), 0.0)
    if left <= 0:
        return total, 0.0
    if not all_drawn.count:
        return total + others.ratio * left_bytes, others.variance * (others.ratio * left_bytes) ** 2
    ratio = all_drawn.value(place) / all_drawn.x if all_drawn.x else 0.0
    mean = all_drawn.value(place) / all_drawn.count
    variance = others.variance * mean**2 if spread is None else spread
    of_ratio = variance * all_drawn.count / all_drawn.x**2 if all_drawn.x else 0.0
    return total + ratio * left_bytes, variance * left + of_ratio * left_bytes**2


def student(freedom: float) -> float:
    """The 97.5th percentile of Student's t, by the expansion of Cornish and Fisher."""
    if freedom == math.inf:
        return Z
    v = max(freedom, LEAST_FREEDOM)
    return Z + (Z**3 + Z) / (4 * v) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * v**2)


def allotted(counts: Sequence[int], weights: Sequence[float], most: int) -> list[int]:
    """How many to draw of each stratum: in proportion to ``weights``, never more than it has, ``most`` in all."""
    shares = [0] * len(counts)
    left = min(most, sum(counts))
    open_ones = {place for place, count in enumerate(counts) if count}
    while left > 0 and open_ones:
        total = sum(weights[place] for place in open_ones)
        given = 0
        for place in sorted(open_ones, key=lambda place: -weights[place]):
            fair = left * weights[place] / total if total else left / len(open_ones)
            more = min(max(int(fair), 1), counts[place] - shares[place], left - given)
            shares[place] += more
            given += more
        left -= given
        open_ones = {place for place in open_ones if shares[place] < counts[place]}
        if not given:
            break
    return shares
