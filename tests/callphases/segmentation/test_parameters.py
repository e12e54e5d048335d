"""Parameters that a model rejects are left out or changed, from the first refusal on."""

from __future__ import annotations

from typing import Any

import pytest

from callphases.limits.refusals import refusal_of
from callphases.segmentation.parameters import Parameters, room

SCHEMA = {"type": "object"}


def refused(message: str, status: int = 400, limit: int = 8000, **more: Any) -> dict[str, Any]:
    """What is sent after a refusal."""
    parameters = Parameters()
    sent = parameters.of("m", limit, SCHEMA)
    parameters.learn("m", refusal_of({"error": {"message": message, **more}}, status), sent)
    assert parameters.of("another", limit, SCHEMA) == sent
    return parameters.of("m", limit, SCHEMA)


def test_everything_is_sent_at_first() -> None:
    sent = Parameters().of("m", 2000, SCHEMA)
    assert list(sent) == ["max_tokens", "temperature", "response_format"]
    assert list(Parameters().of("m", 2000, None)) == ["max_tokens", "temperature"]


@pytest.mark.parametrize(
    "message",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "this model is not supported MaxTokens, please use MaxCompletionTokens (max_completion_tokens)",
        "max_tokens: Extra inputs are not permitted",
        "Unrecognized request argument supplied: max_tokens",
    ],
)
def test_max_completion_tokens_takes_the_place_of_max_tokens(message: str) -> None:
    sent = refused(message)
    assert list(sent) == ["max_completion_tokens", "temperature", "response_format"]
    assert sent["max_completion_tokens"] == 8000


def test_renamed_limit_is_not_renamed_again() -> None:
    parameters = Parameters()
    for message in ("Use max_completion_tokens", "max_completion_tokens is not supported"):
        refusal = refusal_of({"error": {"message": message}}, 400)
        parameters.learn("m", refusal, parameters.of("m", 2000, None))
    assert "max_completion_tokens" in parameters.of("m", 2000, None)


@pytest.mark.parametrize(
    ("message", "left_out"),
    [
        ("Unsupported value: 'temperature' does not support 0 with this model.", "temperature"),
        ("`temperature` may only be set to 1 when thinking is enabled.", "temperature"),
        ("extraneous key [temperature] is not permitted, please reformat your input and try again.", "temperature"),
        (
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
            "response_format",
        ),
        ("This response_format type is unavailable now", "response_format"),
        ("response_format.json_schema.strict: Extra inputs are not permitted", "response_format"),
        ("json_schema is enabled only for api versions 2024-08-01-preview and later", "response_format"),
        ("Unknown name \"additionalProperties\" at 'generation_config.response_schema'", "response_format"),
        ("Structured outputs are not supported by this model", "response_format"),
        ("Failed to parse grammar", "response_format"),
        ('Bad request: json: unknown field "response_format"', "response_format"),
    ],
)
@pytest.mark.parametrize("status", [400, 404, 422, 501])
def test_rejected_parameter_is_left_out(message: str, left_out: str, status: int) -> None:
    everything = ["max_tokens", "temperature", "response_format"]
    assert list(refused(message, status)) == [name for name in everything if name != left_out]


def test_parameter_may_be_named_in_a_field() -> None:
    assert "temperature" not in refused("Not supported.", param="temperature")


@pytest.mark.parametrize(
    ("message", "most"),
    [
        (
            "max_tokens is too large: 8000. This model supports at most 4096 completion tokens, whereas you "
            "provided 8000.",
            4096,
        ),
        (
            "max_tokens: 8000 > 4096, which is the maximum allowed number of output tokens for "
            "claude-3-haiku-20240307",
            4096,
        ),
        (
            "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens "
            "value that is lower than 4096.",
            4096,
        ),
        (
            "`max_tokens` must be less than or equal to `4096`, the maximum value for `max_tokens` is less than "
            "the `context_window` for this model",
            4096,
        ),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 4096]", 4096),
        ("Range of max_tokens should be [1, 4096]", 4096),
        (
            "Unable to submit request because it has a maxOutputTokens value of 8000 but the supported range is "
            "from 1 (inclusive) to 2049 (exclusive).",
            2048,
        ),
        ("max_tokens must be at most 2,048", 2048),
        ("max_tokens is too large", 8000),
        ("max_tokens must be at least 16", 8000),
        ("rate limit: at most 500 requests", 8000),
    ],
)  # fmt: skip
def test_token_limit_is_lowered_to_what_the_model_allows(message: str, most: int) -> None:
    sent = refused(message)
    assert sent["max_tokens"] == most
    assert list(sent) == ["max_tokens", "temperature", "response_format"]


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("prompt is too long, reduce max_tokens or response_format", 400),
        ("Your credit balance is too low for response_format", 400),
        ("temperature is too high, requests are refused", 429),
        ("response_format failed", 500),
        ("Your prompt was flagged as potentially violating our usage policy; temperature", 400),
        ("Invalid API key; response_format", 401),
    ],
)
def test_other_refusals_change_nothing(message: str, status: int) -> None:
    assert list(refused(message, status)) == ["max_tokens", "temperature", "response_format"]


@pytest.mark.parametrize(
    ("message", "left"),
    [
        (
            "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (1000 in the "
            "messages, 8000 in the completion). Please reduce the length of the messages or completion.",
            7192,
        ),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 8000. This model's maximum context length is "
            "8192 tokens and your request has 3000 input tokens (8000 > 8192 - 3000).",
            5192,
        ),
        (
            "You passed 3000 input tokens and requested 8000 output tokens. However, the model's context length "
            "is only 8192 tokens, resulting in a maximum input length of 192 tokens.",
            5192,
        ),
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. Given: 3000 `inputs` "
            "tokens and 8000 `max_new_tokens`",
            5192,
        ),
        (
            "This model's maximum context length is 8192 tokens. However, you requested 16100 tokens (8100 in "
            "the messages, 8000 in the completion).",
            None,
        ),
        ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.", None),
        ("prompt is too long", None),
    ],
)  # fmt: skip
def test_room_that_a_question_leaves_is_used(message: str, left: int | None) -> None:
    refusal = refusal_of({"error": {"message": message}}, 400)
    sent = Parameters().of("m", 8000, None)
    assert room(refusal, sent) == left
    assert refused(message) == Parameters().of("m", 8000, SCHEMA), "that is not a property of the model"
