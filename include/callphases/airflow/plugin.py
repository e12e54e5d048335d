"""Registers the listener that sets the notes of Dag runs, through the package's entry point ``airflow.plugins``."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from callphases.airflow import listener


class CallphasesPlugin(AirflowPlugin):
    """Airflow loads it in each of its processes; only the scheduler calls the listener."""

    name = "callphases"
    listeners = [listener]  # noqa: RUF012 - as Airflow declares it
