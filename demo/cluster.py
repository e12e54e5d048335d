"""``python -m demo.cluster``: runs the demo's two days on a cluster, through Airflow's API, and prints tasks and rows.

It reads ``AIRFLOW_URL``, ``ADMIN_PASSWORD`` and ``S3_URL`` from the environment.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import requests

from demo.stack import DAG_ID, DAYS, TABLES, client, say

LIMIT_S = 900
"""For both days together; on two cores they take two or three minutes."""
REQUEST_S = 30


class Airflow:
    """A client of the few endpoints of Airflow's API that the demo uses."""

    def __init__(self, url: str, password: str) -> None:
        self._url = f"{url}/api/v2"
        self._session = requests.Session()
        answer = requests.post(f"{url}/auth/token", json={"username": "admin", "password": password}, timeout=REQUEST_S)
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request; returns the response's JSON, or None if the status is 404."""
        answer = self._session.request(method, f"{self._url}/{path}", json=body, timeout=REQUEST_S)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.json()


def main() -> None:
    """Run both days at once and print the result.

    Raises:
        SystemExit: a day failed or did not end in time.
    """
    began = time.monotonic()
    airflow = Airflow(os.environ["AIRFLOW_URL"], os.environ["ADMIN_PASSWORD"])
    _wait(lambda: airflow.ask("GET", f"dags/{DAG_ID}"), began, f"the Dag {DAG_ID} does not exist")
    airflow.ask("PATCH", f"dags/{DAG_ID}", {"is_paused": False})
    runs = {}
    for day in DAYS:
        run = airflow.ask("POST", f"dags/{DAG_ID}/dagRuns", {"logical_date": None, "conf": {"date": day}})
        runs[day] = f"dags/{DAG_ID}/dagRuns/{run['dag_run_id']}"
        say(f"==> {day} is run {run['dag_run_id']}")
    worked: Counter[str] = Counter()
    states = {}
    for day, run in runs.items():
        states[day] = _wait(lambda run=run: _ended(airflow, run), began, f"{day} has not ended")
        tasks = airflow.ask("GET", f"{run}/taskInstances")["task_instances"]
        worked.update(task["hostname"] for task in tasks if task["hostname"])
        say(f"    {day}: {states[day]} after {time.monotonic() - began:.0f} s")
    say("==> Tasks by worker: " + ", ".join(f"{name} {count}" for name, count in sorted(worked.items())))
    if set(states.values()) != {"success"}:
        raise SystemExit("A run failed: see the runs in Airflow's UI.")
    with tempfile.TemporaryDirectory() as folder:
        _fetch(client(os.environ["S3_URL"]), Path(folder))
        for table in ("calls", "phases"):
            say(f"==> {table}")
            for (day, value), rows in sorted(
                _counts(Path(folder) / table, by="status" if table == "calls" else "phase_name")
            ):
                say(f"    {day} {value:<14} {rows:>4}")


def _ended(airflow: Airflow, run: str) -> str | None:
    state = airflow.ask("GET", run)["state"]
    return state if state in ("success", "failed") else None


def _wait(look: Any, began: float, otherwise: str) -> Any:
    while not (found := look()):
        if time.monotonic() - began > LIMIT_S:
            raise SystemExit(f"After {LIMIT_S} s {otherwise}.")
        time.sleep(2)
    return found


def _counts(table: Path, by: str) -> list[tuple[tuple[str, str], int]]:
    """The number of rows of a table for each day and value of the column ``by``."""
    rows = pq.read_table(table, columns=["dt", by]).to_pylist()
    return list(Counter((row["dt"], row[by]) for row in rows).items())


def _fetch(s3: Any, folder: Path) -> None:
    """Download the tables."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="warehouse", Prefix=TABLES):
        for item in page.get("Contents", []):
            path = folder / item["Key"].removeprefix(TABLES)
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file("warehouse", item["Key"], str(path))


if __name__ == "__main__":
    main()
