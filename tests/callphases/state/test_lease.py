"""One run at a time pays for a day: from its beginning to its end, or until it has been silent for a minute."""

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


def test_the_first_run_has_the_day_for_its_first_term(s3: Store) -> None:
    assert s3.lease("first").take() == 1
    assert (document(s3)["holder"], document(s3)["term"]) == ("first", 1)


def test_another_run_waits_for_as_long_as_the_first_may_go_on_unheard(s3: Store, clock: Clock) -> None:
    s3.lease("first").take()
    clock.now += 20
    with pytest.raises(DayHeld, match=f"run first works on the day {DAY}") as held:
        s3.lease("second").take()
    assert held.value.wait_s == LIFE_S - 20
    assert document(s3)["holder"] == "first"


def test_a_day_of_its_own_is_nobody_elses(s3: Store) -> None:
    s3.lease("first").take()
    assert s3.lease("second", day=DAY + dt.timedelta(days=1)).take() == 1


def test_a_released_day_is_taken_at_once_and_its_term_is_the_next(s3: Store) -> None:
    first = s3.lease("first")
    first.take()
    first.release()
    assert s3.lease("second").take() == 2
    assert document(s3)["released"] is False


def test_a_run_that_is_silent_for_a_minute_has_lost_the_day(s3: Store, clock: Clock) -> None:
    first = s3.lease("first")
    first.take()
    clock.now += LIFE_S
    second = s3.lease("second")
    assert second.take() == 2
    with pytest.raises(DayHeld, match="run second works"):
        first.hold()


def test_terms_rise_with_each_take_over(s3: Store, clock: Clock) -> None:
    fencing_tokens = []
    for run_token in ("a", "b", "a"):
        fencing_tokens.append(s3.lease(run_token).take())
        clock.now += LIFE_S
    assert fencing_tokens == [1, 2, 3]


def test_a_worker_whose_own_clock_runs_away_takes_no_day(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.lease("first").take()
    monkeypatch.setattr("callphases.state.lease.time", Clock(now=1e9))
    with pytest.raises(DayHeld):
        s3.lease("second").take()


def test_a_worker_whose_own_clock_stands_still_takes_a_day_that_is_free(
    s3: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.lease("first").take()
    clock.now += LIFE_S
    monkeypatch.setattr("callphases.state.lease.time", Clock())
    assert s3.lease("second").take() == 2


def test_a_store_that_does_not_tell_the_time_is_asked_by_our_clock(s3: Store) -> None:
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


def test_the_tasks_of_a_run_share_the_day(s3: Store) -> None:
    assert [s3.lease("run", task).take() for task in ("list", "chunk-0000", "chunk-0001", None)] == [1] * 4


def test_a_task_that_comes_soon_after_another_writes_nothing(s3: Store, clock: Clock) -> None:
    s3.lease("run", "chunk-0000").take()
    clock.now += FRESH_S - 1
    assert s3.lease("run", "chunk-0001").take() == 1
    assert puts(s3) == 1


def test_a_task_that_comes_later_renews(s3: Store, clock: Clock) -> None:
    s3.lease("run", "chunk-0000").take()
    clock.now += LIFE_S - 1
    s3.lease("run", "chunk-0001").take()
    clock.now += LIFE_S - 1
    with pytest.raises(DayHeld):
        s3.lease("other").take()
    assert s3.lease("run", "chunk-0002").take() == 1, "it is still its first term"


def test_a_run_that_comes_back_before_anyone_else_keeps_its_term(s3: Store, clock: Clock) -> None:
    lease = s3.lease("run")
    lease.take()
    clock.now += 10 * LIFE_S
    assert lease.take() == 1


def test_a_store_without_conditional_writes_is_said_to_be_one(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.state.storage.ObjectPrefix.put_if_match", lambda *_: None)
    with pytest.raises(ServiceUnavailable, match=r"below output\.state.*conditional writes"):
        s3.lease().take()


# Holding


def test_what_was_confirmed_just_now_is_not_asked_again(s3: Store, clock: Clock) -> None:
    lease = s3.lease()
    lease.take()
    clock.now += FRESH_S - 1
    lease.hold()
    assert (looks(s3), puts(s3)) == (1, 1)


def test_what_was_confirmed_too_long_ago_is_renewed(s3: Store, clock: Clock) -> None:
    lease = s3.lease()
    lease.take()
    for _ in range(6):
        clock.now += FRESH_S
        lease.hold()
    assert puts(s3) == 7
    with pytest.raises(DayHeld):
        s3.lease("other").take()


def test_a_confirmation_by_another_task_counts_from_when_it_was_written(s3: Store, clock: Clock) -> None:
    first, second = s3.lease("run", "a"), s3.lease("run", "b")
    first.take()
    second.take()
    clock.now += FRESH_S
    first.hold()
    clock.now += FRESH_S - 5
    second.hold()
    assert puts(s3) == 2, "the other's is young enough"
    clock.now += 5
    second.hold()
    assert puts(s3) == 3, "and from then on it counts no longer than it would have"


def test_a_day_that_another_run_had_in_between_must_be_read_again(s3: Store, clock: Clock) -> None:
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


def test_threads_of_a_task_confirm_once(s3: Store, clock: Clock) -> None:
    lease = s3.lease()
    lease.take()
    clock.now += FRESH_S
    threads = [threading.Thread(target=lease.hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (looks(s3), puts(s3)) == (2, 2)


def test_what_was_sent_while_it_was_confirmed_is_answered_or_given_up_before_anyone_else_may_pay() -> None:
    assert FRESH_S + sum(SUBMIT_TIMEOUTS_S) < LIFE_S


# Letting go


def test_a_run_that_has_let_go_lets_nobody_else_go(s3: Store, clock: Clock) -> None:
    first, second = s3.lease("first"), s3.lease("second")
    first.take()
    clock.now += LIFE_S
    second.take()
    first.release()
    assert document(s3)["released"] is False
    assert document(s3)["holder"] == "second"


def test_a_lost_task_of_a_retired_run_can_not_pay_when_the_day_is_free(s3: Store, clock: Clock) -> None:
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


def test_a_task_of_a_retired_run_may_be_started_again(s3: Store) -> None:
    publish = s3.lease("run", None)
    publish.take()
    publish.retire()
    publish.release()
    assert s3.lease("run", "chunk-0000").take() == 1


def test_to_release_twice_writes_once(s3: Store) -> None:
    lease = s3.lease()
    lease.take()
    lease.release()
    lease.release()
    assert puts(s3) == 2


def test_to_release_what_was_never_taken_is_nothing(s3: Store) -> None:
    s3.lease().release()
    assert s3.state.get(NAME) is None


def test_a_run_that_has_let_go_asks_before_it_goes_on(s3: Store) -> None:
    lease = s3.lease("first")
    lease.take()
    lease.release()
    s3.lease("second").take()
    with pytest.raises(DayHeld, match="run second"):
        lease.hold()


# Stopping


@pytest.fixture
def stopped(s3: Store) -> Lease:
    """The lease of a task that has met what concerns the account."""
    lease = s3.lease("run", "chunk-0000")
    lease.take()
    lease.stop(STOPPED)
    return lease


def test_the_other_tasks_of_a_stopped_run_do_not_begin(s3: Store, stopped: Lease) -> None:
    with pytest.raises(RunStopped, match=r"chunk-0000 stopped the run: The account has no money\."):
        s3.lease("run", "chunk-0001").take()


def test_the_other_tasks_of_a_stopped_run_end_at_their_next_confirmation(s3: Store, clock: Clock) -> None:
    lease, other = s3.lease("run", "chunk-0000"), s3.lease("run", "chunk-0001")
    other.take()
    lease.take()
    lease.stop(STOPPED)
    other.hold()
    clock.now += FRESH_S
    with pytest.raises(RunStopped):
        other.hold()


def test_the_task_that_stopped_the_run_may_be_started_again(s3: Store, stopped: Lease) -> None:
    again = s3.lease("run", "chunk-0000")
    assert again.take() == 1
    assert again.stopped is None
    assert s3.lease("run", "chunk-0001").take() == 1, "and the others with it"


def test_the_task_that_publishes_goes_on_and_is_told_why_the_run_was_stopped(s3: Store, stopped: Lease) -> None:
    publishing = s3.lease("run", None)
    assert publishing.take() == 1
    assert publishing.stopped == "The account has no money."
    with pytest.raises(RunStopped):
        s3.lease("run", "chunk-0001").take()


def test_a_later_run_is_not_stopped(s3: Store, stopped: Lease) -> None:
    stopped.release()
    later = s3.lease("later", "chunk-0001")
    assert later.take() == 2
    assert later.stopped is None


def test_the_first_reason_to_stop_stays(s3: Store, stopped: Lease) -> None:
    publishing = s3.lease("run", None)
    s3.lease("run", "chunk-0001").stop(NoBalance("Another reason."))
    publishing.take()
    assert publishing.stopped == "The account has no money."


def test_a_stop_is_nobody_elses(s3: Store, clock: Clock) -> None:
    first, second = s3.lease("first"), s3.lease("second")
    first.take()
    clock.now += LIFE_S
    second.take()
    first.stop(STOPPED)
    assert document(s3)["stopped"] is None


# The beginning of the ramp


def test_the_first_task_that_submits_begins_the_ramp_of_all(s3: Store) -> None:
    first, second = s3.lease("run", "chunk-0000"), s3.lease("run", "chunk-0001")
    first.take()
    second.take()
    began = first.begin()
    assert second.begin() == began
    assert first.begin() == began
    third = s3.lease("run", "chunk-0002")
    third.take()
    assert third.began == began


def test_who_has_begun_asks_the_store_no_more(s3: Store) -> None:
    lease = s3.lease()
    lease.take()
    lease.begin()
    asked = len(s3.asked)
    lease.begin()
    assert len(s3.asked) == asked


def test_a_run_that_takes_over_begins_a_ramp_of_its_own(s3: Store, clock: Clock) -> None:
    first = s3.lease("first")
    first.take()
    began = first.begin()
    clock.now += LIFE_S
    second = s3.lease("second")
    second.take()
    assert second.began is None
    assert second.begin() > began


# The listing of an archive


def test_a_run_is_told_which_listing_the_former_one_has_taken_its_recordings_from(s3: Store) -> None:
    first, second, third = (s3.lease(name, "list") for name in ("first", "second", "third"))
    first.take()
    assert first.index is None
    first.take_from("listing-1")
    first.release()
    second.take()
    assert second.index == "listing-1"
    second.release()
    third.take()
    assert third.index == "listing-1", "the second has taken none"
    third.take_from("listing-2")
    assert third.index == "listing-2"
    assert document(s3)["index"] == "listing-2"


def test_the_listing_stays_noted_while_the_run_goes_on(s3: Store, clock: Clock) -> None:
    lease = s3.lease("run", "list")
    lease.take()
    lease.take_from("listing-1")
    clock.now += FRESH_S
    s3.lease("run", "chunk-0000").take()
    lease.begin()
    lease.release()
    assert document(s3)["index"] == "listing-1"


def test_a_run_that_has_lost_the_day_notes_no_listing(s3: Store, clock: Clock) -> None:
    first = s3.lease("first", "list")
    first.take()
    clock.now += LIFE_S
    s3.lease("second", "list").take()
    first.take_from("listing-1")
    assert document(s3)["index"] is None


def test_a_lease_of_an_earlier_version_notes_no_listing(s3: Store) -> None:
    old = {"holder": "old", "term": 4, "released": True, "stopped": None, "began": None}
    s3.state.put(NAME, json.dumps(old).encode())
    lease = s3.lease("run", "list")
    assert (lease.take(), lease.index) == (5, None)


# At the same moment


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


def test_of_runs_that_begin_at_the_same_moment_one_has_the_day(s3: Store) -> None:
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
