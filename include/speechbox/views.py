"""Builds the API's JSON documents from transcripts."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from speechbox.options import ECHOED, FALLBACK, speech_models
from speechbox.sentences import Recognition, Sentence, Word, mean_confidence, paragraphs, words_in_order
from speechbox.store import DELETED_TEXT, Page, Record

Json = dict[str, Any]

#: Fields that the vendor's OpenAPI document allows to be null; other unset fields are left out.
_NULLABLE = (
    "audio_end_at", "audio_start_from", "custom_spelling", "domain", "language_codes",
    "language_confidence_threshold", "redact_pii_audio_quality", "redact_pii_policies", "remove_audio_tags",
    "speakers_expected", "speech_threshold", "summary_model", "summary_type", "temperature",
    "webhook_auth_header_name", "webhook_url",
)  # fmt: skip
#: Results of analyses that speechbox does not support, as in a transcript without them.
_NO_RESULTS = (
    "auto_highlights_result", "chapters", "content_safety_labels", "entities", "iab_categories_result",
    "sentiment_analysis_results", "summary",
)  # fmt: skip
_OFF = ("auto_chapters", "content_safety", "disfluencies", "entity_detection", "filter_profanity", "iab_categories",
        "language_detection", "multichannel", "redact_pii_audio", "sentiment_analysis", "speaker_labels")  # fmt: skip
#: Fields that are null until the transcript is completed.
_UNSPOKEN: Json = dict.fromkeys(("text", "words", "utterances", "confidence"))


def transcript(record: Record, recognition: Recognition | None = None) -> str:
    """Build the response of GET /v2/transcript/{id} as text; the serialized recognition is cached."""
    options = record.options
    view: Json = {
        "id": record.id,
        "status": record.status,
        "audio_url": record.audio_url,
        "language_model": "assemblyai_default",
        "acoustic_model": "assemblyai_default",
        "speech_model": None,
        "speech_models": speech_models(options),
        "audio_duration": None,
        "language_confidence": None,
        "punctuate": True,
        "format_text": True,
        "throttled": False,
        "custom_topics": False,
        "speed_boost": False,
        "webhook_status_code": record.webhook_status,
        "webhook_auth": bool(options.get("webhook_auth_header_name")),
        "auto_highlights": bool(options.get("auto_highlights")),
        "redact_pii": bool(options.get("redact_pii")),
        "summarization": bool(options.get("summarization")),
        **dict.fromkeys(_OFF, False),
        **dict.fromkeys(_NULLABLE),
        **dict.fromkeys(_NO_RESULTS),
        **{name: options[name] for name in ECHOED if name in options},
    }
    if record.deleted:
        return as_json(view | _UNSPOKEN | {"text": DELETED_TEXT})
    if record.status == "error":
        view["error"] = record.error
    if recognition is None:
        return as_json(view | _UNSPOKEN)
    wanted, fallback = view["speech_models"][0], options.get(FALLBACK)
    view |= {
        "audio_duration": _duration(record),
        "audio_channels": record.channels,
        "language_code": options.get("language_code") or record.language_code,
        "speech_model_used": fallback or wanted,
    }
    warnings = list(recognition.warnings)
    if fallback:
        warnings.append(f"speech model {wanted} is not available, {fallback} was used in its place")
    if warnings:
        view["metadata"] = {"warnings": [{"message": message} for message in warnings]}
    by_speaker = bool(options.get("speaker_labels") or options.get("multichannel"))
    spoken = recognition.rendered(("spoken", by_speaker), lambda: as_json(_spoken(recognition.sentences, by_speaker)))
    return f"{as_json(view)[:-1]},{spoken[1:]}"  # merges the members of two objects


def as_json(document: Json) -> str:
    """Serialize without whitespace."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _spoken(sentences: Sequence[Sentence], by_speaker: bool) -> Json:
    words = words_in_order(sentences)
    return {
        "text": " ".join(sentence.text for sentence in sentences),
        "words": [_word(word) for word in words],
        "utterances": [_sentence(sentence) for sentence in sentences] if by_speaker else None,
        "confidence": mean_confidence(words) if words else 0.0,
    }


def sentences_document(record: Record, sentences: Sequence[Sentence]) -> Json:
    """Build the response of GET /v2/transcript/{id}/sentences."""
    return _with_head(record, sentences) | {"sentences": [_sentence(sentence) for sentence in sentences]}


def paragraphs_document(record: Record, sentences: Sequence[Sentence]) -> Json:
    """Build the response of GET /v2/transcript/{id}/paragraphs."""
    return _with_head(record, sentences) | {"paragraphs": [_paragraph(group) for group in paragraphs(sentences)]}


def word_search_document(record: Record, sentences: Sequence[Sentence], phrases: list[str]) -> Json:
    """Build the response of GET /v2/transcript/{id}/word-search; the search ignores case."""
    words = words_in_order(sentences)
    plain = [_plain(word.text) for word in words]
    matches: list[Json] = []
    total = 0
    for phrase in phrases:
        wanted = [_plain(text) for text in phrase.split()]
        size = len(wanted)
        found = [at for at in range(len(plain) - size + 1) if wanted and plain[at : at + size] == wanted]
        if found:
            times = [[words[at].start, words[at + size - 1].end] for at in found]
            total += len(found)
            matches.append({"text": phrase, "count": len(found), "timestamps": times, "indexes": found})
    return {"id": record.id, "total_count": total, "matches": matches}


def list_document(page: Page, limit: int, filters: Mapping[str, str], base_url: str, current_url: str) -> Json:
    """Build the response of GET /v2/transcript; `filters` are other query parameters, repeated in the links."""

    def link(**position: str) -> str:
        return f"{base_url}/v2/transcript?{urlencode({'limit': limit, **filters, **position})}"

    records = page.records
    return {
        "page_details": {
            "limit": limit,
            "result_count": len(records),
            "current_url": current_url,
            "prev_url": link(before_id=records[-1].id) if page.has_older else None,
            "next_url": link(after_id=records[0].id) if page.has_newer else None,
        },
        "transcripts": [
            {
                "id": record.id,
                "resource_url": f"{base_url}/v2/transcript/{record.id}",
                "status": record.status,
                "created": record.created,
                "completed": record.completed,
                "audio_url": record.audio_url,
                "error": record.error,
            }
            for record in records
        ],
    }


def _duration(record: Record) -> int:
    """Return whole seconds, rounded up so that no word ends after them."""
    return math.ceil(record.duration_s or 0)


def _with_head(record: Record, sentences: Sequence[Sentence]) -> Json:
    confidence = mean_confidence(words_in_order(sentences))
    return {"id": record.id, "confidence": confidence, "audio_duration": _duration(record)}


def _word(word: Word) -> Json:
    view: Json = {
        "text": word.text,
        "start": word.start,
        "end": word.end,
        "confidence": word.confidence,
        "speaker": word.speaker,
    }
    return view | {"channel": word.channel} if word.channel else view


def _sentence(sentence: Sentence) -> Json:
    view: Json = {
        "text": sentence.text,
        "start": sentence.start,
        "end": sentence.end,
        "confidence": sentence.confidence,
        "speaker": sentence.speaker,
        "words": [_word(word) for word in sentence.words],
    }
    return view | {"channel": sentence.channel} if sentence.channel else view


def _paragraph(group: list[Sentence]) -> Json:
    words = [word for sentence in group for word in sentence.words]
    return {
        "text": " ".join(sentence.text for sentence in group),
        "start": group[0].start,
        "end": max(sentence.end for sentence in group),
        "confidence": mean_confidence(words),
        "words": [_word(word) for word in words],
    }


def _plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())
