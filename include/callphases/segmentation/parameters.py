"""Which parameters of a question each model accepts, learned from its refusals.

OpenAI-compatible servers differ: some take ``max_completion_tokens`` for ``max_tokens``, some take no temperature other
than 1, some know no JSON schema, and each model has its largest answer. A refused question is not billed. Its error
names the parameter, and the question is sent again without it, or with another value; from then on, every question to
that model is sent so.
"""

from __future__ import annotations

import re
from typing import Any

from callphases.limits.refusals import Reason, Refusal

LEAST_TOKENS = 500
"""A question that leaves the model less room for its answer is too long."""
_FEWEST = 100
"""A smaller number in an error is not a token limit."""
_STATUSES = frozenset({400, 404, 422, 501})
"""Of refusals that may be about a parameter."""
_NAMES = {
    "temperature": re.compile(r"(?i)\btemperature\b"),
    # Providers speak of what the gateway makes of response_format.
    "response_format": re.compile(
        r"(?i)response_?format|json_?schema|response_?schema|structured[ _]output|output_(config|format)|guided[ _]"
        r"|additionalProperties|\bjson mode\b|\bgrammar\b|\bstrict\b"
    ),
}
_LIMIT = re.compile(
    r"(?i)max_(completion_|output_|new_)?tokens|maxOutputTokens|maximum tokens|(output|completion) tokens"
)
_UNKNOWN = re.compile(r"(?i)unsupported|not (supported|permitted)|unknown|unrecogni[sz]ed|deprecated|unexpected|extra")
_TOO_LARGE = re.compile(
    r"(?i)too large|exceed|at most|up to|maximum|less than|lower than|smaller than|limit of|range|<=|≤|\d > \d"
)
_CONTEXT = re.compile(r"(?i)context length is (?:only )?(\d+)|max_new_tokens`? must be <= (\d+)")
_QUESTION = re.compile(r"(?i)\b(\d+) (?:in the (?:messages|prompt)|(?:input|prompt) tokens|`?inputs`? tokens)")


_CLEAR = frozenset({Reason.BALANCE, Reason.KEY, Reason.CONTENT, Reason.ANSWER, Reason.BUSY, Reason.QUOTA})
"""Reasons that are not about a parameter, whatever else the error names."""


class Parameters:
    """The parameters that the models at one gateway accept. Thread-safe."""

    def __init__(self) -> None:
        self._dropped: set[tuple[str, str]] = set()
        self._renamed: set[str] = set()
        self._most: dict[str, int] = {}

    def of(self, model: str, max_tokens: int, schema: dict[str, Any] | None) -> dict[str, Any]:
        """The parameters of a question: a token limit, temperature 0 and the ``schema``, as ``model`` accepts them."""
        found: dict[str, Any] = {
            "max_completion_tokens" if model in self._renamed else "max_tokens": min(
                max_tokens, self._most.get(model, max_tokens)
            ),
            "temperature": 0,
        }
        if schema is not None:
            form = {"name": "call_phases", "schema": schema, "strict": True}
            found["response_format"] = {"type": "json_schema", "json_schema": form}
        return {name: value for name, value in found.items() if (model, name) not in self._dropped}

    def learn(self, model: str, refusal: Refusal, sent: dict[str, Any]) -> None:
        """Note what a refusal says of the parameters in ``sent``."""
        if refusal.status not in _STATUSES or refusal.reason in _CLEAR:
            return
        if (most := _most_tokens(refusal.words, token_limit(sent))) is not None:
            self._most[model] = most
        elif refusal.reason is Reason.OTHER:
            text = f"{refusal.parameter} {refusal.words}"
            if "max_tokens" in sent and (
                "max_completion_tokens" in text or ("max_tokens" in text and _UNKNOWN.search(text))
            ):
                self._renamed.add(model)
            self._dropped |= {(model, name) for name, named in _NAMES.items() if name in sent and named.search(text)}


def token_limit(sent: dict[str, Any]) -> int:
    """The token limit of a question that was sent."""
    return int(sent.get("max_tokens") or sent.get("max_completion_tokens") or 0)


def room(refusal: Refusal, sent: dict[str, Any]) -> int | None:
    """The tokens that a question leaves for its answer, if it was refused because the two together are too long.

    Some servers count the token limit of the answer as if it were used.
    """
    context, question = _CONTEXT.search(refusal.words), _QUESTION.search(refusal.words)
    if refusal.status not in _STATUSES or context is None or question is None:
        return None
    left = int((context[1] or context[2])[:9]) - int(question[1][:9])
    return left if LEAST_TOKENS <= left < token_limit(sent) else None


def _most_tokens(text: str, limit: int) -> int | None:
    """The largest token limit that an error names, if it is about a limit that is too large."""
    if _LIMIT.search(text) is None or _TOO_LARGE.search(text) is None or _CONTEXT.search(text) is not None:
        return None
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    numbers: list[int] = []
    for found in re.finditer(r"(?<![\w.-])(\d{2,9})(?![\w.]*[A-Za-z_]|-\d)( ?\(exclusive\))?", text):
        before = text[: found.start()].rstrip(" `'\"")
        is_exclusive = bool(found[2]) or re.search(r"(?i)(lower|less|smaller) than$", before) is not None
        numbers.append(int(found[1]) - is_exclusive)
    return max((number for number in numbers if _FEWEST <= number < limit), default=None)
