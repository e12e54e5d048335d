"""The LLM gateway client, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callphases.errors import (
    AccountError,
    AnswerCut,
    AnswerInvalid,
    CallFailure,
    CallphasesError,
    ConfigurationError,
    ModelRefused,
    ModelRetired,
    NoBalance,
    NoModelLeft,
    RequestRefused,
    ServiceUnavailable,
    ThrottledOut,
    WrongKey,
)
from callphases.segmentation.gateway import Gateway, Settings
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
    found = chat(gateway)
    assert (found.text, found.cut, found.model) == ("hello", False, "claude-sonnet-4-6")
    assert (found.input_tokens, found.output_tokens) == (120, 30)
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


NO_MAX_TOKENS = answer(
    {
        "error": {
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "type": "invalid_request_error",
            "param": "max_tokens",
            "code": "unsupported_parameter",
        }
    },
    400,
)


def test_model_without_max_tokens_gets_max_completion_tokens_from_then_on(web: Web, gateway: Gateway) -> None:
    web.answers = [NO_MAX_TOKENS, chat_answer("one"), chat_answer("two"), chat_answer("three")]
    assert [chat(gateway).text, chat(gateway).text, chat(gateway, "another").text] == ["one", "two", "three"]
    assert [request.json.get("max_tokens") for request in web.requests] == [2000, None, None, 2000]
    assert [request.json.get("max_completion_tokens") for request in web.requests] == [None, 2000, 2000, None]


def test_model_may_reject_one_parameter_after_the_other(web: Web, gateway: Gateway) -> None:
    no_temperature = answer({"error": {"message": "Unsupported value: 'temperature'", "param": "temperature"}}, 400)
    at_most = answer({"error": {"message": "max_completion_tokens is too large: at most 1000 tokens"}}, 400)
    web.answers = [NO_MAX_TOKENS, no_temperature, NO_SCHEMA, at_most, chat_answer("one"), chat_answer("two")]
    assert [chat(gateway).limit, chat(gateway).limit] == [1000, 1000]
    assert {name for name in web.requests[-1].json if name not in ("model", "messages")} == {"max_completion_tokens"}
    assert len(web.requests) == 6


def test_question_that_waits_for_its_turn_is_sent_as_the_model_wants_it_by_then(web: Web, gateway: Gateway) -> None:
    class Slow(Turns):
        def await_turn(self, model: str) -> None:
            if not self.waited:
                self.waited.append(model)
                chat(gateway)

    web.answers = [NO_MAX_TOKENS, chat_answer("one"), chat_answer("two")]
    assert chat(gateway.limited_by(Slow())).text == "two"
    assert ["max_tokens" in request.json for request in web.requests] == [True, False, False]


def test_endless_demands_of_a_model_end(web: Web, gateway: Gateway) -> None:
    def respond(request: Request) -> Answer:
        less = request.json["max_tokens"] - 1
        return answer({"error": {"message": f"max_tokens is too large: at most {less}"}}, 400)

    web.respond = respond
    with pytest.raises(RequestRefused, match="too large"):
        chat(gateway)
    assert len(web.requests) < 10


def test_room_that_a_question_leaves_is_asked_for_once(web: Web, gateway: Gateway) -> None:
    crowded = answer(
        {
            "message": "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens (1000 "
            "in the messages, 2000 in the completion)."
        },
        400,
    )
    web.answers = [crowded, chat_answer("one"), chat_answer("two")]
    assert [chat(gateway).limit, chat(gateway).limit] == [1048, 2000]
    assert [request.json["max_tokens"] for request in web.requests] == [2000, 1048, 2000]


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
    found = chat(gateway)
    assert (found.input_tokens, found.output_tokens, found.model) == (5, 7, "gpt-5-mini-2026")


@pytest.mark.parametrize("more", [{}, {"usage": None}])
def test_answer_without_text_or_usage_is_empty(web: Web, gateway: Gateway, more: dict[str, Any]) -> None:
    web.answers = [answer({"choices": [{"message": {"content": None}, "finish_reason": "stop"}], **more})]
    found = chat(gateway)
    assert (found.text, found.input_tokens, found.output_tokens) == ("", 0, 0)


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
        (answer({"detail": "context too long for this deployment"}, 400), RequestRefused, "400: context too long for"),
        (answer({"detail": [{"loc": ["body", "n"], "msg": "Bad"}]}, 422), RequestRefused, r"422: body\.n: Bad"),
        (answer({"error": {"code": "insufficient_quota", "message": "Pay."}}, 429), NoBalance, "Pay. No requests"),
        (answer({"error": {"code": "content_filter", "message": "No."}}, 400), ModelRefused, "answered 400: No"),
        (answer({"error": {"code": "json_validate_failed", "message": "No."}}, 400), AnswerInvalid, "answered 400: No"),
        (answer({"error": {"code": "invalid_api_key", "message": "No."}}, 400), WrongKey, r"accept the key \(No\.\)"),
        (answer({"error": {"message": "Not now."}}, 501), RequestRefused, "answered 501: Not now"),
        (
            answer({"error": {"message": "No such page"}}, 404),
            RequestRefused,
            "No such page. Check llm_gateway_url of the",
        ),
        (answer({"error": {"code": 402, "message": "Pay."}}), NoBalance, "Pay."),
        (answer({"error": {"message": "Something."}}), RequestRefused, "answered 400: Something"),
        (answer([{"error": {"code": 404, "message": "Publisher Model `x` was not found"}}]), ModelRetired, "not found"),
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


# The connection


@pytest.mark.parametrize(
    ("key", "more", "sent"),
    [
        (KEY, {}, {"authorization": KEY}),
        (KEY, {"bearer": True}, {"authorization": f"Bearer {KEY}"}),
        (f"Bearer {KEY}", {"bearer": True}, {"authorization": f"Bearer {KEY}"}),
        ("", {"bearer": True}, {"authorization": None}),
        (KEY, {"key_header": "api-key"}, {"authorization": None, "api-key": KEY}),
        (KEY, {"bearer": True, "headers": {"X-Team": "calls"}}, {"authorization": f"Bearer {KEY}", "x-team": "calls"}),
    ],
)
def test_key_is_sent_as_the_server_wants_it(
    web: Web, key: str, more: dict[str, Any], sent: dict[str, str | None]
) -> None:
    web.answers = [chat_answer("hello")]
    chat(Gateway(key, web.url, **more))
    assert {name: web.requests[0].headers.get(name) for name in sent} == sent


@pytest.mark.parametrize(
    ("end", "path", "query"),
    [
        ("", "/v1/chat/completions", {}),
        ("/v1", "/v1/chat/completions", {}),
        ("/v1/", "/v1/chat/completions", {}),
        ("/api", "/api/v1/chat/completions", {}),
        ("/api/v1", "/api/v1/chat/completions", {}),
        ("/v1beta/openai/", "/v1beta/openai/chat/completions", {}),
        ("/v1/projects/p/endpoints/openapi", "/v1/projects/p/endpoints/openapi/chat/completions", {}),
        ("/serving-endpoints/chat/completions", "/serving-endpoints/chat/completions", {}),
        (
            "/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
            "/openai/deployments/gpt/chat/completions",
            {"api-version": "2024-10-21"},
        ),
    ],
)
def test_url_may_be_given_in_any_form(web: Web, end: str, path: str, query: dict[str, str]) -> None:
    web.answers = [chat_answer("hello")]
    gateway = Gateway(KEY, web.url + end)
    chat(gateway)
    assert (web.requests[0].path, web.requests[0].query) == (path, query)
    assert "?" not in gateway.url


@pytest.mark.parametrize("url", ["localhost:8000", "http://[box", "ftp://box", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not an http or https URL: check the host of x"):
        Gateway(KEY, url, settings=Settings("the password of x", "the host of x"))


def test_password_in_a_url_is_not_shown() -> None:
    assert Gateway("", "https://jo:secret@box/v1?key=secret").url == "https://box"
    with pytest.raises(ConfigurationError) as told:
        Gateway("", "ftp://box/v1?key=secret")
    assert "secret" not in str(told.value)


def test_messages_name_the_settings_of_the_gateway(web: Web) -> None:
    gateway = Gateway(KEY, web.url, settings=Settings("the password of x", "the host of x"))
    web.answers = [answer({}, 401), text_answer("<html>", kind="text/html")]
    with pytest.raises(WrongKey, match="set the password of x to a key"):
        chat(gateway)
    with pytest.raises(ServiceUnavailable, match="check the host of x"):
        chat(gateway)


# What is kept of errors


SAID = "My account number is four five six seven, and my name is Jo Fields."
QUESTION = [{"role": "system", "content": "Divide."}, {"role": "user", "content": f'{{"text": "{SAID}"}}'}]


@pytest.mark.parametrize(
    ("status", "error"), [(400, RequestRefused), (403, WrongKey), (429, ThrottledOut), (500, ServiceUnavailable)]
)
def test_error_that_quotes_the_question_is_kept_up_to_there(
    web: Web, gateway: Gateway, caplog: pytest.LogCaptureFixture, status: int, error: type[CallphasesError]
) -> None:
    web.respond = lambda _: answer({"error": {"message": f"Can't parse: {SAID.upper()} (key {KEY})"}}, status)
    with pytest.raises(error, match="Can't parse: …") as told:
        gateway.chat("one", QUESTION, max_tokens=2000)
    assert "FIELDS" not in str(told.value) + caplog.text


def test_what_callers_say_is_no_reason_of_an_error(web: Web, gateway: Gateway) -> None:
    said = "insufficient_quota, my credit balance is too low, invalid_api_key"
    web.respond = lambda _: answer({"error": {"message": f"Bad request: {said}"}}, 400)
    with pytest.raises(RequestRefused) as told:
        gateway.chat("one", [{"role": "user", "content": said}], max_tokens=2000)
    assert type(told.value) is RequestRefused


def test_key_in_an_error_is_not_kept(web: Web, gateway: Gateway) -> None:
    web.answers = [answer({"error": {"message": f"Invalid API key: {KEY}"}}, 401)]
    with pytest.raises(WrongKey, match="Invalid API key: …") as told:
        chat(gateway)
    assert KEY not in str(told.value)


@pytest.mark.parametrize("status", [429, 502, 504])
def test_error_in_an_answer_of_200_is_repeated_as_its_status_is(web: Web, gateway: Gateway, status: int) -> None:
    web.answers = [answer({"error": {"code": status, "message": "Later."}}), chat_answer("hello")]
    assert chat(gateway).text == "hello"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 502, "message": "Upstream died"}, AnswerInvalid),
        ({"code": 429, "message": "Slow down"}, AnswerInvalid),
        ({"message": "flagged as violence"}, ModelRefused),
    ],
)
def test_answer_that_breaks_off_is_paid_for(
    web: Web, gateway: Gateway, error: dict[str, Any], expected: type[CallFailure]
) -> None:
    choice = {"message": {"content": "{"}, "finish_reason": "error", "error": error}
    usage = {"prompt_tokens": 90, "completion_tokens": 5}
    web.answers = [answer({"choices": [choice], "model": "gpt-x", "usage": usage})]
    with pytest.raises(expected, match=error["message"]) as told:
        chat(gateway)
    assert (told.value.model, told.value.input_tokens, told.value.output_tokens) == ("gpt-x", 90, 5)


def test_completion_without_a_message_is_paid_for(web: Web, gateway: Gateway) -> None:
    web.answers = [answer({"choices": [], "usage": {"input_tokens": 90, "output_tokens": 5}})]
    with pytest.raises(AnswerInvalid) as told:
        chat(gateway)
    assert (told.value.model, told.value.input_tokens, told.value.output_tokens) == ("claude-sonnet-4-6", 90, 5)


def test_quota_of_the_day_ends_at_once(web: Web, gateway: Gateway, waits: list[float]) -> None:
    web.answers = [answer({"error": {"message": "Too many tokens per day, please wait before trying again."}}, 429)]
    with pytest.raises(ThrottledOut, match=r"a quota is used up: it answered 429 .*tokens per day"):
        chat(gateway)
    assert waits == []


# Any answer


bodies = st.binary(max_size=60) | st.sampled_from(
    [b"1" * 5000, b"[" * 5000, b'"\\ud800"', b"\xff\xfe{", b"{}", b"null"]
)
names = st.sampled_from([
    *("choices", "message", "content", "error", "code", "type", "usage", "finish_reason", "detail", "param"),
    *("metadata", "status", "errors", "raw", "input_tokens", "model", "text", "refusal", "tool_calls", "loc", "msg"),
])  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | st.floats() | st.text(max_size=9) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.sampled_from(
        [200, 201, 204, 300, 304, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 501, 503, 529, 599]
    ),
    body=bodies | values.map(lambda value: json.dumps(value).encode()),
    kind=st.sampled_from(["application/json", "text/html; charset=utf-16", "x"]),
)
def test_any_response_is_an_answer_or_a_named_error(
    web: Web, gateway: Gateway, waits: list[float], clock: Clock, status: int, body: bytes, kind: str
) -> None:
    clock.slept.clear()
    web.respond = lambda _: (status, {"content-type": kind}, body)
    try:
        found = Gateway(KEY, web.url).chat("one", MESSAGES, max_tokens=2000)
    except (CallFailure, AccountError, ServiceUnavailable) as error:
        str(error).encode()
    else:
        assert found.input_tokens >= 0


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
