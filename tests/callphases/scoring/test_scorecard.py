"""Scorecards: which calls count, which is worst, tables, remarks and the JSON document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from callphases.errors import ConfigurationError
from callphases.scoring.labelled import LabelledCall, PredictedCall
from callphases.scoring.metrics import Span
from callphases.scoring.predictions import Spent
from callphases.scoring.scorecard import document, remarks, scorecard, tables

HALVES = (Span("A", 0, 5), Span("B", 5, 10))


def labelled(call_id: str, *phases: Span) -> LabelledCall:
    return LabelledCall(call_id, None, (), phases, 10.0, Path(f"{call_id}.json"))


def predicted(*phases: Span, end_s: float = 10.0, why: str = "") -> PredictedCall:
    return PredictedCall("x", "x.mp3", phases, end_s if phases else None, why)


CALLS = [labelled("good", *HALVES), labelled("bad", *HALVES), labelled("none", *HALVES), labelled("noise")]
PREDICTED = [predicted(*HALVES), predicted(Span("A", 0, 12), end_s=12.0), None, None]


def printed(card: object) -> str:
    console = Console(width=140, markup=False)  # as the command's own
    with console.capture() as said:
        for table in tables(card):  # type: ignore[arg-type]
            console.print(table)
    return said.get()


def test_call_without_a_prediction_counts_as_wrong() -> None:
    card = scorecard(CALLS, PREDICTED)
    assert [call.labelled.call_id for call in card.calls] == ["none", "bad", "good"]
    assert (card.missing, card.left_out, card.without_phases) == (1, 0, 1)
    assert card.means["accuracy"].mean == pytest.approx(0.5)
    assert card.confusion["A", ""] == 5.0


def test_only_matched_leaves_out_calls_without_a_prediction() -> None:
    card = scorecard([*CALLS, labelled("failed", *HALVES)], [*PREDICTED, predicted(why="bad_audio")], only_matched=True)
    assert [call.labelled.call_id for call in card.calls] == ["bad", "good"]
    assert (card.missing, card.left_out) == (0, 2)
    assert card.means["accuracy"].mean == pytest.approx(0.75)


@pytest.mark.parametrize(("calls", "only"), [(CALLS[3:], False), (CALLS[2:], True), ([], False)])
def test_nothing_to_score_is_an_error(calls: list[LabelledCall], only: bool) -> None:
    with pytest.raises(ConfigurationError, match=f"nothing to score: of {len(calls)} labelled calls"):
        scorecard(calls, [None] * len(calls), only_matched=only)


def test_suspicious_predictions_have_a_problem() -> None:
    card = scorecard([*CALLS, labelled("failed", *HALVES)], [*PREDICTED, predicted(why="bad_audio")])
    problems = {call.labelled.call_id: call.problem for call in card.calls}
    assert problems == {
        "good": "", "bad": "predicted to last +2.0 s", "none": "no prediction", "failed": "no phases: bad_audio",
    }  # fmt: skip


def test_tables_show_calls_phases_confusion_and_means() -> None:
    lines = [line.split() for line in printed(scorecard(CALLS, PREDICTED)).splitlines()]
    assert ["bad", "10.0", "s", "0.500", "0.250", "0.000"] in [line[:6] for line in lines]
    assert ["A", "15.0", "s", "15.0", "s", "0.667", "0.667", "0.500"] in lines
    assert ["B", "5.0", "5.0", "5.0"] in lines
    assert any(line[:3] == ["95", "%", "interval"] for line in lines)


def test_remarks_name_the_worst_call_and_calls_not_counted() -> None:
    said = remarks(scorecard(CALLS, PREDICTED, unlabelled=3, spent=Spent(1200, 300, 0.03, ["m"])))
    assert said == [
        "Worst call: none (none.json), accuracy 0.000.",
        "1 call is labelled but not predicted, and counted as wrong.",
        "1 call is labelled as having no phases, and not scored.",
        "3 calls are predicted but not labelled.",
        "m answered: 1,200 tokens in, 300 out, $0.0300, $0.01000 a call.",
    ]
    assert (
        "cost unknown (set prices.llm_usd_per_million"
        in remarks(scorecard(CALLS, PREDICTED, spent=Spent(1, 1, None, ["m"])))[-1]
    )


def test_document_is_json_with_all_figures() -> None:
    card = scorecard(CALLS, PREDICTED, spent=Spent(1, 2, None, ["m"]))
    found = json.loads(json.dumps(document(card), allow_nan=False))
    assert (found["calls_scored"], found["calls_missing"], found["worst"]) == (3, 1, "none")
    assert found["mean"]["accuracy"]["mean"] == pytest.approx(0.5)
    assert [call["accuracy"] for call in found["calls"]] == [0.0, 0.5, 1.0]
    assert {"labelled": "A", "predicted": None, "seconds": 5.0} in found["confusion"]
    assert [phase["name"] for phase in found["phases"]] == ["A", "B"]
    assert found["spent"]["models"] == ["m"]


def test_names_with_brackets_are_printed_literally() -> None:
    odd = (Span("[red]A[/red]", 0, 10),)
    text = printed(scorecard([labelled("[b]", *odd)], [predicted(*odd)]))
    assert "[b]" in text
    assert "[red]A[/red]" in text
