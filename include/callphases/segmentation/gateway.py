"""Client of the LLM gateway: sends one question to ``/v1/chat/completions`` and returns one answer.

The gateway is AssemblyAI's, or any server that speaks OpenAI's API. What it refuses is classified in
``limits.refusals``; which parameters a model accepts is learned in ``parameters``; its answers are read in
``completions``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.errors import (
    AccountError,
    AnswerCut,
    AnswerInvalid,
    CallFailure,
    ConfigurationError,
    ModelRefused,
    ModelRetired,
    NoBalance,
    NoModelLeft,
    RequestRefused,
    ServiceUnavailable,
    WrongKey,
    without_secrets,
)
from callphases.limits.refusals import (
    Reason,
    Refusal,
    document_of,
    in_band_status,
    read_refusal,
    refusal_of,
    status_in,
)
from callphases.limits.throttle import Throttle
from callphases.segmentation.completions import ChatCompletion
from callphases.segmentation.parameters import Parameters, room, token_limit

DEFAULT_URL = "https://llm-gateway.assemblyai.com"
_GATEWAY_BY_SPEECH_URL = {
    "https://api.assemblyai.com": DEFAULT_URL,
    "https://api.eu.assemblyai.com": "https://llm-gateway.eu.assemblyai.com",
}
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 300.0
LIST_TIMEOUTS_S = 5.0, 15.0
"""To connect and to read, for the list of models, which no run depends on."""
CONNECTIONS = 64
"""Connections kept open for the threads of a task."""
TIMEOUT_STATUSES = frozenset({408, 504, 524})
"""Answers of gateways and proxies that gave up waiting for a model."""
UNINFORMATIVE_STATUSES = frozenset({404, 405, 429})
"""Refusals that say nothing about the question: nothing is at this address, or it is too busy."""
MOST_ADJUSTMENTS = 8
"""How often a question is sent again with other parameters."""
SECRET_LENGTH = 6
"""A shorter key is none, such as the one that a local server does not look at."""
LEAST_QUOTE = 16
"""An error that has as many letters and digits in common with the question, in a row, quotes it."""


class Settings(NamedTuple):
    """What the user sets, for messages: where the key is, and where the URL."""

    key: str = "the password of the assemblyai connection"
    url: str = "llm_gateway_url of the assemblyai connection (LLM_GATEWAY_URL)"


@dataclass(frozen=True)
class Answer:
    """A model's answer.

    Attributes:
        text: the message's content.
        cut: the answer reached its token limit.
        refused: the model declined to answer.
        model: the model that answered.
        input_tokens, output_tokens: billed for it.
        limit: the token limit that it was given, which is less than what was asked for if the model allows no more.
    """

    text: str
    cut: bool
    refused: bool
    model: str
    input_tokens: int
    output_tokens: int
    limit: int | None = None


@dataclass(frozen=True)
class ServedModels:
    """A gateway's list of its models; partial if there are more than were sent."""

    names: list[str]
    is_partial: bool

    def has(self, model: str) -> bool:
        """Whether a model is on it, under its own name or as some servers write it: Google's with ``models/`` before
        it, Ollama's with a tag."""
        return not {model, f"models/{model}", f"{model}:latest"}.isdisjoint(self.names)


class RateLimiter(Protocol):
    """Enforces a limit of requests per minute for each model. Thread-safe."""

    def await_turn(self, model: str) -> None:
        """Block until a request may be sent to ``model``, and count it."""

    def soonest(self, models: Sequence[str]) -> str:
        """The model that accepts a request first; of several that do, the first in ``models``."""


class Gateway:
    """Client for one account at an OpenAI-compatible gateway. Thread-safe.

    Args:
        key: sent as it is, as AssemblyAI's gateway wants it; empty for a server without keys.
        url: the server's base URL, with or without ``/v1``, or the whole URL of its chat completions.
        bearer: send the key as a bearer token, as OpenAI's API and servers like it want it.
        key_header: send the key in this header instead, as it is.
        headers: sent with every request.
        settings: named in messages.
    """

    def __init__(
        self,
        key: str,
        url: str = DEFAULT_URL,
        session: requests.Session | None = None,
        *,
        bearer: bool = False,
        key_header: str = "authorization",
        headers: Mapping[str, str] | None = None,
        settings: Settings | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.settings = settings or Settings()
        try:
            self.url, self._endpoint = _addresses(url)
            self._models_endpoint = _models_endpoint(self._endpoint)
        except ValueError:
            named = without_secrets(url)
            raise ConfigurationError(f"{named} is not an http or https URL: check {self.settings.url}.") from None
        self._session = session or _session()
        if key:
            is_token = key.lower().startswith("bearer ")
            self._session.headers[key_header] = f"Bearer {key}" if bearer and not is_token else key
        self._session.headers.update(headers or {})
        self._secrets = [
            one for one in (key.rpartition(" ")[2], *(headers or {}).values()) if len(one) >= SECRET_LENGTH
        ]
        self._parameters = Parameters()
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
        said = ""
        for model in models:
            empty = {"model": model, "messages": [], "max_tokens": 1}
            try:
                response = self._request(model, partial(dict, empty))
            except requests.RequestException:
                return False
            refusal = self._read(response, model)
            error = self._error(refusal, model) if 400 <= refusal.status < 500 else None
            if isinstance(error, WrongKey | NoBalance) and refusal.text:
                raise error
            if not isinstance(error, ModelRetired):
                rejects_question = isinstance(error, CallFailure) and refusal.status not in UNINFORMATIVE_STATUSES
                return rejects_question or b'"choices"' in response.content
            said = str(error.args[0])
        raise no_model_left(models, said)

    def models(self) -> ServedModels | None:
        """The models that the gateway lists at ``/v1/models``, as OpenAI's API does; None if it has no such list."""
        try:
            response = self._session.get(self._models_endpoint, timeout=LIST_TIMEOUTS_S)
        except requests.RequestException:
            return None
        document = document_of(response) if response.ok else None
        listed = document.get("data", document.get("models")) if isinstance(document, dict) else document
        if not isinstance(listed, list):
            return None
        ids = (one.get("id") or one.get("name") if isinstance(one, dict) else one for one in listed)
        names = [one for one in ids if isinstance(one, str) and one]
        return ServedModels(names, isinstance(document, dict) and bool(document.get("has_more"))) if names else None

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
            ModelRetired: the model is retired, unknown, or not open to this account.
            ModelRefused: a filter rejects the question.
            RequestRefused: any other 4xx, with the gateway's message; ``too_long`` if the question is.
            AccountError: the key or the balance.
            AnswerCut: a divisible question timed out.
            AnswerInvalid: the completion has no message, or the model produced none.
            ServiceUnavailable: no answer, or one that is not a completion.

        A CallFailure carries the usage that was billed.
        """
        sent: dict[str, Any] = {}

        def body() -> dict[str, Any]:
            # Built when it is sent: other questions may have taught something until then.
            sent.clear()
            sent.update(self._parameters.of(model, max_tokens, schema))
            return {"model": model, "messages": messages, **sent}

        def read(response: requests.Response) -> Refusal:
            return self._read(response, model, messages)

        def attempt() -> requests.Response:
            try:
                response = self._request(model, body, may_send)
            except requests.ReadTimeout:
                if not divisible:
                    raise
                raise AnswerCut(f"No answer came within {READ_TIMEOUT_S:.0f} s.") from None
            if divisible and response.status_code in TIMEOUT_STATUSES:
                raise AnswerCut(f"No answer came in time ({response.status_code}).")
            return response

        for _ in range(MOST_ADJUSTMENTS):
            # A lost answer can't be looked up, so the question has to be asked again.
            response = self._throttle.send(attempt, repeatable=True, read=read)
            if response.status_code < 400:
                return self._answer(response, model, messages, token_limit(sent))
            refusal = read(response)
            self._parameters.learn(model, refusal, sent)
            max_tokens = room(refusal, sent) or max_tokens
            if self._parameters.of(model, max_tokens, schema) == sent:
                break
        raise _with_usage(self._error(refusal, model), ChatCompletion.model_validate(document_of(response)), model)

    def _request(
        self, model: str, body: Callable[[], dict[str, Any]], may_send: Callable[[], None] = lambda: None
    ) -> requests.Response:
        if self._limiter is not None:
            self._limiter.await_turn(model)
        may_send()
        response = self._session.post(self._endpoint, json=body(), timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S))
        response.status_code = in_band_status(response)
        return response

    def _read(self, response: requests.Response, model: str, messages: Sequence[Mapping[str, str]] = ()) -> Refusal:
        return read_refusal(response, self._cleaner(messages), model)

    def _cleaner(self, messages: Sequence[Mapping[str, str]]) -> Callable[[str], str]:
        """Removes keys from a text, and what it quotes of the question."""

        def clean(text: str) -> str:
            for secret in self._secrets:
                text = text.replace(secret, "…")
            return _without_quotes(text, messages[-1]["content"]) if messages else text

        return clean

    def _error(self, refusal: Refusal, model: str) -> AccountError | CallFailure:
        """The error that a refusal stands for."""
        text = refusal.text or f"status {refusal.status} without a message"
        answered = f"The language model gateway answered {refusal.status}: {text}"
        match refusal.reason:
            case Reason.BALANCE:
                return NoBalance(
                    f"The language model gateway says: {text} No requests are sent until the account is topped up."
                )
            case Reason.KEY:
                return WrongKey(
                    f"The language model gateway at {self.url} does not accept the key ({text}): "
                    f"set {self.settings.key} to a key that may use the gateway."
                )
            case Reason.MODEL:
                return ModelRetired(f"The gateway says of model {model!r}: {text}", named=model)
            case Reason.CONTENT:
                return ModelRefused(answered)
            case Reason.ANSWER:
                return AnswerInvalid(answered)
        error = RequestRefused(answered)
        if refusal.reason is Reason.TOO_LONG:
            error.too_long = True
            error.advice = "Name a model with a longer context in segmentation.models."
        elif refusal.status in (404, 405):
            error.advice = f"Check {self.settings.url}."
        return error

    def _answer(
        self, response: requests.Response, model: str, messages: Sequence[Mapping[str, str]], limit: int
    ) -> Answer:
        document = document_of(response)
        if not isinstance(document, dict):
            raise ServiceUnavailable(
                f"The language model gateway's response is not a chat completion: check {self.settings.url}."
            )
        completion = ChatCompletion.model_validate(document)
        if completion.choice.error is not None:
            # The model failed in the middle of its answer, for which it may have been paid.
            status = status_in({"error": completion.choice.error}) or 400
            refusal = refusal_of(completion.choice.error, status, self._cleaner(messages))
            error = self._error(refusal, model)
            if not isinstance(error, AccountError | ModelRetired | ModelRefused):
                error = AnswerInvalid(f"The answer broke off: {refusal.text or 'the gateway does not say why'}")
            raise _with_usage(error, completion, model)
        if completion.choice.message is None and not completion.declined:
            raise _with_usage(AnswerInvalid("The gateway's completion has no message."), completion, model)
        return Answer(
            text=completion.text,
            cut=completion.cut,
            refused=completion.declined,
            model=completion.model or model,
            input_tokens=completion.usage.input_tokens,
            output_tokens=completion.usage.output_tokens,
            limit=limit,
        )


def _addresses(url: str) -> tuple[str, str]:
    """A gateway's base URL without ``/v1``, for messages, and the URL of its chat completions.

    ``url`` may be the base URL with or without ``/v1``, with a path that has its own version, as Google's
    ``/v1beta/openai``, or the whole URL of the chat completions, with a query, as Azure's.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    path = parts.path.rstrip("/")
    shown = path.removesuffix("/chat/completions").removesuffix("/v1")
    base = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=shown, query="", fragment="")
    if not path.endswith("/chat/completions"):
        has_version = any(re.fullmatch(r"v\d+\w*", part) for part in path.split("/"))
        path += "/chat/completions" if has_version else "/v1/chat/completions"
    return base.geturl(), parts._replace(path=path, fragment="").geturl()


def _models_endpoint(chat_endpoint: str) -> str:
    """The URL of the list of models beside that of the chat completions."""
    parts = urlsplit(chat_endpoint)
    return parts._replace(path=parts.path.removesuffix("/chat/completions") + "/models").geturl()


def wants_bearer(url: str) -> bool:
    """Whether the gateway at ``url`` wants its key as a bearer token: all but AssemblyAI's do."""
    return re.search(r"(?i)://([^/@]*\.)?assemblyai\.com(:\d+)?(/|$)", url) is None


def gateway_beside(speech_url: str) -> str:
    """The gateway URL for a speech API: the vendor's gateway in the same region, or the same host for any other."""
    return _GATEWAY_BY_SPEECH_URL.get(speech_url.rstrip("/"), speech_url)


def _session() -> requests.Session:
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return session


def no_model_left(models: Sequence[str], said: str = "") -> NoModelLeft:
    """The error for a list of models that are all retired; ``said`` is what the gateway says of the last one."""
    return NoModelLeft(
        f"The gateway no longer serves any of the models in segmentation.models ({', '.join(models)}): name another."
        + (f" {said}" if said else "")
    )


def _with_usage(
    error: AccountError | CallFailure, completion: ChatCompletion, model: str
) -> AccountError | CallFailure:
    """The error, with what was billed nevertheless."""
    usage = completion.usage
    if isinstance(error, CallFailure) and (usage.input_tokens or usage.output_tokens):
        error.model = completion.model or model
        error.input_tokens, error.output_tokens = usage.input_tokens, usage.output_tokens
    return error


def _without_quotes(text: str, question: str) -> str:
    """A text up to where it quotes the question, which holds what callers say."""
    asked = "".join(sign.lower()[0] for sign in question if sign.isalnum())
    signs = [(place, sign) for place, sign in enumerate(text) if sign.isalnum()]
    said = "".join(sign.lower()[0] for _, sign in signs)
    for start in range(len(said) - LEAST_QUOTE + 1):
        if said[start : start + LEAST_QUOTE] in asked:
            return f"{text[: signs[start][0]]}…"
    return text
