"""Client of the speech service: upload, submit, look up, list, fetch captions, delete.

Facts about the service are from its OpenAPI document and its public documentation.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from callphases.clock import SYSTEM_CLOCK, Clock
from callphases.errors import (
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
        audio_url: the recording's URL without its query, which holds the signature.
        created, completed: None if the service does not report them.
    """

    id: str
    status: str
    error: str | None = None
    audio_url: str = ""
    created: dt.datetime | None = None
    completed: dt.datetime | None = None

    @property
    def took_s(self) -> float | None:
        """Seconds from submission to completion; None if the service does not report them."""
        if self.created is None or self.completed is None:
            return None
        return (self.completed - self.created).total_seconds()

    @property
    def ended(self) -> bool:
        """Whether the job has reached its final status."""
        return self.status in ("completed", "error")


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
            self._json("POST", "/v2/transcript", repeatable=False, models=_models_of(options), json=options)
        except ModelRetired:
            raise
        except RequestRefused:
            return

    def upload(self, body: Callable[[], Iterator[bytes]]) -> str:
        """Upload a file in chunks and return its URL, for ``submit``.

        Args:
            body: opens the file and yields its chunks; called again if the upload has to restart.
        """
        response = self._send("POST", "/v2/upload", body=body, headers={"content-type": "application/octet-stream"})
        return str(_document(response)["upload_url"])

    def submit(self, audio_url: str, options: dict[str, Any], confirm: Callable[[], None] = lambda: None) -> Job:
        """Start a transcription. Each job is billed, so a submission that may have been accepted is never repeated.

        Args:
            audio_url: where the service downloads the recording.
            options: of ``POST /v2/transcript``, sent unchanged.
            confirm: called right before each attempt; if it raises, the request is not sent.

        Raises:
            ModelRetired: one of the speech models is not served any more.
            AnswerLost: it is unknown whether the job exists.
        """
        return _job(
            self._json(
                "POST",
                "/v2/transcript",
                repeatable=False,
                confirm=confirm,
                timeouts_s=SUBMIT_TIMEOUTS_S,
                models=_models_of(options),
                json={"audio_url": audio_url, **options},
            )
        )

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
            return _job(self.transcript(transcript_id))
        except TranscriptUnknown as unknown:
            return Job(transcript_id, "error", str(unknown))
        except RequestRefused as refusal:
            # The job is paid for and may still be running; only a later lookup can tell.
            raise ServiceUnavailable(f"A job can't be looked up: {refusal}") from None

    def _pages(self, before: dict[str, str] | None = None) -> Iterator[list[Job]]:
        before = before or {}
        while True:
            try:
                page = self._json("GET", "/v2/transcript", params={"limit": LIST_LIMIT, **before})
                jobs = [_job(item) for item in page["transcripts"]]
            except (RequestRefused, KeyError):  # the server has no list endpoint
                return
            yield jobs
            # A page may be short even if older jobs exist; prev_url tells.
            if not jobs or not page.get("page_details", {}).get("prev_url"):
                return
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
        models: Sequence[str] = (),
        is_lookup: bool = False,
        **kwargs: Any,
    ) -> requests.Response:
        """Send a request through the throttle and raise the error that a 4xx stands for.

        ``models`` are the speech models that it asks for; ``is_lookup`` says that it names a transcript.
        """

        def request() -> requests.Response:
            confirm()
            if body is not None:
                kwargs["data"] = body()
            return self._session.request(method, self.url + path, timeout=timeouts_s, **kwargs)

        response = self._throttle.send(request, repeatable=repeatable)
        if response.status_code >= 400:
            raise _refusal(response, self.url, models, is_lookup)
        return response

    def _probe(self) -> requests.Response:
        return self._session.get(
            f"{self.url}/v2/transcript", params={"limit": 1}, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        )


def job_failure(error: str | None, models: Sequence[str] = ()) -> CallFailure:
    """The failure of a job with status ``error``.

    Args:
        error: the service's message.
        models: speech models that may have been asked for; ``ModelRetired.named`` is one of them.
    """
    text = without_secrets(error or "The job ended in an error without a message.")
    failure = _failure(text, models)
    if "server error" in text.lower():
        failure.may_pass = True
    return failure


def _failure(text: str, models: Sequence[str]) -> CallFailure:
    lower = text.lower()
    if "too short" in lower:
        return TooShort(text)
    if lower.startswith("download error"):
        return DownloadRefused(text)
    if "does not appear to contain audio" in lower or "transcoding failed" in lower:
        return BadAudio(text)
    if (gone := retired_model(text, models)) is not None:
        return ModelRetired(text, named=gone)
    return ProviderError(text)


def _models_of(options: Mapping[str, Any]) -> list[str]:
    named = options.get("speech_models") or [options.get("speech_model")]
    return [str(model) for model in named if model]


def _job(document: dict[str, Any]) -> Job:
    return Job(
        id=str(document["id"]),
        status=str(document["status"]),
        error=document.get("error") or None,
        audio_url=without_query(str(document.get("audio_url") or "")),
        created=_moment(document.get("created")),
        completed=_moment(document.get("completed")),
    )


def without_query(url: str) -> str:
    """A URL that identifies a recording: the query of a presigned URL differs each time."""
    return url.partition("?")[0]


def _moment(text: object) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _document(response: requests.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except requests.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise ServiceUnavailable(
            f"Expected JSON from the speech service and got {response.headers.get('content-type', 'nothing')}: "
            "check the host of the assemblyai connection."
        )
    return document


def _refusal(response: requests.Response, url: str, models: Sequence[str], is_lookup: bool) -> Exception:
    text = error_text(response) or f"status {response.status_code} without a message"
    lower = text.lower()
    if response.status_code == 401:
        return WrongKey(
            f"The speech service at {url} does not accept the key ({text}): "
            "set the password of the assemblyai connection to a valid API key."
        )
    if "balance" in lower or response.status_code == 402:
        return NoBalance(f"The speech service says: {text} No requests are sent until the account is topped up.")
    if response.status_code >= 500:
        return ServiceUnavailable(f"The speech service at {url} answered {response.status_code}: {text}")
    if is_lookup and "not found" in lower:
        return TranscriptUnknown(f"The speech service answered {response.status_code}: {text}")
    if (gone := retired_model(text, models)) is not None:
        return ModelRetired(f"The speech service says: {text}", named=gone)
    return RequestRefused(f"The speech service answered {response.status_code}: {text}")
