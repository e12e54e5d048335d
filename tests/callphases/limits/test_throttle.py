"""When a request may be sent, what is sent again, and how long it is waited before."""

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
    """The address of a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v2/transcript?key={KEY}"


@pytest.fixture
def full_url() -> Iterator[str]:
    """The address of a port that lets nobody in, and does not say so."""
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
    """The address of a port where everybody is let in and nobody is answered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def ask(
    url: str, repeatable: bool, throttle: Throttle | None = None, timeout: tuple[float, float] = (5, 30)
) -> requests.Response:
    return (throttle or Throttle(SERVICE)).send(lambda: requests.get(url, timeout=timeout), repeatable=repeatable)


# What is sent again


@pytest.mark.parametrize("first", [answer({}, 500), answer({}, 503), answer({}, 504), LOST, CUT, TOO_MANY])
def test_what_may_be_repeated_is(web: Web, first: Answer) -> None:
    web.answers = [first, first, answer({"id": "t-1"})]
    assert ask(web.url, repeatable=True).json() == {"id": "t-1"}
    assert len(web.requests) == 3


@pytest.mark.parametrize("lost", [LOST, CUT, answer({}, 500), answer({}, 503)])
def test_what_may_not_be_repeated_may_have_been_taken(web: Web, lost: Answer) -> None:
    web.answers = [lost, answer({})]
    with pytest.raises(AnswerLost, match="may have accepted it"):
        ask(web.url, repeatable=False)
    assert len(web.requests) == 1


def test_what_is_not_answered_in_time_may_have_been_taken(silent_url: str, waits: list[float]) -> None:
    with pytest.raises(AnswerLost, match="ReadTimeout") as told:
        ask(silent_url, repeatable=False, timeout=(5, 0.05))
    assert waits == []
    assert told.value.may_still_arrive, "or may still be"


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize(
    "broken",
    [(200, {"content-encoding": "gzip"}, b"not gzip"), (302, {"location": "/again"}, b"")],
    ids=["broken gzip", "a redirect in circles"],
)
def test_no_answer_is_an_error_of_another_library(web: Web, broken: Answer, repeatable: bool) -> None:
    web.respond = lambda request: broken
    with pytest.raises(ServiceUnavailable):
        ask(f"{web.url}/?key={KEY}", repeatable)


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("refusal", [TOO_MANY, REFUSED, (403, {}, b"")], ids=["429", "403", "403 without a word"])
def test_too_many_says_that_nothing_was_taken(web: Web, refusal: Answer, repeatable: bool) -> None:
    web.answers = [refusal, answer({})]
    assert ask(web.url, repeatable).status_code == 200


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_refused_connection_is_tried_again(closed_url: str, waits: list[float], repeatable: bool) -> None:
    with pytest.raises(ServiceUnavailable, match=r"speech service at http://h.*NewConnectionError") as told:
        ask(closed_url, repeatable)
    assert not isinstance(told.value, AnswerLost)
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_connection_that_is_not_made_in_time_is_tried_again(
    full_url: str, waits: list[float], repeatable: bool
) -> None:
    with pytest.raises(ServiceUnavailable, match="ConnectTimeout") as told:
        ask(full_url, repeatable, timeout=(0.05, 5))
    assert not isinstance(told.value, AnswerLost)
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("status", [200, 400, 401, 404, 422])
def test_other_answers_are_returned_at_once(web: Web, status: int) -> None:
    web.answers = [answer({}, status)]
    assert ask(web.url, repeatable=True).status_code == status
    assert len(web.requests) == 1


def test_it_waits_longer_each_time(web: Web, waits: list[float]) -> None:
    web.respond = lambda request: answer({}, 503)
    with pytest.raises(ServiceUnavailable, match=f"it answered 503, {ATTEMPTS} times"):
        ask(web.url, repeatable=True)
    assert all(double <= wait <= double * 1.25 for wait, double in zip(waits, [1, 2, 4, 8, 16, 16, 16], strict=True))


def test_waiting_is_logged_without_the_address_that_was_asked(
    closed_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ServiceUnavailable) as error:
        ask(closed_url, repeatable=True)
    assert "next attempt in" in caplog.text
    assert KEY not in caplog.text + str(error.value)


# How long it waits


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> dt.datetime:
    """It is noon, by the clock of dates."""
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
def test_it_waits_as_long_as_it_is_asked_to(
    web: Web, waits: list[float], noon: dt.datetime, headers: dict[str, str], asked_s: float, status: int
) -> None:
    web.answers = [answer({}, status, **headers), answer({})]
    ask(web.url, repeatable=True)
    assert len(waits) == 1
    assert asked_s <= waits[0] <= asked_s * 1.25


def send_while_waiting(clock: Clock, send: Callable[[], Any]) -> None:
    """Have another thread's request come while the first waits."""
    begun: list[float] = []

    def once(seconds: float) -> None:
        if not begun:
            begun.append(seconds)
            send()

    clock.asleep = once


def test_what_one_thread_is_asked_to_wait_all_wait(web: Web, clock: Clock) -> None:
    throttle, sent_at = Throttle(SERVICE), list[float]()
    answers = [answer({}, 429, Retry_After="30"), answer({}), answer({})]
    web.respond = lambda request: sent_at.append(clock.now) or answers.pop(0)
    send_while_waiting(clock, lambda: ask(web.url, False, throttle))
    ask(web.url, False, throttle)
    assert sent_at[1] - sent_at[0] == pytest.approx(30)


@pytest.mark.parametrize("reset", ["30", str(int(after_noon(30).timestamp()))], ids=["seconds", "a moment"])
def test_no_request_is_sent_that_the_service_says_it_would_refuse(
    web: Web, clock: Clock, noon: dt.datetime, reset: str
) -> None:
    throttle, sent_at = Throttle(SERVICE), list[float]()
    answers = [answer({}, X_RateLimit_Remaining="0", X_RateLimit_Reset=reset), answer({}), answer({})]
    web.respond = lambda request: sent_at.append(clock.now) or answers.pop(0)
    for _ in range(3):
        ask(web.url, False, throttle)
    assert [moment - sent_at[0] for moment in sent_at] == pytest.approx([0, 30, 30])


@pytest.mark.parametrize(
    "headers", [{}, {"X_RateLimit_Remaining": "1", "X_RateLimit_Reset": "30"}, {"X_RateLimit_Remaining": "0"}]
)
def test_where_more_may_come_nothing_is_waited_for(web: Web, clock: Clock, headers: dict[str, str]) -> None:
    web.respond = lambda request: answer({}, **headers)
    throttle = Throttle(SERVICE)
    for _ in range(3):
        ask(web.url, False, throttle)
    assert clock.slept == []


# The pace


def distance(web: Web, clock: Clock, throttle: Throttle) -> float:
    """The time between two requests, by now."""
    ask(web.url, False, throttle)
    sent_at = clock.now
    ask(web.url, False, throttle)
    return clock.now - sent_at


AT_FIRST = 1 / SPEECH_REQUESTS_PER_S


def test_a_budget_is_kept_to_from_the_start(web: Web, clock: Clock) -> None:
    web.respond = lambda request: answer({})
    assert distance(web, clock, Throttle(SERVICE, SPEECH_REQUESTS_PER_S)) == pytest.approx(AT_FIRST)


def test_threads_share_one_pace(web: Web, clock: Clock) -> None:
    web.respond = lambda request: answer({})
    throttle, begun = Throttle(SERVICE, SPEECH_REQUESTS_PER_S), clock.now
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ask(web.url, False, throttle), range(40)))
    assert len(web.requests) == 40
    assert clock.now - begun >= 39 * AT_FIRST * 0.999


@pytest.mark.parametrize("fastest", [SPEECH_REQUESTS_PER_S, math.inf])
def test_a_refusal_halves_the_pace_and_answers_bring_it_back(web: Web, clock: Clock, fastest: float) -> None:
    throttle = Throttle(SERVICE, fastest)
    web.answers = [TOO_MANY]
    web.answers += [answer({})] * 200
    ask(web.url, False, throttle)
    distances = [distance(web, clock, throttle) for _ in range(60)]
    assert distances[0] == pytest.approx(2 * AT_FIRST, rel=0.05)
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == pytest.approx(1 / fastest)


def test_threads_that_are_refused_at_the_same_moment_halve_the_pace_once(web: Web, clock: Clock) -> None:
    throttle, together = Throttle(SERVICE, SPEECH_REQUESTS_PER_S), threading.Barrier(4)
    refused: set[int] = set()

    def request() -> requests.Response:
        if threading.get_ident() not in refused:
            refused.add(threading.get_ident())
            together.wait(60)  # all have been sent before one is answered
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


def test_refusals_one_after_the_other_halve_the_pace_each_time(web: Web, clock: Clock) -> None:
    throttle = Throttle(SERVICE, SPEECH_REQUESTS_PER_S)
    web.answers = [TOO_MANY, TOO_MANY, TOO_MANY, answer({}), answer({}), answer({})]
    ask(web.url, False, throttle)
    assert distance(web, clock, throttle) == pytest.approx(8 * AT_FIRST, rel=0.2)


def test_the_pace_falls_no_lower_than_one_request_in_ten_seconds(web: Web, clock: Clock) -> None:
    throttle = Throttle(SERVICE, SPEECH_REQUESTS_PER_S)
    web.answers = [TOO_MANY] * 14 + [answer({})] * 3
    ask(web.url, False, throttle)
    assert distance(web, clock, throttle) <= 1 / MIN_REQUESTS_PER_S


# A service that goes on to refuse


def test_a_service_that_says_too_many_for_too_long_is_left_alone(web: Web, clock: Clock) -> None:
    web.respond = lambda request: TOO_MANY
    begun = clock.now
    with pytest.raises(ThrottledOut, match=r"speech service at http://h kept refusing.*10 minutes.*429"):
        ask(web.url, repeatable=False)
    assert PATIENCE_S - 20 <= clock.now - begun <= PATIENCE_S


def test_a_service_that_says_too_many_for_a_while_is_waited_for(web: Web, clock: Clock) -> None:
    begun = clock.now
    web.respond = lambda request: TOO_MANY if clock.now - begun < PATIENCE_S - 60 else answer({})
    assert ask(web.url, repeatable=False).status_code == 200
    assert clock.now - begun > 500


def probing(web: Web, status: int) -> Throttle:
    """A throttle that has had an answer before, and whose probe is answered so."""
    throttle = Throttle(SERVICE, probe=lambda: requests.get(f"{web.url}/probe", timeout=30))
    web.respond = lambda request: answer({})
    ask(web.url, False, throttle)
    web.requests.clear()
    web.respond = lambda request: answer({}, status) if request.path == "/probe" else REFUSED
    return throttle


def test_a_single_403_without_a_reason_is_tried_again(web: Web) -> None:
    web.answers = [REFUSED, answer({"id": "t-1"})]
    assert ask(web.url, repeatable=False).json() == {"id": "t-1"}


def test_a_403_that_lasts_is_a_refusal_where_the_service_answers_others(web: Web) -> None:
    throttle = probing(web, 200)
    response = ask(f"{web.url}/one", False, throttle)
    assert response.status_code == 403
    assert [request.path for request in web.requests] == ["/one"] * ATTEMPTS + ["/probe"]


@pytest.mark.parametrize("status", [403, 429, 500])
def test_a_403_that_lasts_is_too_much_where_the_service_refuses_everyone(web: Web, clock: Clock, status: int) -> None:
    throttle, begun = probing(web, status), clock.now
    with pytest.raises(ThrottledOut, match="it answered 403"):
        ask(f"{web.url}/one", False, throttle)
    assert clock.now - begun > PATIENCE_S / 2


def test_a_403_that_lasts_is_too_much_where_the_probe_is_not_answered(web: Web, clock: Clock) -> None:
    throttle = probing(web, 200)
    web.respond = lambda request: LOST if request.path == "/probe" else REFUSED
    with pytest.raises(ThrottledOut):
        ask(f"{web.url}/one", False, throttle)


def test_a_403_that_passes_while_it_is_waited_for_was_too_much(web: Web, clock: Clock) -> None:
    throttle, begun = probing(web, 403), clock.now
    refuse = web.respond
    assert refuse is not None
    web.respond = lambda request: refuse(request) if clock.now - begun < 300 else answer({"id": "t-1"})
    assert ask(f"{web.url}/one", False, throttle).json() == {"id": "t-1"}


def test_a_403_that_lasts_is_a_refusal_where_others_were_answered_meanwhile(web: Web, clock: Clock) -> None:
    throttle = probing(web, 403)
    web.respond = lambda request: answer({}) if request.path == "/another" else REFUSED
    send_while_waiting(clock, lambda: ask(f"{web.url}/another", False, throttle))
    assert ask(f"{web.url}/one", False, throttle).status_code == 403
    assert "/probe" not in [request.path for request in web.requests]


def test_a_403_that_lasts_is_too_much_where_nobody_can_tell(web: Web) -> None:
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
def test_a_403_with_a_reason_is_returned_at_once(web: Web, reason: Answer) -> None:
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
def test_a_403_that_says_no_more_than_its_number_gives_no_reason(web: Web, said: Answer) -> None:
    web.answers = [said, answer({})]
    assert ask(web.url, repeatable=False).status_code == 200


# Words


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
        (answer("odd", 400), ""),
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
def test_an_error_is_read_in_any_shape(web: Web, given: Answer, told: str | None) -> None:
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
def test_details_of_another_shape_hide_no_message(web: Web, metadata: dict[str, Any]) -> None:
    web.answers = [answer({"message": "Invalid", "metadata": metadata}, 400)]
    assert error_text(requests.get(web.url, timeout=30)).startswith("Invalid")


# The ramp


def test_the_first_submission_is_due_at_once_and_the_first_window_has_as_many_as_advised() -> None:
    due = [ramp_s(number) for number in range(RAMP_FIRST + 1)]
    assert (due[0], due[RAMP_FIRST]) == (0, pytest.approx(RAMP_WINDOW_S))
    assert (RAMP_FIRST, RAMP_WINDOW_S) == (25, 15)
    assert all(later - sooner < 1 for sooner, later in itertools.pairwise(due)), "evenly"


def test_each_window_has_as_many_submissions_as_are_advised() -> None:
    due = [ramp_s(number) for number in range(6_000)]
    sent = 0.0
    for window in range(1, 37):
        sent += RAMP_FIRST * RAMP_GROWTH ** (window - 1)
        assert sum(at_s < window * RAMP_WINDOW_S - 1e-6 for at_s in due) == math.ceil(round(sent, 6))


def test_windows_grow_as_advised() -> None:
    assert 1.08 <= RAMP_GROWTH <= 1.09
    in_window = [sum(ramp_s(number) // 15 == window for number in range(3_000)) for window in range(25)]
    assert all(0.95 <= later / sooner <= 1.25 for sooner, later in itertools.pairwise(in_window))
    assert in_window[24] / in_window[0] == pytest.approx(RAMP_GROWTH**24, rel=0.03)


@given(st.integers(0, 10**7), st.integers(1, 10**4))
def test_a_later_submission_is_due_later(number: int, more: int) -> None:
    assert ramp_s(number + more) > ramp_s(number) >= 0
