"""What the speech service's errors mean: its documented messages, and those that people report in public."""

from __future__ import annotations

from typing import Any

import pytest

from callphases.errors import (
    BadAudio,
    CallFailure,
    DownloadRefused,
    ModelRetired,
    NoBalance,
    ProviderError,
    RequestRefused,
    ServiceUnavailable,
    TooShort,
    TranscriptUnknown,
    WrongKey,
)
from callphases.transcription.assemblyai import AssemblyAI, has_no_speech, job_failure
from doubles import KEY, Web, answer

pytestmark = pytest.mark.integration

OPTIONS: dict[str, Any] = {
    "speech_models": ["universal-3-5-pro", "universal-2"],
    "speaker_labels": True,
    "auto_chapters": True,
    "language_code": "xx",
    "word_boost": ["🇸🇬"],
}
SIGNED = "https://calls.s3.amazonaws.com/a.mp3?X-Amz-Signature=secret"
ACCEPTED = '"speech_models" must be a non-empty list containing one or more of: '

UNAVAILABLE = "The following models are not available in this language: "

REFUSALS: list[tuple[int, str, type[Exception], str]] = [
    # From the service's guide to common errors.
    (400, UNAVAILABLE + "speaker_labels", RequestRefused, "transcription.speaker_labels"),
    (400, "Your current account balance is negative. Please top up to continue using the API.", NoBalance, "topped up"),
    (401, "Authentication error, API token missing/invalid.", WrongKey, "password"),
    (400, "'🇸🇬' was included in the word boost list but contains unsupported characters", RequestRefused, "word boost"),
    (500, "Server error, developers have been alerted.", ServiceUnavailable, "500"),
    # Reported in public.
    (400, UNAVAILABLE + "auto_chapters, auto_highlights", RequestRefused, "transcription.auto_chapters"),
    (400, ACCEPTED + '"universal-3-pro", "universal-2"', ModelRetired, "universal-3-pro"),
    (400, ACCEPTED + '"universal-3-5-pro", "universal-2"', RequestRefused, "transcription"),
    (400, "language_code is not supported: xx", RequestRefused, "transcription.language_code"),
    (400, "The 'universal-3-5-pro' speech model has been deprecated.", ModelRetired, "speech_models"),
    (400, "Invalid speech model: universal-2 is no longer available", ModelRetired, "speech_models"),
    (400, "Balance the load: speaker_labels needs a balanced recording", RequestRefused, "speaker_labels"),
    (400, "redact_pii_audio requires redact_pii", RequestRefused, "redact_pii"),
    (400, "Invalid endpoint schema, please refer to documentation for examples.", RequestRefused, "schema"),
    (402, "Payment required", NoBalance, "topped up"),
    (403, "Cannot access uploaded file", RequestRefused, "uploaded"),
    (403, "This account has been disabled", WrongKey, "password"),
    (413, "Request entity too large", RequestRefused, "413"),
    (422, "audio_url should be a valid URL", RequestRefused, "422"),
]  # fmt: skip

JOB_ERRORS: list[tuple[str | None, type[CallFailure]]] = [
    (f"Download error, unable to download {SIGNED}. Please make sure the file exists.", DownloadRefused),
    ("Audio duration is too short.", TooShort),
    ("File does not appear to contain audio. File type is text/html (HTML document, ASCII text).", BadAudio),
    ("Transcoding failed. File does not appear to contain audio. File type is application/octet-stream.", BadAudio),
    ("Transcoding failed. File type application/json", BadAudio),
    ("Audio file could not be processed", BadAudio),
    ("Audio duration is too long", BadAudio),
    ("Server error, developers have been alerted.", ProviderError),
    ("Internal server error. Please retry your request", ProviderError),
    ("speech model universal-2 is not supported", ModelRetired),
    ("The following models are not available in this language: speaker_labels", RequestRefused),
    ("The language of this file is not supported", ProviderError),
    ("Something new.", ProviderError),
    ("", ProviderError),
    (None, ProviderError),
]  # fmt: skip

SILENT = [
    "language_detection cannot be performed on files with no spoken audio.",
    "AssemblyAI: Language_detection cannot be performed on files with no spoken audio",
    "No speech detected in the file.",
    "The file contains no speech.",
]


@pytest.mark.parametrize(("status", "text", "error", "told"), REFUSALS)
def test_refusal_means_what_its_text_says(web: Web, status: int, text: str, error: type[Exception], told: str) -> None:
    web.respond = lambda request: answer({"error": text}, status)
    client = AssemblyAI(KEY, web.url)
    with pytest.raises(error, match=told) as raised:
        client.submit(SIGNED, OPTIONS)
    assert isinstance(raised.value, error)
    if status != 500:
        assert text.split(",")[0] in str(raised.value), "the service's own words"


def test_transcript_that_is_not_there_is_no_missing_model(web: Web) -> None:
    web.answers = [answer({"error": "Transcript lookup error, transcript id not found"}, 400)]
    with pytest.raises(TranscriptUnknown):
        AssemblyAI(KEY, web.url).transcript("t-1")


@pytest.mark.parametrize(("error", "failure"), JOB_ERRORS)
def test_job_error_is_classified(error: str | None, failure: type[CallFailure]) -> None:
    told = job_failure(error, OPTIONS)
    assert type(told) is failure
    assert (error or "without a message").split(",")[0].split("?")[0][:20] in str(told)
    assert "Signature" not in str(told)
    assert not has_no_speech(error)


@pytest.mark.parametrize("error", SILENT)
def test_silent_file_is_no_failure(error: str) -> None:
    assert has_no_speech(error)


def test_only_an_error_of_the_servers_own_is_tried_again_at_once() -> None:
    assert job_failure("Server error, developers have been alerted.").may_pass
    assert not job_failure("Something new.").may_pass
