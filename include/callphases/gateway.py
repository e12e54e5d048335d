"""The language models as a client: one question to ``/v1/chat/completions``, one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests

from callphases.errors import AccountError, ModelRetired, RequestRefused, ServiceUnavailable, without_secrets
from callphases.throttle import send

DEFAULT_URL = "https://llm-gateway.assemblyai.com"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 300.0
CUT = frozenset({"length", "max_tokens", "model_length", "MAX_TOKENS"})
"""What providers call the end of an answer that met its token limit; the gateway passes their own words on."""


@dataclass(frozen=True)
class Answer:
    """A model's answer: its text, whether it was cut at the token limit, and what it cost in tokens."""

    text: str
    cut: bool
    model: str
    input_tokens: int
    output_tokens: int


class Gateway:
    """A client of one account at an OpenAI-compatible gateway."""

    def __init__(self, key: str, url: str = DEFAULT_URL, session: requests.Session | None = None) -> None:
        self.url = url.rstrip("/")
        self._session = session or requests.Session()
        self._session.headers["authorization"] = key
        self._refused: set[tuple[str, str]] = set()

    def chat(
        self, model: str, messages: list[dict[str, str]], *, max_tokens: int, schema: dict[str, Any] | None = None
    ) -> Answer:
        """Ask one question, with temperature 0 and for a JSON ``schema`` where the model takes them.

        Raises:
            ModelRetired: the model is retired, unknown or not supported.
            RequestRefused: any other 4xx, with the gateway's words.
            AccountError: the key or the balance.
            ServiceUnavailable: no answer, or none that can be read.
        """
        extras: dict[str, Any] = {"temperature": 0}
        if schema is not None:
            form = {"name": "call_phases", "schema": schema, "strict": True}
            extras["response_format"] = {"type": "json_schema", "json_schema": form}
        while True:
            wanted = {name: value for name, value in extras.items() if (model, name) not in self._refused}
            response = self._post({"model": model, "messages": messages, "max_tokens": max_tokens, **wanted})
            refused = [name for name in wanted if response.status_code == 400 and name in _words(response)]
            if not refused:
                break
            self._refused.update((model, name) for name in refused)
        if response.status_code >= 400:
            raise _refusal(response, model, self.url)
        return _answer(response, model)

    def _post(self, body: dict[str, Any]) -> requests.Response:
        # Repeatable: an answer that got lost can't be looked up, and asking again is the only way to have one.
        return send(
            lambda: self._session.post(
                f"{self.url}/v1/chat/completions", json=body, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
            ),
            f"language model gateway at {self.url}",
            repeatable=True,
        )


def _answer(response: requests.Response, model: str) -> Answer:
    try:
        document = response.json()
        choice = document["choices"][0]
        text = choice["message"].get("content") or ""
        usage = document.get("usage") or {}
        return Answer(
            text=str(text),
            cut=choice.get("finish_reason") in CUT,
            model=str(document.get("model") or model),
            input_tokens=int(usage.get("input_tokens") or usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("output_tokens") or usage.get("completion_tokens") or 0),
        )
    except (requests.JSONDecodeError, KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise ServiceUnavailable(
            "Expected a chat completion from the language model gateway and got something else: "
            "check llm_gateway_url of the assemblyai connection."
        ) from None


def _words(response: requests.Response) -> str:
    """The message of an error, in any of the gateway's three shapes."""
    try:
        document = response.json()
    except requests.JSONDecodeError:
        return without_secrets(response.text)
    if not isinstance(document, dict):
        return ""
    error = document.get("error")
    if isinstance(error, dict):
        return without_secrets(str(error.get("message", "")))
    if error:
        return without_secrets(str(error))
    metadata = document.get("metadata")
    details = metadata.get("errors", []) if isinstance(metadata, dict) else []
    return without_secrets(" ".join([str(document.get("message", "")), *(str(one) for one in details)]))


def _refusal(response: requests.Response, model: str, url: str) -> Exception:
    words = _words(response) or f"an answer of {response.status_code} without a word"
    lower = words.lower()
    if response.status_code in (401, 403):
        return AccountError(
            f"The language model gateway at {url} does not take the key ({words}): "
            "set the password of the assemblyai connection to a key that may use the gateway."
        )
    if "balance" in lower or response.status_code == 402:
        return AccountError(f"The language model gateway says: {words}")
    if "model" in lower and any(
        sign in lower for sign in ("not supported", "retired", "deprecated", "not found", "unknown")
    ):
        return ModelRetired(f"The gateway says of model {model!r}: {words}")
    return RequestRefused(f"The language model gateway answered {response.status_code}: {words}")
