"""What is sent again, and how long it is waited before."""

from __future__ import annotations

import logging
import socket

import pytest
import requests

from callphases.errors import AnswerLost, ServiceUnavailable
from callphases.throttle import ATTEMPTS, send
from doubles import KEY, LOST, Answer, Web, answer

CUT: Answer = (200, {"content-length": "100"}, b'{"id": "t-1"')
TOO_MANY = answer({"error": "Too Many Requests"}, 429)


@pytest.fixture
def closed_url() -> str:
    """The address of a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v2/transcript?key={KEY}"


def ask(url: str, repeatable: bool) -> requests.Response:
    return send(lambda: requests.get(url, timeout=(1, 5)), "speech service at http://h", repeatable=repeatable)


@pytest.mark.parametrize("first", [answer({}, 500), answer({}, 503), answer({}, 504), LOST, CUT, TOO_MANY])
def test_what_may_be_repeated_is(web: Web, first: Answer) -> None:
    web.answers = [first, first, answer({"id": "t-1"})]
    assert ask(web.url, repeatable=True).json() == {"id": "t-1"}
    assert len(web.requests) == 3


@pytest.mark.parametrize("lost", [LOST, CUT, answer({}, 500), answer({}, 503)])
def test_what_may_not_be_repeated_may_have_been_taken(web: Web, lost: Answer) -> None:
    web.answers = [lost, answer({})]
    with pytest.raises(AnswerLost, match="may have taken it"):
        ask(web.url, repeatable=False)
    assert len(web.requests) == 1


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
def test_429_says_that_nothing_was_taken(web: Web, repeatable: bool) -> None:
    web.answers = [TOO_MANY, answer({})]
    assert ask(web.url, repeatable).status_code == 200


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_refused_connection_is_tried_again(closed_url: str, waits: list[float], repeatable: bool) -> None:
    with pytest.raises(ServiceUnavailable, match=r"speech service at http://h.*NewConnectionError"):
        ask(closed_url, repeatable)
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 422])
def test_other_answers_are_returned_at_once(web: Web, status: int) -> None:
    web.answers = [answer({}, status)]
    assert ask(web.url, repeatable=True).status_code == status
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry_After": "7"}, 7, 8.75),
        ({"X_RateLimit_Reset": "12"}, 12, 15),
        ({"Retry_After": "3", "X_RateLimit_Reset": "12"}, 3, 3.75),
        ({"Retry_After": "0"}, 0, 0),
        ({"Retry_After": "900"}, 60, 75),
        ({"Retry_After": "Fri, 20 Nov 2026 12:00:00 GMT"}, 1, 1.25),
        ({"Retry_After": "-5"}, 1, 1.25),
        ({"X_RateLimit_Reset": "1795176000"}, 1, 1.25),
        ({}, 1, 1.25),
    ],
)
def test_it_waits_as_long_as_it_is_asked_to(
    web: Web, waits: list[float], headers: dict[str, str], least: float, most: float
) -> None:
    web.answers = [answer({}, 429, **headers), answer({})]
    ask(web.url, repeatable=False)
    assert len(waits) == 1
    assert least <= waits[0] <= most


def test_it_waits_longer_each_time(web: Web, waits: list[float]) -> None:
    web.respond = lambda request: answer({}, 503)
    with pytest.raises(ServiceUnavailable, match=f"it answered 503, {ATTEMPTS} times"):
        ask(web.url, repeatable=True)
    assert all(double <= wait <= double * 1.25 for wait, double in zip(waits, [1, 2, 4, 8], strict=True))


def test_waiting_is_logged_without_the_address_that_was_asked(
    closed_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ServiceUnavailable) as error:
        ask(closed_url, repeatable=True)
    assert "next try in" in caplog.text
    assert KEY not in caplog.text + str(error.value)
