"""The HTTP side: the vendor's routes, and nothing but the way from a request to an answer."""

import contextlib
import json
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import date
from typing import Any, cast, get_args

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from speechbox import captions, chat, faults, options, views
from speechbox.fetch import AudioSource
from speechbox.jobs import Jobs
from speechbox.misbehaving import Misbehaving
from speechbox.sentences import Sentence
from speechbox.store import Record, Status, Store

MAX_UPLOAD_BYTES = 2_200 * 1000**2
UNKNOWN_TRANSCRIPT = "Transcript lookup error, transcript id not found"
UNAUTHORIZED = "Authentication error, API token missing/invalid"
UPLOAD_FAILED = "Upload failed, please try again."
_EXPORTS = {"vtt": captions.to_vtt, "srt": captions.to_srt}


class ApiError(Exception):
    """An answer other than 200, in the shape of the speech API."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Api:
    """The routes, on top of the rooms that do the work."""

    def __init__(
        self,
        *,
        source: AudioSource,
        store: Store,
        jobs: Jobs,
        responder: chat.Responder,
        faults: faults.Faults,
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
        self._asked = {"submissions": 0, "questions": 0, "questions_calls": 0}

    def application(self) -> FastAPI:
        """The ASGI application; it runs the jobs while it is up."""

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            await self._jobs.start()
            yield
            await self._jobs.stop()
            self._source.close()
            self._store.close()

        app = FastAPI(title="speechbox", lifespan=lifespan, openapi_url=None)
        app.include_router(self._router())
        app.add_middleware(Misbehaving, faults=self._faults, is_authorized=self._is_authorized)
        app.add_exception_handler(ApiError, _speech_error)
        app.add_exception_handler(HTTPException, _routing_error)
        app.add_exception_handler(Exception, _unforeseen_error)
        return app

    def _router(self) -> APIRouter:
        router = APIRouter()

        def route(method: str, path: str, endpoint: Callable[..., Any]) -> None:
            router.add_api_route(path, endpoint, methods=[method], response_model=None)

        route("GET", "/health", self.health)
        route("GET", "/faults", self.get_faults)
        route("PUT", "/faults", self.put_faults)
        route("DELETE", "/faults", self.delete_faults)
        route("POST", "/v2/upload", self.upload)
        route("POST", "/v2/transcript", self.submit)
        route("GET", "/v2/transcript", self.list_transcripts)
        route("GET", "/v2/transcript/{transcript_id}", self.get)
        route("DELETE", "/v2/transcript/{transcript_id}", self.delete)
        route("GET", "/v2/transcript/{transcript_id}/sentences", self.sentences)
        route("GET", "/v2/transcript/{transcript_id}/paragraphs", self.paragraphs)
        route("GET", "/v2/transcript/{transcript_id}/word-search", self.word_search)
        route("GET", "/v2/transcript/{transcript_id}/redacted-audio", self.redacted_audio)
        route("GET", "/v2/transcript/{transcript_id}/{subtitle_format}", self.subtitles)
        route("POST", "/v1/chat/completions", self.chat_completions)
        return router

    async def health(self) -> Response:
        """Whether the server is up, what it has to do, and what it was asked since it started; for everyone."""
        about: dict[str, Any] = {"status": "ok", "engine": self._engine_name, "transcripts": self._store.counts()}
        return JSONResponse(about | self._asked)

    async def get_faults(self, request: Request) -> Response:
        """The faults in force, and what they did."""
        self._authenticate(request)
        return JSONResponse(self._faults.report())

    async def put_faults(self, request: Request) -> Response:
        """Other faults, in place of all that were there."""
        self._authenticate(request)
        try:
            self._faults.replace(faults.parse(await request.body()))
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        return JSONResponse(self._faults.report())

    async def delete_faults(self, request: Request) -> Response:
        """No faults any more."""
        self._authenticate(request)
        self._faults.replace(faults.Document())
        return JSONResponse(self._faults.report())

    async def upload(self, request: Request) -> Response:
        """Stream the body to the disk."""
        self._authenticate(request)
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
        """Queue a transcript."""
        self._authenticate(request)
        try:
            checked = options.check(json.loads(await request.body()))
        except options.InvalidOptions as error:
            raise ApiError(400, str(error)) from error
        except ValueError as error:
            raise ApiError(400, "Invalid JSON in the request body") from error
        record = self._store.add(checked)
        self._jobs.submit(record.id)
        self._asked["submissions"] += 1
        return JSONResponse(views.transcript(record, []))

    async def list_transcripts(self, request: Request) -> Response:
        """One page of transcripts, newest first."""
        self._authenticate(request)
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

    async def get(self, request: Request, transcript_id: str) -> Response:
        """The transcript, whatever its state."""
        self._authenticate(request)
        return JSONResponse(views.transcript(self._record(transcript_id), self._store.sentences(transcript_id)))

    async def delete(self, request: Request, transcript_id: str) -> Response:
        """Remove the data of a transcript, and the upload that it was made from."""
        self._authenticate(request)
        uploaded = self._source.uploaded(self._record(transcript_id).audio_url)
        if uploaded:
            uploaded.unlink(missing_ok=True)
        self._store.delete(transcript_id)
        return JSONResponse(views.transcript(self._record(transcript_id), []))

    async def sentences(self, request: Request, transcript_id: str) -> Response:
        """The transcript in sentences."""
        return JSONResponse(views.sentences_document(*self._spoken(request, transcript_id)))

    async def paragraphs(self, request: Request, transcript_id: str) -> Response:
        """The transcript in paragraphs."""
        return JSONResponse(views.paragraphs_document(*self._spoken(request, transcript_id)))

    async def word_search(self, request: Request, transcript_id: str) -> Response:
        """Where in the audio words are said."""
        phrases = [phrase.strip() for phrase in request.query_params.get("words", "").split(",") if phrase.strip()]
        record, sentences = self._spoken(request, transcript_id)
        if not phrases:
            raise ApiError(400, "words is required")
        return JSONResponse(views.word_search_document(record, sentences, phrases))

    async def redacted_audio(self, request: Request, transcript_id: str) -> Response:
        """Never there: speechbox redacts nothing."""
        self._authenticate(request)
        self._record(transcript_id)
        raise ApiError(400, "Redacted audio is not available: speechbox does not redact")

    async def subtitles(self, request: Request, transcript_id: str, subtitle_format: str) -> Response:
        """The transcript as captions."""
        if subtitle_format not in _EXPORTS:
            return HTMLResponse("404: Not Found", 404)
        _, sentences = self._spoken(request, transcript_id)
        default = str(captions.CHARS_PER_CAPTION)
        limit = _integer(request.query_params.get("chars_per_caption", default), "chars_per_caption", 1)
        return PlainTextResponse(_EXPORTS[subtitle_format](sentences, limit), media_type=f"text/{subtitle_format}")

    async def chat_completions(self, request: Request) -> Response:
        """The gateway: which phases calls have. Its errors have shapes of their own."""
        request_id = str(uuid.uuid4())
        if not self._is_authorized(request):
            return JSONResponse({"error": UNAUTHORIZED, "status": "error", "request_id": request_id}, 401)
        try:
            completion, calls = await chat.complete(json.loads(await request.body()), self._responder)
            self._asked["questions"] += 1
            self._asked["questions_calls"] += calls
            return JSONResponse(completion)
        except chat.InvalidChat as error:
            message = str(error)
        except ValueError:
            message = "Invalid JSON in the request body"
        return JSONResponse({"error": {"code": 400, "message": message}, "request_id": request_id}, 400)

    def _is_authorized(self, request: Request) -> bool:
        """The key may come as it is, as AssemblyAI wants it, or as a bearer token, as OpenAI's clients send it."""
        given = request.headers.get("authorization", "").strip()
        if given[:7].lower() == "bearer ":
            given = given[7:].strip()
        return secrets.compare_digest(given.encode(), self._key.encode()) if self._key else bool(given)

    def _authenticate(self, request: Request) -> None:
        if not self._is_authorized(request):
            raise ApiError(401, UNAUTHORIZED)

    def _base_url(self, request: Request) -> str:
        return (self._public_url or str(request.base_url)).rstrip("/")

    def _record(self, transcript_id: str) -> Record:
        record = self._store.get(transcript_id)
        if record is None:
            raise ApiError(400, UNKNOWN_TRANSCRIPT)
        return record

    def _spoken(self, request: Request, transcript_id: str) -> tuple[Record, list[Sentence]]:
        """The record and its sentences; an error where there are none."""
        self._authenticate(request)
        record = self._record(transcript_id)
        if record.status != "completed" or record.deleted:
            raise ApiError(400, "This transcript is not completed" if not record.deleted else UNKNOWN_TRANSCRIPT)
        sentences = self._store.sentences(transcript_id)
        if not sentences:
            raise ApiError(400, "This transcript has no text: no speech was found in the audio")
        return record, sentences


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
    except ValueError as error:
        raise ApiError(400, "created_on must be a date, YYYY-MM-DD") from error


async def _speech_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse({"error": error.message}, error.status)


async def _routing_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": "Not found" if error.status_code == 404 else error.detail}, error.status_code)


async def _unforeseen_error(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "Internal server error. Please retry your request."}, 500)
