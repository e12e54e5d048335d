"""Bodies of JSON, read and parsed once for all that look at a request."""

import json

from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from speechbox.errors import INVALID_JSON

_KEY = "speechbox.content"


async def read(scope: Scope, receive: Receive) -> Receive:
    """Read the body and keep what it says for `content`; what comes back gives the body once more."""
    body = await Request(scope, receive).body()
    try:
        scope[_KEY] = json.loads(body)
    except ValueError:
        scope[_KEY] = ValueError(INVALID_JSON)
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


def content(scope: Scope) -> object:
    """What the body says; `ValueError` where it is no JSON."""
    found: object = scope[_KEY]
    if isinstance(found, ValueError):
        raise found
    return found


def document(scope: Scope) -> dict[str, object]:
    """What the body says; empty where it is no JSON object, and where none was read."""
    found = scope.get(_KEY)
    return found if isinstance(found, dict) else {}
