"""Cues from words and from captions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.cues import (
    CLAUSE_PAUSE_MS,
    LONG_PAUSE_MS,
    LONGEST_CUE_CHARS,
    Cue,
    cues_of_captions,
    cues_of_words,
    to_vtt,
)
from callphases.errors import ProviderError


def read(*blocks: str, words: list[dict[str, Any]] | None = None) -> list[Cue]:
    return cues_of_captions({"words": words}, "\n\n".join(["WEBVTT", *blocks]) + "\n")


def word(start: int, speaker: str | None = None) -> dict[str, Any]:
    return {"text": "w", "start": start, "end": start + 100, "speaker": speaker}


@pytest.mark.parametrize(
    ("times", "start_s", "end_s"),
    [
        ("00:12.340 --> 00:16.220", 12.34, 16.22),
        ("59:59.950 --> 01:00:00.050", 3599.95, 3600.05),
        ("01:02:03.004 --> 01:02:04.000", 3723.004, 3724.0),
        ("00:00.000 --> 00:00.001", 0.0, 0.001),
        ("100:00:00.000 --> 100:00:01.000", 360_000.0, 360_001.0),
        ("00:12.340 --> 00:16.220 align:start position:10%", 12.34, 16.22),
    ],
)
def test_vtt_times_are_parsed_with_and_without_hours(times: str, start_s: float, end_s: float) -> None:
    (cue,) = read(f"{times}\nHello.")
    assert (cue.start_s, cue.end_s) == (start_s, end_s)


def test_cues_are_numbered_by_start() -> None:
    cues = read(
        "00:05.000 --> 00:06.000\nlast",
        "00:01.000 --> 00:09.000\nfirst, and over all others",
        "00:03.000 --> 00:04.000\nbetween",
    )
    assert [(cue.number, cue.text.split(",")[0]) for cue in cues] == [(1, "first"), (2, "between"), (3, "last")]
    assert [cue.end_s for cue in cues] == [9.0, 4.0, 6.0]


def test_cue_that_ends_before_its_start_has_no_duration() -> None:
    (cue,) = read("00:05.000 --> 00:02.000\nHello.")
    assert (cue.start_s, cue.end_s) == (5.0, 5.0)


def test_speaker_is_that_of_most_words() -> None:
    words = [word(1000, "A"), word(1200, "B"), word(1400, "B"), word(2000, "A"), word(2100, "A")]
    cues = read("00:01.000 --> 00:02.000\nx y z", "00:02.000 --> 00:03.000\nx y", words=words)
    assert [cue.speaker for cue in cues] == ["B", "A"]


def sure(start: int, confidence: object) -> dict[str, Any]:
    return word(start) | {"confidence": confidence}


@pytest.mark.parametrize(
    ("words", "confidence"),
    [
        ([sure(1000, 0.9), sure(1200, 0.7), sure(1400, 1), sure(2500, 0.1)], 0.8667),
        ([sure(1000, 0.9), word(1200), sure(1400, None), sure(1600, "high")], 0.9),
        ([word(1000)], None),
        ([sure(2500, 0.1)], None),
        (None, None),
    ],
    ids=["mean", "of those that have one", "none has", "none is said", "no words"],
)
def test_caption_confidence_is_the_mean_of_its_words(
    words: list[dict[str, Any]] | None, confidence: float | None
) -> None:
    (cue,) = read("00:01.000 --> 00:02.000\nx y z", words=words)
    assert cue.confidence == confidence


@pytest.mark.parametrize("words", [None, [], [word(1100)], [word(5000, "A")]])
def test_speaker_is_none_if_no_word_has_one(words: list[dict[str, Any]] | None) -> None:
    (cue,) = read("00:01.000 --> 00:02.000\nx", words=words)
    assert cue.speaker is None


def test_words_may_be_in_any_order() -> None:
    (cue,) = read("00:01.000 --> 00:02.000\nx", words=[word(9000, "B"), word(1000, "A")])
    assert cue.speaker == "A"


@pytest.mark.parametrize(("words", "speaker"), [([], "Agent"), ([word(1000, "B")], "B")])
def test_voice_tag_names_the_speaker_if_no_word_does(words: list[dict[str, Any]], speaker: str) -> None:
    (cue,) = read("00:01.000 --> 00:02.000\n<v Agent>Hello.</v>", words=words)
    assert (cue.speaker, cue.text) == (speaker, "Hello.")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("two\nlines", "two lines"),
        ("  spaces\t and   tabs ", "spaces and tabs"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("fish &amp; chips &lt;now&gt;", "fish & chips <now>"),
        ("<b>bold</b> and <i.loud>loud</i>", "bold and loud"),
        ("Grüß Gott 🎧", "Grüß Gott 🎧"),
    ],
)
def test_caption_text_is_unescaped_and_on_one_line(written: str, text: str) -> None:
    (cue,) = read(f"00:01.000 --> 00:02.000\n{written}")
    assert cue.text == text


def test_word_count_splits_on_white_space() -> None:
    (cue,) = read("00:01.000 --> 00:02.000\nThank you for\ncalling.")
    assert cue.word_count == 4


def test_vtt_notes_and_identifiers_are_ignored() -> None:
    cues = read("NOTE made by a machine", "1\n00:01.000 --> 00:02.000\none", "two\n00:03.000 --> 00:04.000\ntwo")
    assert [cue.text for cue in cues] == ["one", "two"]


def test_byte_order_mark_and_crlf_are_accepted() -> None:
    (cue,) = cues_of_captions({}, "\ufeffWEBVTT\r\n\r\n00:01.000 --> 00:02.000\r\nHello.\r\n")
    assert cue.text == "Hello."


@pytest.mark.parametrize(
    ("vtt", "words"),
    [
        ("", "not WebVTT"),
        ('{"error": "no"}', "not WebVTT"),
        ("<html></html>", "not WebVTT"),
        ("WEBVTT", "captions are empty"),
        ("WEBVTT\n\n00:01.000 -> 00:02.000\nHello.", "captions are empty"),
        ("WEBVTT\n\n1 s --> 2 s\nHello.", "captions are empty"),
    ],
)
def test_malformed_captions_raise_provider_error(vtt: str, words: str) -> None:
    with pytest.raises(ProviderError, match=words):
        cues_of_captions({}, vtt)


def spoken(*words: str, speaker: str = "A", channel: str | None = None, start_ms: int = 0) -> list[dict[str, object]]:
    """Words of half a second each, one after the other."""
    return [
        {"text": text, "start": start_ms + 500 * place, "end": start_ms + 500 * (place + 1), "speaker": speaker}
        | ({"channel": channel} if channel else {})
        for place, text in enumerate(words)
    ]


def heard(*words: dict[str, object]) -> list[Cue] | None:
    return cues_of_words({"text": " ".join(str(word["text"]) for word in words), "words": list(words)})


def test_words_are_grouped_into_sentences_of_one_speaker() -> None:
    words = [
        *spoken("Hi,", "I'm", "Jack.", "My", "bill", "is", "wrong,", "Mr.", "Miller."),
        *spoken("Let", "me", "see", speaker="B", start_ms=4500),
    ]
    assert heard(*words) == [
        Cue(1, 0.0, 1.5, "A", "Hi, I'm Jack."),
        Cue(2, 1.5, 4.5, "A", "My bill is wrong, Mr. Miller."),
        Cue(3, 4.5, 6.0, "B", "Let me see"),
    ]


def test_sentence_confidence_is_the_mean_of_its_words() -> None:
    words = spoken("Hi,", "Jack.", "Bye.")
    cues = heard(words[0] | {"confidence": 0.5}, words[1] | {"confidence": 0.9}, words[2])
    assert cues is not None
    assert [(cue.text, cue.confidence) for cue in cues] == [("Hi, Jack.", 0.7), ("Bye.", None)]


def test_long_pauses_and_long_sentences_are_split() -> None:
    paused = heard(*spoken("one"), *spoken("two", start_ms=500 + LONG_PAUSE_MS + 1))
    assert paused is not None
    assert [cue.text for cue in paused] == ["one", "two"]
    cues = heard(*spoken(*["tiresome"] * 60))
    assert cues is not None
    assert len(cues) == 3
    assert all(len(cue.text) <= LONGEST_CUE_CHARS for cue in cues)


@pytest.mark.parametrize(
    ("said", "cues"),
    [
        ("Hi, I'm Jack, my bill is wrong.", ["Hi, I'm Jack,", "my bill is wrong."]),
        ("Well, it is, you know, broken.", ["Well, it is,", "you know, broken."]),
        ("Hello, good morning, Jack.", ["Hello, good morning, Jack."]),
        ("Yes, please.", ["Yes, please."]),
        ("It is 555, 12, 34, and then seven eight nine.", ["It is 555,", "12, 34, and then seven eight nine."]),
        ("Hi, I'm Jack; my bill is wrong: I can't pay it.", ["Hi, I'm Jack;", "my bill is wrong:", "I can't pay it."]),
        ("你好, 我是 杰克， 我的 账单 错了。", ["你好, 我是 杰克，", "我的 账单 错了。"]),
    ],
)
def test_sentence_is_split_at_clauses_of_three_words(said: str, cues: list[str]) -> None:
    found = heard(*spoken(*said.split()))
    assert found is not None
    assert [cue.text for cue in found] == cues


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ("Hi this is Jack", "my bill is wrong.", 2),
        ("Hi this is Jack my", "bill wrong.", 1),
        ("Hi there", "bill is wrong.", 1),
    ],
)
def test_sentence_without_commas_is_split_at_a_pause(before: str, after: str, count: int) -> None:
    start_ms = 500 * len(before.split()) + CLAUSE_PAUSE_MS + 1
    found = heard(*spoken(*before.split()), *spoken(*after.split(), start_ms=start_ms))
    assert found is not None
    assert len(found) == count


@given(st.lists(st.sampled_from(["so,", "well", "yes.", "no,", "a", "b;", "c"]), min_size=1, max_size=30))
def test_splitting_keeps_all_words_and_times(words: list[str]) -> None:
    found = heard(*spoken(*words))
    assert found is not None
    assert " ".join(cue.text for cue in found).split() == words
    assert [cue.start_s for cue in found] == [0.0, *(cue.end_s for cue in found[:-1])]
    assert found[-1].end_s == 0.5 * len(words)


def test_control_characters_and_lone_surrogates_are_removed() -> None:
    found = heard(*spoken("a\x00b", "\ud800", "c\u0085d\x1b[31m"))
    assert found is not None
    assert [cue.text for cue in found] == ["a b c d [31m"]
    assert found[0].end_s == 1.5


def test_simultaneous_speakers_on_two_channels_keep_their_sentences() -> None:
    cues = heard(
        *spoken("I", "want", "my", "money.", speaker="1A", channel="1"),
        *spoken("Yes,", "of", "course.", speaker="2A", channel="2", start_ms=700),
    )
    assert cues is not None
    assert [(cue.text, cue.speaker) for cue in cues] == [("I want my money.", "1A"), ("Yes, of course.", "2A")]


@pytest.mark.parametrize(
    "transcript",
    [
        {"text": "All that was said.", "words": spoken("All")},
        {"text": "All that was said.", "words": None},
        {"words": spoken("All")},
        {"text": "Hello.", "words": [{"text": "Hello."}]},
    ],
)
def test_words_that_do_not_make_up_the_text_give_no_cues(transcript: dict[str, object]) -> None:
    assert cues_of_words(transcript) is None


def test_vtt_round_trips() -> None:
    cues = [
        Cue(1, 0.04, 1.5, "A", "Less <b>is</b> more & 2 < 3."),
        Cue(2, 61.25, 62.0, "B", "--> is no arrow"),
        Cue(3, 3723.0, 3724.5, "A", "Late."),
    ]
    words = [{"text": "x", "start": round(cue.start_s * 1000), "speaker": cue.speaker} for cue in cues]
    assert cues_of_captions({"words": words}, to_vtt(cues)) == cues
