"""The alert of a night whose tables are not there in time (``deadline`` in the pipeline file)."""

from __future__ import annotations

import inspect
import logging
import pkgutil
from typing import Any

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from callphases.pipeline import Pipeline

log = logging.getLogger(__name__)


def deadline_alert(pipeline: Pipeline) -> DeadlineAlert | None:
    """The alert for the runs of a pipeline, or None where its file has no ``deadline``."""
    if pipeline.deadline is None:
        return None
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=pipeline.ready_after,
        callback=AsyncCallback(
            tables_are_late,
            {"pipeline": pipeline.pipeline, "by": pipeline.deadline.by, "notify": pipeline.deadline.notify},
        ),
        name=f"{pipeline.pipeline} by {pipeline.deadline.by}",
    )


async def tables_are_late(pipeline: str, by: str, notify: str | None, context: dict[str, Any]) -> None:
    """Say that a run has not ended by its deadline: an error in the triggerer's log, and a call of ``notify``.

    Runs of a backfill are of days long past, and say nothing.

    Args:
        pipeline: its name.
        by: the time of day that was promised, ``HH:MM``.
        notify: the dotted path of a function, plain or async, that is called with the message and Airflow's context.
        context: what Airflow tells of the run, under ``dag_run``.
    """
    run = context["dag_run"]
    if run.get("run_type") == "backfill":
        return
    message = f"The tables of {pipeline} are not there by {by}: the run {run.get('dag_run_id')} has not ended."
    log.error("%s", message)
    if notify is not None:
        told = pkgutil.resolve_name(notify)(message, context)
        if inspect.isawaitable(told):
            await told
