"""What makes a list of phases a valid timeline of a call.

The model names the cue that a phase begins at; seconds follow from the cues. So the phases of a call cover 0 to its end
without gap or overlap, in order, at edges that are edges of cues, whatever the model says. Silence between two phases
belongs to the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from callphases.cues import Cue
from callphases.pipeline import OTHER

LONGEST_SUMMARY = 300
ROUNDING_S = 1.0


@dataclass(frozen=True)
class Label:
    """What a model says of a phase: its name, the cue that it begins at, and what happens in it."""

    name: str
    start_cue: int
    summary: str


@dataclass(frozen=True)
class Phase:
    """A part of a call from ``start_s`` to ``end_s``, in seconds from its beginning; cues are counted from 1."""

    name: str
    start_s: float
    end_s: float
    start_cue: int
    end_cue: int
    word_count: int
    summary: str


def call_end_s(audio_s: float, cues: Sequence[Cue]) -> float:
    """Where a call ends: with its audio, whose length services tell in whole seconds, so the last cue may end after it.

    Cues that end later than such rounding explains do not make the call longer.
    """
    last_s = max(cue.end_s for cue in cues)
    return last_s if audio_s <= 0 else audio_s if last_s > audio_s + ROUNDING_S else max(audio_s, last_s)


def timeline(cues: Sequence[Cue], labels: Sequence[Label], end_s: float) -> list[Phase]:
    """Make the phases of a call.

    Args:
        cues: all of them, at least one, numbered from 1 in the order of their starts.
        labels: by ``start_cue``, strictly rising, each the number of a cue. Cues before the first are ``Other``.
        end_s: where the call ends. Cues may go on after it; no phase begins there.
    """
    if labels[0].start_cue > 1:
        labels = [Label(OTHER, 1, ""), *labels]
    # The first phase begins with the call. Two phases that begin at the same moment can't both last, so the later one
    # takes the earlier one's cues.
    parts: list[tuple[float, Label]] = []
    for label in labels:
        start_s = min(cues[label.start_cue - 1].start_s, end_s) if parts else 0.0
        if parts and (start_s <= parts[-1][0] or start_s >= end_s):
            if start_s >= end_s:
                continue
            start_s, earlier = parts.pop()
            label = Label(label.name, earlier.start_cue, label.summary)
        if parts and parts[-1][1].name == label.name:
            start_s, earlier = parts.pop()
            label = Label(label.name, earlier.start_cue, shorten(f"{earlier.summary} {label.summary}"))
        parts.append((start_s, label))
    ends = [(start_s, label.start_cue - 1) for start_s, label in parts[1:]] + [(end_s, len(cues))]
    return [
        Phase(
            name=label.name,
            start_s=start_s,
            end_s=phase_end_s,
            start_cue=label.start_cue,
            end_cue=end_cue,
            word_count=sum(cue.word_count for cue in cues[label.start_cue - 1 : end_cue]),
            summary=label.summary,
        )
        for (start_s, label), (phase_end_s, end_cue) in zip(parts, ends, strict=True)
    ]


def shorten(summary: str) -> str:
    """A summary on one line, without control characters, of at most 300 characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in summary).split())
    return line if len(line) <= LONGEST_SUMMARY else line[: LONGEST_SUMMARY - 1].rstrip() + "…"
