"""Which tasks Airflow starts first: those of nights before those of backfills, and then those furthest along."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

from airflow.sdk import WeightRule
from airflow.task.priority_strategy import PriorityWeightStrategy

from callphases.airflow.ranges import RUN_ID_PREFIX

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

log = logging.getLogger(__name__)

NIGHT = 1000
"""What a task has more than the same task of a backfill; more than there are tasks in a Dag."""
BACKFILLS = ("backfill__", RUN_ID_PREFIX)
"""What the ids of backfills' runs begin with: Airflow's own, and those of ranges of days."""


class NightsFirst(PriorityWeightStrategy):
    """Tasks of nights, and of runs by hand, before those of backfills; of either the furthest along.

    Within a run it is ``WeightRule.UPSTREAM``: a chunk that has been started is finished before another is started.
    """

    def get_weight(self, ti: TaskInstance) -> int:
        """The priority weight of a task."""
        task: Any = ti.task
        further: int = task.priority_weight + len(task.get_flat_relative_ids(upstream=True))
        # Airflow 3.1 asks a first time before the run is known, and again when it is.
        return further if (ti.run_id or "").startswith(BACKFILLS) else NIGHT + further


def weight_rule() -> str:
    """The Dag's weight rule: ``NightsFirst``, where Airflow finds the plugin that registers it.

    Airflow rejects a Dag with a rule that no plugin registers. Looking for the entry point does not load all plugins,
    which would take each task's process longer than reading the Dag file does.
    """
    try:
        plugins = distribution("callphases").entry_points.select(group="airflow.plugins")
    except PackageNotFoundError:  # its files are on the path, but it is not installed
        plugins = None
    if plugins:
        return f"{NightsFirst.__module__}.{NightsFirst.__qualname__}"
    log.warning(
        "callphases is not installed as a package, so Airflow does not load its plugin: tasks of nights have no "
        "priority over those of backfills."
    )
    return WeightRule.UPSTREAM.value
