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


def run_is_waiting(dag_id: str, run_id: str) -> tuple[str, bool] | None:
    """A run's state, and whether its Dag is paused; None if there is no such run."""
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    found = (
        select(DagRun.state, DagModel.is_paused)
        .join(DagModel, DagModel.dag_id == DagRun.dag_id)
        .where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
    )
    with create_session(scoped=False) as session:
        row = session.execute(found).one_or_none()
        return None if row is None else (str(row[0]), bool(row[1]))


def trigger(request: Request, user: Any, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> bool:
    """Create a run as Airflow's UI does, with its line in the audit log; False if there is one with this id.

    Raises:
        fastapi.HTTPException: Airflow does not take it.
    """
    from airflow.utils.session import create_session
    from sqlalchemy.exc import IntegrityError

    if run_is_waiting(dag_id, run_id) is not None:
        return False
    # Airflow, too, logs what a user wants before it tries.
    audit(user, "trigger_dag_run", dag_id, {"conf": conf, "method": "POST"}, run_id)
    try:
        with create_session(scoped=False) as session:
            trigger_as_user(request, user, dag_id, run_id, dict(conf), session)
    except IntegrityError:
        if run_is_waiting(dag_id, run_id) is None:
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
