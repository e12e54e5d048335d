"""Captions → numbered cues, the units that a phase may begin at."""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import webvtt

from callphases.errors import ProviderError

_TAG = re.compile(r"</?(?:[bciuv]|lang|ruby|rt)(?:[. ][^>]*)?>|<[\d:.]+>")
"""WebVTT's own tags. Other angle brackets are speech: services write them without escaping."""


@dataclass(frozen=True)
class Cue:
    """One caption: ``number`` counts from 1 in the order of starts; ``speaker`` is the service's label, or None."""

    number: int
    start_s: float
    end_s: float
    speaker: str | None
    text: str

    @property
    def word_count(self) -> int:
        """Words, as split by white space."""
        return len(self.text.split())


def cues_of(transcript: dict[str, Any], vtt: str) -> list[Cue]:
    """The cues of a transcript: times and text from its captions, speakers from its words.

    Raises:
        ProviderError: the captions are not WebVTT, or hold nothing though the transcript has words.
    """
    captions = sorted(_captions(vtt), key=lambda caption: caption[0])
    if not captions:
        raise ProviderError("The transcript has text, and its captions are empty.")
    words = sorted(transcript.get("words") or [], key=lambda word: int(word["start"]))
    starts_ms = [int(word["start"]) for word in words]
    return [
        Cue(
            number=number,
            start_s=start_ms / 1000,
            end_s=max(start_ms, end_ms) / 1000,
            speaker=_speaker(words[bisect_left(starts_ms, start_ms) : bisect_left(starts_ms, end_ms)]) or voice,
            text=text,
        )
        for number, (start_ms, end_ms, voice, text) in enumerate(captions, start=1)
    ]


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
            " ".join(html.unescape(_TAG.sub("", caption.raw_text)).split()),
        )
        for caption in captions.captions
    ]


def _speaker(words: list[dict[str, Any]]) -> str | None:
    """Who says most of the words. Where two people speak at once a caption of one holds words of the other."""
    said = [str(word["speaker"]) for word in words if word.get("speaker")]
    return max(sorted(set(said)), key=said.count) if said else None
