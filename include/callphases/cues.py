"""Splits a transcript into numbered cues, the units that a phase can start at, and writes cues as WebVTT."""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import webvtt

from callphases.errors import ProviderError

LONGEST_CUE_CHARS = 200
"""Longer sentences are split between words, so that a phase can start within them."""
LONGEST_MS = 86_400_000
"""A later word is not believed: no recording is a day long."""
LONG_PAUSE_MS = 1200
"""A longer silence ends a cue, even in the middle of a sentence."""
CLAUSE_WORDS = 3
"""Sentences are split at a comma or a short silence if this many words are on both sides of it: callers often state
their need in the same sentence as their name."""
CLAUSE_PAUSE_MS = 500
"""A longer silence separates clauses."""
LEAST_TEXT_SHARE = 0.9
"""If the words make up less of the transcript's text, cues are made from the service's captions instead."""
_TAG = re.compile(r"</?(?:[bciuv]|lang|ruby|rt)(?:[. ][^>]*)?>|<[\d:.]+>")
"""WebVTT tags. Other angle brackets are text, which services do not escape."""
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SENTENCE_END = re.compile(r"[.?!…。？！][\"'”’)\]]*$")
_CLAUSE_END = re.compile(r"[,;:，、；：–—][\"'”’)\]]*$")
_ABBREVIATION = re.compile(r"[\"'“‘(\[]*(?:mr|mrs|ms|dr|prof|st|vs|no|[a-z])\.", re.IGNORECASE)


@dataclass(frozen=True)
class Cue:
    """One caption. ``number`` counts from 1 by start; ``speaker`` is the service's label, or None.

    ``confidence`` is the mean of its words', from 0 to 1, or None if the service gives none.
    """

    number: int
    start_s: float
    end_s: float
    speaker: str | None
    text: str
    confidence: float | None = None

    @property
    def word_count(self) -> int:
        """The number of words, separated by white space."""
        return len(self.text.split())


def cues_of_words(transcript: dict[str, Any]) -> list[Cue] | None:
    """Make cues from a transcript's words: sentences of one speaker each, long ones split.

    Returns:
        None if words are missing: they do not make up the transcript's text, or have no times.
    """
    words = [word for word in _words(transcript) if _text([word])]
    word_chars, text = sum(len(str(word["text"])) for word in words), "".join(str(transcript.get("text") or "").split())
    if not text or word_chars < LEAST_TEXT_SHARE * len(text):
        return None
    try:
        parts = [
            part for channel in _channels(words) for sentence in _sentences(channel) for part in _clauses(sentence)
        ]
        times = [(max(int(part[0]["start"]), 0), max(int(word["end"]) for word in part)) for part in parts]
        if any(max(pair) > LONGEST_MS for pair in times):
            return None
    except (KeyError, TypeError, ValueError, OverflowError):  # words without times
        return None
    order = sorted(range(len(parts)), key=times.__getitem__)
    return [
        Cue(
            number=number,
            start_s=times[place][0] / 1000,
            end_s=max(times[place]) / 1000,
            speaker=_label(parts[place][0]),
            text=_text(parts[place]),
            confidence=_confidence(parts[place]),
        )
        for number, place in enumerate(order, start=1)
    ]


def cues_of_captions(transcript: dict[str, Any], vtt: str) -> list[Cue]:
    """Make cues from a transcript's captions, with speakers and confidence from its words.

    Raises:
        ProviderError: the captions are not WebVTT, or are empty although the transcript has text.
    """
    captions = sorted(_captions(vtt), key=lambda caption: caption[0])
    if not captions:
        raise ProviderError("The transcript has text, but its captions are empty.")
    words = sorted((word for word in _words(transcript) if type(word.get("start")) is int), key=itemgetter("start"))
    starts_ms = [word["start"] for word in words]
    cues: list[Cue] = []
    for number, (start_ms, end_ms, voice, text) in enumerate(captions, start=1):
        caption_words = words[bisect_left(starts_ms, start_ms) : bisect_left(starts_ms, end_ms)]
        cues.append(
            Cue(
                number=number,
                start_s=start_ms / 1000,
                end_s=max(start_ms, end_ms) / 1000,
                speaker=_speaker(caption_words) or voice,
                text=text,
                confidence=_confidence(caption_words),
            )
        )
    return cues


def to_vtt(cues: Iterable[Cue]) -> str:
    """Cues as WebVTT; times are ``mm:ss.mmm``, with hours only if there are any."""
    blocks = (f"{_clock(cue.start_s)} --> {_clock(cue.end_s)}\n{html.escape(cue.text, quote=False)}\n" for cue in cues)
    return "\n".join(["WEBVTT\n", *blocks])


def _channels(words: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The words of each audio channel by start: speakers on different channels may talk at the same time."""
    channels: dict[object, list[dict[str, Any]]] = {}
    for word in words:
        channels.setdefault(word.get("channel"), []).append(word)
    for channel in channels.values():
        yield sorted(channel, key=lambda word: int(word["start"]))


def _sentences(words: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for word in words:
        if part and (
            word.get("speaker") != part[-1].get("speaker")
            or _ends_sentence(str(part[-1]["text"]))
            or int(word["start"]) - int(part[-1]["end"]) > LONG_PAUSE_MS
        ):
            yield part
            part = []
        part.append(word)
    if part:
        yield part


def _clauses(sentence: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The parts of a sentence that a phase can start at."""
    part: list[dict[str, Any]] = []
    chars = 0
    for place, word in enumerate(sentence):
        may_end = len(part) >= CLAUSE_WORDS and len(sentence) - place >= CLAUSE_WORDS
        if part and (
            (may_end and _ends_clause(part[-1], word)) or chars + 1 + len(str(word["text"])) > LONGEST_CUE_CHARS
        ):
            yield part
            part, chars = [], 0
        part.append(word)
        chars += len(str(word["text"])) + (chars > 0)
    yield part


def _ends_clause(word: dict[str, Any], following: dict[str, Any]) -> bool:
    pause_ms = int(following["start"]) - int(word["end"])
    return pause_ms > CLAUSE_PAUSE_MS or _CLAUSE_END.search(str(word["text"])) is not None


def _ends_sentence(text: str) -> bool:
    return _SENTENCE_END.search(text) is not None and not _ABBREVIATION.fullmatch(text)


def _words(transcript: dict[str, Any]) -> list[dict[str, Any]]:
    return [word for word in transcript.get("words") or [] if isinstance(word, dict)]


def _label(word: dict[str, Any]) -> str | None:
    return str(word["speaker"]) if word.get("speaker") else None


def _text(words: Iterable[dict[str, Any]]) -> str:
    return _cleaned(" ".join(str(word.get("text") or "") for word in words))


def _cleaned(text: str) -> str:
    """Text on one line, without control characters and lone surrogates, which Parquet can't store."""
    return " ".join(_NOT_TEXT.sub(" ", text).split())


def _captions(vtt: str) -> list[tuple[int, int, str | None, str]]:
    try:
        captions = webvtt.from_string(vtt)
    except webvtt.errors.MalformedFileError:
        raise ProviderError("The transcript's captions are not WebVTT.") from None
    return [
        (
            caption.start_time.in_milliseconds(),
            caption.end_time.in_milliseconds(),
            caption.voice,
            _cleaned(html.unescape(_TAG.sub("", caption.raw_text))),
        )
        for caption in captions.captions
    ]


def _speaker(words: list[dict[str, Any]]) -> str | None:
    """The speaker of most of the words: with crosstalk, a caption may include words of another speaker."""
    speakers = [speaker for word in words if (speaker := _label(word)) is not None]
    return max(sorted(set(speakers)), key=speakers.count) if speakers else None


def _confidence(words: Iterable[dict[str, Any]]) -> float | None:
    given = [word.get("confidence") for word in words]
    known = [float(one) for one in given if isinstance(one, int | float) and 0 <= one <= 1]
    return round(sum(known) / len(known), 4) if known else None


def _clock(seconds: float) -> str:
    minutes, ms = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    clock = f"{minutes:02}:{ms // 1000:02}.{ms % 1000:03}"
    return f"{hours:02}:{clock}" if hours else clock
