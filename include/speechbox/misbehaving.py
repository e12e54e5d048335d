"""Middleware that applies faults to requests and responses."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from speechbox import bodies
from speechbox.errors import SHAPES, error, is_of_gateway
from speechbox.faults import SPARED, WRONG_ANSWERS, Asked, Faults, Firing
from speechbox.options import DEFAULT_SPEECH_MODELS, SPEECH_MODELS
from speechbox.wrong_answers import spoil

if TYPE_CHECKING:
    _Protocol = asyncio.Protocol
else:
    _Protocol = AutoHTTPProtocol

Json = dict[str, Any]

NEGATIVE_BALANCE = "Your current account balance is negative. Please top up to continue using the API."
SERVER_ERROR = "Internal server error. Please retry your request."
#: The gateway's limit of requests per minute and model.
GATEWAY_LIMIT = 30


class Protocol(_Protocol):
    """Uvicorn's protocol, extended so that requests can close their connection, which ASGI does not support."""

    app_state: Json

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Add the transport to the state that each request of the connection receives."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class Misbehaving:
    """ASGI middleware; it forwards everything while no rule is active."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, answer it, or close its connection."""
        if not self._faults.rules or scope["type"] != "http" or scope["path"] in SPARED:
            await self._app(scope, receive, send)
            return
        asked = Asked(scope["method"], scope["path"], bodies.document(scope))
        firing = self._faults.of_request(asked)
        if firing is None:
            await self._app(scope, receive, send)
        elif firing.rule.fault == "drop":
            await _drain(receive)
            await _hang_up(scope, receive)
        elif firing.rule.fault in _REFUSALS:
            await _REFUSALS[firing.rule.fault](firing, asked)(scope, receive, send)
        else:
            await self._spoil(firing, asked, scope, receive, send)

    async def _spoil(self, firing: Firing, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        """Apply a fault to the response after the application has handled the request."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        if firing.rule.fault == "drop_answer":
            await _hang_up(scope, receive)
            return
        if firing.rule.fault in WRONG_ANSWERS and messages[0]["status"] == 200:
            completion = json.loads(b"".join(message.get("body", b"") for message in messages))
            await JSONResponse(spoil(completion, firing, asked.question))(scope, receive, send)
            return
        await asyncio.sleep(firing.rule.delay_s)
        for message in messages:
            await send(message)


async def _drain(receive: Receive) -> None:
    """Read the whole request, so that clients always fail on the response rather than while sending."""
    while (await receive()).get("more_body"):
        pass


async def _hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection and wait until it is closed; otherwise the server would still send a response."""
    scope["state"]["transport"].close()
    while (await receive())["type"] != "http.disconnect":
        pass


def _status(firing: Firing, asked: Asked) -> Response:
    rule = firing.rule
    assert rule.status is not None
    headers: dict[str, str] = {}
    if rule.status == 429 and is_of_gateway(asked.path):
        headers = {"X-RateLimit-Limit": str(GATEWAY_LIMIT), "X-RateLimit-Remaining": "0"}
        if rule.retry_after_s is not None:
            headers["X-RateLimit-Reset"] = str(rule.retry_after_s)
    elif rule.retry_after_s is not None and (rule.status == 429 or "retry_after_s" in rule.model_fields_set):
        headers = {"Retry-After": str(rule.retry_after_s)}
    is_wordless = rule.status in (503, 504) and not is_of_gateway(asked.path) and not rule.message and not rule.shape
    if rule.empty or is_wordless:
        return Response(status_code=rule.status, headers=headers)
    return _refusal(firing, asked, rule.status, rule.message or _phrase(rule.status), headers)


def _negative_balance(firing: Firing, asked: Asked) -> Response:
    status = 402 if is_of_gateway(asked.path) else 400
    return _refusal(firing, asked, status, firing.rule.message or NEGATIVE_BALANCE)


def _retired_models(firing: Firing, asked: Asked) -> Response:
    retired = firing.rule.models
    model = next(model for model in asked.models if model in retired)
    if is_of_gateway(asked.path):
        return _refusal(firing, asked, 400, f"model {model} is not supported")
    successors = (SPEECH_MODELS.get(model), *DEFAULT_SPEECH_MODELS)
    successor = next((name for name in successors if name and name not in retired), None)
    advice = f", use {successor}" if successor else ""
    return _refusal(firing, asked, 400, f"speech model {model} is retired{advice}: it is no longer supported")


def _no_response_format(firing: Firing, asked: Asked) -> Response:
    model = asked.body.get("model")
    return _refusal(firing, asked, 400, f"response_format is invalid: model {model} does not take one")


def _context_limit(firing: Firing, asked: Asked) -> Response:
    return _refusal(firing, asked, 400, "model context limit exceeded")


_REFUSALS: dict[str, Callable[[Firing, Asked], Response]] = {
    "status": _status,
    "negative_balance": _negative_balance,
    "retired_models": _retired_models,
    "no_response_format": _no_response_format,
    "context_limit": _context_limit,
}


def _refusal(
    firing: Firing, asked: Asked, status: int, message: str, headers: dict[str, str] | None = None
) -> Response:
    """Create an error; the gateway alternates between its formats."""
    shape = firing.rule.shape or (firing.one_of(SHAPES) if is_of_gateway(asked.path) else "plain")
    return error(shape, status, message, headers)


def _phrase(status: int) -> str:
    """Return the default message of a status."""
    if status == 500:
        return SERVER_ERROR
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Error {status}"
