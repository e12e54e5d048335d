"""Tests of sliding windows and turns."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbox.limits import Turns, Window

WINDOW_S = 60.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.integers(0, 200), max_size=60).map(sorted))
def test_window_counts_the_requests_of_its_span(times: list[int]) -> None:
    clock = Clock()
    window = Window(WINDOW_S, clock)
    most = 0
    for number, clock.now in enumerate(times, start=1):
        window.add()
        inside = [time for time in times[:number] if clock.now - WINDOW_S < time]
        most = max(most, len(inside))
        assert len(window) == len(inside)
        assert window.most == most


def test_window_reports_when_the_next_request_leaves_it() -> None:
    clock = Clock()
    window = Window(WINDOW_S, clock)
    assert window.frees_in_s() == 0
    window.add()
    clock.now = 0.5
    window.add()
    assert window.frees_in_s() == 60
    clock.now = 59.9
    assert (len(window), window.frees_in_s()) == (2, 1)
    clock.now = 60.0
    assert (len(window), window.frees_in_s()) == (1, 1)
    clock.now = 61.0
    assert (len(window), window.frees_in_s(), window.most) == (0, 0, 2)


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (3, 3), (None, 9)])
def test_turns_are_granted_in_order(at_once: int | None, most: int) -> None:
    began: list[int] = []

    async def ask(turns: Turns, number: int) -> None:
        async with turns:
            began.append(number)
            await asyncio.sleep(0)

    async def ask_all() -> Turns:
        turns = Turns(at_once)
        await asyncio.gather(*(ask(turns, number) for number in range(9)))
        return turns

    assert asyncio.run(ask_all()).most == most
    assert began == list(range(9))


def test_turn_is_released_after_an_error() -> None:
    async def fail_and_go_on() -> int:
        turns = Turns(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="wrong"):
                async with turns:
                    raise ValueError("wrong")
        return turns.most

    assert asyncio.run(fail_and_go_on()) == 1
