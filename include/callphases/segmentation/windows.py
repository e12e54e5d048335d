"""A call that is too long for one question → windows that overlap → the labels of the whole call.

Where windows overlap a cue has a label from each. They vote, and a vote counts by how far the cue is from where its
window was cut off: a model knows most of what is in the middle of what it reads.
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
"""Of the cues in a question, by an estimate that is four times too low for a language with a token for each character:
such a window, too, fits into a context of 128,000 tokens."""
LEAST_TOKENS = 1_500
"""A window that is smaller is not divided any more: what is wrong with it is not its length."""
OVERLAP = 1 / 6
"""Of a window: with 24,000 tokens some ten minutes, which show how what goes on has begun."""
ISLAND_S = 3.0
"""A shorter phase between two parts of another comes of windows that do not agree on an edge."""

Ask = Callable[[Sequence[Cue]], list[Label]]


def label_call(cues: Sequence[Cue], ask: Ask) -> list[Label]:
    """The labels of a call of any length: those of ``ask``, in windows where it is too long for one question.

    A window whose question is refused, or whose answer is cut, is asked about in smaller ones.

    Args:
        cues: all of the call's, at least one.
        ask: gives the labels of some of the cues, or raises.
    """
    return _of_windows(cues, ask, WINDOW_TOKENS)


def windows(cues: Sequence[Cue], tokens: float) -> list[Sequence[Cue]]:
    """Divide cues into windows of some ``tokens``, as few and as equal as can be; each overlaps the next.

    A cue that is larger than that is in a window that is too large. No window is within another.
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


def _of_windows(cues: Sequence[Cue], ask: Ask, tokens: float) -> list[Label]:
    parts = windows(cues, tokens)
    if len(parts) == 1:
        return _of_one(cues, ask)
    return joined(cues, parts, [_of_one(part, ask) for part in parts])


def _of_one(cues: Sequence[Cue], ask: Ask) -> list[Label]:
    try:
        return ask(cues)
    except (AnswerCut, RequestRefused):
        if not divisible(cues):
            raise
        return _of_windows(cues, ask, _half(cues))


def divisible(cues: Sequence[Cue]) -> bool:
    """Whether cues that a question is too long for are asked about in smaller windows."""
    return _half(cues) >= LEAST_TOKENS and len(windows(cues, _half(cues))) > 1


def _half(cues: Sequence[Cue]) -> float:
    return sum(map(cue_tokens, cues)) * (1 + OVERLAP) / 2


def joined(cues: Sequence[Cue], parts: Sequence[Sequence[Cue]], labels: Sequence[Sequence[Label]]) -> list[Label]:
    """The labels of a call from those of its windows: neighbours of one name are one, islands are gone."""
    votes: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    told: dict[tuple[int, str], tuple[float, str]] = {}
    for part, found in zip(parts, labels, strict=True):
        for number, label, weight in _votes(part, found, part[0] is cues[0], part[-1] is cues[-1]):
            votes[number][label.name] += weight
            told[number, label.name] = max(told.get((number, label.name), (0.0, "")), (weight, label.summary))
    names: list[str] = []
    for cue in cues:
        given = votes[cue.number]
        # Not said of any window: what went on before goes on.
        names.append(max(given, key=given.__getitem__) if given else names[-1] if names else OTHER)
    runs = [list(run) for _, run in groupby(zip(cues, names, strict=True), key=lambda pair: pair[1])]
    return [
        Label(run[0][1], run[0][0].number, _summary(told.get((cue.number, name), (0.0, ""))[1] for cue, name in run))
        for run in _without_islands(runs)
    ]


def _votes(
    part: Sequence[Cue], labels: Sequence[Label], begins: bool, ends: bool
) -> Iterator[tuple[int, Label, float]]:
    """A window's label of each cue from the first that it names on, and its distance from where the window was cut."""
    later = iter(labels)
    label, following = None, next(later, None)
    for place, cue in enumerate(part):
        while following is not None and following.start_cue <= cue.number:
            label, following = following, next(later, None)
        if label is not None:
            before = len(part) if begins else place + 1
            after = len(part) if ends else len(part) - place
            yield cue.number, label, min(before, after)


def _without_islands(runs: list[list[tuple[Cue, str]]]) -> list[list[tuple[Cue, str]]]:
    kept: list[list[tuple[Cue, str]]] = []
    for run, following in pairwise([*runs, []]):
        is_short = bool(following) and following[0][0].start_s - run[0][0].start_s < ISLAND_S
        if kept and is_short and kept[-1][0][1] == following[0][1]:
            kept[-1] += [(cue, following[0][1]) for cue, _ in run]
        elif kept and kept[-1][0][1] == run[0][1]:
            kept[-1] += run
        else:
            kept.append(run)
    return kept


def _summary(summaries: Iterator[str]) -> str:
    return shorten(" ".join(dict.fromkeys(summaries)))
