"""What has been paid for is found again, by any later run."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from callphases.errors import BadAudio, DownloadRefused
from callphases.ledger import Event, answer_key, failed, transcript_key
from doubles import DAY, Store, recording

OPTIONS = {"speech_models": ["universal-3-pro"], "speaker_labels": True}
LONG_AGO, FAR_AHEAD = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2000, 3000))


def submitted(key: str = "k", transcript_id: str = "t-1") -> Event:
    return {"event": "submitted", "key": key, "transcript_id": transcript_id}


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


@pytest.mark.integration
def test_a_later_run_knows_what_an_earlier_one_wrote(s3: Store) -> None:
    s3.ledger("run-1").write([submitted()])
    event = s3.ledger("run-2").find("k")
    assert event is not None
    assert event["transcript_id"] == "t-1"
    assert event["run_id"] == "run-1"
    assert dt.datetime.fromisoformat(event["at"]).tzinfo is not None


@pytest.mark.integration
def test_the_last_event_of_a_key_wins(s3: Store) -> None:
    first, second = s3.ledger(), s3.ledger()
    for number, ledger in enumerate([first, second, first]):
        ledger.write([submitted(transcript_id=f"t-{number}")])
    event = s3.ledger().find("k")
    assert event is not None
    assert event["transcript_id"] == "t-2"


@pytest.mark.integration
def test_within_one_write_the_last_event_wins_too(s3: Store) -> None:
    ledger = s3.ledger()
    ledger.write([submitted(transcript_id="t-1"), submitted(transcript_id="t-2")])
    for known in (ledger, s3.ledger()):
        event = known.find("k")
        assert event is not None
        assert event["transcript_id"] == "t-2"


@pytest.mark.integration
def test_a_write_is_one_object_and_an_empty_one_is_none(s3: Store) -> None:
    s3.ledger().write([submitted("a"), submitted("b")])
    s3.ledger().write([])
    assert len(s3.keys("state/ledger/dt=2026-11-20/")) == 1


@pytest.mark.integration
def test_an_event_that_could_not_be_written_is_not_known(s3: Store) -> None:
    ledger = s3.ledger()
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
    event = s3.ledger().find("k")
    assert event is not None
    assert message in event["failure_message"]


@pytest.mark.integration
def test_threads_of_a_task_may_write_at_once(s3: Store) -> None:
    ledger = s3.ledger()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ledger.write([submitted(str(number))]), range(24)))
    again = s3.ledger()
    assert all(again.find(str(number)) for number in range(24))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("event", "since", "settled"),
    [
        (None, LONG_AGO, False),
        ({"event": "intended", "key": "k", "audio_url": "u"}, LONG_AGO, False),
        (submitted(), FAR_AHEAD, True),
        (failed("k", BadAudio("no audio")), FAR_AHEAD, True),
        (failed("k", DownloadRefused("no way")), LONG_AGO, True),
        (failed("k", DownloadRefused("no way")), FAR_AHEAD, False),
    ],
    ids=["unknown", "intended", "submitted", "failed for good", "failed in this pass", "failed before this pass"],
)
def test_what_is_settled_is_not_done_again(s3: Store, event: Event | None, since: dt.datetime, settled: bool) -> None:
    ledger = s3.ledger()
    ledger.write([event] if event else [])
    assert ledger.settled("k", since) is settled
