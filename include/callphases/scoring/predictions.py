"""Gets predictions to score, from published days or a language model, and matches them to labelled calls."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from callphases.cues import Cue
from callphases.errors import CallFailure, ConfigurationError, NoModelLeft, WrongKey
from callphases.inspection import absence
from callphases.limits import costs
from callphases.pipeline import Output, Pipeline, Recordings
from callphases.scoring.labelled import LabelledCall, PredictedCall, stem
from callphases.scoring.metrics import Span
from callphases.segmentation.segmenter import CallAnswer, PackAnswer, Segmenter, packed, split
from callphases.segmentation.timeline import Label, call_end_s, timeline
from callphases.segmentation.tokens import expected_tokens
from callphases.segmentation.windows import label_call
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import read_rows

QUESTIONS_AT_ONCE = 8


@dataclass
class Spent:
    """The tokens and the cost of a model's answers; ``usd`` is None if the model's price is unknown."""

    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    models: list[str] = field(default_factory=list)
    """The models that answered, as the gateway reported them."""

    def add(self, pipeline: Pipeline, answer: PackAnswer) -> None:
        """Add the tokens and the cost of one question."""
        if answer.model is None:
            return
        usd = costs.llm_usd(pipeline, answer.model, answer.input_tokens, answer.output_tokens)
        self.usd = None if usd is None or self.usd is None else self.usd + usd
        self.input_tokens += answer.input_tokens
        self.output_tokens += answer.output_tokens
        if answer.model not in self.models:
            self.models.append(answer.model)


@dataclass(frozen=True)
class _SizedCall:
    """A call to segment, with the tokens that its question and its answer are expected to take."""

    call: LabelledCall
    cues: list[Cue]
    tokens_in: int
    tokens_out: int


def published(tables: ObjectPrefix | Path, days: Sequence[dt.date]) -> list[PredictedCall]:
    """Read the calls of published days as predictions.

    Raises:
        ConfigurationError: an object is not a table of callphases, or no day has any calls.
        ServiceUnavailable: S3 does not answer.
    """
    found: list[PredictedCall] = []
    for day in days:
        try:
            calls, phases = read_rows(tables, "calls", day), read_rows(tables, "phases", day)
        except (pa.ArrowException, OSError, KeyError) as error:
            where = tables.uri if isinstance(tables, ObjectPrefix) else tables
            raise ConfigurationError(f"{where}: {day} can't be read as tables of calls and phases: {error}") from None
        found += _of_day(calls, phases)
    if not found:
        where = tables.uri if isinstance(tables, ObjectPrefix) else str(tables)
        raise ConfigurationError(absence.no_calls(where, tables, None, days))
    return found


def _of_day(calls: Iterable[dict[str, Any]], phases: Iterable[dict[str, Any]]) -> list[PredictedCall]:
    spans: dict[str, list[Span]] = {}
    uris: dict[str, str] = {}
    for phase in phases:
        spans.setdefault(phase["call_id"], []).append(Span(phase["phase_name"], phase["start_s"], phase["end_s"]))
        uris[phase["call_id"]] = phase["recording_uri"] or ""
    why: dict[str, str] = {}
    for call in calls:
        uris.setdefault(call["call_id"], call["recording_uri"] or "")
        why[call["call_id"]] = call["failure_class"] or call["status"] or ""
    return [
        PredictedCall(
            call_id,
            uri,
            tuple(parts := sorted(spans.get(call_id, []), key=lambda span: span.start_s)),
            parts[-1].end_s if parts else None,
            "" if parts else why[call_id],
        )
        for call_id, uri in uris.items()
    ]


def matched(labelled: Sequence[LabelledCall], predicted: Sequence[PredictedCall]) -> list[PredictedCall | None]:
    """The prediction for each labelled call: by ``call_id``, else by the recording's file name.

    If several recordings have that name, the labelled call's ``recording`` selects the one whose path ends with it.

    Raises:
        ConfigurationError: several predictions fit one call, or one fits several calls.
    """
    by_id: dict[str, list[PredictedCall]] = {}
    by_name: dict[str, list[PredictedCall]] = {}
    for call in predicted:
        by_id.setdefault(call.call_id, []).append(call)
        by_name.setdefault(stem(call.recording), []).append(call)
    found: list[PredictedCall | None] = []
    taken: dict[int, LabelledCall] = {}
    for one in labelled:
        recording = one.recording
        named = [stem(recording)] if recording else [one.call_id, stem(one.call_id)]
        fitting = by_id.get(one.call_id) or next((by_name[name] for name in named if name in by_name), [])
        if len(fitting) > 1 and recording:
            fitting = [call for call in fitting if f"/{call.recording}".endswith(f"/{recording}")] or fitting
        if len(fitting) > 1:
            raise ConfigurationError(
                f"{one.path}: {len(fitting)} predictions fit {one.call_id!r}: "
                f"{', '.join(call.recording for call in fitting[:3])}; set its call_id, a longer path in its "
                "recording, or select fewer days"
            )
        if fitting and (first := taken.setdefault(id(fitting[0]), one)) is not one:
            raise ConfigurationError(
                f"{one.path}: the prediction for {fitting[0].recording} fits both {first.call_id!r} and {one.call_id!r}"
            )
        found.append(fitting[0] if fitting else None)
    return found


def pipeline_of(model: str, pipeline: Pipeline | None) -> Pipeline:
    """``pipeline``, or one with the default phases, changed to use ``model`` only."""
    if pipeline is None:
        nowhere = Output(tables="s3://nowhere/tables/", state="s3://nowhere/state/")
        pipeline = Pipeline(pipeline="score", recordings=Recordings(bucket="nowhere", prefix=""), output=nowhere)
    return pipeline.model_copy(update={"segmentation": pipeline.segmentation.model_copy(update={"models": [model]})})


def predict(calls: Sequence[LabelledCall], segmenter: Segmenter) -> tuple[list[PredictedCall], Spent]:
    """Have the pipeline's model segment labelled calls by their own cues, several per question as in a run.

    A call that gets no valid answer on its own either has no phases; its ``why`` is the failure class.

    Raises:
        ConfigurationError: the gateway does not accept the key, or does not serve the model.
        AccountError, ServiceUnavailable: as ``Segmenter.segment``.
    """
    pipeline, spent = segmenter.pipeline, Spent()
    predicted = {call.call_id: PredictedCall(call.call_id, "", (), why="no cue has text") for call in calls}
    sized = [one for one in (_sized(call, pipeline) for call in calls) if one.cues]
    packs = list(packed(sized, pipeline.segmentation.calls_per_question))
    try:
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
            while packs:
                again: list[list[_SizedCall]] = []
                for pack, answer in zip(packs, pool.map(lambda pack: _ask(pack, segmenter), packs), strict=True):
                    spent.add(pipeline, answer)
                    left: list[_SizedCall] = []
                    for one, labels in zip(pack, answer.results, strict=True):
                        call_id = one.call.call_id
                        if not isinstance(labels, CallFailure):
                            end_s = call_end_s(one.call.end_s, one.cues)
                            phases = timeline(one.cues, labels, end_s)
                            spans = tuple(Span(phase.name, phase.start_s, phase.end_s) for phase in phases)
                            predicted[call_id] = PredictedCall(call_id, "", spans, end_s)
                        elif len(pack) > 1:
                            left.append(one)
                        else:
                            predicted[call_id] = PredictedCall(call_id, "", (), why=labels.failure_class)
                    again += split(left, len(pack)) if left else []
                packs = again
    except WrongKey:
        raise ConfigurationError(
            f"The gateway at {segmenter.gateway.url} does not accept the key: set CALLPHASES_LLM_KEY to one that "
            "may use it."
        ) from None
    except NoModelLeft:
        model = pipeline.segmentation.models[0]
        raise ConfigurationError(
            f"The gateway at {segmenter.gateway.url} does not serve {model}: name another with --model."
        ) from None
    return list(predicted.values()), spent


def _sized(call: LabelledCall, pipeline: Pipeline) -> _SizedCall:
    # Transcripts have no cues without words, so models have never seen any.
    spoken = [cue for cue in call.cues if cue.text.strip()]
    cues = [Cue(number, cue.start_s, cue.end_s, cue.speaker, cue.text) for number, cue in enumerate(spoken, start=1)]
    return _SizedCall(call, cues, *expected_tokens(pipeline, call.end_s, cues))


def _ask(pack: Sequence[_SizedCall], segmenter: Segmenter) -> PackAnswer:
    if len(pack) > 1:
        return segmenter.segment_pack([one.cues for one in pack])
    answers: list[CallAnswer | CallFailure] = []

    def ask(cues: Sequence[Cue]) -> list[Label]:
        try:
            answers.append(answer := segmenter.segment(cues))
        except CallFailure as failure:
            answers.append(failure)
            raise
        return answer.labels

    found: list[Label] | CallFailure
    try:
        found = label_call(pack[0].cues, ask)
    except CallFailure as failure:
        found = failure
    tokens_in = sum(answer.input_tokens for answer in answers)
    return PackAnswer([found], answers[-1].model, tokens_in, sum(answer.output_tokens for answer in answers))
