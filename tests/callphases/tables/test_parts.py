"""Rows of some recordings in an object of their own: what is written is what is read."""

from __future__ import annotations

import datetime as dt

import pytest

from callphases.recordings import Recording
from callphases.state.ledger import transcript_key
from callphases.tables.parts import PartWriter, folder_of, read_part, recordings_of
from doubles import DAY, NOON, Store

pytestmark = pytest.mark.integration

FOLDER = folder_of(DAY, "run-1-abc")


def writer(s3: Store, run_id: str = "run-1", since: dt.datetime = NOON) -> PartWriter:
    return PartWriter(s3.state, s3.pipeline(), run_id, FOLDER, since)


def heard(s3: Store, name: str, at: dt.datetime = NOON, run_id: str = "run-1") -> Recording:
    """A recording that a run has found nobody speaking in."""
    recording = s3.put(f"calls/{name}.mp3")
    key = transcript_key(recording, s3.pipeline().transcription)
    event = {"event": "transcribed", "status": "no_speech", "audio_s": 8.0, "speech_usd": 0.25, "transcript_id": name}
    s3.knows({**event, "key": key, "recording": recording.key}, at=at.isoformat(), run_id=run_id)
    return recording


def test_a_part_holds_its_calls_in_the_order_of_their_ids(s3: Store) -> None:
    recordings = [heard(s3, name) for name in "abcdef"]
    part = writer(s3)
    for one in recordings:
        part.add(one, s3.known())
    part.write("chunk-0000")
    assert s3.keys(f"state/{FOLDER}") == [f"state/runs/dt={DAY}/run-1-abc/rows/chunk-0000.arrow"]
    table = read_part(s3.state, FOLDER, "chunk-0000")
    assert table is not None
    assert list(recordings_of(table)) == sorted(recordings, key=lambda one: one.call_id)
    assert table["status"].to_pylist() == ["no_speech"] * 6
    assert table["finished"].to_pylist() == [True] * 6
    assert table["phases"].to_pylist() == [[]] * 6


def test_a_part_that_was_not_written_is_none(s3: Store) -> None:
    assert read_part(s3.state, FOLDER, "chunk-0000") is None


def test_each_part_holds_what_was_added_since_the_last(s3: Store) -> None:
    part = writer(s3)
    for number, name in enumerate("ab"):
        part.add(heard(s3, name), s3.known())
        assert len(part) == 1
        part.write(f"rest-{number:04d}")
        assert len(part) == 0
    tables = [read_part(s3.state, FOLDER, f"rest-{number:04d}") for number in range(2)]
    assert [table and table["transcript_id"].to_pylist() for table in tables] == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("run_id", "at", "usd"),
    [
        ("run-1", NOON, 0.25),
        ("run-1", NOON - dt.timedelta(seconds=1), 0.0),
        ("run-2", NOON, 0.0),
    ],
    ids=["in this pass", "in an earlier pass", "by another run"],
)
def test_what_the_run_has_spent_in_this_pass_is_told_apart(s3: Store, run_id: str, at: dt.datetime, usd: float) -> None:
    part = writer(s3)
    part.add(heard(s3, "a", at, run_id), s3.known())
    table = part.take()
    assert (table["run_speech_usd"].to_pylist(), table["speech_usd"].to_pylist()) == ([usd], [0.25])
