"""Documents that are not as documented: one failed row that names the field, and never another error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callphases.errors import CallphasesError, ProviderError
from callphases.state.events import Failed, Transcribed
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.documents import JobDocument, TranscriptDocument, parsed
from doubles import KEY, NOON, Answer, Request, Speech, Store, Web, answer
from transcribing import SUBMISSION, Runner, collect

pytestmark = pytest.mark.integration


@pytest.fixture
def runner(s3: Store, speech: Speech) -> Runner:
    return Runner(s3, speech)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"audio_duration": "unknown"}, "audio_duration"),
        ({"audio_duration": -1}, "audio_duration"),
        ({"audio_duration": [6]}, "audio_duration"),
        ({"audio_duration": 1e12}, "audio_duration"),
        ({"text": ["Thank", "you"]}, "text"),
        ({"text": {"en": "Thank you"}}, "text"),
        ({"words": "Thank you"}, "words"),
        ({"words": {"0": "Thank"}}, "words"),
    ],
)
def test_transcript_that_cannot_be_read_is_one_row_that_names_the_field(
    runner: Runner, change: dict[str, Any], field: str
) -> None:
    bad, good = (runner.s3.put(f"calls/{name}.mp3") for name in "ab")
    run = runner.submit(bad, good)
    runner.speech.endings = {str(runner.job(bad)): change}
    assert collect(run) == 0
    failure = runner.failure(bad)
    assert (failure.failure_class, failure.paid, failure.permanent) == ("provider_error", True, False)
    assert field in failure.failure_message
    assert "Thank" not in failure.failure_message
    assert isinstance(runner.event(good), Transcribed)


@pytest.mark.parametrize(
    "change",
    [
        {"audio_duration": None},
        {"audio_duration": "6"},
        {"audio_duration": 6.4},
        {"language_code": ["en"]},
        {"speech_model_used": None, "speech_model": 3},
        {"metadata": []},
        {"metadata": {"warnings": "all"}},
        {"metadata": {"warnings": [None, "odd", {"message": 3}, {"text": "x"}]}},
        {"created": "yesterday", "completed": 7},
        {"words": [None, 3, {"text": None}, {"text": "My", "start": "x", "end": {}}]},
        {"words": [{"text": "Thank you for calling. My invoice is wrong.", "start": 0, "end": 10**30}]},
        {"words": [{"text": "Thank you for calling. My invoice is wrong.", "start": 0, "end": 9, "channel": {}}]},
        {"utterances": 7, "confidence": "high", "id": 17},
    ],
)
def test_fields_that_can_be_done_without_do_not_fail_the_call(runner: Runner, change: dict[str, Any]) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.ending = change
    run = runner.submit(recording)
    if "id" not in change:
        assert collect(run) == 0
        assert runner.transcribed(recording).status == "completed"
        assert 0 <= runner.transcribed(recording).audio_s < 10


@pytest.mark.parametrize("change", [{"status": None}, {"status": "done"}, {"status": 3}, {"id": None}])
def test_job_that_cannot_be_followed_is_one_row_and_is_looked_at_again(runner: Runner, change: dict[str, Any]) -> None:
    bad, good = (runner.s3.put(f"calls/{name}.mp3") for name in "ab")
    run = runner.submit(bad, good)
    runner.speech.endings = {str(runner.job(bad)): change}
    assert collect(run) == 0
    assert runner.failure(bad).failure_class == "provider_error"
    assert next(iter(change)) in runner.failure(bad).failure_message
    assert isinstance(runner.event(good), Transcribed)
    runner.speech.endings = {}
    runner.transcribe(bad, good, run_id="run-2", since=NOON.replace(year=3000))
    assert isinstance(runner.event(bad), Transcribed)
    assert len(runner.speech.submitted) == 2, "what is paid for is fetched, not submitted again"


@pytest.mark.parametrize("document", [{}, {"id": None}, {"id": ""}, {"id": {"a": 1}}, [], "queued", None])
def test_submission_that_is_answered_without_an_id_is_found_at_the_provider(runner: Runner, document: Any) -> None:
    recording = runner.s3.put("calls/a.mp3")
    waiting = [document]

    def without_id(request: Request) -> Answer | None:
        if (request.method, request.path) != SUBMISSION or not waiting:
            return None
        runner.speech.take(request.json)
        return answer(waiting.pop())

    runner.speech.refuse = without_id
    runner.transcribe(recording)
    assert len(runner.speech.submitted) == 1
    assert isinstance(runner.event(recording), Transcribed)


def test_submission_without_an_id_that_is_not_found_is_one_row_and_not_sent_again(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callphases.transcription.transcriber.LOST_PAUSES_S", (0.01, 0.02))
    bad, good = (runner.s3.put(f"calls/{name}.mp3") for name in "ab")

    def without_id(request: Request) -> Answer | None:
        if (request.method, request.path) == SUBMISSION and "/a.mp3" in request.json["audio_url"]:
            return answer({"status": "queued"})
        return None

    runner.speech.refuse = without_id
    run = runner.submit(bad, good)
    assert collect(run) == 0
    assert runner.failure(bad).failure_class == "provider_error"
    assert "id" in runner.failure(bad).failure_message
    assert isinstance(runner.event(good), Transcribed)
    assert len(runner.speech.submitted) == 2


def test_error_in_an_answer_of_200_is_a_refusal_with_the_services_words(web: Web) -> None:
    web.answers = [answer({"error": "audio_end_at must be larger than audio_start_from"})]
    with pytest.raises(CallphasesError, match="audio_end_at must be larger"):
        AssemblyAI(KEY, web.url).submit("https://a/b.mp3", {})


def test_junk_on_the_list_does_not_hide_other_jobs(web: Web) -> None:
    good = {"id": "t-1", "status": "completed", "audio_url": "https://a/b.mp3"}
    junk: list[Any] = [None, 7, "t-2", [], {}, {"id": None}, {"id": "t-3"}, {"id": "t-4", "status": 5}]
    web.answers = [answer({"page_details": None, "transcripts": [*junk, good, *junk]})]
    assert [job.id for job in AssemblyAI(KEY, web.url).jobs_since(NOON)] == ["t-1"]


def test_list_that_repeats_itself_ends(web: Web) -> None:
    page = {"page_details": {"prev_url": "…"}, "transcripts": [{"id": "t-1", "status": "queued"}]}
    web.respond = lambda request: answer(page)
    assert len(list(AssemblyAI(KEY, web.url).jobs_since(NOON))) == 2


def test_what_a_document_holds_is_in_no_message() -> None:
    with pytest.raises(ProviderError) as raised:
        parsed(TranscriptDocument, {"text": 5, "audio_duration": "my secret", "words": "my secret"}, "transcript")
    assert "secret" not in str(raised.value)
    assert "audio_duration" in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_NAMES = """
    id status error audio_url created completed text words audio_duration language_code speech_model_used metadata
    transcripts page_details upload_url
"""
KNOWN = dict.fromkeys(_NAMES.split(), JSON)
DOCUMENTS = JSON | st.fixed_dictionaries({}, optional=KNOWN)
BODIES = st.binary(max_size=60) | DOCUMENTS.map(lambda document: json.dumps(document).encode("utf-8", "replace"))
NAMED = ("submit", "upload", "transcript", "jobs", "jobs_since", "vtt", "delete", "check")


@given(
    body=BODIES, status=st.sampled_from([200, 200, 200, 201, 204, 400, 402, 403, 404, 422]), call=st.sampled_from(NAMED)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_answer_is_read_or_a_named_error(web: Web, body: bytes, status: int, call: str) -> None:
    web.respond = lambda request: (status, {"content-type": "application/json"}, b"" if status == 204 else body)
    client = AssemblyAI(KEY, web.url)
    with contextlib.suppress(CallphasesError):
        match call:
            case "submit":
                client.submit("https://a/b.mp3", {"speech_models": ["universal-2"], "speaker_labels": True})
            case "upload":
                client.upload(lambda: iter([b"x"]))
            case "jobs":
                client.jobs(["t-1", "t-2"])
            case "jobs_since":
                list(client.jobs_since(NOON))
            case "check":
                client.check()
            case "transcript":
                parsed(TranscriptDocument, client.transcript("t-1"), "transcript")
            case name:
                getattr(client, name)("t-1")


@given(DOCUMENTS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_document_is_read_or_named(document: Any) -> None:
    for model in (JobDocument, TranscriptDocument):
        with contextlib.suppress(ProviderError):
            parsed(model, document, "document")


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"audio_duration": ' + b"9" * 5000 + b"}", b'{"id": NaN}', b"\xff\xfe{", b"\0"]
)
def test_documents_beyond_what_python_reads_are_named_errors(web: Web, body: bytes) -> None:
    web.respond = lambda request: (200, {"content-type": "application/json"}, body)
    client = AssemblyAI(KEY, web.url)
    with pytest.raises(CallphasesError):
        client.submit("https://a/b.mp3", {})
    with contextlib.suppress(CallphasesError):
        parsed(TranscriptDocument, client.transcript("t-1"), "transcript")


def test_call_in_which_nobody_speaks_is_no_failure(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    run = runner.submit(recording)
    said = "language_detection cannot be performed on files with no spoken audio."
    runner.speech.ending = {"status": "error", "error": said, "text": None, "words": None, "audio_duration": 8}
    assert collect(run) == 0
    event = runner.transcribed(recording)
    assert (event.status, event.speech_usd, event.audio_s) == ("no_speech", 0.0, 8)
    assert not any(isinstance(one, Failed) for one in runner.s3.known().all())
