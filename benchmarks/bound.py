"""The shortest time that the services' own limits leave for a night; no client can be faster, whatever it is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """A speech service and a language model as they are set for a night.

    Attributes:
        speech_s: how long each transcription takes.
        jobs: how many the service works on at once.
        question_s: how long each question takes.
        questions_at_once: how many the model answers at once; more are refused.
        questions_per_minute: how many it takes in a minute; None is without limit.
    """

    speech_s: float = 3.0
    jobs: int = 200
    question_s: float = 1.0
    questions_at_once: int = 60
    questions_per_minute: int | None = None


def bound_s(service: Service, calls: int, questions: int) -> float:
    """The larger of what speech and model take, when both are busy from the first second to the last.

    Speech: calls, ``jobs`` at once, ``speech_s`` each. Model: questions, ``questions_at_once``, ``question_s`` each, or
    as many as it takes in a minute. That the first question waits for the first transcript, and all that is the
    client's (listing, writing, Airflow) is not in it.

    Args:
        service: the limits.
        calls: transcribed.
        questions: asked; a client that puts several calls in one has fewer.
    """
    speech_s = math.ceil(calls / service.jobs) * service.speech_s
    model_s = math.ceil(questions / service.questions_at_once) * service.question_s
    if service.questions_per_minute is not None:
        # A minute's worth may be asked at its beginning, so the last minute's need not pass.
        minutes = math.ceil(questions / service.questions_per_minute) - 1
        model_s = max(model_s, minutes * 60.0)
    return max(speech_s, model_s)
