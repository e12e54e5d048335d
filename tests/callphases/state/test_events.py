"""Ledger events as lines of JSON: this version's, the previous one's, and those of a newer one."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import BadAudio, ProviderError
from callphases.state.events import (
    UNSTAMPED,
    Answered,
    Claimed,
    Deleted,
    Described,
    Event,
    Failed,
    Intended,
    ModelUsage,
    Stopped,
    Submitted,
    Transcribed,
    Unknown,
    Withdrawn,
    failed,
    from_document,
    parse,
    serialize,
    stamped,
    to_document,
)
from callphases.state.ledger import LedgerView
from callphases.state.manifests import Manifest
from doubles import NOON, Store, manifest, recording

PREVIOUS = Path(__file__).parents[2] / "fixtures" / "previous_version" / "previous-warehouse"
KINDS: list[type[Event]] = [
    *(Intended, Withdrawn, Submitted, Transcribed, Described),
    *(Answered, Failed, Stopped, Deleted, Claimed),
]
REQUIRED: dict[type[Event], dict[str, Any]] = {
    Submitted: {"transcript_id": "t-1"},
    Transcribed: {"status": "completed", "transcript_id": "t-1"},
    Answered: {"duration_s": 30.0, "phases": []},
    Failed: {"failure_class": "bad_audio", "failure_message": "No audio.", "permanent": True},
    Stopped: {"failure_class": "unfinished", "failure_message": "Not done."},
    Deleted: {"transcript_id": "t-1"},
}
HEAD = {"key": "k", "recording": "calls/a.mp3", "at": "2024-05-15T04:08:06.042203+00:00", "term": 2, "run_id": "old"}

FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
JSON_OBJECT = st.dictionaries(st.text(), JSON, max_size=3)
USAGE = st.builds(
    ModelUsage,
    llm_model=st.none() | st.text(),
    llm_input_tokens=st.integers(),
    llm_output_tokens=st.integers(),
    llm_usd=st.none() | FINITE,
)
OF_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "at": st.datetimes(dt.datetime(2000, 1, 1), timezones=st.just(dt.UTC)),
    "phases": st.lists(JSON_OBJECT, max_size=3),
    "talk": JSON_OBJECT,
    "unread": st.dictionaries(st.text().map("new_{}".format), JSON, max_size=2),
}
OF_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    float: FINITE,
    float | None: st.none() | FINITE,
    ModelUsage: USAGE,
    ModelUsage | None: st.none() | USAGE,
    Mapping[str, str]: st.dictionaries(st.text(), st.text(), max_size=3),
}


def strategy(name: str, type_: Any) -> st.SearchStrategy[Any]:
    """Any value of a field."""
    if name in OF_FIELD:
        return OF_FIELD[name]
    return OF_TYPE[type_] if type_ in OF_TYPE else st.from_type(type_)


def events(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Any event of a kind."""
    types = get_type_hints(kind)
    hints = {one.name: types[one.name] for one in fields(kind)}
    return st.builds(kind, **{name: strategy(name, type_) for name, type_ in hints.items()})


@given(st.lists(st.one_of([events(kind) for kind in KINDS]), max_size=3))
def test_events_are_read_as_they_were_written(written: list[Event]) -> None:
    read = parse(serialize(written))
    assert read == written
    assert [event.unread for event in read] == [event.unread for event in written]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_kind_of_event_can_be_serialized(kind: type[Event]) -> None:
    assert kind.kind
    assert from_document({"event": kind.kind, **REQUIRED.get(kind, {}), "key": "k"}).kind == kind.kind


def test_stamped_event_has_the_ledger_fields() -> None:
    event = stamped(Withdrawn(key="k"), NOON, 3, "run-1")
    assert (event.at, event.fencing_token, event.run_id) == (NOON, 3, "run-1")
    document = {"event": "withdrawn", "key": "k", "term": 3, "run_id": "run-1", "at": "2026-11-20T12:00:00+00:00"}
    assert to_document(event) == document


def test_unstamped_event_has_no_time_in_its_document() -> None:
    assert to_document(Withdrawn(key="k")) == {"event": "withdrawn", "key": "k"}
    assert from_document({"event": "withdrawn", "key": "k"}).at == UNSTAMPED


def test_failed_event_takes_class_and_message_of_the_failure() -> None:
    event = failed("k", BadAudio("No audio"), "calls/a.mp3")
    assert (event.failure_class, event.permanent) == ("bad_audio", True)
    assert event.failure_message == str(BadAudio("No audio"))


def test_failure_message_with_half_a_character_can_be_written() -> None:
    event = failed("k", ProviderError("cut \ud83d"), "calls/a.mp3")
    assert parse(serialize([event])) == [event]


# Previous version


def lines_of_the_previous_version() -> list[dict[str, Any]]:
    segments = sorted(PREVIOUS.glob("*/state/ledger/*/*/*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment.read_bytes().splitlines()]


def test_ledger_lines_of_the_previous_version_lose_nothing_but_defaults() -> None:
    documents = lines_of_the_previous_version()
    assert len(documents) > 50
    assert {document["event"] for document in documents} >= {"intended", "transcribed", "answered", "failed", "deleted"}
    for document in documents:
        event = from_document(document)
        written = to_document(event)
        assert not event.unread
        assert from_document(written) == event
        left_out = {name: value for name, value in document.items() if name not in written}
        assert document == written | left_out
        defaults = {one.name: one.default for one in fields(event)}
        assert left_out == {name: defaults[name] for name in left_out}


@pytest.mark.parametrize(
    ("document", "event"),
    [
        (
            {"event": "transcribed", "status": "no_speech", "transcript_id": "t-1", "transcript_uri": None}
            | {"cues": "", "audio_s": 4.0, "language": None, "speech_model": None, "speech_usd": None},
            Transcribed(key="k", status="no_speech", transcript_id="t-1", audio_s=4.0),
        ),
        (
            {"event": "transcribed", "status": "completed", "transcript_id": "t-1"},
            Transcribed(key="k", status="completed", transcript_id="t-1"),
        ),
        (
            {"event": "submitted", "transcript_id": "t-1", "tries": 2, "model": None},
            Submitted(key="k", transcript_id="t-1", tries=2),
        ),
        (
            {"event": "answered", "duration_s": 1.5, "phases": [], "talk": {}, "prompt_version": None}
            | {"llm_model": None, "llm_input_tokens": 0, "llm_output_tokens": 0, "llm_usd": None},
            Answered(key="k", duration_s=1.5, phases=[], usage=ModelUsage(llm_usd=None)),
        ),
        (
            {"event": "failed", "failure_class": "bad_audio", "failure_message": "No audio.", "permanent": True},
            Failed(key="k", failure_class="bad_audio", failure_message="No audio.", permanent=True),
        ),
    ],
    ids=["no speech", "without optional fields", "model null", "price unknown", "failed without a job"],
)
def test_document_of_the_previous_version_is_parsed(document: dict[str, Any], event: Event) -> None:
    moment = dt.datetime.fromisoformat(str(HEAD["at"]))
    expected = stamped(event, moment, 2, "old")
    assert from_document(document | HEAD | {"recording": ""}) == expected


def test_event_of_an_early_version_has_neither_token_nor_recording() -> None:
    event = from_document({"event": "intended", "key": "k", "at": HEAD["at"], "run_id": "old"})
    assert (event.fencing_token, event.recording) == (0, "")


def test_failure_without_usage_differs_from_one_with_usage() -> None:
    document = {"event": "failed", "failure_class": "answer_cut", "failure_message": "Cut.", "permanent": False} | HEAD
    usage = {"llm_model": "m", "llm_input_tokens": 3, "llm_output_tokens": 4, "llm_usd": None}
    without, with_usage = from_document(document), from_document(document | usage)
    assert isinstance(without, Failed)
    assert without.usage is None
    assert isinstance(with_usage, Failed)
    assert with_usage.usage == ModelUsage(llm_model="m", llm_input_tokens=3, llm_output_tokens=4, llm_usd=None)


# Newer version

NEWER = {"event": "reviewed", **HEAD, "by": {"name": "Zoë"}, "scores": [1, 2.5, None], "note": "a\u2028b"}


def test_unknown_kind_is_ignored_by_find() -> None:
    known = Submitted(key="k", recording="calls/a.mp3", transcript_id="t-1", at=NOON)
    view = LedgerView([known, from_document(NEWER | {"at": "2999-01-01T00:00:00+00:00", "term": 9})])
    assert view.find("k") == known
    assert LedgerView([from_document(NEWER)]).find("k") is None


@pytest.mark.integration
def test_unknown_kind_passes_through_view_and_manifest_unchanged(s3: Store) -> None:
    line = (json.dumps(NEWER, ensure_ascii=False) + "\n").encode()
    known = LedgerView(parse(line)).of([recording("calls/a.mp3")])
    assert [type(event) for event in known] == [Unknown]
    uri = manifest(recording("calls/a.mp3"), known=known).save(s3.state)
    again = Manifest.load(s3.state, uri).known
    assert serialize(again) == line
    assert (s3.state.get(uri.removeprefix(s3.state.uri)) or b"").endswith(line)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_unknown_kind_is_written_as_it_was_read(more: dict[str, Any]) -> None:
    document = {**more, "event": "reviewed", "key": "k", "recording": "calls/a.mp3", "at": HEAD["at"]}
    assert json.dumps(to_document(from_document(document))) == json.dumps(document)


@pytest.mark.integration
def test_unknown_field_of_a_known_kind_passes_through_a_manifest(s3: Store) -> None:
    document = {"event": "submitted", "transcript_id": "t-1", **HEAD, "region": {"name": "eu"}}
    uri = manifest(recording("calls/a.mp3"), known=[from_document(document)]).save(s3.state)
    (event,) = Manifest.load(s3.state, uri).known
    assert event.unread == {"region": {"name": "eu"}}
    assert to_document(event) == document


@pytest.mark.parametrize("kind", [Submitted, Transcribed, Stopped, Claimed], ids=lambda kind: kind.kind)
def test_usage_of_a_kind_without_usage_is_kept_as_unknown_fields(kind: type[Event]) -> None:
    document = {"event": kind.kind, "key": "k", **REQUIRED.get(kind, {}), "llm_model": "m", "llm_usd": 0.5}
    assert to_document(from_document(document)) == document


# Rank


def test_final_event_has_a_higher_rank_than_any_later_event() -> None:
    final = Transcribed(key="k", status="completed", transcript_id="t-1", at=NOON, fencing_token=1)
    later = Failed(
        key="k", failure_class="x", failure_message="", permanent=True, at=NOON + dt.timedelta(days=1), fencing_token=9
    )
    assert final.rank > later.rank


def test_usage_adds_up_and_an_unknown_price_stays_unknown() -> None:
    usage = ModelUsage().plus("a", 10, 1, 0.5).plus(None, 99, 99, 9.9).plus("b", 5, 2, 0.25)
    assert usage == ModelUsage(llm_model="b", llm_input_tokens=15, llm_output_tokens=3, llm_usd=0.75)
    assert usage.plus("c", 1, 1, None).plus("b", 1, 1, 1.0).llm_usd is None
