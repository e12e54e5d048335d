"""What the core talks to, on this machine: a scriptable HTTP server, buckets, a speech service, a model gateway."""

from __future__ import annotations

import copy
import datetime as dt
import http.server
import json
import threading
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any

import requests

from callphases.cues import Cue
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.events import UNSTAMPED, Event, serialize, stamped
from callphases.state.lease import Lease
from callphases.state.ledger import Ledger, LedgerView, read_ledger_day
from callphases.state.manifests import Manifest
from callphases.state.storage import ObjectPrefix

KEY = "secret-key-1234"
DAY = dt.date(2026, 11, 20)
NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)

LONG_AGO, NEXT_RUN = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2000, 3000))


@dataclass
class Clock:
    """Time that passes only where someone sleeps, or where a test says so: what the core has in place of ``time``.

    ``slept`` keeps how long was slept each time; ``asleep`` is called with it, before the clock goes on. Who sleeps on
    and on is told so.
    """

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)
    asleep: Callable[[float], object] = lambda seconds: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        assert len(self.slept) < 5000, "it never wakes"
        self.asleep(seconds)
        with self._lock:
            self.now += seconds


class OneThread:
    """In place of a pool: what is handed in is done at once, one after the other."""

    def __init__(self, *_: object, **__: object) -> None:
        self.map = map

    def __enter__(self) -> OneThread:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments))
        except BaseException as error:
            future.set_exception(error)
        return future


Answer = tuple[int, dict[str, str], bytes]
LOST: Answer = (0, {}, b"")
"""The request is read, and the connection closed without an answer."""


def answer(document: object, status: int = 200, **headers: str) -> Answer:
    """An answer of JSON; ``Retry_After`` becomes the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"content-type": "application/json", **named}, json.dumps(document).encode()


def text_answer(text: str, status: int = 200, kind: str = "text/plain") -> Answer:
    return status, {"content-type": kind}, text.encode()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Web:
    """A server on 127.0.0.1: keeps every request, answers from a list, or from a function of the request.

    An answer whose content-length is longer than its body is cut: the connection closes after the body. A header
    without a value is not sent.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    respond: Callable[[Request], Answer] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            if self.respond is not None:
                return self.respond(request)
            return self.answers.pop(0) if self.answers else text_answer("no answer is left in the script", 418)


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one(self) -> None:
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            parameters = dict(urllib.parse.parse_qsl(query))
            status, fields, body = web.take(Request(self.command, path, parameters, headers, self._body()))
            if status == 0:
                self.close_connection = True
                return
            self.send_response_only(status)
            for name, value in {"content-length": str(len(body)), "date": self.date_time_string(), **fields}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = int(fields.get("content-length", len(body))) > len(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815 - the names that http.server looks for

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            pieces = []
            while size := int(self.rfile.readline() or b"0", 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads, block_on_close = True, False

        def handle_error(self, *_: object) -> None:
            """A client that hangs up half way is a case under test, not news."""

    server = Server(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    yield web
    server.shutdown()
    server.server_close()
    thread.join()


def merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(document)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def pipeline(**changes: Any) -> Pipeline:
    """A pipeline of the four required keys, with ``changes`` merged in."""
    document = {
        "pipeline": "support",
        "recordings": {"bucket": "recordings", "prefix": "calls/{date:%Y-%m-%d}/"},
        "output": {"tables": "s3://warehouse/tables/", "state": "s3://warehouse/state/"},
    }
    return Pipeline.model_validate(merged(document, changes))


def recording(key: str = "calls/a.mp3", **changes: Any) -> Recording:
    values = {"bucket": "recordings", "etag": "e1", "size": 1000, "call_time": NOON}
    return Recording(key=key, **{**values, **changes})


def cue(number: int, start_s: float, end_s: float, text: str = "one two", speaker: str | None = "A") -> Cue:
    return Cue(number, start_s, end_s, speaker, text)


@dataclass
class Store:
    """Two empty buckets. ``listed`` keeps the prefixes of LIST requests; ``written`` overrides LastModified of keys.

    ``clock`` is the store's own: what it says of the age of an object that ``client`` has written. ``asked`` keeps the
    operations that were asked for, with their keys.
    """

    client: Any
    url: str
    recordings: str
    warehouse: str
    clock: Clock = field(default_factory=Clock)
    listed: list[str] = field(default_factory=list)
    written: dict[str, dt.datetime] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    _put_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client.create_bucket(Bucket=self.recordings)
        self.client.create_bucket(Bucket=self.warehouse)
        events = self.client.meta.events
        events.register(
            "provide-client-params.s3.ListObjectsV2", lambda params, **_: self.listed.append(params["Prefix"])
        )
        events.register("after-call.s3.ListObjectsV2", self._date)
        events.register("provide-client-params.s3", self._ask)
        events.register("after-call.s3.PutObject", self._put)
        events.register("after-call.s3.GetObject", self._age)

    def _date(self, parsed: dict[str, Any], **_: object) -> None:
        for item in parsed.get("Contents", []):
            item["LastModified"] = self.written.get(item["Key"], item["LastModified"])

    def _ask(self, params: dict[str, Any], model: Any, context: dict[str, Any], **_: object) -> None:
        context["key"] = params.get("Key", params.get("Prefix", ""))
        if not context.get("is_presign_request"):
            self.asked.append((model.name, context["key"]))

    def _put(self, parsed: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        if "ETag" in parsed:
            self._put_at[context["key"]] = self.clock.now

    def _age(self, parsed: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        if "LastModified" in parsed and context["key"] in self._put_at:
            parsed["LastModified"] = NOON + dt.timedelta(seconds=int(self._put_at[context["key"]]))
            now = NOON + dt.timedelta(seconds=int(self.clock.now))
            parsed["ResponseMetadata"]["HTTPHeaders"]["date"] = format_datetime(now)

    def put(self, key: str, body: bytes = b"RIFF") -> Recording:
        """Put a recording, and return it as the listing of its day does."""
        etag = self.client.put_object(Bucket=self.recordings, Key=key, Body=body)["ETag"].strip('"')
        return recording(key, bucket=self.recordings, etag=etag, size=len(body))

    def keys(self, prefix: str = "") -> list[str]:
        page = self.client.list_objects_v2(Bucket=self.warehouse, Prefix=prefix)
        return [item["Key"] for item in page.get("Contents", [])]

    def bytes_of(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.warehouse, Key=key)["Body"].read()

    @property
    def state(self) -> ObjectPrefix:
        return ObjectPrefix(self.client, f"s3://{self.warehouse}/state/", "output.state")

    @property
    def tables(self) -> ObjectPrefix:
        return ObjectPrefix(self.client, f"s3://{self.warehouse}/tables/", "output.tables")

    def lease(self, run_token: str = "run-1", task: str | None = "chunk-0000", day: dt.date = DAY) -> Lease:
        """A lease of the day, for a task of a run; not taken."""
        return Lease(self.state, day, run_token, task)

    def ledger(self, run_id: str = "run-1", task: str = "chunk-0000", day: dt.date = DAY, **known: Any) -> Ledger:
        """The ledger as a task of a run opens it, which has the day from then on."""
        return Ledger.open(self.state, self.lease(run_id, task, day), run_id, task, **known)

    def knows(
        self,
        *events: Event,
        day: dt.date = DAY,
        at: dt.datetime | None = None,
        fencing_token: int = 1,
        run_id: str = "run-0",
    ) -> None:
        """Let the day's ledger hold what an earlier run has written."""
        moment = at or dt.datetime.now(dt.UTC)
        body = serialize(
            event if event.at is not UNSTAMPED else stamped(event, moment, fencing_token, run_id) for event in events
        )
        self.state.put(layout.ledger_segment(day, f"run-0-{uuid.uuid4().hex[:8]}", "chunk-0000"), body)

    def known(self, day: dt.date = DAY) -> LedgerView:
        """What the ledger of a day holds now, whoever may write to it."""
        return read_ledger_day(self.state, day)

    def counted(self) -> Counter[str]:
        """How often each operation was asked for."""
        return Counter(operation for operation, _ in self.asked)

    @property
    def ledger_writes(self) -> int:
        """How often an object of the ledger was written, leases among them."""
        return sum(operation == "PutObject" and "/ledger/" in f"/{key}" for operation, key in self.asked)

    def pipeline(self, **changes: Any) -> Pipeline:
        ours = {
            "recordings": {"bucket": self.recordings},
            "output": {"tables": self.tables.uri, "state": self.state.uri},
            "limits": {"llm_requests_per_minute": 6000},  # a test waits for no minute to pass
        }
        return pipeline(**merged(ours, changes))


def manifest(*recordings: Recording, **changes: Any) -> Manifest:
    """A chunk of a run that began long ago."""
    values = {
        "name": "chunk-0000",
        "day": DAY,
        "run_id": "run-1",
        "run_token": "run-1",
        "fencing_token": 0,
        "listed_at": LONG_AGO,
    }
    return Manifest(recordings=list(recordings), **{**values, **changes})


VTT = "WEBVTT\n\n00:00.500 --> 00:02.000\nThank you for calling.\n\n00:02.500 --> 00:05.000\nMy invoice is wrong.\n"
WORDS = [
    {"text": "Thank", "start": 500, "end": 2000, "speaker": "A"},
    {"text": "My", "start": 2500, "end": 5000, "speaker": "B"},
]


@dataclass
class Speech:
    """A speech service that fetches what it is sent, and ends every job with the same transcript.

    ``ending`` overrides fields of all transcripts, ``endings`` those of single ones. ``refuse`` answers requests before
    the service does. ``clock`` is how far the service's clock is ahead.
    """

    web: Web
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)
    clock: dt.timedelta = dt.timedelta(0)
    taken: int = 0
    status: str = "completed"
    ending: dict[str, Any] = field(default_factory=dict)
    endings: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuse: Callable[[Request], Answer | None] = lambda request: None

    def __post_init__(self) -> None:
        self.web.respond = self.respond

    def asked(self, method: str, path: str) -> list[Request]:
        return [request for request in self.web.requests if (request.method, request.path) == (method, path)]

    @property
    def submitted(self) -> list[dict[str, Any]]:
        """What was asked to be transcribed, in order: what is paid for."""
        return [request.json for request in self.asked("POST", "/v2/transcript")]

    def respond(self, request: Request) -> Answer:
        if (refusal := self.refuse(request)) is not None:
            return refusal
        match request.method, request.path.split("/")[2:]:
            case "POST", ["upload"]:
                url = f"https://cdn.example/upload/{len(self.uploads)}"
                self.uploads[url] = request.body
                return answer({"upload_url": url})
            case "POST", ["transcript"]:
                return answer(self.take(request.json))
            case "GET", ["transcript"]:
                newest_first = [self.document(one) for one in reversed(self.jobs)]
                return answer({"page_details": {"prev_url": None}, "transcripts": newest_first})
            case "GET", ["transcript", one, "vtt"]:
                return text_answer(VTT, kind="text/vtt")
            case "GET", ["transcript", one] if one in self.jobs:
                return answer({**self.jobs[one], **self.document(one)})
            case "DELETE", ["transcript", one] if one in self.jobs:
                del self.jobs[one]
                return answer({"id": one, "status": "completed", "text": "Deleted by user."})
        return answer({"error": "Transcript lookup error, transcript id not found"}, 400)

    def take(self, document: dict[str, Any]) -> dict[str, Any]:
        """Start a job, whether or not anyone gets to know its id."""
        self.taken += 1
        one, url = f"t-{self.taken}", document["audio_url"]
        self.heard.append(self.uploads[url] if url in self.uploads else requests.get(url, timeout=10).content)
        created = f"{dt.datetime.now(dt.UTC) + self.clock:%Y-%m-%dT%H:%M:%S.%fZ}"
        self.jobs[one] = {**document, "created": created}
        return {"id": one, "status": "queued", "audio_url": url}

    def document(self, one: str) -> dict[str, Any]:
        done = {
            "text": "Thank you for calling. My invoice is wrong.",
            "words": WORDS,
            "audio_duration": 6,
            "language_code": "en",
            "speech_model_used": "assemblyai-stt-3-7",
        }
        job = self.jobs[one]
        head = {"id": one, "status": self.status, "error": "", "audio_url": job["audio_url"], "created": job["created"]}
        return head | (done if self.status == "completed" else {}) | self.ending | self.endings.get(one, {})


def chat_answer(content: object, finish_reason: str = "end_turn", tokens: tuple[int, int] = (100, 20)) -> Answer:
    """A completion; ``content`` is text, or what the text is the JSON of."""
    text = content if isinstance(content, str) else json.dumps(content)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return answer({"choices": [choice], "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]}})


def phases_answer(*phases: tuple[str, int], **more: Any) -> Answer:
    """A completion that divides one call: names, and the cues that they start at."""
    parts = [{"name": name, "start_cue": start_cue, "summary": f"{name}."} for name, start_cue in phases]
    return chat_answer({"calls": [{"call": 1, "phases": parts}]}, **more)
