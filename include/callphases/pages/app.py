"""The app that Airflow's API server mounts: routes, each of which asks for the user's rights."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast
from urllib.parse import parse_qsl

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import Receive, Scope, Send

from callphases.airflow import server
from callphases.errors import CallphasesError
from callphases.pages import airflow_rights, replay
from callphases.pages.airflow_rights import User
from callphases.pages.airflow_runs import Run, run_of, unfinished
from callphases.pages.answers import Guard, kept_page, links_of, of_http_error, page, told
from callphases.pages.audio import Asked, Body, Redirect, Unavailable, audio_of, origin_of
from callphases.pages.call_page import call_page
from callphases.pages.day_page import day_page
from callphases.pages.day_tables import day_version
from callphases.pages.form_token import form_token, loaded_at
from callphases.pages.pipelines import DAG_PREFIX, Stores, stores_of, why_missing
from callphases.pages.plays import Plays
from callphases.pages.share import Share
from callphases.pages.threads import Threads
from callphases.state.storage import split_uri
from callphases.tables.one_call import rows_of_call

READ = ["GET", "HEAD"]


class NothingToShow(Exception):
    """Why, for the user, below ``title``; ``status`` is that of the answer."""

    def __init__(self, title: str, text: str, status: int = 404) -> None:
        super().__init__(text)
        self.title, self.status = title, status


async def _is_ours(dag_id: str) -> None:
    """Dependency: Airflow shows the tabs on every Dag, also on those of others."""
    if not dag_id.startswith(DAG_PREFIX):
        text = f"{dag_id} is no pipeline of callphases, so there are no calls."
        raise NothingToShow("Not a Dag of callphases", text, 200)


SEES = [Depends(airflow_rights.see_dag), Depends(_is_ours)]
TRIGGERS = [Depends(airflow_rights.trigger_dag), Depends(_is_ours)]


def create_app() -> FastAPI:
    """The app, without FastAPI's own pages, which would be open to anybody, and its redirects to other slashes."""
    app = FastAPI(title="callphases", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(Guard)
    app.add_exception_handler(AnyHTTPException, _on_http_error)
    app.add_exception_handler(CallphasesError, _on_our_error)
    app.add_exception_handler(NothingToShow, _on_nothing)
    airflow_rights.declare_views()
    share, threads, plays = Share(), Threads(), Plays()

    async def in_turn(request: Request, answer: Callable[[], Response]) -> Response:
        return await share.make(answer, request.is_disconnected)

    @app.api_route("/dags/{dag_id}", methods=READ, dependencies=SEES)
    async def pipeline(request: Request, dag_id: str, until: str | None = None) -> Response:
        return await in_turn(request, lambda: _pipeline(request, dag_id, _date(until)))

    @app.api_route("/dags/{dag_id}/days/{day}", methods=READ, dependencies=SEES)
    async def day(request: Request, user: User, dag_id: str, day: str) -> Response:
        return await in_turn(request, lambda: _day(request, user, dag_id, _day_of(day)))

    # An id may have a slash where [scheduler] allowed_run_id_pattern allows it.
    @app.api_route("/dags/{dag_id}/runs/{run_id:path}", methods=READ, dependencies=SEES)
    async def run(request: Request, user: User, dag_id: str, run_id: str, day: str | None = None) -> Response:
        return await in_turn(request, lambda: _day(request, user, dag_id, _date(day), run_id))

    @app.api_route("/dags/{dag_id}/days/{day}/calls/{call_id}", methods=READ, dependencies=SEES)
    async def call(request: Request, user: User, dag_id: str, day: str, call_id: str) -> Response:
        return await in_turn(request, lambda: _call(request, user, dag_id, _day_of(day), call_id))

    @app.api_route("/audio/{dag_id}/{day}/{call_id}", methods=READ, dependencies=SEES)
    async def audio(request: Request, user: User, dag_id: str, day: str, call_id: str) -> Response:
        return await threads.run(lambda: _audio(request, user, plays, threads, dag_id, _day_of(day), call_id))

    @app.post("/dags/{dag_id}/replay", dependencies=TRIGGERS)
    async def start_replay(request: Request, user: User, dag_id: str) -> Response:
        form = await _form(request)
        return await threads.run(lambda: _replay(request, user, dag_id, form))

    return app


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    if error.status_code in (404, 405):
        # Who is not logged in does not learn which addresses there are.
        try:
            await airflow_rights.user_of(request)
        except HTTPException as denied:
            error = denied
    return of_http_error(request, error)


def _on_our_error(request: Request, error: Exception) -> Response:
    return told(request, 503, str(error))


def _on_nothing(request: Request, error: Exception) -> Response:
    assert isinstance(error, NothingToShow)
    return told(request, error.status, str(error), error.title)


def _day_of(text: str) -> dt.date:
    """The date in an address."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise HTTPException(422, f"{text!r} is not a date; expected one such as 2026-11-20.") from None


def _date(text: str | None) -> dt.date | None:
    """The date in a parameter, if it has one."""
    return _day_of(text) if text else None


def _stores(dag_id: str) -> Stores:
    stores = stores_of(dag_id)
    if stores is None:
        raise NothingToShow("The pipeline file can't be read", why_missing(dag_id), 503)
    return stores


def _may_read(stores: Stores, request: Request, user: Any) -> bool:
    return airflow_rights.may(stores.pipeline.pages.transcripts, airflow_rights.TRANSCRIPTS, request, user)


def _may_listen(stores: Stores, request: Request, user: Any) -> bool:
    return airflow_rights.may(stores.pipeline.pages.listening, airflow_rights.AUDIO, request, user)


def _token(user: Any, dag_id: str) -> str:
    return form_token(server.signing_key(), str(user.get_id()), dag_id, time.time())


def _pipeline(request: Request, dag_id: str, until: dt.date | None) -> Response:
    # It takes 0.3 s to import, for which the first page of a day need not wait.
    from callphases.pages.pipeline_page import pipeline_page

    shown = pipeline_page(_stores(dag_id), until)
    return page(request, "pipeline", page=shown, links=links_of(request), dag_id=dag_id)


def _day(request: Request, user: Any, dag_id: str, day: dt.date | None, run_id: str | None = None) -> Response:
    """The page of a day, or of a run and one of its days, the first unless another is asked for."""
    stores = _stores(dag_id)
    run = run_of(stores.pipeline, run_id) if run_id is not None else None
    if run is None and run_id is not None:
        raise NothingToShow("No such run", f"Airflow has no run {run_id} of {dag_id}.")
    if run is not None and day not in (*run.days, *(late.day for late in run.late)):
        day = run.days[0] if run.days else None
    try:
        return _published_day(request, user, stores, day, run)
    except CallphasesError as error:
        if run is None:
            raise
        # What Airflow knows of the run is shown all the same: it may say what is wrong.
        known: dict[str, Any] = {"run": run, "day": day, "waits": _waits(run, dag_id), "page": None}
        known |= {"links": links_of(request), "dag_id": dag_id, "action": "", "may_replay": False}
        return page(request, "day", problem=str(error), **known)


def _waits(run: Run | None, dag_id: str) -> bool:
    return run is not None and run.state == "queued" and server.is_paused(dag_id)


def _published_day(request: Request, user: Any, stores: Stores, day: dt.date | None, run: Run | None) -> Response:
    dag_id, links = stores.pipeline.dag_id, links_of(request)
    action = links.run(dag_id, run.run_id) if run is not None else links.day(dag_id, cast(dt.date, day))
    version = day_version(stores, day) if day is not None else None
    if version is None and run is None:
        raise NothingToShow(f"{day} is not published", "No run has published calls of this day.")
    parameters = request.query_params.multi_items()
    may_read, may_replay = _may_read(stores, request, user), airflow_rights.may_trigger(request, user)
    waits = _waits(run, dag_id)

    def values() -> dict[str, Any]:
        return {
            "page": day_page(stores, version, parameters, may_read=may_read) if version is not None else None,
            "run": run,
            "waits": waits,
            "day": day,
            "problem": None,
            "links": links,
            "dag_id": dag_id,
            "action": action,
            "may_replay": may_replay,
        }

    # All that the page depends on: readers of the same page differ in the token of its forms alone.
    key = (
        version,
        repr(run),
        waits,
        day,
        action,
        stores.pipeline.model_dump_json(),
        may_read,
        may_replay,
        str(parameters),
    )
    return kept_page(request, "day", key, values, token=_token(user, dag_id))


def _call(request: Request, user: Any, dag_id: str, day: dt.date, call_id: str) -> Response:
    stores = _stores(dag_id)
    shown = call_page(
        stores,
        day,
        call_id,
        may_read=_may_read(stores, request, user),
        may_listen=_may_listen(stores, request, user),
        may_replay=airflow_rights.may_trigger(request, user),
    )
    if shown is None:
        raise NothingToShow("There is no such call", f"{day} has no call {call_id}.")
    origin = None
    if shown.audio.plays and stores.pipeline.pages.audio == "redirect":
        # Without credentials there are no redirects either, and the player says why.
        with contextlib.suppress(CallphasesError):
            origin = origin_of(stores.bucket)
    return page(
        request,
        "call",
        media_origins=[origin] if origin else [],
        origin=origin,
        page=shown,
        links=links_of(request),
        dag_id=dag_id,
        token=_token(user, dag_id),
        replaying=unfinished(dag_id, replay.Asked(day, call_id, None).beginning) if shown.failure else None,
    )


def _audio(
    request: Request, user: Any, plays: Plays, threads: Threads, dag_id: str, day: dt.date, call_id: str
) -> Response:
    stores = _stores(dag_id)
    who = str(user.get_name())
    if not _may_listen(stores, request, user):
        plays.refused(who, dag_id, day, call_id)
        raise HTTPException(403, "You may see this call, but not listen to it (pages.listening).")
    rows = rows_of_call(stores.tables, "calls", day, call_id)
    if rows is None or not rows.num_rows:
        raise NothingToShow("There is no such call", f"{day} has no call {call_id}.")
    row = rows.slice(0, 1).to_pylist()[0]
    bucket, key = split_uri(row["recording_uri"])
    title = "The recording can't be played"
    if bucket != stores.pipeline.recordings.bucket:
        # Whoever writes tables must not make every bucket heard that the connection can read.
        raise NothingToShow(title, f"The recording is in the bucket {bucket}, not in recordings.bucket.")
    asked = Asked(request.headers.get("range"), request.headers.get("if-range"), request.method == "HEAD")
    found = audio_of(stores.bucket, key, row["recording_etag"], stores.pipeline.pages.audio, asked)
    if isinstance(found, Unavailable):
        return told(request, found.status, found.message, title, found.headers)
    if not asked.is_head and found.status != 416:
        extra = {"day": str(day), "call_id": call_id}
        plays.begin(
            who, dag_id, day, call_id, asked.range, lambda: server.audit(user, "callphases_listen", dag_id, extra)
        )
    if isinstance(found, Redirect):
        return RedirectResponse(found.url, found.status, found.headers)
    return _Streaming(found.body, threads, found.status, found.headers)


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
        raise NothingToShow("This can't be tried again", str(error), 422) from None
    run_id = unfinished(dag_id, asked.beginning)
    if run_id is None:
        run_id = asked.run_id(clicked)
        server.trigger(request, user, dag_id, run_id, asked.params)
    return RedirectResponse(links_of(request).run(dag_id, run_id), 303)


class _Streaming(StreamingResponse):
    """Reads each piece in a thread, and frees what the bytes come from, also when the browser goes away."""

    def __init__(self, body: Body, threads: Threads, status: int, headers: dict[str, str]) -> None:
        super().__init__(self._pieces(), status, headers)
        self._body, self._threads = body, threads

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await self._threads.go_on(lambda: next(self._body, b"")):
            yield piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await run_in_threadpool(self._body.close)
