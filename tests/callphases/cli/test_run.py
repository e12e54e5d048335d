"""``callphases run``: a day here and now, its summary and its exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import Run, statuses
from doubles import DAY, KEY, Clock, Speech, Store, answer

pytestmark = pytest.mark.integration


def test_run_does_a_day_and_sums_it_up(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    for name in "abcde":
        aws.put(f"calls/2026-11-20/{name}.mp3")
    code, out, err = run("run", pipeline_file, "--date", "2026-11-20")
    assert code == 0
    assert statuses(aws) == {f"{name}.mp3": "completed" for name in "abcde"}
    lines = out.splitlines()
    assert lines[0] == "2026-11-20: 5 completed"
    assert lines[1] == "  phases: 5"
    assert lines[2].startswith("  cost: $0.00")
    assert lines[3:] == [
        f"  calls: {aws.tables.uri}calls/dt=2026-11-20/calls.parquet",
        f"  phases: {aws.tables.uri}phases/dt=2026-11-20/phases.parquet",
    ]
    assert "2026-11-20: 5 of 5 calls transcribed, 5 divided into phases." in err
    assert KEY not in out + err
    code, out, _ = run("run", pipeline_file, "--date", "2026-11-20")
    assert (code, len(services.submitted)) == (0, 5), "nothing is paid for twice"
    assert "$0.0000 for speech and $0.0000 for language models in this run" in out


def test_jobs_of_all_calls_run_at_the_same_time(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    for name in "abc":
        aws.put(f"calls/2026-11-20/{name}.mp3")
    services.status = "processing"
    looks = 0

    def respond(request: Any) -> Any:
        nonlocal looks
        if request.method == "GET" and len(services.submitted) == 3:
            looks += 1
            if looks == 3:
                services.status = "completed"
        return None

    services.refuse = respond
    code, _, _ = run("run", pipeline_file, "--date", "2026-11-20")
    assert (code, len(services.submitted)) == (0, 3)
    assert looks >= 3, "all were submitted before any was done"


def test_run_exits_with_1_if_too_many_calls_failed(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    aws.put("calls/2026-11-20/b.mp3", b"")
    code, out, _ = run("run", pipeline_file, "--date", "2026-11-20")
    assert code == 1
    assert "2026-11-20: 1 completed, 1 failed" in out
    assert "  failed: 1 empty_file. Upload the recording again; it is processed when its ETag changes." in out
    assert "  The run failed: 50.0% of the calls failed, more than limits.max_failed_ratio (5.0%)." in out


def test_stopped_run_publishes_the_day_and_why(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    no_money = answer({"error": "Your current account balance is negative."}, 400)
    services.refuse = lambda request: no_money if request.method == "POST" else None
    code, out, err = run("run", pipeline_file, "--date", "2026-11-20")
    assert code == 1
    assert "  The run failed: " in out
    assert "error: " in err
    assert "No requests are sent until the account is topped up" in err
    assert statuses(aws) == {"a.mp3": "balance"}


def test_day_without_recordings_says_what_there_is(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    code, out, _ = run("run", pipeline_file, "--date", "2026-11-19")
    assert code == 0
    assert out.splitlines()[0] == "2026-11-19: no calls"
    assert "No recording of this day is below" in out
    pipeline = aws.pipeline(recordings={"prefix": "recordings/{date:%Y/%m/%d}/"})
    pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    code, out, _ = run("run", pipeline_file, "--date", "2026-11-20")
    assert code == 1
    assert "recordings/ doesn't exist" in out
    assert services.submitted == []


def test_run_waits_for_a_run_that_has_the_day(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, clock: Clock
) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    other = aws.lease("night")
    other.take()
    clock.asleep = lambda seconds: other.release()
    code, _, err = run("run", pipeline_file, "--date", "2026-11-20")
    assert code == 0
    assert "works on the day 2026-11-20" in err


def test_interrupted_run_is_continued_by_the_next(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    services.status = "processing"

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    clock.asleep = interrupt
    code, out, err = run("run", pipeline_file, "--date", "2026-11-20")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1].startswith("Interrupted. Nothing is lost: run 2026-11-20 again")
    clock.asleep = lambda _: None
    monkeypatch.setattr("callphases.state.lease.LIFE_S", 0)  # a minute later
    services.status = "completed"
    code, _, _ = run("run", pipeline_file, "--date", "2026-11-20")
    assert (code, len(services.submitted)) == (0, 1), "the job of the first run was taken over"
    assert statuses(aws) == {"a.mp3": "completed"}


def test_quiet_run_prints_only_the_summary(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    for number, arguments in enumerate((["-q", "run", pipeline_file], ["run", "--quiet", pipeline_file])):
        code, out, err = run(*arguments, "--date", f"{DAY}")
        assert (code, err) == (0, ""), number
        assert out.startswith("2026-11-20: 1 completed\n")
