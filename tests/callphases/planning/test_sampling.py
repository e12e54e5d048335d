"""Totals from samples: their intervals hold the truth as often as they say, whatever the recordings are like."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callphases.planning.sampling import Estimate, Stratum, allotted, student, totals


def population(chance: random.Random, spread: float) -> dict[int, list[tuple[str, int, float]]]:
    """Strata of recordings (month, bytes, seconds), each with a rate of its own that varies by ``spread``."""
    found = {}
    for number in range(4):
        rate = chance.uniform(1e-4, 1e-3)
        sizes = [chance.randrange(50_000, 200_000) for _ in range(chance.randrange(30, 300))]
        found[number] = [
            (f"2026-0{1 + chance.randrange(3)}", size, size * rate * max(chance.gauss(1, spread), 0)) for size in sizes
        ]
    return found


def sampled(recordings: list[tuple[str, int, float]], count: int, chance: random.Random) -> Stratum:
    stratum = Stratum()
    for month, size, _ in recordings:
        stratum.counts[month] += 1
        stratum.sizes[month] += size
    for month, size, seconds in chance.sample(recordings, min(count, len(recordings))):
        stratum.see(month, size, (seconds,))
    return stratum


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.3, 0.8]))
def test_intervals_cover_the_total_in_about_95_percent_of_samples(seed: int, spread: float) -> None:
    chance = random.Random(seed)
    recordings = population(chance, spread)
    truth = sum(seconds for some in recordings.values() for _, _, seconds in some)
    covered = 0
    for _ in range(200):
        strata = [sampled(some, 15, chance) for some in recordings.values()]
        found = totals(strata, 0, [])[None]
        covered += found.low <= truth <= found.high
    assert covered >= 170, "190 are expected; fewer than 170 would be a chance of one in a hundred million"


@given(st.integers(0, 10**6))
def test_strata_that_are_read_as_a_whole_are_exact_in_each_month(seed: int) -> None:
    chance = random.Random(seed)
    recordings = population(chance, 0.5)
    strata = [sampled(some, len(some), chance) for some in recordings.values()]
    found = totals(strata, 0, ["2026-01", "2026-02", "2026-03"])
    for month, estimate in found.items():
        truth = sum(one[2] for some in recordings.values() for one in some if month in (None, one[0]))
        assert estimate == pytest.approx(Estimate(truth, truth, truth))


def test_months_add_up_to_the_total() -> None:
    chance = random.Random(1)
    strata = [sampled(some, 10, chance) for some in population(chance, 0.3).values()]
    found = totals(strata, 0, ["2026-01", "2026-02", "2026-03"])
    assert sum(one.total for month, one in found.items() if month) == pytest.approx(found[None].total)


def test_largest_recordings_count_as_they_are_and_tell_nothing_of_others() -> None:
    stratum = Stratum({"2026-01": 10}, {"2026-01": 1000})
    for _ in range(5):
        stratum.see("2026-01", 100, (1.0,))
    stratum.see_certain("2026-01", 10**9, (7.0,))
    assert totals([stratum], 0, [])[None] == pytest.approx(Estimate(17.0, 17.0, 17.0))


def test_stratum_with_one_drawn_recording_is_as_uncertain_as_others() -> None:
    chance = random.Random(2)
    known = sampled(population(chance, 0.5)[0], 20, chance)
    single = Stratum({"2026-01": 50}, {"2026-01": 5000})
    single.see("2026-01", 100, (1.0,))
    alone, both = totals([known], 0, [])[None], totals([known, single], 0, [])[None]
    assert both.total == pytest.approx(alone.total + 50)
    assert both.high - both.low > alone.high - alone.low


def test_stratum_without_a_drawn_recording_is_taken_to_be_like_the_others() -> None:
    chance = random.Random(2)
    known = sampled(population(chance, 0.5)[0], 20, chance)
    none = Stratum({"2026-01": 50}, {"2026-01": 5000})
    alone, both = totals([known], 0, [])[None], totals([known, none], 0, [])[None]
    assert both.total == pytest.approx(alone.total * (known.size + 5000) / known.size, rel=0.01)
    assert both.high - both.low > alone.high - alone.low


@pytest.mark.parametrize(("freedom", "percentile"), [(4, 2.776), (10, 2.228), (30, 2.042), (float("inf"), 1.96)])
def test_percentiles_of_student(freedom: float, percentile: float) -> None:
    assert student(freedom) == pytest.approx(percentile, rel=0.02)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1e6)), min_size=1, max_size=20), st.integers(0, 600))
def test_shares_are_at_most_what_there_is(strata: list[tuple[int, float]], most: int) -> None:
    counts, weights = [one for one, _ in strata], [one for _, one in strata]
    shares = allotted(counts, weights, most)
    assert all(0 <= share <= count for share, count in zip(shares, counts, strict=True))
    assert sum(shares) == min(most, sum(counts))
