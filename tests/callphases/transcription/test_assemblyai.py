"""The speech service client against awkward answers, over real HTTP."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from callphases.errors import (
    AccountError,
    AnswerLost,
    DayHeld,
    ModelRetired,
    NoBalance,
    RecordingGone,
    RequestRefused,
    ServiceUnavailable,
    WrongKey,
)
from callphases.limits.throttle import ATTEMPTS, SPEECH_REQUESTS_PER_S
from callphases.transcription.assemblyai import AssemblyAI
from doubles import KEY, LOST, Answer, Clock, Request, Web, answer, text_answer

SIGNED = "https://calls.s3.amazonaws.com/a.mp3?X-Amz-Signature=abc"
UNKNOWN = answer({"error": "Transcript lookup error, transcript id not found"}, 400)


@pytest.fixture
def client(web: Web) -> AssemblyAI:
    return AssemblyAI(KEY, web.url + "/")


def queued(one: str = "t-1") -> Answer:
    return answer({"id": one, "status": "queued", "error": ""})


def test_key_is_sent_raw(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({"transcripts": []})]
    client.check()
    assert web.requests[0].headers["authorization"] == KEY
    assert web.requests[0].query == {"limit": "1"}


def test_options_are_checked_without_a_recording(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({"error": "audio_url is required"}, 400)]
    client.check_options({"speech_models": ["new"]})
    assert [request.json for request in web.requests] == [{"speech_models": ["new"]}]
    web.answers = [answer({"error": "speech model old is not supported"}, 400)]
    with pytest.raises(ModelRetired, match="speech model old"):
        client.check_options({"speech_models": ["old"]})


def test_upload_is_streamed_in_chunks(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({"upload_url": "https://cdn.example/upload/1"})]
    assert client.upload(lambda: iter([b"first", b"second"])) == "https://cdn.example/upload/1"
    (sent,) = web.requests
    assert (sent.method, sent.path, sent.body) == ("POST", "/v2/upload", b"firstsecond")
    assert sent.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in sent.headers
    assert sent.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("first", [LOST, answer({}, 503), answer({}, 429)])
def test_restarted_upload_reopens_the_file(web: Web, client: AssemblyAI, first: Answer) -> None:
    web.answers = [first, answer({"upload_url": "u"})]
    opened: list[str] = []

    def body() -> Iterator[bytes]:
        opened.append("opened")
        yield b"whole "
        yield b"file"

    client.upload(body)
    assert len(opened) == 2
    assert [request.body for request in web.requests] == [b"whole file", b"whole file"]


def test_recording_deleted_during_upload_raises_its_failure(client: AssemblyAI) -> None:
    def body() -> Iterator[bytes]:
        yield b"first"
        raise RecordingGone("gone")

    with pytest.raises(RecordingGone):
        client.upload(body)


def test_options_are_sent_unchanged(web: Web, client: AssemblyAI) -> None:
    web.answers = [queued()]
    options = {"speech_models": ["universal-3-pro"], "speaker_labels": True, "redact_pii_policies": ["person_name"]}
    assert client.submit(SIGNED, options).id == "t-1"
    assert web.requests[0].json == {"audio_url": SIGNED, **options}


@pytest.mark.parametrize("first", [LOST, answer({"error": "Server error"}, 500), answer({}, 503)])
def test_submission_that_may_have_been_accepted_is_not_repeated(web: Web, client: AssemblyAI, first: Answer) -> None:
    web.answers = [first, queued()]
    with pytest.raises(AnswerLost):
        client.submit(SIGNED, {})
    assert len(web.requests) == 1


def test_throttled_submission_is_repeated(web: Web, client: AssemblyAI, waits: list[float]) -> None:
    web.answers = [answer({"error": "Too Many Requests"}, 429, Retry_After="9"), queued()]
    assert client.submit(SIGNED, {}).id == "t-1"
    assert len(web.requests) == 2
    assert waits[0] >= 9


def test_confirm_is_called_before_each_attempt(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({}, 429), answer({}, 429), queued()]
    sent_before: list[int] = []
    client.submit(SIGNED, {}, lambda: sent_before.append(len(web.requests)))
    assert sent_before == [0, 1, 2]


def test_error_in_confirm_prevents_the_submission(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({}, 429), queued()]
    left = [True]

    def confirm() -> None:
        if not left:
            raise DayHeld("Another run works on it.", 0)
        left.pop()

    with pytest.raises(DayHeld):
        client.submit(SIGNED, {}, confirm)
    assert len(web.requests) == 1


def test_403_without_reason_is_retried_and_the_service_probed(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({"transcripts": []})]
    client.check()
    web.respond = lambda request: answer({"error": "Forbidden"}, 403) if request.method == "POST" else answer({})
    with pytest.raises(RequestRefused, match="403: Forbidden"):
        client.submit(SIGNED, {})
    assert [request.method for request in web.requests].count("POST") == ATTEMPTS
    assert web.requests[-1].query == {"limit": "1"}


def test_all_requests_share_the_accounts_rate_limit(web: Web, client: AssemblyAI, clock: Clock) -> None:
    web.respond = lambda request: answer({"id": "t-1", "status": "queued", "transcripts": []})
    for _ in range(10):
        client.submit(SIGNED, {})
        client.transcript("t-1")
    assert sum(clock.slept) == pytest.approx(19 / SPEECH_REQUESTS_PER_S)


def test_submission_is_repeated_after_a_refused_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port is bound but refuses connections; the first wait opens it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))

        def open_up(_: float) -> None:
            listener.listen()
            threading.Thread(target=answer_once, args=(listener,), daemon=True).start()

        monkeypatch.setattr("tenacity.nap.time.sleep", open_up)
        client = AssemblyAI(KEY, f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert client.submit(SIGNED, {}).id == "t-1"


def answer_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        status, _, body = queued()
        connection.sendall(b"HTTP/1.1 %d OK\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))


@pytest.mark.parametrize("first", [LOST, answer({}, 500), (503, {}, b"")])
def test_lookup_is_repeated(web: Web, client: AssemblyAI, first: Answer) -> None:
    web.answers = [first, first, answer({"id": "t-1", "status": "completed"})]
    assert client.transcript("t-1")["status"] == "completed"


def test_service_that_stays_down_is_named(web: Web, client: AssemblyAI) -> None:
    web.respond = lambda request: (503, {}, b"")
    with pytest.raises(ServiceUnavailable, match=f"speech service at {web.url} .*503"):
        client.transcript("t-1")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            answer({"error": "Authentication error, API token missing/invalid"}, 401),
            WrongKey,
            r"does not accept the key .*password of the assemblyai connection",
        ),
        (
            answer({"error": "Your current account balance is negative. Please top up."}, 400),
            NoBalance,
            r"balance is negative.*topped up",
        ),
        (answer({"error": "Cannot access uploaded file"}, 403), RequestRefused, "403: Cannot access uploaded file"),
        (
            answer({"error": "speech model universal-3-pro is no longer supported"}, 400),
            ModelRetired,
            r"universal-3-pro.*transcription\.speech_models",
        ),
        (answer({"error": "redact_pii_audio needs redact_pii"}, 400), RequestRefused, r"pipeline file's transcription"),
        (text_answer("Upload failed:\nempty body", 422), RequestRefused, "422: Upload failed: empty body"),
        (UNKNOWN, RequestRefused, "transcript id not found"),
        (answer(["odd"], 400), RequestRefused, "status 400 without a message"),
        ((404, {}, b""), RequestRefused, "status 404 without a message"),
        (answer({"error": f"unable to download {SIGNED}"}, 400), RequestRefused, r"amazonaws\.com/a\.mp3"),
    ],
)
def test_refusal_has_a_type_and_the_services_message(
    web: Web, client: AssemblyAI, given: Answer, error: type[Exception], words: str
) -> None:
    web.answers = [given]
    with pytest.raises(error, match=words) as told:
        client.submit(SIGNED, {"speech_models": ["universal-3-pro", "universal-2"]})
    assert type(told.value) is error
    assert KEY not in str(told.value)
    assert "Signature" not in str(told.value)


CALLS: dict[str, Callable[[AssemblyAI], Any]] = {
    "check": lambda client: client.check(),
    "check_options": lambda client: client.check_options({}),
    "upload": lambda client: client.upload(lambda: iter([b"x"])),
    "submit": lambda client: client.submit(SIGNED, {}),
    "transcript": lambda client: client.transcript("t-1"),
    "vtt": lambda client: client.vtt("t-1"),
    "delete": lambda client: client.delete("t-1"),
}


@pytest.mark.parametrize("call", CALLS)
def test_wrong_key_is_an_account_error_everywhere(web: Web, client: AssemblyAI, call: str) -> None:
    web.answers = [answer({"error": "Authentication error, API token missing/invalid"}, 401)]
    with pytest.raises(AccountError):
        CALLS[call](client)


@pytest.mark.parametrize("call", [call for call in CALLS if call != "vtt"])
@pytest.mark.parametrize("page", [text_answer("<html>Sign in", kind="text/html"), answer([1, 2]), (200, {}, b"\xff")])
def test_response_of_another_server_names_the_host_setting(
    web: Web, client: AssemblyAI, call: str, page: Answer
) -> None:
    web.answers = [page]
    with pytest.raises(ServiceUnavailable, match="check the host of the assemblyai connection"):
        CALLS[call](client)


@pytest.mark.parametrize("call", CALLS)
def test_lost_answer_is_reported_without_key_or_url(web: Web, client: AssemblyAI, call: str) -> None:
    web.respond = lambda request: LOST
    with pytest.raises(ServiceUnavailable) as told:
        CALLS[call](client)
    assert KEY not in str(told.value)
    assert "Signature" not in str(told.value)


def test_captions_are_utf_8_without_a_charset_header(web: Web, client: AssemblyAI) -> None:
    web.answers = [text_answer("WEBVTT\n\n00:00.000 --> 00:01.000\nGrüß Gott “ja”", kind="text/vtt")]
    assert client.vtt("t-1").endswith("Grüß Gott “ja”")


def test_captions_of_silence_are_refused(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({"error": "This transcript has no text"}, 400)]
    with pytest.raises(RequestRefused, match="no text"):
        client.vtt("t-1")


def test_transcript_is_deleted_by_its_id(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({"id": "t-1", "status": "completed", "text": "Deleted by user."})]
    client.delete("t-1")
    assert (web.requests[0].method, web.requests[0].path) == ("DELETE", "/v2/transcript/t-1")


class Listing:
    """The list endpoint over ``ids``, newest first, and look-ups of those and of ``older`` ones."""

    def __init__(self, ids: list[str], older: list[str] | None = None, longest_page: int = 200) -> None:
        self.ids, self.older, self.longest_page = ids, older or [], longest_page

    def __call__(self, request: Request) -> Answer:
        if request.path == "/v2/transcript":
            if request.query.get("before_id", self.ids[0]) not in self.ids:
                return UNKNOWN
            start = self.ids.index(request.query["before_id"]) + 1 if "before_id" in request.query else 0
            end = start + min(int(request.query["limit"]), self.longest_page)
            details = {"prev_url": "…" if end < len(self.ids) else None}
            return answer({"page_details": details, "transcripts": [self.job(one) for one in self.ids[start:end]]})
        one = request.path.rsplit("/", 1)[-1]
        return answer(self.job(one)) if one in self.ids + self.older else UNKNOWN

    @staticmethod
    def job(one: str) -> dict[str, Any]:
        return {"id": one, "status": "completed", "error": ""}


def numbered(count: int, name: str = "t") -> list[str]:
    return [f"{name}-{number}" for number in range(count)]


@pytest.mark.parametrize(("count", "requests"), [(1, 1), (2, 1), (200, 1), (201, 2), (450, 3)])
def test_one_request_lists_two_hundred_jobs(web: Web, client: AssemblyAI, count: int, requests: int) -> None:
    ids = numbered(count)
    web.respond = Listing(ids)
    assert client.jobs(ids).keys() == set(ids)
    assert len(web.requests) == requests


def test_short_pages_are_followed_to_the_last(web: Web, client: AssemblyAI) -> None:
    web.respond = Listing(numbered(20), longest_page=7)
    assert [job.id for job in client.jobs_since(dt.datetime(2026, 11, 20, tzinfo=dt.UTC))] == numbered(20)
    assert len(web.requests) == 3


def test_jobs_that_are_not_listed_are_looked_up_one_by_one(web: Web, client: AssemblyAI) -> None:
    web.respond = Listing(numbered(600, "other"), older=["t-1", "t-2"])
    jobs = client.jobs(["t-1", "t-2"])
    assert {job.id: job.status for job in jobs.values()} == {"t-1": "completed", "t-2": "completed"}
    assert [request.path for request in web.requests].count("/v2/transcript") == 2


@pytest.mark.parametrize(("first", "requests"), [(0, 1), (150, 2), (300, 3), (500, 3)])
def test_older_jobs_are_listed_from_the_newest_of_them(web: Web, client: AssemblyAI, first: int, requests: int) -> None:
    web.respond = Listing(numbered(600))
    ours = numbered(600)[first : first + 100]
    assert client.jobs(ours[::-1]).keys() == set(ours)
    assert len(web.requests) == requests


def test_server_without_a_list_endpoint_is_asked_one_by_one(web: Web, client: AssemblyAI) -> None:
    listing = Listing(numbered(3))
    web.respond = lambda request: (404, {}, b"") if request.path == "/v2/transcript" else listing(request)
    assert client.jobs(numbered(3)).keys() == set(numbered(3))


def test_no_jobs_need_no_request(web: Web, client: AssemblyAI) -> None:
    assert client.jobs([]) == {}
    assert web.requests == []


def test_unknown_job_has_ended_and_does_not_affect_others(web: Web, client: AssemblyAI) -> None:
    web.respond = Listing(["t-1"])
    jobs = client.jobs(["t-1", "deleted"])
    assert jobs["t-1"].status == "completed"
    assert (jobs["deleted"].status, jobs["deleted"].ended) == ("error", True)
    assert "transcript id not found" in str(jobs["deleted"].error)


def test_job_whose_lookup_is_refused_has_not_ended(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({"error": "This transcript is being moved"}, 403)]
    with pytest.raises(ServiceUnavailable, match="403: This transcript is being moved"):
        client.jobs(["t-1"])


def dated(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Items of the list, one a minute, newest first."""
    newest = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
    return [
        {
            "id": f"t-{number}",
            "status": "completed",
            "audio_url": SIGNED,
            "created": (newest - dt.timedelta(minutes=number)).isoformat().replace("+00:00", "Z"),
        }
        for number in range(start, start + count)
    ]


def test_jobs_are_listed_back_to_a_time_and_no_further(web: Web, client: AssemblyAI) -> None:
    older = {"page_details": {"prev_url": "…"}}
    web.answers = [answer({**older, "transcripts": dated(200, start)}) for start in (0, 200, 400)]
    jobs = list(client.jobs_since(dt.datetime(2026, 11, 20, 8, tzinfo=dt.UTC)))
    assert len(jobs) == 400
    assert [request.query.get("before_id") for request in web.requests] == [None, "t-199"]


def test_listed_job_has_its_time_and_its_url_without_query(web: Web, client: AssemblyAI) -> None:
    web.answers = [answer({"transcripts": [*dated(1), {"id": "t-1", "status": "queued", "created": "yesterday"}]})]
    first, second = client.jobs_since(dt.datetime(2026, 11, 20, 8, tzinfo=dt.UTC))
    assert (first.audio_url, first.created) == (SIGNED.split("?")[0], dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC))
    assert (second.audio_url, second.created) == ("", None)


@pytest.mark.parametrize(
    ("status", "ended"), [("queued", False), ("processing", False), ("completed", True), ("error", True)]
)
def test_ended_follows_from_the_status(web: Web, client: AssemblyAI, status: str, ended: bool) -> None:
    web.answers = [answer({"id": "t-1", "status": status})]
    assert client.jobs(["t-1"])["t-1"].ended is ended
