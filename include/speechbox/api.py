"""The HTTP routes: they translate requests into calls of the other modules, and results into responses."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import date
from typing import Any, cast, get_args

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from speechbox import bodies, captions, chat, faults, options, views
from speechbox.errors import error
from speechbox.fetch import AudioSource
from speechbox.gate import Gate
from speechbox.jobs import Jobs
from speechbox.limits import Limits, Turns
from speechbox.misbehaving import Misbehaving
from speechbox.sentences import Recognition
from speechbox.store import Record, Status, Store
from speechbox.traffic import CHAT_PATH, Traffic

MAX_UPLOAD_BYTES = 2_200 * 1000**2
UNKNOWN_TRANSCRIPT = "Transcript lookup error, transcript id not found"
UPLOAD_FAILED = "Upload failed, please try again."
_EXPORTS = {"vtt": captions.to_vtt, "srt": captions.to_srt}


class ApiError(Exception):
    """An error response in the format of the speech API."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Api:
    """The routes of both APIs."""

    def __init__(
        self,
        *,
        source: AudioSource,
        store: Store,
        jobs: Jobs,
        responder: chat.Responder,
        faults: faults.Faults,
        limits: Limits,
        engine_name: str,
        key: str | None = None,
        public_url: str | None = None,
    ) -> None:
        self._source = source
        self._store = store
        self._jobs = jobs
        self._responder = responder
        self._faults = faults
        self._engine_name = engine_name
        self._key = key
        self._public_url = public_url
        self._limits = limits
        self._turns = Turns(limits.chats_at_once)
        self._traffic = Traffic()
        self._asked = {"submissions": 0, "questions": 0, "questions_calls": 0}

    def application(self) -> Starlette:
        """Create the ASGI application; it runs the jobs during its lifespan."""

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            await self._jobs.start()
            yield
            await self._jobs.stop()
            self._source.close()
            self._store.close()

        return Starlette(
            routes=self._routes(),
            lifespan=lifespan,
            middleware=[
                Middleware(Gate, key=self._key, traffic=self._traffic, limits=self._limits),
                Middleware(Misbehaving, faults=self._faults),
            ],
            exception_handlers={
                ApiError: _speech_error,
                HTTPException: _routing_error,
                Exception: _unforeseen_error,
            },
        )

    def _routes(self) -> list[Route]:
        transcript = "/v2/transcript/{transcript_id}"
        return [
            Route(path, endpoint, methods=[method])
            for method, path, endpoint in (
                ("GET", faults.HEALTH_PATH, self.health),
                ("GET", faults.FAULTS_PATH, self.get_faults),
                ("PUT", faults.FAULTS_PATH, self.put_faults),
                ("DELETE", faults.FAULTS_PATH, self.delete_faults),
                ("POST", "/v2/upload", self.upload),
                ("POST", "/v2/transcript", self.submit),
                ("GET", "/v2/transcript", self.list_transcripts),
                ("GET", transcript, self.get),
                ("DELETE", transcript, self.delete),
                ("GET", f"{transcript}/sentences", self.sentences),
                ("GET", f"{transcript}/paragraphs", self.paragraphs),
                ("GET", f"{transcript}/word-search", self.word_search),
                ("GET", f"{transcript}/redacted-audio", self.redacted_audio),
                ("GET", f"{transcript}/{{subtitle_format}}", self.subtitles),
                ("POST", CHAT_PATH, self.chat_completions),
                ("GET", "/v1/models", self.models),
            )
        ]

    async def health(self, _: Request) -> Response:
        """Report health, transcripts by status, and request counters since the start; requires no key."""
        about: dict[str, Any] = {"status": "ok", "engine": self._engine_name, "transcripts": self._store.counts()}
        most = {"most_jobs_at_once": self._jobs.most_at_once, "most_chats_at_once": self._turns.most}
        return JSONResponse(about | self._asked | self._traffic.report() | most)

    async def get_faults(self, _: Request) -> Response:
        """Return the active faults and their counts."""
        return JSONResponse(self._faults.report())

    async def put_faults(self, request: Request) -> Response:
        """Replace all faults."""
        try:
            self._faults.replace(faults.parse(await request.body()))
        except ValueError as invalid:
            raise ApiError(400, str(invalid)) from invalid
        return JSONResponse(self._faults.report())

    async def delete_faults(self, _: Request) -> Response:
        """Remove all faults."""
        self._faults.replace(faults.Document())
        return JSONResponse(self._faults.report())

    async def upload(self, request: Request) -> Response:
        """Stream the body to a file."""
        upload_id = uuid.uuid4().hex
        path = self._source.uploads / upload_id
        partial = path.with_suffix(".part")
        size = 0
        try:
            with partial.open("wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > MAX_UPLOAD_BYTES:
                        raise ApiError(400, "Upload failed, the file is larger than 2.2 GB")
                    file.write(chunk)
            if not size:
                return PlainTextResponse(UPLOAD_FAILED, 422)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        return JSONResponse({"upload_url": f"{self._base_url(request)}/upload/{upload_id}"})

    async def submit(self, request: Request) -> Response:
        """Create and queue a transcript."""
        try:
            checked = options.check(bodies.content(request.scope))
        except ValueError as invalid:
            raise ApiError(400, str(invalid)) from invalid
        record = self._store.add(checked)
        self._jobs.submit(record.id)
        self._asked["submissions"] += 1
        return _json(views.transcript(record))

    async def list_transcripts(self, request: Request) -> Response:
        """Return a page of transcripts, newest first."""
        query = request.query_params
        limit = _integer(query.get("limit", "10"), "limit", 1, 200)
        status = _status(query.get("status"))
        created_on = _date(query.get("created_on"))
        before, after = (
            self._record(query[name]).number if name in query else None for name in ("before_id", "after_id")
        )
        page = self._store.page(limit, status, created_on, before, after)
        filters = {name: query[name] for name in ("status", "created_on") if name in query}
        base_url = self._base_url(request)
        current_url = f"{base_url}{request.url.path}" + (f"?{request.url.query}" if request.url.query else "")
        return JSONResponse(views.list_document(page, limit, filters, base_url, current_url))

    async def get(self, request: Request) -> Response:
        """Return the transcript, whatever its status."""
        transcript_id = request.path_params["transcript_id"]
        return _json(views.transcript(self._record(transcript_id), self._store.recognition(transcript_id)))

    async def delete(self, request: Request) -> Response:
        """Delete the data of a transcript and its upload."""
        transcript_id = request.path_params["transcript_id"]
        uploaded = self._source.uploaded(self._record(transcript_id).audio_url)
        if uploaded:
            uploaded.unlink(missing_ok=True)
        self._store.delete(transcript_id)
        return _json(views.transcript(self._record(transcript_id)))

    async def sentences(self, request: Request) -> Response:
        """Return the sentences of the transcript."""
        record, recognition = self._spoken(request)
        return JSONResponse(views.sentences_document(record, recognition.sentences))

    async def paragraphs(self, request: Request) -> Response:
        """Return the paragraphs of the transcript."""
        record, recognition = self._spoken(request)
        return JSONResponse(views.paragraphs_document(record, recognition.sentences))

    async def word_search(self, request: Request) -> Response:
        """Return where words or phrases occur in the audio."""
        phrases = [phrase.strip() for phrase in request.query_params.get("words", "").split(",") if phrase.strip()]
        record, recognition = self._spoken(request)
        if not phrases:
            raise ApiError(400, "words is required")
        return JSONResponse(views.word_search_document(record, recognition.sentences, phrases))

    async def redacted_audio(self, request: Request) -> Response:
        """Refuse: speechbox does not redact audio."""
        self._record(request.path_params["transcript_id"])
        raise ApiError(400, "Redacted audio is not available: speechbox does not redact")

    async def subtitles(self, request: Request) -> Response:
        """Return the transcript as captions."""
        subtitle_format = request.path_params["subtitle_format"]
        if subtitle_format not in _EXPORTS:
            return HTMLResponse("404: Not Found", 404)
        _, recognition = self._spoken(request)
        default = str(captions.CHARS_PER_CAPTION)
        limit = _integer(request.query_params.get("chars_per_caption", default), "chars_per_caption", 1)
        export = _EXPORTS[subtitle_format]
        text = recognition.rendered((subtitle_format, limit), lambda: export(recognition.sentences, limit))
        return PlainTextResponse(text, media_type=f"text/{subtitle_format}")

    async def chat_completions(self, request: Request) -> Response:
        """Answer a chat completion; its errors have the gateway's format."""
        try:
            completion, calls = await chat.complete(bodies.content(request.scope), self._responder, self._turns)
        except ValueError as invalid:
            return error("nested", 400, str(invalid))
        self._asked["questions"] += 1
        self._asked["questions_calls"] += calls
        return JSONResponse(completion)

    async def models(self, _: Request) -> Response:
        """List names of chat models; others are answered, too."""
        return JSONResponse(chat.models_document())

    def _base_url(self, request: Request) -> str:
        return (self._public_url or str(request.base_url)).rstrip("/")

    def _record(self, transcript_id: str) -> Record:
        record = self._store.get(transcript_id)
        if record is None:
            raise ApiError(400, UNKNOWN_TRANSCRIPT)
        return record

    def _spoken(self, request: Request) -> tuple[Record, Recognition]:
        """Return the record and its recognition, or raise an error without one."""
        transcript_id = request.path_params["transcript_id"]
        record = self._record(transcript_id)
        if record.status != "completed" or record.deleted:
            raise ApiError(400, "This transcript is not completed" if not record.deleted else UNKNOWN_TRANSCRIPT)
        recognition = self._store.recognition(transcript_id)
        if recognition is None or not recognition.sentences:
            raise ApiError(400, "This transcript has no text: no speech was found in the audio")
        return record, recognition


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


def _integer(text: str, name: str, at_least: int, at_most: int | None = None) -> int:
    value = int(text) if text.isascii() and text.isdigit() else at_least - 1
    if value < at_least or (at_most is not None and value > at_most):
        bounds = f"at least {at_least}" if at_most is None else f"between {at_least} and {at_most}"
        raise ApiError(400, f"{name} must be an integer of {bounds}")
    return value


def _status(text: str | None) -> Status | None:
    for status in get_args(Status):
        if text == status:
            return cast(Status, status)
    if text is None:
        return None
    raise ApiError(400, f"status must be one of {', '.join(get_args(Status))}")


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as invalid:
        raise ApiError(400, "created_on must be a date, YYYY-MM-DD") from invalid


async def _speech_error(_: Request, exception: Exception) -> Response:
    assert isinstance(exception, ApiError)
    return error("plain", exception.status, exception.message)


async def _routing_error(_: Request, exception: Exception) -> Response:
    assert isinstance(exception, HTTPException)
    message = "Not found" if exception.status_code == 404 else exception.detail
    return error("plain", exception.status_code, message)


async def _unforeseen_error(_: Request, __: Exception) -> Response:
    return error("plain", 500, "Internal server error. Please retry your request.")
