"""Whether the channels of ``notify`` can be told: their providers and connections are there. Sends nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from airflow.sdk import BaseHook

from callphases.inspection.findings import Finding, Health
from callphases.pipeline import Channel, EmailChannel, Pipeline


def examine_channels(pipeline: Pipeline) -> Iterator[Finding]:
    """A finding for each channel that an event of the pipeline is told to."""
    for target in pipeline.notify.targets:
        if (channel := pipeline.notify.channels.get(target)) is not None:
            problem = _problem_of_channel(channel)
            yield Finding(Health.BAD if problem else Health.GOOD, f"notify: {target}", problem or "It can be told.")


def _problem_of_channel(channel: Channel) -> str | None:
    if isinstance(channel, EmailChannel):
        provider, conn_id, kind = "smtp", channel.smtp_conn_id, "smtp"
    elif channel.slack_conn_id is not None:
        provider, conn_id, kind = "slack", channel.slack_conn_id, "slack"
    else:
        provider, conn_id, kind = "slack", str(channel.slack_webhook_conn_id), "slackwebhook"
    if importlib.util.find_spec(f"airflow.providers.{provider}") is None:
        return f"Its provider is not installed: pip install apache-airflow-providers-{provider}."
    try:
        BaseHook.get_connection(conn_id)
    except Exception as error:
        # Which exception means "not defined" differs between a worker, a shell and the API server.
        if type(error).__name__ not in ("AirflowNotFoundException", "AirflowRuntimeError"):
            return f"The connection {conn_id!r} can't be read: {type(error).__name__}."
        return f"There is no connection {conn_id!r}: add one of type {kind}, or set AIRFLOW_CONN_{conn_id.upper()}."
    return None
