"""Reads a model's answer as labels: finds the JSON in what the model writes, and checks it call by call.

Models wrap their answer in prose or code fences, and think aloud before it. What they write while thinking is a draft,
and never counts. Of several answers in one text the last valid one counts, since models correct themselves.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from callphases.cues import Cue
from callphases.errors import AnswerInvalid
from callphases.pipeline import name_key
from callphases.segmentation.timeline import Label, shorten

_THINKING = r"(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis|seed:think)"
_OPENS = (
    rf"<{_THINKING}(?:\s[^<>]*)?>|◁think▷|\[THINK\]|<\|START_THINKING\|>|<\|begin_of_thought\|>"
    # OpenAI's harmony format: every channel but the final one.
    r"|<\|channel\|>\s*(?!final\b)\w+[^<]*<\|message\|>"
)
_CLOSES = (
    rf"</{_THINKING}\s*>|◁/think▷|\[/THINK\]|<\|END_THINKING\|>|<\|end_of_thought\|>"
    r"|<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
)
_MARK = re.compile(rf"(?i)(?P<opens>{_OPENS})|(?P<closes>{_CLOSES})|[{{\[]")
_CLOSE = re.compile(rf"(?i){_CLOSES}")


def read_answer(
    text: str, calls: Sequence[Sequence[Cue]], names: Sequence[str]
) -> dict[int, list[Label] | AnswerInvalid]:
    """Read a model's answer: for each call, counted from 1, its labels or what is wrong with them.

    Calls are checked independently, so one bad part does not affect the others. If an answer about several calls is
    truncated, its complete parts are read.

    Args:
        text: what the model writes.
        calls: the cues of each call, as the question had them.
        names: of the phases.
    """
    answers = [_by_call(parts, len(calls)) for parts in _answers(text, several=len(calls) > 1)]
    if not answers:
        wrong = AnswerInvalid('The answer is not JSON of the form {"calls": [{"call": …, "phases": […]}]}.')
        return dict.fromkeys(range(1, len(calls) + 1), wrong)
    return {number: _last_valid(answers, number, cues, names) for number, cues in enumerate(calls, start=1)}


def _last_valid(
    answers: Sequence[dict[int, list[object]]], number: int, cues: Sequence[Cue], names: Sequence[str]
) -> list[Label] | AnswerInvalid:
    """The labels of a call in the last answer that has valid ones, else what is wrong with the last that has any."""
    problem: AnswerInvalid | None = None
    for answer in reversed(answers):
        try:
            return _labels(answer.get(number, []), cues, names)
        except AnswerInvalid as found:
            if problem is None or (number in answer and problem.args == _NONE):
                problem = found
    assert problem is not None
    return problem


_NONE = ("The answer has no phases for the call.",)


def _labels(answers: Sequence[object], cues: Sequence[Cue], names: Sequence[str]) -> list[Label]:
    if len(answers) > 1:
        raise AnswerInvalid("The answer has the call more than once.")
    phases = answers[0] if answers else None
    if not isinstance(phases, list) or not phases:
        raise AnswerInvalid(*_NONE)
    known = {name_key(name): name for name in names}
    numbers = {cue.number for cue in cues}
    labels: list[Label] = []
    for phase in phases:
        if not isinstance(phase, dict):
            raise AnswerInvalid("A phase of the answer is not an object with name, start_cue and summary.")
        given, start_cue = phase.get("name"), phase.get("start_cue")
        name = known.get(name_key(given)) if isinstance(given, str) else None
        if name is None:
            raise AnswerInvalid(f"A phase of the answer has a name that is not one of {', '.join(names)}.")
        if type(start_cue) is not int or start_cue not in numbers:
            raise AnswerInvalid("A phase of the answer has a start_cue that is not the number of a cue.")
        if labels and start_cue <= labels[-1].start_cue:
            raise AnswerInvalid(f"start_cue does not rise from phase to phase (at {start_cue}).")
        labels.append(Label(name, start_cue, shorten(str(phase.get("summary") or ""))))
    return labels


def _by_call(parts: Sequence[object], calls: int) -> dict[int, list[object]]:
    """The phases in an answer's parts by the number of their call."""
    found: dict[int, list[object]] = {}
    for part in parts:
        if isinstance(part, dict) and "phases" in part:
            with contextlib.suppress(ValueError):
                # In an answer about one call the number goes without saying.
                number = int(str(part.get("call", 1 if calls == 1 else None)))
                found.setdefault(number, []).append(part["phases"])
    return found


def _answers(text: str, *, several: bool) -> list[list[Any]]:
    """The parts of each answer in a text, in order; of a truncated answer about several calls its complete parts."""
    found: list[list[Any]] = []
    place = 0
    while mark := _MARK.search(text, place):
        if mark["opens"]:
            close = _CLOSE.search(text, mark.end())
            if close is None:
                break
            place = close.end()
            continue
        if mark["closes"]:
            # Some chat templates open the thinking, so that only its end is in the answer.
            found, place = [], mark.end()
            continue
        try:
            document, place = json.JSONDecoder().raw_decode(text, mark.start())
        except RecursionError:
            break
        except ValueError as error:
            if _is_truncated(text, error):
                if several:
                    found.append(list(_complete_parts(text, mark.start())))
                break
            place = mark.start() + 1
            continue
        if (parts := _parts(document)) is not None:
            found.append(parts)
    return found


def _parts(document: object) -> list[Any] | None:
    """The parts of an answer, one per call; None if a document is no answer."""
    if isinstance(document, dict) and isinstance(document.get("calls"), list):
        return list(document["calls"])
    if isinstance(document, dict) and "phases" in document:
        return [document]
    if isinstance(document, list) and any(isinstance(part, dict) and "phases" in part for part in document):
        return document
    return None


def _is_truncated(text: str, error: ValueError) -> bool:
    """Whether JSON is invalid because the text ends in the middle of it."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    # The decoder gives the start of a string that does not end, and of a literal or an escape that is cut.
    return error.msg.startswith("Unterminated string") or re.fullmatch(r"[\w\\.+-]*\s*", text[error.pos :]) is not None


def _complete_parts(text: str, place: int) -> Iterator[Any]:
    """The complete parts of a truncated answer that starts at ``place``."""
    decoder = json.JSONDecoder()
    begin = re.compile(r'\{\s*"calls"\s*:\s*\[|\[').match(text, place)
    with contextlib.suppress(ValueError, RecursionError):
        place = begin.end() if begin else len(text)
        while begin := re.compile(r"[\s,]*(?=\{)").match(text, place):
            part, place = decoder.raw_decode(text, begin.end())
            yield part
