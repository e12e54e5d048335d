"""Validates the body of POST /v2/transcript: types of options and forbidden combinations."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

#: The vendor's model names, deprecated ones included, and retired ones; each with the model that serves it.
SPEECH_MODELS = {
    "assemblyai-stt-3-7": "assemblyai-stt-3-7",
    "universal-3-5-pro": "universal-3-5-pro",
    "universal-2": "universal-2",
    "universal-3-pro": "universal-3-5-pro",
    "universal": "universal-2",
    "nano": "universal-2",
}
DEFAULT_SPEECH_MODELS = ("universal-3-5-pro", "universal-2")
#: Internal option: the model that replaces the requested one. Requests cannot set it.
FALLBACK = "speechbox_fallback"

#: Options of the request that the transcript repeats.
ECHOED = (
    "audio_end_at",
    "audio_start_from",
    "auto_chapters",
    "content_safety",
    "custom_spelling",
    "disfluencies",
    "domain",
    "entity_detection",
    "filter_profanity",
    "format_text",
    "iab_categories",
    "keyterms_prompt",
    "language_code",
    "language_codes",
    "language_confidence_threshold",
    "language_detection",
    "language_detection_options",
    "multichannel",
    "prompt",
    "punctuate",
    "redact_pii_audio",
    "redact_pii_audio_options",
    "redact_pii_audio_quality",
    "redact_pii_policies",
    "redact_pii_return_unredacted",
    "redact_pii_sub",
    "remove_audio_tags",
    "sentiment_analysis",
    "speaker_labels",
    "speakers_expected",
    "speech_threshold",
    "summary_model",
    "summary_type",
    "temperature",
    "topics",
    "webhook_auth_header_name",
    "webhook_url",
)

_FLAGS = (
    "auto_chapters", "auto_highlights", "content_safety", "disfluencies", "entity_detection", "filter_profanity",
    "format_text", "iab_categories", "language_detection", "multichannel", "punctuate", "redact_pii",
    "redact_pii_audio", "redact_pii_return_unredacted", "sentiment_analysis", "speaker_labels", "summarization",
)  # fmt: skip

_STRINGS = ("domain", "language_code", "prompt", "webhook_auth_header_name", "webhook_auth_header_value", "webhook_url")


class InvalidOptions(ValueError):
    """The options are invalid and the vendor would return 400; the message says why."""


def check(body: object) -> dict[str, Any]:
    """Return the options to store, or raise `InvalidOptions`. Null means unset; unknown options are ignored."""
    if not isinstance(body, dict):
        raise InvalidOptions("Invalid request body: a JSON object is expected")
    options = {name: value for name, value in body.items() if value is not None and name != FALLBACK}
    _check_types(options)
    on = options.get
    if on("redact_pii") and on("format_text", True) is False:
        raise InvalidOptions("redact_pii requires format_text to be true")
    for name, needs in (
        ("redact_pii_audio", "redact_pii"),
        ("redact_static_entities", "redact_pii"),
        ("redact_pii_return_unredacted", "redact_pii"),
        ("speakers_expected", "speaker_labels"),
        ("speaker_options", "speaker_labels"),
        ("language_confidence_threshold", "language_detection"),
        ("webhook_auth_header_name", "webhook_url"),
    ):
        if on(name) and not on(needs):
            raise InvalidOptions(f"{name} requires {needs} to be {'set' if needs == 'webhook_url' else 'true'}")
    if on("language_code") and on("language_detection"):
        raise InvalidOptions("language_code and language_detection cannot be used together")
    if on("speakers_expected") and on("speaker_options"):
        raise InvalidOptions("speakers_expected and speaker_options cannot be used together")
    if bool(on("webhook_auth_header_name")) != bool(on("webhook_auth_header_value")):
        raise InvalidOptions("webhook_auth_header_name and webhook_auth_header_value must be set together")
    start_ms, end_ms = on("audio_start_from", 0), on("audio_end_at")
    if end_ms is not None and end_ms <= start_ms:
        raise InvalidOptions("audio_end_at must be greater than audio_start_from")
    return options


def speech_models(options: Mapping[str, Any]) -> list[str]:
    """Return the requested models by their current names, in order of preference."""
    names = options.get("speech_models") or [name for name in [options.get("speech_model")] if name]
    return list(dict.fromkeys(SPEECH_MODELS[name] for name in names)) or list(DEFAULT_SPEECH_MODELS)


def _check_types(options: Mapping[str, Any]) -> None:
    audio_url = options.get("audio_url")
    if not isinstance(audio_url, str) or not audio_url.strip():
        raise InvalidOptions("audio_url is required")
    if not _is_fetchable(audio_url):
        raise InvalidOptions("audio_url must be an http or https URL")
    for name in _FLAGS:
        if not isinstance(options.get(name, False), bool):
            raise InvalidOptions(f"{name} must be a boolean")
    for name in _STRINGS:
        if not isinstance(options.get(name, ""), str):
            raise InvalidOptions(f"{name} must be a string")
    for name in ("audio_start_from", "audio_end_at", "speakers_expected"):
        value = options.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InvalidOptions(f"{name} must be a positive integer")
    models = options.get("speech_models", [])
    if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
        raise InvalidOptions("speech_models must be a list of model names")
    for name in (*models, *([options["speech_model"]] if "speech_model" in options else [])):
        if name not in SPEECH_MODELS:
            raise InvalidOptions(f"speech model {name} is not supported, use one of: {', '.join(SPEECH_MODELS)}")


def _is_fetchable(url: str) -> bool:
    try:
        url.encode()  # JSON allows lone surrogates, which URLs and databases do not
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
