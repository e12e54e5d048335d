"""The LLM gateway client, over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from callphases.errors import (
    AnswerCut,
    AnswerInvalid,
    ModelRetired,
    NoBalance,
    NoModelLeft,
    RequestRefused,
    ServiceUnavailable,
    ThrottledOut,
    WrongKey,
)
from callphases.segmentation.gateway import Gateway
from doubles import KEY, LOST, Answer, Clock, Request, Web, answer, chat_answer, text_answer

MESSAGES = [{"role": "system", "content": "Divide."}, {"role": "user", "content": "{}"}]
SCHEMA = {"type": "object", "properties": {"calls": {"type": "array"}}}
NO_SCHEMA = answer({"error": {"code": 400, "message": "response_format is invalid: not supported by this model"}}, 400)


@pytest.fixture
def gateway(web: Web) -> Gateway:
    return Gateway(KEY, web.url + "/")


def chat(gateway: Gateway, model: str = "claude-sonnet-4-6", schema: dict[str, Any] | None = SCHEMA) -> Any:
    return gateway.chat(model, MESSAGES, max_tokens=2000, schema=schema)


def test_question_is_one_request(web: Web, gateway: Gateway) -> None:
    web.answers = [chat_answer("hello", tokens=(120, 30))]
    given = chat(gateway)
    assert (given.text, given.cut, given.model) == ("hello", False, "claude-sonnet-4-6")
    assert (given.input_tokens, given.output_tokens) == (120, 30)
    (asked,) = web.requests
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.headers["authorization"] == KEY
    assert asked.json == {
        "model": "claude-sonnet-4-6",
        "messages": MESSAGES,
        "max_tokens": 2000,
        "temperature": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "call_phases", "schema": SCHEMA, "strict": True},
        },
    }


def test_question_without_a_schema_requests_no_format(web: Web, gateway: Gateway) -> None:
    web.answers = [chat_answer("hello")]
    chat(gateway, schema=None)
    assert "response_format" not in web.requests[0].json


def test_unsupported_temperature_is_left_out_from_then_on(web: Web, gateway: Gateway) -> None:
    refusal = answer({"error": {"code": 400, "message": "temperature does not support 0 with this model"}}, 400)
    web.answers = [refusal, chat_answer("one"), chat_answer("two")]
    assert [chat(gateway).text, chat(gateway).text] == ["one", "two"]
    assert ["temperature" in request.json for request in web.requests] == [True, False, False]
    assert all("response_format" in request.json for request in web.requests)


def test_unsupported_schema_is_left_out_for_that_model_only(web: Web, gateway: Gateway) -> None:
    web.answers = [NO_SCHEMA, chat_answer("one"), chat_answer("two"), chat_answer("three")]
    texts = [chat(gateway).text, chat(gateway).text, chat(gateway, "another").text]
    assert texts == ["one", "two", "three"]
    assert ["response_format" in request.json for request in web.requests] == [True, False, False, True]


@pytest.mark.parametrize(
    "refusal",
    [
        NO_SCHEMA,
        answer({"code": 400, "message": "bad", "metadata": {"errors": ["response_format is invalid: strict"]}}, 400),
        answer({"error": "response_format is invalid: x", "status": "error"}, 400),
        text_answer("unknown field response_format", 400),
    ],
)
def test_rejected_schema_is_recognized_in_any_error_format(web: Web, gateway: Gateway, refusal: Answer) -> None:
    web.answers = [refusal, chat_answer("one")]
    assert chat(gateway).text == "one"


@pytest.mark.parametrize(
    ("finish_reason", "cut"),
    [
        ("stop", False),
        ("end_turn", False),
        ("STOP", False),
        ("length", True),
        ("max_tokens", True),
        ("MAX_TOKENS", True),
    ],
)
def test_cut_answer_is_recognized_for_every_provider(web: Web, gateway: Gateway, finish_reason: str, cut: bool) -> None:
    web.answers = [chat_answer("hello", finish_reason)]
    assert chat(gateway).cut is cut


def test_openai_token_names_are_read(web: Web, gateway: Gateway) -> None:
    choice = {"message": {"content": "hello"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    web.answers = [answer({"choices": [choice], "usage": usage, "model": "gpt-5-mini-2026"})]
    given = chat(gateway)
    assert (given.input_tokens, given.output_tokens, given.model) == (5, 7, "gpt-5-mini-2026")


@pytest.mark.parametrize("more", [{}, {"usage": None}])
def test_answer_without_text_or_usage_is_empty(web: Web, gateway: Gateway, more: dict[str, Any]) -> None:
    web.answers = [answer({"choices": [{"message": {"content": None}, "finish_reason": "stop"}], **more})]
    given = chat(gateway)
    assert (given.text, given.input_tokens, given.output_tokens) == ("", 0, 0)


@pytest.mark.parametrize(
    ("refusal", "error", "words"),
    [
        (
            answer({"error": {"code": 400, "message": "model claude-3 is not supported"}}, 400),
            ModelRetired,
            r"'claude-sonnet-4-6': model claude-3 is not supported.*segmentation\.models",
        ),
        (
            answer({"code": 404, "message": "model not found", "request_id": "r", "metadata": {"errors": []}}, 404),
            ModelRetired,
            "model not found",
        ),
        (
            answer({"code": 400, "message": "Invalid", "metadata": {"errors": ["max_tokens: too large"]}}, 400),
            RequestRefused,
            "400: Invalid max_tokens: too large",
        ),
        (
            answer({"error": {"code": 400, "message": "model context limit exceeded"}}, 400),
            RequestRefused,
            "context limit exceeded",
        ),
        (
            answer({"error": "Unauthorized", "status": "error", "request_id": "r"}, 401),
            WrongKey,
            r"does not accept the key \(Unauthorized\)",
        ),
        (
            answer({"error": "LLM Gateway needs a paid plan", "status": "error"}, 403),
            WrongKey,
            r"paid plan.*a key that may use the gateway",
        ),
        (answer({"error": {"message": "Your account balance is negative"}}, 400), NoBalance, "balance is negative"),
        (answer({"message": "Payment Required"}, 402), NoBalance, "Payment Required"),
        (text_answer("<html>\nBad Request", 400, "text/html"), RequestRefused, "400: Bad Request"),
        (answer([], 422), RequestRefused, "status 422 without a message"),
        ((404, {}, b""), RequestRefused, "status 404 without a message"),
    ],
)
def test_refusal_has_a_type_and_the_gateways_message(
    web: Web, gateway: Gateway, refusal: Answer, error: type[Exception], words: str
) -> None:
    web.answers = [refusal]
    with pytest.raises(error, match=words) as told:
        chat(gateway, schema=None)
    assert type(told.value) is error
    assert KEY not in str(told.value)
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    "page",
    [
        text_answer("<html>Sign in", kind="text/html"),
        answer([]),
        (200, {}, b""),
    ],
)
def test_response_that_is_not_a_completion_names_the_setting(web: Web, gateway: Gateway, page: Answer) -> None:
    web.answers = [page]
    with pytest.raises(ServiceUnavailable, match="check llm_gateway_url of the assemblyai connection"):
        chat(gateway)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": ["hello"]},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"message": "hello"}]},
        {"choices": [{"message": {"content": "x"}}], "usage": {"input_tokens": "many"}},
    ],
)
def test_completion_without_a_message_is_an_invalid_answer(web: Web, gateway: Gateway, document: Any) -> None:
    web.answers = [answer(document)]
    with pytest.raises(AnswerInvalid, match="completion has no message"):
        chat(gateway)


@pytest.mark.parametrize("reason", ["refusal", "content_filter", "SAFETY", "RECITATION"])
def test_declined_answer_is_recognized_for_every_provider(web: Web, gateway: Gateway, reason: str) -> None:
    web.answers = [chat_answer("", reason), chat_answer("hello")]
    assert [chat(gateway).refused, chat(gateway).refused] == [True, False]


def test_answer_with_a_refusal_field_is_declined(web: Web, gateway: Gateway) -> None:
    message = {"content": None, "refusal": "I can't help with that."}
    web.answers = [answer({"choices": [{"message": message, "finish_reason": "stop"}]})]
    assert chat(gateway).refused


@pytest.mark.parametrize("first", [answer({"error": "Too many"}, 429, X_RateLimit_Reset="4"), answer({}, 500), LOST])
def test_question_is_repeated_after_a_lost_answer(web: Web, gateway: Gateway, first: Answer) -> None:
    web.answers = [first, chat_answer("hello")]
    assert chat(gateway).text == "hello"
    assert web.requests[0].body == web.requests[1].body


def test_rate_limit_reset_is_waited_for(web: Web, gateway: Gateway, waits: list[float]) -> None:
    web.answers = [answer({}, 429, X_RateLimit_Limit="30", X_RateLimit_Reset="22"), chat_answer("hello")]
    chat(gateway)
    assert waits[0] >= 22


def test_gateway_that_stays_down_is_named(web: Web, gateway: Gateway) -> None:
    web.respond = lambda request: answer({}, 503)
    with pytest.raises(ServiceUnavailable, match=f"language model gateway at {web.url} is not accepting requests"):
        chat(gateway)


def test_gateway_that_stays_busy_is_named(web: Web, gateway: Gateway) -> None:
    web.respond = lambda request: answer({}, 429)
    with pytest.raises(ThrottledOut, match=f"language model gateway at {web.url} kept refusing requests"):
        chat(gateway)


# Limits


class Turns:
    """Records the models whose turn was awaited."""

    def __init__(self) -> None:
        self.waited: list[str] = []

    def await_turn(self, model: str) -> None:
        self.waited.append(model)

    def soonest(self, models: Sequence[str]) -> str:
        return models[0]


def test_each_attempt_asks_the_rate_limiter(web: Web, gateway: Gateway) -> None:
    turns = Turns()
    gateway = gateway.limited_by(turns)
    web.answers = [answer({}, 429), answer({}, 500), LOST, NO_SCHEMA, chat_answer("hello"), EMPTY]
    chat(gateway)
    gateway.check(["another"])
    assert turns.waited == ["claude-sonnet-4-6"] * 5 + ["another"]
    assert len(web.requests) == 6


def test_error_in_may_send_prevents_the_request(web: Web, gateway: Gateway) -> None:
    turns = Turns()
    gateway = gateway.limited_by(turns)
    web.answers = [answer({}, 429), chat_answer("hello")]

    def may_send() -> None:
        if web.requests:
            raise KeyError("no longer")

    with pytest.raises(KeyError, match="no longer"):
        gateway.chat("one", MESSAGES, max_tokens=2000, may_send=may_send)
    assert (len(web.requests), turns.waited) == (1, ["one", "one"])


@pytest.mark.parametrize("status", [504, 524])
def test_proxy_timeout_is_repeated_unless_the_question_is_divisible(web: Web, gateway: Gateway, status: int) -> None:
    web.answers = [answer({}, status), chat_answer("hello"), answer({}, status)]
    assert chat(gateway).text == "hello"
    with pytest.raises(AnswerCut, match=rf"in time \({status}\)"):
        gateway.chat("one", MESSAGES, max_tokens=2000, divisible=True)
    assert len(web.requests) == 3


def test_read_timeout_cuts_a_divisible_question(web: Web, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callphases.segmentation.gateway.READ_TIMEOUT_S", 0.05)
    given_up = threading.Event()

    def respond(request: Request) -> Answer:
        given_up.wait(10)
        return chat_answer("hello")

    web.respond = respond
    with pytest.raises(AnswerCut, match="No answer came within 0 s"):
        gateway.chat("one", MESSAGES, max_tokens=2000, divisible=True)
    given_up.set()
    assert len(web.requests) == 1


@pytest.mark.parametrize("first", [answer({}, 429), answer({}, 503), LOST])
def test_divisible_question_is_repeated_if_it_was_not_accepted(web: Web, gateway: Gateway, first: Answer) -> None:
    web.answers = [first, chat_answer("hello")]
    assert gateway.chat("one", MESSAGES, max_tokens=2000, divisible=True).text == "hello"


# The free check


RETIRED = answer({"error": {"code": 400, "message": "model x is not supported"}}, 400)
EMPTY = answer({"error": {"code": 400, "message": "messages: at least one message is required"}}, 400)


def test_check_sends_a_question_without_messages(web: Web, gateway: Gateway) -> None:
    web.answers = [EMPTY]
    assert gateway.check(["one", "two"])
    assert [request.json for request in web.requests] == [{"model": "one", "messages": [], "max_tokens": 1}]


def test_check_continues_with_the_next_model_if_one_is_retired(web: Web, gateway: Gateway) -> None:
    web.answers = [RETIRED, EMPTY]
    gateway.check(["one", "two", "three"])
    assert [request.json["model"] for request in web.requests] == ["one", "two"]


def test_check_raises_if_no_model_is_served(web: Web, gateway: Gateway) -> None:
    web.respond = lambda request: RETIRED
    with pytest.raises(NoModelLeft, match=r"segmentation\.models .*\(one, two\)"):
        gateway.check(["one", "two"])


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (answer({"error": "Unauthorized"}, 401), WrongKey),
        (answer({"error": "LLM Gateway needs a paid plan"}, 403), WrongKey),
        (answer({"message": "Payment Required"}, 402), NoBalance),
        (answer({"error": "Your account balance is negative"}, 400), NoBalance),
    ],
)
def test_check_raises_for_key_and_balance(web: Web, gateway: Gateway, refusal: Answer, error: type[Exception]) -> None:
    web.answers = [refusal]
    with pytest.raises(error):
        gateway.check(["one", "two"])
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    "given",
    [
        answer({"error": "Too many"}, 429),
        answer({}, 503),
        (403, {}, b""),
        (401, {}, b""),
        LOST,
        text_answer("<html>", kind="text/html"),
        text_answer("<html>", 404, "text/html"),
    ],
    ids=["429", "503", "403 without a message", "401 without a message", "no answer", "a page", "no page"],
)
def test_check_is_inconclusive_for_any_other_response(
    web: Web, gateway: Gateway, clock: Clock, waits: list[float], given: Answer
) -> None:
    web.answers = [given]
    assert not gateway.check(["one", "two"])
    assert len(web.requests) == 1
    assert clock.slept + waits == []


def test_check_accepts_an_answer(web: Web, gateway: Gateway) -> None:
    web.answers = [chat_answer("an answer to nothing")]
    assert gateway.check(["one", "two"])
    assert len(web.requests) == 1


def test_check_is_inconclusive_if_the_gateway_is_unreachable() -> None:
    assert not Gateway(KEY, "http://127.0.0.1:9").check(["one"])
