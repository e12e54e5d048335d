"""``callphases replay``: failed calls again, and the day published."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import Run, bad_day, statuses
from doubles import KEY, Clock, Speech, Store, answer


@pytest.mark.integration
def test_replay_retries_failed_calls_and_publishes_the_day(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    code, out, err = run("replay", pipeline_file, "--date", "2026-11-20")
    assert statuses(aws) == {
        "broken.mp3": "completed",
        "far.mp3": "completed",
        "silent.mp3": "no_speech",
        "new.mp3": "unfinished",
    }
    assert len(services.submitted) == 2
    assert out.splitlines()[-1] == "2026-11-20: 2 completed, 1 failed, 1 no_speech (1 unfinished)"
    assert code == 1, "no run has started on new.mp3"
    assert err.splitlines()[0] == "2026-11-20: 2 calls to do."


@pytest.mark.integration
def test_replay_of_a_failure_class_leaves_other_failures_alone(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    aws.client.delete_object(Bucket=aws.recordings, Key="calls/2026-11-20/new.mp3")
    code, _, err = run("replay", pipeline_file, "--date", "2026-11-20", "--class", "bad_audio", "--class", "too_short")
    assert (code, len(services.submitted)) == (0, 1)
    assert statuses(aws) == {"broken.mp3": "completed", "far.mp3": "download_refused", "silent.mp3": "no_speech"}
    assert "2026-11-20: 1 call to do." in err


@pytest.mark.integration
def test_replay_of_one_call_leaves_other_failures_alone(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    aws.client.delete_object(Bucket=aws.recordings, Key="calls/2026-11-20/new.mp3")
    code, _, err = run("replay", pipeline_file, "--date", "2026-11-20", "--call", "far.mp3", "--call", "silent.mp3")
    assert (code, len(services.submitted)) == (0, 1)
    assert statuses(aws) == {"broken.mp3": "bad_audio", "far.mp3": "completed", "silent.mp3": "no_speech"}
    assert "2026-11-20/silent.mp3 of 2026-11-20 is not tried again. It is no_speech, and" in err


@pytest.mark.integration
def test_replay_of_an_unknown_call_is_a_one_line_error(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    code, out, err = run("replay", pipeline_file, "--date", "2026-11-20", "--call", "farr.mp3")
    assert (code, out, services.submitted) == (1, "", [])
    assert err.startswith("error: calls: 2026-11-20 has no recording farr.mp3. Expected")
    assert err.count("\n") == 1


@pytest.mark.integration
def test_replay_of_a_day_without_failures_pays_nothing(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    code, out, _ = run("replay", pipeline_file, "--date", "2026-11-20")
    assert (code, out.splitlines()) == (0, ["2026-11-20: no calls"])
    assert services.web.requests == []


@pytest.mark.integration
def test_replay_accepts_several_days(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    code, out, _ = run("replay", pipeline_file, "--date", "2026-11-20", "--date", "2026-11-19")
    assert (code, out.splitlines()) == (0, ["2026-11-20: no calls", "2026-11-19: no calls"])


@pytest.mark.integration
def test_replay_reports_calls_that_fail_again(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    bad_day(aws)
    aws.client.delete_object(Bucket=aws.recordings, Key="calls/2026-11-20/new.mp3")
    services.status, services.ending = "error", {"error": "Transcoding failed."}
    code, out, _ = run("replay", pipeline_file, "--date", "2026-11-20")
    assert code == 0, "all was done, and failed"
    assert "2026-11-20: 2 failed, 1 no_speech (2 bad_audio)" in out


@pytest.mark.integration
def test_replay_waits_for_a_run_that_has_the_day(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, clock: Clock
) -> None:
    bad_day(aws)
    other = aws.lease("night")
    other.take()
    clock.asleep = lambda seconds: other.release()
    run("replay", pipeline_file, "--date", "2026-11-20")
    assert statuses(aws)["broken.mp3"] == "completed"
    assert clock.slept[0] > 0


@pytest.mark.integration
def test_stopped_replay_publishes_the_day_and_releases_its_lease(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    no_money = answer({"error": "Your current account balance is negative."}, 400)
    services.refuse = lambda request: no_money if request.method == "POST" else None
    code, _, err = run("replay", pipeline_file, "--date", "2026-11-20")
    assert code == 1
    assert "No requests are sent until the account is topped up" in err
    assert statuses(aws)["broken.mp3"] == "balance"
    assert aws.lease("next").take() > 1


@pytest.mark.integration
def test_replay_of_an_unknown_failure_class_is_a_one_line_error(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    code, _, err = run("replay", pipeline_file, "--date", "2026-11-20", "--class", "bad_audoi")
    assert code == 1
    assert err.startswith("error: replay: there is no failure class bad_audoi; expected")
    assert err.count("\n") == 1


@pytest.mark.integration
def test_replay_with_a_wrong_key_is_a_one_line_error(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    services.refuse = lambda request: answer({"error": "Authentication error, API token missing/invalid"}, 401)
    code, _, err = run("replay", pipeline_file, "--date", "2026-11-20")
    assert code == 1
    assert err.startswith(f"error: The speech service at {services.web.url} does not accept the key")
    assert KEY not in err


@pytest.mark.integration
def test_replay_defaults_to_the_only_pipeline_in_the_folder(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(pipeline_file.parent))
    code, out, _ = run("replay", "--date", "2026-11-20")
    assert (code, out.splitlines()) == (0, ["2026-11-20: no calls"])
    (pipeline_file.parent / "other.yaml").write_text(
        pipeline_file.read_text().replace("pipeline: support", "pipeline: b")
    )
    code, _, err = run("replay", "--date", "2026-11-20")
    assert code == 1
    assert "Name a pipeline file; there are: other.yaml, support.yaml." in err
