"""What is kept for the next reader, and what is thrown away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from callphases.pages.kept import Kept


def test_least_recently_used_is_thrown_away() -> None:
    kept = Kept[str](10)
    kept.keep("a", "A", 4)
    kept.keep("b", "B", 4)
    assert kept.get("a") == "A"
    kept.keep("c", "C", 4)
    assert [kept.get(key) for key in "abc"] == ["A", None, "C"]


def test_value_that_is_too_large_is_not_kept_and_throws_nothing_away() -> None:
    kept = Kept[str](10)
    kept.keep("a", "A", 10)
    kept.keep("b", "B", 11)
    assert (kept.get("a"), kept.get("b")) == ("A", None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=40))
def test_sizes_never_exceed_the_bound_and_the_last_value_counts(steps: list[tuple[int, int]]) -> None:
    kept = Kept[tuple[int, int]](20)
    for number, (key, size) in enumerate(steps):
        kept.keep(key, (number, size), size)
        assert kept.get(key) == (number, size)
        found = [value for other in range(6) if (value := kept.get(other)) is not None]
        assert sum(size for _, size in found) <= 20
