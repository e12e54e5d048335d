"""What the answers of all routes have in common: their headers, and errors as a page for people or as JSON."""

from __future__ import annotations

import gzip
import logging
import secrets
from collections.abc import Callable, Hashable
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callphases.pages.kept import Kept
from callphases.pages.links import PREFIX, Links
from callphases.pages.rendering import Page, render

logger = logging.getLogger(__name__)

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer; a page has a policy of its own, which allows its styles and its script."""

_TITLES = {
    401: "You are not logged in",
    403: "You may not see this",
    404: "There is no such page",
    405: "This can't be done here",
    413: "The form is too long",
    422: "The address or the form has a mistake",
    500: "Something went wrong",
    503: "The calls can't be shown",
}


KEPT_BYTES = 8 << 20
"""Of pages for their next readers; a page of 60 calls has 130 KB."""
_kept: Kept[Page] = Kept(KEPT_BYTES)
_TOKEN = secrets.token_hex(16)
"""Stands for the reader's token in pages that are kept."""


class Guard:
    """Middleware: sets the headers of every answer, and turns an unexpected error into an answer that tells nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            if begun:
                raise
            logger.exception("A page of callphases failed.")
            answer = told(Request(scope), 500, "The log of Airflow's API server has the reason.")
            await answer(scope, receive, send_with_headers)


def links_of(request: Request) -> Links:
    """Addresses below the path that Airflow is served at."""
    return Links(str(request.scope.get("root_path", "")).removesuffix(PREFIX))


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page as a response; ``values`` as ``rendering.render`` takes them."""
    made = render(template, **values)
    return _response(request, made.html, made.policy, status)


def kept_page(
    request: Request, template: str, key: Hashable, values: Callable[[], dict[str, Any]], token: str
) -> HTMLResponse:
    """A page as a response; for the next reader with the same ``key``, it is not made again.

    Args:
        request: says whether the answer may be compressed.
        template: as ``rendering.render`` takes it.
        key: all that the page depends on, but for ``token``.
        values: makes the template's.
        token: of the page's forms, which is the reader's own.
    """
    made = _kept.get((template, key))
    if made is None:
        made = render(template, token=_TOKEN, **values())
        _kept.keep((template, key), made, len(made.html) + len(str(key)))
    return _response(request, made.html.replace(_TOKEN, token), made.policy)


def _response(request: Request, document: str, policy: str, status: int = 200) -> HTMLResponse:
    """The response, compressed here, in the thread of the pages.

    Airflow would do it where all its requests wait for that, and for three times as long.
    """
    body, headers = document.encode(), {"Content-Security-Policy": policy}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, 1)
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return HTMLResponse(body, status, headers)


def told(
    request: Request, status: int, text: str, title: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    """A sentence, usually of what can't be shown: a page where a browser asks, else JSON with ``detail``."""
    title = title or _TITLES.get(status) or _TITLES[404 if status < 500 else 500]
    if "text/html" not in request.headers.get("accept", ""):
        answer: Response = JSONResponse({"detail": text}, status)
    else:
        here = f"{request.url.path}?{request.url.query}".rstrip("?")
        login = links_of(request).log_in(here) if status == 401 else None
        answer = page(request, "message", status, title=title, text=text, login=login)
    answer.headers.update(headers or {})
    return answer


def of_http_error(request: Request, error: HTTPException) -> Response:
    """Airflow's and FastAPI's errors, with a sentence."""
    text = error.detail if isinstance(error.detail, str) else _TITLES.get(error.status_code, "Not possible")
    if text == HTTPStatus.NOT_FOUND.phrase:
        text = "The address is not one of callphases' pages."
    return told(request, error.status_code, text, headers=dict(error.headers or {}))
