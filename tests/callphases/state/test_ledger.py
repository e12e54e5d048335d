"""The ledger: which event of a key holds, writes by several processes, and what a task reads when it opens it."""

from __future__ import annotations

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import BadAudio, DayHeld, ServiceUnavailable
from callphases.progress import DayPass
from callphases.state import ledger
from callphases.state.events import (
    Answered,
    Event,
    Failed,
    Intended,
    Stopped,
    Submitted,
    Transcribed,
    Withdrawn,
    failed,
)
from callphases.state.keys import stop_key
from callphases.state.lease import FRESH_S, LIFE_S
from callphases.state.ledger import WRITE_EVERY_S, LedgerView
from callphases.state.storage import ObjectPrefix
from doubles import DAY, LONG_AGO, Clock, Store, recording

LEDGER = f"state/ledger/dt={DAY}/"


def submitted(key: str = "k", transcript_id: str = "t-1") -> Submitted:
    return Submitted(key=key, transcript_id=transcript_id, recording="calls/a.mp3")


def intended(key: str = "k") -> Intended:
    return Intended(key=key, recording="calls/a.mp3")


def answered(number: int) -> Answered:
    return Answered(key=f"k{number}", recording=f"{number}.mp3", duration_s=1.0, phases=[])


def puts(s3: Store) -> list[str]:
    """The objects that were written, without the lease, in order."""
    return [key for operation, key in s3.asked if operation == "PutObject" and not key.endswith("lease.json")]


# The event that holds


REQUIRED: dict[type[Event], dict[str, Any]] = {
    Submitted: {"transcript_id": "t-1"},
    Transcribed: {"status": "completed", "transcript_id": "t-1"},
    Failed: {"failure_class": "bad_audio", "failure_message": "No audio.", "permanent": True},
    Stopped: {"failure_class": "unfinished", "failure_message": "Not done."},
}


def at(second: int, kind: type[Event], fencing_token: int = 1, **more: Any) -> Event:
    moment = dt.datetime(2026, 11, 20, 12, 0, second, tzinfo=dt.UTC)
    values = {"key": "k", "recording": "calls/a.mp3", "run_id": "r", **REQUIRED.get(kind, {}), **more}
    return kind(at=moment, fencing_token=fencing_token, **values)


def holding(*events: Event) -> type[Event | None]:
    return type(LedgerView(events).find("k"))


@pytest.mark.parametrize(
    ("events", "holds"),
    [
        ([at(1, Intended), at(2, Submitted)], Submitted),
        ([at(2, Submitted), at(1, Intended)], Submitted),
        ([at(1, Intended), at(2, Withdrawn)], Withdrawn),
        ([at(1, Submitted), at(2, Failed)], Failed),
        ([at(1, Failed), at(2, Intended)], Intended),
        ([at(1, Transcribed), at(2, Failed)], Transcribed),
        ([at(2, Failed), at(1, Transcribed)], Transcribed),
        ([at(1, Transcribed, fencing_token=1), at(2, Submitted, fencing_token=9)], Transcribed),
        ([at(9, Failed, fencing_token=1), at(1, Intended, fencing_token=2)], Intended),
        ([at(1, Intended, fencing_token=2), at(9, Failed, fencing_token=1)], Intended),
        ([at(1, Intended, fencing_token=2), at(9, Failed, fencing_token=0)], Intended),
        ([at(1, Intended), at(1, Withdrawn)], Withdrawn),
    ],
    ids=[
        "the last",
        "the last, read first",
        "withdrawn",
        "failed after",
        "tried again after",
        "final before later",
        "final before later, read first",
        "final before a higher token",
        "tokens before clocks",
        "tokens before clocks, read first",
        "no token is before all tokens",
        "the last of one write",
    ],
)
def test_last_event_of_a_key_holds(events: list[Event], holds: type[Event]) -> None:
    assert holding(*events) is holds


@given(
    st.permutations(
        [
            at(1, Intended, fencing_token=1),
            at(2, Submitted, fencing_token=1),
            at(1, Failed, fencing_token=2),
            at(3, Intended, fencing_token=2),
            at(0, Submitted, fencing_token=3),
        ]
    ),
    st.integers(0, 5),
)
def test_same_event_holds_in_whatever_order_objects_are_read(events: list[Event], twice: int) -> None:
    known = LedgerView(events[:twice])
    known.learn(events)
    assert known.find("k") == at(0, Submitted, fencing_token=3)
    assert len(known.all()) == 5


def test_events_are_found_by_their_recording() -> None:
    ours, other = recording("calls/a.mp3"), recording("calls/b.mp3")
    known = LedgerView([at(1, Intended), at(2, Submitted), at(1, Intended, key="l", recording="calls/b.mp3")])
    assert [type(event) for event in known.of([ours])] == [Intended, Submitted]
    assert len(known.of([ours, other])) == 3
    assert known.of([recording("calls/c.mp3")]) == []


def test_stopped_event_does_not_override_the_transcript_event() -> None:
    assert stop_key("k") != "k"
    assert LedgerView([at(1, Intended), at(2, Stopped, key=stop_key("k"))]).find("k") == at(1, Intended)


# Writing


@pytest.mark.integration
def test_later_run_reads_the_events_of_an_earlier_run(s3: Store) -> None:
    first = s3.ledger("run-1")
    first.write([submitted()])
    first.lease.release()
    event = s3.ledger("run-2").find("k")
    assert isinstance(event, Submitted)
    assert (event.transcript_id, event.run_id, event.fencing_token) == ("t-1", "run-1", 1)
    assert event.at.tzinfo is not None


@pytest.mark.integration
def test_task_writes_all_events_to_one_object(s3: Store) -> None:
    ledger = s3.ledger("run-1", "chunk-0003")
    ledger.write([submitted("a"), submitted("b")])
    ledger.write([submitted("c")])
    ledger.write([])
    assert s3.keys(LEDGER) == [f"{LEDGER}lease.json", f"{LEDGER}run-1/chunk-0003.jsonl"]
    assert len(puts(s3)) == 2
    assert all(s3.known().find(key) for key in "abc")


@pytest.mark.integration
def test_event_that_could_not_be_written_is_not_found(s3: Store) -> None:
    ledger = s3.ledger()
    for key in s3.keys("state/"):
        s3.client.delete_object(Bucket=s3.warehouse, Key=key)
    s3.client.delete_bucket(Bucket=s3.warehouse)
    with pytest.raises(Exception, match="no bucket"):
        ledger.write([submitted()])
    assert ledger.find("k") is None


@pytest.mark.integration
def test_event_of_another_day_is_not_found(s3: Store) -> None:
    s3.ledger().write([submitted()])
    assert s3.ledger(day=DAY + dt.timedelta(days=1)).find("k") is None


@pytest.mark.integration
def test_any_text_is_read_as_it_was_written(s3: Store) -> None:
    message = "a\u2028b\x85c\nd “é” 🎧"
    s3.ledger().write([failed("k", BadAudio(message), "calls/a.mp3"), submitted("l")])
    event = s3.known().find("k")
    assert isinstance(event, Failed)
    assert message in event.failure_message


@pytest.mark.integration
def test_threads_of_a_task_can_write_at_once(s3: Store) -> None:
    ledger = s3.ledger()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ledger.write([submitted(str(number))]), range(24)))
    known = s3.known()
    assert all(known.find(str(number)) for number in range(24))
    assert len(ledger.own) == 24


@pytest.mark.integration
def test_noted_events_are_written_once_the_last_write_is_old_enough(s3: Store, clock: Clock) -> None:
    ledger = s3.ledger()
    ledger.write([submitted("a")])
    for key in "bcd":
        clock.now += WRITE_EVERY_S / 4
        ledger.note([submitted(key)])
        assert ledger.find(key), "it is found at once"
    assert len(puts(s3)) == 1
    clock.now += WRITE_EVERY_S / 4
    ledger.note([submitted("e")])
    assert len(puts(s3)) == 2
    assert all(s3.known().find(key) for key in "abcde")
    clock.now += 1
    ledger.note([submitted("f")], every_s=1)
    assert len(puts(s3)) == 3, "the caller sets how long events may wait"


@pytest.mark.integration
def test_noted_events_are_written_before_the_next_written_event(s3: Store) -> None:
    ledger = s3.ledger()
    ledger.write([submitted("a")])
    ledger.note([submitted("b")])
    ledger.write([submitted("c")])
    assert len(puts(s3)) == 2
    assert [event.key for event in s3.known().all()] == ["a", "b", "c"]
    ledger.note([submitted("d")])
    ledger.write()
    ledger.write()
    assert len(puts(s3)) == 3
    assert [event.key for event in ledger.own] == ["a", "b", "c", "d"]


@pytest.mark.integration
def test_noted_event_is_written_later_after_a_failed_write(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = s3.ledger()
    ledger.write([submitted("a")])
    ledger.note([submitted("b")])
    with monkeypatch.context() as broken:
        broken.setattr(ObjectPrefix, "put_if_match", lambda *_: raise_(ServiceUnavailable("S3 is away.")))
        with pytest.raises(ServiceUnavailable):
            ledger.write([submitted("c")])
    ledger.write()
    assert (s3.known().find("b") is not None, s3.known().find("c")) == (True, None)


def raise_(error: Exception) -> Any:
    raise error


# Two processes


@pytest.mark.integration
def test_write_fails_when_another_process_of_the_task_has_written(s3: Store) -> None:
    first, second = s3.ledger(), s3.ledger()
    second.write([submitted("b")])
    with pytest.raises(ServiceUnavailable, match="Another process works on chunk-0000 of the run run-1"):
        first.write([submitted("a")])
    assert first.find("a") is None
    assert (s3.known().find("a"), s3.known().find("b") is not None) == (None, True)


@pytest.mark.integration
def test_hold_fails_when_another_process_of_the_task_has_written(s3: Store, clock: Clock) -> None:
    first = s3.ledger()
    first.write([submitted("a")])
    first.hold()
    second = s3.ledger()
    second.write([submitted("b")])
    clock.now += FRESH_S
    with pytest.raises(ServiceUnavailable, match="Another process"):
        first.hold()


@pytest.mark.integration
def test_hold_writes_only_when_the_last_write_is_old(s3: Store, clock: Clock) -> None:
    ledger = s3.ledger()
    ledger.write([submitted("a")])
    clock.now += FRESH_S - 1
    ledger.hold()
    assert len(puts(s3)) == 1
    clock.now += 1
    ledger.hold()
    assert len(puts(s3)) == 2


@pytest.mark.integration
def test_restarted_task_keeps_the_events_of_its_earlier_process(s3: Store) -> None:
    s3.ledger().write([submitted("a")])
    again = s3.ledger()
    assert again.find("a")
    again.write([submitted("b")])
    assert all(s3.known().find(key) for key in "ab")


@pytest.mark.integration
def test_restarted_task_without_open_intent_does_not_wait(s3: Store) -> None:
    ledger = s3.ledger()
    ledger.write([intended()])
    ledger.write([submitted()])
    assert s3.ledger().quiet_in_s == 0


@pytest.mark.integration
def test_restarted_task_with_an_open_intent_waits_until_it_expires(s3: Store, clock: Clock) -> None:
    s3.ledger().write([intended()])
    clock.now += 20
    again = s3.ledger()
    assert again.quiet_in_s == LIFE_S - 20
    clock.now += LIFE_S
    assert again.quiet_in_s == 0


@pytest.mark.integration
def test_open_intent_of_another_task_is_not_waited_for(s3: Store) -> None:
    s3.ledger("run-1", "chunk-0000").write([intended()])
    assert s3.ledger("run-1", "chunk-0001").quiet_in_s == 0


# Opening


def reads(s3: Store, since: int) -> list[str]:
    return [key.removeprefix(LEDGER) for operation, key in s3.asked[since:] if operation == "GetObject"]


@pytest.mark.integration
def test_task_with_events_from_the_listing_reads_only_its_own_object(s3: Store) -> None:
    ledger = s3.ledger("run-1", "list")
    s3.knows(*(submitted(key) for key in "abc"))
    asked = len(s3.asked)
    s3.listed.clear()
    task = s3.ledger("run-1", known=[at(1, Submitted)], fencing_token=ledger.lease.fencing_token)
    assert task.find("k") == at(1, Submitted)
    assert task.find("a") is None
    assert reads(s3, asked) == ["lease.json", "run-1/chunk-0000.jsonl"]
    assert s3.listed == []


@pytest.mark.integration
def test_task_reads_the_whole_day_after_another_run_held_it(s3: Store, clock: Clock) -> None:
    s3.ledger("run-1", "list")
    clock.now += LIFE_S
    other = s3.ledger("run-2")
    other.write([submitted("a")])
    other.lease.release()
    task = s3.ledger("run-1", known=[at(1, Submitted)], fencing_token=1)
    assert task.find("a") is not None
    assert task.find("k") is None, "the events of the listing are out of date"
    assert task.lease.fencing_token == 3


@pytest.mark.integration
def test_ledger_is_not_read_while_another_run_holds_the_day(s3: Store) -> None:
    s3.ledger("run-1")
    asked = len(s3.asked)
    with pytest.raises(DayHeld):
        s3.ledger("run-2")
    assert reads(s3, asked) == ["lease.json"]


@pytest.mark.integration
def test_ledger_of_an_early_version_is_read(s3: Store) -> None:
    """That version wrote an object for each write, without fencing tokens and recordings."""
    head = {"at": "2026-11-20T01:00:00.000001+00:00", "run_id": "old", "key": "k"}
    for number, event in enumerate([{"event": "intended"}, {"event": "submitted", "transcript_id": "t-1"}]):
        s3.state.put(f"ledger/dt={DAY}/{number:020d}-abcdef01.jsonl", json.dumps(head | event).encode() + b"\n")
    known = s3.known()
    moment = dt.datetime.fromisoformat(head["at"])
    assert known.find("k") == Submitted(key="k", transcript_id="t-1", at=moment, run_id="old")
    assert DayPass(LONG_AGO).has_settled(known.find("k"))
    assert len(known.all()) == 2


@pytest.mark.integration
def test_other_objects_below_the_ledger_are_not_read(s3: Store) -> None:
    s3.ledger().write([submitted()])
    s3.state.put(f"ledger/dt={DAY}/notes.txt", b"not JSON")
    assert s3.known().find("k") is not None


@pytest.mark.integration
def test_event_of_the_later_run_holds_whatever_its_clock(s3: Store) -> None:
    for number, run_token in enumerate(["run-1", "run-2", "run-3"]):
        ledger = s3.ledger(run_token)
        ledger.write([submitted(transcript_id=f"t-{number}")])
        ledger.lease.release()
    s3.knows(submitted(transcript_id="late"), at=dt.datetime(2999, 1, 1, tzinfo=dt.UTC), fencing_token=2)
    event = s3.known().find("k")
    assert isinstance(event, Submitted)
    assert event.transcript_id == "t-2"


def test_long_ledger_continues_in_another_object(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "SEGMENT_BYTES", 500)
    written = s3.ledger()
    for number in range(10):
        written.write([answered(number)])
    names = [name for name in s3.keys("state/ledger/") if name.endswith(".jsonl")]
    assert len(names) > 2
    keys = {f"k{number}" for number in range(10)}
    assert {event.key for event in s3.known().all()} == keys
    assert {event.key for event in ledger.read_task(s3.state, DAY, "run-1", "chunk-0000")} == keys
    again = s3.ledger()
    assert {event.key for event in again.own} == keys
    again.write([answered(10)])
    with pytest.raises(ServiceUnavailable, match="Another process works on chunk-0000"):
        written.write([answered(11)])


@pytest.mark.parametrize("writes", range(1, 8))
def test_second_process_is_noticed_in_whatever_object_it_continues(
    s3: Store, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    monkeypatch.setattr(ledger, "SEGMENT_BYTES", 500)
    first = s3.ledger()
    for number in range(writes):
        first.write([answered(number)])
    second = s3.ledger()
    second.write([intended()])
    with pytest.raises(ServiceUnavailable, match="Another process works on chunk-0000"):
        first.write([intended()])


def test_no_thread_may_pay_once_one_has_found_the_day_lost(s3: Store, clock: Clock) -> None:
    ledger = s3.ledger("first")
    clock.now += LIFE_S
    other = s3.lease("second")
    other.take()
    other.release()
    ledger.write([Withdrawn(key="a")])  # so that the ledger's object is confirmed, and the lease alone is not
    for _ in range(2):
        with pytest.raises(DayHeld, match="meanwhile"):
            ledger.hold()
        assert not ledger.lease.is_fresh
    assert ledger.lease.fencing_token == 1
