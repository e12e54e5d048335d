"""How long an archive takes at the pipeline's limits: hours, and nights."""

from __future__ import annotations

import math
from dataclasses import dataclass

from callphases.limits.throttle import ramp_s

JOB_S, AUDIO_S_PER_S = 15.0, 60.0
"""What a job takes: a start, and a second for each minute of audio. The provider says that most files take less than
45 s; other accounts and hours differ."""


@dataclass(frozen=True)
class Pace:
    """How long the services take at the limits; the slower of the two decides, as they work side by side.

    Attributes:
        speech_hours: with ``transcriptions_at_once`` jobs, and the ramp at the start of each night.
        question_hours: with ``llm_requests_per_minute``.
        nights: of ``night_hours`` each, and of ``usd_per_day`` at most.
    """

    speech_hours: float
    question_hours: float
    night_hours: float
    nights: int

    @property
    def hours(self) -> float:
        """Of the slower service."""
        return max(self.speech_hours, self.question_hours)


def pace(
    *,
    jobs: float,
    audio_s: float,
    questions: float,
    usd: float,
    transcriptions_at_once: int,
    ramp: bool,
    questions_per_minute: int,
    night_hours: float = 24.0,
    usd_per_day: float | None = None,
) -> Pace:
    """How long so many jobs and questions take.

    Args:
        jobs: recordings to transcribe.
        audio_s: seconds of audio of all of them.
        questions: to the language models.
        usd: what all of it costs.
        transcriptions_at_once: jobs at the speech service at the same time.
        ramp: whether submissions start slowly.
        questions_per_minute: to all models together.
        night_hours: how long a day the archive is worked on.
        usd_per_day: what may be spent a day; None is without a limit.
    """
    took_s = jobs * JOB_S + audio_s / AUDIO_S_PER_S
    speech_s = took_s / transcriptions_at_once
    if ramp and jobs:
        speech_s = max(speech_s, ramp_s(math.ceil(min(jobs, 10 * transcriptions_at_once))))
    hours = max(speech_s / 3600, questions / questions_per_minute / 60)
    nights = math.ceil(hours / night_hours) if hours else 0
    if usd_per_day:
        nights = max(nights, math.ceil(usd / usd_per_day))
    return Pace(speech_s / 3600, questions / questions_per_minute / 60, night_hours, nights)
