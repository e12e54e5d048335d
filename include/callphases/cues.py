"""A transcript's words → numbered cues, the units that a phase may begin at; and cues as captions (WebVTT)."""

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
"""A longer sentence is cut between words, so that a phase may begin within it."""
LONG_PAUSE_MS = 1200
"""A silence that ends a cue even where no full stop was heard."""
CLAUSE_WORDS = 3
"""A sentence is cut at a comma, or a short silence, that has so many of its words before it and after it: the need may
begin within the sentence that gives the name."""
CLAUSE_PAUSE_MS = 500
SPOKEN_SHARE = 0.9
"""Words that hold less of the transcript's text than this do not stand for it; the service's own captions do then."""
_TAG = re.compile(r"</?(?:[bciuv]|lang|ruby|rt)(?:[. ][^>]*)?>|<[\d:.]+>")
"""WebVTT's own tags. Other angle brackets are speech: services write them without escaping."""
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SENTENCE_END = re.compile(r"[.?!…。？！][\"'”’)\]]*$")
_CLAUSE_END = re.compile(r"[,;:，、；：–—][\"'”’)\]]*$")
_ABBREVIATION = re.compile(r"[\"'“‘(\[]*(?:mr|mrs|ms|dr|prof|st|vs|no|[a-z])\.", re.IGNORECASE)


@dataclass(frozen=True)
class Cue:
    """One caption: ``number`` counts from 1 in the order of starts; ``speaker`` is the service's label, or None.

    ``confidence`` is the mean of its words', 0 to 1, or None where the service gives none.
    """

    number: int
    start_s: float
    end_s: float
    speaker: str | None
    text: str
    confidence: float | None = None

    @property
    def word_count(self) -> int:
        """Words, as split by white space."""
        return len(self.text.split())


def cues_of_words(transcript: dict[str, Any]) -> list[Cue] | None:
    """The cues of a transcript from its words: sentences of one speaker, cut where they are long.

    Returns:
        None where the transcript's words do not hold its text.
    """
    words = [word for word in _words(transcript) if _text([word])]
    heard, said = sum(len(str(word["text"])) for word in words), "".join(str(transcript.get("text") or "").split())
    if not said or heard < SPOKEN_SHARE * len(said):
        return None
    try:
        parts = [part for line in _lines(words) for sentence in _sentences(line) for part in _clauses(sentence)]
        times = [(max(int(part[0]["start"]), 0), max(int(word["end"]) for word in part)) for part in parts]
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
    """The cues of a transcript: times and text from its captions, speakers from its words.

    Raises:
        ProviderError: the captions are not WebVTT, or hold nothing though the transcript has words.
    """
    captions = sorted(_captions(vtt), key=lambda caption: caption[0])
    if not captions:
        raise ProviderError("The transcript has text, and its captions are empty.")
    words = sorted((word for word in _words(transcript) if type(word.get("start")) is int), key=itemgetter("start"))
    starts_ms = [word["start"] for word in words]
    cues: list[Cue] = []
    for number, (start_ms, end_ms, voice, text) in enumerate(captions, start=1):
        said = words[bisect_left(starts_ms, start_ms) : bisect_left(starts_ms, end_ms)]
        cues.append(
            Cue(
                number=number,
                start_s=start_ms / 1000,
                end_s=max(start_ms, end_ms) / 1000,
                speaker=_speaker(said) or voice,
                text=text,
                confidence=_confidence(said),
            )
        )
    return cues


def to_vtt(cues: Iterable[Cue]) -> str:
    """Cues as WebVTT, with ``mm:ss.mmm`` times and hours only where there are any."""
    blocks = (f"{_clock(cue.start_s)} --> {_clock(cue.end_s)}\n{html.escape(cue.text, quote=False)}\n" for cue in cues)
    return "\n".join(["WEBVTT\n", *blocks])


def _lines(words: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The words of each channel in their order: where two people are recorded apart they may talk at once."""
    lines: dict[object, list[dict[str, Any]]] = {}
    for word in words:
        lines.setdefault(word.get("channel"), []).append(word)
    for line in lines.values():
        yield sorted(line, key=lambda word: int(word["start"]))


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
    """The parts of a sentence that a phase may begin at."""
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
    return _spoken(" ".join(str(word.get("text") or "") for word in words))


def _spoken(text: str) -> str:
    """Text on one line, of what can be stored as text: no control characters, no halves of a character."""
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
            _spoken(html.unescape(_TAG.sub("", caption.raw_text))),
        )
        for caption in captions.captions
    ]


def _speaker(words: list[dict[str, Any]]) -> str | None:
    """Who says most of the words. Where two people speak at once a caption of one holds words of the other."""
    said = [speaker for word in words if (speaker := _label(word)) is not None]
    return max(sorted(set(said)), key=said.count) if said else None


def _confidence(words: Iterable[dict[str, Any]]) -> float | None:
    given = [word.get("confidence") for word in words]
    known = [float(one) for one in given if isinstance(one, int | float) and 0 <= one <= 1]
    return round(sum(known) / len(known), 4) if known else None


def _clock(seconds: float) -> str:
    minutes, ms = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    clock = f"{minutes:02}:{ms // 1000:02}.{ms % 1000:03}"
    return f"{hours:02}:{clock}" if hours else clock
