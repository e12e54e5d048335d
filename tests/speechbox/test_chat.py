"""Tests of the gateway's chat completions."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

pytestmark = pytest.mark.integration

PHASES = [
    {"name": "Introduction", "description": "The agent greets the caller."},
    {"name": "Complaint", "description": "The caller says what is wrong."},
    {"name": "Resolution", "description": "The agent solves the problem."},
    {"name": "Goodbye", "description": "They take leave."},
]
CUES = [
    ("A", "Thank you for calling Northwind, how can I help you today?"),
    ("B", "Hello, I was charged twice for my bill last month."),
    ("A", "I have refunded the second payment."),
    ("B", "Thank you very much, goodbye."),
]
DOCUMENT = {
    "phases": PHASES,
    "calls": [
        {"call": 1, "cues": [{"cue": n, "speaker": s, "text": t} for n, (s, t) in enumerate(CUES, start=1)]},
    ],
}
SCRIPTED_ANSWER = {
    "calls": [
        {
            "call": 1,
            "phases": [
                {"name": "Introduction", "start_cue": 1, "summary": "Introduction from cue 1."},
                {"name": "Complaint", "start_cue": 2, "summary": "Complaint from cue 2."},
                {"name": "Resolution", "start_cue": 3, "summary": "Resolution from cue 3."},
                {"name": "Goodbye", "start_cue": 4, "summary": "Goodbye from cue 4."},
            ],
        }
    ]
}


def body(content: Any = DOCUMENT, **more: Any) -> dict[str, Any]:
    text = content if isinstance(content, str) else json.dumps(content)
    messages = [{"role": "system", "content": "Divide."}, {"role": "user", "content": text}]
    return {"model": "claude-sonnet-4-5-20250929", "messages": messages, **more}


def test_completion_has_the_gateways_format(scripted) -> None:
    answer = scripted.post("/v1/chat/completions", json=body()).json()
    (choice,) = answer["choices"]
    assert json.loads(choice["message"]["content"]) == {
        "calls": [{"call": 1, "phases": SCRIPTED_ANSWER["calls"][0]["phases"]}]
    }
    assert choice["finish_reason"] == "end_turn"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert answer["request_id"]
    assert answer["model"] == "claude-sonnet-4-5-20250929"


def test_openai_client_parses_the_completion(scripted) -> None:
    client = openai.OpenAI(base_url=scripted.url + "/v1", api_key=scripted.key, max_retries=0)
    completion = client.chat.completions.create(
        model="claude-sonnet-4-5-20250929",
        messages=[
            {"role": "system", "content": "Divide."},
            {"role": "user", "content": [{"type": "text", "text": json.dumps(DOCUMENT)}]},
        ],
        response_format={"type": "json_schema", "json_schema": {"name": "phases", "schema": {"type": "object"}}},
    )
    assert json.loads(completion.choices[0].message.content or "") == SCRIPTED_ANSWER
    assert completion.usage is not None
    assert completion.usage.prompt_tokens > 0


def test_last_document_of_the_messages_is_answered(scripted) -> None:
    request = body()
    request["messages"] += [
        {"role": "assistant", "content": "{}"},
        {"role": "user", "content": "Only JSON, please."},
    ]
    answer = scripted.post("/v1/chat/completions", json=request).json()
    assert json.loads(answer["choices"][0]["message"]["content"]) == SCRIPTED_ANSWER


def test_answer_over_max_tokens_is_truncated(scripted) -> None:
    answer = scripted.post("/v1/chat/completions", json=body(max_tokens=10)).json()
    assert answer["choices"][0]["finish_reason"] == "max_tokens"
    assert len(answer["choices"][0]["message"]["content"]) == 40
    assert answer["usage"]["output_tokens"] == 10


@pytest.mark.parametrize(
    "request_body",
    [
        body("How are you?"),
        body({"calls": 5}),
        body({"calls": [{"call": 1}]}),
        body(stream=True),
        body(max_tokens=0),
        body() | {"messages": []},
        {"messages": body()["messages"]},
        [],
    ],
)
def test_invalid_chat_is_refused(scripted, request_body: Any) -> None:
    response = scripted.post("/v1/chat/completions", json=request_body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == 400
    assert response.json()["error"]["message"]


def test_wrong_key_is_refused_in_the_gateways_format(scripted) -> None:
    response = scripted.post("/v1/chat/completions", json=body(), headers={"Authorization": "wrong"})
    assert response.status_code == 401
    assert response.json()["status"] == "error"
    assert isinstance(response.json()["error"], str)
    assert response.json()["request_id"]


def test_local_segmenter_answers_concurrent_requests(start) -> None:
    box = start("--engine", "scripted")
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: box.post("/v1/chat/completions", json=body()), range(4)))
    assert [response.status_code for response in responses] == [200] * 4
    contents = {response.json()["choices"][0]["message"]["content"] for response in responses}
    assert len(contents) == 1
    (call,) = json.loads(contents.pop())["calls"]
    assert call["phases"][0] == {"name": "Introduction", "start_cue": 1, "summary": call["phases"][0]["summary"]}
    malformed = box.post("/v1/chat/completions", json=body({"phases": PHASES, "calls": [{"call": 1, "cues": "none"}]}))
    assert malformed.status_code == 400
