"""What a service says when it refuses a request. Only the two clients and their throttle read such text."""

from __future__ import annotations

import re
from collections.abc import Iterable

import requests

from callphases.errors import without_secrets


def error_text(response: requests.Response) -> str:
    """The error message of a response, in any of the services' formats: one line without secrets, or empty."""
    try:
        document = response.json()
    except requests.JSONDecodeError:
        return without_secrets(re.sub(r"<[^>]*>", " ", response.text))
    if not isinstance(document, dict):
        return ""
    error = document.get("error")
    if isinstance(error, dict):
        return without_secrets(str(error.get("message", "")))
    if error:
        return without_secrets(str(error))
    metadata = document.get("metadata")
    details = metadata.get("errors") if isinstance(metadata, dict) else None
    details = details if isinstance(details, list) else []
    return without_secrets(" ".join([str(document.get("message", "")), *(str(one) for one in details)]))


def has_reason(response: requests.Response) -> bool:
    """Whether a 403 gives a reason other than throttling."""
    text = error_text(response).lower()
    return bool(
        re.sub(r"forbidden|access denied|too many requests|(request )?rate limit|exceeded|throttled|[\W\d_]", "", text)
    )


def retired_model(text: str, asked: Iterable[str]) -> str | None:
    """The model of ``asked`` that a message says is gone; None if it says that of none."""
    return named_model(text, asked) if says_retired(text) else None


def says_retired(text: str) -> bool:
    """Whether an error message means that a model is retired, unknown or not supported."""
    lower = text.lower()
    signs = (
        "retired",
        "not supported",
        "unsupported",
        "no longer",
        "deprecated",
        "unknown",
        "not available",
        "not found",
    )
    return "model" in lower and any(sign in lower for sign in signs)


def named_model(text: str, models: Iterable[str]) -> str | None:
    """The first of ``models`` that a message names, None if it names none. Of two at one place the longer name wins."""
    named = [model for model in models if model in text]
    return min(named, key=lambda model: (text.index(model), -len(model)), default=None)
