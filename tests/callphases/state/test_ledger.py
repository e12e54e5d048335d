"""What has been paid for is found again, by any later run."""

from __future__ import annotations

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import BadAudio, DayHeld, DownloadRefused, ServiceUnavailable
from callphases.state import ledger
from callphases.state.lease import FRESH_S, LIFE_S
from callphases.state.ledger import WRITE_EVERY_S, Event, LedgerView, answer_key, failed, stop_key, transcript_key
from callphases.state.storage import ObjectPrefix
from doubles import DAY, LONG_AGO, NEXT_RUN, Clock, Store, recording

OPTIONS = {"speech_models": ["universal-3-pro"], "speaker_labels": True}
LEDGER = f"state/ledger/dt={DAY}/"


def submitted(key: str = "k", transcript_id: str = "t-1", **more: Any) -> Event:
    return {"event": "submitted", "key": key, "transcript_id": transcript_id, "recording": "calls/a.mp3", **more}


def puts(s3: Store) -> list[str]:
    """The objects that were written, without the lease, in order."""
    return [key for operation, key in s3.asked if operation == "PutObject" and not key.endswith("lease.json")]


def test_the_key_of_a_transcript_is_the_same_in_every_run() -> None:
    again = recording(size=2, call_time=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    turned = dict(reversed(OPTIONS.items()))
    assert transcript_key(recording(), OPTIONS) == transcript_key(again, turned)


@pytest.mark.parametrize("changes", [{"bucket": "other"}, {"key": "other"}, {"etag": "other"}])
def test_another_recording_has_another_key(changes: dict[str, Any]) -> None:
    assert transcript_key(recording(**changes), OPTIONS) != transcript_key(recording(), OPTIONS)


def test_other_options_have_another_key() -> None:
    assert transcript_key(recording(), OPTIONS | {"speaker_labels": False}) != transcript_key(recording(), OPTIONS)


def test_an_answers_key_follows_from_transcript_and_question() -> None:
    assert answer_key("t", {"a": 1, "b": 2}) == answer_key("t", {"b": 2, "a": 1})
    assert len({answer_key("t", {"a": 1}), answer_key("t", {"a": 2}), answer_key("u", {"a": 1})}) == 3


# What holds


def at(second: int, event: str, fencing_token: int | None = 1, **more: Any) -> Event:
    stamp = {"at": f"2026-11-20T12:00:{second:02}+00:00", "key": "k", "recording": "calls/a.mp3", "run_id": "r"}
    return {"event": event, **stamp, **({} if fencing_token is None else {"term": fencing_token}), **more}


def holding(*events: Event) -> str:
    event = LedgerView(events).find("k")
    assert event is not None
    return str(event["event"])


@pytest.mark.parametrize(
    ("events", "holds"),
    [
        ([at(1, "intended"), at(2, "submitted")], "submitted"),
        ([at(2, "submitted"), at(1, "intended")], "submitted"),
        ([at(1, "intended"), at(2, "withdrawn")], "withdrawn"),
        ([at(1, "submitted"), at(2, "failed")], "failed"),
        ([at(1, "failed"), at(2, "intended")], "intended"),
        ([at(1, "transcribed"), at(2, "failed")], "transcribed"),
        ([at(2, "failed"), at(1, "transcribed")], "transcribed"),
        ([at(1, "transcribed", fencing_token=1), at(2, "submitted", fencing_token=9)], "transcribed"),
        ([at(9, "failed", fencing_token=1), at(1, "intended", fencing_token=2)], "intended"),
        ([at(1, "intended", fencing_token=2), at(9, "failed", fencing_token=1)], "intended"),
        ([at(1, "intended", fencing_token=2), at(9, "failed", fencing_token=None)], "intended"),
        ([at(1, "intended"), at(1, "withdrawn")], "withdrawn"),
    ],
    ids=[
        "the last",
        "the last, read first",
        "withdrawn",
        "failed after",
        "tried again after",
        "an end is an end",
        "an end is an end, read last",
        "an end is an end in any term",
        "terms before clocks",
        "terms before clocks, read first",
        "no term is before all terms",
        "the later of one write",
    ],
)
def test_one_event_of_a_key_holds(events: list[Event], holds: str) -> None:
    assert holding(*events) == holds


@given(
    st.permutations(
        [
            at(1, "intended", fencing_token=1),
            at(2, "submitted", fencing_token=1),
            at(1, "failed", fencing_token=2),
            at(3, "intended", fencing_token=2),
            at(0, "submitted", fencing_token=3),
        ]
    ),
    st.integers(0, 5),
)
def test_it_holds_whatever_the_order_that_objects_are_read_in(events: list[Event], twice: int) -> None:
    known = LedgerView(events[:twice])
    known.learn(events)
    assert known.find("k") == at(0, "submitted", fencing_token=3)
    assert len(known.all()) == 5


def test_events_are_found_by_their_recording() -> None:
    ours, other = recording("calls/a.mp3"), recording("calls/b.mp3")
    known = LedgerView([at(1, "intended"), at(2, "submitted"), at(1, "intended", key="l", recording="calls/b.mp3")])
    assert [event["event"] for event in known.of([ours])] == ["intended", "submitted"]
    assert len(known.of([ours, other])) == 3
    assert known.of([recording("calls/c.mp3")]) == []


BROKEN = failed("k", BadAudio("no audio"))
FAR = failed("k", DownloadRefused("no way"))
AGAIN = failed("k", DownloadRefused("no way"), again=True)


@pytest.mark.parametrize(
    ("event", "in_this_pass", "in_the_next", "in_a_replay"),
    [
        (None, False, False, False),
        ({"event": "intended", "key": "k", "audio_url": "u"}, False, False, False),
        ({"event": "withdrawn", "key": "k"}, False, False, False),
        (submitted(), True, True, True),
        ({"event": "transcribed", "key": "k"}, True, True, True),
        (BROKEN, True, True, False),
        (FAR, True, False, False),
        (AGAIN, False, False, False),
    ],
    ids=["unknown", "intended", "withdrawn", "submitted", "done", "failed for good", "failed", "failed, again at once"],
)
def test_what_is_settled_is_not_done_again(
    event: Event | None, in_this_pass: bool, in_the_next: bool, in_a_replay: bool
) -> None:
    known = LedgerView([at(1, "") | event] if event else [])
    assert known.settled("k", LONG_AGO) is in_this_pass
    assert known.settled("k", NEXT_RUN) is in_the_next
    assert known.settled("k", NEXT_RUN, replay=True) is in_a_replay


def test_what_a_replay_has_had_fail_for_good_is_settled_in_it() -> None:
    assert LedgerView([at(1, "") | BROKEN]).settled("k", LONG_AGO, replay=True)


def test_why_a_run_stopped_is_not_the_transcripts_event() -> None:
    assert stop_key("k") != "k"
    assert LedgerView([at(1, "intended"), at(2, "stopped", key=stop_key("k"))]).find("k") == at(1, "intended")


# Writing


@pytest.mark.integration
def test_a_later_run_knows_what_an_earlier_one_wrote(s3: Store) -> None:
    first = s3.ledger("run-1")
    first.write([submitted()])
    first.lease.release()
    event = s3.ledger("run-2").find("k")
    assert event is not None
    assert (event["transcript_id"], event["run_id"], event["term"]) == ("t-1", "run-1", 1)
    assert dt.datetime.fromisoformat(event["at"]).tzinfo is not None


@pytest.mark.integration
def test_a_task_writes_one_object(s3: Store) -> None:
    ledger = s3.ledger("run-1", "chunk-0003")
    ledger.write([submitted("a"), submitted("b")])
    ledger.write([submitted("c")])
    ledger.write([])
    assert s3.keys(LEDGER) == [f"{LEDGER}lease.json", f"{LEDGER}run-1/chunk-0003.jsonl"]
    assert len(puts(s3)) == 2
    assert all(s3.known().find(key) for key in "abc")


@pytest.mark.integration
def test_an_event_that_could_not_be_written_is_not_known(s3: Store) -> None:
    ledger = s3.ledger()
    for key in s3.keys("state/"):
        s3.client.delete_object(Bucket=s3.warehouse, Key=key)
    s3.client.delete_bucket(Bucket=s3.warehouse)
    with pytest.raises(Exception, match="no bucket"):
        ledger.write([submitted()])
    assert ledger.find("k") is None


@pytest.mark.integration
def test_days_are_kept_apart(s3: Store) -> None:
    s3.ledger().write([submitted()])
    assert s3.ledger(day=DAY + dt.timedelta(days=1)).find("k") is None


@pytest.mark.integration
def test_any_text_survives(s3: Store) -> None:
    message = "a\u2028b\x85c\nd “é” 🎧"
    s3.ledger().write([failed("k", BadAudio(message)), submitted("l")])
    event = s3.known().find("k")
    assert event is not None
    assert message in event["failure_message"]


@pytest.mark.integration
def test_threads_of_a_task_may_write_at_once(s3: Store) -> None:
    ledger = s3.ledger()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ledger.write([submitted(str(number))]), range(24)))
    known = s3.known()
    assert all(known.find(str(number)) for number in range(24))
    assert len(ledger.own) == 24


@pytest.mark.integration
def test_events_that_can_be_had_again_wait_for_others_to_share_a_write(s3: Store, clock: Clock) -> None:
    ledger = s3.ledger()
    ledger.write([submitted("a")])
    for key in "bcd":
        clock.now += WRITE_EVERY_S / 4
        ledger.note([submitted(key)])
        assert ledger.find(key), "it is known at once"
    assert len(puts(s3)) == 1
    clock.now += WRITE_EVERY_S / 4
    ledger.note([submitted("e")])
    assert len(puts(s3)) == 2
    assert all(s3.known().find(key) for key in "abcde")
    clock.now += 1
    ledger.note([submitted("f")], every_s=1)
    assert len(puts(s3)) == 3, "who notes says how long that may wait"


@pytest.mark.integration
def test_what_was_noted_is_written_with_the_next_event_and_before_it(s3: Store) -> None:
    ledger = s3.ledger()
    ledger.write([submitted("a")])
    ledger.note([submitted("b")])
    ledger.write([submitted("c")])
    assert len(puts(s3)) == 2
    assert [event["key"] for event in s3.known().all()] == ["a", "b", "c"]
    ledger.note([submitted("d")])
    ledger.write()
    ledger.write()
    assert len(puts(s3)) == 3
    assert [event["key"] for event in ledger.own] == ["a", "b", "c", "d"]


@pytest.mark.integration
def test_what_was_noted_and_could_not_be_written_is_written_later(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_second_process_of_a_task_is_noticed(s3: Store) -> None:
    first, second = s3.ledger(), s3.ledger()
    second.write([submitted("b")])
    with pytest.raises(ServiceUnavailable, match="Another process works on chunk-0000 of the run run-1"):
        first.write([submitted("a")])
    assert first.find("a") is None
    assert (s3.known().find("a"), s3.known().find("b") is not None) == (None, True)


@pytest.mark.integration
def test_a_second_process_is_noticed_before_anything_is_sent(s3: Store, clock: Clock) -> None:
    first = s3.ledger()
    first.write([submitted("a")])
    first.hold()
    second = s3.ledger()
    second.write([submitted("b")])
    clock.now += FRESH_S
    with pytest.raises(ServiceUnavailable, match="Another process"):
        first.hold()


@pytest.mark.integration
def test_what_is_held_is_confirmed_with_a_write_only_where_the_last_is_old(s3: Store, clock: Clock) -> None:
    ledger = s3.ledger()
    ledger.write([submitted("a")])
    clock.now += FRESH_S - 1
    ledger.hold()
    assert len(puts(s3)) == 1
    clock.now += 1
    ledger.hold()
    assert len(puts(s3)) == 2


@pytest.mark.integration
def test_a_task_goes_on_with_what_an_earlier_process_of_it_wrote(s3: Store) -> None:
    s3.ledger().write([submitted("a")])
    again = s3.ledger()
    assert again.find("a")
    again.write([submitted("b")])
    assert all(s3.known().find(key) for key in "ab")


@pytest.mark.integration
def test_a_task_that_finds_no_intent_of_an_earlier_process_waits_for_nothing(s3: Store) -> None:
    ledger = s3.ledger()
    ledger.write([{"event": "intended", "key": "k"}])
    ledger.write([submitted()])
    assert s3.ledger().quiet_in_s == 0


@pytest.mark.integration
def test_a_task_that_finds_an_intent_of_an_earlier_process_knows_when_that_is_over(s3: Store, clock: Clock) -> None:
    s3.ledger().write([{"event": "intended", "key": "k"}])
    clock.now += 20
    again = s3.ledger()
    assert again.quiet_in_s == LIFE_S - 20
    clock.now += LIFE_S
    assert again.quiet_in_s == 0


@pytest.mark.integration
def test_intents_of_another_task_are_nothing_to_wait_for(s3: Store) -> None:
    s3.ledger("run-1", "chunk-0000").write([{"event": "intended", "key": "k"}])
    assert s3.ledger("run-1", "chunk-0001").quiet_in_s == 0


# Opening


def reads(s3: Store, since: int) -> list[str]:
    return [key.removeprefix(LEDGER) for operation, key in s3.asked[since:] if operation == "GetObject"]


@pytest.mark.integration
def test_a_task_that_was_handed_what_is_known_reads_nothing_else(s3: Store) -> None:
    ledger = s3.ledger("run-1", "list")
    s3.knows(*(submitted(key) for key in "abc"))
    asked = len(s3.asked)
    s3.listed.clear()
    task = s3.ledger("run-1", known=[at(1, "submitted")], fencing_token=ledger.lease.fencing_token)
    assert task.find("k") == at(1, "submitted")
    assert task.find("a") is None
    assert reads(s3, asked) == ["lease.json", "run-1/chunk-0000.jsonl"]
    assert s3.listed == []


@pytest.mark.integration
def test_where_another_run_has_had_the_day_in_between_all_of_it_is_read(s3: Store, clock: Clock) -> None:
    s3.ledger("run-1", "list")
    clock.now += LIFE_S
    other = s3.ledger("run-2")
    other.write([submitted("a")])
    other.lease.release()
    task = s3.ledger("run-1", known=[at(1, "submitted")], fencing_token=1)
    assert task.find("a") is not None
    assert task.find("k") is None, "what was handed on is no longer what is known"
    assert task.lease.fencing_token == 3


@pytest.mark.integration
def test_a_day_that_another_run_works_on_is_not_read(s3: Store) -> None:
    s3.ledger("run-1")
    asked = len(s3.asked)
    with pytest.raises(DayHeld):
        s3.ledger("run-2")
    assert reads(s3, asked) == ["lease.json"]


@pytest.mark.integration
def test_what_an_earlier_version_has_written_is_still_known(s3: Store) -> None:
    """It wrote an object for each write, with neither terms nor recordings."""
    head = {"at": "2026-11-20T01:00:00.000001+00:00", "run_id": "old", "key": "k"}
    for number, event in enumerate([{"event": "intended"}, {"event": "submitted", "transcript_id": "t-1"}]):
        s3.state.put(f"ledger/dt={DAY}/{number:020d}-abcdef01.jsonl", json.dumps(head | event).encode() + b"\n")
    known = s3.known()
    assert known.find("k") == head | {"event": "submitted", "transcript_id": "t-1"}
    assert known.settled("k", LONG_AGO)
    assert len(known.all()) == 2


@pytest.mark.integration
def test_only_the_ledgers_own_objects_are_read(s3: Store) -> None:
    s3.ledger().write([submitted()])
    s3.state.put(f"ledger/dt={DAY}/notes.txt", b"not JSON")
    assert s3.known().find("k") is not None


@pytest.mark.integration
def test_of_runs_that_follow_each_other_the_later_wins_whatever_its_clock(s3: Store) -> None:
    for number, run_token in enumerate(["run-1", "run-2", "run-3"]):
        ledger = s3.ledger(run_token)
        ledger.write([submitted(transcript_id=f"t-{number}")])
        ledger.lease.release()
    s3.knows(submitted(transcript_id="late"), at="2999-01-01T00:00:00+00:00", term=2)
    event = s3.known().find("k")
    assert event is not None
    assert event["transcript_id"] == "t-2"


def test_a_long_ledger_goes_on_in_another_object(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "SEGMENT_BYTES", 500)
    written = s3.ledger()
    for number in range(10):
        written.write([{"event": "answered", "key": f"k{number}", "recording": f"{number}.mp3"}])
    names = [name for name in s3.keys("state/ledger/") if name.endswith(".jsonl")]
    assert len(names) > 2
    keys = {f"k{number}" for number in range(10)}
    assert {event["key"] for event in s3.known().all()} == keys
    assert {event["key"] for event in ledger.read_task(s3.state, DAY, "run-1", "chunk-0000")} == keys
    again = s3.ledger()
    assert {event["key"] for event in again.own} == keys
    again.write([{"event": "answered", "key": "k10", "recording": "10.mp3"}])
    with pytest.raises(ServiceUnavailable, match="Another process works on chunk-0000"):
        written.write([{"event": "answered", "key": "k11", "recording": "11.mp3"}])


@pytest.mark.parametrize("writes", range(1, 8))
def test_a_second_process_of_a_task_is_noticed_wherever_it_goes_on(
    s3: Store, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    monkeypatch.setattr(ledger, "SEGMENT_BYTES", 500)
    first = s3.ledger()
    for number in range(writes):
        first.write([{"event": "answered", "key": f"k{number}", "recording": f"{number}.mp3"}])
    second = s3.ledger()
    second.write([{"event": "intended", "key": "k", "recording": "k.mp3"}])
    with pytest.raises(ServiceUnavailable, match="Another process works on chunk-0000"):
        first.write([{"event": "intended", "key": "k", "recording": "k.mp3"}])
