"""Tests of runs by ``dag.test()`` while services fail: rows and payments are those of a run without faults."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from night import CALL, TRUTH, Night
from servers import KEY

pytestmark = pytest.mark.integration

DAY = "2026-11-20"
LLM_FAULTS = (
    "fenced", "wordy", "cut", "not_json", "empty", "wrong_name", "missing_call", "unordered", "unknown_cue",
    "missing_fields", "refusal", "no_choices", "no_response_format", "context_limit",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_ramp(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.pipeline(limits={"ramp": False, "max_failed_ratio": 1.0})
    monkeypatch.setattr("callphases.transcription.transcriber.LOST_PAUSES_S", (0.2, 0.4))
    monkeypatch.setattr("callphases.limits.throttle._wait_s", lambda state: 0.05)


def misbehave(night: Night, *rules: dict[str, Any], seed: int = 7) -> None:
    response = night.box.request("PUT", "/faults", json={"seed": seed, "rules": list(rules)})
    assert response.status_code == 200, response.text


def quiet_again(night: Night) -> None:
    night.box.request("DELETE", "/faults")


def classes(night: Night) -> Counter[str]:
    return Counter(row["failure_class"] or row["status"] for row in night.table("calls", DAY))


def test_all_faults_at_once_change_neither_rows_nor_payments(night: Night) -> None:
    count = 60
    for number in range(count):
        night.put(f"calls/{DAY}/{number:03}.wav")
    for number in range(3):
        night.put(f"calls/{DAY}/broken {number}.wav")
    requests = [
        {"fault": "status", "status": 429, "retry_after_s": 0, "rate": 0.10},
        {"fault": "status", "status": 403, "empty": True, "rate": 0.02},
        {"fault": "status", "status": 500, "rate": 0.05},
        {"fault": "status", "status": 503, "rate": 0.05},
        {"fault": "drop_answer", "rate": 0.05},
        {"fault": "drop", "rate": 0.02},
        {"fault": "job_error", "rate": 0.03},
    ]
    misbehave(night, *requests, *({"fault": fault, "rate": 0.10} for fault in LLM_FAULTS))
    assert night.run(DAY) == "success"
    quiet_again(night)
    assert classes(night) == {"completed": count, "bad_audio": 3}
    assert night.paid() == {f"{number:03}.wav": 1 for number in range(count)}
    phases = [(row["phase_name"], row["start_s"], row["end_s"]) for row in night.table("phases", DAY)]
    assert phases == TRUTH * count
    before = night.body("calls", DAY), night.box.get("/health").json()
    assert night.run(DAY) == "success"
    assert (night.body("calls", DAY), night.box.get("/health").json()) == before


def test_lost_responses_cause_no_second_payment(night: Night) -> None:
    for number in range(30):
        night.put(f"calls/{DAY}/{number:03}.wav")
    misbehave(night, {"fault": "drop_answer", "on": "POST /v2/transcript", "rate": 0.3})
    assert night.run(DAY) == "success"
    assert night.paid() == {f"{number:03}.wav": 1 for number in range(30)}
    assert night.box.get("/health").json()["submissions"] == 30


def one_chunk_has_met(failure_class: str, night: Night) -> bool:
    """Whether one of the two chunks of 45 calls failed with the class and the other was not finished."""
    return classes(night) == {failure_class: 45, "unfinished": 45}


def failed_with(capfd: Any, message: str) -> bool:
    captured = capfd.readouterr()
    return message in captured.out + captured.err


def test_retired_speech_model_is_replaced_by_the_next_one(night: Night, capfd: Any) -> None:
    night.pipeline(transcription={"speech_models": ["universal-3-pro", "universal-2"]})
    night.put(f"calls/{DAY}/a.wav")
    misbehave(night, {"fault": "retired_models", "models": ["universal-3-pro"]})
    assert night.run(DAY) == "success"
    [call] = night.table("calls", DAY)
    assert call["speech_model"] == "universal-2"
    assert failed_with(
        capfd, "1 call by universal-2 instead of universal-3-pro: check that universal-3-pro is still served"
    )


def test_run_stops_with_one_message_when_all_speech_models_are_retired(night: Night, capfd: Any) -> None:
    night.pipeline(transcription={"speech_models": ["universal-3-pro"]})
    for number in range(90):
        night.put(f"calls/{DAY}/{number:03}.wav")
    misbehave(night, {"fault": "retired_models", "models": ["universal-3-pro"]})
    assert night.run(DAY) == "failed"
    states = Counter(night.states().values())
    assert states["failed"] == 2, "the chunk that encountered it, and verify"
    assert failed_with(capfd, "transcription.speech_models")
    assert one_chunk_has_met("model_retired", night)
    assert night.box.jobs() == []


def test_run_fails_before_any_payment_when_all_language_models_are_retired(night: Night, capfd: Any) -> None:
    night.pipeline(segmentation={"models": ["old-1", "old-2"]})
    night.put(f"calls/{DAY}/a.wav")
    misbehave(night, {"fault": "retired_models", "models": ["old-1", "old-2"]})
    assert night.run(DAY) == "failed"
    assert failed_with(capfd, "any of the models in segmentation.models (old-1, old-2): name another")
    assert night.box.jobs() == []


def test_negative_balance_stops_the_run_until_it_is_topped_up(night: Night, capfd: Any) -> None:
    for number in range(90):
        night.put(f"calls/{DAY}/{number:03}.wav")
    misbehave(night, {"fault": "negative_balance", "on": "POST /v2/transcript"})
    assert night.run(DAY) == "failed"
    assert failed_with(capfd, "No requests are sent until the account is topped up")
    assert one_chunk_has_met("balance", night)
    assert night.box.jobs() == []
    quiet_again(night)
    assert night.run(DAY) == "success"
    assert classes(night) == {"completed": 90}


def test_replay_runs_only_failed_calls(night: Night) -> None:
    for name in ("good.wav", "broken.wav", "silent.wav"):
        night.put(f"calls/{DAY}/{name}")
    misbehave(night, {"fault": "job_error", "match": "*/good.wav", "message": "Audio duration is too short."})
    assert night.run(DAY) == "success"
    assert classes(night) == {"too_short": 1, "bad_audio": 1, "no_speech": 1}
    quiet_again(night)
    before = len(night.box.jobs())
    assert night.run(DAY) == "success", "permanent failures are not retried"
    assert len(night.box.jobs()) == before
    assert night.run(DAY, replay="too_short") == "success"
    assert classes(night) == {"completed": 1, "bad_audio": 1, "no_speech": 1}
    assert len(night.box.jobs()) == before + 1
    assert night.run(DAY, replay="all") == "success"
    assert len(night.box.jobs()) == before + 2, "broken.wav is submitted again"


def test_replay_of_calls_runs_those_that_failed_and_nothing_else(
    night: Night, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    for name in ("good.wav", "broken.wav", "silent.wav"):
        night.put(f"calls/{DAY}/{name}")
    misbehave(night, {"fault": "job_error", "match": "*/good.wav", "message": "Audio duration is too short."})
    assert night.run(DAY) == "success"
    ids = {row["recording_uri"].rsplit("/", 1)[-1]: row["call_id"] for row in night.table("calls", DAY)}
    quiet_again(night)
    before = len(night.box.jobs())
    assert night.run(DAY, calls=[ids["good.wav"]]) == "success"
    assert classes(night) == {"completed": 1, "bad_audio": 1, "no_speech": 1}
    assert len(night.box.jobs()) == before + 1
    assert night.run(DAY, calls=f"{ids['good.wav']}, {ids['silent.wav']}") == "success", "neither failed"
    assert f"good.wav of {DAY} is not tried again. It is completed" in caplog.text
    published = night.body("calls", DAY)
    assert night.run(DAY, calls=[ids["broken.wav"], "0123456789abcdef"]) == "failed"
    assert failed_with(capfd, f"calls: {DAY} has no recording 0123456789abcdef. Expected the call_id")
    assert night.body("calls", DAY) == published
    assert len(night.box.jobs()) == before + 1


def test_delete_after_leaves_no_transcript_at_the_provider(night: Night) -> None:
    night.pipeline(privacy={"delete_after": True}, limits={"max_failed_ratio": 1.0})
    for name in ("a.wav", "silent.wav", "broken.wav"):
        night.put(f"calls/{DAY}/{name}")
    assert night.run(DAY) == "success"
    assert {job["audio_url"] for job in night.box.jobs()} == {"http://deleted_by_user"}
    before = night.body("calls", DAY)
    assert night.run(DAY) == "success"
    assert (night.body("calls", DAY), len(night.box.jobs())) == (before, 3)


def test_run_spends_no_more_than_its_budget(night: Night) -> None:
    price = {"speech_usd_per_hour": {"assemblyai-stt-3-7": 3600.0, "universal-2": 3600.0}}
    night.pipeline(prices=price, budget={"usd_per_run": 100.5}, limits={"max_failed_ratio": 1.0})
    # Without a header the estimate is 12 s, at 16,000 bytes per second; the service reports 12 s as well.
    for number in range(30):
        night.put(f"calls/{DAY}/{number:03}.wav", b"\0" * 16_000 * 12)
    assert night.run(DAY) == "success"
    assert classes(night) == {"completed": 8, "budget": 22}
    spent = sum((row["speech_usd"] or 0) + (row["llm_usd"] or 0) for row in night.table("calls", DAY))
    assert 90 < spent <= 100.5
    night.pipeline(prices=price, budget={"usd_per_run": 1000})
    assert night.run(DAY) == "success"
    assert classes(night) == {"completed": 30}
    assert set(night.paid().values()) == {1}


def test_logs_database_and_tables_contain_no_secret(night: Night, capfd: Any) -> None:
    for name in ("a.wav", "b.wav", "broken.wav", "slow.wav"):
        night.put(f"calls/{DAY}/{name}")
    misbehave(
        night,
        {"fault": "drop_answer", "on": "POST /v2/transcript", "times": 1},
        {"fault": "status", "status": 500, "on": "POST /v2/transcript", "times": 1},
        {"fault": "wrong_name", "times": 3},
    )

    def defer_at_once(dag: Any) -> None:
        transcribe = dag.get_task("calls.transcribe")
        transcribe.poll_in_worker_s, transcribe.poll_interval_s = 0, 1

    assert night.run(DAY, defer_at_once) == "success"
    captured = capfd.readouterr()
    places = {"output": (captured.out + captured.err).encode()}
    for path in Path(os.environ["AIRFLOW_HOME"]).rglob("*"):
        if path.is_file():
            places[str(path)] = path.read_bytes()
    assert any(path.endswith("airflow.db") for path in places)
    for table in ("calls", "phases"):
        places[table] = json.dumps(night.table(table, DAY), default=str).encode()
    words = [re.escape(word) for cue in CALL for word in str(cue["text"]).split() if len(word) > 6]
    secrets = "|".join([re.escape(KEY), "X-Amz-Signature", "X-Amz-Credential", *words])
    found = {place: match[0] for place, body in places.items() if (match := re.search(secrets.encode(), body))}
    assert found == {}
