"""The app that Airflow's API server mounts: routes, each of which asks for the user's rights."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse

from callphases.errors import CallphasesError
from callphases.pages import airflow_rights
from callphases.pages.airflow_runs import run_of
from callphases.pages.links import PREFIX, Links
from callphases.pages.pipelines import DAG_PREFIX, stores_of, why_missing
from callphases.pages.rendering import render
from callphases.pages.share import Share


def create_app() -> FastAPI:
    """The app, without FastAPI's own pages, which would be open to anybody."""
    app = FastAPI(title="callphases", docs_url=None, redoc_url=None, openapi_url=None)
    share = Share()

    @app.get("/dags/{dag_id}/days/{day}", dependencies=[Depends(airflow_rights.see_dag)])
    async def day(request: Request, dag_id: str, day: dt.date) -> HTMLResponse:
        return await in_turn(request, lambda: _day(request, dag_id, day))

    @app.get("/dags/{dag_id}/runs/{run_id}", dependencies=[Depends(airflow_rights.see_dag)])
    async def run(request: Request, dag_id: str, run_id: str, day: str | None = None) -> HTMLResponse:
        return await in_turn(request, lambda: _day(request, dag_id, _date(day), run_id))

    async def in_turn(request: Request, answer: Callable[[], HTMLResponse]) -> HTMLResponse:
        try:
            return await share.make(answer, request.is_disconnected)
        except CallphasesError as error:
            return _message("The calls can't be shown", str(error), 503)

    return app


def _date(text: str | None) -> dt.date | None:
    """The date in a parameter; None if it is none."""
    try:
        return dt.date.fromisoformat(text) if text else None
    except ValueError:
        return None


def _day(request: Request, dag_id: str, day: dt.date | None, run_id: str | None = None) -> HTMLResponse:
    """The page of a day, or of a run and one of its days, the first unless another is asked for."""
    # Imported here, in the thread of the pages: pyarrow is heavy, and the API server's other work must not wait for it.
    from callphases.pages.day_page import day_page
    from callphases.pages.day_tables import day_version

    if not dag_id.startswith(DAG_PREFIX):
        return _message(
            "Not a Dag of callphases", f"{dag_id} is no pipeline of callphases, so there are no calls.", 200
        )
    stores = stores_of(dag_id)
    if stores is None:
        return _message("The pipeline file is missing", why_missing(dag_id), 503)
    run = run_of(stores.pipeline, run_id) if run_id is not None else None
    if run is None and run_id is not None:
        return _message("No such run", f"Airflow has no run {run_id} of {dag_id}.", 404)
    if run is not None and day not in (*run.days, *(late.day for late in run.late)):
        day = run.days[0] if run.days else None
    links = _links(request)
    action = links.day(dag_id, day) if run is None and day is not None else links.run(dag_id, run_id or "")
    version = day_version(stores, day) if day is not None else None
    if version is None and run is None:
        return _message(f"{day} is not published", "No run has published calls of this day.", 404)
    page = day_page(stores, version, request.query_params.multi_items()) if version is not None else None
    values: dict[str, Any] = {"page": page, "run": run, "day": day, "links": links, "dag_id": dag_id, "action": action}
    return _page("day", **values)


def _links(request: Request) -> Links:
    return Links(request.scope.get("root_path", "").removesuffix(PREFIX))


def _message(title: str, text: str, status: int) -> HTMLResponse:
    return _page("message", status, title=title, text=text)


def _page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    page = render(template, **values)
    headers = {
        "Content-Security-Policy": page.policy,
        "Cache-Control": "private, no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(page.html, status, headers)
