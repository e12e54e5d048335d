"""Registers with Airflow, through the entry point ``airflow.plugins``: the notes of Dag runs, and tasks' priorities."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from callphases.airflow import listener
from callphases.airflow.priority import NightsFirst


class CallphasesPlugin(AirflowPlugin):
    """Airflow loads it in each of its processes; only the scheduler calls the listener, and weighs tasks."""

    name = "callphases"
    listeners = [listener]  # noqa: RUF012 - as Airflow declares it
    priority_weight_strategies = [NightsFirst]  # noqa: RUF012
