"""The alert for a run that misses its deadline (``deadline`` in the pipeline file)."""

from __future__ import annotations

import inspect
import logging
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from callphases.airflow.compat import HAS_DEADLINES, AsyncCallback, DeadlineAlert, DeadlineReference, named_deadline
from callphases.airflow.notify import log_failure, notifier
from callphases.pipeline import Notify, Pipeline

log = logging.getLogger(__name__)


def deadline_alert(pipeline: Pipeline) -> DeadlineAlert | None:
    """The deadline alert for the runs of a pipeline; None if its file has no ``deadline``, or on Airflow 3.1."""
    if pipeline.deadline is None:
        return None
    if not HAS_DEADLINES:
        log.warning("%s: deadline has no effect, because it needs Airflow 3.2 or newer.", pipeline.pipeline)
        return None
    return named_deadline(
        f"{pipeline.pipeline} by {pipeline.deadline.by}",
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=pipeline.ready_after,
        callback=AsyncCallback(
            tables_are_late,
            {
                "pipeline": pipeline.pipeline,
                "by": pipeline.deadline.by,
                "notify": pipeline.deadline.notify,
                "targets": pipeline.notify.deadline,
                "channels": {
                    name: channel.model_dump(exclude_none=True)
                    for name, channel in pipeline.notify.channels.items()
                    if name in pipeline.notify.deadline
                },
            },
        ),
    )


async def tables_are_late(
    pipeline: str,
    by: str,
    notify: str | None,
    context: dict[str, Any],
    targets: Sequence[str] = (),
    channels: Mapping[str, Any] | None = None,
) -> None:
    """Report that a run missed its deadline: log an error in the triggerer, and tell those who are to be told.

    Runs of a backfill process past days and are not reported.

    Args:
        pipeline: the pipeline's name.
        by: the deadline's time of day, ``HH:MM``.
        notify: the dotted path of a function, sync or async, that is called with the message and the context.
        context: Airflow's context, with the run under ``dag_run``.
        targets: ``notify.deadline`` of the pipeline file; those after one that can't be told are told.
        channels: those of ``notify.channels`` that are among them.
    """
    run = context["dag_run"]
    if run.get("run_type") == "backfill":
        return
    message = f"The tables of {pipeline} were not published by {by}: the run {run.get('dag_run_id')} has not ended."
    log.error("%s", message)
    known = Notify.model_validate({"deadline": list(targets), "channels": channels or {}})
    title, advice = f"{pipeline}: deadline", "See which of its tasks is running or waiting, and the log of that task."
    for target in known.deadline:
        try:
            if (channel := known.channels.get(target)) is not None:
                await notifier(channel, title, [message, advice]).async_notify(context)
            else:
                await _call(target, message, context)
        except Exception as error:
            log_failure(target, error)
    if notify is not None:
        await _call(notify, message, context)


async def _call(path: str, message: str, context: dict[str, Any]) -> None:
    result = pkgutil.resolve_name(path)(message, context)
    if inspect.isawaitable(result):
        await result
