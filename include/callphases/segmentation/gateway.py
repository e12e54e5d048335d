"""Client of the LLM gateway: sends one question to ``/v1/chat/completions`` and returns one answer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import requests
from requests.adapters import HTTPAdapter

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.errors import (
    AnswerCut,
    AnswerInvalid,
    ModelRetired,
    NoBalance,
    NoModelLeft,
    RequestRefused,
    ServiceUnavailable,
    WrongKey,
)
from callphases.limits.refusals import error_text, says_retired
from callphases.limits.throttle import Throttle

DEFAULT_URL = "https://llm-gateway.assemblyai.com"
_GATEWAY_BY_SPEECH_URL = {
    "https://api.assemblyai.com": DEFAULT_URL,
    "https://api.eu.assemblyai.com": "https://llm-gateway.eu.assemblyai.com",
}
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 300.0
CONNECTIONS = 64
"""Connections kept open for the threads of a task."""
TIMEOUT_STATUSES = frozenset({504, 524})
"""Answers of proxies that gave up waiting for a model."""
UNINFORMATIVE_STATUSES = frozenset({404, 405, 429})
"""Refusals that say nothing about the question: nothing is at this address, or it is too busy."""
CUT_REASONS = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
"""Finish reasons of answers that reached their token limit; the gateway passes on each provider's own."""
REFUSAL_REASONS = frozenset({"refusal", "content_filter", "safety", "recitation", "blocklist", "prohibited_content"})
"""Finish reasons of answers that the model declined to give."""


@dataclass(frozen=True)
class Answer:
    """A model's answer.

    Attributes:
        text: the message's content.
        cut: the answer reached its token limit.
        refused: the model declined to answer.
        model: the model that answered.
        input_tokens, output_tokens: billed for it.
    """

    text: str
    cut: bool
    refused: bool
    model: str
    input_tokens: int
    output_tokens: int


class RateLimiter(Protocol):
    """Enforces a limit of requests per minute for each model. Thread-safe."""

    def await_turn(self, model: str) -> None:
        """Block until a request may be sent to ``model``, and count it."""

    def soonest(self, models: Sequence[str]) -> str:
        """The model that accepts a request first; of several that do, the first in ``models``."""


class Gateway:
    """Client for one account at an OpenAI-compatible gateway. Thread-safe."""

    def __init__(
        self,
        key: str,
        url: str = DEFAULT_URL,
        session: requests.Session | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.url = url.rstrip("/")
        self._session = session or _session()
        self._session.headers["authorization"] = key
        self._unsupported: set[tuple[str, str]] = set()
        """Models with a parameter that they reject."""
        self._throttle = Throttle(f"language model gateway at {self.url}", clock=clock)
        self._limiter: RateLimiter | None = None

    def limited_by(self, limiter: RateLimiter) -> Gateway:
        """A client that asks ``limiter`` before each attempt of each request; it shares session and throttle."""
        limited = copy.copy(self)
        limited._limiter = limiter
        return limited

    def soonest(self, models: Sequence[str]) -> str:
        """The model that accepts a request first; the first of ``models`` where nothing limits them."""
        return models[0] if self._limiter is None else self._limiter.soonest(models)

    def check(self, models: Sequence[str]) -> bool:
        """Check at no cost that the gateway accepts the key and serves one of ``models``.

        The check sends a question without messages, which can't be answered or billed. A gateway rejects the key or the
        model before it notices that the messages are missing. Any other response, or none, is inconclusive.

        Returns:
            Whether the check was conclusive: the gateway rejected the question itself, or answered it.

        Raises:
            NoModelLeft: the gateway serves none of the models.
            WrongKey, NoBalance: the gateway rejects the key, or the balance is negative.
        """
        for model in models:
            try:
                response = self._request({"model": model, "messages": [], "max_tokens": 1})
            except requests.RequestException:
                return False
            refusal = _refusal(response, model, self.url) if 400 <= response.status_code < 500 else None
            if isinstance(refusal, WrongKey | NoBalance) and error_text(response):
                raise refusal
            if not isinstance(refusal, ModelRetired):
                rejects_question = (
                    isinstance(refusal, RequestRefused) and response.status_code not in UNINFORMATIVE_STATUSES
                )
                return rejects_question or b'"choices"' in response.content
        raise no_model_left(models)

    def chat(
        self,
        model: str,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        schema: dict[str, Any] | None = None,
        divisible: bool = False,
        may_send: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Ask one question, with temperature 0 and a JSON ``schema`` where the model supports them.

        Args:
            model: the model to ask.
            messages: the question.
            max_tokens: the answer's token limit.
            schema: the answer's JSON schema.
            divisible: whether the question can be split; it is then not repeated after a timeout.
            may_send: called right before each attempt; if it raises, the request is not sent.

        Raises:
            ModelRetired: the model is retired, unknown or not supported.
            RequestRefused: any other 4xx, with the gateway's message.
            AccountError: the key or the balance.
            AnswerCut: a divisible question timed out.
            AnswerInvalid: the completion has no message.
            ServiceUnavailable: no answer, or one that is not a completion.
        """

        def attempt() -> requests.Response:
            try:
                response = self._request(body, may_send)
            except requests.ReadTimeout:
                if not divisible:
                    raise
                raise AnswerCut(f"No answer came within {READ_TIMEOUT_S:.0f} s.") from None
            if divisible and response.status_code in TIMEOUT_STATUSES:
                raise AnswerCut(f"No answer came in time ({response.status_code}).")
            return response

        extras: dict[str, Any] = {"temperature": 0}
        if schema is not None:
            form = {"name": "call_phases", "schema": schema, "strict": True}
            extras["response_format"] = {"type": "json_schema", "json_schema": form}
        while True:
            supported = {name: value for name, value in extras.items() if (model, name) not in self._unsupported}
            body = {"model": model, "messages": messages, "max_tokens": max_tokens, **supported}
            # A lost answer can't be looked up, so the question has to be asked again.
            response = self._throttle.send(attempt, repeatable=True)
            rejected = _rejected_parameters(response, supported)
            if not rejected:
                break
            self._unsupported.update((model, name) for name in rejected)
        if response.status_code >= 400:
            raise _refusal(response, model, self.url)
        return _answer(response, model)

    def _request(self, body: dict[str, Any], may_send: Callable[[], None] = lambda: None) -> requests.Response:
        if self._limiter is not None:
            self._limiter.await_turn(body["model"])
        may_send()
        return self._session.post(
            f"{self.url}/v1/chat/completions", json=body, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        )


def gateway_beside(speech_url: str) -> str:
    """The gateway URL for a speech API: the vendor's gateway in the same region, or the same host for any other."""
    return _GATEWAY_BY_SPEECH_URL.get(speech_url.rstrip("/"), speech_url)


def _session() -> requests.Session:
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return session


def no_model_left(models: Sequence[str]) -> NoModelLeft:
    """The error for a list of models that are all retired."""
    return NoModelLeft(
        f"The gateway no longer serves any of the models in segmentation.models ({', '.join(models)}): name another."
    )


def _answer(response: requests.Response, model: str) -> Answer:
    try:
        document = response.json()
    except requests.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise ServiceUnavailable(
            "The language model gateway's response is not a chat completion: "
            "check llm_gateway_url of the assemblyai connection."
        )
    try:
        choice = document["choices"][0]
        reason = str(choice.get("finish_reason")).lower()
        usage = document.get("usage") or {}
        return Answer(
            text=str(choice["message"].get("content") or ""),
            cut=reason in CUT_REASONS,
            refused=reason in REFUSAL_REASONS or bool(choice["message"].get("refusal")),
            model=str(document.get("model") or model),
            input_tokens=int(usage.get("input_tokens") or usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("output_tokens") or usage.get("completion_tokens") or 0),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise AnswerInvalid("The gateway's completion has no message.") from None


def _rejected_parameters(response: requests.Response, names: Iterable[str]) -> list[str]:
    """The parameters of a request that the gateway rejects: a 400 names them."""
    if response.status_code != 400:
        return []
    text = error_text(response)
    return [name for name in names if name in text]


def _refusal(response: requests.Response, model: str, url: str) -> Exception:
    text = error_text(response) or f"status {response.status_code} without a message"
    lower = text.lower()
    if "balance" in lower or response.status_code == 402:
        return NoBalance(
            f"The language model gateway says: {text} No requests are sent until the account is topped up."
        )
    if response.status_code in (401, 403):
        return WrongKey(
            f"The language model gateway at {url} does not accept the key ({text}): "
            "set the password of the assemblyai connection to a key that may use the gateway."
        )
    if says_retired(text):
        return ModelRetired(f"The gateway says of model {model!r}: {text}", named=model)
    return RequestRefused(f"The language model gateway answered {response.status_code}: {text}")
