"""What a run may spend: estimates of its recordings against ``budget.usd_per_run``, before anything is paid."""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from callphases.limits import costs
from callphases.limits.durations import Length, audio_length
from callphases.pipeline import Pipeline
from callphases.progress import Progress
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import LedgerView

log = logging.getLogger(__name__)

ESTIMATES_AT_MOST = 2.0
"""A chunk may spend up to this multiple of what its calls are estimated at, where the budget allows that."""


class Recordings(Protocol):
    """Recordings that need not be in memory."""

    def __len__(self) -> int:
        """How many."""

    def __iter__(self) -> Iterator[Recording]:
        """In their order."""


@dataclass(frozen=True)
class Budget:
    """The recordings that a cap pays for: the first of those to do.

    Attributes:
        cap_usd: what the run may spend; None means no limit, and there are no estimates then unless they were wanted.
        estimates_usd: of each recording that is within the budget, in order.
        expected_s, most_s: of the same recordings; see ``durations.Length``.
    """

    cap_usd: float | None
    estimates_usd: array[float]
    expected_s: array[float] = field(default_factory=lambda: array("d"))
    most_s: array[float] = field(default_factory=lambda: array("d"))

    @property
    def left_usd(self) -> float | None:
        """What is left for other days."""
        return None if self.cap_usd is None else self.cap_usd - self._scale * sum(self.estimates_usd)

    def share_usd(self, first: int, count: int) -> float | None:
        """What a chunk of ``count`` recordings from ``first`` on may spend.

        Estimates are not exact: what the cap allows beyond them is shared out too, as much again at most.
        """
        return None if self.cap_usd is None else self._scale * sum(self.estimates_usd[first : first + count])

    def lengths(self, first: int, count: int) -> list[tuple[float, float]]:
        """``expected_s`` and ``most_s`` of ``count`` recordings from ``first`` on; empty where they were not wanted."""
        return list(zip(self.expected_s[first : first + count], self.most_s[first : first + count], strict=True))

    @property
    def _scale(self) -> float:
        return min((self.cap_usd or 0.0) / (sum(self.estimates_usd) or 1.0), ESTIMATES_AT_MOST)


def within_budget(
    recordings: Recordings,
    cap_usd: float | None,
    pipeline: Pipeline,
    bucket: RecordingBucket,
    view: LedgerView,
    hold: Callable[[], None],
    *,
    measure: bool = False,
) -> Budget:
    """How many of the recordings ``cap_usd`` pays for, in their order.

    Args:
        recordings: those to do.
        cap_usd: what the run may spend; None means no limit.
        pipeline: the pipeline.
        bucket: of the recordings, whose headers tell their lengths.
        view: the ledger.
        hold: renews the lease; called before each estimate.
        measure: whether their lengths are wanted without a cap too.
    """
    estimates, expected_s, most_s = array("d"), array("d"), array("d")
    if cap_usd is None and not measure:
        return Budget(None, estimates)
    keys, left = RecordingKeys(pipeline), math.inf if cap_usd is None else cap_usd
    for recording in recordings:
        hold()
        progress = Progress(recording, keys, view)
        length = _length(progress, bucket)
        usd = _estimate_usd(progress, pipeline, length.expected_s)
        if usd > left:
            log.warning(
                "budget.usd_per_run (%.2f) holds %d of %d recordings; the others fail with failure_class budget.",
                cap_usd,
                len(estimates),
                len(recordings),
            )
            break
        estimates.append(usd)
        expected_s.append(length.expected_s)
        most_s.append(length.most_s)
        left -= usd
    return Budget(cap_usd, estimates, expected_s, most_s)


def _length(progress: Progress, bucket: RecordingBucket) -> Length:
    if progress.transcribed is not None:
        return Length(progress.transcribed.audio_s, progress.transcribed.audio_s)
    if progress.recording.archived_in:
        return Length(0.0, 0.0)  # it is not sent
    return audio_length(bucket, progress.recording)


def _estimate_usd(progress: Progress, pipeline: Pipeline, seconds: float) -> float:
    if progress.is_paid:
        return 0.0  # only its object's metadata are asked for
    llm_usd = costs.estimated_llm_usd(pipeline, seconds)
    return llm_usd if progress.has_transcript else costs.estimated_speech_usd(pipeline, seconds) + llm_usd
