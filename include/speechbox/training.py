"""Trains the weights of the local segmenter on labeled calls: a conditional random field on top of its rules.

    python -m speechbox.training include/samples/truth tests/speechbox/calls/development MORE_FOLDERS
    python -m speechbox.training … --leave-one-out MORE_FOLDERS    # also scores unseen calls

A folder contains one JSON file per call: `cues` (`cue`, `speaker`, `start_s`, `end_s`, `text`), `phases` (`name`,
`start_cue`), optionally `duration_s`, and optionally `heard`, the cues from speech recognition of the audio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from speechbox import segmenter
from speechbox.segmenter import LocalSegmenter, Scores

Json = dict[str, Any]
Integers = npt.NDArray[np.int64]

PHASES: Final = segmenter._KNOWN
STEPS: Final = 80
STEP_SIZE: Final = 0.03
RESTRAINT: Final = 3.0
"""Strength of the regularization toward 0, where only the rules apply."""
MARGIN: Final = 0.5
"""Added to the scores of wrong phases during training, so that correct phases win with a margin."""
AS_GIVEN, DEGRADED, HEARD = 1.0, 0.5, 1.5
"""Weights of the three forms of a call."""
DEGRADED_FORMS: Final = 2
WRONG_WORDS: Final = 0.12
WINDOWS: Final = 2
"""Number of windows per form of a call; windows start after the first cues."""
SHORTEST_WINDOW: Final = 8
"""Cues."""

_TAG = re.compile(r"\[[^\[\]]*\]|<[^<>]*>|~")
_QUESTION = re.compile(r"^((uh|um|okay|and|alright) )*(what|which|how|is there|can|could|may|why|who)\b|how can i help")
_SMALL_WORDS = ("uh", "the", "a", "and", "um", "it", "to")
_LETTERS = "aeiourstln"


@dataclass(frozen=True, eq=False)
class Example:
    """A form of a call for training, with one row per cue."""

    call: str
    count: float
    starts_s: Scores
    length_s: float
    truth: list[tuple[float, str]]
    """Start in seconds and name of each phase."""
    inside: Scores
    opens: Scores
    features: Scores
    phase: Integers


@dataclass
class Weights:
    """The trained weights, as in `segmenter._Learned`."""

    inside: Scores
    opens: Scores
    start: Scores
    switch: Scores

    @classmethod
    def none(cls, features: int) -> Weights:
        """Create zero weights, with which only the rules apply."""
        count = len(PHASES)
        return cls(np.zeros((features, count)), np.zeros((features, count)), np.zeros(count), np.zeros((count, count)))

    def arrays(self) -> list[Scores]:
        """Return all arrays, to be changed in place."""
        return [self.inside, self.opens, self.start, self.switch]


def read(folders: Iterable[Path]) -> list[Json]:
    """Read the calls with cues, sorted by path; `call_id` is the name of the file."""
    calls = []
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        call = json.loads(path.read_text(encoding="utf-8"))
        if call["cues"]:
            last = max(cue["end_s"] for cue in call["cues"])
            calls.append({"duration_s": last, **call, "call_id": path.stem})
    return calls


def degraded(call: Json, seed: int, wrong: float = WRONG_WORDS) -> list[Json]:
    """Imitate speech recognition: wrong words, no speakers, cues split into sentences and clauses."""
    rng = random.Random(f"{seed} {call['call_id']}")  # noqa: S311 - no secrets
    words: list[tuple[float, str]] = []
    for cue in sorted(call["cues"], key=lambda cue: cue["start_s"]):
        spoken = _TAG.sub(" ", cue["text"]).split()
        if not spoken:
            continue
        if spoken[-1][-1] not in ".?!":
            spoken[-1] += "?" if _QUESTION.search(" ".join(spoken)) else "."
        heard = _misheard(spoken, rng, wrong)
        if heard and rng.random() < wrong:
            heard[-1] = heard[-1].rstrip(".?!") + ","  # two turns become one sentence
        step = (cue["end_s"] - cue["start_s"]) / max(1, len(heard))
        words += [(cue["start_s"] + step * index, word) for index, word in enumerate(heard)]
    cues: list[Json] = []
    current: list[str] = []
    before = 0.0
    for start, word in words:
        if not current or start - before > 1.9:
            current = []
            cues.append({"cue": len(cues) + 1, "speaker": None, "start_s": start})
        current.append(word)
        cues[-1]["text"] = " ".join(current)
        before = start
        clause = word[-1] == "," and len(current) >= 5 and rng.random() < 0.25
        if word[-1] in ".?!" or clause or len(current) > 36:
            current = []
    return cues


def _misheard(words: list[str], rng: random.Random, wrong: float) -> list[str]:
    heard: list[str] = []
    for word in words:
        chance = rng.random()
        core, tail = word.rstrip(".,?!"), word[len(word.rstrip(".,?!")) :]
        if chance < wrong * 0.5:
            place = rng.randrange(1, max(2, len(core)))
            other = (
                core[:place] + rng.choice(_LETTERS) + core[place + 1 :] if len(core) > 3 else rng.choice(_SMALL_WORDS)
            )
            heard.append(other + tail)
        elif chance < wrong * 0.8:
            if heard and tail:
                heard[-1] = heard[-1].rstrip(".,?!") + tail
        else:
            heard.append(word)
            if rng.random() < wrong * 0.2:
                heard.append(rng.choice(_SMALL_WORDS))
    return heard


def examples(call: Json, model: LocalSegmenter) -> list[Example]:
    """Return the forms of a call: as labeled, degraded twice, and as recognized, if known."""
    return [_example(call, cues, count, model) for count, cues in _forms(call)]


def window_examples(call: Json, model: LocalSegmenter) -> list[Example]:
    """Return windows of each form of a call."""
    return [part for count, cues in _forms(call) for part in _windows(_example(call, cues, count, model), cues, model)]


def _forms(call: Json) -> list[tuple[float, list[Json]]]:
    forms = [(AS_GIVEN, call["cues"])]
    forms += [(DEGRADED, degraded(call, seed)) for seed in range(DEGRADED_FORMS)]
    forms += [(HEARD, call["heard"])] if call.get("heard") else []
    return forms


def _example(call: Json, cues: list[Json], count: float, model: LocalSegmenter) -> Example:
    starts = {cue["cue"]: cue["start_s"] for cue in call["cues"]}
    truth = [(starts[phase["start_cue"]], phase["name"]) for phase in call["phases"]]
    truth[0] = (0.0, truth[0][1])
    begins = np.array([cue["start_s"] for cue in cues])
    lasts = np.diff(begins, append=call["duration_s"])
    # A cue has the phase at its middle, or one second after its start if that is earlier.
    names = [_at(truth, begin + min(0.5 * last, 1.0)) for begin, last in zip(begins, lasts, strict=True)]
    inside, opens, features = _evidence(cues, model)
    phase = np.array([PHASES.index(name) for name in names])
    return Example(call["call_id"], count, begins, call["duration_s"], truth, inside, opens, features, phase)


def _windows(one: Example, cues: list[Json], model: LocalSegmenter) -> list[Example]:
    """Return windows of a call, for which the model does not know the position."""
    rng = random.Random(f"{one.call} {one.count} {len(cues)}")  # noqa: S311 - no secrets
    parts: list[Example] = []
    for _ in range(WINDOWS if len(cues) >= 2 * SHORTEST_WINDOW else 0):
        first = rng.randrange(2, len(cues) - SHORTEST_WINDOW)
        last = rng.choice([len(cues), rng.randrange(first + SHORTEST_WINDOW, len(cues) + 1)])
        inside, opens, features = _evidence(cues[first:last], model)
        parts.append(replace(one, inside=inside, opens=opens, features=features, phase=one.phase[first:last]))
    return parts


def _evidence(cues: list[Json], model: LocalSegmenter) -> tuple[Scores, Scores, Scores]:
    plain = [{key: cue.get(key) for key in ("cue", "speaker", "text")} for cue in cues]
    read_cues = segmenter._read_cues({"cues": plain})
    return model._evidence(read_cues, model._vectors(read_cues))


def _at(phases: list[tuple[float, str]], second: float) -> str:
    return [name for start, name in phases if start <= second or start == 0][-1]


class Batch:
    """Examples as arrays, padded to the longest."""

    def __init__(self, several: list[Example]) -> None:
        longest = max(len(one.phase) for one in several)

        def padded(name: str) -> Any:
            rows = [getattr(one, name) for one in several]
            return np.stack([np.pad(row, [(0, longest - len(row))] + [(0, 0)] * (row.ndim - 1)) for row in rows])

        self.inside, self.opens, self.phase = padded("inside"), padded("opens"), padded("phase")
        self.features = padded("features").astype(np.float32)
        self.real = np.array([[index < len(one.phase) for index in range(longest)] for one in several])
        self.count = np.array([one.count for one in several])


def gradient(weights: Weights, batch: Batch, start: Scores = segmenter._START) -> Weights:
    """Return the gradient of the negative log-likelihood by the forward-backward algorithm."""
    count = len(PHASES)
    changes = 1.0 - np.eye(count)
    real = batch.real[..., None]
    right = np.eye(count)[batch.phase] * real
    inside = batch.inside + batch.features @ weights.inside + MARGIN * (real - right)
    opens = batch.opens + batch.features @ weights.opens
    switch = segmenter._SWITCH + weights.switch * changes
    steps = switch + changes * opens[:, :, None, :]  # to each cue, from each phase (row) to each (column)
    calls, longest = batch.phase.shape

    ahead = np.zeros((calls, longest, count))
    ahead[:, 0] = start + weights.start + inside[:, 0] + opens[:, 0]
    for now in range(1, longest):
        reached = _log_sum(ahead[:, now - 1, :, None] + steps[:, now], 1) + inside[:, now]
        ahead[:, now] = np.where(real[:, now], reached, ahead[:, now - 1])
    total = _log_sum(ahead[:, -1], 1)[:, None]

    behind = np.zeros((calls, count))
    by_inside, by_opens, by_switch = np.zeros_like(inside), np.zeros_like(opens), np.zeros((count, count))
    weight = batch.count[:, None]
    for now in range(longest - 1, -1, -1):
        by_inside[:, now] = weight * (np.exp(ahead[:, now] + behind - total) - right[:, now]) * real[:, now]
        if now:
            onward = (inside[:, now] + behind)[:, None, :] + steps[:, now]
            passed = np.exp(ahead[:, now - 1, :, None] + onward - total[..., None])
            taken = right[:, now - 1, :, None] * right[:, now, None, :]
            surplus = (weight * real[:, now])[..., None] * (passed - taken) * changes
            by_switch += surplus.sum(axis=0)
            by_opens[:, now] = surplus.sum(axis=1)
            behind = np.where(real[:, now], _log_sum(onward, 2), behind)
    by_opens[:, 0] = by_inside[:, 0]
    columns = batch.features.reshape(calls * longest, -1).T
    return Weights(
        columns @ by_inside.reshape(-1, count).astype(np.float32) + 2 * RESTRAINT * weights.inside,
        columns @ by_opens.reshape(-1, count).astype(np.float32) + 2 * RESTRAINT * weights.opens,
        by_inside[:, 0].sum(axis=0) + 2 * weights.start,
        by_switch + 2 * weights.switch,
    )


def _log_sum(values: Scores, axis: int) -> Scores:
    highest = values.max(axis=axis, keepdims=True)
    result: Scores = np.squeeze(highest + np.log(np.exp(values - highest).sum(axis=axis, keepdims=True)), axis)
    return result


def fit(several: list[Example], start: Scores = segmenter._START) -> Weights:
    """Train weights on examples with Adam and a decreasing step size."""
    batch = Batch(several)
    weights = Weights.none(batch.features.shape[2])
    mean = [np.zeros_like(array) for array in weights.arrays()]
    square = [np.zeros_like(array) for array in weights.arrays()]
    for step in range(1, STEPS + 1):
        size = STEP_SIZE * (0.1 + 0.9 * (1 - step / STEPS))
        for index, slope in enumerate(gradient(weights, batch, start).arrays()):
            mean[index] += 0.1 * (slope - mean[index])
            square[index] += 0.01 * (slope**2 - square[index])
            spread = np.sqrt(square[index] / (1 - 0.99**step)) + 1e-8
            weights.arrays()[index] -= size * mean[index] / (1 - 0.9**step) / spread
    return weights


def scores(weights: Weights, one: Example) -> tuple[float, float]:
    """Return the share of the call's time with the correct phase, and the mean IoU of its phases."""
    path = segmenter._viterbi(
        one.inside + one.features @ weights.inside,
        one.opens + one.features @ weights.opens,
        segmenter._START + weights.start,
        segmenter._SWITCH + weights.switch * (1 - np.eye(len(PHASES))),
    )
    found = [(float(start), PHASES[index]) for start, index in zip(one.starts_s, path, strict=True)]
    found[0] = (0.0, found[0][1])
    edges = sorted({start for start, _ in [*one.truth, *found]} | {one.length_s})
    both: dict[tuple[str, str], float] = {}
    for begin, end in itertools.pairwise(edges):
        pair = _at(one.truth, begin), _at(found, begin)
        both[pair] = both.get(pair, 0.0) + end - begin
    right = sum(length for (true, given), length in both.items() if true == given)
    present = {name for _, name in one.truth}
    overlaps = [both.get((name, name), 0.0) / sum(both[pair] for pair in both if name in pair) for name in present]
    return right / one.length_s, sum(overlaps) / len(overlaps)


def main() -> None:
    """Parse the command line, train and score."""
    parser = argparse.ArgumentParser(description="Trains the weights of the local segmenter on labeled calls.")
    parser.add_argument("folders", nargs="+", type=Path, help="folders of labeled calls for training")
    parser.add_argument("--leave-one-out", nargs="+", type=Path, default=[], metavar="FOLDER",
                        help="more folders; each of their calls is scored by weights trained without it")  # fmt: skip
    parser.add_argument("--out", type=Path, default=segmenter._WEIGHTS, help="file to write")
    parser.add_argument("--dry-run", action="store_true", help="score only, without writing weights")
    args = parser.parse_args()

    model = LocalSegmenter()
    left_out = [call["call_id"] for call in read(args.leave_one_out)]
    forms = [one for call in read([*args.folders, *args.leave_one_out]) for one in examples(call, model)]
    results = []
    for name in left_out:
        weights = fit([one for one in forms if one.call != name])
        share, overlap = scores(weights, next(one for one in forms if one.call == name))
        results.append((share, overlap))
        sys.stdout.write(f"{name}  {share:.3f} of the time correct, mean IoU {overlap:.3f}\n")
    if results:
        shares, overlaps = zip(*results, strict=True)
        sys.stdout.write(
            f"{len(results)} calls, leave-one-out: mean {np.mean(shares):.3f}, worst {min(shares):.3f}, "
            f"mean IoU {np.mean(overlaps):.3f}\n"
        )
    if not args.dry_run:
        calls = read([*args.folders, *args.leave_one_out])
        parts = [one for call in calls for one in window_examples(call, model)]
        learned = {False: fit(forms)} | ({True: fit(parts, segmenter._START_OF_WINDOW)} if parts else {})
        arrays = {
            f"{segmenter._PREFIX[window]}{name}": getattr(weights, name).astype(np.float16)
            for window, weights in learned.items()
            for name in segmenter._LEARNED
        }
        np.savez(args.out, **arrays)
        sys.stdout.write(f"trained on {len(forms)} forms of {len({one.call for one in forms})} calls: {args.out}\n")


if __name__ == "__main__":
    main()
