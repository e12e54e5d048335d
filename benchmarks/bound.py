"""Computes the lower bound of a night's duration that the limits of the services impose on any client."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """Latencies and limits of a speech service and a language model.

    Attributes:
        speech_s: seconds per transcription.
        jobs: transcriptions that the service works on at once.
        question_s: seconds per question.
        questions_at_once: questions that the model answers at once; more are refused.
        questions_per_minute: questions that the model accepts per minute; None for no limit.
    """

    speech_s: float = 3.0
    jobs: int = 200
    question_s: float = 1.0
    questions_at_once: int = 60
    questions_per_minute: int | None = None


def bound_s(service: Service, calls: int, questions: int) -> float:
    """Return the longer of the times that speech and model need if both are busy throughout.

    Speech takes ``speech_s`` for each batch of ``jobs`` calls. The model takes ``question_s`` for each batch of
    ``questions_at_once`` questions, or the time that its limit per minute imposes. Not included: the first question's
    wait for the first transcript, and the client's own work (listing, writing, Airflow).

    Args:
        service: latencies and limits.
        calls: number of transcribed calls.
        questions: number of questions; fewer than calls if a question contains several.
    """
    speech_s = math.ceil(calls / service.jobs) * service.speech_s
    model_s = math.ceil(questions / service.questions_at_once) * service.question_s
    if service.questions_per_minute is not None:
        # All questions of a minute may be sent at its start, so the last minute does not have to pass.
        minutes = math.ceil(questions / service.questions_per_minute) - 1
        model_s = max(model_s, minutes * 60.0)
    return max(speech_s, model_s)
