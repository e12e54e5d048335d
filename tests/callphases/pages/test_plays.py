"""The audit log of plays: a line for each, whatever ranges a player asks for, and whatever a name has in it."""

from __future__ import annotations

import logging

import pytest

from callphases.pages.plays import PROBING_S, SAME_PLAY_S, Plays
from doubles import DAY, Clock

CALL, DAG_ID = "0123456789abcdef", "call_phases_support"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="callphases.pages.plays")
    return caplog


def begin(plays: Plays, range_header: str | None, user: str = "ann", call: str = CALL) -> bool:
    """Whether a request is a new play."""
    audited: list[bool] = []
    plays.begin(user, DAG_ID, DAY, call, range_header, lambda: audited.append(True))
    return bool(audited)


def test_play_is_one_line_with_who_and_what(logged: pytest.LogCaptureFixture, clock: Clock) -> None:
    plays = Plays(clock)
    for number in range(60):
        begin(plays, f"bytes={number * 1000}-")
        clock.wait(60)
    assert logged.messages == [f'audit: audio listens user="ann" dag_id="{DAG_ID}" day="{DAY}" call_id="{CALL}"']


@pytest.mark.parametrize(
    ("asked", "plays"),
    [
        ([("bytes=0-1", 0), ("bytes=0-", 0.1), ("bytes=65536-", 1)], 1),  # Safari
        ([("bytes=0-", 0), ("bytes=900000-", 0.2), ("bytes=0-", 0.1), ("bytes=400000-", 60)], 1),  # an index at the end
        ([("bytes=0-", 0), ("bytes=0-", PROBING_S)], 2),
        ([("bytes = 0-", 0), ("bytes = 0-", 30)], 2),
        ([(None, 0), (None, 0)], 2),
        ([("bytes=1-", 0), ("bytes=2-", 5)], 1),
        ([("bytes=1-", 0), ("bytes=2-", SAME_PLAY_S)], 2),
    ],
)
def test_players_ranges_are_one_play_and_beginning_again_is_another(
    asked: list[tuple[str | None, float]], plays: int, clock: Clock
) -> None:
    seen, found = Plays(clock), 0
    for range_header, after_s in asked:
        clock.wait(after_s)
        found += begin(seen, range_header)
    assert found == plays


def test_other_users_and_calls_are_plays_of_their_own(clock: Clock) -> None:
    plays = Plays(clock)
    assert begin(plays, "bytes=5-")
    assert begin(plays, "bytes=5-", user="ben")
    assert begin(plays, "bytes=5-", call="f" * 16)
    assert not begin(plays, "bytes=5-")


def test_play_that_can_not_be_audited_does_not_begin(logged: pytest.LogCaptureFixture, clock: Clock) -> None:
    def fail() -> None:
        raise OSError("no database")

    plays = Plays(clock)
    with pytest.raises(OSError, match="no database"):
        plays.begin("ann", DAG_ID, DAY, CALL, "bytes=0-", fail)
    assert logged.messages == []
    assert begin(plays, "bytes=0-")


def test_name_with_a_line_break_is_one_line(logged: pytest.LogCaptureFixture, clock: Clock) -> None:
    begin(Plays(clock), None, user='ann"\naudit: audio listens user="ben\u2028')
    Plays(clock).refused('ann"\naudit: audio listens user="ben\u2028', DAG_ID, DAY, CALL)
    assert [len(message.splitlines()) for message in logged.messages] == [1, 1]


def test_memory_of_plays_is_bounded(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr("callphases.pages.plays._MOST_KEPT", 3)
    plays = Plays(clock)
    assert [begin(plays, "bytes=1-", user=f"user-{number}") for number in [0, 1, 2, 3, 3, 0]] == [
        True, True, True, True, False, True,
    ]  # fmt: skip
