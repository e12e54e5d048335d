"""Validates all responses against the vendor's OpenAPI document, whose path is in ASSEMBLYAI_OPENAPI."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

DOCUMENT = os.environ.get("ASSEMBLYAI_OPENAPI")
URL = "https://recordings.example/a.wav"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not DOCUMENT, reason="ASSEMBLYAI_OPENAPI names no OpenAPI document"),
]

Validate = Callable[[str, Any], None]


@pytest.fixture(scope="module")
def validate() -> Validate:
    """A function that validates a JSON document against the schema of a component."""
    assert DOCUMENT
    components = yaml.safe_load(Path(DOCUMENT).read_text())["components"]

    def check(name: str, instance: Any) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(instance)

    return check


def test_validator_rejects_wrong_documents(validate: Validate) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate("UploadedFile", {"upload_url": 5})
    with pytest.raises(jsonschema.ValidationError):
        validate("UploadedFile", {"upload_url": "http://host", "more": 1})


OPTIONS: list[dict[str, Any]] = [
    {},
    {"speaker_labels": True, "speakers_expected": 2, "speech_models": ["universal-3-pro"]},
    {"multichannel": True, "speech_models": ["universal-2"]},
    {"multichannel": True, "speaker_labels": True, "language_code": "en_uk"},
    {"language_detection": True, "language_confidence_threshold": 0.4, "language_detection_options": {}},
    {"redact_pii": True, "redact_pii_audio": True, "redact_pii_policies": ["person_name"], "redact_pii_sub": "hash"},
    {
        "webhook_url": "http://127.0.0.1:9/hook",
        "webhook_auth_header_name": "X-Token",
        "webhook_auth_header_value": "secret",
    },
    {
        "audio_start_from": 10,
        "audio_end_at": 9000,
        "auto_chapters": True,
        "auto_highlights": True,
        "content_safety": True,
        "custom_spelling": [{"from": ["cs"], "to": "CS"}],
        "disfluencies": True,
        "domain": "medical-v1",
        "entity_detection": True,
        "filter_profanity": True,
        "format_text": True,
        "iab_categories": True,
        "keyterms_prompt": ["invoice"],
        "language_codes": ["en", "es"],
        "prompt": "A call.",
        "punctuate": True,
        "remove_audio_tags": "all",
        "sentiment_analysis": True,
        "speech_threshold": 0.1,
        "summarization": True,
        "summary_model": "informative",
        "summary_type": "bullets",
        "temperature": 0.1,
        "topics": [],
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options)[:40])
def test_transcripts_match_the_schema(scripted, validate: Validate, options: dict[str, Any]) -> None:
    queued = scripted.submit(URL, **options)
    validate("Transcript", queued)
    completed = scripted.wait(queued["id"])
    assert completed["status"] == "completed"
    validate("Transcript", completed)


def test_processing_failed_and_silent_transcripts_match_the_schema(scripted, validate: Validate) -> None:
    slow = scripted.submit("https://recordings.example/slow.wav")
    while (processing := scripted.get(f"/v2/transcript/{slow['id']}").json())["status"] == "queued":
        pass
    validate("Transcript", processing)
    validate("Transcript", scripted.transcribe("https://recordings.example/broken.wav"))
    validate("Transcript", scripted.transcribe("https://recordings.example/silent.wav", speaker_labels=True))


def test_exports_match_the_schema(scripted, validate: Validate) -> None:
    path = f"/v2/transcript/{scripted.transcribe(URL, multichannel=True)['id']}"
    validate("SentencesResponse", scripted.get(f"{path}/sentences").json())
    validate("ParagraphsResponse", scripted.get(f"{path}/paragraphs").json())
    validate("WordSearchResponse", scripted.get(f"{path}/word-search?words=you,charged twice").json())


def test_upload_matches_the_schema(scripted, validate: Validate) -> None:
    validate("UploadedFile", scripted.post("/v2/upload", data=b"audio").json())


def test_lists_and_deleted_transcripts_match_the_schema(scripted, validate: Validate) -> None:
    done = scripted.transcribe(URL)
    scripted.transcribe("https://recordings.example/broken.wav")
    scripted.transcribe(URL)
    validate("Transcript", scripted.request("DELETE", f"/v2/transcript/{done['id']}").json())
    validate("Transcript", scripted.get(f"/v2/transcript/{done['id']}").json())
    validate("TranscriptList", scripted.get("/v2/transcript?limit=200").json())
    validate("TranscriptList", scripted.get("/v2/transcript?limit=1&status=completed").json())
    validate("TranscriptList", scripted.get("/v2/transcript?created_on=2001-01-01").json())


def test_webhook_notification_matches_the_schema(start, files, validate: Validate) -> None:
    start("--engine", "scripted").transcribe(URL, webhook_url=files.url + "/hook")
    while not files.posted:
        time.sleep(0.02)
    validate("TranscriptReadyNotification", json.loads(files.posted[0][2]))


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/v2/transcript", {"headers": {}}),
        ("GET", "/v2/transcript/unknown", {}),
        ("DELETE", "/v2/transcript/unknown", {}),
        ("GET", "/v2/transcript?limit=0", {}),
        ("POST", "/v2/transcript", {"data": b"{"}),
        ("POST", "/v2/transcript", {"json": {"audio_url": URL, "redact_pii_audio": True}}),
        ("GET", "/v2/nothing", {}),
    ],
)
def test_errors_match_the_schema(scripted, validate: Validate, method: str, path: str, more: dict[str, Any]) -> None:
    response = scripted.request(method, path, **more)
    assert response.status_code in (400, 401, 404)
    validate("Error", response.json())
