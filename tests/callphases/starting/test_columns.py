"""Columns that keys have values for."""

from __future__ import annotations

import re

import pytest

from callphases.starting.columns import columns_of, folder_column
from doubles import pipeline


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["q/queue=a/1.mp3", "q/queue=b/2.mp3"], {"queue": ["a", "b"]}),
        (["agent-7/1.mp3", "agent-x y/2.mp3"], {"agent": ["7", "x y"]}),
        (["c/1_agent-7_x.mp3", "c/2_agent-8_x.mp3"], {"agent": ["7", "8"]}),
        (["Team_A/inbound/1.mp3", "Team_B/outbound/2.mp3"], {"team": ["A", "B"], "direction": ["inbound", "outbound"]}),
        (["conversationId=1/a.mp3", "conversationId=2/a.mp3"], {"conversation_id": ["1", "2"]}),
        (["status=open/a.mp3", "status=done/a.mp3"], {"key_status": ["open", "done"]}),
        (["year=2026/month=11/a.mp3", "dt=2026-11-20/b.mp3"], {}),
        (["agent-7/1.mp3", "x/2.mp3", "y/3.mp3"], {}),
    ],
)
def test_columns_read_the_values_of_keys(keys: list[str], expected: dict[str, list[str]]) -> None:
    columns = columns_of(keys, "")
    read = {
        name: [found[name] for key in keys if (found := re.search(pattern, key))] for name, pattern in columns.items()
    }
    assert read == expected
    assert pipeline(recordings={"columns": {name: {"key_pattern": pattern} for name, pattern in columns.items()}})


def test_value_that_the_prefix_has_is_no_column() -> None:
    assert columns_of(["queue=a/1.mp3", "queue=a/2.mp3"], "queue=a/{date:%Y}/") == {}


@pytest.mark.parametrize(
    ("folders", "column"),
    [
        ({"agent-7", "agent-8"}, ("agent", "agent-")),
        ({"site=x", "site=y"}, ("site", "site=")),
        ({"inbound", "outbound"}, ("direction", "")),
        ({"acme", "globex"}, ("tenant", "")),
    ],
)
def test_folders_name_their_column(folders: set[str], column: tuple[str, str]) -> None:
    assert folder_column(folders) == column
