"""Registers the pages with Airflow, through the entry point ``airflow.plugins``: the app, and its tabs."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from callphases.pages.links import PREFIX


class _LazyApp:
    """The app, made when it is first used: Airflow imports plugins in each of its processes."""

    def __init__(self) -> None:
        self._made: Any = None
        self._making = threading.Lock()

    @property
    def _app(self) -> Any:
        with self._making:
            if self._made is None:
                from callphases.pages.app import create_app

                self._made = create_app()
        return self._made

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, as ASGI has it. The app is made in a thread: Airflow's requests must not wait for that."""
        app = self._made or await asyncio.to_thread(lambda: self._app)
        await app(scope, receive, send)

    def __getattr__(self, name: str) -> Any:
        """Whatever else an app has, such as its routes."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._app, name)


def _tab(name: str, destination: str, path: str) -> dict[str, Any]:
    # Airflow takes the address as one of its server, so the path that Airflow is served at belongs in it.
    served_at = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    route = f"callphases-{destination.replace('_', '-')}"
    return {"name": name, "destination": destination, "href": f"{served_at}{PREFIX}{path}", "url_route": route}


class CallphasesPages(AirflowPlugin):
    """The API server serves the app, and its UI shows the tabs."""

    name = "callphases_pages"
    fastapi_apps = [{"app": _LazyApp(), "url_prefix": PREFIX, "name": "callphases"}]  # noqa: RUF012 - as Airflow has it
    external_views = [  # noqa: RUF012
        _tab("Calls", "dag_run", "/dags/{DAG_ID}/runs/{RUN_ID}"),
        _tab("Call phases", "dag", "/dags/{DAG_ID}"),
    ]
