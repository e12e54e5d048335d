"""Corrupts answers in the ways of language models: fences, prose, truncation, unknown names and cues."""

import json
from collections.abc import Callable
from typing import Any

from speechbox import chat
from speechbox.faults import Firing

Json = dict[str, Any]
#: The corrupted text, and its finish_reason if it differs.
Spoilt = tuple[str, str | None]
Spoil = Callable[[str, Firing, Json], Spoilt]

_PROSE = (
    "Here are the phases {{as asked for}}, call by call {{1, 2, …}}:\n\n{answer}\n\n"
    "I was not sure about {{the last one}}: shall I look at it again?"
)


def spoil(completion: Json, firing: Firing, question: Json) -> Json:
    """Apply the fault to a chat completion. Faults of calls do not change a truncated answer."""
    if firing.rule.fault == "no_choices":
        return completion | {"choices": []}
    (choice,) = completion["choices"]
    text, reason = _SPOILS[firing.rule.fault](choice["message"]["content"], firing, question)
    tokens, usage = chat.tokens(text), completion["usage"]
    return completion | {
        "choices": [
            choice
            | {"message": choice["message"] | {"content": text}, "finish_reason": reason or choice["finish_reason"]}
        ],
        "usage": usage
        | {
            "output_tokens": tokens,
            "completion_tokens": tokens,
            "total_tokens": usage["input_tokens"] + tokens,
        },
    }


def _cut(text: str, firing: Firing, _: Json) -> Spoilt:
    return text[: len(text) // 2], firing.one_of(("length", "max_tokens"))


def _refusal(_: str, firing: Firing, __: Json) -> Spoilt:
    return "I'm sorry, but I can't help with this conversation.", firing.one_of(("content_filter", "refusal"))


def _missing_call(text: str, firing: Firing, _: Json) -> Spoilt:
    answer = _read(text)
    if not answer["calls"]:
        return text, None
    answer["calls"].remove(firing.one_of(answer["calls"]))
    return _written(answer), None


def _in_one_call(change: Callable[[list[Json], list[int]], None]) -> Spoil:
    """Create a fault that changes the phases of one call, given the numbers of its cues."""

    def spoil_one(text: str, firing: Firing, question: Json) -> Spoilt:
        answer = _read(text)
        calls = [call for call in answer["calls"] if call["phases"]]
        if not calls:
            return text, None
        call = firing.one_of(calls)
        cues = next(asked["cues"] for asked in question["calls"] if asked["call"] == call["call"])
        change(call["phases"], [cue["cue"] for cue in cues])
        return _written(answer), None

    return spoil_one


def _wrong_name(phases: list[Json], _: list[int]) -> None:
    phases[-1]["name"] = "Small talk about the weather"


def _unordered(phases: list[Json], cues: list[int]) -> None:
    phases[-1]["start_cue"] = cues[-1]
    phases.append(phases[-1] | {"name": phases[0]["name"], "start_cue": cues[0]})


def _unknown_cue(phases: list[Json], cues: list[int]) -> None:
    phases[-1]["start_cue"] = max(cues) + 1


def _missing_fields(phases: list[Json], _: list[int]) -> None:
    del phases[-1]["start_cue"], phases[-1]["summary"]


_SPOILS: dict[str, Spoil] = {
    "fenced": lambda text, *_: (f"```json\n{text}\n```", None),
    "wordy": lambda text, *_: (_PROSE.format(answer=text), None),
    "cut": _cut,
    "not_json": lambda *_: ("The caller complains, and the agent helps. They part as friends.", None),
    "empty": lambda *_: ("", None),
    "refusal": _refusal,
    "missing_call": _missing_call,
    "wrong_name": _in_one_call(_wrong_name),
    "unordered": _in_one_call(_unordered),
    "unknown_cue": _in_one_call(_unknown_cue),
    "missing_fields": _in_one_call(_missing_fields),
}


def _read(text: str) -> Json:
    """Parse the answer; returns one without calls if it is truncated."""
    try:
        answer: Json = json.loads(text)
    except ValueError:
        return {"calls": []}
    return answer


def _written(answer: Json) -> str:
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
