"""The threads of the pages' own."""

from __future__ import annotations

import asyncio
import threading

import pytest
from anyio import to_thread

from callphases.errors import ServiceUnavailable
from callphases.pages.threads import Threads


def test_work_that_waits_leaves_the_threads_of_others_alone() -> None:
    async def ask() -> tuple[str, list[bool]]:
        threads, answers = Threads(count=2), threading.Event()
        waits = [asyncio.create_task(threads.run(answers.wait)) for _ in range(30)]
        for _ in range(10):
            await asyncio.sleep(0)
        # Here Airflow's API server runs its own requests.
        others = await asyncio.wait_for(to_thread.run_sync(lambda: "answered"), 10)
        assert not any(one.done() for one in waits)
        answers.set()
        return others, await asyncio.gather(*waits)

    assert asyncio.run(ask()) == ("answered", [True] * 30)


def test_too_many_requests_are_told_to_come_back_and_those_let_in_go_on() -> None:
    async def ask() -> list[bool]:
        threads, answers = Threads(count=1, most_waiting=2), threading.Event()
        waits = [asyncio.create_task(threads.run(answers.wait)) for _ in range(3)]
        for _ in range(10):
            await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable, match="Try again in a minute"):
            await threads.run(lambda: None)
        waits.append(asyncio.create_task(threads.go_on(answers.wait)))
        answers.set()
        return await asyncio.gather(*waits)

    assert asyncio.run(ask()) == [True] * 4


def test_what_work_raises_is_raised() -> None:
    def fail() -> None:
        raise ServiceUnavailable("S3 does not answer.")

    with pytest.raises(ServiceUnavailable, match="S3 does not answer"):
        asyncio.run(Threads().run(fail))
