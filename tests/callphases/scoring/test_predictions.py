"""Matching predictions to calls, reading published days, and asking a model."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from callphases.cues import Cue
from callphases.errors import ConfigurationError
from callphases.pipeline import LlmPrice, Pipeline, Prices
from callphases.scoring.labelled import LabelledCall, PredictedCall
from callphases.scoring.metrics import Span
from callphases.scoring.predictions import Spent, matched, pipeline_of, predict, published
from callphases.segmentation.gateway import Gateway
from callphases.segmentation.segmenter import Segmenter
from callphases.tables.schema import CALLS, PHASES, object_name
from doubles import DAY, Answer, Request, Store, Web, answer, chat_answer, phases_answer

WHOLE = (Span("Other", 0, 10),)


def labelled(call_id: str, recording: str | None = None, *texts: str) -> LabelledCall:
    cues = [Cue(number, number - 0.5, number + 0.4, "agent", text) for number, text in enumerate(texts, start=1)]
    return LabelledCall(call_id, recording, tuple(cues), WHOLE, 10.0, Path(f"{call_id}.json"))


def predicted(call_id: str, recording: str = "") -> PredictedCall:
    return PredictedCall(call_id, recording, WHOLE)


@pytest.mark.parametrize(
    ("call", "prediction"),
    [
        (labelled("a1"), predicted("a1", "s3://b/x/other.mp3")),
        (labelled("a1", "2026/call.mp3"), predicted("f00d", "s3://b/y/call.wav")),
        (labelled("call"), predicted("f00d", "s3://b/y/call.wav")),
        (labelled("2026.11.20"), predicted("f00d", "s3://b/y/2026.11.20.mp3")),
        (labelled("call.mp3"), predicted("f00d", "s3://b/y/call.mp3")),
        (labelled("a1", "call.mp3"), predicted("a1", "")),
    ],
)
def test_prediction_is_matched_by_id_or_file_name(call: LabelledCall, prediction: PredictedCall) -> None:
    assert matched([call], [predicted("x", "s3://b/x.mp3"), prediction]) == [prediction]


def test_match_by_id_wins_over_match_by_file_name() -> None:
    by_name, by_id = predicted("f00d", "s3://b/call.mp3"), predicted("call", "s3://b/else.mp3")
    assert matched([labelled("call", "call.mp3")], [by_name, by_id]) == [by_id]


def test_part_of_a_file_name_does_not_match() -> None:
    assert matched([labelled("call")], [predicted("x", "s3://b/my-call.mp3")]) == [None]


def test_path_decides_between_equal_file_names() -> None:
    two = [predicted(str(day), f"s3://b/support/2026/11/{day}/call.mp3") for day in (19, 20)]
    assert matched([labelled("a", "2026/11/20/call.mp3")], two) == [two[1]]
    for call in (labelled("call"), labelled("a", "call.mp3"), labelled("a", "elsewhere/call.mp3")):
        with pytest.raises(ConfigurationError, match=r"2 predictions fit '\w+': s3://b/support/2026/11/19/call.mp3, "):
            matched([call], two)


def test_several_predictions_for_one_call_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"2 predictions fit 'a'.* fewer days"):
        matched([labelled("a")], [predicted("a", "s3://b/a.mp3")] * 2)


def test_one_prediction_for_several_calls_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"for s3://b/call\.mp3 fits both 'call' and 'other'"):
        matched([labelled("call"), labelled("other", "x/call.mp3")], [predicted("f00d", "s3://b/call.mp3")])


def put(folder: Path, table: str, schema: pa.Schema, *rows: dict[str, Any], day: dt.date = DAY) -> Path:
    path = folder / object_name(table, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema=schema), path)
    return path


def phase(call_id: str, name: str, start_s: float, end_s: float) -> dict[str, Any]:
    uri = f"s3://recordings/{call_id}.mp3"
    return {"call_id": call_id, "recording_uri": uri, "phase_name": name, "start_s": start_s, "end_s": end_s}


def call(call_id: str, status: str, failure_class: str | None = None) -> dict[str, Any]:
    uri = f"s3://recordings/{call_id}.mp3"
    return {"call_id": call_id, "recording_uri": uri, "status": status, "failure_class": failure_class}


A_DAY = [phase("a", "Complaint", 4, 9), phase("a", "Introduction", 0, 4)]
CALLS_OF_A_DAY = [call("a", "completed"), call("b", "failed", "bad_audio"), call("c", "no_speech")]
EXPECTED = [
    PredictedCall("a", "s3://recordings/a.mp3", (Span("Introduction", 0, 4), Span("Complaint", 4, 9)), 9.0),
    PredictedCall("b", "s3://recordings/b.mp3", (), None, "bad_audio"),
    PredictedCall("c", "s3://recordings/c.mp3", (), None, "no_speech"),
]


def test_published_day_is_read_from_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "phases", PHASES, *A_DAY)
    assert published(tmp_path, [DAY]) == EXPECTED[:1]  # a copy may be of the phases alone
    put(tmp_path, "calls", CALLS, *CALLS_OF_A_DAY)
    assert published(tmp_path, [DAY]) == EXPECTED


@pytest.mark.integration
def test_published_day_is_read_from_s3(tmp_path: Path, s3: Store) -> None:
    folder = s3.tables
    for table, schema, rows in (("phases", PHASES, A_DAY), ("calls", CALLS, CALLS_OF_A_DAY)):
        folder.put(object_name(table, DAY), put(tmp_path, table, schema, *rows).read_bytes())
    assert published(folder, [DAY]) == EXPECTED


def test_what_is_not_published_is_an_error(tmp_path: Path) -> None:
    for days in ([DAY], []):
        with pytest.raises(ConfigurationError, match="holds no published day"):
            published(tmp_path, days)
    with pytest.raises(ConfigurationError, match="no such folder"):
        published(tmp_path / "nowhere", [DAY])
    put(tmp_path, "calls", CALLS, *CALLS_OF_A_DAY)
    with pytest.raises(ConfigurationError, match=r"2999-01-01 is in the future\. Published: 2026-11-20"):
        published(tmp_path, [dt.date(2999, 1, 1)])


def test_object_that_is_not_a_table_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "phases", PHASES).write_bytes(b"not Parquet")
    with pytest.raises(ConfigurationError, match="2026-11-20 can't be read as tables"):
        published(tmp_path, [DAY])


def segmenter(web: Web, pipeline: Pipeline | None = None) -> Segmenter:
    return Segmenter(Gateway("key", web.url), pipeline_of("some-model", pipeline))


def document(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.json["messages"][1]["content"])
    return found


def all_calls(request: Request) -> Answer:
    """Answers with two phases for each call of a question."""
    parts = [{"name": "Introduction", "start_cue": 1}, {"name": "Complaint", "start_cue": 2}]
    return chat_answer({"calls": [{"call": one["call"], "phases": parts} for one in document(request)["calls"]]})


def test_model_is_asked_with_the_calls_own_cues(web: Web) -> None:
    web.respond = all_calls
    calls = [labelled("a", None, "Hello.", "It is broken."), labelled("b", None, "Hi.", "", "I need a card.", "Sure.")]
    found, spent = predict(calls, segmenter(web))
    assert found[0].phases == (Span("Introduction", 0.0, 1.5), Span("Complaint", 1.5, 10.0))
    assert found[1].phases == (Span("Introduction", 0.0, 2.5), Span("Complaint", 2.5, 10.0))  # a cue has words
    (request,) = web.requests
    assert request.json["model"] == "some-model"
    assert [cue["text"] for cue in document(request)["calls"][1]["cues"]] == ["Hi.", "I need a card.", "Sure."]
    assert spent == Spent(100, 20, None, ["some-model"])


def test_pipeline_sets_phases_prices_and_calls_per_question(web: Web, tmp_path: Path) -> None:
    default = pipeline_of("x", None)
    one_each = default.segmentation.model_copy(update={"calls_per_question": 1})
    prices = Prices(llm_usd_per_million={"some-model": LlmPrice(input=10, output=50)})
    web.respond = all_calls
    pipeline = default.model_copy(update={"segmentation": one_each, "prices": prices, "phases": default.phases[:2]})
    found, spent = predict([labelled(str(number), None, "A.", "B.") for number in range(5)], segmenter(web, pipeline))
    assert [one.call_id for one in found] == ["0", "1", "2", "3", "4"]
    assert len(web.requests) == 5
    assert spent.usd == pytest.approx(5 * (100 * 10 + 20 * 50) / 1e6)
    assert [one["name"] for one in document(web.requests[0])["phases"]] == ["Introduction", "Complaint"]


def test_call_without_a_valid_answer_is_retried_alone(web: Web) -> None:
    def respond(request: Request) -> Answer:
        texts = [one["cues"][0]["text"] for one in document(request)["calls"]]
        if texts == ["Bad."]:
            return phases_answer(("Nonsense", 1))
        parts = [{"name": "Other", "start_cue": 1}]
        return chat_answer({"calls": [{"call": 1 + texts.index(text), "phases": parts} for text in texts[:1]]})

    web.respond = respond
    calls = [labelled(text, None, text) for text in ("Good.", "Bad.", "Fine.")]
    found, spent = predict([*calls, labelled("mute", None, " ")], segmenter(web))
    assert [one.why for one in found] == ["", "answer_invalid", "", "no cue has text"]
    assert [len(one.phases) for one in found] == [1, 0, 1, 0]
    assert spent.input_tokens == 100 * len(web.requests)


@pytest.mark.parametrize(
    ("refusal", "what"),
    [
        (answer({"error": "Invalid API key"}, 401), "does not accept the key: set CALLPHASES_LLM_KEY"),
        (answer({"error": "model some-model is not supported"}, 400), "does not serve some-model: name another with"),
    ],
)
def test_account_errors_name_the_setting(web: Web, refusal: Answer, what: str) -> None:
    web.respond = lambda _: refusal
    with pytest.raises(ConfigurationError, match=what):
        predict([labelled("a", None, "Hello.")], segmenter(web))
