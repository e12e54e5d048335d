"""What the server was asked since it started: counted as it arrives, whatever becomes of it."""

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
#: Answers that mean "too many": the speech API is documented with either.
_REFUSALS = (403, 429)


class Traffic:
    """Counters of requests with the right key; used from the event loop's thread only."""

    def __init__(self) -> None:
        self.refused = 0
        self._requests: Counter[str] = Counter()
        self._chats: dict[str, Window] = {}

    def arrived(self, method: str, path: str) -> None:
        """Count a request."""
        self._requests[_BY_ROUTE.get((method, path)) or _kind(method, path)] += 1

    def chat_arrived(self, model: str) -> None:
        """Count a chat once more, for its model."""
        self._chats.setdefault(model, Window(GATEWAY_WINDOW_S)).add()

    def answered(self, status: int) -> None:
        """Count a request that was too many, by a limit or by a fault."""
        if status in _REFUSALS:
            self.refused += 1

    def report(self) -> dict[str, Any]:
        """The part of GET /health that is about requests."""
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
