"""Random transcripts and answers yield a complete timeline or a named failure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pytest

from callphases.cues import Cue, cues_of_captions, cues_of_words, to_vtt
from callphases.errors import AnswerInvalid, CallFailure
from callphases.segmentation.segmenter import read_answer
from callphases.segmentation.talk import talk_statistics
from callphases.segmentation.timeline import LONGEST_SUMMARY, call_end_s, timeline

CALLS = 20_000
NAMES = ["Introduction", "Complaint", "Resolution", "Goodbye", "Other"]
TEXTS = [
    *("Hello.", "Hi,", "I'm", "Jack,", "my", "bill", "is", "wrong.", "你好。", "مرحبا", "🎧", "e\u0301", "", " "),
    *(
        "</cue>",
        '"}]}]}',
        "{",
        "-->",
        "<v A>",
        "\x00",
        "\ud800",
        "\u202e",
        "\u2028",
        "WEBVTT",
        "NOTE",
        "&amp;",
        "x" * 300,
    ),
]
ODD: list[Any] = [None, True, -1, 0, 1.5, float("nan"), float("inf"), "1", "", [], {}, 10**30, "Introduction"]


def random_transcript(rng: random.Random) -> dict[str, Any]:
    """A transcript whose words may be out of order, overlapping, of no length, after the end, or malformed."""
    words: list[Any] = []
    for _ in range(rng.randrange(1, 15)):
        start = rng.choice([rng.randrange(20_000), 0, 5000])
        words.append(
            {
                "text": rng.choice(TEXTS),
                "start": start,
                "end": start + rng.choice([0, 300, 2000, -100]),
                "speaker": rng.choice(["A", "B", None]),
                "confidence": rng.random(),
            }
        )
        if rng.random() < 0.02:
            words[-1][rng.choice(list(words[-1]))] = rng.choice(ODD)
        if rng.random() < 0.005:
            words[-1] = rng.choice(ODD)
    text = " ".join(str(word.get("text")) for word in words if isinstance(word, dict))
    return {"text": text, "words": words, "audio_duration": rng.choice([0, 1, 10, 25])}


def random_answer(rng: random.Random, cues: list[Cue]) -> str:
    """An answer that is valid, wrong in one place, or cut off."""
    numbers = sorted(rng.sample(range(1, len(cues) + 1), rng.randrange(1, len(cues) + 1)))
    if rng.random() < 0.5:
        numbers[0] = 1
    phases: list[Any] = [
        {"name": rng.choice(NAMES), "start_cue": number, "summary": rng.choice(TEXTS) * rng.randrange(3)}
        for number in numbers
    ]
    if rng.random() < 0.15:
        rng.choice(phases)[rng.choice(["name", "start_cue", "summary"])] = rng.choice(ODD)
    if rng.random() < 0.03:
        phases[rng.randrange(len(phases))] = rng.choice(ODD)
    if rng.random() < 0.03:
        rng.shuffle(phases)
    calls: Any = [{"call": rng.choice([1, 1, 1, 1, "1", 2]), "phases": phases}]
    text = json.dumps({"calls": calls})
    wrap: list[Callable[[str], str]] = [
        lambda text: f"```json\n{text}\n```",
        lambda text: f"Here {{they}} are: {text}",
        lambda text: text[: rng.randrange(len(text))],
        lambda text: text * 2,
        lambda text: "[" * 2000 + text,
    ]
    return rng.choice(wrap)(text) if rng.random() < 0.2 else text


def cues_of(transcript: dict[str, Any]) -> list[Cue]:
    """As in the product: from the words, or else from the service's captions."""
    cues = cues_of_words(transcript)
    if cues is not None:
        return cues
    captions = to_vtt([Cue(1, 3.0, 2.0, None, transcript["text"])])
    return cues_of_captions(transcript, captions.encode(errors="replace").decode())


def test_random_call_and_answer_give_a_complete_timeline_or_a_named_failure() -> None:
    rng, failures, whole = random.Random(5), list[CallFailure](), 0
    for _ in range(CALLS):
        try:
            transcript = random_transcript(rng)
            cues = cues_of(transcript)
            (labels,) = read_answer(random_answer(rng, cues), [cues], NAMES).values()
            if isinstance(labels, AnswerInvalid):
                raise labels
        except CallFailure as failure:
            failures.append(failure)
            continue
        end_s = call_end_s(float(transcript["audio_duration"]), cues)
        phases = timeline(cues, labels, end_s)
        assert [cue.number for cue in cues] == list(range(1, len(cues) + 1))
        assert (phases[0].start_s, phases[-1].end_s) == (0, end_s)
        assert all(phase.end_s > phase.start_s for phase in phases) or (len(phases) == 1 and end_s == 0)
        for before, after in pairwise(phases):
            assert before.end_s == after.start_s
            assert before.end_cue + 1 == after.start_cue
            assert before.name != after.name
        assert (phases[0].start_cue, phases[-1].end_cue) == (1, len(cues))
        for phase in phases:
            assert phase.name in NAMES
            assert phase.summary.isprintable() or phase.summary == ""
            assert len(phase.summary) <= LONGEST_SUMMARY
        json.dumps([cue.text for cue in cues], ensure_ascii=False).encode()
        json.dumps(asdict(talk_statistics(cues, phases, end_s)), allow_nan=False)
        whole += 1
    assert all(failure.failure_class and str(failure) for failure in failures)
    assert min(len(failures), whole) > CALLS // 20


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", ["text", "start", "end", "speaker"])
def test_malformed_word_does_not_fail_the_call(place: str, odd: object) -> None:
    words: list[Any] = [{"text": "Hello.", "start": 0, "end": 500, "speaker": "A"} for _ in range(3)]
    words[1] = words[1] | {place: odd}
    cues = cues_of({"text": "Hello. Hello. Hello.", "words": words})
    assert all(isinstance(cue.text, str) and cue.start_s >= 0 and cue.end_s >= cue.start_s for cue in cues)
