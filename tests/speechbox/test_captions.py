"""Tests of WebVTT and SubRip captions."""

import pytest

from speechbox.captions import captions, to_srt, to_vtt
from speechbox.sentences import Sentence, Word


def sentence(text: str, start: int = 0, step: int = 100) -> Sentence:
    return Sentence(
        tuple(Word(word, start + i * step, start + i * step + step, 1.0) for i, word in enumerate(text.split()))
    )


def test_vtt_has_one_cue_per_sentence() -> None:
    assert to_vtt([sentence("Hello there.", 12_340), sentence("Hi.", 16_000)]) == (
        "WEBVTT\n\n00:12.340 --> 00:12.540\nHello there.\n\n00:16.000 --> 00:16.100\nHi.\n"
    )


def test_vtt_shows_hours_only_from_one_hour_on() -> None:
    vtt = to_vtt([sentence("Late.", 3_599_950)])
    assert "59:59.950 --> 01:00:00.050" in vtt


def test_srt_cues_are_numbered() -> None:
    assert to_srt([sentence("Hello.", 1), sentence("Hi.", 3_600_000)]) == (
        "1\n00:00:00,001 --> 00:00:00,101\nHello.\n\n2\n01:00:00,000 --> 01:00:00,100\nHi.\n"
    )


@pytest.mark.parametrize("limit", [1, 10, 11, 12, 40, 1000])
def test_captions_contain_every_word_within_the_limit(limit: int) -> None:
    sentences = [sentence("one two three four five, six."), sentence("Seven eight.", 5_000)]
    result = captions(sentences, limit)
    assert " ".join(caption.text for caption in result) == " ".join(s.text for s in sentences)
    assert all(len(caption.text) <= limit or len(caption.words) == 1 for caption in result)
    assert not any("six. Seven" in caption.text for caption in result)


def test_long_caption_is_split_at_the_times_of_its_words() -> None:
    first, second, _ = captions([sentence("one two three four")], 8)
    assert (first.text, first.start, first.end) == ("one two", 0, 200)
    assert (second.text, second.start, second.end) == ("three", 200, 300)
