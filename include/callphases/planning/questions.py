"""The tokens of questions about calls without transcripts: by what calls took before, or by assumption."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from callphases.errors import CallphasesError
from callphases.limits import costs
from callphases.listing.listing import chunk_counts
from callphases.pipeline import Pipeline
from callphases.segmentation import segmenter, tokens, windows
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import read_table_day

TOKENS_PER_SECOND = 5.6
"""Of a call's cues, as JSON, in a question. Measured on 36 calls of the corpus HarperValleyBank (5.1; held over real
telephones, with pauses) and on the 12 sample calls of this repository (5.8), at 4 characters a token."""
SECONDS_PER_CUE = 3.8
"""Of the same calls: 3.5 and 4.3."""
CALL_TOKENS_IN, CALL_TOKENS_OUT = 7, 10
"""JSON around a call in a question and in an answer."""
PHASE_TOKENS_OUT = 38
"""A phase in an answer: name, cue and a sentence. The same calls have 36 and 38."""
SECONDS_PER_LATER_PHASE = 180.0
"""In a long call phases come back: one more for each three minutes. An assumption."""
DAYS_READ = 30
LEAST_CALLS = 20
"""Fewer calls tell less than the assumptions."""
_COLUMNS = ["status", "duration_s", "llm_input_tokens", "llm_output_tokens"]


class Tokens(NamedTuple):
    """What a call takes: tokens of questions and of answers, and its share of questions."""

    input: float
    output: float
    questions: float


@dataclass(frozen=True)
class CallTokens:
    """The tokens that a call is expected to take.

    Attributes:
        calls: that this was learned from; 0 if it is assumed.
        days: their days.
        input, output: tokens of a call, and of each second of it; None if assumed.
    """

    instructions: float
    phases: int
    calls_per_question: int
    calls_per_chunk: int
    calls: int = 0
    days: tuple[dt.date, ...] = ()
    input: tuple[float, float] | None = None
    output: tuple[float, float] | None = None

    def of(self, audio_s: float) -> Tokens:
        """What a call of ``audio_s`` seconds takes; nothing if it has no audio."""
        if audio_s <= 0:
            return Tokens(0.0, 0.0, 0.0)
        assumed = self._assumed(audio_s)
        if self.input is None or self.output is None:
            return assumed
        return Tokens(
            self.input[0] + self.input[1] * audio_s, self.output[0] + self.output[1] * audio_s, assumed.questions
        )

    def _assumed(self, audio_s: float) -> Tokens:
        cues = max(math.ceil(audio_s / SECONDS_PER_CUE), 1)
        phases = min(self.phases + audio_s / SECONDS_PER_LATER_PHASE, cues)
        tokens_in = CALL_TOKENS_IN + TOKENS_PER_SECOND * audio_s
        tokens_out = CALL_TOKENS_OUT + PHASE_TOKENS_OUT * phases
        questions = self._questions(audio_s, tokens_in)
        if tokens_in > windows.WINDOW_TOKENS:
            overlap = windows.WINDOW_TOKENS * windows.OVERLAP
            questions = math.ceil((tokens_in - overlap) / (windows.WINDOW_TOKENS - overlap))
            tokens_in += overlap * (questions - 1)
        return Tokens(tokens_in + questions * self.instructions, tokens_out, questions)

    def _questions(self, audio_s: float, tokens_in: float) -> float:
        """A call's share of a question, if all calls of a chunk are like it."""
        tokens_out = costs.ANSWER_TOKENS + max(
            costs.TOKENS_PER_SECOND_OUT * audio_s, tokens.TOKENS_PER_PHASE * self.phases
        )
        together = min(
            self.calls_per_question,
            max(int(segmenter.PACK_TOKENS_IN / tokens_in), 1),
            max(int(segmenter.PACK_TOKENS_OUT / tokens_out), 1),
        )
        return math.ceil(self.calls_per_chunk / together) / self.calls_per_chunk


def expected(pipeline: Pipeline, calls_a_run: int) -> CallTokens:
    """Without calls that tell: by the question that this pipeline asks, and the figures of this module."""
    return CallTokens(
        instructions=segmenter.question_chars(pipeline) / tokens.CHARS_PER_TOKEN,
        phases=len(pipeline.phases),
        calls_per_question=pipeline.segmentation.calls_per_question,
        calls_per_chunk=calls_per_chunk(calls_a_run),
    )


def calls_per_chunk(calls_a_run: int) -> int:
    """How many calls the chunks of a run have that has so many."""
    counts = chunk_counts([1] * calls_a_run, is_archive=True)
    return math.ceil(calls_a_run / len(counts)) if counts else 1


def days_to_read(published: Sequence[dt.date]) -> list[dt.date]:
    """Some of the published days, from all of their time, to learn from."""
    step = max(math.ceil(len(published) / DAYS_READ), 1)
    return list(published[::-1][::step])


def learned(base: CallTokens, tables: ObjectPrefix, days: Iterable[dt.date]) -> CallTokens:
    """What the calls of some published days took; ``base`` where there are too few, or none can be read."""
    lengths: list[float] = []
    inputs: list[float] = []
    outputs: list[float] = []
    read: list[dt.date] = []
    for day in days:
        try:
            table = read_table_day(tables, "calls", day, _COLUMNS)
        except (CallphasesError, pa.ArrowException, OSError, ValueError):
            continue
        if table is None:
            continue
        rows = [
            row
            for row in table.to_pylist()
            if row["status"] in ("completed", "no_speech")
            and row["duration_s"]
            and (row["status"] == "no_speech" or row["llm_input_tokens"])
        ]
        if rows:
            read.append(day)
        lengths += [row["duration_s"] for row in rows]
        inputs += [row["llm_input_tokens"] or 0 for row in rows]
        outputs += [row["llm_output_tokens"] or 0 for row in rows]
    if len(lengths) < LEAST_CALLS or not any(inputs):
        return base
    return CallTokens(
        base.instructions,
        base.phases,
        base.calls_per_question,
        base.calls_per_chunk,
        len(lengths),
        tuple(read),
        _line(lengths, inputs),
        _line(lengths, outputs),
    )


def _line(lengths: list[float], values: list[float]) -> tuple[float, float]:
    """The straight line through the values by least squares, neither part below 0: at length 0, and per second."""
    count = len(lengths)
    mean_x, mean_y = sum(lengths) / count, sum(values) / count
    squares = sum((x - mean_x) ** 2 for x in lengths)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(lengths, values, strict=True)) / squares if squares else 0.0
    if slope <= 0:
        return mean_y, 0.0
    if mean_y - slope * mean_x < 0:
        return 0.0, mean_y / mean_x
    return mean_y - slope * mean_x, slope
