"""Tests of fault injection: what clients of a real server observe."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
import yaml

from servers import KEY, Box, running

pytestmark = pytest.mark.integration

URL = "https://recordings.example/calls/a.wav"
MODEL = "claude-sonnet-4-6"
NAMES = ("Introduction", "Complaint")
PHASES = [{"name": name, "description": ""} for name in NAMES]
TEXTS = ("Thank you for calling.", "My bill is wrong.", "I was charged twice.")
SCRIPT = {"chat": {"phases": [{"match": "thank you", "name": NAMES[0]}, {"match": "wrong", "name": NAMES[1]}]}}

Misbehave = Callable[..., Box]


def question(calls: int = 1, cues: int = 3, **more: Any) -> dict[str, Any]:
    """Create a chat about calls that have two phases."""
    said = [{"cue": number, "speaker": "A", "text": TEXTS[min(number - 1, 2)]} for number in range(1, cues + 1)]
    document = {"phases": PHASES, "calls": [{"call": number, "cues": said} for number in range(1, calls + 1)]}
    return {"model": MODEL, "messages": [{"role": "user", "content": json.dumps(document)}], **more}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "script.yaml").write_text(yaml.safe_dump(SCRIPT))
    with running(folder / "data", "--engine", "scripted", "--script", str(folder / "script.yaml")) as box:
        yield box


@pytest.fixture
def misbehave(server: Box) -> Any:
    """Set rules on a server that the tests of this module share: `misbehave({"fault": …}, …, seed=7)`."""

    def put(*rules: dict[str, Any], seed: int = 7) -> Box:
        response = server.request("PUT", "/faults", json={"seed": seed, "rules": rules})
        assert response.status_code == 200, response.text
        return server

    yield put
    assert server.request("DELETE", "/faults").json()["counts"] == []


def counts(box: Box) -> list[tuple[int, int]]:
    return [(rule["looked_at"], rule["fired"]) for rule in box.get("/faults").json()["counts"]]


def listed(box: Box, audio_url: str) -> list[str]:
    items = box.get("/v2/transcript?limit=200").json()["transcripts"]
    return [item["id"] for item in items if item["audio_url"] == audio_url]


def asked(box: Box) -> tuple[int, int, int]:
    health = box.get("/health").json()
    return health["submissions"], health["questions"], health["questions_calls"]


# The document and its endpoints


def test_faults_can_be_set_read_and_removed(misbehave: Misbehave) -> None:
    rules = [{"fault": "status", "status": 503, "on": "GET /v2/transcript", "times": 1}, {"fault": "job_error"}]
    box = misbehave(*rules, seed=3)
    assert [box.get("/v2/transcript").status_code for _ in range(3)] == [503, 200, 200]
    shown = box.get("/faults").json()
    assert shown["faults"] == {"seed": 3, "rules": rules}
    assert shown["counts"] == [
        {"fault": "status", "looked_at": 3, "fired": 1},
        {"fault": "job_error", "looked_at": 0, "fired": 0},
    ]
    assert box.request("PUT", "/faults", json=shown["faults"]).json()["counts"][0]["looked_at"] == 0
    assert box.get("/v2/transcript").status_code == 503
    assert box.request("DELETE", "/faults").json() == {"faults": {"seed": 0}, "counts": []}
    assert box.get("/v2/transcript").status_code == 200


def test_yaml_document_reads_on_as_a_string(misbehave: Misbehave) -> None:
    box = misbehave()
    document = "rules:\n  - {fault: status, status: 500, on: GET /v2/*, times: 1}\n"
    shown = box.request("PUT", "/faults", data=document).json()
    assert shown["faults"]["rules"] == [{"fault": "status", "status": 500, "on": "GET /v2/*", "times": 1}]


def test_health_and_faults_endpoints_never_fail(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "drop"})
    assert box.get("/health").status_code == 200
    assert box.get("/faults").json()["counts"] == [{"fault": "drop", "looked_at": 0, "fired": 0}]
    for method in ("GET", "PUT", "DELETE"):
        assert box.request(method, "/faults", headers={"Authorization": "wrong"}).status_code == 401
    assert box.get("/v2/transcript", headers={"Authorization": "wrong"}).status_code == 401
    with pytest.raises(requests.ConnectionError):
        box.get("/v2/transcript")


BAD_DOCUMENTS = [
    ({"rules": [{"fault": "explode"}]}, "rules.0.fault: explode is not one of status, drop, "),
    ({"rules": [{"fault": "drop"}, {"fault": "drop", "rate": 2}]}, "rules.1.rate: Input should be less than or equal"),
    ({"rules": [{"fault": "drop", "chance": 1}]}, "rules.0.chance: Extra inputs are not permitted"),
    ({"rules": [{"rate": 1}]}, "rules.0.fault: Field required"),
    ({"rules": [{"fault": "slow"}]}, "rules.0.delay_s: needed by the fault slow"),
    ({"rules": [{"fault": "slow", "delay_s": -1}]}, "rules.0.delay_s: "),
    ({"rules": [{"fault": "drop", "delay_s": 1}]}, "rules.0.delay_s: not a parameter of the fault drop"),
    ({"rules": [{"fault": "status", "status": 200}]}, "rules.0.status: "),
    ({"rules": [{"fault": "status", "status": 403, "shape": "round"}]}, "rules.0.shape: "),
    ({"rules": [{"fault": "retired_models", "models": []}]}, "rules.0.models: "),
    ({"rules": [{"fault": "drop", "on": "/v2/transcript"}]}, "rules.0.on: a method and a path are expected"),
    ({"rules": [{"fault": "fenced", "on": "GET /v2/*"}]}, "rules.0.on: fenced happens on POST /v1/chat/completions"),
    ({"rules": [{"fault": "job_error", "on": "POST /v2/transcript"}]}, "rules.0.on: job_error is a fault of jobs"),
    ({"rules": [{"fault": "fenced", "match": "*.wav"}]}, "rules.0.match: "),
    ({"rules": [{"fault": "drop", "on": "GET /v2/*", "match": "*"}]}, "rules.0.match: "),
    ({"seed": "seven"}, "seed: Input should be a valid integer"),
    ({"rule": []}, "rule: Extra inputs are not permitted"),
    ([], "the document: "),
]


@pytest.mark.parametrize(("document", "message"), BAD_DOCUMENTS, ids=lambda value: str(value)[:50])
def test_invalid_document_is_refused_and_the_key_named(misbehave: Misbehave, document: Any, message: str) -> None:
    box = misbehave({"fault": "status", "status": 503, "on": "GET /v2/transcript"})
    response = box.request("PUT", "/faults", json=document)
    assert response.status_code == 400
    assert response.json()["error"].startswith(message)
    assert "\n" not in response.json()["error"]
    assert box.get("/v2/transcript").status_code == 503, "the active rules stay"


def test_text_that_is_neither_json_nor_yaml_is_refused(misbehave: Misbehave) -> None:
    box = misbehave()
    for text in (b"{", b"a: b: c", b"\xff\xfe\xff", b"just words", b"{rules: [}"):
        response = box.request("PUT", "/faults", data=text)
        assert response.status_code == 400, text
        assert "\n" not in response.json()["error"]


def test_fault_file_is_loaded_at_startup(start, tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text("seed: 5\nrules:\n  - fault: status\n    on: GET /v2/transcript\n    status: 504\n")
    by_option = start("--engine", "scripted", "--faults", str(path))
    assert (by_option.get("/v2/transcript").status_code, by_option.get("/v2/transcript/x").status_code) == (504, 400)
    by_environment = start("--engine", "scripted", data=tmp_path / "other", SPEECHBOX_FAULTS=str(path))
    assert by_environment.get("/v2/transcript").status_code == 504
    assert by_environment.get("/faults").json()["faults"]["seed"] == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rules: [{fault: drop, rate: 1.5}]", "rules.0.rate: Input should be less than or equal to 1"),
        ("rules: [{fault: drop", "neither JSON nor YAML: "),
        (None, "No such file"),
    ],
)
def test_invalid_fault_file_ends_startup_with_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "faults.yaml"
    if content is not None:
        path.write_text(content)
    command = [sys.executable, "-m", "speechbox", "--engine", "scripted", "--port", "0", "--data", str(tmp_path / "d")]
    done = subprocess.run([*command, "--faults", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("speechbox: ")
    assert str(path) in line
    assert message in line


# Which requests a rule applies to, and when it fires


def fired(box: Box, requests_made: int = 60) -> list[bool]:
    return [box.get("/v2/transcript?limit=1").status_code == 503 for _ in range(requests_made)]


def test_same_seed_gives_the_same_faults(misbehave: Misbehave) -> None:
    rule = {"fault": "status", "status": 503, "on": "GET /v2/transcript", "rate": 0.3}
    first = fired(misbehave(rule, seed=1))
    assert 5 < sum(first) < 35
    assert fired(misbehave(rule, seed=1)) == first
    assert fired(misbehave(rule, seed=2)) != first
    twins = misbehave({**rule, "status": 500}, rule, seed=1)
    assert fired(twins) != first, "each rule has its own random stream"


def test_draws_of_a_rule_do_not_depend_on_other_requests_and_rules(misbehave: Misbehave) -> None:
    rule = {"fault": "status", "status": 503, "on": "GET /v2/transcript", "rate": 0.3}
    alone = fired(misbehave({"fault": "job_slow", "delay_s": 0, "rate": 0.5}, rule))
    box = misbehave({"fault": "slow", "delay_s": 0, "on": "GET /v2/transcript/*", "rate": 0.5}, rule)
    mixed = []
    for _ in range(60):
        box.get("/v2/transcript/unknown")
        mixed += fired(box, 1)
    assert mixed == alone


def test_first_rule_that_fires_wins(misbehave: Misbehave) -> None:
    box = misbehave(
        {"fault": "status", "status": 500, "on": "* /v2/*", "times": 1},
        {"fault": "status", "status": 503, "on": "GET /v2/transcript*", "times": 2},
    )
    answers = [box.get("/v2/transcript").status_code for _ in range(4)]
    assert answers == [500, 503, 503, 200]
    assert counts(box) == [(4, 1), (4, 2)]


def test_on_is_a_pattern_of_method_and_path(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "status", "status": 403, "on": "GET /v2/transcript/*"})
    assert box.get("/v2/transcript/x").status_code == 403
    assert box.get("/v2/transcript/x/vtt").status_code == 403
    assert box.get("/v2/transcript").status_code == 200
    assert box.request("DELETE", "/v2/transcript/x").status_code == 400


def test_match_is_a_pattern_of_the_decoded_audio_path(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "status", "status": 500, "match": "/calls/café *.wav"})
    refused = box.post("/v2/transcript", json={"audio_url": "https://host/calls/caf%C3%A9%201.wav?signature=x"})
    assert refused.status_code == 500
    assert box.submit("https://host/calls/cafe.wav")["status"] == "queued"
    assert box.get("/v2/transcript").status_code == 200
    assert box.post("/v2/transcript", json={"audio_url": "http://[broken"}).status_code == 400
    assert box.post("/v2/transcript", data=b"[]").status_code == 400
    assert counts(box) == [(1, 1)]


# Faults of requests


def test_status_429_has_the_configured_retry_after(misbehave: Misbehave) -> None:
    box = misbehave(
        {"fault": "status", "status": 429, "times": 1},
        {"fault": "status", "status": 429, "retry_after_s": 0, "times": 1},
        {"fault": "status", "status": 429, "retry_after_s": None, "times": 1},
        {"fault": "status", "status": 503, "retry_after_s": 9, "times": 1},
    )
    answers = [box.post("/v2/transcript", json={"audio_url": URL}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [429, 429, 429, 503, 200]
    assert answers[0].json() == {"error": "Too Many Requests"}
    assert [answer.headers.get("retry-after") for answer in answers] == ["1", "0", None, "9", None]


def test_error_bodies_have_the_speech_apis_format(misbehave: Misbehave) -> None:
    box = misbehave(
        {"fault": "status", "status": 500, "times": 1},
        {"fault": "status", "status": 503, "times": 1},
        {"fault": "status", "status": 504, "times": 1},
        {"fault": "status", "status": 403, "times": 1},
        {"fault": "status", "status": 403, "shape": "flat", "times": 1},
        {"fault": "status", "status": 403, "message": "Cannot access uploaded file", "times": 1},
        {"fault": "status", "status": 403, "empty": True, "times": 1},
    )
    answers = [box.get("/v2/transcript") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [500, 503, 504, 403, 403, 403, 403]
    assert answers[0].json() == {"error": "Internal server error. Please retry your request."}
    assert [answer.content for answer in answers[1:3]] == [b"", b""]
    assert answers[3].json() == {"error": "Forbidden"}
    assert answers[4].json()["message"] == "Forbidden"
    assert answers[5].json() == {"error": "Cannot access uploaded file"}
    assert answers[6].content == b""


def test_gateway_429_has_rate_limit_headers(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "status", "status": 429, "retry_after_s": 12, "shape": "nested"})
    answer = box.post("/v1/chat/completions", json=question())
    assert answer.status_code == 429
    assert answer.json()["error"] == {"code": 429, "message": "Too Many Requests"}
    headers = [answer.headers.get(f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset")]
    assert headers == ["30", "0", "12"]
    assert "retry-after" not in answer.headers


def shape(document: dict[str, Any]) -> str:
    assert document["request_id"]
    if isinstance(document.get("error"), dict):
        return "nested"
    return "flat" if "code" in document else document["status"].replace("error", "status")


def test_gateway_errors_alternate_between_three_formats(misbehave: Misbehave) -> None:
    rule = {"fault": "status", "status": 503, "message": "overloaded"}
    box = misbehave(rule, seed=0)
    documents = [box.post("/v1/chat/completions", json=question()).json() for _ in range(4)]
    assert list(map(shape, documents)) == ["nested", "flat", "status", "nested"]
    assert [documents[0]["error"]["message"], documents[1]["message"], documents[2]["error"]] == ["overloaded"] * 3
    assert documents[1]["metadata"] == {"errors": ["overloaded"]}
    for wanted in ("nested", "flat", "status"):
        misbehave({**rule, "shape": wanted})
        shapes = {shape(box.post("/v1/chat/completions", json=question()).json()) for _ in range(2)}
        assert shapes == {wanted}
    misbehave({**rule, "empty": True})
    assert box.post("/v1/chat/completions", json=question()).content == b""


def test_openai_client_raises_its_own_errors(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "status", "status": 429, "shape": "nested", "times": 1}, {"fault": "drop", "times": 1})
    client = openai.OpenAI(base_url=box.url + "/v1", api_key=box.key, max_retries=0)

    def ask() -> Any:
        return client.chat.completions.create(**question())

    with pytest.raises(openai.RateLimitError, match="Too Many Requests") as limited:
        ask()
    assert limited.value.response.headers["x-ratelimit-reset"] == "1"
    with pytest.raises(openai.APIConnectionError):
        ask()
    assert ask().choices[0].finish_reason == "end_turn"


def test_connection_is_usable_after_a_refused_upload(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "status", "status": 429, "on": "POST /v2/upload", "times": 1})
    assert box.post("/v2/upload", data=b"x" * 5_000_000).status_code == 429
    assert box.post("/v2/upload", data=b"x").status_code == 200


@pytest.mark.parametrize("fault", ["drop", "drop_answer"])
@pytest.mark.parametrize("path", ["/v2/transcript", "/v2/upload", "/v1/chat/completions"])
def test_dropped_request_gets_no_byte_of_a_response(misbehave: Misbehave, fault: str, path: str) -> None:
    box = misbehave({"fault": fault, "on": f"POST {path}", "times": 1})
    bodies = {"/v2/transcript": {"audio_url": URL}, "/v1/chat/completions": question()}
    body, headers = json.dumps(bodies.get(path, "audio")), {"Authorization": KEY}
    connection = http.client.HTTPConnection(box.url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/v2/transcript", headers=headers)
    assert connection.getresponse().read(), "the connection was used before"
    connection.request("POST", path, body, headers)
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    connection.close()
    connection.request("POST", path, body, headers)
    first = connection.getresponse()
    assert (first.status, bool(first.read())) == (200, True)
    connection.request("GET", "/v2/transcript", headers=headers)
    assert connection.getresponse().status == 200, "the new connection stays"
    connection.close()
    assert counts(box) == [(2, 1)]


def test_dropped_request_leaves_no_job_and_dropped_answer_leaves_one(misbehave: Misbehave) -> None:
    lost, unheard = "https://recordings.example/lost.wav", "https://recordings.example/unheard.wav"
    box = misbehave({"fault": "drop", "match": "*/lost.wav"}, {"fault": "drop_answer", "match": "*/unheard.wav"})
    before = asked(box)[0]
    for audio_url in (lost, unheard):
        with pytest.raises(requests.ConnectionError):
            box.post("/v2/transcript", json={"audio_url": audio_url})
    assert listed(box, lost) == []
    (transcript_id,) = listed(box, unheard)
    assert box.wait(transcript_id)["status"] == "completed"
    assert asked(box)[0] == before + 1


def test_dropped_chat_answer_counts_as_a_question(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "drop_answer", "on": "POST /v1/*", "times": 1})
    _, questions, calls = asked(box)
    with pytest.raises(requests.ConnectionError):
        box.post("/v1/chat/completions", json=question(calls=3))
    assert asked(box)[1:] == (questions + 1, calls + 3)


def test_slow_answer_comes_after_the_work_is_done(misbehave: Misbehave) -> None:
    audio_url = "https://recordings.example/slow-answer.wav"
    box = misbehave({"fault": "slow", "delay_s": 1.0, "match": "*/slow-answer.wav"})
    with pytest.raises(requests.ReadTimeout):
        box.session.post(
            box.url + "/v2/transcript", json={"audio_url": audio_url}, headers={"Authorization": KEY}, timeout=0.4
        )
    assert len(listed(box, audio_url)) == 1
    began = time.monotonic()
    assert box.submit(audio_url)["status"] == "queued"
    assert 1.0 <= time.monotonic() - began < 3.0


# Faults of the account


def test_negative_balance_refuses_chats_and_submissions(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "negative_balance", "shape": "nested"}, {"fault": "negative_balance"})
    chat = box.post("/v1/chat/completions", json=question())
    assert chat.status_code == 402
    assert chat.json()["error"]["message"].startswith("Your current account balance is negative")
    misbehave({"fault": "negative_balance"})
    speech = box.post("/v2/transcript", json={"audio_url": URL})
    assert speech.status_code == 400
    assert speech.json()["error"].startswith("Your current account balance is negative")
    assert box.get("/v2/transcript").status_code == 200


@pytest.mark.parametrize(
    "options", [{"speech_models": ["universal-2", "universal-3-pro"]}, {"speech_model": "universal-3-pro"}]
)
def test_retired_speech_model_is_refused(misbehave: Misbehave, options: dict[str, Any]) -> None:
    box = misbehave({"fault": "retired_models", "models": ["universal-3-pro"]})
    response = box.post("/v2/transcript", json={"audio_url": URL, **options})
    assert response.status_code == 400
    assert response.json() == {
        "error": "speech model universal-3-pro is retired, use universal-3-5-pro: it is no longer supported"
    }
    assert box.submit(URL, speech_models=["universal-3-5-pro"])["status"] == "queued"
    assert box.submit(URL)["status"] == "queued"


def test_retired_chat_model_is_refused_before_messages_are_read(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "retired_models", "models": [MODEL], "shape": "nested"})
    for body in (question(), {"model": MODEL}, {"model": MODEL, "messages": "none"}):
        response = box.post("/v1/chat/completions", json=body)
        assert response.status_code == 400
        assert response.json()["error"] == {"code": 400, "message": f"model {MODEL} is not supported"}
    assert box.post("/v1/chat/completions", json=question(model="gpt-5-mini")).status_code == 200


# Faults of jobs


def test_job_error_with_match_and_times_1_fails_once_per_file(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "job_error", "match": "/calls/bad-*.wav", "times": 1})
    results = [
        box.transcribe(f"https://recordings.example/calls/{name}.wav?signature={number}")
        for number, name in enumerate(["bad-1", "bad-1", "bad-2", "bad-2", "good"])
    ]
    assert [result["status"] for result in results] == ["error", "completed", "error", "completed", "completed"]
    assert results[0]["error"] == "Server error, developers have been alerted."
    assert counts(box) == [(4, 2)]


def test_times_without_match_counts_all_jobs(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "job_error", "message": "Transcoding failed.", "times": 1})
    results = [box.transcribe(f"https://recordings.example/{name}.wav") for name in "ab"]
    assert [result["status"] for result in results] == ["error", "completed"]
    assert results[0]["error"] == "Transcoding failed."


def test_slow_job_does_not_delay_other_jobs(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "job_slow", "delay_s": 0.7, "match": "*/late.wav"})
    began = time.monotonic()
    late = box.submit("https://recordings.example/late.wav")["id"]
    assert box.transcribe(URL)["status"] == "completed"
    assert box.get(f"/v2/transcript/{late}").json()["status"] == "processing"
    assert box.wait(late)["status"] == "completed"
    assert time.monotonic() - began >= 0.7


def test_speech_fallback_is_reported_as_a_warning(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "speech_fallback", "model": "universal-2"})
    done = box.transcribe(URL, speech_models=["universal-3-5-pro"])
    assert done["speech_model_used"] == "universal-2"
    assert done["speech_models"] == ["universal-3-5-pro"]
    (warning,) = done["metadata"]["warnings"]
    assert "universal-2" in warning["message"]
    as_asked = box.transcribe(URL, speech_models=["universal-2"])
    assert (as_asked["speech_model_used"], "metadata" in as_asked) == ("universal-2", False)
    assert counts(box) == [(1, 1)]
    cheating = box.transcribe(URL, speech_models=["universal-2"], speechbox_fallback="nano")
    assert cheating["speech_model_used"] == "universal-2"


# Faults of language models


def completion(box: Box, **more: Any) -> dict[str, Any]:
    response = box.post("/v1/chat/completions", json=question(**more))
    assert response.status_code == 200, response.text
    return response.json()


def text_of(document: dict[str, Any]) -> str:
    (choice,) = document["choices"]
    return choice["message"]["content"]


def answer(box: Box, calls: int = 3) -> list[list[dict[str, Any]]]:
    """Return the phases of each call."""
    return [call["phases"] for call in json.loads(text_of(completion(box, calls=calls)))["calls"]]


GOOD = [
    {"name": "Introduction", "start_cue": 1, "summary": "Introduction from cue 1."},
    {"name": "Complaint", "start_cue": 2, "summary": "Complaint from cue 2."},
]


def test_fenced_and_wordy_answers_contain_the_whole_answer(misbehave: Misbehave) -> None:
    whole = text_of(completion(misbehave()))
    assert text_of(completion(misbehave({"fault": "fenced"}))) == f"```json\n{whole}\n```"
    wordy = text_of(completion(misbehave({"fault": "wordy"})))
    before, after = wordy.split(whole)
    assert "{" in before
    assert "{" in after


def test_cut_answer_has_half_of_the_text(misbehave: Misbehave) -> None:
    whole = text_of(completion(misbehave()))
    box = misbehave({"fault": "cut"}, seed=0)
    documents = [completion(box) for _ in range(2)]
    assert [document["choices"][0]["finish_reason"] for document in documents] == ["length", "max_tokens"]
    assert text_of(documents[0]) == whole[: len(whole) // 2]
    usage = documents[0]["usage"]
    assert 0 < usage["output_tokens"] <= len(whole) // 8 + 1
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_answers_without_json_are_returned_as_configured(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "not_json"})
    assert "{" not in text_of(completion(box))
    misbehave({"fault": "empty"})
    assert text_of(completion(box)) == ""
    misbehave({"fault": "no_choices"})
    assert completion(box)["choices"] == []
    misbehave({"fault": "refusal"}, seed=0)
    refusals = [completion(box)["choices"][0] for _ in range(2)]
    assert [choice["finish_reason"] for choice in refusals] == ["content_filter", "refusal"]
    assert refusals[0]["message"]["content"].startswith("I'm sorry")


def test_missing_call_removes_one_call(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "missing_call"}, seed=1)
    calls = json.loads(text_of(completion(box, calls=3)))["calls"]
    assert [call["call"] for call in calls] == [1, 3]
    assert json.loads(text_of(completion(box, calls=1))) == {"calls": []}


def corrupted(box: Box) -> list[dict[str, Any]]:
    """Return the phases of the one corrupted call of three."""
    (wrong,) = [phases for phases in answer(box) if phases != GOOD]
    return wrong


def test_wrong_answer_corrupts_one_call_only(misbehave: Misbehave) -> None:
    assert answer(misbehave()) == [GOOD] * 3
    assert corrupted(misbehave({"fault": "wrong_name"}))[-1]["name"] not in NAMES
    starts = [phase["start_cue"] for phase in corrupted(misbehave({"fault": "unordered"}))]
    assert starts != sorted(starts)
    assert {phase["start_cue"] for phase in corrupted(misbehave({"fault": "unknown_cue"}))} - {1, 2, 3} == {4}
    assert corrupted(misbehave({"fault": "missing_fields"}))[-1] == {"name": "Complaint"}


def test_corrupted_call_changes_in_turn(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "wrong_name"}, seed=0)
    wrong = [next(n for n, phases in enumerate(answer(box)) if phases != GOOD) for _ in range(4)]
    assert wrong == [0, 1, 2, 0]


def test_truncated_answer_and_refusal_are_not_corrupted(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "wrong_name"})
    assert completion(box, max_tokens=5)["choices"][0]["finish_reason"] == "max_tokens"
    assert box.post("/v1/chat/completions", json=question(stream=True)).status_code == 400


def test_no_response_format_refuses_only_requests_with_one(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "no_response_format", "shape": "flat"})
    response = box.post("/v1/chat/completions", json=question(response_format={"type": "json_schema"}))
    assert response.status_code == 400
    assert response.json()["message"].startswith("response_format is invalid: ")
    assert completion(box)["choices"]
    assert counts(box) == [(1, 1)]


def test_context_limit_refuses_chats_over_the_number_of_cues(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "context_limit", "over_cues": 6, "shape": "nested"})
    assert completion(box, calls=2)["choices"]
    response = box.post("/v1/chat/completions", json=question(calls=3))
    assert response.status_code == 400
    assert response.json()["error"] == {"code": 400, "message": "model context limit exceeded"}
    misbehave({"fault": "context_limit"})
    assert box.post("/v1/chat/completions", json=question()).status_code == 400


# Counts and logs


def test_health_counts_submissions_and_questions(misbehave: Misbehave) -> None:
    box = misbehave({"fault": "negative_balance", "times": 2}, {"fault": "fenced"})
    submissions, questions, calls = asked(box)
    box.post("/v2/transcript", json={"audio_url": URL})
    box.post("/v1/chat/completions", json=question())
    box.post("/v2/transcript", json={"audio_url": 5})
    box.post("/v1/chat/completions", json=question(stream=True))
    assert asked(box) == (submissions, questions, calls)
    box.submit(URL)
    completion(box, calls=2)
    completion(box, calls=1)
    assert asked(box) == (submissions + 1, questions + 2, calls + 3)


def test_log_has_a_line_per_fault_and_no_secrets(tmp_path: Path) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("rules: [{fault: drop_answer, times: 1}, {fault: job_error}, {fault: fenced}]")
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "speechbox", "--engine", "scripted", "--port", "0", "--faults", str(faults)]
        process = subprocess.Popen(
            [*command, "--data", str(tmp_path / "data")], stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, "SPEECHBOX_API_KEY": KEY},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            box = Box(process.stdout.readline().split()[-1], process)
            with pytest.raises(requests.ConnectionError):
                box.post("/v2/transcript?query-secret=1", json={"audio_url": URL + "?url-secret=1"})
            box.wait(listed(box, URL + "?url-secret=1")[0])
            completion(box)
        finally:
            process.terminate()
            process.wait(20)
            process.stdout.close()
    written = (tmp_path / "log").read_text()
    lines = [line for line in written.splitlines() if " fault " in line]
    assert [line.split(" fault ")[1].rsplit(" ", 1)[0] for line in lines] == [
        "drop_answer on POST", "job_error on transcript", "fenced on POST",
    ]  # fmt: skip
    assert all(" INFO " in line for line in lines)
    assert "secret" not in written
    assert "wrong" not in written
    assert "Traceback" not in written
    assert "ASGI" not in written


def test_concurrent_faults_lose_no_job_and_create_no_extra_job(start) -> None:
    box = start(script={"latency_s": 0.05})
    rules = [
        {"fault": "status", "status": 429, "rate": 0.1},
        {"fault": "drop", "rate": 0.1},
        {"fault": "drop_answer", "rate": 0.1},
        {"fault": "job_error", "rate": 0.2},
    ]
    assert box.request("PUT", "/faults", json={"seed": 1, "rules": rules}).status_code == 200

    def submit(number: int) -> str:
        try:
            with requests.Session() as session:
                response = session.post(
                    box.url + "/v2/transcript",
                    json={"audio_url": f"https://recordings.example/{number}.wav"},
                    headers={"Authorization": KEY},
                    timeout=30,
                )
        except requests.ConnectionError:
            return "dropped"
        return str(response.status_code)

    with ThreadPoolExecutor(8) as pool:
        results = Counter(pool.map(submit, range(200)))
    limited, lost, unheard, _ = (rule["fired"] for rule in box.get("/faults").json()["counts"])
    assert min(limited, lost, unheard) > 5
    assert results == {"429": limited, "dropped": lost + unheard, "200": 200 - limited - lost - unheard}
    deadline = time.monotonic() + 20
    while (health := box.get("/health").json())["transcripts"].keys() & {"queued", "processing"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert health["submissions"] == 200 - limited - lost == sum(health["transcripts"].values())
    assert health["transcripts"]["error"] == box.get("/faults").json()["counts"][3]["fired"] > 10


README = Path(__file__).resolve().parents[2] / "include" / "speechbox" / "README.md"


@pytest.mark.parametrize("number", [0, 1])
def test_documents_of_the_readme_are_valid(misbehave: Misbehave, number: int) -> None:
    blocks = [block.split("```")[0] for block in README.read_text().split("```yaml\n")[1:]]
    documents = [block for block in blocks if "\nrules:" in block]
    assert len(documents) == 2
    response = misbehave().request("PUT", "/faults", data=documents[number].encode())
    assert response.status_code == 200, response.text
    assert len(response.json()["counts"]) >= 4
