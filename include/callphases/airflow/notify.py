"""Tells people of a night: through Airflow's Slack and SMTP notifiers, and functions of the user's (``notify``).

A target that can't be told is logged, and neither fails the night nor keeps others from being told. Runs of a backfill
tell nobody, as there may be a thousand of them and somebody is watching.
"""

from __future__ import annotations

import asyncio
import html
import inspect
import logging
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from callphases.airflow.compat import AirflowException
from callphases.airflow.ranges import BACKFILLS
from callphases.airflow.report import Report, again, remedies
from callphases.airflow.schedule import span_of_dag_run
from callphases.pipeline import Channel, DagSettings, EmailChannel, Notify

log = logging.getLogger(__name__)

Event = Literal["failed_night", "budget_reached", "model_fallback"]

TIMEOUT_S = 30
"""For a request to Slack."""


def failed_night(settings: DagSettings, notify: Notify) -> Callable[[Any], None] | None:
    """A Dag's callback for failed runs; None if nobody is to be told.

    Airflow calls it once for each run that has failed, also if a task was killed or never began.
    """
    return partial(_tell_of_failure, settings, notify) if notify.failed_night else None


def _tell_of_failure(settings: DagSettings, notify: Notify, context: Any) -> None:
    run = context.get("dag_run")
    report = Report.of(
        partial(_pull, settings.dag_id, context["run_id"]),
        lambda: None if run is None else str(span_of_dag_run(run, settings.zone)),
    )
    lines = [f"The run for {report.day} failed." if report.day else "A run failed.", report.text]
    lines += remedies(report.failures)
    if report.day:
        lines.append(again(settings.dag_id, report.day))
    tell(settings, notify, "failed_night", lines, context)


def _pull(dag_id: str, run_id: str, task_id: str, key: str) -> Any:
    """An XCom, or None; the callback's context has one task, and none if that was removed."""
    from airflow.sdk.execution_time import task_runner

    try:
        if hasattr(task_runner, "SUPERVISOR_COMMS"):
            from airflow.sdk.execution_time.xcom import XCom

            return XCom.get_one(key=key, task_id=task_id, dag_id=dag_id, run_id=run_id)
        # ``dags test`` calls back in its own process, which has the database.
        from airflow.utils.session import create_session

        from callphases.airflow.listener import stored_xcoms

        with create_session() as session:
            return stored_xcoms(session, dag_id, run_id).get((task_id, key))
    except Exception as error:
        log.warning("The XCom %s of %s can't be read: %s", key, task_id, type(error).__name__)
        return None


def tell(settings: DagSettings, notify: Notify, event: Event, lines: Sequence[str], context: Any) -> None:
    """Tell the targets of an event.

    Args:
        settings: of the pipeline.
        notify: its section of that name.
        event: what has happened.
        lines: of the message.
        context: Airflow's context; handed to functions.
    """
    targets, run_id = getattr(notify, event), context.get("run_id")
    run_type = getattr(context.get("dag_run"), "run_type", None)
    if not targets or run_type == "backfill" or str(run_id).startswith(BACKFILLS):
        return
    title, lines = f"{settings.pipeline}: {event.replace('_', ' ')}", [*lines, f"Dag {settings.dag_id}, run {run_id}."]
    for target in targets:
        try:
            if (channel := notify.channels.get(target)) is not None:
                notifier(channel, title, lines).notify(context)
            elif inspect.isawaitable(result := pkgutil.resolve_name(target)("\n".join([title, *lines]), context)):
                asyncio.run(_awaited(result))
        except Exception as error:
            log_failure(target, error)
        else:
            log.info("%s: %s was told.", title, target)


async def _awaited(result: Any) -> None:
    await result


def log_failure(target: str, error: Exception) -> None:
    """Log that a target was not told. The text of most errors may have a webhook's URL in it, which is a secret."""
    answer: Any = getattr(error, "response", None)  # of Slack's API
    why = answer.get("error") if hasattr(answer, "get") else None
    is_plain = isinstance(error, AirflowException | ImportError | AttributeError)
    if is_plain or type(error).__name__ == "AirflowRuntimeError":  # the SDK's, which is no AirflowException
        why = str(error)
    log.error("notify: %s was not told: %s%s", target, type(error).__name__, f": {why}" if why else "")


def notifier(channel: Channel, title: str, lines: Sequence[str]) -> Any:
    """Airflow's notifier for a message to a channel. Slack's retries are off: they log the webhook's URL, a secret.

    To be called by its ``notify`` or ``async_notify``: calling the notifier itself would render the message as a
    template, and a service's error may be part of that.

    Raises:
        ImportError: the provider is not installed.
    """
    if isinstance(channel, EmailChannel):
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        body = "".join(f"<p>{html.escape(line, quote=False)}</p>" for line in lines)
        return SmtpNotifier(
            to=list(channel.to),
            from_email=channel.from_email,
            subject=title,
            html_content=body,
            smtp_conn_id=channel.smtp_conn_id,
        )
    text = "\n".join(html.escape(line, quote=False) for line in [f"*{title}*", *lines])
    if channel.slack_conn_id is not None:
        from airflow.providers.slack.notifications.slack import SlackNotifier

        slack: Mapping[str, Any] = {"slack_conn_id": channel.slack_conn_id, "channel": channel.channel}
        return SlackNotifier(text=text, timeout=TIMEOUT_S, unfurl_links=False, retry_handlers=[], **slack)
    from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

    slack = {"slack_webhook_conn_id": channel.slack_webhook_conn_id}
    return SlackWebhookNotifier(text=text, timeout=TIMEOUT_S, unfurl_links=False, retry_handlers=[], **slack)
