"""The alert for a run that misses its deadline (``deadline`` in the pipeline file)."""

from __future__ import annotations

import inspect
import logging
import pkgutil
from typing import Any

from callphases.airflow.compat import AsyncCallback, DeadlineAlert, DeadlineReference, named_deadline
from callphases.pipeline import Pipeline

log = logging.getLogger(__name__)


def deadline_alert(pipeline: Pipeline) -> DeadlineAlert | None:
    """The deadline alert for the runs of a pipeline; None if its file has no ``deadline``."""
    if pipeline.deadline is None:
        return None
    return named_deadline(
        f"{pipeline.pipeline} by {pipeline.deadline.by}",
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=pipeline.ready_after,
        callback=AsyncCallback(
            tables_are_late,
            {"pipeline": pipeline.pipeline, "by": pipeline.deadline.by, "notify": pipeline.deadline.notify},
        ),
    )


async def tables_are_late(pipeline: str, by: str, notify: str | None, context: dict[str, Any]) -> None:
    """Report that a run missed its deadline: log an error in the triggerer, and call ``notify``.

    Runs of a backfill process past days and are not reported.

    Args:
        pipeline: the pipeline's name.
        by: the deadline's time of day, ``HH:MM``.
        notify: the dotted path of a function, sync or async, that is called with the message and the context.
        context: Airflow's context, with the run under ``dag_run``.
    """
    run = context["dag_run"]
    if run.get("run_type") == "backfill":
        return
    message = f"The tables of {pipeline} were not published by {by}: the run {run.get('dag_run_id')} has not ended."
    log.error("%s", message)
    if notify is not None:
        result = pkgutil.resolve_name(notify)(message, context)
        if inspect.isawaitable(result):
            await result
