"""What the tests need of Airflow that has another place in each of its versions."""

from __future__ import annotations

from typing import Any


def parsed(dag_file: str) -> Any:
    """The ``DagBag`` of one Dag file."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # 3.1
        from airflow.models.dagbag import DagBag
    bag = DagBag(collect_dags=False)
    bag.process_file(dag_file)
    return bag


def store(bag: Any) -> None:
    """Write the Dags to Airflow's database, as the Dag processor does with a parsed file."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    try:
        from airflow.dag_processing.dagbag import sync_bag_to_db
    except ImportError:  # 3.1
        from airflow.models.dagbag import sync_bag_to_db
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(bag, "dags-folder", None)


def serialized(dag: Any) -> Any:
    """A Dag as the scheduler gets it."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization
    except ImportError:  # 3.1
        from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization
    return DagSerialization.from_dict(DagSerialization.to_dict(dag))


def use_auth_manager(manager: Any) -> None:
    """Make an auth manager that an app has made that of the process again."""
    from airflow.api_fastapi import app as api

    try:
        api._AuthManagerState.instance = manager
    except AttributeError:  # 3.1
        api.auth_manager = manager  # type: ignore[attr-defined]
