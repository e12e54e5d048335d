"""``callphases plan``: what would be done, and why nothing would."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from callphases.errors import BadAudio
from callphases.recordings import Recording
from callphases.segmentation.segmenter import prompt_version
from callphases.state.bucket import Page, RecordingBucket
from callphases.state.events import Answered, Intended, Transcribed, failed
from callphases.state.keys import RecordingKeys, transcript_key
from commands import Run
from doubles import DAY, Speech, Store, Web
from media import wav


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prefixes that the command lists in the bucket of recordings."""
    prefixes: list[str] = []
    pages = RecordingBucket.pages

    def counted(bucket: RecordingBucket, prefix: str) -> Iterator[Page]:
        prefixes.append(prefix)
        return pages(bucket, prefix)

    monkeypatch.setattr(RecordingBucket, "pages", counted)
    return prefixes


def transcribe(aws: Store, recordings: list[Recording]) -> None:
    """Let the ledger say that these are done, with the settings of ``pipeline_file``."""
    ours = aws.pipeline()
    keys = RecordingKeys(ours)
    for one in recordings:
        key = keys.transcript(one)
        aws.knows(
            Intended(key=key, recording=one.key, **keys.intended(one)),
            Transcribed(key=key, recording=one.key, status="completed", transcript_id="t-1", audio_s=6.0),
            Answered(
                key=keys.answer(key), recording=one.key, duration_s=6.0, phases=[], prompt_version=prompt_version(ours)
            ),
        )


@pytest.mark.integration
def test_plan_counts_what_a_run_would_do(run: Run, aws: Store, pipeline_file: Path) -> None:
    recordings = [aws.put(f"calls/2026-11-20/{name}.mp3", b"x" * 1_500_000) for name in "abc"]
    key = transcript_key(recordings[0], aws.pipeline().transcription)
    aws.knows(failed(key, BadAudio("Transcoding failed."), recordings[0].key))
    code, out, _ = run("plan", pipeline_file, "--date", "2026-11-20", "--date", "2026-11-21")
    assert code == 0
    assert out.splitlines()[:2] == [
        "2026-11-20: 3 recordings, 2 to do (3.0 MB), 1 done before",
        "2026-11-21: 0 recordings, 0 to do (0.0 MB), 0 done before",
    ]
    assert "– call times: recordings.call_time is last_modified" in out


@pytest.mark.integration
def test_plan_says_which_changed_setting_calls_are_paid_for_again(run: Run, aws: Store, pipeline_file: Path) -> None:
    done = [aws.put(f"calls/2026-11-20/{name}.mp3") for name in ("a", "b")]
    aws.put("calls/2026-11-20/new.mp3")
    transcribe(aws, done)

    def planned(**settings: Any) -> list[str]:
        pipeline = aws.pipeline(**settings)
        pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
        code, out, _ = run("plan", pipeline_file, "--date", "2026-11-20")
        assert code == 0
        return [line for line in out.splitlines() if line.startswith("2026-11-20: ")]

    nothing_new = ["2026-11-20: 3 recordings, 1 to do (0.0 MB), 2 done before"]
    options = {"speech_models": ["universal-2"], "speaker_labels": True}
    assert planned() == planned(transcription=options) == nothing_new
    counts, said = planned(transcription={**options, "language_code": "de", "speaker_labels": False})
    assert counts.startswith("2026-11-20: 3 recordings, 3 to do")
    assert said == (
        "2026-11-20: of those to do, 2 were transcribed before and are paid for again, because "
        "transcription.language_code and transcription.speaker_labels changed."
    )
    _, said = planned(transcription={**options, "upgrade": True})
    assert "2 were transcribed before and are paid for again, because transcription.upgrade is true" in said
    _, said = planned(phases=[{"name": "All of it"}])
    assert said.endswith("for 2 that are transcribed, the model is asked again, because phases changed.")
    _, said = planned(segmentation={"models": ["another"]})
    assert said.endswith("because segmentation.models changed.")
    aws.put("calls/2026-11-20/a.mp3", b"RIFF, and other audio")
    (counts,) = planned()
    assert counts.startswith("2026-11-20: 3 recordings, 2 to do"), "a replaced recording is no changed setting"


@pytest.mark.integration
def test_plan_does_not_guess_which_option_an_older_ledger_had(run: Run, aws: Store, pipeline_file: Path) -> None:
    done = aws.put("calls/2026-11-20/a.mp3")
    key = transcript_key(done, {"speaker_labels": False})
    aws.knows(Transcribed(key=key, recording=done.key, status="no_speech", transcript_id="t-1"))
    _, out, _ = run("plan", pipeline_file, "--date", "2026-11-20")
    assert (
        "1 were transcribed before and are paid for again, because options of transcription, or the recordings" in out
    )


@pytest.mark.integration
def test_plan_says_why_nothing_is_listed(run: Run, aws: Store, pipeline_file: Path) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    where = f"s3://{aws.recordings}/calls/"
    code, out, _ = run("plan", pipeline_file, "--date", "2026-11-21", "--date", "2026-11-20")
    assert code == 0, "a day may have no calls"
    assert f"– 2026-11-21: No recording of this day is below {where}2026-11-21/. {where} has 2026-11-20/." in out
    code, out, _ = run("plan", pipeline_file, "--date", "2026-11-20", "--date", "2063-01-01")
    assert code == 1
    assert "✗ 2063-01-01: This day is in the future (in UTC)." in out
    pipeline = aws.pipeline(recordings={"prefix": "recordings/{date:%Y/%m/%d}/"})
    pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    code, out, _ = run("plan", pipeline_file, "--date", "2026-11-20")
    assert code == 1
    where = f"s3://{aws.recordings}/"
    why = f"{where}recordings/ doesn't exist: no object is below it. Check recordings.prefix. {where} has calls/."
    assert f"✗ 2026-11-20: {why}" in out


@pytest.mark.integration
@pytest.mark.parametrize(("day", "code", "words"), [("2026-11-19", 0, ""), ("2063-01-01", 1, "in the future")])
def test_plan_of_an_archive_says_only_that_a_day_is_to_come(
    run: Run, aws: Store, pipeline_file: Path, day: str, code: int, words: str
) -> None:
    rule = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}
    pipeline = aws.pipeline(recordings={"prefix": "calls/", "call_time": rule})
    pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    aws.put("calls/20261120.mp3")
    found, out, _ = run("plan", pipeline_file, "--date", "2026-11-20", "--date", day)
    assert found == code
    assert f"{day}: 0 recordings" in out
    assert [line for line in out.splitlines() if f" {day}: " in line and words in line] == out.splitlines()[3:]


@pytest.mark.integration
def test_plan_writes_nothing(run: Run, aws: Store, pipeline_file: Path) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    run("plan", pipeline_file, "--date", "2026-11-20")
    assert aws.keys() == []


@pytest.mark.integration
def test_plan_lists_an_archive_once_for_all_days(run: Run, aws: Store, pipeline_file: Path, listed: list[str]) -> None:
    rule = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}
    pipeline = aws.pipeline(recordings={"prefix": "calls/", "call_time": rule}, timezone="Asia/Tokyo")
    pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    for name in ("20261119", "20261120-a", "20261120-b", "other-20261120"):
        aws.put(f"calls/{name}.mp3", b"x" * 500_000)
    done = aws.put("calls/20261119-done.mp3")
    key = transcript_key(done, aws.pipeline().transcription)
    aws.knows(failed(key, BadAudio("Transcoding failed."), done.key), day=DAY - dt.timedelta(days=1))
    code, out, _ = run("plan", pipeline_file, *[f"--date=2026-11-{day}" for day in (20, 19, 18, 20)])
    assert code == 0
    assert out.splitlines() == [
        "2026-11-20: 3 recordings, 3 to do (1.5 MB), 0 done before",
        "2026-11-19: 2 recordings, 1 to do (0.5 MB), 1 done before",
        "2026-11-18: 0 recordings, 0 to do (0.0 MB), 0 done before",
        "2026-11-20: 3 recordings, 3 to do (1.5 MB), 0 done before",
        "✓ call times: calls/20261120-a.mp3: 2026-11-20 00:00:00+09:00, day 2026-11-20",
        "✓ call times: calls/20261120-b.mp3: 2026-11-20 00:00:00+09:00, day 2026-11-20",
        "✓ call times: calls/other-20261120.mp3: 2026-11-20 00:00:00+09:00, day 2026-11-20",
    ]
    assert listed == ["calls/"]
    assert aws.keys("state/index/") == []


@pytest.mark.integration
def test_plan_lists_the_prefix_of_a_month_once_for_its_days(
    run: Run, aws: Store, pipeline_file: Path, listed: list[str]
) -> None:
    rule = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}
    pipeline = aws.pipeline(recordings={"prefix": "calls/{date:%Y-%m}/", "call_time": rule})
    pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    for name in ("11/20241119", "11/20241120", "11/20230101", "12/20241202", "11/voicemail"):
        aws.put(f"calls/2024-{name}.mp3")
    code, out, errors = run("plan", pipeline_file, *[f"--date=2024-{day}" for day in ("11-19", "11-20", "12-02")])
    assert code == 0
    assert [line.partition(" recordings")[0] for line in out.splitlines()[:3]] == [
        "2024-11-19: 1",
        "2024-11-20: 1",
        "2024-12-02: 1",
    ]
    assert "1 keys do not match recordings.call_time.key_pattern or its format: 'calls/2024-11/voicemail.mp3'" in out
    assert "2 recordings are on no day" in out
    assert "'calls/2024-11/20230101.mp3', 'calls/2024-11/voicemail.mp3'" in out
    assert errors == "", "nothing is said twice"
    assert listed == ["calls/2024-11/", "calls/2024-12/"]


@pytest.mark.integration
def test_many_days_are_priced_without_asking_a_service(
    run: Run, aws: Store, services: Speech, models: Web, pipeline_file: Path, tmp_path: Path
) -> None:
    aws.put("calls/2026-11-20/a.wav", wav([0] * 3600 * 8000))
    picture = tmp_path / "plan.png"
    code, out, errors = run("plan", pipeline_file, "--from", "2026-11-01", "--to", "2026-11-30", "--picture", picture)
    assert (code, errors) == (0, "")
    assert "2026-11" in out
    assert "$0.23" in out, "an hour at $0.21, and $0.02 for speaker labels"
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("plan", pipeline_file, "--all", "--exact", "--format", "json")
    assert (code, json.loads(out)["total"]["recordings"]) == (0, 1)
    assert services.web.requests == models.requests == []
    assert aws.keys() == aws.keys("state/plans/")


@pytest.mark.integration
@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("--from", "2026-11-01"),
        ("--to", "2026-11-01"),
        ("--all", "--date", "2026-11-01"),
        ("--all", "--from", "2026-11-01", "--to", "2026-11-02"),
        ("--from", "2026-11-02", "--to", "2026-11-01"),
    ],
)
def test_days_have_to_be_given_in_one_way(run: Run, pipeline_file: Path, wrong: tuple[str, ...]) -> None:
    code, _, errors = run("plan", pipeline_file, *wrong)
    assert code == 2
    assert "expected" in errors
