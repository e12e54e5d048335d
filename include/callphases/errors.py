"""What can go wrong, by name: each failure says what happened and which setting to change."""

from __future__ import annotations

import re


class CallphasesError(Exception):
    """Base of every error that callphases raises on purpose."""


class ConfigurationError(CallphasesError):
    """A pipeline file, a connection or a request of the user's does not hold together; nothing was started."""


class AccountError(CallphasesError):
    """What concerns the account: every further call would fail too, so the run stops."""

    failure_class = "account"


class WrongKey(AccountError):
    """The service does not take the key, or not for this."""

    failure_class = "auth"


class NoBalance(AccountError):
    """The account's balance is negative."""

    failure_class = "balance"


class NoModelLeft(AccountError):
    """None of the models that the pipeline file names is served any more."""

    failure_class = "model_retired"


class ServiceUnavailable(CallphasesError):
    """A service did not answer for longer than we wait; a later try may succeed."""

    failure_class = "service_unavailable"


class ThrottledOut(ServiceUnavailable):
    """A service asked to be left alone for longer than we wait."""

    failure_class = "throttled_out"


class AnswerLost(ServiceUnavailable):
    """A request that must not be repeated was sent, and nobody knows whether it was taken.

    ``maybe_later``: nor whether it still will be, as where the answer only took too long.
    """

    def __init__(self, message: str, *, maybe_later: bool = False) -> None:
        super().__init__(message)
        self.maybe_later = maybe_later


class DayHeld(CallphasesError):
    """Another run that is alive works on this day; ``wait_s`` is when it may have ended, unless it goes on."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class RunStopped(CallphasesError):
    """Another task of this run met what concerns the account, and said so."""


class CallFailure(CallphasesError):
    """One recording failed. It becomes a row of the table ``calls`` and stops nothing else.

    ``failure_class`` is the column of that name. ``permanent`` says whether the same recording with the same settings
    must fail again; what is not permanent is tried again by the next run of the day.
    """

    failure_class = "failed"
    permanent = True
    advice = ""
    input_tokens = output_tokens = 0
    model: str | None = None
    """The language model that was paid for these tokens in vain."""

    def __str__(self) -> str:
        what = super().__str__()
        return f"{what.rstrip('. ')}. {self.advice}".strip()


class EmptyFile(CallFailure):
    """The object has no bytes."""

    failure_class = "empty_file"
    advice = "Upload the recording again; it is taken up when its ETag changes."


class BadAudio(CallFailure):
    """The service found no audio in the file, or could not decode it."""

    failure_class = "bad_audio"
    advice = "Check that the recording plays, or narrow recordings.suffixes."


class TooShort(CallFailure):
    """The audio is shorter than the service accepts (160 ms)."""

    failure_class = "too_short"


class DownloadRefused(CallFailure):
    """The service could not download the presigned URL."""

    failure_class = "download_refused"
    permanent = False
    advice = "If the service can't reach the bucket, set recordings.send: upload."


class RecordingGone(CallFailure):
    """The object was deleted, or can't be read any more, between listing and sending."""

    failure_class = "recording_gone"
    permanent = False
    advice = "Run the day again: it is then not listed, or is read."


class TranscriptGone(CallFailure):
    """A transcript that was paid for is no longer in the state area."""

    failure_class = "transcript_gone"
    permanent = False
    advice = "Restore it below output.state, which must not be cleaned up before the tables are final."


class RequestRefused(CallFailure):
    """The service refused the request (4xx)."""

    failure_class = "request_refused"
    permanent = False
    advice = "Check the pipeline file's transcription and segmentation."


class ModelRetired(RequestRefused):
    """A model is retired, unknown or not supported."""

    failure_class = "model_retired"
    advice = "Name another in transcription.speech_models or segmentation.models."


class ModelRefused(CallFailure):
    """The model declines to answer for this call."""

    failure_class = "model_refused"
    permanent = False
    advice = "Name another model in segmentation.models."


class ProviderError(CallFailure):
    """The service accepted the call and then failed on its own side. Failed jobs are not billed."""

    failure_class = "provider_error"
    permanent = False
    advice = "Run the day again."


class AnswerCut(CallFailure):
    """The model's answer ended at its token limit, before the end of what it says of this call."""

    failure_class = "answer_cut"
    permanent = False
    advice = "Use fewer phases, or a model that answers more briefly."


class AnswerInvalid(CallFailure):
    """The model's answer does not make a timeline, also after it was asked to mend it."""

    failure_class = "answer_invalid"
    permanent = False
    advice = "Try another model in segmentation.models."


class OverBudget(CallFailure):
    """What is left of the run's budget does not pay for this recording; nothing was sent."""

    failure_class = "budget"
    permanent = False
    advice = "Raise budget.usd_per_run, or run the day again with a budget of its own."


class Unfinished(CallFailure):
    """The run ended before this recording was done."""

    failure_class = "unfinished"
    permanent = False
    advice = "The log of the run's failed task says why; run the day again, what is paid for is not paid for again."


def failure_classes() -> set[str]:
    """Every value of the column ``failure_class``."""
    names: set[str] = set()
    kinds: list[type[CallFailure | AccountError | ServiceUnavailable]] = [CallFailure, AccountError, ServiceUnavailable]
    for kind in kinds:
        kinds += kind.__subclasses__()  # which are looked at in their turn
        names.add(kind.failure_class)
    return names - {CallFailure.failure_class, AccountError.failure_class}


def says_retired(text: str) -> bool:
    """Whether a service's words mean that a model is not served (any more)."""
    lower = text.lower()
    signs = (
        "retired",
        "not supported",
        "unsupported",
        "no longer",
        "deprecated",
        "unknown",
        "not available",
        "not found",
    )
    return "model" in lower and any(sign in lower for sign in signs)


def without_secrets(text: str, longest: int = 300) -> str:
    """A service's words, fit for a log or a row: one line, no query of any URL (presigned ones sign there), capped."""
    line = " ".join(re.sub(r"(\w+://[^\s?\"'<>]*)\?[^\s\"'<>]*", r"\1", text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
