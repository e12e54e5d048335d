"""Whether Airflow has a connection, for programs that are no task."""

from __future__ import annotations

import os


def has_connection(conn_id: str) -> bool:
    """Whether an environment variable, a secrets backend or Airflow's database has a connection.

    One that is not in a variable is put into one of this process: outside of tasks and of Airflow's own servers, hooks
    do not look into the database.
    """
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if os.environ.get(variable):
        return True
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]  # it is not in __all__
    from airflow.models.connection import Connection

    try:
        connection = Connection.get_connection_from_secrets(conn_id)
    except AirflowNotFoundException:
        return False
    os.environ[variable] = connection.as_json()
    return True
