"""The throttle: the rate of requests, which of them are repeated, and how long it waits before that."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import AnswerLost, ServiceUnavailable, ThrottledOut
from callphases.limits.refusals import error_text
from callphases.limits.throttle import (
    ATTEMPTS,
    LONGEST_WAIT_S,
    MIN_REQUESTS_PER_S,
    PATIENCE_S,
    RAMP_FIRST,
    RAMP_GROWTH,
    RAMP_WINDOW_S,
    SPEECH_REQUESTS_PER_S,
    Throttle,
    ramp_s,
)
from doubles import KEY, LOST, NOON, Answer, Clock, Web, answer, text_answer

CUT: Answer = (200, {"content-length": "100"}, b'{"id": "t-1"')
TOO_MANY = answer({"error": "Too Many Requests"}, 429)
REFUSED = answer({"error": "Forbidden"}, 403)
SERVICE = "speech service at http://h"


@pytest.fixture
def closed_url() -> str:
    """The address of a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v2/transcript?key={KEY}"


@pytest.fixture
def full_url() -> Iterator[str]:
    """The address of a port whose connections time out."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for one in waiting:
            one.close()


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The address of a port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def ask(
    url: str, repeatable: bool, throttle: Throttle | None = None, timeout: tuple[float, float] = (5, 30)
) -> requests.Response:
    return (throttle or Throttle(SERVICE)).send(lambda: requests.get(url, timeout=timeout), repeatable=repeatable)


# Repeating


@pytest.mark.parametrize("first", [answer({}, 500), answer({}, 503), answer({}, 504), LOST, CUT, TOO_MANY])
def test_repeatable_request_is_repeated(web: Web, first: Answer) -> None:
    web.answers = [first, first, answer({"id": "t-1"})]
    assert ask(web.url, repeatable=True).json() == {"id": "t-1"}
    assert len(web.requests) == 3


@pytest.mark.parametrize("lost", [LOST, CUT, answer({}, 500), answer({}, 503)])
def test_unrepeatable_request_without_answer_is_reported_lost(web: Web, lost: Answer) -> None:
    web.answers = [lost, answer({})]
    with pytest.raises(AnswerLost, match="may have accepted it"):
        ask(web.url, repeatable=False)
    assert len(web.requests) == 1


def test_read_timeout_of_an_unrepeatable_request_may_still_arrive(silent_url: str, waits: list[float]) -> None:
    with pytest.raises(AnswerLost, match="ReadTimeout") as told:
        ask(silent_url, repeatable=False, timeout=(5, 0.05))
    assert waits == []
    assert told.value.may_still_arrive, "or may still be"


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize(
    "broken",
    [(200, {"content-encoding": "gzip"}, b"not gzip"), (302, {"location": "/again"}, b"")],
    ids=["broken gzip", "a redirect loop"],
)
def test_broken_answers_do_not_leak_errors_of_requests(web: Web, broken: Answer, repeatable: bool) -> None:
    web.respond = lambda request: broken
    with pytest.raises(ServiceUnavailable):
        ask(f"{web.url}/?key={KEY}", repeatable)


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("refusal", [TOO_MANY, REFUSED, (403, {}, b"")], ids=["429", "403", "403 without a message"])
def test_throttled_request_is_always_repeated(web: Web, refusal: Answer, repeatable: bool) -> None:
    web.answers = [refusal, answer({})]
    assert ask(web.url, repeatable).status_code == 200


@pytest.mark.parametrize("repeatable", [True, False])
def test_refused_connection_is_retried(closed_url: str, waits: list[float], repeatable: bool) -> None:
    with pytest.raises(ServiceUnavailable, match=r"speech service at http://h.*NewConnectionError") as told:
        ask(closed_url, repeatable)
    assert not isinstance(told.value, AnswerLost)
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("repeatable", [True, False])
def test_connect_timeout_is_retried(full_url: str, waits: list[float], repeatable: bool) -> None:
    with pytest.raises(ServiceUnavailable, match="ConnectTimeout") as told:
        ask(full_url, repeatable, timeout=(0.05, 5))
    assert not isinstance(told.value, AnswerLost)
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("status", [200, 400, 401, 404, 422])
def test_other_answers_are_returned_immediately(web: Web, status: int) -> None:
    web.answers = [answer({}, status)]
    assert ask(web.url, repeatable=True).status_code == status
    assert len(web.requests) == 1


def test_back_off_grows_exponentially(web: Web, waits: list[float]) -> None:
    web.respond = lambda request: answer({}, 503)
    with pytest.raises(ServiceUnavailable, match=f"it answered 503, {ATTEMPTS} times"):
        ask(web.url, repeatable=True)
    assert all(double <= wait <= double * 1.25 for wait, double in zip(waits, [1, 2, 4, 8, 16, 16, 16], strict=True))


def test_retries_are_logged_without_the_url(closed_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ServiceUnavailable) as error:
        ask(closed_url, repeatable=True)
    assert "next attempt in" in caplog.text
    assert KEY not in caplog.text + str(error.value)


# Waiting


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> dt.datetime:
    """Freezes the date at noon."""
    moment = type("Moment", (dt.datetime,), {"now": classmethod(lambda cls, tz: NOON)})
    monkeypatch.setattr("callphases.limits.throttle.dt", SimpleNamespace(datetime=moment, UTC=dt.UTC))
    return NOON


def after_noon(seconds: float) -> dt.datetime:
    return NOON + dt.timedelta(seconds=seconds)


WAITS = [
    ({"Retry_After": "7"}, 7),
    ({"X_RateLimit_Reset": "12"}, 12),
    ({"X_RateLimit_Reset": "12.5"}, 12.5),
    ({"Retry_After": "3", "X_RateLimit_Reset": "12"}, 3),
    ({"Retry_After": "soon", "X_RateLimit_Reset": "12"}, 12),
    ({"Retry_After": "0"}, 0),
    ({"Retry_After": "900"}, LONGEST_WAIT_S),
    ({"Retry_After": format_datetime(after_noon(40), usegmt=True)}, 40),
    ({"Retry_After": format_datetime(after_noon(-40), usegmt=True)}, 1),
    ({"X_RateLimit_Reset": str(int(after_noon(22).timestamp()))}, 22),
    ({"X_RateLimit_Reset": str(int(after_noon(-22).timestamp()))}, 1),
    ({"X_RateLimit_Reset": str(int(after_noon(86_400).timestamp()))}, 1),
    ({"Retry_After": "-5"}, 1),
    ({"Retry_After": "nan"}, 1),
    ({"Retry_After": "1e400"}, 1),
    ({}, 1),
]


@pytest.mark.parametrize("status", [429, 403, 503])
@pytest.mark.parametrize(("headers", "asked_s"), WAITS)
def test_requested_wait_is_respected(
    web: Web, waits: list[float], noon: dt.datetime, headers: dict[str, str], asked_s: float, status: int
) -> None:
    web.answers = [answer({}, status, **headers), answer({})]
    ask(web.url, repeatable=True)
    assert len(waits) == 1
    assert asked_s <= waits[0] <= asked_s * 1.25


def send_while_waiting(clock: Clock, send: Callable[[], Any]) -> None:
    """Send another request while the first one waits."""
    begun: list[float] = []

    def once(seconds: float) -> None:
        if not begun:
            begun.append(seconds)
            send()

    clock.asleep = once


def test_requested_wait_pauses_all_threads(web: Web, clock: Clock) -> None:
    throttle, sent_at = Throttle(SERVICE), list[float]()
    answers = [answer({}, 429, Retry_After="30"), answer({}), answer({})]
    web.respond = lambda request: sent_at.append(clock.now) or answers.pop(0)
    send_while_waiting(clock, lambda: ask(web.url, False, throttle))
    ask(web.url, False, throttle)
    assert sent_at[1] - sent_at[0] == pytest.approx(30)


@pytest.mark.parametrize("reset", ["30", str(int(after_noon(30).timestamp()))], ids=["seconds", "a moment"])
def test_exhausted_rate_limit_window_is_waited_out(web: Web, clock: Clock, noon: dt.datetime, reset: str) -> None:
    throttle, sent_at = Throttle(SERVICE), list[float]()
    answers = [answer({}, X_RateLimit_Remaining="0", X_RateLimit_Reset=reset), answer({}), answer({})]
    web.respond = lambda request: sent_at.append(clock.now) or answers.pop(0)
    for _ in range(3):
        ask(web.url, False, throttle)
    assert [moment - sent_at[0] for moment in sent_at] == pytest.approx([0, 30, 30])


@pytest.mark.parametrize(
    "headers", [{}, {"X_RateLimit_Remaining": "1", "X_RateLimit_Reset": "30"}, {"X_RateLimit_Remaining": "0"}]
)
def test_no_wait_while_the_rate_limit_has_requests_left(web: Web, clock: Clock, headers: dict[str, str]) -> None:
    web.respond = lambda request: answer({}, **headers)
    throttle = Throttle(SERVICE)
    for _ in range(3):
        ask(web.url, False, throttle)
    assert clock.slept == []


# Rate


def distance(web: Web, clock: Clock, throttle: Throttle) -> float:
    """The current time between two requests."""
    ask(web.url, False, throttle)
    sent_at = clock.now
    ask(web.url, False, throttle)
    return clock.now - sent_at


AT_FIRST = 1 / SPEECH_REQUESTS_PER_S


def test_known_rate_limit_is_respected_from_the_start(web: Web, clock: Clock) -> None:
    web.respond = lambda request: answer({})
    assert distance(web, clock, Throttle(SERVICE, SPEECH_REQUESTS_PER_S)) == pytest.approx(AT_FIRST)


def test_threads_share_one_rate(web: Web, clock: Clock) -> None:
    web.respond = lambda request: answer({})
    throttle, begun = Throttle(SERVICE, SPEECH_REQUESTS_PER_S), clock.now
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ask(web.url, False, throttle), range(40)))
    assert len(web.requests) == 40
    assert clock.now - begun >= 39 * AT_FIRST * 0.999


@pytest.mark.parametrize("fastest", [SPEECH_REQUESTS_PER_S, math.inf])
def test_throttling_halves_the_rate_and_answers_restore_it(web: Web, clock: Clock, fastest: float) -> None:
    throttle = Throttle(SERVICE, fastest)
    web.answers = [TOO_MANY]
    web.answers += [answer({})] * 200
    ask(web.url, False, throttle)
    distances = [distance(web, clock, throttle) for _ in range(60)]
    assert distances[0] == pytest.approx(2 * AT_FIRST, rel=0.05)
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == pytest.approx(1 / fastest)


def test_simultaneous_throttling_of_threads_halves_the_rate_once(web: Web, clock: Clock) -> None:
    throttle, together = Throttle(SERVICE, SPEECH_REQUESTS_PER_S), threading.Barrier(4)
    refused: set[int] = set()

    def request() -> requests.Response:
        if threading.get_ident() not in refused:
            refused.add(threading.get_ident())
            together.wait(60)  # all are sent before the first is answered
            return requests.get(f"{web.url}/refused", timeout=30)
        return requests.get(web.url, timeout=30)

    web.respond = lambda request: TOO_MANY if request.path == "/refused" else answer({})
    frozen = clock.now
    slow_down = throttle._slow_down

    def at_the_same_moment(response: requests.Response) -> float | None:
        clock.now = frozen
        return slow_down(response)

    throttle._slow_down = at_the_same_moment  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: throttle.send(request, repeatable=False), range(4)))
    assert distance(web, clock, throttle) == pytest.approx(2 * AT_FIRST, rel=0.15)


def test_consecutive_throttling_halves_the_rate_each_time(web: Web, clock: Clock) -> None:
    throttle = Throttle(SERVICE, SPEECH_REQUESTS_PER_S)
    web.answers = [TOO_MANY, TOO_MANY, TOO_MANY, answer({}), answer({}), answer({})]
    ask(web.url, False, throttle)
    assert distance(web, clock, throttle) == pytest.approx(8 * AT_FIRST, rel=0.2)


def test_rate_has_a_minimum_of_one_request_in_ten_seconds(web: Web, clock: Clock) -> None:
    throttle = Throttle(SERVICE, SPEECH_REQUESTS_PER_S)
    web.answers = [TOO_MANY] * 14 + [answer({})] * 3
    ask(web.url, False, throttle)
    assert distance(web, clock, throttle) <= 1 / MIN_REQUESTS_PER_S


# Persistent refusal


def test_persistent_429_raises_after_the_patience_time(web: Web, clock: Clock) -> None:
    web.respond = lambda request: TOO_MANY
    begun = clock.now
    with pytest.raises(ThrottledOut, match=r"speech service at http://h kept refusing.*10 minutes.*429"):
        ask(web.url, repeatable=False)
    assert PATIENCE_S - 20 <= clock.now - begun <= PATIENCE_S


def test_temporary_429_is_waited_out(web: Web, clock: Clock) -> None:
    begun = clock.now
    web.respond = lambda request: TOO_MANY if clock.now - begun < PATIENCE_S - 60 else answer({})
    assert ask(web.url, repeatable=False).status_code == 200
    assert clock.now - begun > 500


def probing(web: Web, status: int) -> Throttle:
    """A throttle that has had an answer before, and whose probe is answered with ``status``."""
    throttle = Throttle(SERVICE, probe=lambda: requests.get(f"{web.url}/probe", timeout=30))
    web.respond = lambda request: answer({})
    ask(web.url, False, throttle)
    web.requests.clear()
    web.respond = lambda request: answer({}, status) if request.path == "/probe" else REFUSED
    return throttle


def test_single_403_without_reason_is_retried(web: Web) -> None:
    web.answers = [REFUSED, answer({"id": "t-1"})]
    assert ask(web.url, repeatable=False).json() == {"id": "t-1"}


def test_persistent_403_is_a_refusal_if_the_probe_succeeds(web: Web) -> None:
    throttle = probing(web, 200)
    response = ask(f"{web.url}/one", False, throttle)
    assert response.status_code == 403
    assert [request.path for request in web.requests] == ["/one"] * ATTEMPTS + ["/probe"]


@pytest.mark.parametrize("status", [403, 429, 500])
def test_persistent_403_is_throttling_if_the_probe_is_refused(web: Web, clock: Clock, status: int) -> None:
    throttle, begun = probing(web, status), clock.now
    with pytest.raises(ThrottledOut, match="it answered 403"):
        ask(f"{web.url}/one", False, throttle)
    assert clock.now - begun > PATIENCE_S / 2


def test_persistent_403_is_throttling_if_the_probe_gets_no_answer(web: Web, clock: Clock) -> None:
    throttle = probing(web, 200)
    web.respond = lambda request: LOST if request.path == "/probe" else REFUSED
    with pytest.raises(ThrottledOut):
        ask(f"{web.url}/one", False, throttle)


def test_temporary_403_without_reason_is_waited_out(web: Web, clock: Clock) -> None:
    throttle, begun = probing(web, 403), clock.now
    refuse = web.respond
    assert refuse is not None
    web.respond = lambda request: refuse(request) if clock.now - begun < 300 else answer({"id": "t-1"})
    assert ask(f"{web.url}/one", False, throttle).json() == {"id": "t-1"}


def test_persistent_403_is_a_refusal_if_other_requests_were_answered(web: Web, clock: Clock) -> None:
    throttle = probing(web, 403)
    web.respond = lambda request: answer({}) if request.path == "/another" else REFUSED
    send_while_waiting(clock, lambda: ask(f"{web.url}/another", False, throttle))
    assert ask(f"{web.url}/one", False, throttle).status_code == 403
    assert "/probe" not in [request.path for request in web.requests]


def test_persistent_403_is_throttling_without_a_probe(web: Web) -> None:
    web.respond = lambda request: REFUSED
    with pytest.raises(ThrottledOut):
        ask(web.url, repeatable=False)


@pytest.mark.parametrize(
    "reason",
    [
        answer({"error": "LLM Gateway needs a paid plan"}, 403),
        answer({"error": {"code": 403, "message": "Cannot access uploaded file"}}, 403),
        answer({"message": "no", "metadata": {"errors": ["not your key"]}}, 403),
        text_answer("<html><body><h1>403</h1>Your IP is blocked</body></html>", 403, "text/html"),
    ],
)
def test_403_with_a_reason_is_returned_immediately(web: Web, reason: Answer) -> None:
    web.answers = [reason]
    assert ask(web.url, repeatable=True).status_code == 403
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    "said",
    [
        answer({"error": "Too many requests"}, 403),
        answer({"error": "Rate limit exceeded."}, 403),
        answer({"message": "Access denied"}, 403),
        text_answer("<html><head><title>403 Forbidden</title></head><h1>403 Forbidden</h1></html>", 403, "text/html"),
    ],
)
def test_403_with_a_generic_message_has_no_reason(web: Web, said: Answer) -> None:
    web.answers = [said, answer({})]
    assert ask(web.url, repeatable=False).status_code == 200


# Error text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (answer({"error": "redact_pii_audio needs redact_pii"}, 400), "redact_pii_audio needs redact_pii"),
        (answer({"error": {"code": 400, "message": "model x is not supported"}}, 400), "model x is not supported"),
        (
            answer({"code": 400, "message": "Invalid", "metadata": {"errors": ["max_tokens: too large", "n: 1"]}}, 400),
            "Invalid max_tokens: too large n: 1",
        ),
        (answer({"message": "Payment Required"}, 402), "Payment Required"),
        (answer({"message": "Invalid", "metadata": None}, 400), "Invalid"),
        (answer({"message": "Invalid", "metadata": {}}, 400), "Invalid"),
        (answer({"error": {"code": 400}}, 400), ""),
        (answer({"error": ""}, 400), ""),
        (answer({}, 400), ""),
        (answer(["odd"], 400), ""),
        (answer("odd", 400), "odd"),
        (text_answer("<html><b>Bad</b>\nGateway</html>", 502, "text/html"), "Bad Gateway"),
        (text_answer("Upload failed:\nempty body", 422), "Upload failed: empty body"),
        (
            answer({"error": "unable to download https://b/a.mp3?X-Amz-Signature=abc"}, 400),
            "unable to download https://b/a.mp3",
        ),
        ((400, {}, b""), ""),
        ((400, {"content-type": "application/json"}, b"\xff\xfe"), None),
    ],
)
def test_error_text_is_read_from_any_format(web: Web, given: Answer, told: str | None) -> None:
    web.answers = [given]
    said = error_text(requests.get(web.url, timeout=30))
    assert "\n" not in said
    assert told is None or said == told


@pytest.mark.parametrize(
    "metadata",
    [
        {"errors": None},
        {"errors": "max_tokens"},
        {"errors": {"a": 1}},
        {"errors": 7},
    ],
)
def test_malformed_error_details_do_not_hide_the_message(web: Web, metadata: dict[str, Any]) -> None:
    web.answers = [answer({"message": "Invalid", "metadata": metadata}, 400)]
    assert error_text(requests.get(web.url, timeout=30)).startswith("Invalid")


# The ramp


def test_ramp_starts_immediately_and_spreads_its_first_window() -> None:
    due = [ramp_s(number) for number in range(RAMP_FIRST + 1)]
    assert (due[0], due[RAMP_FIRST]) == (0, pytest.approx(RAMP_WINDOW_S))
    assert (RAMP_FIRST, RAMP_WINDOW_S) == (25, 15)
    assert all(later - sooner < 1 for sooner, later in itertools.pairwise(due)), "spread evenly"


def test_ramp_windows_have_the_documented_number_of_submissions() -> None:
    due = [ramp_s(number) for number in range(6_000)]
    sent = 0.0
    for window in range(1, 37):
        sent += RAMP_FIRST * RAMP_GROWTH ** (window - 1)
        assert sum(at_s < window * RAMP_WINDOW_S - 1e-6 for at_s in due) == math.ceil(round(sent, 6))


def test_ramp_windows_grow_as_documented() -> None:
    assert 1.08 <= RAMP_GROWTH <= 1.09
    in_window = [sum(ramp_s(number) // 15 == window for number in range(3_000)) for window in range(25)]
    assert all(0.95 <= later / sooner <= 1.25 for sooner, later in itertools.pairwise(in_window))
    assert in_window[24] / in_window[0] == pytest.approx(RAMP_GROWTH**24, rel=0.03)


@given(st.integers(0, 10**7), st.integers(1, 10**4))
def test_ramp_is_strictly_increasing(number: int, more: int) -> None:
    assert ramp_s(number + more) > ramp_s(number) >= 0
