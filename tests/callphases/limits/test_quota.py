"""Limits that all runs of a pipeline share, nights first."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import ServiceUnavailable
from callphases.limits.quota import ENTRY_LIFE_S, TYPICAL_JOB_S, RateLimits, Slots, left_to_backfills
from callphases.state import shared_document
from callphases.state.storage import StoredObject
from doubles import Clock, Store


class WallClock(Clock):
    def time(self) -> float:
        return self.now


@dataclass
class MemoryPrefix:
    """``ObjectPrefix``, on a dict; its clock is ``clock``, by whole seconds, and ``ahead`` of the tasks'."""

    clock: Clock
    ahead: float = 0.0
    uri: str = "s3://warehouse/state/"
    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    writes: int = 0
    looks: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, name: str) -> StoredObject | None:
        self.looks += 1
        there = self.objects.get(name)
        return StoredObject(*there, 0.0, float(int(self.clock.now + self.ahead))) if there else None

    def put_if_match(self, name: str, body: bytes, etag: str | None) -> str | None:
        with self.lock:
            there = self.objects.get(name)
            if (there[1] if there else None) != etag:
                return None
            self.writes += 1
            self.objects[name] = (body, f"e{self.writes}")
            return f"e{self.writes}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr(shared_document, "time", clock)
    monkeypatch.setattr("callphases.clock.time", clock)
    return clock


@pytest.fixture
def state(clock: WallClock) -> MemoryPrefix:
    return MemoryPrefix(clock)


def slots(state: MemoryPrefix, task: int, limit: int = 10, first: int = 0, total: int = 99, **of_run: Any) -> Slots:
    run = of_run.pop("run", "run-1")
    return Slots(state, "jobs.json", limit, run, f"chunk-{task:04}", first, total, **of_run)  # type: ignore[arg-type]


def test_slots_of_one_task_are_unavailable_to_others(state: MemoryPrefix) -> None:
    one, two = slots(state, 1), slots(state, 2)
    assert one.acquire(0, 8, 0) == 8
    assert two.acquire(0, 8, 0) == 2
    assert one.acquire(8, 3, 8) == 0
    assert one.acquire(3, 0, 8) == 0, "five have ended, and it needs no more"
    assert two.acquire(2, 6, 2) == 5


def test_restarted_task_keeps_its_slots(state: MemoryPrefix) -> None:
    slots(state, 1).acquire(0, 8, 0)
    again = slots(state, 1)
    assert again.acquire(5, 2, 5) == 2
    assert slots(state, 2).acquire(0, 8, 0) == 3


def test_task_without_demand_writes_nothing(state: MemoryPrefix) -> None:
    slots(state, 1).acquire(0, 1, 0)
    before = state.writes
    assert slots(state, 2).acquire(0, 0, 40) == 0
    assert state.writes == before


def test_slots_of_a_dead_task_expire(state: MemoryPrefix, clock: WallClock) -> None:
    slots(state, 1).acquire(0, 10, 0)
    assert slots(state, 2).acquire(0, 10, 0) == 0
    clock.now += ENTRY_LIFE_S + 1
    assert slots(state, 2).acquire(0, 10, 0) == 10


def test_waiting_task_estimates_its_wait(state: MemoryPrefix) -> None:
    one, late = slots(state, 1), slots(state, 3, first=30)
    one.acquire(0, 10, 0)
    assert late.acquire(0, 10, 0) == 0
    assert late.expected_wait_s() == pytest.approx((30 + 5) / 10 * TYPICAL_JOB_S)
    assert not late.is_job_s_known
    one.acquire(0, 10, 10, job_s=8.0)
    one.acquire(0, 0, 20, job_s=8.0)
    late.acquire(0, 40, 0)
    assert slots(state, 4, first=40).acquire(0, 1, 0) == 0
    assert late.is_job_s_known
    assert late.expected_wait_s() == pytest.approx((30 - 20 + 5) / 10 * 8.0)


@given(st.data())
def test_tasks_together_never_exceed_the_limit(data: st.DataObject) -> None:
    state = MemoryPrefix(WallClock())
    limit = data.draw(st.integers(1, 20))
    tasks = [slots(state, number, limit) for number in range(3)]
    under_way = [0, 0, 0]
    for _ in range(data.draw(st.integers(1, 40))):
        which = data.draw(st.integers(0, 2))
        if data.draw(st.booleans()):
            under_way[which] -= data.draw(st.integers(0, under_way[which]))
        if data.draw(st.integers(0, 9)) == 0:
            tasks[which] = slots(state, which, limit)  # killed, and started again
        wanted = data.draw(st.integers(0, 15))
        granted = tasks[which].acquire(under_way[which], wanted, 0)
        assert 0 <= granted <= wanted
        under_way[which] += granted
        assert sum(under_way) <= limit


def archive(state: MemoryPrefix, task: int, limit: int = 10, own: int | None = None) -> Slots:
    return slots(state, task, limit, run="archive", backfill_limit=limit if own is None else own)


def test_tasks_of_all_runs_share_the_limit(state: MemoryPrefix) -> None:
    assert slots(state, 1).acquire(0, 8, 0) == 8
    assert slots(state, 1, run="run-2").acquire(0, 8, 0) == 2, "the same chunk's name, in another run"


def test_backfills_leave_nights_some_jobs_to_begin_with() -> None:
    assert [left_to_backfills(limit, nights=True) for limit in (1, 2, 9, 200)] == [1, 1, 8, 180]
    assert left_to_backfills(200, nights=False) == 200


def test_backfill_has_no_more_jobs_than_its_own_limit(state: MemoryPrefix) -> None:
    one, two = archive(state, 1, own=4), archive(state, 2, own=4)
    assert (one.acquire(0, 3, 0), two.acquire(0, 3, 0)) == (3, 1)
    assert slots(state, 1).acquire(0, 9, 0) == 6


@pytest.mark.parametrize("own", [1, 3, 9, 10])
def test_small_limit_of_backfills_is_used_whole(state: MemoryPrefix, own: int) -> None:
    one, two = archive(state, 1, limit=200, own=own), archive(state, 2, limit=200, own=own)
    assert one.acquire(0, 40, 0) == own
    assert two.acquire(0, 40, 0) == 0
    assert one.acquire(own - 1, 40, 1) == 1, "as soon as one of them has ended"


def test_slots_of_a_backfill_go_to_the_night_that_wants_them(state: MemoryPrefix) -> None:
    old, night = archive(state, 1), slots(state, 1)
    assert old.acquire(0, 30, 0) == 10
    assert night.acquire(0, 6, 0) == 0
    assert old.acquire(7, 20, 13) == 0, "three of its jobs have ended, which the night wants"
    assert night.acquire(0, 6, 0) == 3
    assert old.acquire(2, 20, 18) == 2, "of ten, the night has three and wants three"
    assert night.acquire(3, 3, 3) == 3
    assert old.acquire(4, 20, 20) == 0
    assert night.acquire(0, 0, 6) == 0
    assert old.acquire(4, 20, 20) == 6


def test_new_backfill_waits_for_what_a_night_wants(state: MemoryPrefix) -> None:
    archive(state, 1).acquire(0, 9, 0)
    slots(state, 1).acquire(0, 8, 0)
    assert archive(state, 2).acquire(0, 1, 0) == 0


def test_what_a_dead_night_wanted_is_forgotten(state: MemoryPrefix, clock: WallClock) -> None:
    old = archive(state, 1)
    old.acquire(0, 10, 0)
    slots(state, 1).acquire(0, 10, 0)
    assert old.acquire(5, 5, 5) == 0
    clock.now += ENTRY_LIFE_S + 1
    assert old.acquire(5, 5, 5) == 5


def test_night_that_wants_nothing_any_more_says_so(state: MemoryPrefix) -> None:
    old, night = archive(state, 1), slots(state, 1)
    old.acquire(0, 10, 0)
    night.acquire(0, 4, 0)
    night.acquire(0, 0, 0)
    assert old.acquire(5, 5, 5) == 5


def test_night_alone_writes_no_more_than_its_slots(state: MemoryPrefix) -> None:
    night, late = slots(state, 1), slots(state, 2)
    night.acquire(0, 10, 0)
    before = state.writes
    for _ in range(5):
        assert late.acquire(0, 10, 0) == 0
    assert state.writes == before


def test_small_chunk_takes_three_requests(state: MemoryPrefix) -> None:
    slots(state, 9).acquire(0, 1, 0)
    looks, writes = state.looks, state.writes
    chunk = slots(state, 1, limit=200, total=60)
    assert chunk.acquire(0, 60, 0) == 60
    for ended in (20, 40, 55):
        chunk.acquire(60 - ended, 0, 60)
    chunk.acquire(0, 0, 60)
    assert (state.looks - looks, state.writes - writes) == (1, 2 + 3)


def test_object_forgets_runs_that_have_sent_everything(state: MemoryPrefix) -> None:
    for run in ("a", "b", "c"):
        for task in range(2):
            slots(state, task, run=run, total=6).acquire(0, 3, 0)
            slots(state, task, run=run, total=6).acquire(0, 0, 3)
    [(body, _)] = state.objects.values()
    assert json.loads(body)["runs"] == {}


@given(st.data())
def test_nights_and_backfills_together_never_exceed_the_limit(data: st.DataObject) -> None:
    state = MemoryPrefix(WallClock())
    limit = data.draw(st.integers(1, 20))
    own = data.draw(st.integers(1, limit))
    makers = [lambda: slots(state, 0, limit), lambda: slots(state, 1, limit)]
    makers += [lambda: archive(state, 0, limit, own), lambda: archive(state, 1, limit, own)]
    tasks, under_way = [make() for make in makers], [0] * 4
    for _ in range(data.draw(st.integers(1, 40))):
        which = data.draw(st.integers(0, 3))
        if data.draw(st.booleans()):
            under_way[which] -= data.draw(st.integers(0, under_way[which]))
        if data.draw(st.integers(0, 9)) == 0:
            tasks[which] = makers[which]()
        under_way[which] += tasks[which].acquire(under_way[which], data.draw(st.integers(0, 15)), 0)
        assert sum(under_way) <= limit
        assert sum(under_way[2:]) <= own


def test_store_that_rejects_every_write_is_reported(state: MemoryPrefix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "put_if_match", lambda *_: None)
    with pytest.raises(ServiceUnavailable, match="must do conditional writes"):
        slots(state, 1).acquire(0, 1, 0)


def fullest_minute(moments: list[float]) -> int:
    return max(sum(start <= moment < start + 60 for moment in moments) for start in moments)


@given(st.data())
def test_no_minute_has_more_turns_than_the_limit(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = WallClock()
        patch.setattr(shared_document, "time", clock)
        patch.setattr("callphases.clock.time", clock)
        state = MemoryPrefix(clock, ahead=data.draw(st.floats(-100, 100)))
        limit = data.draw(st.sampled_from([1, 7, 30, 150]))
        tasks = [RateLimits(state, limit) for _ in range(3)]  # type: ignore[arg-type]
        sent: list[float] = []
        for _ in range(data.draw(st.integers(limit, 3 * limit))):
            clock.now += data.draw(st.sampled_from([0.0, 0.0, 0.0, 0.1, 3.0, 40.0]))
            data.draw(st.sampled_from(tasks)).await_turn("model")
            sent.append(clock.now)
        assert fullest_minute(sent) <= limit


def test_requests_within_the_limit_do_not_wait(state: MemoryPrefix, clock: WallClock) -> None:
    rates = RateLimits(state, 30)  # type: ignore[arg-type]
    for _ in range(30):
        rates.await_turn("model")
    assert sum(clock.slept) == 0
    rates.await_turn("model")
    assert clock.now - 1000 >= 60


def test_high_limit_needs_few_writes(state: MemoryPrefix) -> None:
    rates = RateLimits(state, 6000)  # type: ignore[arg-type]
    for _ in range(1000):
        rates.await_turn("model")
    assert state.writes <= 21


def test_models_have_separate_limits_and_the_free_one_is_found(state: MemoryPrefix, clock: WallClock) -> None:
    rates = RateLimits(state, 2)  # type: ignore[arg-type]
    for _ in range(2):
        rates.await_turn("one")
    assert rates.soonest(["one", "two"]) == "two"
    for _ in range(2):
        rates.await_turn("two")
    assert sum(clock.slept) == 0
    assert rates.soonest(["one", "two"]) == "one"


def turns(state: MemoryPrefix, limit: int, *, backfill: bool) -> RateLimits:
    own = left_to_backfills(limit, nights=True)
    return RateLimits(state, limit, backfill_limit=own if backfill else None)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [1, 2, 30, 300])
def test_backfill_asks_almost_as_much_as_it_may(state: MemoryPrefix, clock: WallClock, limit: int) -> None:
    old, begun = turns(state, limit, backfill=True), clock.now
    for _ in range(3 * limit):
        old.await_turn("model")
    assert clock.now - begun <= (3 * limit / left_to_backfills(limit, nights=True) + 0.2) * 66


@pytest.mark.parametrize(("limit", "questions", "at_most_s"), [(30, 3, 0.1), (30, 8, 12), (300, 60, 12), (2, 1, 0.1)])
def test_night_in_the_middle_of_a_backfill_soon_gets_its_turns(
    state: MemoryPrefix, clock: WallClock, limit: int, questions: int, at_most_s: float
) -> None:
    old, night = turns(state, limit, backfill=True), turns(state, limit, backfill=False)
    for _ in range(3 * limit):
        old.await_turn("model")
    begun = clock.now
    for _ in range(questions):
        night.await_turn("model")
    assert clock.now - begun <= at_most_s


def test_backfill_asks_nothing_while_a_night_waits(state: MemoryPrefix, clock: WallClock) -> None:
    old, night = turns(state, 30, backfill=True), turns(state, 30, backfill=False)
    for _ in range(60):
        old.await_turn("model")
    begun = clock.now
    for _ in range(40):
        night.await_turn("model")
    waited_s = clock.now - begun
    old.await_turn("model")
    assert waited_s < 2 * 63
    assert clock.now - begun > waited_s, "its turn comes after the night's"


def test_night_alone_tells_backfills_nothing(state: MemoryPrefix) -> None:
    night = turns(state, 5, backfill=False)
    for _ in range(11):
        night.await_turn("model")
    assert state.writes <= 11 + 1
    [(body, _)] = state.objects.values()
    assert "night_until" not in json.loads(body)


@given(st.data())
def test_no_minute_of_nights_and_backfills_has_more_turns_than_the_limit(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = WallClock()
        patch.setattr(shared_document, "time", clock)
        patch.setattr("callphases.clock.time", clock)
        state = MemoryPrefix(clock)
        limit = data.draw(st.sampled_from([1, 2, 7, 30]))
        tasks = [turns(state, limit, backfill=backfill) for backfill in (True, True, False)]
        sent: list[float] = []
        for _ in range(data.draw(st.integers(limit, 3 * limit))):
            clock.now += data.draw(st.sampled_from([0.0, 0.0, 0.0, 0.1, 3.0, 40.0]))
            data.draw(st.sampled_from(tasks)).await_turn("model")
            sent.append(clock.now)
        assert fullest_minute(sent) <= limit


def test_threads_of_several_tasks_record_every_turn() -> None:
    now = WallClock()
    state = MemoryPrefix(now)
    now.now = time.time()
    tasks = [RateLimits(state, 40) for _ in range(4)]  # type: ignore[arg-type]
    sent: list[int] = []

    def work(rates: RateLimits) -> None:
        for number in range(2):
            rates.await_turn("model")
            sent.append(number)

    threads = [threading.Thread(target=work, args=(rates,)) for rates in tasks for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(sent) == 40
    taken = json.loads(next(iter(state.objects.values()))[0])["taken"]
    assert sum(count for _, count in taken) == 40, "each turn was written down"


class Task:
    """A task that submits a chunk's recordings as its slots allow; jobs take ``job_s``."""

    def __init__(self, slots: Slots, clock: WallClock, calls: int, job_s: float) -> None:
        self._slots, self._clock, self._job_s = slots, clock, job_s
        self.unsent, self._calls = calls, calls
        self.under_way: list[float] = []

    def step(self) -> None:
        """Look at the jobs, and submit what may be."""
        self.under_way = [at for at in self.under_way if self._clock.now - at < self._job_s]
        sent = self._slots.acquire(len(self.under_way), self.unsent, self._calls - self.unsent, self._job_s)
        self.under_way += [self._clock.now] * sent
        self.unsent -= sent

    @property
    def is_done(self) -> bool:
        return not self.unsent and not self.under_way


def night_s(state: MemoryPrefix, clock: WallClock, backfill: list[Task], calls: int, job_s: float) -> float:
    """How long a night of three chunks takes while the tasks of a backfill go on."""
    begun = clock.now
    night = [
        Task(slots(state, task, 200, calls // 3 * task, calls, run=f"night-{begun}"), clock, calls // 3, job_s)
        for task in range(3)
    ]
    while not all(task.is_done for task in night):
        for task in [*backfill, *night]:
            task.step()
        clock.now += 0.5
    return clock.now - begun


@pytest.mark.parametrize("calls", [60, 600, 3000])
def test_night_in_the_middle_of_a_backfill_takes_little_longer_than_alone(
    state: MemoryPrefix, clock: WallClock, calls: int
) -> None:
    job_s = 20.0
    alone_s = night_s(state, clock, [], calls, job_s)
    backfill = [
        Task(archive(state, task, 200, left_to_backfills(200, nights=True)), clock, 5000, job_s) for task in range(16)
    ]
    for _ in range(240):  # two minutes, in which its jobs come to end at any time
        for task in backfill:
            task.step()
        clock.now += 0.5
    assert sum(len(task.under_way) for task in backfill) >= 160
    together_s = night_s(state, clock, backfill, calls, job_s)
    assert together_s <= alone_s + job_s + 1, "until the jobs that were under way have ended"
    assert sum(task.unsent for task in backfill) > 0


@pytest.mark.integration
def test_processes_of_nights_and_backfills_keep_the_limit_on_a_real_store(s3: Store) -> None:
    s3.client.meta.events.unregister("after-call.s3.GetObject", s3._age)  # the store tells its own time
    under_way, most, guard = Counter[str](), Counter[str](), threading.Lock()
    night_is_over = threading.Event()

    def work(run: str, number: int, calls: int, backfill_limit: int | None) -> None:
        task = Slots(s3.state, "limits/jobs.json", 20, run, f"chunk-{number}", backfill_limit=backfill_limit)
        mine, unsent = 0, calls
        while (mine or unsent) and not (backfill_limit and night_is_over.is_set()):
            with guard:
                ended = min(mine, 3)
                under_way[run] -= ended
            mine -= ended
            sent = task.acquire(mine, unsent, calls - unsent)
            with guard:
                under_way[run] += sent
                most[run] = max(most[run], under_way[run])
                most["both"] = max(most["both"], sum(under_way.values()))
            mine, unsent = mine + sent, unsent - sent

    backfill = [threading.Thread(target=work, args=("archive", number, 10_000, 18)) for number in range(4)]
    night = [threading.Thread(target=work, args=("night", number, 30, None)) for number in range(3)]
    for thread in [*backfill, *night]:
        thread.start()
    for thread in night:
        thread.join(60)
    night_is_over.set()
    for thread in backfill:
        thread.join(60)
    assert not any(thread.is_alive() for thread in night), "it got all the slots that it needed"
    assert most["archive"] <= 18
    assert most["both"] <= 20
