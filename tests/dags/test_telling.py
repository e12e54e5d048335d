"""What a run tells, by ``dag.test()``: its log, and the messages of the events in ``notify``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from night import Night
from receivers import Slack, serving

pytest.importorskip("airflow.providers.slack")
pytestmark = pytest.mark.integration

DAY = "2026-11-20"
EVENTS = dict.fromkeys(("failed_night", "budget_reached", "model_fallback"), "hook")
NOTIFY = {**EVENTS, "channels": {"hook": {"slack_webhook_conn_id": "calls_hook"}}}
PRICES = {"speech_usd_per_hour": {"universal-3-pro": 3600.0, "universal-2": 3600.0, "universal-3-5-pro": 3600.0}}


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slack]:
    with serving(slack := Slack()):
        monkeypatch.setenv("AIRFLOW_CONN_CALLS_HOOK", slack.webhook_connection())
        yield slack


def by_event(slack: Slack) -> dict[str, str]:
    """The message of each event; each was sent once."""
    found = {text.partition("\n")[0].strip("*").removeprefix("night: "): text for text in slack.texts}
    assert len(found) == len(slack.texts)
    return found


def test_each_event_is_told_once_with_its_remedy(night: Night, slack: Slack) -> None:
    night.pipeline(
        notify=NOTIFY,
        limits={"max_failed_ratio": 0.1},
        transcription={"speech_models": ["universal-3-pro", "universal-2"]},
        prices=PRICES,
        budget={"usd_per_run": 30},
    )
    night.box.request("PUT", "/faults", json={"rules": [{"fault": "retired_models", "models": ["universal-3-pro"]}]})
    for name in ("a.wav", "b.wav", "c.wav", "d.wav"):
        night.put(f"calls/{DAY}/{name}", b"\0" * 16_000 * 12)
    assert night.run(DAY) == "failed"
    found = by_event(slack)
    assert set(found) == {"failed night", "budget reached", "model fallback"}
    again = """airflow dags trigger call_phases_night --conf '{"date": "2026-11-20"}'"""
    for event in ("failed night", "budget reached"):
        assert "4 listed = 2 completed + 2 failed (2 budget)." in found[event]
        assert "2 budget: raise budget.usd_per_run." in found[event]
        assert again in found[event]
    assert "2 calls by universal-2 instead of universal-3-pro" in found["model fallback"]
    assert "transcription.speech_models" in found["model fallback"]


def test_run_that_is_well_tells_nobody(night: Night, slack: Slack) -> None:
    night.pipeline(notify=NOTIFY)
    night.put(f"calls/{DAY}/a.wav")
    assert night.run(DAY) == "success"
    assert slack.messages == []


def test_account_error_is_told_with_the_setting(night: Night, slack: Slack) -> None:
    night.pipeline(notify=NOTIFY)
    night.connect(key="wrong")
    night.put(f"calls/{DAY}/a.wav")
    assert night.run(DAY) == "failed"
    text = by_event(slack)["failed night"]
    assert f"{DAY}: not published. The speech service" in text
    assert "set the password of the assemblyai connection to a valid API key" in text


def test_file_with_an_error_is_told_to_those_whom_it_names(night: Night, slack: Slack) -> None:
    night.pipeline(notify=NOTIFY, budget={"usd_per_run": -1})
    assert night.run(DAY) == "failed"
    assert "budget.usd_per_run: " in by_event(slack)["failed night"]


def test_replay_takes_a_list_as_the_form_gives_it(night: Night) -> None:
    for name in ("good.wav", "broken.wav"):
        night.put(f"calls/{DAY}/{name}")
    conf: Any = {"replay": ["bad_audio", "too_short"]}
    assert night.run(DAY) == "success"
    assert night.run(DAY, **conf) == "success"
    assert len(night.box.jobs()) == 3, "broken.wav is submitted again"


def test_log_of_a_run_counts_and_names_recordings(night: Night, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    for name in ("broken.wav", "good.wav", "silent.wav"):
        night.put(f"calls/{DAY}/{name}")
    with caplog.at_level(logging.INFO):
        assert night.run(DAY) == "success"
    captured = capfd.readouterr()
    of_core = [one.getMessage() for one in caplog.records if one.name.startswith("callphases.")]
    assert len(of_core) == len(set(of_core)), "no line is there twice"
    text = "\n".join([captured.out, captured.err, *of_core])
    for line in (
        f"{DAY}: the day of the calls that this run lists.",
        f"{DAY}: 3 recordings listed; 3 to do, 0 left as earlier runs have left them.",
        f"calls/{DAY}/broken.wav: Transcoding failed. File type application/octet-stream. Check that the",
        f"calls/{DAY}/good.wav: transcribed.",
        f"calls/{DAY}/silent.wav: without speech.",
        f"calls/{DAY}/good.wav: 4 phases.",
        f"{DAY}: 3 rows in calls, 4 in phases, below s3://warehouse/tables/",
        f"{DAY}: 3 listed = 1 completed + 1 no_speech + 1 failed (1 bad_audio). $",
    ):
        assert line in text
    assert "broken.wav: transcribed" not in text
