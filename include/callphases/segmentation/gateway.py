"""The language models as a client: one question to ``/v1/chat/completions``, one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import requests
from requests.adapters import HTTPAdapter

from callphases.errors import (
    AnswerCut,
    AnswerInvalid,
    ModelRetired,
    NoBalance,
    NoModelLeft,
    RequestRefused,
    ServiceUnavailable,
    WrongKey,
    says_retired,
)
from callphases.limits.throttle import Throttle, error_text

DEFAULT_URL = "https://llm-gateway.assemblyai.com"
_OF_REGION = {
    "https://api.assemblyai.com": DEFAULT_URL,
    "https://api.eu.assemblyai.com": "https://llm-gateway.eu.assemblyai.com",
}
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 300.0
CONNECTIONS = 64
"""Kept open for the threads of a task."""
TOOK_TOO_LONG = frozenset({504, 524})
"""What servers between us and a model answer when they have waited for it long enough."""
SAYS_NOTHING = frozenset({404, 405, 429})
"""Refusals that are not of the question: nothing is at this address, or it is too busy."""
CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
"""What providers call the end of an answer that met its token limit; the gateway passes their own words on."""
REFUSED = frozenset({"refusal", "content_filter", "safety", "recitation", "blocklist", "prohibited_content"})
"""What they call the end of an answer that the model does not want to give."""


@dataclass(frozen=True)
class Answer:
    """A model's answer: its text, whether it was cut at the token limit or refused, and what it cost in tokens."""

    text: str
    cut: bool
    refused: bool
    model: str
    input_tokens: int
    output_tokens: int


class RateLimiter(Protocol):
    """What keeps each model's limit of requests a minute; safe to use from threads."""

    def await_turn(self, model: str) -> None:
        """Return when a request may be sent to ``model``, and count it."""

    def soonest(self, models: Sequence[str]) -> str:
        """The one of ``models`` whose turn comes first; of several the first named."""


class Gateway:
    """A client of one account at an OpenAI-compatible gateway.

    ``rate_limiter``, where it is set, is asked before each attempt of each request.
    """

    def __init__(self, key: str, url: str = DEFAULT_URL, session: requests.Session | None = None) -> None:
        self.url = url.rstrip("/")
        self.rate_limiter: RateLimiter | None = None
        self._session = session or _session()
        self._session.headers["authorization"] = key
        self._refused: set[tuple[str, str]] = set()
        self._throttle = Throttle(f"language model gateway at {self.url}")

    def check(self, models: Sequence[str]) -> bool:
        """See, at no cost, that the key is taken and one of ``models`` is served, as far as the gateway tells.

        A question without a message can't be answered, and so can't be billed; a gateway refuses it for the key or for
        the model before it gets to that. What else it says, or that it says nothing, tells nothing.

        Returns whether it told anything: a gateway that serves the model refuses the question itself, or answers it.

        Raises:
            NoModelLeft: it serves none of the models.
            WrongKey, NoBalance: it does not take the key, or the account has no money.
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
                is_of_question = isinstance(refusal, RequestRefused) and response.status_code not in SAYS_NOTHING
                return is_of_question or b'"choices"' in response.content
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
        """Ask one question, with temperature 0 and for a JSON ``schema`` where the model takes them.

        Args:
            model: to ask.
            messages: of the question.
            max_tokens: that the answer may have.
            schema: of the answer.
            divisible: whether the question can be asked in parts; one that takes too long is then not repeated.
            may_send: is called right before each attempt is sent; what it raises keeps it from being sent.

        Raises:
            ModelRetired: the model is retired, unknown or not supported.
            RequestRefused: any other 4xx, with the gateway's words.
            AccountError: the key or the balance.
            AnswerCut: a divisible question took too long.
            AnswerInvalid: a completion without a message.
            ServiceUnavailable: no answer, or none that is a completion.
        """

        def attempt() -> requests.Response:
            try:
                response = self._request(body, may_send)
            except requests.ReadTimeout:
                if not divisible:
                    raise
                raise AnswerCut(f"No answer came within {READ_TIMEOUT_S:.0f} s.") from None
            if divisible and response.status_code in TOOK_TOO_LONG:
                raise AnswerCut(f"No answer came in time ({response.status_code}).")
            return response

        extras: dict[str, Any] = {"temperature": 0}
        if schema is not None:
            form = {"name": "call_phases", "schema": schema, "strict": True}
            extras["response_format"] = {"type": "json_schema", "json_schema": form}
        while True:
            wanted = {name: value for name, value in extras.items() if (model, name) not in self._refused}
            body = {"model": model, "messages": messages, "max_tokens": max_tokens, **wanted}
            # Repeatable: an answer that got lost can't be looked up, and asking again is the only way to have one.
            response = self._throttle.send(attempt, repeatable=True)
            refused = [name for name in wanted if response.status_code == 400 and name in error_text(response)]
            if not refused:
                break
            self._refused.update((model, name) for name in refused)
        if response.status_code >= 400:
            raise _refusal(response, model, self.url)
        return _answer(response, model)

    def _request(self, body: dict[str, Any], may_send: Callable[[], None] = lambda: None) -> requests.Response:
        if self.rate_limiter is not None:
            self.rate_limiter.await_turn(body["model"])
        may_send()
        return self._session.post(
            f"{self.url}/v1/chat/completions", json=body, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        )


def gateway_beside(speech_url: str) -> str:
    """The base URL of the gateway that belongs to a speech API: the vendor's of the same region, else the same host."""
    return _OF_REGION.get(speech_url.rstrip("/"), speech_url)


def _session() -> requests.Session:
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return session


def no_model_left(models: Sequence[str]) -> NoModelLeft:
    """The error for a list of models of which none is served."""
    return NoModelLeft(
        f"The gateway serves none of the models in segmentation.models any more ({', '.join(models)}): name another."
    )


def _answer(response: requests.Response, model: str) -> Answer:
    try:
        document = response.json()
    except requests.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise ServiceUnavailable(
            "Expected a chat completion from the language model gateway and got something else: "
            "check llm_gateway_url of the assemblyai connection."
        )
    try:
        choice = document["choices"][0]
        reason = str(choice.get("finish_reason")).lower()
        usage = document.get("usage") or {}
        return Answer(
            text=str(choice["message"].get("content") or ""),
            cut=reason in CUT,
            refused=reason in REFUSED or bool(choice["message"].get("refusal")),
            model=str(document.get("model") or model),
            input_tokens=int(usage.get("input_tokens") or usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("output_tokens") or usage.get("completion_tokens") or 0),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise AnswerInvalid("The gateway's answer holds no message of a model.") from None


def _refusal(response: requests.Response, model: str, url: str) -> Exception:
    said = error_text(response) or f"an answer of {response.status_code} without a word"
    lower = said.lower()
    if "balance" in lower or response.status_code == 402:
        return NoBalance(
            f"The language model gateway says: {said} Nothing more is sent before the account is topped up."
        )
    if response.status_code in (401, 403):
        return WrongKey(
            f"The language model gateway at {url} does not take the key ({said}): "
            "set the password of the assemblyai connection to a key that may use the gateway."
        )
    if says_retired(said):
        return ModelRetired(f"The gateway says of model {model!r}: {said}")
    return RequestRefused(f"The language model gateway answered {response.status_code}: {said}")
