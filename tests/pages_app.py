"""The pages within Airflow's API server, in this process: with its database, its Dag and a published day."""

from __future__ import annotations

import io
import json
import re
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from callphases.airflow import server
from callphases.pages import pipelines
from callphases.pages.form_token import form_token
from callphases.pages.links import PREFIX
from callphases.pipeline import Pipeline
from callphases.tables.schema import SCHEMAS, object_name
from doubles import DAY, NOON, Store

ROOT = Path(__file__).parents[1]
COOKIE = "_token"
DONE, FAILED, LOST, ELSEWHERE = "a" * 16, "b" * 16, "c" * 16, "d" * 16
"""Calls of the day: completed, failed with bad_audio, failed with its recording gone, in another bucket."""


def _wav() -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(range(256)) * 40)
    return made.getvalue()


SUMMARY = "He sings by moonlight."
"""Of the only phase of the completed call."""
AUDIO = _wav()
"""A recording that browsers play."""


@dataclass
class Site:
    """The app below ``path``. ``ask`` takes a user's name, or None for nobody; ``token`` makes a user's."""

    path: str
    s3: Store
    pipeline: Pipeline
    folder: Path
    app: Any = None
    token: Callable[[str], str] = str
    user_id: Callable[[str], str] = str

    @property
    def dag_id(self) -> str:
        return self.pipeline.dag_id

    @property
    def pages(self) -> Any:
        """The app of the pages, within Airflow's."""
        return next(route.app for route in self.app.routes if getattr(route, "path", "") == PREFIX)

    def ask(self, user: str | None, path: str, method: str = "GET", *, cookie: bool = False, **more: Any) -> Any:
        from fastapi.testclient import TestClient

        client = TestClient(self.app, base_url="http://airflow.test", follow_redirects=False)
        headers = dict(more.pop("headers", {}))
        if user is not None and cookie:
            headers["Cookie"] = f"{COOKIE}={self.token(user)}"
        elif user is not None:
            headers["Authorization"] = f"Bearer {self.token(user)}"
        return client.request(method, f"{self.path}{PREFIX}{path}", headers=headers, **more)

    def open(self, address: str) -> Any:
        """What Airflow answers at a path of its server, without following it."""
        from fastapi.testclient import TestClient

        return TestClient(self.app, base_url="http://airflow.test", follow_redirects=False).get(address)

    def create_run(self, run_id: str, state: str = "queued", **conf: Any) -> None:
        """A run in a state, with its Params."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunType

        with create_session() as session:
            session.query(DagRun).filter(DagRun.dag_id == self.dag_id, DagRun.run_id == run_id).delete()
            kind, in_state = DagRunType.MANUAL, DagRunState(state)
            run = DagRun(self.dag_id, run_id, run_type=kind, state=in_state, run_after=NOON, conf=conf)
            session.add(run)

    def write(self, **pages: str) -> None:
        """Write the pipeline file anew, with these settings of its section ``pages``."""
        document = self.pipeline.model_dump(mode="json", exclude_unset=True) | {"pages": pages}
        (self.folder / "pages.yaml").write_text(yaml.safe_dump(document))
        pipelines._stores.cache_clear()

    def run(self, run_id: str) -> Any:
        """A run of the Dag."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            run = session.scalar(select(DagRun).where(DagRun.dag_id == self.dag_id, DagRun.run_id == run_id))
            session.expunge_all()
            return run

    def logged(self, event: str) -> list[Any]:
        """The lines of Airflow's audit log with an event and this Dag, oldest first."""
        from airflow.models import Log
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            lines = select(Log).where(Log.event == event, Log.dag_id == self.dag_id).order_by(Log.id)
            found = list(session.scalars(lines))
            session.expunge_all()
            return found


def token_of(site: Site, user: str, at_s: float | None = None) -> str:
    """What the form of a page brings that the user has loaded."""
    return form_token(server.signing_key(), site.user_id(user), site.dag_id, time.time() if at_s is None else at_s)


def replay(site: Site, user: str | None, **fields: str) -> Any:
    form = {"day": str(DAY), "token": token_of(site, user or "nobody"), **fields}
    return site.ask(user, f"/dags/{site.dag_id}/replay", "POST", data=form, cookie=True)


def routes(site: Site) -> list[tuple[str, str]]:
    """Each route with each of its methods, as a path that exists."""
    values = {"dag_id": site.dag_id, "run_id": "no-such-run", "day": str(DAY), "call_id": DONE}
    found = []
    for route in site.pages.routes:
        path = re.sub(r"{(\w+)(:path)?}", lambda name: values[name[1]], route.path)
        found += [(path, method) for method in sorted(route.methods)]
    return found


_APPS: dict[tuple[str, type], Any] = {}
"""Airflow's app for each path and auth manager: it takes seconds to make."""


@contextmanager
def served(path: str, s3: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The site, with whatever auth manager is configured."""
    from airflow.api_fastapi import app as api

    from versions import parsed, store, use_auth_manager

    extra = {"endpoint_url": s3.url, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "x", "password": "x", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(folder))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"http://airflow.test{path}")
    monkeypatch.setattr(api, "API_ROOT_PATH", f"{path}/")
    pipeline = s3.pipeline()
    site = Site(path, s3, pipeline, folder)
    site.write()
    publish_day(s3, pipeline)
    key = (path, api.get_auth_manager_cls())
    if key in _APPS:
        use_auth_manager(_APPS[key].state.auth_manager)  # in place of another test's
    else:
        store(parsed(str(ROOT / "dags" / "call_phases.py")))
        _APPS[key] = api.create_app(apps="core")
    site.app = _APPS[key]
    monkeypatch.setattr(site.pages, "_made", None)  # what it remembers is of another test
    _forget_runs(pipeline.dag_id)
    yield site


def _forget_runs(dag_id: str) -> None:
    """Delete the runs of other tests, some of which wait, and their lines in the audit log."""
    from airflow.models import Log
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session(scoped=False) as session:
        session.execute(delete(DagRun).where(DagRun.dag_id == dag_id))
        session.execute(delete(Log).where(Log.dag_id == dag_id))


def publish_day(s3: Store, pipeline: Pipeline) -> None:
    """Tables with a call of each kind, and the recordings."""
    rows = []
    for call_id, failure_class, bucket in (
        (DONE, None, pipeline.recordings.bucket),
        (FAILED, "bad_audio", pipeline.recordings.bucket),
        (LOST, "recording_gone", pipeline.recordings.bucket),
        (ELSEWHERE, None, "secrets"),
    ):
        recording = s3.put(f"calls/{DAY}/{call_id}.wav", AUDIO)
        if call_id == LOST:
            s3.client.delete_object(Bucket=recording.bucket, Key=recording.key)
        row = {
            "call_id": call_id,
            "recording_uri": f"s3://{bucket}/{recording.key}",
            "recording_etag": recording.etag,
            "call_started_at": NOON,
            "status": "failed" if failure_class else "completed",
            "failure_class": failure_class,
            "duration_s": 12.0,
        }
        rows.append(row)
    phase = {
        "call_id": DONE,
        "call_started_at": NOON,
        "phase_index": 0,
        "phase_name": "Introduction",
        "start_s": 0.0,
        "end_s": 12.0,
        "duration_s": 12.0,
        "share_of_call": 1.0,
        "start_cue": 1,
        "end_cue": 2,
        "summary": SUMMARY,
    }
    for table, content in (("calls", rows), ("phases", [phase])):
        body = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(content, SCHEMAS[table]), body)
        s3.tables.put(object_name(table, DAY), body.getvalue())
