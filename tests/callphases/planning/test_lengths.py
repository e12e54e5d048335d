"""How many recordings are measured, which, and what that tells of the others."""

from __future__ import annotations

import random
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callphases.limits.audio_files.stretches import Audio
from callphases.planning import lengths
from callphases.planning.lengths import PLACE, Measured, measure
from callphases.planning.questions import CallTokens, expected
from callphases.planning.sampling import totals
from callphases.planning.survey import ToTranscribe
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from doubles import OneThread, pipeline, recording

TOKENS: CallTokens = expected(pipeline(), 500)


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are measured; a recording's key says how long it is."""
    keys: list[str] = []

    def audio_of(_: RecordingBucket, one: Recording) -> Audio | None:
        keys.append(one.key)
        seconds = one.key.split("-")[1].removesuffix(".mp3")
        if seconds == "denied":
            raise OSError
        return None if seconds == "text" else Audio(float(seconds))

    monkeypatch.setattr(lengths, "audio_of", audio_of)
    monkeypatch.setattr(lengths, "ThreadPoolExecutor", OneThread)
    return keys


def measured(todo: ToTranscribe, most: int | None) -> Measured:
    bucket = RecordingBucket(None, "recordings")  # type: ignore[arg-type]
    return measure(bucket, todo, TOKENS, is_multichannel=False, most=most, told=lambda *_: None)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(50, 900))
def test_no_more_are_measured_than_asked_for_and_none_twice(seed: int, most: int) -> None:
    chance = random.Random(seed)
    keys: list[str] = []
    with pytest.MonkeyPatch.context() as patch, closing(ToTranscribe("recordings")) as todo:
        patch.setattr(lengths, "audio_of", lambda _, one: keys.append(one.key) or Audio(one.size / 1000))
        for number in range(chance.randrange(1, 1500)):
            suffix = chance.choice(["wav", "mp3", "ogg", "opus"])
            size = round(chance.lognormvariate(10, 2)) + 1
            month = f"2026-{chance.randrange(1, 13):02}"
            todo.add(recording(f"{number}.{suffix}", size=size), month)
        found = measured(todo, most)
        assert len(keys) == len(set(keys)) == found.read == min(most, len(todo))
        total = sum(cell.size for cell in todo.cells.values()) / 1000
    assert totals(found.strata, PLACE["audio_s"], [])[None].total == pytest.approx(total, rel=1e-3)


def test_largest_recordings_are_always_measured(seen: list[str]) -> None:
    with closing(ToTranscribe("recordings")) as todo:
        for number in range(2000):
            todo.add(recording(f"{number}-60.mp3", size=100_000), "2026-11")
        todo.add(recording("huge-36000.mp3", size=110_000), "2026-11")
        found = measured(todo, 300)
    assert "huge-36000.mp3" in seen
    estimate = totals(found.strata, PLACE["billed_s"], [])[None]
    assert estimate.total == pytest.approx(2000 * 60 + 36_000)
    assert estimate.high == pytest.approx(estimate.low)


def test_recordings_that_fail_cost_nothing() -> None:
    with closing(ToTranscribe("recordings")) as todo:
        for name in ("a-0.1", "b-text", "c-denied", "d-1.2", "e-0"):
            todo.add(recording(f"calls/{name}.mp3", size=1000), "2026-11")
        found = measured(todo, None)
    values = {name: totals(found.strata, place, [])[None].total for name, place in PLACE.items()}
    assert (values["calls"], values["billed_s"], values["not_audio"], values["not_read"]) == (1, 2, 2, 1)
    assert found.examples == {"not_audio": ["calls/b-text.mp3", "calls/e-0.mp3"], "not_read": ["calls/c-denied.mp3"]}
    assert values["tokens_in"] == TOKENS.of(2).input
