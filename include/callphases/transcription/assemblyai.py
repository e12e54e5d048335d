"""Client of the speech service: upload, submit, look up, list, fetch captions, delete.

Facts about the service are from its OpenAPI document and its public documentation.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import requests

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.errors import (
    AnswerLost,
    BadAudio,
    CallFailure,
    DownloadRefused,
    ModelRetired,
    NoBalance,
    ProviderError,
    RequestRefused,
    ServiceUnavailable,
    TooShort,
    TranscriptUnknown,
    WrongKey,
    without_secrets,
)
from callphases.limits.refusals import error_text, retired_model
from callphases.limits.throttle import SPEECH_REQUESTS_PER_S, Throttle
from callphases.speech_models import models_of
from callphases.transcription.documents import JobDocument, PageDocument, SubmissionDocument, UploadDocument, parsed

log = logging.getLogger(__name__)

DEFAULT_URL = "https://api.assemblyai.com"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 120.0
SUBMIT_TIMEOUTS_S = 5.0, 30.0
"""To connect, and for the answer. A slower submission is abandoned and its job is looked for at the provider, because a
submission must not outlive the lease of the day (``state.lease``)."""
LIST_LIMIT = 200
"""Maximum jobs per page of the list endpoint."""


@dataclass(frozen=True)
class Job:
    """The state of a transcription job.

    Attributes:
        status: queued, processing, completed or error.
        error: the service's message if ``status`` is error.
        problem: what in the job's document is not as documented; nothing else is known of it then.
        audio_url: the recording's URL without its query, which holds the signature.
        created, completed: None if the service does not report them.
    """

    id: str
    status: str
    error: str | None = None
    audio_url: str = ""
    created: dt.datetime | None = None
    completed: dt.datetime | None = None
    problem: str | None = None

    @property
    def took_s(self) -> float | None:
        """Seconds from submission to completion; None if the service does not report them."""
        if self.created is None or self.completed is None:
            return None
        return (self.completed - self.created).total_seconds()

    @property
    def ended(self) -> bool:
        """Whether the job has reached its final status, or can't be followed."""
        return self.status in ("completed", "error") or self.problem is not None


class AssemblyAI:
    """Client for one account. Thread-safe.

    Every method may raise AccountError (key, balance), ServiceUnavailable, or RequestRefused with the service's
    message. The methods about one transcript raise TranscriptUnknown if the service does not have it.
    """

    def __init__(
        self,
        key: str,
        url: str = DEFAULT_URL,
        session: requests.Session | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.url = url.rstrip("/")
        self._session = session or requests.Session()
        self._session.headers["authorization"] = key
        self._throttle = Throttle(f"speech service at {self.url}", SPEECH_REQUESTS_PER_S, self._probe, clock=clock)

    def check(self) -> None:
        """List one job, which checks at no cost that the service answers and accepts the key."""
        self._json("GET", "/v2/transcript", params={"limit": 1})

    def check_options(self, options: dict[str, Any]) -> None:
        """Check the speech models at no cost, by a submission without a recording.

        The service may reject a model before it notices that the recording is missing. Without a recording no job is
        created.

        Raises:
            ModelRetired: one of the speech models is not served any more.
        """
        try:
            self._json("POST", "/v2/transcript", repeatable=False, options=options, json=options)
        except ModelRetired:
            raise
        except RequestRefused:
            return

    def upload(self, body: Callable[[], Iterator[bytes]]) -> str:
        """Upload a file in chunks and return its URL, for ``submit``.

        Args:
            body: opens the file and yields its chunks; called again if the upload has to restart.

        Raises:
            ProviderError: the answer has no URL.
        """
        response = self._send("POST", "/v2/upload", body=body, headers={"content-type": "application/octet-stream"})
        return parsed(UploadDocument, _document(response), "answer to an upload").upload_url

    def submit(self, audio_url: str, options: dict[str, Any], confirm: Callable[[], None] = lambda: None) -> Job:
        """Start a transcription. Each job is billed, so a submission that may have been accepted is never repeated.

        Args:
            audio_url: where the service downloads the recording.
            options: of ``POST /v2/transcript``, sent unchanged.
            confirm: called right before each attempt; if it raises, the request is not sent.

        Raises:
            ModelRetired: one of the speech models is not served any more.
            AnswerLost: it is unknown whether the job exists, or its id is. If the answer came and has no id, the error
                has a ``problem``.
        """
        response = self._send(
            "POST",
            "/v2/transcript",
            repeatable=False,
            confirm=confirm,
            timeouts_s=SUBMIT_TIMEOUTS_S,
            options=options,
            json={"audio_url": audio_url, **options},
        )
        try:
            document = _document(response)
            if "id" not in document and error_text(response):
                raise _refusal(response, self.url, options, is_lookup=False)
            return Job(parsed(SubmissionDocument, document, "answer to a submission").id, "queued")
        except (ProviderError, ServiceUnavailable) as unread:
            problem = str(unread.args[0])
            raise AnswerLost(f"A submission was sent and may have been accepted: {problem}", problem=problem) from None

    def transcript(self, transcript_id: str) -> dict[str, Any]:
        """The complete transcript document of a job, whatever its status."""
        return self._json("GET", f"/v2/transcript/{transcript_id}", is_lookup=True)

    def jobs(self, ids: Sequence[str]) -> dict[str, Job]:
        """The state of each job, in as few requests as possible: the list endpoint returns 200 jobs per page.

        The account's newest jobs are listed first. If some of ``ids`` are older, the newest of them is looked up by
        itself, and the list is continued with the jobs before it.

        Args:
            ids: in order of submission, as far as it is known.
        """
        missing = dict.fromkeys(reversed(ids))
        found = self._take_listed(missing, {}) if len(missing) > 1 else {}
        is_listed = True
        while missing:
            one = next(iter(missing))
            found[one] = self._look_up(one)
            del missing[one]
            if missing and is_listed:
                listed = self._take_listed(missing, {"before_id": one})
                is_listed = bool(listed)
                found.update(listed)
        return found

    def _take_listed(self, missing: dict[str, None], start: dict[str, str]) -> dict[str, Job]:
        """List jobs from ``start`` on and remove those found from ``missing``, until a page has none of them."""
        found: dict[str, Job] = {}
        for page in self._pages(start):
            listed = {job.id: job for job in page if job.id in missing}
            for one in listed:
                del missing[one]
            found.update(listed)
            if not listed or not missing:
                break
        return found

    def jobs_since(self, moment: dt.datetime) -> Iterator[Job]:
        """The jobs submitted since ``moment``, newest first. The service lists the last 90 days."""
        for page in self._pages():
            yield from page
            if page and page[-1].created is not None and page[-1].created < moment:
                return

    def _look_up(self, transcript_id: str) -> Job:
        try:
            return _job(self.transcript(transcript_id), "transcript")
        except ProviderError as unread:
            return Job(transcript_id, "", problem=unread.args[0])
        except TranscriptUnknown as unknown:
            return Job(transcript_id, "error", str(unknown))
        except RequestRefused as refusal:
            # The job is paid for and may still be running; only a later lookup can tell.
            raise ServiceUnavailable(f"A job can't be looked up: {refusal}") from None

    def _pages(self, before: dict[str, str] | None = None) -> Iterator[list[Job]]:
        before = before or {}
        seen = set[str]()
        while True:
            try:
                document = self._json("GET", "/v2/transcript", params={"limit": LIST_LIMIT, **before})
                page = parsed(PageDocument, document, "list of transcripts")
            except (RequestRefused, ProviderError):  # the server has no list endpoint
                return
            jobs = [job for item in page.transcripts if (job := _listed_job(item)) is not None]
            yield jobs
            # A page may be short even if older jobs exist; has_older tells. A server may not know before_id.
            if not page.has_older or not jobs or jobs[-1].id in seen:
                return
            seen.add(jobs[-1].id)
            before = {"before_id": jobs[-1].id}

    def vtt(self, transcript_id: str) -> str:
        """The captions as WebVTT. The service refuses this for a transcript without speech."""
        response = self._send("GET", f"/v2/transcript/{transcript_id}/vtt", is_lookup=True)
        # The service sends UTF-8; requests assumes Latin-1 for text/* without a charset.
        return response.content.decode("utf-8", errors="replace")

    def delete(self, transcript_id: str) -> None:
        """Delete the transcript and its upload at the provider."""
        self._json("DELETE", f"/v2/transcript/{transcript_id}", is_lookup=True)

    def _json(self, method: str, path: str, *, repeatable: bool = True, **kwargs: Any) -> dict[str, Any]:
        return _document(self._send(method, path, repeatable=repeatable, **kwargs))

    def _send(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = True,
        body: Callable[[], Iterator[bytes]] | None = None,
        confirm: Callable[[], None] = lambda: None,
        timeouts_s: tuple[float, float] = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
        options: Mapping[str, Any] = MappingProxyType({}),
        is_lookup: bool = False,
        **kwargs: Any,
    ) -> requests.Response:
        """Send a request through the throttle and raise the error that a 4xx stands for.

        ``options`` are the transcription options that it has; ``is_lookup`` says that it names a transcript.
        """

        def request() -> requests.Response:
            confirm()
            if body is not None:
                kwargs["data"] = body()
            return self._session.request(method, self.url + path, timeout=timeouts_s, **kwargs)

        response = self._throttle.send(request, repeatable=repeatable)
        if response.status_code >= 400:
            raise _refusal(response, self.url, options, is_lookup)
        return response

    def _probe(self) -> requests.Response:
        return self._session.get(
            f"{self.url}/v2/transcript", params={"limit": 1}, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        )


_JOB_ERRORS: tuple[tuple[re.Pattern[str], type[CallFailure]], ...] = (
    (re.compile(r"audio duration is too short", re.I), TooShort),
    (re.compile(r"^(?:download error|unable to download)", re.I), DownloadRefused),
    (
        re.compile(
            r"does not appear to contain audio|transcoding failed|file could not be processed|duration is too long",
            re.I,
        ),
        BadAudio,
    ),
)
"""Messages of jobs that ended in an error, from the service's documentation and from public reports."""
_NO_SPEECH = re.compile(r"no spoken audio|no speech (?:was )?(?:detected|found)|contains? no speech", re.I)
_ACCEPTED_MODELS = re.compile(r'"speech_models?" must be .*\bone or more of: (.*)', re.I)
_BALANCE = re.compile(r"account balance is negative|insufficient (?:funds|balance)", re.I)
_ACCOUNT = re.compile(
    r"API token missing/invalid|invalid API (?:key|token)|account (?:is |has been )?(?:disabled|suspended)", re.I
)


def job_failure(error: str | None, options: Mapping[str, Any] = MappingProxyType({})) -> CallFailure:
    """The failure of a job with status ``error`` that ``has_no_speech`` does not explain.

    Args:
        error: the service's message.
        options: that the job was submitted with.
    """
    text = without_secrets(error or "The job ended in an error without a message.")
    for pattern, failure_type in _JOB_ERRORS:
        if pattern.search(text):
            return failure_type(text)
    if (gone := _retired(text, models_of(options))) is not None:
        return ModelRetired(text, named=gone)
    if (refused := _refused_option(text, text, options)) is not None:
        return refused
    failure = ProviderError(text)
    failure.may_pass = "server error" in text.lower()
    return failure


def has_no_speech(error: str | None) -> bool:
    """Whether a job failed because nobody speaks: detecting the language of a silent call is refused."""
    return _NO_SPEECH.search(error or "") is not None


def _retired(text: str, models: Sequence[str]) -> str | None:
    """The model of ``models`` that a message says is not served; None if it says that of none."""
    if accepted := _ACCEPTED_MODELS.search(text):
        return next((model for model in models if model not in re.findall(r'"([^"]+)"', accepted[1])), None)
    return retired_model(text, models)


def _refused_option(text: str, message: str, options: Mapping[str, Any]) -> RequestRefused | None:
    """The refusal of options that ``text`` names; None if it names none that was sent."""
    named = [name for name in options if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]
    if not named:
        return None
    refusal = RequestRefused(message)
    refusal.advice = f"Check {' and '.join(f'transcription.{name}' for name in named)} in the pipeline file."
    return refusal


def _job(document: object, what: str) -> Job:
    read = parsed(JobDocument, document, what)
    return Job(
        id=read.id,
        status=read.status,
        error=read.error or None,
        audio_url=without_query(read.audio_url or ""),
        created=read.created,
        completed=read.completed,
    )


def _listed_job(item: object) -> Job | None:
    """A job of the list; None if its entry is not as documented: the job itself is looked up then."""
    try:
        return _job(item, "list of transcripts")
    except ProviderError:
        return None


def without_query(url: str) -> str:
    """A URL that identifies a recording: the query of a presigned URL differs each time."""
    return url.partition("?")[0]


def _document(response: requests.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except (ValueError, RecursionError):  # JSONDecodeError, or numbers and nesting beyond what Python reads
        document = None
    if not isinstance(document, dict):
        raise ServiceUnavailable(
            f"Expected JSON from the speech service and got {response.headers.get('content-type', 'nothing')}: "
            "check the host of the assemblyai connection."
        )
    return document


def _refusal(response: requests.Response, url: str, options: Mapping[str, Any], is_lookup: bool) -> Exception:
    status = response.status_code
    text = error_text(response) or f"status {status} without a message"
    if status == 401 or _ACCOUNT.search(text):
        return WrongKey(
            f"The speech service at {url} does not accept the key ({text}): "
            "set the password of the assemblyai connection to a valid API key."
        )
    if status == 402 or _BALANCE.search(text):
        return NoBalance(f"The speech service says: {text} No requests are sent until the account is topped up.")
    if status >= 500:
        return ServiceUnavailable(f"The speech service at {url} answered {status}: {text}")
    if is_lookup and "not found" in text.lower():
        return TranscriptUnknown(f"The speech service answered {status}: {text}")
    if (gone := _retired(text, models_of(options))) is not None:
        return ModelRetired(f"The speech service says: {text}", named=gone)
    message = f"The speech service answered {status}: {text}"
    return _refused_option(text, message, options) or RequestRefused(message)
