"""Formats sentences as captions in WebVTT and SubRip."""

from collections.abc import Iterable

from speechbox.sentences import Sentence

#: Long enough for an ordinary sentence to stay in one caption.
CHARS_PER_CAPTION = 200


def captions(sentences: Iterable[Sentence], chars_per_caption: int = CHARS_PER_CAPTION) -> list[Sentence]:
    """Split sentences that are longer than a caption between words; a caption never spans two sentences.

    A word longer than the limit is not split.
    """
    result: list[Sentence] = []
    for sentence in sentences:
        first, length = 0, 0
        for index, word in enumerate(sentence.words):
            longer = length + 1 + len(word.text) if length else len(word.text)
            if index > first and longer > chars_per_caption:
                result.append(Sentence(sentence.words[first:index]))
                first, longer = index, len(word.text)
            length = longer
        result.append(Sentence(sentence.words[first:]))
    return result


def to_vtt(sentences: Iterable[Sentence], chars_per_caption: int = CHARS_PER_CAPTION) -> str:
    """Format as WebVTT, with times as `mm:ss.mmm`, or `hh:mm:ss.mmm` from one hour on."""
    cues = (
        f"{_clock(caption.start)} --> {_clock(caption.end)}\n{caption.text}\n"
        for caption in captions(sentences, chars_per_caption)
    )
    return "\n".join(["WEBVTT\n", *cues])


def to_srt(sentences: Iterable[Sentence], chars_per_caption: int = CHARS_PER_CAPTION) -> str:
    """Format as SubRip, with numbered cues and times as `hh:mm:ss,mmm`."""
    cues = (
        f"{number}\n{_srt_clock(caption.start)} --> {_srt_clock(caption.end)}\n{caption.text}\n"
        for number, caption in enumerate(captions(sentences, chars_per_caption), start=1)
    )
    return "\n".join(cues)


def _parts(ms: int) -> tuple[int, int, int, int]:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return hours, minutes, seconds, ms


def _clock(ms: int) -> str:
    hours, minutes, seconds, rest = _parts(ms)
    clock = f"{minutes:02}:{seconds:02}.{rest:03}"
    return f"{hours:02}:{clock}" if hours else clock


def _srt_clock(ms: int) -> str:
    hours, minutes, seconds, rest = _parts(ms)
    return f"{hours:02}:{minutes:02}:{seconds:02},{rest:03}"
