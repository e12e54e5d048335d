"""Transcripts in the state area: saved, read as cues, deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callphases.errors import ProviderError, TranscriptGone
from callphases.state import layout, transcripts
from callphases.state.events import Transcribed
from callphases.state.ledger import LedgerView
from callphases.state.transcripts import TranscriptReader, TranscriptWriter, delete_transcript
from doubles import DAY, VTT, WORDS, Store, cue

pytestmark = pytest.mark.integration

DOCUMENT = {"id": "t-1", "text": "Thank My", "words": WORDS}
CUES = [cue(1, 0.5, 2.0, "Zoë 🎧"), cue(2, 2.5, 5.0, speaker=None)]


def saved(writer: TranscriptWriter, key: str = "k", cues: Any = CUES, document: Any = DOCUMENT) -> Transcribed:
    """The event of a transcript that was just saved."""
    uri, bundle = writer.save(DAY, key, document, VTT, cues)
    return Transcribed(key=key, status="completed", transcript_id="t-1", transcript_uri=uri, cues=bundle)


def reads(s3: Store) -> list[str]:
    return [key for operation, key in s3.asked if operation == "GetObject"]


def test_flushed_cues_are_read_from_their_bundle_once(s3: Store) -> None:
    writer = TranscriptWriter(s3.state, DAY)
    events = [saved(writer, key) for key in "abc"]
    writer.flush()
    reader = TranscriptReader(s3.state)
    assert [reader.cues(event) for event in events] == [CUES] * 3
    assert reads(s3) == [f"state/{events[0].cues}"]


def test_cues_are_read_from_the_transcript_without_their_bundle(s3: Store) -> None:
    event = saved(TranscriptWriter(s3.state, DAY))
    assert [one.text for one in TranscriptReader(s3.state).cues(event)] == ["Thank", "My"]


def test_cues_are_read_from_the_captions_without_words(s3: Store) -> None:
    text = "Thank you for calling. My invoice is wrong."
    event = saved(TranscriptWriter(s3.state, DAY), cues=None, document={"id": "t-1", "text": text})
    found = TranscriptReader(s3.state).cues(event)
    assert [one.text for one in found] == ["Thank you for calling.", "My invoice is wrong."]


def test_transcript_and_captions_are_saved_below_the_day(s3: Store) -> None:
    event = saved(TranscriptWriter(s3.state, DAY))
    assert event.transcript_uri == f"{s3.state.uri}transcripts/dt={DAY}/k.json"
    assert json.loads(s3.bytes_of(f"state/transcripts/dt={DAY}/k.json")) == DOCUMENT
    assert s3.bytes_of(f"state/transcripts/dt={DAY}/k.vtt").decode() == VTT


def test_transcript_without_speech_has_no_captions(s3: Store) -> None:
    writer = TranscriptWriter(s3.state, DAY)
    writer.save(DAY, "k", {"id": "t-1"}, None, None)
    writer.flush()
    assert s3.keys("state/transcripts/") == [f"state/transcripts/dt={DAY}/k.json"]


def test_half_a_character_in_a_document_is_saved(s3: Store) -> None:
    saved(TranscriptWriter(s3.state, DAY), document={"text": "cut \ud83d"})
    assert json.loads(s3.bytes_of(f"state/transcripts/dt={DAY}/k.json")) == {"text": "cut ?"}


def test_each_flush_writes_a_bundle_of_its_own(s3: Store) -> None:
    writer = TranscriptWriter(s3.state, DAY)
    first = saved(writer, "a")
    writer.flush()
    writer.flush()
    second = saved(writer, "b")
    writer.flush()
    assert first.cues != second.cues
    assert len(s3.keys(f"state/transcripts/dt={DAY}/cues-")) == 2


def test_writer_is_full_when_enough_calls_share_a_bundle(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "BUNDLE_CALLS", 2)
    writer = TranscriptWriter(s3.state, DAY)
    saved(writer, "a")
    assert not writer.is_full
    saved(writer, "b")
    assert writer.is_full
    writer.flush()
    assert not writer.is_full


def test_deleted_transcript_is_gone_with_its_captions_and_bundle(s3: Store) -> None:
    writer = TranscriptWriter(s3.state, DAY)
    one, other = saved(writer, "a"), saved(writer, "b")
    writer.flush()
    delete_transcript(s3.state, str(one.transcript_uri), LedgerView([one, other]))
    kept = layout.transcript(DAY, "b")
    assert s3.keys("state/transcripts/") == [f"state/{kept}", f"state/{layout.captions(kept)}"]
    reader = TranscriptReader(s3.state)
    with pytest.raises(TranscriptGone, match=r"a\.json is not there"):
        reader.cues(one)
    assert [each.text for each in reader.cues(other)] == ["Thank", "My"]


def test_transcript_that_the_ledger_does_not_know_is_deleted_too(s3: Store) -> None:
    event = saved(TranscriptWriter(s3.state, DAY))
    delete_transcript(s3.state, str(event.transcript_uri), LedgerView())
    assert s3.keys("state/transcripts/") == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"words": 5}', b"\xff", b"[" * 100_000])
def test_damaged_document_fails_its_call_alone(s3: Store, body: bytes) -> None:
    event = saved(TranscriptWriter(s3.state, DAY))
    s3.state.put(f"transcripts/dt={DAY}/k.json", body)
    with pytest.raises(ProviderError, match=r"k\.json or its captions are damaged"):
        TranscriptReader(s3.state).cues(event)
