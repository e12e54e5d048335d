"""Tests that a part is read as it was written."""

from __future__ import annotations

import datetime as dt

import pytest

from callphases.recordings import Recording
from callphases.state.events import Transcribed
from callphases.state.keys import transcript_key
from callphases.state.manifests import DayList
from callphases.tables.parts import PartWriter, read_part, recordings_of
from doubles import DAY, NOON, Store

pytestmark = pytest.mark.integration

LISTED = DayList(DAY, "run-1", "run-1-abc", fencing_token=1, listed_at=NOON, listed=6, chunks=1, rest=2)


def writer(s3: Store) -> PartWriter:
    return PartWriter(s3.state, s3.pipeline(), LISTED, DAY)


def silent_recording(s3: Store, name: str, at: dt.datetime = NOON, run_id: str = "run-1") -> Recording:
    """A recording that a run found to have no speech."""
    recording = s3.put(f"calls/{name}.mp3")
    key = transcript_key(recording, s3.pipeline().transcription)
    event = Transcribed(
        key=key, recording=recording.key, status="no_speech", audio_s=8.0, speech_usd=0.25, transcript_id=name
    )
    s3.knows(event, at=at, run_id=run_id)
    return recording


def test_part_has_its_calls_in_the_order_of_their_ids(s3: Store) -> None:
    recordings = [silent_recording(s3, name) for name in "abcdef"]
    part = writer(s3)
    for one in recordings:
        part.add(one, s3.known())
    part.write("chunk-0000")
    assert s3.keys("state/runs/") == [f"state/runs/dt={DAY}/run-1-abc/rows/chunk-0000.arrow"]
    table = read_part(s3.state, LISTED, "chunk-0000")
    assert table is not None
    assert list(recordings_of(table)) == sorted(recordings, key=lambda one: one.call_id)
    assert table["status"].to_pylist() == ["no_speech"] * 6
    assert table["finished"].to_pylist() == [True] * 6
    assert table["phases"].to_pylist() == [[]] * 6


def test_part_that_was_not_written_is_none(s3: Store) -> None:
    assert read_part(s3.state, LISTED, "chunk-0000") is None


def test_each_part_has_the_rows_added_since_the_last_part(s3: Store) -> None:
    part = writer(s3)
    for number, name in enumerate("ab"):
        part.add(silent_recording(s3, name), s3.known())
        assert len(part) == 1
        part.write(f"rest-{number:04d}")
        assert len(part) == 0
    tables = [read_part(s3.state, LISTED, f"rest-{number:04d}") for number in range(2)]
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
def test_run_cost_counts_only_events_of_this_run_and_pass(s3: Store, run_id: str, at: dt.datetime, usd: float) -> None:
    part = writer(s3)
    part.add(silent_recording(s3, "a", at, run_id), s3.known())
    table = part.take()
    assert (table["run_speech_usd"].to_pylist(), table["speech_usd"].to_pylist()) == ([usd], [0.25])
