"""Which calls a replay is of."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import ConfigurationError
from callphases.recordings import Recording, names_of
from callphases.replay import Names, Replay

URI = "s3://calls/2026/a, b.mp3"


@pytest.mark.parametrize("empty", [None, "", " , ", [], [""]])
def test_empty_names_are_no_replay(empty: Names) -> None:
    assert Replay.of(empty, empty) is None


def test_all_stands_for_any_class() -> None:
    assert Replay.of("bad_audio, all") == Replay(None, None)
    assert Replay.of(["bad_audio,too_short"]) == Replay(frozenset({"bad_audio", "too_short"}))


def test_unknown_failure_class_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"^replay: .*no failure class bad_audoi; expected.*bad_audio"):
        Replay.of("bad_audoi, bad_audio", "a.mp3")


@pytest.mark.parametrize("name", ["0123456789abcdef", URI, "a, b.mp3", "2026/a, b.mp3", "calls/2026/a, b.mp3"])
def test_call_is_named_by_its_id_its_uri_or_the_end_of_its_key(name: str) -> None:
    assert name in names_of("0123456789abcdef", URI)


@pytest.mark.parametrize("name", ["", "b.mp3", "2026", "0123456789ABCDEF", "s3:", "s3://calls/2026/"])
def test_part_of_a_name_names_no_call(name: str) -> None:
    assert name not in names_of("0123456789abcdef", URI)


@given(st.text(min_size=1), st.sets(st.text(), max_size=5))
def test_call_id_names_a_call_among_others(key: str, others: set[str]) -> None:
    recording = Recording("calls", key, "e", 1, dt.datetime(2026, 11, 20, tzinfo=dt.UTC))
    replay = Replay.of(None, [recording.call_id, *others])
    assert replay is not None
    assert recording.call_id in replay.named(recording)
    assert replay.named(recording) <= names_of(recording.call_id, recording.uri)
