"""Who may see what: asked from Airflow's auth manager for the user who is logged in.

Airflow does not authenticate the apps of plugins. What can't be asked is denied.
"""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException


def _denied(*_: Any, **__: Any) -> Any:
    raise HTTPException(403, "Airflow's security can't be asked here, so nothing is shown.")


try:
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag
except ImportError:
    see_dag = trigger_dag = _denied
else:
    see_dag = requires_access_dag("GET")
    """Dependency: the user may read the Dag in the path."""
    trigger_dag = requires_access_dag("POST", DagAccessEntity.RUN)
    """Dependency: the user may trigger the Dag in the path."""
