"""A chat completion as gateways send it: its text, why it ended, and the tokens that are billed.

OpenAI's format has dialects: content as a list of blocks, usage under other names, each provider's own finish reasons.
Reading is lenient, because an answer is paid for: what can't be read counts as missing, and no document is an error.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

MOST_TOKENS = 10**9
"""A larger number of tokens is not a number of tokens."""
# OpenAI's, Anthropic's, Bedrock's, Gemini's and Ollama's names.
_INPUT = ("input_tokens", "prompt_tokens", "inputTokens", "promptTokenCount", "prompt_eval_count")
_OUTPUT = ("output_tokens", "completion_tokens", "outputTokens", "candidatesTokenCount", "eval_count")
_TOTAL = ("total_tokens", "totalTokens", "totalTokenCount")

# The finish reasons of the providers' reference documentation, without case and punctuation.
CUT_REASONS = frozenset({
    "length",  # OpenAI, vLLM, llama.cpp, Ollama
    "maxtokens", "modelcontextwindowexceeded", "compaction",  # Anthropic, Bedrock; Gemini writes MAX_TOKENS
    "maxoutputtokens", "maxcompletiontokens", "modellength", "errorlimit", "tokenlimit", "maxlength",
})  # fmt: skip
"""Finish reasons of answers that reached their token limit, or the end of the model's context."""
REFUSAL_REASONS = frozenset({
    "contentfilter",  # OpenAI, Azure
    "refusal", "contentfiltered", "guardrailintervened",  # Anthropic, Bedrock
    "safety", "recitation", "blocklist", "prohibitedcontent", "spii", "language", "modelarmor",  # Gemini
    "errortoxic", "sensitive", "blocked", "moderation", "policyviolation", "contentpolicyviolation",
})  # fmt: skip
"""Finish reasons of answers that the model, or a filter, declined to give."""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tokens(usage: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first of some fields that holds a number of tokens, as a number or as text."""
    for name in names:
        try:
            number = float(str(usage.get(name)))
        except ValueError:
            continue
        if 0 < number <= MOST_TOKENS and not isinstance(usage[name], bool):
            return round(number)
    return 0


def _content(content: object) -> str:
    """The text of a message: blocks of thinking and tool calls are not part of it."""
    if isinstance(content, dict) and "calls" in content:  # parsed already
        return json.dumps(content)
    blocks = content if isinstance(content, list) else [content]
    return "".join(_block(block) for block in blocks)


def _block(block: object) -> str:
    if not isinstance(block, dict):
        return _text(block)
    if block.get("type") not in (None, "text", "output_text") or block.get("thought") is True:
        return ""
    text = block.get("text", block.get("content"))
    return _text(text.get("value")) if isinstance(text, dict) else _text(text)


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Usage(_Read):
    """Tokens billed; 0 if they are not reported."""

    input_tokens: int = 0
    output_tokens: int = 0

    @model_validator(mode="before")
    @classmethod
    def _under_any_name(cls, usage: object) -> dict[str, int]:
        usage = _dict(usage)
        taken, given = _tokens(usage, _INPUT), _tokens(usage, _OUTPUT)
        return {"input_tokens": taken or max(_tokens(usage, _TOTAL) - given, 0), "output_tokens": given}


class Message(_Read):
    """What the model says.

    Attributes:
        text: the content without thinking.
        thinking: what the model wrote before it answered, if that is apart.
        arguments: of its first tool call: some gateways ask for JSON by way of a tool.
        declines: the model declines to answer.
    """

    text: str = ""
    thinking: str = ""
    arguments: str = ""
    declines: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_any_form(cls, message: object) -> dict[str, Any]:
        message = _dict(message)
        content = message.get("content")
        blocks = content if isinstance(content, list) else []
        used = [block for block in _items(blocks) if block.get("type") == "tool_use"]
        tools = [*_items(message.get("tool_calls")), *used]
        given = _dict(tools[0].get("function")).get("arguments", tools[0].get("input")) if tools else ""
        return {
            "text": _content(content),
            "thinking": _text(message.get("reasoning_content")) or _text(message.get("reasoning")),
            "arguments": json.dumps(given) if isinstance(given, dict) else _text(given),
            "declines": bool(_text(message.get("refusal")))
            or any(block.get("type") == "refusal" for block in _items(blocks)),
        }


def _items(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


class Choice(_Read):
    """The answer: its message, None if there is none, and why it ended, in lower case without punctuation."""

    message: Message | None = None
    reason: str = ""
    error: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_any_form(cls, choice: object) -> dict[str, Any]:
        choice = _dict(choice)
        message = choice.get("message", choice.get("delta"))
        if not isinstance(message, dict):
            message = {"content": choice["text"]} if isinstance(choice.get("text"), str) else None
        reason = _text(choice.get("finish_reason")) or _text(choice.get("stop_reason"))
        return {
            "message": message,
            "reason": re.sub(r"^finish_?reason[\W_]|[\W_]", "", reason.lower()),
            "error": _dict(choice.get("error")) or None,
        }


def _first_choice(value: object) -> object:
    return value[0] if isinstance(value, list) and value else value


def _name(value: object) -> str:
    # A row and a log line hold it.
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 200 else ""


class ChatCompletion(_Read):
    """A completion, read from a document of any form.

    Attributes:
        model: the model that answered; empty if the document does not say.
        choice: the first answer.
        usage: the tokens billed.
        blocked: the question was blocked before the model saw it.
    """

    model: Annotated[str, BeforeValidator(_name)] = ""
    choice: Annotated[Choice, BeforeValidator(_first_choice)] = Choice()
    usage: Usage = Usage()
    blocked: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_any_form(cls, document: object) -> dict[str, Any]:
        document = _dict(document)
        return {
            "model": document.get("model"),
            "choice": document.get("choices"),
            "usage": document.get("usage") or document.get("usageMetadata") or document,
            "blocked": bool(_dict(document.get("promptFeedback")).get("blockReason")),
        }

    @property
    def text(self) -> str:
        """The answer's text.

        An answer in the place of the thinking counts if it is a JSON object and nothing else: thinking is prose, but
        some servers take all of an answer for thinking.
        """
        message = self.choice.message or Message()
        candidates = (message.text, message.arguments, message.thinking if _is_object(message.thinking) else "")
        return next((one for one in candidates if one.strip()), "")

    @property
    def cut(self) -> bool:
        """Whether the answer reached its token limit."""
        return self.choice.reason in CUT_REASONS

    @property
    def declined(self) -> bool:
        """Whether the model, or a filter, declined to answer."""
        declines = self.choice.message is not None and self.choice.message.declines
        return self.blocked or declines or self.choice.reason in REFUSAL_REASONS


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
