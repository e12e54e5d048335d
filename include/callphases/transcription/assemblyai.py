"""The speech service as a client: upload, submit, look up, list, captions, delete.

Facts about the service are from its OpenAPI document and its public documentation.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import requests

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
    WrongKey,
    says_retired,
    without_secrets,
)
from callphases.limits.throttle import SPEECH_REQUESTS_A_S, Throttle, error_text

log = logging.getLogger(__name__)

DEFAULT_URL = "https://api.assemblyai.com"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 120.0
SUBMIT_TIMEOUTS_S = 5.0, 30.0
"""To connect, and for the answer. A submission that takes longer is given up and looked for: it must not outlive the
lease of the day (lease.py)."""
LIST_LIMIT = 200
"""Jobs that one answer of the list endpoint shows at most."""


@dataclass(frozen=True)
class Job:
    """What is known of a transcription: ``status`` is queued, processing, completed or error.

    ``audio_url`` is without its query, which signs; ``created`` and ``completed`` are None where the service does not
    tell.
    """

    id: str
    status: str
    error: str | None = None
    audio_url: str = ""
    created: dt.datetime | None = None
    completed: dt.datetime | None = None

    @property
    def took_s(self) -> float | None:
        """Seconds from its submission to its end, if the service tells."""
        if self.created is None or self.completed is None:
            return None
        return (self.completed - self.created).total_seconds()

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ("completed", "error")


class AssemblyAI:
    """A client of one account.

    Every method may raise AccountError (key, balance), ServiceUnavailable, or RequestRefused with the service's words.
    """

    def __init__(self, key: str, url: str = DEFAULT_URL, session: requests.Session | None = None) -> None:
        self.url = url.rstrip("/")
        self._session = session or requests.Session()
        self._session.headers["authorization"] = key
        self._throttle = Throttle(f"speech service at {self.url}", SPEECH_REQUESTS_A_S, self._probe)

    def check(self) -> None:
        """Ask for one job, to see that the service answers and takes the key. Costs nothing."""
        self._json("GET", "/v2/transcript", params={"limit": 1})

    def check_options(self, options: dict[str, Any]) -> None:
        """Ask for a transcription of nothing: the service may object to a model before it misses the recording.

        Without a recording there is no job, and nothing to pay for.

        Raises:
            ModelRetired: one of the speech models is not served any more.
        """
        try:
            self._json("POST", "/v2/transcript", repeatable=False, json=options)
        except ModelRetired:
            raise
        except RequestRefused:
            return

    def upload(self, body: Callable[[], Iterator[bytes]]) -> str:
        """Send a file in pieces; returns the URL that ``submit`` takes.

        Args:
            body: opens the file and yields its pieces; called again when the upload has to start again.
        """
        response = self._send("POST", "/v2/upload", body=body, headers={"content-type": "application/octet-stream"})
        return str(_document(response)["upload_url"])

    def submit(self, audio_url: str, options: dict[str, Any], confirm: Callable[[], None] = lambda: None) -> Job:
        """Start a transcription with ``options`` as they are. This is what is paid for, so it is sent only once.

        Args:
            audio_url: what the service fetches.
            options: of ``POST /v2/transcript``.
            confirm: called right before the request goes; what it raises keeps it from going.

        Raises:
            ModelRetired: one of the speech models is not served any more.
            AnswerLost: nobody knows whether the job exists.
        """
        body = {"audio_url": audio_url, **options}
        return _job(
            self._json(
                "POST", "/v2/transcript", repeatable=False, confirm=confirm, timeouts_s=SUBMIT_TIMEOUTS_S, json=body
            )
        )

    def transcript(self, transcript_id: str) -> dict[str, Any]:
        """The whole transcript document of a job, whatever its status."""
        return self._json("GET", f"/v2/transcript/{transcript_id}")

    def jobs(self, ids: Sequence[str]) -> dict[str, Job]:
        """The state of each job, in as few requests as the list endpoint allows, which shows 200 jobs in one.

        The newest jobs of the account are looked at first. Where some of ``ids`` are older than those, the newest of
        them is looked up by itself, and with it as a mark the list shows those that were submitted before it.

        Args:
            ids: in the order of submission, as far as that is known.
        """
        missing = dict.fromkeys(reversed(ids))
        found = self._shown(missing, {}) if len(missing) > 1 else {}
        is_listed = True
        while missing:
            one = next(iter(missing))
            found[one] = self._look_up(one)
            del missing[one]
            if missing and is_listed:
                shown = self._shown(missing, {"before_id": one})
                is_listed = bool(shown)
                found.update(shown)
        return found

    def _shown(self, missing: dict[str, None], mark: dict[str, str]) -> dict[str, Job]:
        """What the list shows of ``missing``, and takes out of it: page after page as long as there is any."""
        found: dict[str, Job] = {}
        for page in self._pages(mark):
            shown = {job.id: job for job in page if job.id in missing}
            for one in shown:
                del missing[one]
            found.update(shown)
            if not shown or not missing:
                break
        return found

    def jobs_since(self, moment: dt.datetime) -> Iterator[Job]:
        """The jobs that were submitted since ``moment``, newest first, as far as the service lists them (90 days)."""
        for page in self._pages():
            yield from page
            if page and page[-1].created is not None and page[-1].created < moment:
                return

    def _look_up(self, transcript_id: str) -> Job:
        try:
            return _job(self.transcript(transcript_id))
        except RequestRefused as refusal:
            if "not found" not in str(refusal).lower():
                # Paid for, and perhaps still running: only a later look-up can tell.
                raise ServiceUnavailable(f"A job can't be looked up: {refusal}") from None
            return Job(transcript_id, "error", str(refusal))  # deleted at the provider, or of another account

    def _pages(self, before: dict[str, str] | None = None) -> Iterator[list[Job]]:
        before = before or {}
        while True:
            try:
                page = self._json("GET", "/v2/transcript", params={"limit": LIST_LIMIT, **before})
                jobs = [_job(item) for item in page["transcripts"]]
            except (RequestRefused, KeyError):  # a server without this endpoint: one by one, then
                return
            yield jobs
            # A page may be shorter than asked for; what says that there are older jobs is prev_url.
            if not jobs or not page.get("page_details", {}).get("prev_url"):
                return
            before = {"before_id": jobs[-1].id}

    def vtt(self, transcript_id: str) -> str:
        """The captions as WebVTT. The service refuses this for a transcript without speech."""
        response = self._send("GET", f"/v2/transcript/{transcript_id}/vtt")
        # text/* without a charset is Latin-1 to requests, and UTF-8 to everyone else.
        return response.content.decode("utf-8", errors="replace")

    def delete(self, transcript_id: str) -> None:
        """Remove the transcript and its upload at the provider."""
        self._json("DELETE", f"/v2/transcript/{transcript_id}")

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
        **kwargs: Any,
    ) -> requests.Response:
        def request() -> requests.Response:
            confirm()
            if body is not None:
                kwargs["data"] = body()
            return self._session.request(method, self.url + path, timeout=timeouts_s, **kwargs)

        response = self._throttle.send(request, repeatable=repeatable)
        if response.status_code >= 400:
            raise _refusal(response, self.url)
        return response

    def _probe(self) -> requests.Response:
        return self._session.get(
            f"{self.url}/v2/transcript", params={"limit": 1}, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        )


def job_failure(error: str | None) -> CallFailure:
    """The failure that a job with status ``error`` stands for, by the service's own words."""
    text = without_secrets(error or "The job ended in an error without a message.")
    lower = text.lower()
    if "too short" in lower:
        return TooShort(text)
    if lower.startswith("download error"):
        return DownloadRefused(text)
    if "does not appear to contain audio" in lower or "transcoding failed" in lower:
        return BadAudio(text)
    if says_retired(text):
        return ModelRetired(text)
    return ProviderError(text)


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
    """What tells one recording's URL from another's: a presigned one has another query each time."""
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


def _refusal(response: requests.Response, url: str) -> Exception:
    said = error_text(response) or f"an answer of {response.status_code} without a word"
    lower = said.lower()
    if response.status_code == 401:
        return WrongKey(
            f"The speech service at {url} does not take the key ({said}): "
            "set the password of the assemblyai connection to a valid API key."
        )
    if "balance" in lower or response.status_code == 402:
        return NoBalance(f"The speech service says: {said} Nothing more is sent before the account is topped up.")
    if response.status_code >= 500:
        return ServiceUnavailable(f"The speech service at {url} answered {response.status_code}: {said}")
    if says_retired(said):
        return ModelRetired(f"The speech service says: {said}")
    return RequestRefused(f"The speech service answered {response.status_code}: {said}")
