"""How fast one process sends requests to a service, and which requests it repeats.

Each service has one throttle per process, shared by its threads. It spaces requests, initially at the service's
published rate. A service that answers "too many requests" halves the rate and pauses all threads for as long as it
asks; every later answer raises the rate a little. Tasks on several machines, which don't know of each other, thereby
converge on a fair share of the account's limit (additive increase, multiplicative decrease).

A request that was certainly not accepted (no connection, 429, 403) is repeated. After a lost answer or a 5xx this is
unknown, and only requests that are safe to repeat are. A 403 with a reason is a refusal; one without may mean "too
many requests", and is treated as a refusal only once it persists. A 429 or a 5xx that says that waiting is no help (no
money, a wrong key, a question that is too long) is a refusal; one of a quota of the day ends the run at once.

Facts about the services are from their public documentation of 2026.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import random
import threading
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from urllib3.exceptions import NewConnectionError

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.errors import AnswerLost, ServiceUnavailable, ThrottledOut
from callphases.limits.refusals import Reason, Refusal, is_outage, is_throttled, read_refusal

log = logging.getLogger(__name__)

ATTEMPTS = 8
"""Attempts that end without an answer or with a 5xx. Throttled attempts don't count."""
PATIENCE_S = 600.0
"""How long a throttled request is repeated."""
LONGEST_WAIT_S = 60.0
SPEECH_REQUESTS_PER_S = 20_000 / 300
"""The speech service's limit for GET and POST together: 20,000 requests in five minutes."""
MIN_REQUESTS_PER_S = 0.1
RECOVERY_REQUESTS_PER_S = 0.5
"""How much each answer raises the rate after it was halved."""
RAMP_FIRST, RAMP_WINDOW_S, RAMP_GROWTH = 25, 15.0, 1.085
"""The documented ramp for bulk work: 25 submissions in 15 s, then 8 to 9 % more in each window of 15 s."""


def ramp_s(number: int) -> float:
    """When submission ``number``, counted from 0, is due under the ramp, in seconds after the first.

    Numbers count all submissions of a run, so tasks that know theirs follow one ramp together.
    """
    # After n windows RAMP_FIRST * (RAMP_GROWTH**n - 1) / (RAMP_GROWTH - 1) are sent, evenly within each window.
    return RAMP_WINDOW_S * math.log(1 + number * (RAMP_GROWTH - 1) / RAMP_FIRST) / math.log(RAMP_GROWTH)


class _NoAnswer(Exception):
    """The request may have been accepted and must not be repeated."""

    def __init__(self, reason: str, may_still_arrive: bool) -> None:
        super().__init__(reason)
        self.may_still_arrive = may_still_arrive


class _Retry(Exception):
    """The attempt failed and may be repeated, after ``wait_s`` seconds if the service named a time."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _Throttled(_Retry):
    """The service answered "too many requests", or with a 403 that may mean it."""

    def __init__(self, reason: str, wait_s: float | None, response: requests.Response, lasts: bool) -> None:
        super().__init__(reason, wait_s)
        self.response = response
        self.lasts = lasts
        """Whether it throttles for longer than ``PATIENCE_S``."""


class _Stop:
    """Tenacity's stop condition for one request; counts its failed attempts."""

    def __init__(self, is_refusal: Callable[[], bool]) -> None:
        self.is_refusal = False
        """Whether a 403 without a reason turned out to refuse this request."""
        self._ask_is_refusal = is_refusal
        self._failures = 0

    def __call__(self, state: RetryCallState) -> bool:
        error = _error(state)
        if not isinstance(error, _Throttled):
            self._failures += error is not None
            return self._failures >= ATTEMPTS
        if error.response.status_code == 403 and state.attempt_number >= ATTEMPTS:
            self.is_refusal = self._ask_is_refusal()
        return self.is_refusal or error.lasts or (state.seconds_since_start or 0) + state.upcoming_sleep >= PATIENCE_S


class Throttle:
    """Sends requests to one service. Thread-safe.

    Args:
        service: names the service in messages, such as ``speech service at http://…``.
        max_rate: requests per second that the service allows; infinite if it sets no such limit.
        probe: sends a request that a working service always accepts. It tells a refusal of one request from a service
            that refuses everything.
        clock: times the requests. Back-off uses tenacity's own clock.
    """

    def __init__(
        self,
        service: str,
        max_rate: float = math.inf,
        probe: Callable[[], requests.Response] | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.service = service
        self._max_rate = max_rate
        self._probe = probe
        self._clock = clock
        self._rate = max_rate
        self._next_at = 0.0
        self._slowed_at = -math.inf
        self._answers = 0
        self._lock = threading.Lock()

    def send(
        self,
        request: Callable[[], requests.Response],
        *,
        repeatable: bool,
        read: Callable[[requests.Response], Refusal] = read_refusal,
    ) -> requests.Response:
        """Send a request when the rate allows, and repeat it where that can help.

        Args:
            request: sends the request and returns the answer; called once per attempt.
            repeatable: whether the request may be sent again when it is unknown if the service accepted it.
            read: reads an answer of 400 or more.

        Returns:
            The first answer that repeating would not change, which may be an error.

        Raises:
            ThrottledOut: the service throttled the request for longer than ``PATIENCE_S``.
            ServiceUnavailable: every attempt failed; the message names the service and the last reason.
            AnswerLost: a request that is not repeatable was sent, and got no answer or a 5xx.
        """
        answers_before = self._answers
        stop = _Stop(lambda: self._is_refusal(answers_before))
        retrying = Retrying(
            retry=retry_if_exception_type(_Retry),
            stop=stop,
            wait=_wait_s,
            before_sleep=lambda state: log.warning(
                "%s: %s; next attempt in %.0f s.", self.service, _error(state), _sleep_s(state)
            ),
            reraise=True,
        )
        try:
            return retrying(self._attempt, request, repeatable, read)
        except _Throttled as last:
            if stop.is_refusal:
                return last.response
            if last.lasts:
                raise ThrottledOut(
                    f"The {self.service} refuses requests because a quota is used up: {last}. "
                    "Run the day again when it is renewed, or ask the provider for a higher one."
                ) from None
            raise ThrottledOut(
                f"The {self.service} kept refusing requests for {PATIENCE_S / 60:.0f} minutes: {last}. Others may be "
                "using the account; run the day again later, or ask the provider for a higher limit."
            ) from None
        except _Retry as last:
            raise ServiceUnavailable(
                f"The {self.service} is not accepting requests: {last}, {ATTEMPTS} times. "
                "Check that it is running and that its address is right."
            ) from None
        except _NoAnswer as lost:
            message = f"A request was sent to the {self.service}, which may have accepted it: {lost}."
            raise AnswerLost(message, may_still_arrive=lost.may_still_arrive) from None

    def _attempt(
        self,
        request: Callable[[], requests.Response],
        repeatable: bool,
        read: Callable[[requests.Response], Refusal],
    ) -> requests.Response:
        self._await_turn()
        try:
            response = request()
        except requests.RequestException as error:
            if repeatable or _never_sent(error):
                raise _Retry(f"no connection ({_root_type(error)})") from None
            raise _NoAnswer(f"no answer ({_root_type(error)})", isinstance(error, requests.Timeout)) from None
        status = response.status_code
        if status >= 400:
            refusal = read(response)
            answered = f"it answered {status}" + (f" ({refusal.text})" if refusal.text else "")
            if is_throttled(refusal):
                raise _Throttled(answered, self._slow_down(response), response, refusal.reason is Reason.QUOTA)
            if is_outage(refusal):
                if repeatable:
                    raise _Retry(answered, _requested_wait_s(response))
                raise _NoAnswer(answered, status in (408, 502, 504))
        self._speed_up(response)
        return response

    def _await_turn(self) -> None:
        while True:
            with self._lock:
                now = self._clock.monotonic()
                if self._next_at <= now:
                    self._next_at = now + 1 / self._rate
                    return
                wait_s = self._next_at - now
            self._clock.sleep(wait_s)

    def _slow_down(self, response: requests.Response) -> float | None:
        wait_s = _requested_wait_s(response)
        with self._lock:
            now = self._clock.monotonic()
            if now - self._slowed_at >= 1:  # threads refused at the same moment hit the same limit
                self._rate = max(min(self._rate, SPEECH_REQUESTS_PER_S) / 2, MIN_REQUESTS_PER_S)
                self._slowed_at = now
            self._next_at = max(self._next_at, now + min(wait_s or 0.0, LONGEST_WAIT_S))
        return wait_s

    def _speed_up(self, response: requests.Response) -> None:
        with self._lock:
            self._answers += 1
            if self._rate < self._max_rate:
                self._rate += RECOVERY_REQUESTS_PER_S
                if self._rate >= min(self._max_rate, SPEECH_REQUESTS_PER_S):
                    self._rate = self._max_rate
            if response.headers.get("X-RateLimit-Remaining", "").strip() == "0":
                # The service would refuse every request until its window resets.
                wait_s = _seconds(response.headers.get("X-RateLimit-Reset", "")) or 0.0
                self._next_at = max(self._next_at, self._clock.monotonic() + min(wait_s, LONGEST_WAIT_S))

    def _is_refusal(self, answers_before: int) -> bool:
        """Whether a 403 without a reason refuses this one request: the service answers others."""
        if self._answers > answers_before:
            return True
        try:
            return self._probe is not None and self._probe().ok
        except requests.RequestException:
            return False


def _never_sent(error: requests.RequestException) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError)


def _root_type(error: BaseException) -> str:
    # Messages of requests and urllib3 contain whole URLs; type names don't.
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return type(reason or error).__name__


def _requested_wait_s(response: requests.Response) -> float | None:
    for header in ("Retry-After", "X-RateLimit-Reset"):
        wait_s = _seconds(response.headers.get(header, ""))
        if wait_s is not None:
            return wait_s
    return None


def _seconds(text: str) -> float | None:
    """The wait that a header asks for, in seconds. It may hold a duration, a Unix time or a date; None otherwise."""
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
    requested_s = error.wait_s if isinstance(error, _Retry) else None
    back_off_s: float = min(2.0 ** (state.attempt_number - 1), 16.0)
    jitter = 1 + random.random() / 4  # noqa: S311 - spreads requests, no security use
    return min(requested_s if requested_s is not None else back_off_s, LONGEST_WAIT_S) * jitter


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _sleep_s(state: RetryCallState) -> float:
    return state.next_action.sleep if state.next_action else 0.0
