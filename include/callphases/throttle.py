"""When a request may go, and when it is tried again: one place for Retry-After and back-off.

A refused connection or an answer of 429 says that the request was not taken, so it is always sent again. After a lost
answer or a 5xx nobody knows: then only what may be repeated is.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from urllib3.exceptions import NewConnectionError

from callphases.errors import AnswerLost, ServiceUnavailable

log = logging.getLogger(__name__)

ATTEMPTS = 5
LONGEST_WAIT_S = 60.0


class _Lost(Exception):
    pass


class _TryAgain(Exception):
    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def send(request: Callable[[], requests.Response], service: str, *, repeatable: bool) -> requests.Response:
    """Send a request, again where it helps; returns the first answer that is not for us to repeat.

    Args:
        request: sends it and returns the answer; called once for each attempt.
        service: what to call the other side in messages, such as ``speech API at http://…``.
        repeatable: whether the request may be sent again when it is unknown if it was taken.

    Raises:
        ServiceUnavailable: nothing helped; the message names the service and the last reason.
        AnswerLost: a request that is not repeatable was sent, and its answer did not come or was a 5xx.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(_TryAgain),
        stop=stop_after_attempt(ATTEMPTS),
        wait=_wait,
        before_sleep=lambda state: log.warning("%s: %s; next try in %.0f s.", service, _reason(state), _next(state)),
        reraise=True,
    )
    try:
        return retrying(_once, request, repeatable)
    except _TryAgain as last:
        raise ServiceUnavailable(
            f"The {service} does not take requests: {last}, {ATTEMPTS} times. Is it up, and is its address right?"
        ) from None
    except _Lost as lost:
        raise AnswerLost(f"The {service} was sent a request and may have taken it: {lost}.") from None


def _once(request: Callable[[], requests.Response], repeatable: bool) -> requests.Response:
    try:
        response = request()
    except requests.RequestException as error:
        if repeatable or _never_sent(error):
            raise _TryAgain(f"no connection ({_innermost(error)})") from None
        raise _Lost(f"no answer ({_innermost(error)})") from None
    if response.status_code == 429 or (repeatable and response.status_code >= 500):
        raise _TryAgain(f"it answered {response.status_code}", _asked_wait_s(response))
    if response.status_code >= 500:
        raise _Lost(f"it answered {response.status_code}")
    return response


def _never_sent(error: requests.RequestException) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError)


def _innermost(error: BaseException) -> str:
    # The texts of requests and urllib3 hold whole URLs; names of types do not.
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return type(reason or error).__name__


def _asked_wait_s(response: requests.Response) -> float | None:
    for header in ("Retry-After", "X-RateLimit-Reset"):
        try:
            asked_s = float(response.headers[header])
        except (KeyError, ValueError):
            continue
        # A reset may be told as a moment instead of a duration; then our own back-off serves.
        if 0 <= asked_s <= 3600:
            return asked_s
    return None


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.wait_s if isinstance(error, _TryAgain) else None
    back_off_s: float = min(2.0 ** (state.attempt_number - 1), 16.0)
    jitter = 1 + random.random() / 4  # noqa: S311 - spreads requests, guards nothing
    return min(asked_s if asked_s is not None else back_off_s, LONGEST_WAIT_S) * jitter


def _reason(state: RetryCallState) -> str:
    return str(state.outcome.exception()) if state.outcome else ""


def _next(state: RetryCallState) -> float:
    return state.next_action.sleep if state.next_action else 0.0
