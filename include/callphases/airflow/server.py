"""What the pages ask of the API server that they run in: a Dag run in a user's name, a line of the audit log, a key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from callphases.airflow.compat import trigger_as_user

if TYPE_CHECKING:
    from fastapi import Request


def signing_key() -> str:
    """The key that all API servers of an Airflow share, ``[api] secret_key``."""
    from airflow.api_fastapi.auth.tokens import get_signing_key

    return get_signing_key("api", "secret_key")


def is_paused(dag_id: str) -> bool:
    """Whether runs of a Dag wait until somebody unpauses it."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        return bool(session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag_id)))


def _has_run(dag_id: str, run_id: str) -> bool:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        found = session.scalar(select(DagRun.run_id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        return found is not None


def trigger(request: Request, user: Any, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> bool:
    """Create a run as Airflow's UI does, with its line in the audit log; False if there is one with this id.

    Raises:
        fastapi.HTTPException: Airflow does not take it.
    """
    from airflow.utils.session import create_session
    from sqlalchemy.exc import IntegrityError

    if _has_run(dag_id, run_id):
        return False
    # Airflow, too, logs what a user wants before it tries.
    audit(user, "trigger_dag_run", dag_id, {"conf": conf, "method": "POST"}, run_id)
    try:
        with create_session(scoped=False) as session:
            trigger_as_user(request, user, dag_id, run_id, dict(conf), session)
    except IntegrityError:
        if not _has_run(dag_id, run_id):
            raise
        return False  # a second click was quicker
    return True


def audit(user: Any, event: str, dag_id: str, extra: Mapping[str, Any], run_id: str | None = None) -> None:
    """Write a line of Airflow's audit log, as its API server does for what users do."""
    from airflow.models import Log
    from airflow.utils.session import create_session

    name = user.get_name()
    with create_session(scoped=False) as session:
        session.add(
            Log(
                event=event,
                owner=name,
                owner_display_name=name,
                extra=json.dumps(extra, ensure_ascii=False),
                dag_id=dag_id,
                run_id=run_id,
            )
        )
