"""Reads and parses the JSON body of a request once for all middleware and routes."""

import json

from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from speechbox.errors import INVALID_JSON

_KEY = "speechbox.content"


async def read(scope: Scope, receive: Receive) -> Receive:
    """Read the body and store its content in the scope; returns a receive function that replays the body."""
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
    """Return the parsed body; raises `ValueError` for invalid JSON."""
    found: object = scope[_KEY]
    if isinstance(found, ValueError):
        raise found
    return found


def document(scope: Scope) -> dict[str, object]:
    """Return the parsed body, or an empty dict if it is not a JSON object or was not read."""
    found = scope.get(_KEY)
    return found if isinstance(found, dict) else {}
