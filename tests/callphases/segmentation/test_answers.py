"""How a model's answer is found in what it writes, and read as labels."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.errors import AnswerInvalid
from callphases.segmentation.answers import read_answer
from callphases.segmentation.timeline import Label
from doubles import cue

CUES = [
    cue(1, 0.5, 2, "Thank you for calling.", "A"),
    cue(2, 2.5, 5, "My invoice is wrong.", "B"),
    cue(3, 5, 8, "Grüß Gott “ja” 🎧", None),
]
NAMES = ["Introduction", "Complaint", "Resolution", "Goodbye", "Other"]


def one_call(*phases: object) -> str:
    return json.dumps({"calls": [{"call": 1, "phases": list(phases)}]})


def phase(name: object = "Introduction", start_cue: object = 1, summary: object = "Hi.") -> dict[str, Any]:
    return {"name": name, "start_cue": start_cue, "summary": summary}


def read(text: str) -> list[Label] | AnswerInvalid:
    result = read_answer(text, [CUES], NAMES)
    assert list(result) == [1]
    return result[1]


VALID = one_call(phase("Introduction", 1), phase("Complaint", 3, "Broken."))


@pytest.mark.parametrize(
    "text",
    [
        VALID,
        f"```json\n{VALID}\n```",
        f"Here are the phases:\n\n{VALID}\n\nLet me know!",
        f"Sure {{name}}: {VALID}",
        one_call(phase(" introduction ", 1), phase("COMPLAINT", 3, "Broken.")),
        one_call(phase("Introduction", 1) | {"confidence": 0.9}, phase("Complaint", 3, "Broken.")),
        VALID.replace('"call": 1', '"call": "1"'),
    ],
    ids=["plain", "fenced", "wordy", "braces in words", "case and spaces", "more keys", "call in quotes"],
)
def test_answer_is_read_however_it_is_wrapped(text: str) -> None:
    assert read(text) == [Label("Introduction", 1, "Hi."), Label("Complaint", 3, "Broken.")]


DRAFT = one_call(phase("Goodbye", 1))
PARTS = json.dumps(json.loads(VALID)["calls"])


@pytest.mark.parametrize(
    "text",
    [
        f'<think>Cue {{"cue": 2}} opens it.</think>{VALID}',
        f"<think>{DRAFT}</think>\n\n{VALID}",
        f"<think>\n{DRAFT}\n</think>\n```json\n{VALID}\n```",
        f"<thinking>First {DRAFT}, or <b>{DRAFT}</b>?</thinking>{VALID}",
        f'<reasoning effort="high">{DRAFT}</reasoning>{VALID}',
        f"Hm, {DRAFT}? No.</think>{VALID}",
        f"<think>a<think>{DRAFT}</think>{DRAFT}</think>{VALID}",
        f"<think>one {DRAFT}</think><think>two {DRAFT}</think>{VALID}",
        f"{VALID}<think>Or {DRAFT}?",
        f"◁think▷{DRAFT}◁/think▷{VALID}",
        f"[THINK]{DRAFT}[/THINK]{VALID}",
        f"<|START_THINKING|>{DRAFT}<|END_THINKING|>{VALID}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{VALID}<|return|>",
        f"<|channel|>analysis<|message|>{DRAFT}<|channel|>final <|constrain|>json<|message|>{VALID}",
        f"For example {DRAFT}. Here it is: {VALID}",
        f"{DRAFT}\n\nThat was wrong.\n\n{VALID}",
        f'{VALID} {{"note": 1}} [1, 2]',
        f"{one_call(phase('Hold', 1))} {VALID}",
        f"{VALID} {one_call(phase('Hold', 1))}",
        f'{VALID} {{"calls": []}}',
        f"As in [1] and {{x}}: {VALID}",
        f"Answer: {PARTS}",
        PARTS[1:-1],
        PARTS.replace('"call": 1, ', ""),
        f'{{"calls": {PARTS[:-1]},]}}',
        f'{{"question": 1, "calls": {PARTS}}}',
        VALID.replace('"Introduction"', '"**Introduction**"').replace("Complaint", "“Complaint”."),
    ],
)
def test_last_valid_answer_outside_of_thinking_counts(text: str) -> None:
    assert read(text) == [Label("Introduction", 1, "Hi."), Label("Complaint", 3, "Broken.")]


@pytest.mark.parametrize(
    "text",
    [
        f"<think>{VALID}",
        f"<think>{VALID}</think>",
        f"<think>{VALID}</think>I can't tell.",
        f"{VALID}</think>",
        f"<|channel|>analysis<|message|>{VALID}<|end|>",
        f"<|channel|>commentary to=user<|message|>{VALID}",
        f"◁think▷{VALID}",
    ],
)
def test_draft_is_no_answer(text: str) -> None:
    assert isinstance(read(text), AnswerInvalid)


def test_thinking_in_a_summary_is_text() -> None:
    said = "He says </think> and <think> and [1]."
    assert read(one_call(phase(summary=said))) == [Label("Introduction", 1, said)]


def test_correction_of_one_call_leaves_the_others() -> None:
    first, second = ({"call": number, "phases": [phase(summary="Old.")]} for number in (1, 2))
    mended = {"call": 2, "phases": [phase(summary="New.")]}
    text = f"{json.dumps({'calls': [first, second]})} No: {json.dumps({'calls': [mended]})}"
    found = read_answer(text, [CUES, CUES], NAMES)
    assert found == {1: [Label("Introduction", 1, "Old.")], 2: [Label("Introduction", 1, "New.")]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON of the form"),
        ("I can't do that.", "not JSON of the form"),
        (VALID[:-10], "not JSON of the form"),
        ("[]", "not JSON of the form"),
        ("{}", "not JSON of the form"),
        ('{"calls": 1}', "not JSON of the form"),
        ('{"calls": {}}', "not JSON of the form"),
        ('{"calls": ' * 100_000, "not JSON of the form"),
        ('{"calls": []}', "no phases for the call"),
        ('{"calls": [1]}', "no phases for the call"),
        ('{"calls": [{"call": 1}]}', "no phases for the call"),
        ('{"calls": [{"phases": []}]}', "no phases for the call"),
        ('{"calls": [{"call": 1e400, "phases": []}]}', "no phases for the call"),
        ('{"calls": [{"call": 1.5, "phases": []}]}', "no phases for the call"),
        ('{"calls": [{"call": true, "phases": []}]}', "no phases for the call"),
        ('{"calls": [{"call": 2, "phases": []}]}', "no phases for the call"),
        (one_call(), "no phases for the call"),
        ('{"calls": [{"call": 1, "phases": {"name": "Other"}}]}', "no phases for the call"),
        (VALID.replace("]}]}", "]}, " + VALID.removeprefix('{"calls": [')), "has the call more than once"),
        (one_call("Introduction"), "not an object with name"),
        (one_call(phase("Hold")), "not one of Introduction, Complaint, Resolution, Goodbye, Other"),
        (one_call(phase(None)), "not one of"),
        (one_call(phase(["Other"])), "not one of"),
        (one_call({"start_cue": 1}), "not one of"),
        (one_call(phase(start_cue=0)), "not the number of a cue"),
        (one_call(phase(start_cue=4)), "not the number of a cue"),
        (one_call(phase(start_cue=-1)), "not the number of a cue"),
        (one_call(phase(start_cue=True)), "not the number of a cue"),
        (one_call(phase(start_cue="1")), "not the number of a cue"),
        (one_call(phase(start_cue=1.5)), "not the number of a cue"),
        (one_call(phase(start_cue=None)), "not the number of a cue"),
        (one_call({"name": "Other"}), "not the number of a cue"),
        (one_call(phase(start_cue=2), phase("Other", 1)), "does not rise from phase to phase (at 1)"),
        (one_call(phase(start_cue=2), phase("Other", 2)), "does not rise from phase to phase (at 2)"),
    ],
)
def test_invalid_answer_says_what_is_wrong(text: str, problem: str) -> None:
    found = read(text)
    assert isinstance(found, AnswerInvalid)
    assert problem in str(found)


@pytest.mark.parametrize(
    ("summary", "stored"),
    [(None, ""), ("a\nb\u2028c", "a b c"), ("x" * 400, "x" * 299 + "…"), (7, "7"), ("\ud800", "")],
)
def test_summaries_are_capped_to_one_line(summary: object, stored: str) -> None:
    assert read(one_call(phase(summary=summary))) == [Label("Introduction", 1, stored)]


GOOD_PARTS: list[Any] = [{"call": number, "phases": [phase(summary=f"Call {number}.")]} for number in range(1, 5)]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [2],
        [None],
        [{"call": 2}],
        [{"phases": [phase()]}],
        [{"call": "two", "phases": [phase()]}],
        [{"call": [2], "phases": [phase()]}],
        [{"call": 2, "phases": []}],
        [{"call": 2, "phases": [phase("Hold")]}],
        [{"call": 2, "phases": [phase(start_cue=9)]}],
        [{"call": 2, "phases": [phase(start_cue=2), phase("Other", 1)]}],
        [{"call": 2, "phases": [phase()]}, {"call": 2, "phases": [phase("Other")]}],
        [{"call": 7, "phases": [phase()]}],
    ],
)
def test_invalid_part_does_not_affect_other_calls(parts: list[object]) -> None:
    text = json.dumps({"calls": [GOOD_PARTS[2], *parts, GOOD_PARTS[3], GOOD_PARTS[0]]})
    found = read_answer(text, [CUES] * 4, NAMES)
    assert list(found) == [1, 2, 3, 4]
    assert isinstance(found[2], AnswerInvalid)
    assert [found[number] for number in (1, 3, 4)] == [
        [Label("Introduction", 1, f"Call {number}.")] for number in (1, 3, 4)
    ]


@given(st.data(), st.sampled_from(["", "```json\n", "Here {they} are: "]), st.sampled_from([None, 1]))
def test_complete_parts_of_a_truncated_answer_are_read(data: st.DataObject, before: str, indent: int) -> None:
    text = before + json.dumps({"calls": GOOD_PARTS}, indent=indent)
    cut = text[: data.draw(st.integers(0, len(text)))]
    found = read_answer(cut, [CUES] * 4, NAMES)
    whole = [number for number in range(1, 5) if json.dumps(GOOD_PARTS[number - 1], indent=indent) in cut]
    if indent is None:
        assert [number for number in found if not isinstance(found[number], AnswerInvalid)] == whole
    for number, labels in found.items():
        assert isinstance(labels, AnswerInvalid) or labels == [Label("Introduction", 1, f"Call {number}.")]


def test_truncated_answer_about_one_call_is_invalid() -> None:
    assert isinstance(read(VALID[:-2]), AnswerInvalid)


def test_window_keeps_the_cue_numbers_of_its_call() -> None:
    window = [cue(41, 90, 91), cue(42, 91, 92)]
    assert read_answer(one_call(phase(start_cue=41)), [window], NAMES)[1] == [Label("Introduction", 41, "Hi.")]
    assert isinstance(read_answer(one_call(phase(start_cue=1)), [window], NAMES)[1], AnswerInvalid)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*NAMES, 1, 2, 3])
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["calls", "call", "phases", "name", "start_cue", "summary"]), inner)
    ),
    max_leaves=20,
)
some_phases = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(NAMES) | scalars, "start_cue": scalars, "summary": anything}),
    max_size=3,
)
nearly = st.fixed_dictionaries({"call": st.just(1) | scalars, "phases": some_phases | anything}).map(
    lambda call: {"calls": [call]}
)


@given(anything | nearly)
def test_any_json_yields_valid_labels_or_a_problem(document: object) -> None:
    found = read(json.dumps(document))
    if not isinstance(found, AnswerInvalid):
        numbers = [label.start_cue for label in found]
        assert numbers == sorted(set(numbers))
        assert set(numbers) <= {1, 2, 3}
        assert {label.name for label in found} <= set(NAMES)


pieces = st.sampled_from(
    ["<think>", "</think>", "{", "}", "[", "]", '"calls": ', VALID, VALID[:60], DRAFT, ",", "\\", '"']
)


@given(st.text() | st.lists(pieces | st.text(max_size=3), max_size=8).map("".join))
def test_any_text_yields_valid_labels_or_a_problem(text: str) -> None:
    found = read(text)
    assert isinstance(found, AnswerInvalid) or {label.start_cue for label in found} <= {1, 2, 3}
    for labels in read_answer(text, [CUES, CUES], NAMES).values():
        assert isinstance(labels, AnswerInvalid | list)


@given(st.lists(pieces, max_size=4).map("".join))
def test_nothing_in_an_open_thought_counts(thought: str) -> None:
    text = "<think>" + re.sub("</think>", "", thought)
    assert isinstance(read(text), AnswerInvalid)
