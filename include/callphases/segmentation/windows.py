"""Labels a call that is too long for one question, by overlapping windows.

A cue in an overlap gets a label from each window. Their votes are weighted by the cue's distance from the cut edge of
the window, because a model sees less context near an edge.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise

from callphases.cues import Cue
from callphases.errors import AnswerCut, RequestRefused
from callphases.pipeline import OTHER
from callphases.segmentation.timeline import Label, shorten
from callphases.segmentation.tokens import cue_tokens

WINDOW_TOKENS = 24_000
"""Maximum tokens of the cues in a question. For languages with a token per character the estimate is four times too
low; even then a window fits into a context of 128,000 tokens."""
LEAST_TOKENS = 1_500
"""Smaller windows are not divided further: their length is not what makes them fail."""
LEAST_TOKENS_TOO_LONG = 400
"""The same where the model says that it is: the instructions alone take a quarter of a context of 4,096 tokens."""
OVERLAP = 1 / 6
"""Part of a window that the next one repeats: about ten minutes of 24,000 tokens, enough to see how a phase began."""
SHORTEST_INTERRUPTION_S = 3.0
"""A shorter phase between two parts of another phase is an artifact of windows that disagree on an edge."""

Ask = Callable[[Sequence[Cue]], list[Label]]
"""Returns the labels of a part of a call."""


def label_call(cues: Sequence[Cue], ask: Ask) -> list[Label]:
    """Label a call of any length, in windows if it is too long for one question.

    A window whose question is refused, or whose answer is cut, is divided further.

    Args:
        cues: all cues of the call, at least one.
        ask: returns the labels of some of the cues, or raises.
    """
    return _label_in_windows(cues, ask, WINDOW_TOKENS)


def windows(cues: Sequence[Cue], tokens: float) -> list[Sequence[Cue]]:
    """Divide cues into overlapping windows of about ``tokens`` tokens, as few and as equal as possible.

    A window exceeds ``tokens`` where a single cue does. No window contains another.
    """
    ends = list(accumulate(map(cue_tokens, cues), initial=0.0))
    if ends[-1] <= tokens:
        return [cues]
    overlap = tokens * OVERLAP
    number = -int(-(ends[-1] - overlap) // (tokens - overlap))
    step = (ends[-1] - overlap) / number
    edges: list[tuple[int, int]] = []
    for place in range(number):
        first = bisect_right(ends, place * step) - 1
        last = max(bisect_right(ends, (place + 1) * step + overlap) - 1, first + 1)
        if edges:
            first = min(max(first, edges[-1][0] + 1), edges[-1][1])
            last = max(last, edges[-1][1] + 1)
        edges.append((first, min(last, len(cues)) if place < number - 1 else len(cues)))
        if edges[-1][1] == len(cues):
            break
    return [cues[first:last] for first, last in edges]


def _label_in_windows(cues: Sequence[Cue], ask: Ask, tokens: float) -> list[Label]:
    parts = windows(cues, tokens)
    if len(parts) == 1:
        return _label_window(cues, ask)
    return joined(cues, parts, [_label_window(part, ask) for part in parts])


def _label_window(cues: Sequence[Cue], ask: Ask) -> list[Label]:
    try:
        return ask(cues)
    except (AnswerCut, RequestRefused) as failure:
        if not divisible(cues, failure):
            raise
        return _label_in_windows(cues, ask, _half(cues))


def divisible(cues: Sequence[Cue], failure: AnswerCut | RequestRefused | None = None) -> bool:
    """Whether cues that are too long for one question, perhaps by ``failure``, can be divided into smaller windows."""
    is_too_long = isinstance(failure, RequestRefused) and failure.too_long
    least = LEAST_TOKENS_TOO_LONG if is_too_long else LEAST_TOKENS
    return _half(cues) >= least and len(windows(cues, _half(cues))) > 1


def _half(cues: Sequence[Cue]) -> float:
    return sum(map(cue_tokens, cues)) * (1 + OVERLAP) / 2


def joined(cues: Sequence[Cue], parts: Sequence[Sequence[Cue]], labels: Sequence[Sequence[Label]]) -> list[Label]:
    """Merge the labels of a call's windows: adjacent labels of one name are joined, short interruptions removed."""
    votes: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    summaries: dict[tuple[int, str], tuple[float, str]] = {}
    for part, found in zip(parts, labels, strict=True):
        for number, label, weight in _votes(part, found, part[0] is cues[0], part[-1] is cues[-1]):
            votes[number][label.name] += weight
            key = number, label.name
            summaries[key] = max(summaries.get(key, (0.0, "")), (weight, label.summary))
    names: list[str] = []
    for cue in cues:
        weights = votes[cue.number]
        # A cue without a vote belongs to the phase before it.
        names.append(max(weights, key=weights.__getitem__) if weights else names[-1] if names else OTHER)
    runs = [list(run) for _, run in groupby(zip(cues, names, strict=True), key=lambda pair: pair[1])]
    return [
        Label(
            run[0][1],
            run[0][0].number,
            _joined_summary(summaries.get((cue.number, name), (0.0, ""))[1] for cue, name in run),
        )
        for run in _without_interruptions(runs)
    ]


def _votes(
    part: Sequence[Cue], labels: Sequence[Label], begins: bool, ends: bool
) -> Iterator[tuple[int, Label, float]]:
    """For each cue from a window's first label on: its number, its label, and its distance from the window's cut edge.

    ``begins`` and ``ends`` say that the window starts or ends with the call, so that edge is not cut.
    """
    later = iter(labels)
    label, following = None, next(later, None)
    for place, cue in enumerate(part):
        while following is not None and following.start_cue <= cue.number:
            label, following = following, next(later, None)
        if label is not None:
            before = len(part) if begins else place + 1
            after = len(part) if ends else len(part) - place
            yield cue.number, label, min(before, after)


def _without_interruptions(runs: list[list[tuple[Cue, str]]]) -> list[list[tuple[Cue, str]]]:
    kept: list[list[tuple[Cue, str]]] = []
    for run, following in pairwise([*runs, []]):
        is_short = bool(following) and following[0][0].start_s - run[0][0].start_s < SHORTEST_INTERRUPTION_S
        if kept and is_short and kept[-1][0][1] == following[0][1]:
            kept[-1] += [(cue, following[0][1]) for cue, _ in run]
        elif kept and kept[-1][0][1] == run[0][1]:
            kept[-1] += run
        else:
            kept.append(run)
    return kept


def _joined_summary(summaries: Iterator[str]) -> str:
    return shorten(" ".join(dict.fromkeys(summaries)))
