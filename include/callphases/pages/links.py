"""Addresses of the pages, and of Airflow's own, below whatever path Airflow is served at."""

from __future__ import annotations

import datetime as dt
from urllib.parse import quote, urlencode

PREFIX = "/callphases"
"""Where Airflow mounts the pages."""


class Links:
    """Addresses as paths from the server's root.

    Args:
        airflow: the path that Airflow is served at, without a slash at its end; empty for the root.
    """

    def __init__(self, airflow: str) -> None:
        self._airflow, self._pages = airflow, f"{airflow}{PREFIX}"

    def pipeline(self, dag_id: str) -> str:
        """The page of a pipeline."""
        return f"{self._pages}/dags/{_part(dag_id)}"

    def run(self, dag_id: str, run_id: str) -> str:
        """The page of a Dag run."""
        return f"{self.pipeline(dag_id)}/runs/{_part(run_id)}"

    def day(self, dag_id: str, day: dt.date) -> str:
        """The page of a day."""
        return f"{self.pipeline(dag_id)}/days/{day}"

    def call(self, dag_id: str, day: dt.date, call_id: str) -> str:
        """The page of a call."""
        return f"{self.day(dag_id, day)}/calls/{_part(call_id)}"

    def audio(self, dag_id: str, day: dt.date, call_id: str) -> str:
        """The audio of a call."""
        return f"{self._pages}/audio/{_part(dag_id)}/{day}/{_part(call_id)}"

    def replay(self, dag_id: str) -> str:
        """Where the form to replay calls is sent."""
        return f"{self.pipeline(dag_id)}/replay"

    def log_in(self, path: str) -> str:
        """Airflow's way to log in, which comes back to a path of its server."""
        return f"{self._airflow}/api/v2/auth/login?{urlencode({'next': path})}"

    def airflow_run(self, dag_id: str, run_id: str) -> str:
        """A Dag run in Airflow's UI."""
        return f"{self._airflow}/dags/{_part(dag_id)}/runs/{_part(run_id)}"

    def airflow_task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        """A task instance in Airflow's UI, with its log."""
        mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
        return f"{self.airflow_run(dag_id, run_id)}/tasks/{_part(task_id)}{mapped}"


def _part(text: str) -> str:
    return quote(text, safe="")
