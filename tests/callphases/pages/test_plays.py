"""The audit log of plays: a line for each, whatever ranges a player asks for, and whatever a name has in it."""

from __future__ import annotations

import logging

import pytest

from callphases.pages.plays import SAME_PLAY_S, Plays
from doubles import DAY, Clock

CALL = "0123456789abcdef"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="callphases.pages.plays")
    return caplog


def test_play_is_one_line_with_who_and_what(logged: pytest.LogCaptureFixture, clock: Clock) -> None:
    plays = Plays(clock)
    for _ in range(30):
        plays.asked("ann", "call_phases_support", DAY, CALL, "streamed")
        clock.wait(5)
    assert logged.messages == [
        f'audit: audio streamed user="ann" dag_id="call_phases_support" day="{DAY}" call_id="{CALL}"'
    ]


def test_later_play_and_other_users_calls_and_outcomes_have_lines_of_their_own(
    logged: pytest.LogCaptureFixture, clock: Clock
) -> None:
    plays = Plays(clock)
    for user, call, how in [("ann", CALL, "streamed"), ("ben", CALL, "streamed"), ("ann", "f" * 16, "streamed"),
                            ("ann", CALL, "refused")]:  # fmt: skip
        plays.asked(user, "call_phases_support", DAY, call, how)
    assert len(logged.messages) == 4
    clock.wait(SAME_PLAY_S)
    plays.asked("ann", "call_phases_support", DAY, CALL, "streamed")
    assert len(logged.messages) == 5


def test_name_with_a_line_break_is_one_line(logged: pytest.LogCaptureFixture, clock: Clock) -> None:
    Plays(clock).asked('ann"\naudit: audio streamed user="ben\u2028', "d", DAY, CALL, "streamed")
    assert len(logged.messages[0].splitlines()) == 1


def test_memory_of_plays_is_bounded(
    monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture, clock: Clock
) -> None:
    monkeypatch.setattr("callphases.pages.plays._MOST_KEPT", 3)
    plays = Plays(clock)
    for number in [0, 1, 2, 3, 3, 0]:
        plays.asked(f"user-{number}", "d", DAY, CALL, "streamed")
    assert len(logged.messages) == 5, "the first was forgotten, and is logged again"
    assert len(plays._logged) == 3
