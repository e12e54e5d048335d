"""How fast we may go: when a request may be sent, and when it is tried again.

One throttle stands before each service in a process and is shared by its threads. It keeps a distance between
requests, at first that of the service's own budget. A service that says "too many" halves the pace and holds all
threads back for as long as it asks; every answer after that makes the pace a little faster again. So tasks on several
machines, which know nothing of each other, come to share what the account may use (additive increase, multiplicative
decrease).

What says that a request was not taken (no connection, 429, 403) is sent again. After a lost answer or a 5xx nobody
knows: then only what may be repeated is. A 403 is a refusal where it says why; where it does not, it may stand for
"too many", and is one if it lasts.

Facts about the services are from their public documentation of 2026.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from urllib3.exceptions import NewConnectionError

from callphases.errors import AnswerLost, ServiceUnavailable, ThrottledOut, without_secrets

log = logging.getLogger(__name__)

ATTEMPTS = 8
"""For what does not answer, or with a 5xx; answers of "too many" don't count."""
PATIENCE_S = 600.0
"""For a service that asks to be left alone."""
LONGEST_WAIT_S = 60.0
SPEECH_REQUESTS_A_S = 20_000 / 300
"""The speech service's budget, GET and POST together: 20,000 in five minutes."""
SLOWEST_REQUESTS_A_S = 0.1
RECOVERY_REQUESTS_A_S = 0.5
"""By how much each answer makes the pace faster after it was slowed."""
RAMP_FIRST, RAMP_WINDOW_S, RAMP_GROWTH = 25, 15.0, 1.085
"""The advised ramp for bulk work: 25 submissions in a window of 15 s, growing by 8 to 9 % a window."""


def ramp_s(number: int) -> float:
    """When the submission with this ``number``, from 0, is due by the advised ramp: seconds after the first.

    Counted over all submissions of a run, so that tasks which know their numbers keep to one ramp together.
    """
    # After n windows RAMP_FIRST * (RAMP_GROWTH**n - 1) / (RAMP_GROWTH - 1) have been sent, evenly within each.
    return RAMP_WINDOW_S * math.log(1 + number * (RAMP_GROWTH - 1) / RAMP_FIRST) / math.log(RAMP_GROWTH)


class _Lost(Exception):
    def __init__(self, why: str, maybe_later: bool) -> None:
        super().__init__(why)
        self.maybe_later = maybe_later


class _TryAgain(Exception):
    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _Throttled(_TryAgain):
    def __init__(self, why: str, wait_s: float | None, response: requests.Response) -> None:
        super().__init__(why, wait_s)
        self.response = response
        self.is_refusal = False


@dataclass
class Throttle:
    """Sends requests to one service; safe to use from threads.

    Args:
        service: what to call the other side in messages, such as ``speech service at http://…``.
        fastest: requests a second, where the service has such a budget.
        probe: a request that is never refused by itself; tells a refusal from a service that refuses everyone.
    """

    service: str
    fastest: float = math.inf
    probe: Callable[[], requests.Response] | None = None
    _pace: float = math.inf
    _free_at: float = 0.0
    _slowed_at: float = -math.inf
    _answers: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._pace = self.fastest

    def send(self, request: Callable[[], requests.Response], *, repeatable: bool) -> requests.Response:
        """Send a request when it may go, again where it helps; returns the first answer that is not for us to repeat.

        Args:
            request: sends it and returns the answer; called once for each attempt.
            repeatable: whether the request may be sent again when it is unknown if it was taken.

        Raises:
            ThrottledOut: the service asked to be left alone for longer than ``PATIENCE_S``.
            ServiceUnavailable: nothing else helped; the message names the service and the last reason.
            AnswerLost: a request that is not repeatable was sent, and its answer did not come or was a 5xx.
        """
        answers, failures = self._answers, list[BaseException]()
        retrying = Retrying(
            retry=retry_if_exception_type(_TryAgain),
            stop=lambda state: self._has_enough(state, answers, failures),
            wait=_wait_s,
            before_sleep=lambda state: log.warning(
                "%s: %s; next try in %.0f s.", self.service, _error(state), _sleep_s(state)
            ),
            reraise=True,
        )
        try:
            return retrying(self._once, request, repeatable)
        except _Throttled as last:
            if last.is_refusal:
                return last.response
            raise ThrottledOut(
                f"The {self.service} went on to refuse requests for {PATIENCE_S / 60:.0f} minutes or more: {last}. "
                "Others may be using the account; run the day again, or ask the provider for a higher limit."
            ) from None
        except _TryAgain as last:
            raise ServiceUnavailable(
                f"The {self.service} does not take requests: {last}, {ATTEMPTS} times. Is it up and its address right?"
            ) from None
        except _Lost as lost:
            message = f"The {self.service} was sent a request and may have taken it: {lost}."
            raise AnswerLost(message, maybe_later=lost.maybe_later) from None

    def _once(self, request: Callable[[], requests.Response], repeatable: bool) -> requests.Response:
        self._await_turn()
        try:
            response = request()
        except requests.RequestException as error:
            if repeatable or _never_sent(error):
                raise _TryAgain(f"no connection ({_innermost(error)})") from None
            raise _Lost(f"no answer ({_innermost(error)})", isinstance(error, requests.Timeout)) from None
        status = response.status_code
        if status == 429 or (status == 403 and not _says_why(response)):
            wait_s = self._slow_down(response)
            raise _Throttled(f"it answered {status}", wait_s, response)
        if status >= 500:
            if repeatable:
                raise _TryAgain(f"it answered {status}", _asked_wait_s(response))
            raise _Lost(f"it answered {status}", status in (502, 504))
        self._speed_up(response)
        return response

    def _await_turn(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                if self._free_at <= now:
                    self._free_at = now + 1 / self._pace
                    return
                wait_s = self._free_at - now
            time.sleep(wait_s)

    def _slow_down(self, response: requests.Response) -> float | None:
        wait_s = _asked_wait_s(response)
        with self._lock:
            now = time.monotonic()
            if now - self._slowed_at >= 1:  # threads that are refused at the same moment tell of one limit
                self._pace = max(min(self._pace, SPEECH_REQUESTS_A_S) / 2, SLOWEST_REQUESTS_A_S)
                self._slowed_at = now
            self._free_at = max(self._free_at, now + min(wait_s or 0.0, LONGEST_WAIT_S))
        return wait_s

    def _speed_up(self, response: requests.Response) -> None:
        with self._lock:
            self._answers += 1
            if self._pace < self.fastest:
                self._pace += RECOVERY_REQUESTS_A_S
                if self._pace >= min(self.fastest, SPEECH_REQUESTS_A_S):
                    self._pace = self.fastest
            if response.headers.get("X-RateLimit-Remaining", "").strip() == "0":
                # The next would be refused: none is sent before the service counts anew.
                wait_s = _seconds(response.headers.get("X-RateLimit-Reset", "")) or 0.0
                self._free_at = max(self._free_at, time.monotonic() + min(wait_s, LONGEST_WAIT_S))

    def _has_enough(self, state: RetryCallState, answers_before: int, failures: list[BaseException]) -> bool:
        error = _error(state)
        if not isinstance(error, _Throttled):
            failures += [error] if error is not None else []
            return len(failures) >= ATTEMPTS
        if error.response.status_code == 403 and state.attempt_number >= ATTEMPTS:
            error.is_refusal = self._is_refusal(answers_before)
        return error.is_refusal or (state.seconds_since_start or 0) + state.upcoming_sleep >= PATIENCE_S

    def _is_refusal(self, answers_before: int) -> bool:
        """Whether a 403 without a word means this one request: others are answered."""
        if self._answers > answers_before:
            return True
        try:
            return self.probe is not None and self.probe().ok
        except requests.RequestException:
            return False


def error_text(response: requests.Response) -> str:
    """What an error says, in any of the services' shapes: one line without secrets, empty where it says nothing."""
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


def _says_why(response: requests.Response) -> bool:
    """Whether a refusal has a reason of its own, other than that there is too much of something."""
    said = error_text(response).lower()
    return bool(
        re.sub(r"forbidden|access denied|too many requests|(request )?rate limit|exceeded|throttled|[\W\d_]", "", said)
    )


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
        asked_s = _seconds(response.headers.get(header, ""))
        if asked_s is not None:
            return asked_s
    return None


def _seconds(text: str) -> float | None:
    """What a header asks for: a duration, a moment since 1970 or a date; None where it is none of these."""
    try:
        number = float(text)
    except ValueError:
        try:
            number = parsedate_to_datetime(text).timestamp()
        except (ValueError, TypeError):
            return None
    if number > 1e9:
        number -= dt.datetime.now(dt.UTC).timestamp()
    return number if 0 <= number <= 3600 else None


def _wait_s(state: RetryCallState) -> float:
    error = _error(state)
    asked_s = error.wait_s if isinstance(error, _TryAgain) else None
    back_off_s: float = min(2.0 ** (state.attempt_number - 1), 16.0)
    jitter = 1 + random.random() / 4  # noqa: S311 - spreads requests, guards nothing
    return min(asked_s if asked_s is not None else back_off_s, LONGEST_WAIT_S) * jitter


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _sleep_s(state: RetryCallState) -> float:
    return state.next_action.sleep if state.next_action else 0.0
