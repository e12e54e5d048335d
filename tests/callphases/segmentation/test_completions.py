"""Chat completions in the dialects of providers and gateways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.segmentation.completions import ChatCompletion

JSON = '{"calls": []}'


def completion(choice: Any, **more: Any) -> ChatCompletion:
    return ChatCompletion.model_validate({"choices": [choice], **more})


def message(content: Any, **more: Any) -> ChatCompletion:
    return completion({"message": {"role": "assistant", "content": content, **more}, "finish_reason": "stop"})


@pytest.mark.parametrize(
    "content",
    [
        JSON,
        [{"type": "text", "text": JSON}],
        [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": JSON}],
        [{"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": JSON}],
        [{"type": "text", "text": JSON[:5]}, {"type": "text", "text": JSON[5:]}],
        [{"type": "text", "text": {"value": JSON, "annotations": []}}],
        [{"thought": True, "text": "Hm."}, {"text": JSON}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": JSON}],
        [JSON],
        [None, 7, {"type": "image"}, JSON],
        {"type": "text", "text": JSON},
        {"calls": []},
    ],
)
def test_content_is_text_without_thinking(content: Any) -> None:
    assert message(content).text == JSON


@pytest.mark.parametrize("content", [None, "", [], {}, 7, True, [{"type": "tool_use"}], [{"text": 7}], [[JSON]]])
def test_content_of_another_form_is_no_text(content: Any) -> None:
    assert message(content).text == ""


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"reasoning_content": JSON}, JSON),
        ({"reasoning": JSON}, JSON),
        ({"reasoning_content": f"Perhaps {JSON}?"}, ""),
        ({"reasoning_content": "[1]"}, ""),
        ({"tool_calls": [{"function": {"name": "json", "arguments": JSON}}]}, JSON),
        ({"tool_calls": [{"function": {"name": "json", "arguments": {"calls": []}}}]}, JSON),
        ({"tool_calls": [None, {"function": None}]}, ""),
        ({"tool_calls": {}}, ""),
    ],
)
def test_answer_without_content_is_looked_for(more: dict[str, Any], text: str) -> None:
    assert message("", **more).text == text
    assert message("other", **more).text == "other"


def test_tool_use_block_is_an_answer() -> None:
    assert message([{"type": "tool_use", "name": "json", "input": {"calls": []}}]).text == JSON


@pytest.mark.parametrize(
    "choice",
    [
        {"text": JSON, "finish_reason": "stop"},
        {"delta": {"content": JSON}},
        {"message": None, "text": JSON},
        {"message": {"content": JSON}},
    ],
)
def test_message_may_be_elsewhere(choice: Any) -> None:
    found = completion(choice)
    assert (found.text, found.cut, found.declined) == (JSON, False, False)


@pytest.mark.parametrize(
    "document",
    [None, [], "x", {}, {"choices": None}, {"choices": []}, {"choices": {}}, {"choices": [None]}, {"choices": ["x"]}],
)
def test_document_without_a_message_has_none(document: Any) -> None:
    found = ChatCompletion.model_validate(document)
    assert found.choice.message is None
    assert (found.text, found.model, found.usage.input_tokens) == ("", "", 0)


def test_choices_may_be_one_object() -> None:
    assert ChatCompletion.model_validate({"choices": {"message": {"content": JSON}}}).text == JSON


@pytest.mark.parametrize(
    ("reason", "cut", "declined"),
    [
        ("stop", False, False),
        ("end_turn", False, False),
        ("STOP", False, False),
        ("eos", False, False),
        ("COMPLETE", False, False),
        (None, False, False),
        (7, False, False),
        ("length", True, False),
        ("max_tokens", True, False),
        ("MAX_TOKENS", True, False),
        ("maxTokens", True, False),
        ("FinishReason.MAX_TOKENS", True, False),
        ("FINISH_REASON_MAX_TOKENS", True, False),
        ("max_output_tokens", True, False),
        ("model_length", True, False),
        ("model_context_window_exceeded", True, False),
        ("content_filter", False, True),
        ("content-filter", False, True),
        ("content_filtered", False, True),
        ("guardrail_intervened", False, True),
        ("refusal", False, True),
        ("SAFETY", False, True),
        ("RECITATION", False, True),
        ("BLOCKLIST", False, True),
        ("PROHIBITED_CONTENT", False, True),
        ("SPII", False, True),
        ("ERROR_TOXIC", False, True),
        ("sensitive", False, True),
    ],
)
def test_finish_reason_is_understood_for_every_provider(reason: Any, cut: bool, declined: bool) -> None:
    found = completion({"message": {"content": "x"}, "finish_reason": reason})
    assert (found.cut, found.declined) == (cut, declined)
    assert completion({"message": {"content": "x"}, "stop_reason": reason}).cut is cut


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [{"message": {"content": None, "refusal": "I can't help with that."}}]},
        {"choices": [{"message": {"content": [{"type": "refusal", "refusal": "No."}]}}]},
        {"promptFeedback": {"blockReason": "SAFETY"}},
    ],
)
def test_model_may_decline_in_other_ways(document: Any) -> None:
    assert ChatCompletion.model_validate(document).declined


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({"usage": {"input_tokens": 5, "output_tokens": 7}}, (5, 7)),
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}, (5, 7)),
        ({"usage": {"inputTokens": 5, "outputTokens": 7}}, (5, 7)),
        ({"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 7}}, (5, 7)),
        ({"prompt_eval_count": 5, "eval_count": 7}, (5, 7)),
        ({"usage": {"input_tokens": None, "prompt_tokens": "5", "completion_tokens": 7.0}}, (5, 7)),
        ({"usage": {"total_tokens": 12, "completion_tokens": 7}}, (5, 7)),
        ({"usage": {"total_tokens": 12}}, (12, 0)),
        ({"usage": {"input_tokens": "many", "output_tokens": 7}}, (0, 7)),
        ({"usage": {"input_tokens": -5, "output_tokens": True}}, (0, 0)),
        ({"usage": {"input_tokens": 1e400, "output_tokens": 10**30}}, (0, 0)),
        ({"usage": {"input_tokens": {"text": 5}, "output_tokens": [7]}}, (0, 0)),
        ({"usage": None}, (0, 0)),
        ({"usage": [5, 7]}, (0, 0)),
        ({}, (0, 0)),
    ],
)
def test_tokens_are_read_under_any_name(more: dict[str, Any], tokens: tuple[int, int]) -> None:
    usage = completion({"message": {"content": "x"}}, **more).usage
    assert (usage.input_tokens, usage.output_tokens) == tokens


@pytest.mark.parametrize(("name", "model"), [("gpt-4o-2026", "gpt-4o-2026"), (7, ""), ("a\nb", ""), ("x" * 300, "")])
def test_model_is_a_name(name: Any, model: str) -> None:
    assert completion({"message": {"content": "x"}}, model=name).model == model


words = st.sampled_from([
    *("choices", "message", "content", "finish_reason", "text", "type", "usage", "model", "error", "delta", "refusal"),
    *("tool_calls", "function", "arguments", "reasoning_content", "prompt_tokens", "output_tokens", "total_tokens"),
    *("promptFeedback", "blockReason"),
])  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
    max_leaves=30,
)


@given(anything | st.lists(anything, max_size=2).map(lambda choices: {"choices": choices, "usage": {}}))
def test_any_document_is_a_completion(document: Any) -> None:
    found = ChatCompletion.model_validate(document)
    assert isinstance(found.text, str)
    assert 0 <= found.usage.input_tokens <= 10**9
    json.dumps([found.model, found.cut, found.declined])
