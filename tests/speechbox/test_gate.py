"""Tests of an account's limits and of the request counters in GET /health."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from servers import Box

pytestmark = pytest.mark.integration

URL = "https://recordings.example/a.wav"
RULES = [{"match": "hello", "name": "Introduction"}]
CALL = {"call": 1, "cues": [{"cue": 1, "speaker": "A", "text": "Hello."}]}


def ask(box: Box, model: str = "one", calls: int = 1, **more: Any) -> requests.Response:
    document = {"phases": [], "calls": [{**CALL, "call": number} for number in range(1, calls + 1)]}
    body = {"model": model, "messages": [{"role": "user", "content": json.dumps(document)}], **more}
    # A session is not thread-safe.
    headers = {"Authorization": box.key}
    return requests.post(f"{box.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def rate_limit(response: requests.Response) -> tuple[int, int, int]:
    limit, remaining, reset = (int(response.headers[f"X-RateLimit-{name}"]) for name in ("Limit", "Remaining", "Reset"))
    return limit, remaining, reset


def health(box: Box) -> dict[str, Any]:
    return dict(box.get("/health").json())


def test_chats_over_the_limit_of_their_model_are_refused(start) -> None:
    box = start(script={"chat": {"phases": RULES, "requests_per_minute": 3}})
    answers = [ask(box) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [rate_limit(answer)[:2] for answer in answers] == [(3, 2), (3, 1), (3, 0), (3, 0), (3, 0)]
    assert all(1 <= rate_limit(answer)[2] <= 60 for answer in answers)
    assert answers[4].json()["error"] == {"code": 429, "message": "Too Many Requests"}
    assert answers[4].json()["request_id"]
    other = ask(box, "two")
    assert (other.status_code, rate_limit(other)[:2]) == (200, (3, 2))
    told = health(box)
    assert (told["questions"], told["requests"]["chat"], told["refused"]) == (4, 6, 2)
    assert told["most_chats_a_minute"] == {"one": 5, "two": 1}
    assert box.get("/v2/transcript").status_code == 200, "the speech API has its own limits"


def test_every_gateway_response_has_rate_limit_headers(start) -> None:
    box = start(script={"chat": {"phases": RULES, "requests_per_minute": 30}})
    assert rate_limit(ask(box, stream=True))[:2] == (30, 29)
    rule = {"fault": "status", "status": 503, "times": 1}
    assert box.request("PUT", "/faults", json={"rules": [rule]}).status_code == 200
    failed = ask(box)
    assert (failed.status_code, rate_limit(failed)[:2]) == (503, (30, 28))
    assert rate_limit(ask(box))[:2] == (30, 27)


def test_gateway_without_a_limit_has_no_rate_limit_headers(scripted) -> None:
    assert not [name for name in ask(scripted).headers if name.lower().startswith("x-ratelimit")]


def test_speech_api_requests_share_one_limit(start) -> None:
    box = start(script={"requests_per_5_minutes": 3, "chat": {"phases": RULES}})
    transcript_id = box.submit(URL)["id"]
    assert box.get(f"/v2/transcript/{transcript_id}").status_code == 200
    assert box.get("/v2/transcript", headers={}).status_code == 401, "requests without a key do not count"
    assert box.get("/v2/transcript").status_code == 200
    refused = [
        box.get(f"/v2/transcript/{transcript_id}/vtt"),
        box.post("/v2/upload", data=b"x" * 100_000),
        box.post("/v2/transcript", json={"audio_url": URL}),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()) == (429, {"error": "Too Many Requests"})
        assert 1 <= int(answer.headers["Retry-After"]) <= 300
    assert ask(box).status_code == 200
    told = health(box)
    assert (told["submissions"], told["refused"]) == (1, 3)
    assert told["requests"] == {
        "submissions": 2, "lookups": 1, "lists": 1, "captions": 1, "deletes": 0, "uploads": 1, "chat": 1, "other": 0,
    }  # fmt: skip


def test_command_line_limits_override_the_script(start) -> None:
    arguments = ("--requests-per-5-minutes", "1", "--chat-requests-per-minute", "2", "--chats-at-once", "1")
    box = start(*arguments, script={"chat": {"phases": RULES, "requests_per_minute": 9}})
    assert [box.get("/v2/transcript").status_code for _ in range(2)] == [200, 429]
    assert rate_limit(ask(box))[:2] == (2, 1)


@pytest.mark.parametrize(("at_once", "most", "last_s"), [(2, 2, 3.0), (None, 6, 1.0)])
def test_chats_over_at_once_wait_in_order(start, at_once: int | None, most: int, last_s: float) -> None:
    box = start(script={"chat": {"phases": RULES, "at_once": at_once, "latency_s": 0.6, "latency_s_per_call": 0.2}})
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask(box, calls=2), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    # uvloop rounds timers to milliseconds, so one may fire a millisecond early.
    assert all(answer.json()["response_time"] >= 0.99 for answer in answers), "two calls take longer"
    assert max(answer.elapsed.total_seconds() for answer in answers) >= last_s - 0.01, (
        "each has its time, after the others"
    )
    told = health(box)
    assert (told["most_chats_at_once"], told["most_chats_a_minute"], told["questions_calls"]) == (most, {"one": 6}, 12)


def test_most_jobs_at_once_includes_queued_jobs(start) -> None:
    box = start("--jobs", "1", script={"files": [{"match": "*/slow.wav", "latency_s": 60}]})
    assert health(box)["most_jobs_at_once"] == 0
    for _ in range(3):
        box.transcribe(URL)
    assert health(box)["most_jobs_at_once"] == 1
    for name in ("slow", "a", "b", "c"):
        box.submit(f"https://recordings.example/{name}.wav")
    assert health(box)["most_jobs_at_once"] == 4


def test_requests_answered_by_a_fault_are_counted(start) -> None:
    box = start(script={"chat": {"phases": RULES}})
    rules = [
        {"fault": "drop", "on": "GET /v2/transcript", "times": 1},
        {"fault": "status", "status": 429, "on": "POST /v2/transcript", "times": 1},
        {"fault": "status", "status": 500, "on": "DELETE /v2/transcript/*"},
        {"fault": "status", "status": 429, "on": "POST /v1/*", "times": 2},
    ]
    box.request("PUT", "/faults", json={"rules": rules})
    with pytest.raises(requests.ConnectionError):
        box.get("/v2/transcript")
    assert box.post("/v2/transcript", json={"audio_url": URL}).status_code == 429
    assert box.request("DELETE", "/v2/transcript/x").status_code == 500
    assert [ask(box).status_code for _ in range(3)] == [429, 429, 200]
    told = health(box)
    assert told["refused"] == 3
    assert told["requests"] == {
        "submissions": 1, "lookups": 0, "lists": 1, "captions": 0, "deletes": 1, "uploads": 0, "chat": 3, "other": 0,
    }  # fmt: skip
    assert told["most_chats_a_minute"] == {"one": 3}
    assert (told["submissions"], told["questions"]) == (0, 1)


@pytest.mark.parametrize(
    "script",
    [
        {"requests_per_5_minutes": 0},
        {"chat": {"at_once": 0}},
        {"chat": {"requests_per_minute": 0}},
        {"chat": {"latency_s_per_call": -1}},
    ],
)
def test_invalid_limit_in_a_script_is_refused(script: dict[str, Any]) -> None:
    from pydantic import ValidationError

    from speechbox.engines.scripted import Script

    with pytest.raises(ValidationError):
        Script.model_validate(script)
