"""Builds the timeline of a call from labels.

The model names the cue at which a phase starts; times are derived from the cues. Whatever the model answers, the phases
therefore cover the call from 0 to its end, in order, without gaps or overlaps, with edges at cue boundaries. Silence
between two phases belongs to the earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from callphases.cues import Cue
from callphases.pipeline import OTHER

LONGEST_SUMMARY = 300
ROUNDING_S = 1.0
"""Services report the length of audio in whole seconds."""


@dataclass(frozen=True)
class Label:
    """A phase as the model describes it: its name, the number of its first cue, and a summary."""

    name: str
    start_cue: int
    summary: str


@dataclass(frozen=True)
class Phase:
    """A part of a call. Times are in seconds from its start; cues are numbered from 1, and ``end_cue`` is inclusive."""

    name: str
    start_s: float
    end_s: float
    start_cue: int
    end_cue: int
    word_count: int
    summary: str


def call_end_s(audio_s: float, cues: Sequence[Cue]) -> float:
    """When a call ends, in seconds: with its audio, or with its last cue if that ends later because of rounding.

    Cues that end later than rounding explains don't extend the call.
    """
    last_s = max(cue.end_s for cue in cues)
    return last_s if audio_s <= 0 else audio_s if last_s > audio_s + ROUNDING_S else max(audio_s, last_s)


def timeline(cues: Sequence[Cue], labels: Sequence[Label], end_s: float) -> list[Phase]:
    """Build the phases of a call.

    Args:
        cues: all cues, at least one, numbered from 1 in order of their start.
        labels: at least one, with strictly increasing ``start_cue``, each the number of a cue. Cues before the first
            label are ``Other``.
        end_s: when the call ends. Cues may end after it, but no phase starts there.
    """
    if labels[0].start_cue > 1:
        labels = [Label(OTHER, 1, ""), *labels]
    # The first phase starts with the call. Of two phases that start at the same time, the later one takes the cues of
    # the earlier one, which would have no duration.
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
    """A summary as one line of at most 300 characters, without control characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in summary).split())
    return line if len(line) <= LONGEST_SUMMARY else line[: LONGEST_SUMMARY - 1].rstrip() + "…"
