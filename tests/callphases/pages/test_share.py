"""The pages' share of the API server's time, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from callphases.errors import ServiceUnavailable
from callphases.pages import share as module
from callphases.pages.share import AROUND_S, MOST_CHARGED_S, MOST_WAITING, Share

PAGE_S = 0.02


class Time:
    """Wall clock and processor time: pages take ``PAGE_S`` of both, and sleep takes none of the processor's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = 0.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module.time, "thread_time", lambda: self.used)
        monkeypatch.setattr(module.asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def page(self, took_s: float = PAGE_S) -> Callable[[], float]:
        def make() -> float:
            self.now += took_s
            self.used += took_s
            return self.now

        return make


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def run(work: Any) -> Any:
    return asyncio.run(work)


def test_readers_who_ask_without_pause_get_the_share_and_the_burst(time: Time) -> None:
    async def read() -> None:
        share = Share(share=0.05, burst_s=0.5)

        async def reader() -> None:
            for _ in range(20):
                await share.make(time.page())

        await asyncio.gather(*(reader() for _ in range(20)))

    run(read())
    charged = 400 * (PAGE_S + AROUND_S)
    # The last page need not be waited for.
    assert charged - 0.5 - PAGE_S - AROUND_S <= 0.05 * time.now <= charged


def test_reader_alone_does_not_wait(time: Time) -> None:
    async def read() -> float:
        share, waited_s = Share(), 0.0
        for _ in range(30):
            asked_at = time.now
            await share.make(time.page())
            waited_s += time.now - asked_at - PAGE_S
            time.now += 1.0
        return waited_s

    assert run(read()) == pytest.approx(0.0)


def test_page_after_one_that_imports_what_it_needs_does_not_wait(time: Time) -> None:
    async def read() -> float:
        share = Share()
        await share.make(time.page(2.0))
        at = time.now
        await share.make(time.page())
        return time.now - at

    assert MOST_CHARGED_S < module.BURST_S
    assert run(read()) == pytest.approx(PAGE_S)


def test_page_that_waits_for_s3_does_not_keep_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_TURN_S", 0.01)

    async def read() -> str:
        share, answers = Share(share=1.0), threading.Event()
        waits = asyncio.create_task(share.make(answers.wait))
        await asyncio.sleep(0)
        other = await share.make(lambda: "made")
        assert not waits.done()
        answers.set()
        assert await waits
        return other

    assert run(read()) == "made"


def test_one_page_is_made_at_a_time_in_another_thread() -> None:
    at_once, most, threads = 0, 0, set[int]()

    def page() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        threads.add(threading.get_ident())
        threading.Event().wait(0.002)
        at_once -= 1

    async def read() -> None:
        share = Share(share=1.0)
        await asyncio.gather(*(share.make(page) for _ in range(10)))

    run(read())
    assert most == 1
    assert threading.get_ident() not in threads


def test_page_that_fails_is_charged_and_stops_no_other(time: Time) -> None:
    def fail() -> None:
        time.page(0.1)()
        raise ServiceUnavailable("S3 does not answer.")

    async def read() -> float:
        share = Share(share=0.1, burst_s=0.05)
        with pytest.raises(ServiceUnavailable, match="S3 does not answer"):
            await share.make(fail)
        at = time.now
        await share.make(time.page())
        return time.now - at

    assert run(read()) == pytest.approx((0.1 + AROUND_S - 0.05 - 0.1 * 0.1) / 0.1 + PAGE_S)


def test_page_of_a_reader_who_has_given_up_is_not_made(time: Time) -> None:
    made = []

    async def gone() -> bool:
        return True

    async def read() -> None:
        with pytest.raises(ServiceUnavailable, match="given up"):
            await Share().make(lambda: made.append(1), gone)

    run(read())
    assert made == []


def test_too_many_readers_are_told_to_come_back() -> None:
    async def read() -> tuple[int, int]:
        share, go = Share(share=1.0), threading.Event()
        first = [asyncio.create_task(share.make(go.wait)) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable, match="Try again in a minute"):
            await share.make(lambda: None)
        go.set()
        done = len(await asyncio.gather(*first))
        await share.make(lambda: None)
        return done, share._waiting

    assert run(read()) == (MOST_WAITING, 0)
