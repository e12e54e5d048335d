"""Whole nights by ``dag.test()`` of 300 recordings, of which 60 are faulty, or are met by a fault of a service.

Two proxies stand between the Dag and its servers: one answers for S3 where an object can't be read, one changes what
the speech service and the gateway answer about some recordings.
"""

from __future__ import annotations

import io
import json
import struct
import urllib.parse
import wave
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import requests

from doubles import Answer, Request, Web, answer, serving
from night import GUARDED_WORDS, LONG_WORDS, Night

pytestmark = pytest.mark.integration

DAY = "2026-11-20"
EACH = 6
"""Recordings with each kind of fault."""
SOUND = 240
CAP_USD = 2.5
LENGTH_S = 12
EXPECTED = {
    "sound": {"completed"},
    "drafted": {"completed"},
    "short-header": {"completed"},
    "archived": {"archived"},
    "locked": {"access_denied"},
    "gone": {"recording_gone"},
    "wordless": {"no_speech"},
    "option": {"request_refused"},
    "undocumented": {"provider_error"},
    "guarded": {"model_refused"},
    "endless": {"request_refused", "answer_cut"},
}
FAULTY = [kind for kind in EXPECTED if kind not in ("sound", "drafted")]
WORDS = {
    "archived": "GLACIER",
    "locked": "kms",
    "option": "speaker_labels",
    "undocumented": "audio_duration",
    "endless": "context too long for this deployment",
}
"""What the message of such a row has to name, besides what to change."""


def wav(seconds: float, stated_s: float | None = None) -> bytes:
    """A recording, whose header may state another length."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(1)
        writer.setframerate(8000)
        writer.writeframes(b"\x80" * round(seconds * 8000))
    body = bytearray(file.getvalue())
    if stated_s is not None:
        struct.pack_into("<I", body, 40, round(stated_s * 8000))
    return bytes(body)


def forwarding(upstream: str) -> Callable[[Request], Answer]:
    session = requests.Session()

    def forward(request: Request) -> Answer:
        url = upstream + request.path + (f"?{urllib.parse.urlencode(request.query)}" if request.query else "")
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        response = session.request(request.method, url, data=request.body, headers=headers, timeout=60)
        dropped = ("content-length", "transfer-encoding", "content-encoding", "connection", "server")
        kept = {name.lower(): value for name, value in response.headers.items() if name.lower() not in dropped}
        return response.status_code, kept, response.content

    return forward


def s3_error(status: int, code: str, message: str) -> Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return status, {"content-type": "application/xml"}, body.encode()


def unreadable(forward: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    """S3 where some objects of the recordings' bucket can be listed and not read."""

    def respond(request: Request) -> Answer:
        if request.method in ("GET", "HEAD") and "/recordings/" in request.path:
            if "/locked-" in request.path:
                why = "User is not authorized to perform: kms:Decrypt on the resource associated with this ciphertext"
                return s3_error(403, "AccessDenied", why)
            if "/gone-" in request.path:
                return s3_error(404, "NoSuchKey", "The specified key does not exist.")
            if "/archived-" in request.path:
                why = "The operation is not valid for the object's storage class"
                return s3_error(403, "InvalidObjectState", why)
        return forward(request)

    return respond


class Awkward:
    """The services' answers, changed where a recording's name or a call's words say so."""

    def __init__(self, forward: Callable[[Request], Answer]) -> None:
        self._forward = forward
        self._undocumented = set[str]()
        self.questions = 0

    def respond(self, request: Request) -> Answer:
        if (request.method, request.path) == ("POST", "/v2/transcript"):
            return self._submission(request)
        if request.path == "/v1/chat/completions" and request.json["messages"]:
            return self._completion(request)
        found = self._forward(request)
        if request.path.rpartition("/")[2] in self._undocumented and request.method == "GET":
            document = json.loads(found[2])
            if document["status"] == "completed":
                return answer({**document, "audio_duration": "unknown"})
        return found

    def _submission(self, request: Request) -> Answer:
        if "/option-" in str(request.json.get("audio_url")):
            why = "The following models are not available in this language: speaker_labels"
            return answer({"error": why}, 400)
        found = self._forward(request)
        if "/undocumented-" in str(request.json.get("audio_url")):
            self._undocumented.add(json.loads(found[2])["id"])
        return found

    def _completion(self, request: Request) -> Answer:
        self.questions += 1
        question = request.json["messages"][-1]["content"]
        if LONG_WORDS in question:
            return answer({"detail": "context too long for this deployment"}, 400)
        if GUARDED_WORDS in question:
            usage = {"prompt_tokens": 10, "completion_tokens": 0}
            choice = {"finish_reason": "guardrail_intervened", "message": {"role": "assistant", "content": None}}
            return answer({"choices": [choice], "usage": usage})
        status, _, body = self._forward(request)
        document = json.loads(body)
        message = document["choices"][0]["message"]
        draft = '{"calls": [{"call": 1, "phases": [{"name": "Goodbye", "start_cue": 1, "summary": "A draft."}]}]}'
        match self.questions % 3:
            case 0:
                message["content"] = f"<think>Say {draft}, or rather not.</think>\n{message['content']}"
            case 1:
                blocks = [{"type": "thinking", "thinking": draft}, {"type": "text", "text": message["content"]}]
                message["content"] = blocks
        return answer(document, status)


@pytest.fixture
def servers() -> Iterator[tuple[Web, Web]]:
    with serving() as s3, serving() as services:
        yield s3, services


@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_night_with_sixty_faulty_recordings(
    night: Night, servers: tuple[Web, Web], send: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, services = servers
    s3.respond = unreadable(forwarding(night.s3_url))
    awkward = Awkward(forwarding(night.box.url))
    services.respond = awkward.respond
    night.s3_url = s3.url
    night.connect(services.url)
    night.pipeline(
        recordings={"send": send},
        limits={"ramp": False, "max_failed_ratio": 0.2},
        budget={"usd_per_run": CAP_USD},
    )
    names = [f"sound-{number:03}.wav" for number in range(SOUND)]
    names += [f"{kind}-{number}.wav" for kind in (*FAULTY, "drafted") for number in range(EACH)]
    for name in names:
        body = wav(LENGTH_S, stated_s=0.02 if name.startswith("short-header") else None)
        storage = "GLACIER" if name.startswith("archived") else "STANDARD"
        night.s3.put_object(Bucket="recordings", Key=f"calls/{DAY}/{name}", Body=body, StorageClass=storage)
    assert len(names) == 300
    assert night.run(DAY) == "success"
    rows = {row["recording_uri"].rpartition("/")[2]: row for row in night.table("calls", DAY)}
    assert set(rows) == set(names)
    wrong = {
        name: (row["status"], row["failure_class"], row["failure_message"])
        for name, row in rows.items()
        if (row["failure_class"] or row["status"]) not in EXPECTED[name.rpartition("-")[0]]
    }
    assert wrong == {}
    for name, row in rows.items():
        kind = name.rpartition("-")[0]
        if row["status"] == "failed":
            assert WORDS.get(kind, "").lower() in row["failure_message"].lower()
            assert ". " in row["failure_message"], "what happened, and then what to change"
    payments = night.paid()
    assert set(payments.values()) == {1}
    unsent = {name.rpartition("-")[0] for name in names if name not in payments}
    assert unsent >= {"archived", "locked", "gone", "option"}
    assert sum((row["speech_usd"] or 0) + (row["llm_usd"] or 0) for row in rows.values()) <= CAP_USD
    phases = Counter(row["recording_uri"].rpartition("/")[2] for row in night.table("phases", DAY))
    assert set(phases) == {name for name, row in rows.items() if row["status"] == "completed"}
    assert "A draft." not in {row["summary"] for row in night.table("phases", DAY)}

    before = night.paid()
    assert night.run(DAY) == "success"
    assert night.paid() == before, "a second run of the day pays for nothing that was done"
