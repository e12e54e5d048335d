"""Tests of request counters."""

import pytest

from speechbox.traffic import KINDS, Traffic


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/v2/transcript", "submissions"),
        ("GET", "/v2/transcript", "lists"),
        ("GET", "/v2/transcript/x", "lookups"),
        ("DELETE", "/v2/transcript/x", "deletes"),
        ("GET", "/v2/transcript/x/vtt", "captions"),
        ("GET", "/v2/transcript/x/srt", "captions"),
        ("GET", "/v2/transcript/x/sentences", "other"),
        ("POST", "/v2/upload", "uploads"),
        ("POST", "/v1/chat/completions", "chat"),
        ("PUT", "/v2/transcript/x", "other"),
        ("POST", "/v2/nothing", "other"),
    ],
)
def test_requests_are_counted_by_kind(method: str, path: str, kind: str) -> None:
    traffic = Traffic()
    traffic.arrived(method, path)
    assert traffic.report()["requests"] == {**dict.fromkeys(KINDS, 0), kind: 1}


def test_responses_403_and_429_are_counted_as_refused() -> None:
    traffic = Traffic()
    for status in (200, 429, 403, 500, 503):
        traffic.answered(status)
    assert traffic.report()["refused"] == 2


def test_chats_are_counted_per_model() -> None:
    traffic = Traffic()
    for model in ("a", "b", "a"):
        traffic.chat_arrived(model)
    assert traffic.report()["most_chats_a_minute"] == {"a": 2, "b": 1}
