"""Estimates of the tokens of questions and answers, and of what a question costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from callphases.cues import Cue
from callphases.limits.costs import ANSWER_TOKENS, QUESTION_TOKENS, TOKENS_PER_SECOND_OUT, highest_llm_usd
from callphases.pipeline import Pipeline

CHARS_PER_TOKEN, TOKENS_PER_CUE = 4.0, 12.0
TOKENS_PER_PHASE = 45
"""A name, a cue number and a short sentence, as JSON."""


def estimated_question_usd(pipeline: Pipeline, audio_s: float, cues: Iterable[Cue], calls: int = 1) -> float:
    """The cost of a question in US dollars, from the seconds of audio and the cues of all its calls."""
    tokens_in = QUESTION_TOKENS + sum(map(cue_tokens, cues))
    tokens_out = ANSWER_TOKENS * calls + TOKENS_PER_SECOND_OUT * audio_s
    return highest_llm_usd(pipeline, tokens_in, tokens_out)


def cue_tokens(cue: Cue) -> float:
    """Tokens that a cue adds to a question."""
    return TOKENS_PER_CUE + len(cue.text) / CHARS_PER_TOKEN


def expected_tokens(pipeline: Pipeline, audio_s: float, cues: Sequence[Cue]) -> tuple[int, int]:
    """Tokens that a call adds to a question and to its answer, at least 1 each.

    Answers grow with a call's length, because phases recur in long calls; a short call has most phases once.
    """
    phases = TOKENS_PER_PHASE * min(len(cues), len(pipeline.phases))
    tokens_out = ANSWER_TOKENS + max(TOKENS_PER_SECOND_OUT * audio_s, phases)
    return max(math.ceil(sum(map(cue_tokens, cues))), 1), math.ceil(tokens_out)


def shares(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide ``total`` in proportion to ``sizes`` (each at least 1) into integers that add up to it."""
    edges = [total * size // sum(sizes) for size in accumulate(sizes, initial=0)]
    return [after - before for before, after in pairwise(edges)]
