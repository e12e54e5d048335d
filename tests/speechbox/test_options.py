"""Tests of the validation of transcription options."""

import pytest

from speechbox.options import InvalidOptions, check, speech_models

URL = "https://example.com/a.wav"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_url": None}, "audio_url is required"),
        ({"audio_url": 7}, "audio_url is required"),
        ({"audio_url": "/home/me/a.wav"}, "http or https URL"),
        ({"audio_url": "http://[::1/a.wav"}, "http or https URL"),
        ({"audio_url": "http://host/\ud800.wav"}, "http or https URL"),
        ({"redact_pii": True, "format_text": False}, "redact_pii requires format_text"),
        ({"redact_pii_audio": True}, "redact_pii_audio requires redact_pii"),
        ({"language_code": "en", "language_detection": True}, "cannot be used together"),
        ({"speakers_expected": 2}, "speakers_expected requires speaker_labels"),
        ({"speaker_labels": True, "speakers_expected": 2, "speaker_options": {"min_speakers_expected": 1}}, "together"),
        ({"speech_models": ["gpt-4"]}, "speech model gpt-4 is not supported"),
        ({"speech_models": ["best"]}, "speech model best is not supported"),
        ({"speech_models": ["universal-2", "slam-1"]}, "speech model slam-1 is not supported"),
        ({"speech_models": "universal-2"}, "must be a list"),
        ({"speaker_labels": "yes"}, "speaker_labels must be a boolean"),
        ({"audio_start_from": 5000, "audio_end_at": 5000}, "audio_end_at must be greater"),
        ({"webhook_auth_header_name": "X-Token"}, "requires webhook_url"),
        ({"webhook_url": 5}, "webhook_url must be a string"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOptions, match=message):
        check({"audio_url": URL, **options})


@pytest.mark.parametrize("body", [None, [], "text", 3])
def test_body_other_than_an_object_is_refused(body: object) -> None:
    with pytest.raises(InvalidOptions):
        check(body)


def test_null_means_unset_and_unknown_options_are_kept() -> None:
    assert check({"audio_url": URL, "redact_pii_audio": None, "brand_new": 1}) == {"audio_url": URL, "brand_new": 1}


@pytest.mark.parametrize(
    ("options", "models"),
    [
        ({}, ["universal-3-5-pro", "universal-2"]),
        ({"speech_models": ["assemblyai-stt-3-7", "universal-2"]}, ["assemblyai-stt-3-7", "universal-2"]),
        ({"speech_models": ["universal-2"]}, ["universal-2"]),
        ({"speech_models": ["universal-3-pro", "universal-2"]}, ["universal-3-5-pro", "universal-2"]),
        ({"speech_model": "universal-2"}, ["universal-2"]),
    ],
)
def test_former_model_names_map_to_their_successors(options: dict[str, object], models: list[str]) -> None:
    assert speech_models(options) == models
