"""Every error that callphases raises on purpose. Each message says what happened and which setting to change.

    CallphasesError
    ├── ConfigurationError        a pipeline file, a connection or a request of the user's is wrong
    ├── AccountError              the account can't be used: stops the run
    │   ├── WrongKey
    │   ├── NoBalance
    │   └── NoModelLeft
    ├── ServiceUnavailable        a service did not answer in time: stops the run, a later run may succeed
    │   ├── ThrottledOut
    │   └── AnswerLost
    ├── DayHeld                   another run holds the day
    │   └── BackfillWaits         a backfill may not pay now: it waits for the hours, or for the next day
    ├── RunStopped                another task of the run hit an AccountError
    └── CallFailure               one recording failed: becomes a row and stops nothing
        ├── EmptyFile, BadAudio, TooShort, DownloadRefused
        ├── RecordingGone, Archived, AccessDenied, TranscriptGone
        ├── RequestRefused
        │   ├── ModelRetired
        │   └── TranscriptUnknown
        ├── ProviderError
        ├── ModelRefused, AnswerCut, AnswerInvalid
        └── OverBudget, Unfinished

What a provider's error text means is decided in the two clients (``transcription.assemblyai`` and
``segmentation.gateway``) and in ``limits.refusals``, which they share; nothing else reads that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator


class CallphasesError(Exception):
    """Base class of every error that callphases raises on purpose."""


class ConfigurationError(CallphasesError):
    """A pipeline file, a connection or a user's request is invalid; no work was started."""


class AccountError(CallphasesError):
    """The account can't be used. Every other call would fail the same way, so the run stops."""

    failure_class = "account"


class WrongKey(AccountError):
    """The service rejects the key, or the key does not grant access to this service."""

    failure_class = "auth"


class NoBalance(AccountError):
    """The account's balance is negative."""

    failure_class = "balance"


class NoModelLeft(AccountError):
    """None of the models in the pipeline file is served any more."""

    failure_class = "model_retired"


class ServiceUnavailable(CallphasesError):
    """A service did not answer within the time that callphases waits; a later attempt may succeed."""

    failure_class = "service_unavailable"


class ThrottledOut(ServiceUnavailable):
    """A service kept throttling requests for longer than callphases waits."""

    failure_class = "throttled_out"


class AnswerLost(ServiceUnavailable):
    """A request that must not be repeated was sent, and it is unknown whether the service accepted it.

    Attributes:
        may_still_arrive: the service may accept it even later, as after a timeout.
        problem: what is wrong with the answer, where one came.
    """

    def __init__(self, message: str, *, may_still_arrive: bool = False, problem: str | None = None) -> None:
        super().__init__(message)
        self.may_still_arrive = may_still_arrive
        self.problem = problem


class DayHeld(CallphasesError):
    """Another active run holds the day.

    Attributes:
        wait_s: seconds until its lease expires unless that run renews it.
    """

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class BackfillWaits(DayHeld):
    """A task of a backfill has to wait for something that takes long, and may give up the day meanwhile.

    Attributes:
        wait_s: seconds until it may go on.
    """


class RunStopped(CallphasesError):
    """Another task of this run hit an AccountError and stopped the run."""


class CallFailure(CallphasesError):
    """One recording failed. It becomes a row of the table ``calls`` and stops nothing else.

    Attributes:
        failure_class: the value of the column of that name.
        permanent: the same recording with the same settings would fail again. Other failures are retried by the next
            run of the day.
        may_pass: another attempt in the same run may succeed.
        advice: what the user can change; appended to the message.
        input_tokens, output_tokens, model: language model usage that was billed before the failure.
    """

    failure_class = "failed"
    permanent = True
    may_pass = False
    advice = ""
    input_tokens = output_tokens = 0
    model: str | None = None

    def __str__(self) -> str:
        what = super().__str__()
        return f"{what.rstrip('. ')}. {self.advice}".strip()


class EmptyFile(CallFailure):
    """The object has no bytes."""

    failure_class = "empty_file"
    advice = "Upload the recording again; it is processed when its ETag changes."


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
    may_pass = True
    advice = "If the service can't reach the bucket, set recordings.send: upload."


class RecordingGone(CallFailure):
    """The object was deleted or became unreadable between listing and sending."""

    failure_class = "recording_gone"
    permanent = False
    advice = "Run the day again: the recording is then read, or no longer listed."


class Archived(CallFailure):
    """The object is in a storage class that it must be restored from before it can be read."""

    failure_class = "archived"
    permanent = False
    advice = "Restore it (s3:RestoreObject), and run the day again while the restored copy is there."


class AccessDenied(CallFailure):
    """The AWS connection may not read the object, its metadata or its tags, as its recordings' columns need."""

    failure_class = "access_denied"
    permanent = False
    advice = "Grant the AWS connection that right for this object, and run the day again."


class TranscriptGone(CallFailure):
    """A transcript that was paid for is no longer in the state area."""

    failure_class = "transcript_gone"
    permanent = False
    advice = "Restore it below output.state, which must not be cleaned up before the tables are final."


class RequestRefused(CallFailure):
    """The service refused the request (4xx).

    Attributes:
        too_long: because the question does not fit into the model's context.
    """

    failure_class = "request_refused"
    permanent = False
    advice = "Check the pipeline file's transcription and segmentation."
    too_long = False


class ModelRetired(RequestRefused):
    """A model is retired, unknown or not supported.

    Attributes:
        named: the requested model that the service's message names; None if it names none of them.
    """

    failure_class = "model_retired"
    advice = "Name another in transcription.speech_models or segmentation.models."

    def __init__(self, message: str, *, named: str | None = None) -> None:
        super().__init__(message)
        self.named = named


class TranscriptUnknown(RequestRefused):
    """The speech service has no transcript with this id: it was deleted, or belongs to another account."""


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
    """The model's answer reached its token limit before it was complete for this call."""

    failure_class = "answer_cut"
    permanent = False
    advice = "Use fewer phases, or a model that answers more briefly."


class AnswerInvalid(CallFailure):
    """The model's answer is not a valid timeline, even after the model was asked to correct it."""

    failure_class = "answer_invalid"
    permanent = False
    advice = "Try another model in segmentation.models."


class OverBudget(CallFailure):
    """The rest of the run's budget does not cover this recording; nothing was sent."""

    failure_class = "budget"
    permanent = False
    advice = "Raise budget.usd_per_run, or run the day again with a budget of its own."


class Unfinished(CallFailure):
    """The run ended before this recording was done."""

    failure_class = "unfinished"
    permanent = False
    advice = "The log of the run's failed task says why. Run the day again; nothing is paid for twice."


def failure_classes() -> set[str]:
    """Every value of the column ``failure_class``."""
    return {one.failure_class for one in _failure_types()} - {CallFailure.failure_class, AccountError.failure_class}


def permanent_classes() -> set[str]:
    """The failure classes with which the same recording fails again, as long as its settings are the same."""
    types = [one for one in _failure_types() if issubclass(one, CallFailure) and one.permanent]
    return {one.failure_class for one in types} - {CallFailure.failure_class}


def advice_of(failure_class: str) -> str:
    """What the user can change about failures of a class; empty where only their messages say."""
    for one in _failure_types():
        if one.failure_class == failure_class and issubclass(one, CallFailure) and one.advice:
            return one.advice
    return ""


def _failure_types() -> Iterator[type[CallFailure | AccountError | ServiceUnavailable]]:
    pending: list[type[CallFailure | AccountError | ServiceUnavailable]] = [
        CallFailure,
        AccountError,
        ServiceUnavailable,
    ]
    while pending:
        error_type = pending.pop()
        pending += error_type.__subclasses__()
        yield error_type


_REMEDIES = {
    ("bad_audio", "too_short", "empty_file"): "fix the recording; it is processed again when its bytes change",
    ("download_refused",): "the service can't reach the bucket: set recordings.send: upload",
    ("recording_gone",): "the recording was deleted during the run: run the day again",
    ("archived",): "the recording is in Glacier or another archive: restore it, then run the day again",
    ("access_denied",): "grant the AWS connection the right that the message names (s3:GetObject, kms:Decrypt, …)",
    ("transcript_gone",): "the transcript was deleted below output.state: restore it there",
    ("provider_error",): "the service failed four times: run the day again",
    ("request_refused",): (
        "the service rejects the request: check transcription and segmentation; if the call is too long, name a model "
        "with a longer context"
    ),
    ("answer_invalid", "answer_cut", "model_refused"): (
        "name another model in segmentation.models, or define fewer phases"
    ),
    ("budget",): "raise budget.usd_per_run",
    ("throttled_out", "service_unavailable"): (
        "a service throttled requests or did not answer for minutes, or a quota of the day is used up: run the day "
        "again"
    ),
    ("auth", "balance", "model_retired"): (
        "an account error stopped the run: change the setting that its message names, and run the day again"
    ),
    ("unfinished",): "see the log of the run's failed task",
}
REMEDIES = {name: remedy for names, remedy in _REMEDIES.items() for name in names}
"""What to do about each failure class, in a line; docs/runbook.md has more on each."""

ALL_FAILED = "all"
"""In place of failure classes to replay: whatever the class."""


def without_secrets(text: str, max_length: int = 300) -> str:
    """Make a service's text safe for a log or a row: one line, no URL queries (they may hold signatures), truncated."""
    whole = text.encode(errors="replace").decode()  # a service may send half of a character, which can't be written
    line = " ".join(re.sub(r"(\w+://[^\s?\"'<>]*)\?[^\s\"'<>]*", r"\1", whole).split())
    return line if len(line) <= max_length else line[: max_length - 1] + "…"
