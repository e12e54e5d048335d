"""Who is told of what: Airflow's real notifiers against local servers, and functions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from callphases.airflow.deadline import tables_are_late
from callphases.airflow.notify import failed_night, tell
from callphases.airflow.targets import examine_channels
from callphases.inspection.findings import Health
from callphases.pipeline import Pipeline
from doubles import pipeline
from receivers import Mail, Slack, serving

pytest.importorskip("airflow.providers.slack")
pytest.importorskip("airflow.providers.smtp")
pytestmark = pytest.mark.integration

RUN = {"run_id": "run-1", "dag_run": SimpleNamespace(run_type="scheduled")}
CHANNELS = {
    "hook": {"slack_webhook_conn_id": "calls_hook"},
    "api": {"slack_conn_id": "calls_slack", "channel": "#calls"},
    "mail": {"to": ["a@example.com", "b@example.com"], "smtp_conn_id": "calls_smtp"},
}
told: list[tuple[str, Any]] = []


def page(message: str, context: Any) -> None:
    told.append((message, context))


async def page_later(message: str, context: Any) -> None:
    await asyncio.sleep(0)
    told.append((message, context))


def fail(message: str, context: Any) -> None:
    raise RuntimeError("https://hooks.example/T0/B0/webhook-token")


@dataclass
class Receivers:
    slack: Slack
    mail: Mail


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receivers]:
    """Servers with a connection each."""
    told.clear()
    with serving(slack := Slack()), serving(mail := Mail()):
        monkeypatch.setenv("AIRFLOW_CONN_CALLS_HOOK", slack.webhook_connection())
        monkeypatch.setenv("AIRFLOW_CONN_CALLS_SLACK", slack.api_connection())
        monkeypatch.setenv("AIRFLOW_CONN_CALLS_SMTP", mail.connection())
        yield Receivers(slack, mail)


def telling(*targets: str, **changes: Any) -> Pipeline:
    return pipeline(notify={"budget_reached": list(targets), "channels": CHANNELS}, **changes)


def say(of: Pipeline, *lines: str, context: Any = RUN) -> None:
    tell(of, of.notify, "budget_reached", lines, context)


@pytest.mark.parametrize(("target", "channel"), [("hook", None), ("api", "#calls")])
def test_slack_gets_the_message(receivers: Receivers, target: str, channel: str | None) -> None:
    say(telling(target), "2026-11-20: 3 listed = 2 completed + 1 failed (1 budget).", "1 budget: raise <it> & go on.")
    [message] = receivers.slack.messages
    assert message["text"].splitlines() == [
        "*support: budget reached*",
        "2026-11-20: 3 listed = 2 completed + 1 failed (1 budget).",
        "1 budget: raise &lt;it&gt; &amp; go on.",
        "Dag call_phases_support, run run-1.",
    ]
    assert message.get("channel") == channel


def test_mail_gets_the_message(receivers: Receivers) -> None:
    say(telling("mail"), "3 listed = 2 completed + 1 failed.", "1 < 2")
    [message] = receivers.mail.messages
    assert (message["Subject"], message["From"]) == ("support: budget reached", "airflow@example.com")
    assert message["To"] == "a@example.com, b@example.com"
    assert "<p>3 listed = 2 completed + 1 failed.</p><p>1 &lt; 2</p>" in receivers.mail.texts[0]


@pytest.mark.parametrize("target", ["hook", "api", "mail"])
def test_message_is_no_template(receivers: Receivers, target: str) -> None:
    say(telling(target), "The service says {{ conn.calls_hook.password }} {% raise %}")
    texts = [*receivers.slack.texts, *receivers.mail.texts]
    assert ["{{ conn.calls_hook.password }} {% raise %}" in text for text in texts] == [True]


@pytest.mark.parametrize("function", ["page", "page_later"])
def test_function_gets_the_message_and_the_context(receivers: Receivers, function: str) -> None:
    say(telling(f"{__name__}.{function}"), "One line.")
    assert told == [("support: budget reached\nOne line.\nDag call_phases_support, run run-1.", RUN)]


def test_target_that_fails_is_logged_and_keeps_no_other_from_being_told(
    receivers: Receivers, caplog: pytest.LogCaptureFixture
) -> None:
    channels = {**CHANNELS, "gone": {"slack_webhook_conn_id": "not_there"}}
    of = pipeline(
        notify={
            "budget_reached": ["gone", f"{__name__}.fail", "not.there", f"{__name__}.page", "api", "mail"],
            "channels": channels,
        }
    )
    receivers.slack.refuse = True
    with caplog.at_level(logging.ERROR, logger="callphases"):
        say(of, "One line.")
    assert len(told) == len(receivers.mail.messages) == 1
    assert len(caplog.messages) == 4
    assert "notify: gone was not told" in caplog.messages[0]
    assert "not_there" in caplog.messages[0]
    assert caplog.messages[1] == f"notify: {__name__}.fail was not told: RuntimeError"
    assert "notify: not.there was not told: ModuleNotFoundError: No module named 'not'" in caplog.messages[2]
    assert caplog.messages[3] == "notify: api was not told: SlackApiError: channel_not_found"
    assert "token" not in caplog.text


@pytest.mark.parametrize(
    "context",
    [
        {"run_id": "run-1", "dag_run": SimpleNamespace(run_type="backfill")},
        {"run_id": "backfill__2026-11-20T00:00:00+00:00"},
        {"run_id": "archive__2026-11-01_2026-11-30__20261201T000000-ab12", "dag_run": RUN["dag_run"]},
    ],
)
def test_backfill_tells_nobody(receivers: Receivers, context: Any) -> None:
    say(telling("hook"), "One line.", context=context)
    assert receivers.slack.messages == []


def test_dag_has_no_callback_if_nobody_is_to_be_told_of_failed_nights() -> None:
    of = telling("hook")
    assert failed_night(of, of.notify) is None


@pytest.mark.parametrize("target", ["hook", "api", "mail"])
def test_deadline_tells_channels_and_functions_from_an_event_loop(receivers: Receivers, target: str) -> None:
    night = {"dag_run": {"dag_run_id": "scheduled__1", "run_type": "scheduled"}}
    targets = ["not.there", target, f"{__name__}.page"]
    asyncio.run(tables_are_late("support", "06:00", f"{__name__}.page_later", night, targets, CHANNELS))
    message = "The tables of support were not published by 06:00: the run scheduled__1 has not ended."
    assert [one for one, _ in told] == [message, message]
    texts = [*receivers.slack.texts, *receivers.mail.texts]
    assert [message in text for text in texts] == [True]


def test_channels_that_can_be_told_are_good(receivers: Receivers) -> None:
    found = list(examine_channels(telling(*CHANNELS, f"{__name__}.page")))
    assert {finding.health for finding in found} == {Health.GOOD}
    assert [finding.what for finding in found] == [f"notify: {name}" for name in CHANNELS]


@pytest.mark.usefixtures("receivers")
def test_channel_without_its_connection_is_bad() -> None:
    channels = {"gone": {"slack_webhook_conn_id": "not_there"}}
    [finding] = examine_channels(pipeline(notify={"failed_night": "gone", "channels": channels}))
    detail = "There is no connection 'not_there': add one of type slackwebhook, or set AIRFLOW_CONN_NOT_THERE."
    assert (finding.health, finding.detail) == (Health.BAD, detail)
