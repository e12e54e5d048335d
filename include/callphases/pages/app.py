"""The app that Airflow's API server mounts: routes, each of which asks for the user's rights."""

from __future__ import annotations

import datetime as dt
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse

from callphases.errors import CallphasesError
from callphases.pages import airflow_rights
from callphases.pages.airflow_runs import days_of_run
from callphases.pages.day_page import day_page
from callphases.pages.links import PREFIX, Links
from callphases.pages.pipelines import stores_of
from callphases.pages.rendering import render


def create_app() -> FastAPI:
    """The app, without FastAPI's own pages, which would be open to anybody."""
    app = FastAPI(title="callphases", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/dags/{dag_id}/days/{day}", dependencies=[Depends(airflow_rights.see_dag)])
    def day(request: Request, dag_id: str, day: dt.date) -> HTMLResponse:
        return _day(request, dag_id, day)

    @app.get("/dags/{dag_id}/runs/{run_id}", dependencies=[Depends(airflow_rights.see_dag)])
    def run(request: Request, dag_id: str, run_id: str, day: dt.date | None = None) -> HTMLResponse:
        days = days_of_run(dag_id, run_id)
        if day is None and not days:
            return _message("Nothing to show yet", "The run has not listed its calls yet.", 404)
        return _day(request, dag_id, day or days[0])

    return app


def _day(request: Request, dag_id: str, day: dt.date) -> HTMLResponse:
    try:
        stores = stores_of(dag_id)
        if stores is None:
            return _message("Not a pipeline of callphases", f"No pipeline file here makes the Dag {dag_id}.", 404)
        page = day_page(stores.tables, day, stores.pipeline.zone)
    except CallphasesError as error:
        return _message("The calls can't be shown", str(error), 503)
    if page is None:
        return _message(f"{day} is not published", "No run has published calls of this day.", 404)
    return _page("day", page=page, links=_links(request), dag_id=dag_id)


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
