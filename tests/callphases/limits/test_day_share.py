"""What backfills may spend on a calendar day: reservations that survive the processes that made them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.limits.day_share import DayShare
from doubles import Clock, Store, manifest

pytestmark = pytest.mark.integration

TODAY, TOMORROW = dt.date(2026, 11, 20), dt.date(2026, 11, 21)


def share(s3: Store, task: str = "chunk-0000", run: str = "archive-1", limit_usd: float = 10.0) -> DayShare:
    return DayShare(s3.state, limit_usd, manifest(name=task, run_token=run), Clock())


def test_tasks_of_all_runs_reserve_no_more_than_the_limit(s3: Store) -> None:
    assert share(s3).reserve(TODAY, 0, [3, 3, 3]) == 3
    assert share(s3, run="archive-2").reserve(TODAY, 0, [0.6, 0.6]) == 1
    assert share(s3, "chunk-0001").reserve(TODAY, 0, [0.6]) == 0
    assert share(s3, "chunk-0001").reserve(TOMORROW, 0, [0.6]) == 1, "the next day has a limit of its own"


def test_task_that_is_started_again_does_not_reserve_twice(s3: Store) -> None:
    assert share(s3).reserve(TODAY, 0, [3, 3]) == 2
    assert share(s3).reserve(TODAY, 3, [3, 3]) == 2, "it has paid three, and wants six more"
    assert share(s3, "chunk-0001").reserve(TODAY, 0, [1, 1]) == 1


def test_what_was_reserved_and_not_paid_is_given_back(s3: Store) -> None:
    first = share(s3)
    first.reserve(TODAY, 0, [8])
    first.settle(TODAY, 5)
    assert share(s3, "chunk-0001").reserve(TODAY, 0, [5]) == 1


def test_payment_dearer_than_a_day_is_allowed_if_nothing_else_is_paid(s3: Store) -> None:
    assert share(s3).reserve(TODAY, 0, [25, 1]) == 1
    assert share(s3, "chunk-0001").reserve(TODAY, 0, [0.1]) == 0
    assert share(s3, "chunk-0001").reserve(TOMORROW, 0, [0.1]) == 1
    assert share(s3, "chunk-0002").reserve(TOMORROW, 0, [25]) == 0


def test_clock_that_is_behind_does_not_begin_an_earlier_day(s3: Store) -> None:
    share(s3).reserve(TOMORROW, 0, [8])
    assert share(s3, "chunk-0001").reserve(TODAY, 0, [8]) == 0
    assert share(s3, "chunk-0002").reserve(TOMORROW, 0, [8]) == 0


def test_task_with_enough_reserved_asks_the_store_for_nothing(s3: Store) -> None:
    one = share(s3)
    one.reserve(TODAY, 0, [1] * 9)
    asked = len(s3.asked)
    for paid in range(9):
        assert one.reserve(TODAY, paid, [1] * (9 - paid)) == 9 - paid
    one.settle(TODAY, 9)
    assert len(s3.asked) == asked


@given(st.data())
def test_reservations_never_exceed_the_limit_but_for_a_first_payment(data: st.DataObject) -> None:
    """Tasks pay what they are allowed, are killed, and go on."""
    from callphases.limits import day_share

    class Memory:
        def __init__(self, *_: object) -> None:
            self.document = document

        def change(self, update: object, *, read_first: bool = False) -> object:
            return update(self.document)  # type: ignore[operator]

    document: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(day_share, "SharedDocument", Memory)
        names = ["a", "b", "c"]
        paid = dict.fromkeys(names, 0.0)
        payments: list[float] = []
        for _ in range(data.draw(st.integers(1, 20))):
            name = data.draw(st.sampled_from(names))
            wanted = data.draw(st.lists(st.floats(0.1, 4), min_size=1, max_size=5))
            one = DayShare(None, 10.0, manifest(name=name), Clock())  # type: ignore[arg-type]
            allowed = wanted[: one.reserve(TODAY, paid[name], wanted)]
            made = allowed[: data.draw(st.integers(0, len(allowed)))]
            paid[name] += sum(made)
            payments += made
            if data.draw(st.booleans()):
                one.settle(TODAY, paid[name])
            assert sum(paid.values()) <= 10.001
