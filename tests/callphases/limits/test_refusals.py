"""Errors of real services, as their documentation and public reports show them, and what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from callphases.limits.refusals import (
    Reason,
    in_band_status,
    is_outage,
    is_throttled,
    read_refusal,
    refusal_of,
    retired_model,
)
from doubles import Web, answer, text_answer

ERRORS = [json.loads(line) for line in (Path(__file__).parent / "errors.jsonl").read_text("utf-8").splitlines()]
"""Real errors: the service, the status, the document or text, and what it means."""


def served(web: Web, status: int, document: Any, **headers: str) -> requests.Response:
    given = (
        text_answer(document, status, "text/html") if isinstance(document, str) else answer(document, status, **headers)
    )
    web.answers = [given]
    return requests.post(web.url, timeout=30)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error['service']} {error['status']} {error['reason']}")
def test_error_of_a_service_has_a_reason(web: Web, error: dict[str, Any]) -> None:
    status, reason = error["status"], Reason[error["reason"]]
    refusal = read_refusal(served(web, status, error["document"]))
    assert refusal.reason is reason, refusal
    assert is_throttled(refusal) is (reason in (Reason.BUSY, Reason.QUOTA) and status < 500)
    assert is_outage(refusal) is (status >= 500 and reason in (Reason.BUSY, Reason.OTHER))
    assert refusal.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("claude-sonnet-4-5 has reached end-of-life", Reason.MODEL),
        ("`claude-sonnet-4-5` is deprecated", Reason.MODEL),
        ("claude-sonnet-4-5: no such option", Reason.OTHER),
        ("claude-sonnet-4 is deprecated", Reason.OTHER),
        ("temperature: claude-sonnet-4-5 is unsupported", Reason.OTHER),
    ],
)
def test_model_that_was_asked_is_known_by_its_name(web: Web, text: str, reason: Reason) -> None:
    response = served(web, 400, {"error": {"message": text}})
    assert read_refusal(response, asked="claude-sonnet-4-5").reason is reason
    assert read_refusal(response).reason is Reason.OTHER


@pytest.mark.parametrize("document", [{"message": "Unknown"}, {}])
def test_code_in_a_header_counts(web: Web, document: Any) -> None:
    header = {"x-amzn-ErrorType": "ResourceNotFoundException:http://internal.amazon.com/coral/"}
    assert read_refusal(served(web, 404, {"message": "Model x"}, **header)).reason is Reason.MODEL
    assert read_refusal(served(web, 404, document, **header)).reason is Reason.OTHER


def test_402_with_a_time_to_wait_is_not_the_end(web: Web) -> None:
    document = {"error": {"code": 402, "message": "In-flight budget", "metadata": {"limit_source": "in_flight"}}}
    assert is_throttled(read_refusal(served(web, 402, document, Retry_After="3")))
    assert not is_throttled(read_refusal(served(web, 402, document)))


@pytest.mark.parametrize("status", [408, 425, 500, 502, 529])
def test_request_that_was_not_served_in_time_is_repeated(web: Web, status: int) -> None:
    assert is_outage(read_refusal(served(web, status, {"error": {"message": "Request timed out"}})))


def test_request_that_a_server_does_not_implement_is_not_repeated(web: Web) -> None:
    assert not is_outage(read_refusal(served(web, 501, {"error": {"message": "not supported"}})))


# Words


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([{"error": {"code": 404, "message": "Gone"}}], "Gone"),
        ({"detail": "no"}, "no"),
        ({"detail": {"message": "no"}}, "no"),
        ({"detail": [{"loc": ["body", "n"], "msg": "Missing", "input": {"text": "My name"}}]}, "body.n: Missing"),
        ({"detail": [{"loc": "body", "msg": "bad"}, "worse"]}, "body: bad worse"),
        ({"Message": "no"}, "no"),
        ({"errors": [{"message": "one"}, {"message": "two"}]}, "one two"),
        ({"error": "bad_request", "error_description": "Why."}, "bad_request Why."),
        ({"status": "failure", "message": "the same", "error": {"message": "the same"}}, "the same"),
        ({"error": {"message": {"error": "Violated a policy", "bedrock_response": "My name"}}}, "Violated a policy"),
        ({"error": {"message": '{"error": {"message": "inner"}}'}}, "inner"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": "why"}}}, "Provider returned error why"),
        ({"error": {"message": "[{'msg': 'bad', 'input': {'text': 'My name is Jo'}}]"}}, "[{'msg': 'bad', …"),
        ({"error": {"message": "bad [type=int, input_value='My name is Jo', input_type=str]"}}, "bad [type=int, …"),
        ({"error": {"message": "a\x00b\ud800c\nd"}}, "a b c d"),
        ({"error": {"code": "odd_failure", "n": 1}}, "odd_failure"),
        ({"fault": {"faultstring": "Over quota", "detail": {"errorcode": "policies.X"}}}, "Over quota policies.X"),
        ({"error": {"message": 7}}, ""),
        ({"error": True}, ""),
        ("<html><style>p {color: red}</style><script>x()</script><p>Down</p></html>", "Down"),
    ],
)  # fmt: skip
def test_words_of_a_service_are_found_and_no_others(web: Web, document: Any, words: str) -> None:
    assert read_refusal(served(web, 400, document)).text == words


def test_reason_is_read_beyond_the_part_that_is_kept(web: Web) -> None:
    refusal = read_refusal(served(web, 400, {"error": {"message": "litellm " * 60 + "prompt is too long"}}))
    assert refusal.reason is Reason.TOO_LONG
    assert len(refusal.text) == 300


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "type", "param", "detail", "loc", "msg", "metadata", "status"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(anything, st.integers(400, 599))
def test_any_document_is_an_error_of_one_line(document: Any, status: int) -> None:
    refusal = refusal_of(document, status)
    assert isinstance(refusal.reason, Reason)
    assert "\n" not in refusal.text
    refusal.text.encode()
    assert not (is_throttled(refusal) and is_outage(refusal))


# Errors in answers of 200


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"error": {"code": 502, "message": "Bad"}}, 502),
        ({"error": {"code": "429", "message": "Slow"}}, 429),
        ([{"error": {"code": 404, "message": "Gone"}}], 404),
        ({"error": {"message": "Slow", "type": "rate_limit_error"}}, 429),
        ({"error": {"message": "Bad"}}, 400),
        ({"error": "Bad", "choices": []}, 400),
        ({"object": "error", "message": "Gone", "code": 404}, 404),
        ({"choices": None, "http_status_code": 200, "llm_status_code": 503}, 503),
        ({"choices": [{"message": {"content": "x"}}], "llm_status_code": 200}, 200),
        ({"choices": [{"message": {"content": "x"}}], "error": {"code": 500}}, 200),
        ({"choices": [], "error": None}, 200),
        ({"error": {"code": 4290}}, 400),
        ({"error": {"code": True}}, 400),
        ({}, 200),
        ([], 200),
        ([1], 200),
        ("<html>", 200),
    ],
)
def test_error_in_an_answer_of_200_has_its_own_status(web: Web, document: Any, status: int) -> None:
    assert in_band_status(served(web, 200, document)) == status


# The model that is gone

ASKED = ["universal-3-pro", "universal-2", "gpt-4o"]


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("speech model universal-3-pro is no longer supported", "universal-3-pro"),
        ("universal-3-pro is deprecated. Use universal-2 instead.", "universal-3-pro"),
        ("Use universal-2: universal-3-pro has been retired", "universal-3-pro"),
        ("The model `gpt-4o` does not exist or you do not have access to it.", "gpt-4o"),
        ('model "GPT-4o" not found, try pulling it first', "gpt-4o"),
        ("Unknown speech model: universal-2", "universal-2"),
        ("invalid speech_model 'universal-3-pro'", "universal-3-pro"),
        ("openai/gpt-4o is not a valid model ID", "gpt-4o"),
        ("No endpoints found for openai/gpt-4o.", "gpt-4o"),
        ("speech_models: [universal-3-pro] is no longer available", "universal-3-pro"),
        ("The following models are not available: universal-3-pro", "universal-3-pro"),
        ("Project `p` does not have access to model `gpt-4o`", "gpt-4o"),
        ("The following models are not available in this language: speaker_labels", None),
        ("The following models are not available in this language: universal-2", None),
        ("universal-2 is not available in this language", None),
        ("speaker_labels is not available for the model universal-2", None),
        ("temperature is not supported with gpt-4o", None),
        ("'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", None),
        ("gpt-4o-mini does not exist", None),
        ("gpt-4o.1 does not exist", None),
        ("gpt-4o is temporarily unavailable: it is overloaded, temporarily", None),
        ("The model universal-1 is no longer supported", None),
        ("", None),
    ],
)
def test_model_is_gone_only_if_the_message_says_so_of_it(text: str, model: str | None) -> None:
    assert retired_model(text, ASKED) == model
    assert retired_model(text, []) is None
