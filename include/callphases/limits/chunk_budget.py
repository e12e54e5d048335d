"""What a chunk may still spend while it runs: its share of the budget, against the lengths that the service reports.

A header may state too little, so the estimates that the share was cut from may be too low. A recording is sent if the
share pays for as much as the sizes of those under way allow; or, where nothing else is under way, for what its header
states, times the most by which a header of this chunk has been wrong. So no more than one recording can cost more than
the share allows, and only where its size allows it to be longer than its header states.
"""

from __future__ import annotations

from collections.abc import Sequence

from callphases.limits import costs
from callphases.pipeline import Pipeline
from callphases.progress import Progress
from callphases.state.events import Intended, Submitted, Transcribed
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import Ledger
from callphases.state.manifests import Manifest


class ChunkBudget:
    """The share of one chunk.

    Args:
        pipeline: the pipeline.
        chunk: with ``budget_usd`` and ``lengths``.
        ledger: of its task, open.
    """

    def __init__(self, pipeline: Pipeline, chunk: Manifest, ledger: Ledger) -> None:
        self._pipeline, self._chunk, self._ledger = pipeline, chunk, ledger
        self._keys = RecordingKeys(pipeline)
        # A recording that was sent with other models may be sent with those of today, under another key.
        self._lengths = {
            key: length
            for recording, length in zip(chunk.recordings, chunk.lengths, strict=False)
            for key in (self._keys.transcript(recording), Progress(recording, self._keys, ledger).due_key)
        }

    def affordable(self, waiting: Sequence[str]) -> int:
        """How many of the transcript keys ``waiting``, from the first on, may be submitted now.

        0 if the first has to wait for those under way; or, if none is (``is_waiting``), if it does not fit at all.
        """
        budget_usd = self._chunk.budget_usd
        if budget_usd is None or not self._lengths:  # a version before this one listed the day
            return len(waiting)
        left_usd = budget_usd - self._committed_usd()
        under_way = self._under_way(waiting)
        free_usd = left_usd - sum(self._usd(self._lengths[key][1]) for key in under_way)
        count = 0
        for key in waiting:
            free_usd -= self._usd(self._lengths[key][1])
            if free_usd < 0:
                break
            count += 1
        if not count and waiting and not under_way:
            count = int(self._usd(self._lengths[waiting[0]][0] * self._worst_ratio()) <= left_usd)
        return count

    def is_waiting(self, waiting: Sequence[str]) -> bool:
        """Whether other recordings than ``waiting`` are under way, whose lengths will be known."""
        return bool(self._under_way(waiting))

    def spent_usd(self) -> float:
        """What the run has spent on the chunk; what has no price is estimated."""
        run_id, since = self._ledger.run_id, self._chunk.listed_at
        own = self._ledger.own
        return sum(costs.spent_usd(own, run_id, since)) + sum(costs.unpriced_usd(self._pipeline, own, run_id, since))

    def _committed_usd(self) -> float:
        """What is spent, and what the questions about the chunk's transcripts are expected to cost."""
        due_s = (
            progress.transcribed.audio_s
            for recording in self._chunk.recordings
            if (progress := Progress(recording, self._keys, self._ledger)).transcribed is not None
            and not progress.is_paid
        )
        return self.spent_usd() + sum(costs.estimated_llm_usd(self._pipeline, audio_s) for audio_s in due_s)

    def _under_way(self, waiting: Sequence[str]) -> set[str]:
        events = {key: self._ledger.find(key) for key in self._lengths}
        return {key for key, event in events.items() if isinstance(event, Intended | Submitted)} - set(waiting)

    def _worst_ratio(self) -> float:
        """By how much the longest of the transcribed recordings exceeds its header, at least 1."""
        ratios = (
            event.audio_s / self._lengths[event.key][0]
            for event in costs.of_run(self._ledger.own, self._ledger.run_id, self._chunk.listed_at)
            if isinstance(event, Transcribed) and self._lengths.get(event.key, (0.0, 0.0))[0] > 0
        )
        return max(1.0, max(ratios, default=1.0))

    def _usd(self, audio_s: float) -> float:
        return costs.estimated_speech_usd(self._pipeline, audio_s) + costs.estimated_llm_usd(self._pipeline, audio_s)
