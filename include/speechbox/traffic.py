"""Counts requests since the start of the server, on arrival and whatever their outcome."""

from collections import Counter
from typing import Any

from speechbox.limits import GATEWAY_WINDOW_S, Window

CHAT_PATH = "/v1/chat/completions"
#: The kinds of requests, as GET /health names them.
KINDS = ("submissions", "lookups", "lists", "captions", "deletes", "uploads", "chat", "other")
_BY_ROUTE = {
    ("POST", "/v2/transcript"): "submissions",
    ("GET", "/v2/transcript"): "lists",
    ("POST", "/v2/upload"): "uploads",
    ("POST", CHAT_PATH): "chat",
}
_OF_TRANSCRIPT = {"GET": "lookups", "DELETE": "deletes"}
#: Statuses that mean "too many requests"; the speech API's documentation mentions both.
_REFUSALS = (403, 429)


class Traffic:
    """Counters of requests with a valid key; used from the event loop's thread only."""

    def __init__(self) -> None:
        self.refused = 0
        self._requests: Counter[str] = Counter()
        self._chats: dict[str, Window] = {}

    def arrived(self, method: str, path: str) -> None:
        """Count a request."""
        self._requests[_BY_ROUTE.get((method, path)) or _kind(method, path)] += 1

    def chat_arrived(self, model: str) -> None:
        """Count a chat for its model."""
        self._chats.setdefault(model, Window(GATEWAY_WINDOW_S)).add()

    def answered(self, status: int) -> None:
        """Count a response that refuses a request because of a limit or a fault."""
        if status in _REFUSALS:
            self.refused += 1

    def report(self) -> dict[str, Any]:
        """Return the counters for GET /health."""
        return {
            "requests": {kind: self._requests[kind] for kind in KINDS},
            "refused": self.refused,
            "most_chats_a_minute": {model: window.most for model, window in self._chats.items()},
        }


def _kind(method: str, path: str) -> str:
    prefix, slash, rest = path.partition("/v2/transcript/")
    if prefix or not slash:
        return "other"
    _, slash, view = rest.partition("/")
    if not slash:
        return _OF_TRANSCRIPT.get(method, "other")
    return "captions" if method == "GET" and view in ("vtt", "srt") else "other"
