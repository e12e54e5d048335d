"""Nights before backfills: which tasks Airflow starts first, and which get the processor when both are running."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

from airflow.sdk import WeightRule
from airflow.task.priority_strategy import PriorityWeightStrategy

from callphases.airflow.ranges import BACKFILLS

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

log = logging.getLogger(__name__)

NIGHT = 1000
"""What a task has more than the same task of a backfill; more than there are tasks in a Dag."""
NICENESS = 15
"""Of the processes of backfills: those that run when a night begins go on beside its own, which have 0 as usual."""


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


@contextlib.contextmanager
def processor_share(run_id: str, params: Mapping[str, Any]) -> Iterator[None]:
    """Let this process yield the processor to others while it works on a task of a backfill, or of several days."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    if run_id.startswith(BACKFILLS) or params.get("from"):
        os.setpriority(os.PRIO_PROCESS, 0, max(before, NICENESS))
    try:
        yield
    finally:
        # A task's process ends here; that of a test goes on, and needs the right to have its priority back.
        if os.getpriority(os.PRIO_PROCESS, 0) != before:
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, before)


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
