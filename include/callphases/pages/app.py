"""The app that Airflow's API server mounts: routes, each of which asks for the user's rights."""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import Receive, Scope, Send

from callphases.airflow import server
from callphases.errors import CallphasesError
from callphases.pages import airflow_rights, replay
from callphases.pages.airflow_runs import days_of_run
from callphases.pages.answers import Guard, links_of, of_http_error, page, told
from callphases.pages.audio import Asked, Body, Redirect, Unavailable, audio_of
from callphases.pages.day_page import day_page
from callphases.pages.form_token import loaded_at
from callphases.pages.pipelines import Stores, stores_of
from callphases.pages.plays import Plays
from callphases.tables.reading import read_table_day

logger = logging.getLogger(__name__)

READ = ["GET", "HEAD"]
SEES = [Depends(airflow_rights.see_dag)]
TRIGGERS = [Depends(airflow_rights.trigger_dag)]


class NothingToShow(Exception):
    """Why, for the user; ``status`` of the answer."""

    def __init__(self, text: str, status: int = 404, title: str | None = None) -> None:
        super().__init__(text)
        self.status, self.title = status, title


def create_app() -> FastAPI:
    """The app, without FastAPI's own pages, which would be open to anybody, and its redirects to other slashes."""
    app = FastAPI(title="callphases", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(Guard)
    app.add_exception_handler(AnyHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_wrong_address)
    app.add_exception_handler(CallphasesError, _on_our_error)
    app.add_exception_handler(NothingToShow, _on_nothing)
    plays = Plays()

    @app.api_route("/dags/{dag_id}/days/{day}", methods=READ, dependencies=SEES)
    def day(request: Request, dag_id: str, day: dt.date) -> Response:
        return _day(request, dag_id, day)

    @app.api_route("/dags/{dag_id}/runs/{run_id:path}", methods=READ, dependencies=SEES)
    def run(request: Request, dag_id: str, run_id: str, day: dt.date | None = None) -> Response:
        _stores(dag_id)
        days = days_of_run(dag_id, run_id)
        if day is None and not days:
            return _waiting(request, dag_id, run_id)
        return _day(request, dag_id, day or days[0])

    @app.api_route("/audio/{dag_id}/{day}/{call_id}", methods=READ, dependencies=SEES)
    def audio(request: Request, user: airflow_rights.User, dag_id: str, day: dt.date, call_id: str) -> Response:
        stores = _stores(dag_id)
        if not airflow_rights.may(stores.pipeline.pages.listening, airflow_rights.AUDIO, request, user):
            raise HTTPException(403, "You may see this call, but not listen to it (pages.listening).")
        bucket, key, etag = _recording(stores, day, call_id)
        if bucket != stores.pipeline.recordings.bucket:
            raise NothingToShow(f"The recording is in the bucket {bucket}, which is not the pipeline's any more.")
        asked = Asked(request.headers.get("range"), request.headers.get("if-range"), request.method == "HEAD")
        found = audio_of(stores.bucket, key, etag, stores.pipeline.pages.audio, asked)
        if isinstance(found, Unavailable):
            return told(request, found.status, found.message, "The recording can't be played", found.headers)
        who = user.get_id()
        if not asked.is_head and plays.is_new((who, dag_id, day, call_id), asked.range):
            server.audit(user, "callphases_listen", dag_id, {"day": str(day), "call_id": call_id})
            logger.info("%s listens to the call %s of %s (%s).", user.get_name(), call_id, day, dag_id)
        if isinstance(found, Redirect):
            return RedirectResponse(found.url, found.status, found.headers)
        return _Streaming(found.body, found.status, found.headers)

    @app.post("/dags/{dag_id}/replay", dependencies=TRIGGERS)
    async def start_replay(request: Request, user: airflow_rights.User, dag_id: str) -> Response:
        form = await _form(request)
        return await run_in_threadpool(_replay, request, user, dag_id, form)

    return app


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    if error.status_code in (404, 405):
        # Nobody learns which addresses there are without being logged in.
        try:
            await airflow_rights.user_of(request)
        except HTTPException as denied:
            error = denied
    return of_http_error(request, error)


def _on_wrong_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = [f"{part['loc'][-1]}: {part['msg']}" for part in error.errors()]
    return told(request, 422, f"{'; '.join(wrong)}.")


def _on_our_error(request: Request, error: Exception) -> Response:
    return told(request, 503, str(error))


def _on_nothing(request: Request, error: Exception) -> Response:
    assert isinstance(error, NothingToShow)
    return told(request, error.status, str(error), error.title)


def _stores(dag_id: str) -> Stores:
    stores = stores_of(dag_id)
    if stores is None:
        raise NothingToShow(f"No pipeline file here makes the Dag {dag_id}.", title="Not a pipeline of callphases")
    return stores


def _day(request: Request, dag_id: str, day: dt.date) -> Response:
    stores = _stores(dag_id)
    shown = day_page(stores.tables, day, stores.pipeline.zone)
    if shown is None:
        raise NothingToShow("No run has published calls of this day.", title=f"{day} is not published")
    return page("day", page=shown, links=links_of(request), dag_id=dag_id)


def _waiting(request: Request, dag_id: str, run_id: str) -> Response:
    found = server.run_is_waiting(dag_id, run_id)
    if found is None:
        raise NothingToShow(f"The Dag {dag_id} has no run {run_id}.", title="There is no such run")
    state, is_paused = found
    if state == "queued" and is_paused:
        text = "The run is queued, and waits: the Dag is paused. It begins when somebody unpauses the Dag."
    elif state in ("queued", "running"):
        text = f"The run is {state}, and has not listed its calls yet. Load this page again in a minute."
    else:
        text = f"The run is over ({state}), and has listed no calls. The log of its task list says why."
    return told(request, 200, text, "Nothing to show yet")


def _recording(stores: Stores, day: dt.date, call_id: str) -> tuple[str, str, str]:
    """The bucket, the key and the ETag of a call in the day's table."""
    calls = read_table_day(stores.tables, "calls", day, ["call_id", "recording_uri", "recording_etag"])
    for row in [] if calls is None else calls.to_pylist():
        if row["call_id"] == call_id:
            bucket, _, key = row["recording_uri"].removeprefix("s3://").partition("/")
            return bucket, key, row["recording_etag"]
    raise NothingToShow(f"{day} has no call {call_id}.", title="There is no such call")


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Read here, after the rights are asked: FastAPI reads a whole body before."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise HTTPException(422, "Expected a form (application/x-www-form-urlencoded).")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > replay.MOST_BYTES:
            raise HTTPException(413, f"Expected a form of at most {replay.MOST_BYTES} bytes.")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _replay(request: Request, user: Any, dag_id: str, form: dict[str, str]) -> Response:
    clicked = loaded_at(form.get("token", ""), server.signing_key(), str(user.get_id()), dag_id, time.time())
    if clicked is None:
        raise HTTPException(403, "The page was loaded by another user, or too long ago. Load it again, then try again.")
    stores = _stores(dag_id)
    try:
        asked = replay.asked(form)
        replay.check(asked, stores.tables)
    except replay.WrongForm as error:
        raise NothingToShow(str(error), 422, "This can't be tried again") from None
    run_id = asked.run_id(clicked)
    server.trigger(request, user, dag_id, run_id, asked.params)
    return RedirectResponse(links_of(request).run(dag_id, run_id), 303)


class _Streaming(StreamingResponse):
    """Frees what the bytes come from, also when the browser goes away."""

    def __init__(self, body: Body, status: int, headers: dict[str, str]) -> None:
        super().__init__(body, status, headers)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await run_in_threadpool(self._body.close)
