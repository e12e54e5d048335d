"""Talk statistics of a call and of each of its phases: talk time, turns, interruptions, pace and confidence.

They are computed from the cues alone, in whole milliseconds as the services report them, so that the phases add up to
the call. A speaker talks from the start to the end of a cue, including pauses within it. Counts (turns, interruptions,
words) belong to the phase of their cue; durations are split at the edges of phases.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from callphases.cues import Cue
from callphases.segmentation.timeline import Phase

TURN_EDGE_MS = 300
"""A shorter overlap is not an interruption: people take turns with a gap or an overlap of about 200 ms (Levinson and
Torreira 2015, doi:10.3389/fpsyg.2015.00731), and word times are not exact."""

Talk = dict[str, Any]
"""The talk statistics of a call or a phase, as an ``answered`` event stores them. Unknown values are left out.

- ``speakers``, for a call only: the (at most two) speakers with the most talk time, in order of first appearance.
- ``spoken_s``: seconds in which anyone talks.
- ``talk_s``: seconds in which each of the ``speakers`` talks, in their order; left out if no cue has a speaker.
- ``other_s``: seconds in which anyone else talks; left out if nobody does.
- ``turn_count``, ``interruption_count``, ``words_per_minute``, ``confidence``: as in the columns of the same name.
"""


@dataclass(frozen=True)
class TalkStatistics:
    """The talk statistics of a call and of each of its phases."""

    call: Talk
    phases: list[Talk]


class _Speech:
    """When one or more speakers talk, as disjoint intervals."""

    def __init__(self, cues: Iterable[Cue]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start_ms, end_ms in sorted((_ms(cue.start_s), _ms(cue.end_s)) for cue in cues):
            if self._ends and start_ms <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end_ms)
            elif end_ms > start_ms:
                self._starts.append(start_ms)
                self._ends.append(end_ms)
        lengths = (end_ms - start_ms for start_ms, end_ms in zip(self._starts, self._ends, strict=True))
        self._before = list(accumulate(lengths, initial=0))

    def between(self, start_ms: int, end_ms: int) -> int:
        """Milliseconds of speech between two times."""
        return self._until(end_ms) - self._until(start_ms)

    def _until(self, moment_ms: int) -> int:
        place = bisect_right(self._starts, moment_ms) - 1
        if place < 0:
            return 0
        return self._before[place] + min(moment_ms, self._ends[place]) - self._starts[place]


def talk_statistics(cues: Sequence[Cue], phases: Sequence[Phase], end_s: float) -> TalkStatistics:
    """Compute the talk statistics of a call and of its phases.

    Args:
        cues: all cues of the call, numbered from 1 in order. A cue without a speaker is speech but not a turn.
        phases: cover the call.
        end_s: when the call ends, in seconds. Speech after it, or before 0, is not counted.
    """
    whole = (0, _ms(end_s))
    of_speaker = {
        name: _Speech(cue for cue in cues if cue.speaker == name) for name in dict.fromkeys(cue.speaker for cue in cues)
    }
    names = [name for name in of_speaker if name]
    most = sorted(names, key=lambda name: -of_speaker[name].between(*whole))[:2]
    speakers = [name for name in names if name in most]
    anybody = _Speech(cues)
    others = _Speech(cue for cue in cues if cue.speaker not in speakers)
    begins, interrupts = turns(cues)

    def of(start_ms: int, end_ms: int, first: int, last: int) -> Talk:
        own = cues[first - 1 : last]
        talk = {
            "spoken_s": anybody.between(start_ms, end_ms) / 1000,
            "talk_s": [of_speaker[name].between(start_ms, end_ms) / 1000 for name in speakers] or None,
            "other_s": (others.between(start_ms, end_ms) / 1000 or None) if names else None,
            "turn_count": sum(begins[first - 1 : last]) if names else None,
            "interruption_count": sum(interrupts[first - 1 : last]) if names else None,
            "words_per_minute": _words_per_minute(own),
            "confidence": _confidence(own),
        }
        return {name: value for name, value in talk.items() if value is not None}

    call = {"speakers": [str(name) for name in speakers]} | of(*whole, 1, len(cues))
    return TalkStatistics(call, [of(_ms(one.start_s), _ms(one.end_s), one.start_cue, one.end_cue) for one in phases])


def turns(cues: Sequence[Cue]) -> tuple[list[bool], list[bool]]:
    """For each cue, whether it starts a turn, and whether that turn interrupts another speaker.

    A speaker who continues after their own sentence interrupts nobody, even if someone else has started to talk.
    """
    begins, interrupts = [False] * len(cues), [False] * len(cues)
    ends_ms: dict[str, int] = {}
    before: str | None = None
    for place, cue in enumerate(cues):
        if not cue.speaker:
            continue
        start_ms, end_ms = _ms(cue.start_s), _ms(cue.end_s)
        begins[place] = cue.speaker != before
        last_ms = ends_ms.get(cue.speaker)
        goes_on = last_ms is not None and start_ms - last_ms <= TURN_EDGE_MS
        cut_ms = max((end - start_ms for name, end in ends_ms.items() if name != cue.speaker), default=0)
        interrupts[place] = begins[place] and not goes_on and cut_ms > TURN_EDGE_MS
        ends_ms[cue.speaker] = end_ms if last_ms is None else max(last_ms, end_ms)
        before = cue.speaker
    return begins, interrupts


def _words_per_minute(cues: Sequence[Cue]) -> float | None:
    """Words per minute of cue time, so that two simultaneous speakers don't count as one who talks twice as fast."""
    length_ms = sum(max(_ms(cue.end_s) - _ms(cue.start_s), 0) for cue in cues)
    return round(sum(cue.word_count for cue in cues) * 60_000 / length_ms, 1) if length_ms else None


def _confidence(cues: Iterable[Cue]) -> float | None:
    known = [(cue.confidence, cue.word_count) for cue in cues if cue.confidence is not None]
    words = sum(count for _, count in known)
    return round(sum(mean * count for mean, count in known) / words, 4) if words else None


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
