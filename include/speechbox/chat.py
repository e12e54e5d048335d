"""Chat completions: they answer one kind of question, which phases calls have."""

import asyncio
import json
import math
import re
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from speechbox.engines.scripted import ScriptedChat
from speechbox.limits import Turns

#: Some of the gateway's models. The local segmenter answers for every name.
MODELS = ("claude-sonnet-4-6", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001")
DEFAULT_MAX_TOKENS = 1000
CHARS_PER_TOKEN = 4

Json = dict[str, Any]


class InvalidChat(ValueError):
    """The request is invalid; the message says why."""


class Responder(Protocol):
    """Finds the phases of each call in a document of calls and phase definitions."""

    async def answer(self, document: Json) -> Json:
        """Return the answer, or raise `InvalidChat` for a malformed document."""


class LocalResponder:
    """Answers with the local segmenter in one thread, one question at a time; the first question loads it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="segmenter")
        self._segmenter: Any = None

    async def answer(self, document: Json) -> Json:
        """Divide each call into phases."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, document)

    def _answer(self, document: Json) -> Json:
        if self._segmenter is None:
            from speechbox.segmenter import LocalSegmenter

            self._segmenter = LocalSegmenter()
        try:
            answer: Json = self._segmenter.answer(document)
        except ValueError as error:
            raise InvalidChat(str(error)) from error
        return answer


class ScriptedResponder:
    """Answers with a script's rules after its latency, or with the local segmenter without rules."""

    def __init__(self, script: ScriptedChat) -> None:
        self._script = script
        self._rules = [(re.compile(rule.match, re.IGNORECASE), rule.name) for rule in script.phases]
        self._local = LocalResponder()

    async def answer(self, document: Json) -> Json:
        """Start a phase at each cue that matches a rule."""
        calls = document["calls"]
        if not isinstance(calls, list):
            raise InvalidChat("The document's calls are no list")
        await asyncio.sleep(self._script.latency_s + self._script.latency_s_per_call * len(calls))
        if not self._rules:
            return await self._local.answer(document)
        try:
            return {"calls": [{"call": call["call"], "phases": self._phases(call["cues"])} for call in calls]}
        except (KeyError, TypeError) as error:
            raise InvalidChat("The document's calls or cues are malformed") from error

    def _phases(self, cues: list[Json]) -> list[Json]:
        """Return the phases of a call; cues before the first match belong to the first rule's phase."""
        phases: list[Json] = []
        for cue in cues:
            name = next((name for pattern, name in self._rules if pattern.search(cue["text"])), None)
            if not phases or (name and name != phases[-1]["name"]):
                name = name or self._rules[0][1]
                summary = self._script.summary.format(name=name, start_cue=cue["cue"])
                phases.append({"name": name, "start_cue": cue["cue"], "summary": summary})
        return phases


def models_document() -> Json:
    """Return the answer to GET /v1/models, in OpenAI's format."""
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "speechbox"} for name in MODELS]}


async def complete(body: object, responder: Responder, turns: Turns) -> tuple[Json, int]:
    """Answer POST /v1/chat/completions once `turns` permits; returns the completion and the number of calls."""
    request = _checked(body)
    document = question(request["messages"])
    async with turns:
        began = time.monotonic()
        answer = await responder.answer(document)
    content = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    max_tokens = request.get("max_tokens") or request.get("max_completion_tokens") or DEFAULT_MAX_TOKENS
    cut = tokens(content) > max_tokens
    if cut:
        content = content[: max_tokens * CHARS_PER_TOKEN]
    input_tokens, output_tokens = sum(tokens(_text(message)) for message in request["messages"]), tokens(content)
    request_id = str(uuid.uuid4())
    completion = {
        "request_id": request_id,
        "id": request_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "max_tokens" if cut else "end_turn",
            }
        ],
        "usage": {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        },
        "http_status_code": 200,
        "llm_status_code": 200,
        "response_time": time.monotonic() - began,
    }
    return completion, len(document["calls"])


def _checked(body: object) -> Json:
    if not isinstance(body, dict):
        raise InvalidChat("The request body must be a JSON object")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise InvalidChat("model is required")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise InvalidChat("messages must be a list of messages, and not empty")
    if body.get("stream"):
        raise InvalidChat("stream is not supported")
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InvalidChat(f"{name} must be a positive integer")
    return body


def question(messages: list[Json]) -> Json:
    """Return the last user message that is a document of calls; the local model ignores all other messages."""
    for message in reversed(messages):
        if message.get("role") == "user":
            try:
                document = json.loads(_text(message))
            except ValueError:
                continue
            if isinstance(document, dict) and "calls" in document:
                return document
    raise InvalidChat(
        "The local model answers one kind of question: a user message that is one JSON document, "
        '{"phases": [{"name", "description"}], "calls": [{"call", "cues": [{"cue", "speaker", "text"}]}]}'
    )


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def tokens(text: str) -> int:
    """Estimate the number of tokens; the exact number depends on the model's tokenizer."""
    return math.ceil(len(text) / CHARS_PER_TOKEN)
