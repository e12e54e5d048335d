"""The lease of a day: one run at a time has it, until the run releases it or does not renew it for a minute."""

from __future__ import annotations

import datetime as dt
import json
import threading
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.config import Config

from callphases.errors import DayHeld, NoBalance, RunStopped, ServiceUnavailable
from callphases.state.lease import FRESH_S, LIFE_S, Lease
from callphases.transcription.assemblyai import SUBMIT_TIMEOUTS_S
from doubles import DAY, KEY, Clock, Store

pytestmark = pytest.mark.integration

NAME = f"ledger/dt={DAY}/lease.json"
STOPPED = NoBalance("The account has no money.")


def document(s3: Store) -> dict[str, Any]:
    return json.loads(s3.state.get(NAME) or b"null")


def puts(s3: Store) -> int:
    return s3.counted()["PutObject"]


def looks(s3: Store) -> int:
    return s3.counted()["GetObject"]


# Taking


def test_first_run_takes_the_day_with_fencing_token_1(s3: Store) -> None:
    assert s3.lease("first").take() == 1
    assert (document(s3)["holder"], document(s3)["term"]) == ("first", 1)


def test_second_run_is_told_how_long_until_the_lease_expires(s3: Store, clock: Clock) -> None:
    s3.lease("first").take()
    clock.now += 20
    with pytest.raises(DayHeld, match=f"run first works on the day {DAY}") as held:
        s3.lease("second").take()
    assert held.value.wait_s == LIFE_S - 20
    assert document(s3)["holder"] == "first"


def test_lease_of_one_day_does_not_hold_another_day(s3: Store) -> None:
    s3.lease("first").take()
    assert s3.lease("second", day=DAY + dt.timedelta(days=1)).take() == 1


def test_released_day_is_taken_at_once_with_the_next_token(s3: Store) -> None:
    first = s3.lease("first")
    first.take()
    first.release()
    assert s3.lease("second").take() == 2
    assert document(s3)["released"] is False


def test_run_loses_the_day_when_its_lease_expires(s3: Store, clock: Clock) -> None:
    first = s3.lease("first")
    first.take()
    clock.now += LIFE_S
    second = s3.lease("second")
    assert second.take() == 2
    with pytest.raises(DayHeld, match="run second works"):
        first.hold()


def test_fencing_token_rises_with_each_takeover(s3: Store, clock: Clock) -> None:
    fencing_tokens = []
    for run_token in ("a", "b", "a"):
        fencing_tokens.append(s3.lease(run_token).take())
        clock.now += LIFE_S
    assert fencing_tokens == [1, 2, 3]


def test_worker_with_a_fast_clock_does_not_take_a_held_day(s3: Store) -> None:
    s3.lease("first").take()
    with pytest.raises(DayHeld):
        Lease(s3.state, DAY, "second", "chunk-0000", clock=Clock(now=1e9)).take()


def test_worker_with_a_stopped_clock_takes_an_expired_day(s3: Store, clock: Clock) -> None:
    s3.lease("first").take()
    clock.now += LIFE_S
    assert Lease(s3.state, DAY, "second", "chunk-0000", clock=Clock()).take() == 2


def test_lease_age_is_measured_by_the_local_clock_without_a_date_header(s3: Store) -> None:
    age = dt.timedelta(seconds=2)

    def without_date(parsed: dict[str, Any], **_: object) -> None:
        del parsed["ResponseMetadata"]["HTTPHeaders"]["date"]
        parsed["LastModified"] = dt.datetime.now(dt.UTC) - age

    s3.client.meta.events.register_last("after-call.s3.GetObject", without_date)
    s3.lease("first").take()
    with pytest.raises(DayHeld):
        s3.lease("second").take()
    age = dt.timedelta(hours=1)
    assert s3.lease("second").take() == 2


def test_tasks_of_a_run_share_the_lease(s3: Store) -> None:
    assert [s3.lease("run", task).take() for task in ("list", "chunk-0000", "chunk-0001", None)] == [1] * 4


def test_task_does_not_renew_a_lease_that_is_fresh(s3: Store, clock: Clock) -> None:
    s3.lease("run", "chunk-0000").take()
    clock.now += FRESH_S - 1
    assert s3.lease("run", "chunk-0001").take() == 1
    assert puts(s3) == 1


def test_task_renews_a_lease_that_is_no_longer_fresh(s3: Store, clock: Clock) -> None:
    s3.lease("run", "chunk-0000").take()
    clock.now += LIFE_S - 1
    s3.lease("run", "chunk-0001").take()
    clock.now += LIFE_S - 1
    with pytest.raises(DayHeld):
        s3.lease("other").take()
    assert s3.lease("run", "chunk-0002").take() == 1, "the run still has its first token"


def test_run_that_returns_to_its_expired_lease_keeps_its_token(s3: Store, clock: Clock) -> None:
    lease = s3.lease("run")
    lease.take()
    clock.now += 10 * LIFE_S
    assert lease.take() == 1


def test_store_without_conditional_writes_is_reported(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.state.storage.ObjectPrefix.put_if_match", lambda *_: None)
    with pytest.raises(ServiceUnavailable, match=r"below output\.state.*conditional writes"):
        s3.lease().take()


# Holding


def test_hold_sends_no_request_while_the_lease_is_fresh(s3: Store, clock: Clock) -> None:
    lease = s3.lease()
    lease.take()
    clock.now += FRESH_S - 1
    lease.hold()
    assert (looks(s3), puts(s3)) == (1, 1)


def test_hold_renews_a_lease_that_is_no_longer_fresh(s3: Store, clock: Clock) -> None:
    lease = s3.lease()
    lease.take()
    for _ in range(6):
        clock.now += FRESH_S
        lease.hold()
    assert puts(s3) == 7
    with pytest.raises(DayHeld):
        s3.lease("other").take()


def test_renewal_by_another_task_counts_from_its_write(s3: Store, clock: Clock) -> None:
    first, second = s3.lease("run", "a"), s3.lease("run", "b")
    first.take()
    second.take()
    clock.now += FRESH_S
    first.hold()
    clock.now += FRESH_S - 5
    second.hold()
    assert puts(s3) == 2, "the other task's renewal is fresh"
    clock.now += 5
    second.hold()
    assert puts(s3) == 3, "the renewal of the other task is no longer fresh"


def test_hold_fails_after_another_run_held_the_day(s3: Store, clock: Clock) -> None:
    lease = s3.lease("first")
    lease.take()
    clock.now += LIFE_S
    other = s3.lease("second")
    other.take()
    other.release()
    with pytest.raises(DayHeld, match="meanwhile") as held:
        lease.hold()
    assert held.value.wait_s == 0
    assert lease.take() == 3


def test_threads_of_a_task_renew_the_lease_once(s3: Store, clock: Clock) -> None:
    lease = s3.lease()
    lease.take()
    clock.now += FRESH_S
    threads = [threading.Thread(target=lease.hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (looks(s3), puts(s3)) == (2, 2)


def test_submission_ends_before_its_lease_can_expire() -> None:
    assert FRESH_S + sum(SUBMIT_TIMEOUTS_S) < LIFE_S


# Releasing


def test_run_does_not_release_the_lease_of_another_run(s3: Store, clock: Clock) -> None:
    first, second = s3.lease("first"), s3.lease("second")
    first.take()
    clock.now += LIFE_S
    second.take()
    first.release()
    assert document(s3)["released"] is False
    assert document(s3)["holder"] == "second"


def test_lost_task_cannot_pay_after_its_run_is_retired(s3: Store, clock: Clock) -> None:
    lost, publish = s3.lease("run", "chunk-0000"), s3.lease("run", None)
    lost.take()
    publish.take()

    def asleep(_: float) -> None:
        if not lost.is_fresh:
            with pytest.raises(RunStopped, match="must not go on"):
                lost.hold()

    clock.asleep = asleep
    publish.retire()
    publish.release()
    assert not lost.is_fresh
    assert s3.lease("next").take() == 2


def test_task_of_a_retired_run_can_be_started_again(s3: Store) -> None:
    publish = s3.lease("run", None)
    publish.take()
    publish.retire()
    publish.release()
    assert s3.lease("run", "chunk-0000").take() == 1


def test_second_release_writes_nothing(s3: Store) -> None:
    lease = s3.lease()
    lease.take()
    lease.release()
    lease.release()
    assert puts(s3) == 2


def test_release_without_take_writes_nothing(s3: Store) -> None:
    s3.lease().release()
    assert s3.state.get(NAME) is None


def test_run_must_take_the_lease_again_after_release(s3: Store) -> None:
    lease = s3.lease("first")
    lease.take()
    lease.release()
    s3.lease("second").take()
    with pytest.raises(DayHeld, match="run second"):
        lease.hold()


# Stopping


@pytest.fixture
def stopped(s3: Store) -> Lease:
    """The lease of a task that has stopped its run."""
    lease = s3.lease("run", "chunk-0000")
    lease.take()
    lease.stop(STOPPED)
    return lease


def test_other_tasks_of_a_stopped_run_do_not_start(s3: Store, stopped: Lease) -> None:
    with pytest.raises(RunStopped, match=r"chunk-0000 stopped the run: The account has no money\."):
        s3.lease("run", "chunk-0001").take()


def test_other_tasks_of_a_stopped_run_end_at_their_next_renewal(s3: Store, clock: Clock) -> None:
    lease, other = s3.lease("run", "chunk-0000"), s3.lease("run", "chunk-0001")
    other.take()
    lease.take()
    lease.stop(STOPPED)
    other.hold()
    clock.now += FRESH_S
    with pytest.raises(RunStopped):
        other.hold()


def test_task_that_stopped_the_run_can_be_started_again(s3: Store, stopped: Lease) -> None:
    again = s3.lease("run", "chunk-0000")
    assert again.take() == 1
    assert again.stopped is None
    assert s3.lease("run", "chunk-0001").take() == 1, "the other tasks can start too"


def test_publishing_continues_in_a_stopped_run_and_gets_the_reason(s3: Store, stopped: Lease) -> None:
    publishing = s3.lease("run", None)
    assert publishing.take() == 1
    assert publishing.stopped == "The account has no money."
    with pytest.raises(RunStopped):
        s3.lease("run", "chunk-0001").take()


def test_stop_does_not_apply_to_a_later_run(s3: Store, stopped: Lease) -> None:
    stopped.release()
    later = s3.lease("later", "chunk-0001")
    assert later.take() == 2
    assert later.stopped is None


def test_first_reason_to_stop_is_kept(s3: Store, stopped: Lease) -> None:
    publishing = s3.lease("run", None)
    s3.lease("run", "chunk-0001").stop(NoBalance("Another reason."))
    publishing.take()
    assert publishing.stopped == "The account has no money."


def test_run_does_not_stop_another_run(s3: Store, clock: Clock) -> None:
    first, second = s3.lease("first"), s3.lease("second")
    first.take()
    clock.now += LIFE_S
    second.take()
    first.stop(STOPPED)
    assert document(s3)["stopped"] is None


# The start of the ramp


def test_first_task_that_submits_starts_the_ramp_of_all_tasks(s3: Store) -> None:
    first, second = s3.lease("run", "chunk-0000"), s3.lease("run", "chunk-0001")
    first.take()
    second.take()
    began = first.begin()
    assert second.begin() == began
    assert first.begin() == began
    third = s3.lease("run", "chunk-0002")
    third.take()
    assert third.began == began


def test_second_begin_sends_no_request(s3: Store) -> None:
    lease = s3.lease()
    lease.take()
    lease.begin()
    asked = len(s3.asked)
    lease.begin()
    assert len(s3.asked) == asked


def test_run_that_takes_over_starts_its_own_ramp(s3: Store, clock: Clock) -> None:
    first = s3.lease("first")
    first.take()
    began = first.begin()
    clock.now += LIFE_S
    second = s3.lease("second")
    second.take()
    assert second.began is None
    assert second.begin() > began


# The listing of an archive


def test_next_run_gets_the_listing_that_the_previous_run_used(s3: Store) -> None:
    first, second, third = (s3.lease(name, "list") for name in ("first", "second", "third"))
    first.take()
    assert first.index is None
    first.take_from("listing-1")
    first.release()
    second.take()
    assert second.index == "listing-1"
    second.release()
    third.take()
    assert third.index == "listing-1", "the second run has used none"
    third.take_from("listing-2")
    assert third.index == "listing-2"
    assert document(s3)["index"] == "listing-2"


def test_listing_stays_in_the_lease_while_the_run_continues(s3: Store, clock: Clock) -> None:
    lease = s3.lease("run", "list")
    lease.take()
    lease.take_from("listing-1")
    clock.now += FRESH_S
    s3.lease("run", "chunk-0000").take()
    lease.begin()
    lease.release()
    assert document(s3)["index"] == "listing-1"


def test_run_that_lost_the_day_does_not_write_its_listing(s3: Store, clock: Clock) -> None:
    first = s3.lease("first", "list")
    first.take()
    clock.now += LIFE_S
    s3.lease("second", "list").take()
    first.take_from("listing-1")
    assert document(s3)["index"] is None


def test_lease_of_an_early_version_has_no_listing(s3: Store) -> None:
    old = {"holder": "old", "term": 4, "released": True, "stopped": None, "began": None}
    s3.state.put(NAME, json.dumps(old).encode())
    lease = s3.lease("run", "list")
    assert (lease.take(), lease.index) == (5, None)


# Concurrent runs


def client_of_its_own(s3: Store, one_by_one: threading.Lock) -> Any:
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=s3.url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key=KEY,
        config=Config(signature_version="s3v4"),
    )
    # A PUT is atomic in S3; the server of the tests looks first and writes then.
    client.meta.events.register("before-send.s3.PutObject", lambda **_: one_by_one.acquire() and None)
    client.meta.events.register("response-received.s3.PutObject", lambda **_: one_by_one.release())
    return client


def test_one_of_two_runs_that_start_together_takes_the_day(s3: Store) -> None:
    one_by_one = threading.Lock()
    runs = {name: client_of_its_own(s3, one_by_one) for name in "ab"}
    for fencing_token in range(1, 9):
        start, got = threading.Barrier(len(runs)), dict[str, int | DayHeld]()

        def race(
            name: str, fencing_token: int = fencing_token, start: threading.Barrier = start, got: Any = got
        ) -> None:
            lease = Lease(replace(s3.state, client=runs[name]), DAY, f"{name}-{fencing_token}")
            start.wait(60)
            try:
                got[lease.run_token] = lease.take()
            except DayHeld as held:
                got[lease.run_token] = held

        threads = [threading.Thread(target=race, args=(name,)) for name in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [run_token for run_token, what in got.items() if not isinstance(what, DayHeld)]
        assert (got[winner], document(s3)["holder"]) == (fencing_token, winner)
        s3.lease(winner).release()
