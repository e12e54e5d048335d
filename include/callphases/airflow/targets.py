"""Whether the channels of ``notify`` can be told: their providers and connections are there. Sends nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from callphases.airflow.lookup import has_connection
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
        if has_connection(conn_id):
            return None
    except Exception as error:  # whatever a database or a secrets backend raises
        return f"The connection {conn_id!r} can't be read: {type(error).__name__}."
    return f"There is no connection {conn_id!r}: add one of type {kind}, or set AIRFLOW_CONN_{conn_id.upper()}."
