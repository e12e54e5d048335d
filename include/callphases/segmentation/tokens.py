"""How many tokens questions and answers have, and what a question may cost before it is asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from callphases.cues import Cue
from callphases.limits.costs import ANSWER_TOKENS, QUESTION_TOKENS, TOKENS_PER_SECOND_OUT, highest_llm_usd
from callphases.pipeline import Pipeline

CHARS_PER_TOKEN, TOKENS_PER_CUE = 4.0, 12.0
TOKENS_PER_PHASE = 45
"""A name, a cue and a short sentence, as JSON."""


def estimated_question_usd(pipeline: Pipeline, audio_s: float, cues: Iterable[Cue], calls: int = 1) -> float:
    """What a question may cost, once it is known what was said: seconds and cues of all of its calls."""
    tokens_in = QUESTION_TOKENS + sum(map(cue_tokens, cues))
    tokens_out = ANSWER_TOKENS * calls + TOKENS_PER_SECOND_OUT * audio_s
    return highest_llm_usd(pipeline, tokens_in, tokens_out)


def cue_tokens(cue: Cue) -> float:
    """What a cue adds to a question."""
    return TOKENS_PER_CUE + len(cue.text) / CHARS_PER_TOKEN


def expected_tokens(pipeline: Pipeline, audio_s: float, cues: Sequence[Cue]) -> tuple[int, int]:
    """What a call adds to a question and to its answer, in tokens: at least 1 each.

    A long call comes back to its phases, a short one has most of them once.
    """
    phases = TOKENS_PER_PHASE * min(len(cues), len(pipeline.phases))
    tokens_out = ANSWER_TOKENS + max(TOKENS_PER_SECOND_OUT * audio_s, phases)
    return max(math.ceil(sum(map(cue_tokens, cues))), 1), math.ceil(tokens_out)


def shares(total: int, sizes: Sequence[int]) -> list[int]:
    """Share out ``total`` by sizes, each at least 1: whole numbers, which add up to it."""
    edges = [total * size // sum(sizes) for size in accumulate(sizes, initial=0)]
    return [after - before for before, after in pairwise(edges)]
