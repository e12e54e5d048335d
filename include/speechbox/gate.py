"""The outermost middleware: checks the key, counts requests, and enforces limits."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speechbox import bodies
from speechbox.errors import TOO_MANY, UNAUTHORIZED, error, is_of_gateway
from speechbox.faults import HEALTH_PATH, SPARED
from speechbox.limits import GATEWAY_WINDOW_S, SPEECH_WINDOW_S, Limits, Window
from speechbox.traffic import CHAT_PATH, Traffic

_WITH_JSON = {("POST", "/v2/transcript"), ("POST", CHAT_PATH)}


class Gate:
    """ASGI middleware that must be outermost, so that refused requests have no effect."""

    def __init__(self, app: ASGIApp, key: str | None, traffic: Traffic, limits: Limits) -> None:
        self._app = app
        self._key = key.encode() if key else None
        self._traffic = traffic
        self._limits = limits
        self._speech = Window(SPEECH_WINDOW_S)
        self._models: defaultdict[str, Window] = defaultdict(lambda: Window(GATEWAY_WINDOW_S))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request or refuse it."""
        if scope["type"] != "http" or scope["path"] == HEALTH_PATH:
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        if not self._is_authorized(scope):
            await error("status" if is_of_gateway(path) else "plain", 401, UNAUTHORIZED)(scope, receive, send)
            return
        if path in SPARED:  # not part of either API
            await self._app(scope, receive, send)
            return
        self._traffic.arrived(method, path)
        if (method, path) in _WITH_JSON:
            receive = await bodies.read(scope, receive)
        ask = self._ask_gateway if is_of_gateway(path) else self._ask_speech
        await ask(scope, receive, send)

    async def _ask_speech(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limits.requests_per_5_minutes
        app = self._app
        if limit is not None:
            if len(self._speech) >= limit:
                app = error("plain", 429, TOO_MANY, {"Retry-After": str(self._speech.frees_in_s())})
            else:
                self._speech.add()
        await app(scope, receive, self._noting(send))

    async def _ask_gateway(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limits.chat_requests_per_minute
        app = self._app
        headers: Callable[[], Mapping[str, str]] | None = None
        model = bodies.document(scope).get("model")
        if isinstance(model, str):
            self._traffic.chat_arrived(model)
            if limit is not None:
                window = self._models[model]
                if len(window) >= limit:
                    app = error("nested", 429, TOO_MANY)
                else:
                    window.add()
                headers = partial(_rate_limit, limit, window)
        await app(scope, receive, self._noting(send, headers))

    def _noting(self, send: Send, more_headers: Callable[[], Mapping[str, str]] | None = None) -> Send:
        """Wrap `send` to count the response and to add missing headers."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._traffic.answered(message["status"])
                if more_headers:
                    headers = MutableHeaders(scope=message)
                    for name, value in more_headers().items():
                        headers.setdefault(name, value)
            await send(message)

        return noting

    def _is_authorized(self, scope: Scope) -> bool:
        """Check the key, which AssemblyAI's clients send as it is and OpenAI's clients as a bearer token."""
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"").strip()
        if given[:7].lower() == b"bearer ":
            given = given[7:].strip()
        return secrets.compare_digest(given, self._key) if self._key else bool(given)


def _rate_limit(limit: int, window: Window) -> dict[str, str]:
    """Return the gateway's headers as of the time of the response."""
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(max(limit - len(window), 0)),
        "X-RateLimit-Reset": str(window.frees_in_s()),
    }
