"""What the runs of backfills may do: ``limits.backfill``, and what nights leave them of the other limits."""

from __future__ import annotations

from callphases.limits.quota import left_to_backfills
from callphases.pipeline import Pipeline


def backfill_jobs(pipeline: Pipeline) -> int:
    """How many jobs the backfills of a pipeline may have at once where no night wants any."""
    limit, own = pipeline.limits.transcriptions_at_once, pipeline.limits.backfill.transcriptions_at_once
    return left_to_backfills(limit, nights=pipeline.schedule is not None) if own is None else min(own, limit)


def backfill_questions(pipeline: Pipeline) -> int:
    """How many questions a minute the backfills of a pipeline may ask each model where no night asks any."""
    return left_to_backfills(pipeline.limits.llm_requests_per_minute, nights=pipeline.schedule is not None)
