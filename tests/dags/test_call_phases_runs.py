"""Tests of whole runs by ``dag.test()``, with HTTP to a scripted speech service, S3 requests and Parquet files."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from night import TRUTH, Night
from servers import KEY
from versions import parsed

pytestmark = pytest.mark.integration

DAY = "2026-11-20"
ODD_KEYS = [
    "with space.wav",
    "plus+plus.wav",
    "per%20cent%.wav",
    "quo'te\".wav",
    "emoji 📞.wav",
    "/leading slash.wav",
    "q?x=1&y=2#z.wav",
    "a" * 870 + ".wav",
]


def phases_of(night: Night, key: str, day: str = DAY) -> list[tuple[str, float, float]]:
    rows = [row for row in night.table("phases", day) if row["recording_uri"] == f"s3://recordings/{key}"]
    return [(row["phase_name"], row["start_s"], row["end_s"]) for row in rows]


def statuses(night: Night, day: str = DAY) -> dict[str, Any]:
    return {
        row["recording_uri"].rsplit("/", 1)[-1]: row["failure_class"] or row["status"]
        for row in night.table("calls", day)
    }


@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_run_publishes_the_phases_that_the_service_returns(night: Night, send: str) -> None:
    night.pipeline(recordings={"send": send})
    night.put(f"calls/{DAY}/one.wav")
    night.put("calls/2026-11-19/of another day.wav")
    assert night.run(DAY) == "success"
    # An upload has another URL than the recording, so the script answers with its default, which is the same call.
    assert phases_of(night, f"calls/{DAY}/one.wav") == TRUTH
    [call] = night.table("calls", DAY)
    assert (call["status"], call["phase_count"], call["duration_s"]) == ("completed", 4, 12.0)
    assert night.table("calls", "2026-11-19") == []


def test_run_publishes_speakers_and_talk_times(night: Night) -> None:
    night.put(f"calls/{DAY}/one.wav")
    assert night.run(DAY) == "success"
    [call], phases = night.table("calls", DAY), night.table("phases", DAY)
    assert (call["speaker_1"], call["speaker_1_talk_s"], call["speaker_2"], call["speaker_2_talk_s"]) == (
        *("A", pytest.approx(5.7)),
        *("B", pytest.approx(2.7)),
    )
    assert (call["turn_count"], call["silence_s"], call["interruption_count"]) == (4, pytest.approx(3.6), 0)
    assert [row["turn_count"] for row in phases] == [1, 1, 1, 1]
    assert [row["silence_s"] for row in phases] == pytest.approx([0.8, 0.3, 0.5, 2.0])
    assert [row["speaker_1_talk_share"] for row in phases] == pytest.approx([1.0, 0.0, 1.0, 0.0])
    assert all(0 < row["confidence"] <= 1 and row["words_per_minute"] > 0 for row in (call, *phases))


def test_each_failed_recording_is_one_failed_row(night: Night) -> None:
    for name in ("good.wav", "silent.wav", "broken.wav"):
        night.put(f"calls/{DAY}/{name}")
    night.put(f"calls/{DAY}/empty.wav", b"")
    assert night.run(DAY) == "success"
    assert statuses(night) == {
        "good.wav": "completed",
        "silent.wav": "no_speech",
        "broken.wav": "bad_audio",
        "empty.wav": "empty_file",
    }
    assert night.submitted() == 3, "an empty file is not submitted"


def test_what_the_service_warns_of_is_in_the_log_and_the_row(night: Night, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("good.wav", "cut.wav"):
        night.put(f"calls/{DAY}/{name}")
    assert night.run(DAY) == "success"
    warnings = {row["recording_uri"].rsplit("/", 1)[-1]: row["warnings"] for row in night.table("calls", DAY)}
    assert warnings == {"good.wav": None, "cut.wav": "decoded 12.0 s of 20.0 s stated"}
    assert statuses(night) == dict.fromkeys(warnings, "completed")
    assert f"calls/{DAY}/cut.wav: the service warns: decoded 12.0 s of 20.0 s stated" in caplog.text


def test_too_many_failures_fail_the_run_after_publishing_the_rows(night: Night) -> None:
    night.pipeline(limits={"max_failed_ratio": 0.4})
    for name in ("good.wav", "broken.wav"):
        night.put(f"calls/{DAY}/{name}")
    assert night.run(DAY) == "failed"
    assert night.states()["verify[-1]"] == "failed"
    assert len(night.table("calls", DAY)) == 2


def test_keys_with_unusual_characters_are_processed(night: Night) -> None:
    for key in ODD_KEYS:
        night.put(f"calls/{DAY}/{key}")
    assert night.run(DAY) == "success"
    for key in ODD_KEYS:
        assert phases_of(night, f"calls/{DAY}/{key}") == TRUTH, key


def test_second_run_pays_nothing_and_changes_no_byte(night: Night) -> None:
    for number in range(3):
        night.put(f"calls/{DAY}/{number}.wav")
    assert night.run(DAY) == "success"
    before = night.body("calls", DAY), night.body("phases", DAY)
    assert night.run(DAY) == "success"
    assert (night.body("calls", DAY), night.body("phases", DAY)) == before
    assert night.submitted() == 3


def test_changed_phases_ask_the_model_again_without_transcribing(night: Night) -> None:
    night.put(f"calls/{DAY}/one.wav")
    assert night.run(DAY) == "success"
    before = night.table("phases", DAY)
    described = [{"name": name, "description": "Described anew."} for name, _, _ in TRUTH]
    night.pipeline(phases=described)
    assert night.run(DAY) == "success"
    assert phases_of(night, f"calls/{DAY}/one.wav") == TRUTH
    assert night.table("phases", DAY)[0]["prompt_version"] != before[0]["prompt_version"]
    assert night.submitted() == 1


def test_recording_replaced_under_its_key_is_transcribed_again(night: Night) -> None:
    night.put(f"calls/{DAY}/one.wav", b"RIFF first")
    assert night.run(DAY) == "success"
    [first] = night.table("calls", DAY)
    night.put(f"calls/{DAY}/one.wav", b"RIFF second")
    assert night.run(DAY) == "success"
    [second] = night.table("calls", DAY)
    assert first["call_id"] == second["call_id"]
    assert first["recording_etag"] != second["recording_etag"]
    assert night.submitted() == 2


def test_next_run_republishes_days_with_late_or_replaced_recordings(night: Night) -> None:
    for name in ("same.wav", "replaced.wav"):
        night.put(f"calls/{DAY}/{name}", name.encode())
    assert night.run(DAY) == "success"
    before = {row["recording_uri"].rsplit("/", 1)[-1]: row for row in night.table("calls", DAY)}
    night.put(f"calls/{DAY}/replaced.wav", b"RIFF second")
    night.put(f"calls/{DAY}/late.wav", b"RIFF late")
    night.put("calls/2026-11-22/new.wav", b"RIFF new")
    assert night.run("2026-11-22") == "success"
    after = {row["recording_uri"].rsplit("/", 1)[-1]: row for row in night.table("calls", DAY)}
    assert set(after) == {"same.wav", "replaced.wav", "late.wav"}
    assert after["same.wav"] == before["same.wav"]
    assert after["replaced.wav"]["recording_etag"] != before["replaced.wav"]["recording_etag"]
    assert phases_of(night, f"calls/{DAY}/late.wav") == TRUTH
    assert list(statuses(night, "2026-11-22")) == ["new.wav"]
    assert night.submitted() == 5
    untouched = night.body("calls", DAY)
    assert night.run("2026-11-23") == "success"
    assert night.submitted() == 5
    assert night.body("calls", DAY) == untouched


def test_late_recording_of_a_flat_archive_is_added_by_the_next_run(night: Night) -> None:
    call_time = {"key_pattern": "-(?P<time>[0-9]{8}T[0-9]{4})", "format": "%Y%m%dT%H%M"}
    night.pipeline(recordings={"prefix": "flat/", "call_time": call_time})
    # An archive is listed again for a day that had not ended when it was last listed, as it is each night.
    today = dt.datetime.now(dt.UTC).date()
    yesterday = today - dt.timedelta(days=1)
    night.put(f"flat/a-{yesterday:%Y%m%d}T1000.wav")
    assert night.run(str(yesterday)) == "success"
    night.put(f"flat/late-{yesterday:%Y%m%d}T1100.wav", b"RIFF late")
    assert night.run(str(today)) == "success"
    assert list(statuses(night, str(yesterday)).values()) == ["completed", "completed"]
    assert night.submitted() == 2


def test_rows_stay_after_retention_deleted_all_recordings_of_a_day(night: Night) -> None:
    for name in ("a.wav", "b.wav"):
        night.put(f"calls/{DAY}/{name}")
    assert night.run(DAY) == "success"
    before = night.body("calls", DAY), night.body("phases", DAY)
    for name in ("a.wav", "b.wav"):
        night.s3.delete_object(Bucket="recordings", Key=f"calls/{DAY}/{name}")
    assert night.run(DAY) == "success"
    assert night.run("2026-11-21") == "success"
    assert (night.body("calls", DAY), night.body("phases", DAY)) == before


@pytest.mark.parametrize(("when_deleted", "left"), [("keep", 2), ("drop", 1)])
def test_when_deleted_decides_whether_rows_of_deleted_recordings_stay(
    night: Night, when_deleted: str, left: int
) -> None:
    night.pipeline(recordings={"when_deleted": when_deleted})
    for name in ("a.wav", "b.wav"):
        night.put(f"calls/{DAY}/{name}")
    assert night.run(DAY) == "success"
    night.s3.delete_object(Bucket="recordings", Key=f"calls/{DAY}/a.wav")
    assert night.run(DAY) == "success"
    assert len(night.table("calls", DAY)) == left


def test_each_table_is_an_asset_whose_event_summarizes_the_day(night: Night) -> None:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    night.put(f"calls/{DAY}/one.wav")
    assert night.run(DAY) == "success"
    with create_session() as session:
        events = session.execute(
            select(AssetModel.name, AssetEvent.extra)
            .join(AssetEvent, AssetEvent.asset_id == AssetModel.id)
            .where(AssetEvent.source_run_id == night.last.run_id)
        ).all()
    extras = dict(tuple(event) for event in events)
    assert set(extras) == {"call_phases_night.calls", "call_phases_night.phases"}
    for table, rows in (("calls", 1), ("phases", 4)):
        extra = extras[f"call_phases_night.{table}"]
        assert (extra["dt"], extra["table"], extra["rows"]) == (DAY, f"s3://warehouse/tables/{table}/", rows)
        assert (extra["statuses"], extra["failures"], extra["late"]) == ({"completed": 1}, {}, [])
        assert extra["speech_usd"] > 0
    _ask_as_the_example_does(extras["call_phases_night.phases"])


def _ask_as_the_example_does(extra: dict[str, Any]) -> None:
    """Run the Dag of docs/examples on the event that would trigger it."""
    bag = parsed(str(Path(__file__).parents[2] / "docs" / "examples" / "longest_introductions.py"))
    assert not bag.import_errors
    dag: Any = bag.dags["longest_introductions_support_calls"]
    [asset] = dag.schedule
    assert asset.name == "call_phases_support_calls.phases"
    absent = extra | {"dt": "2020-01-01"}
    event = SimpleNamespace(extra=extra | {"late": [absent]})

    class Events:  # a dictionary would need hashes of Assets, which those of 3.1 have not
        def __getitem__(self, wanted: Any) -> list[Any]:
            return [event] if wanted == asset else []

    assert dag.get_task("ask").python_callable(Events()) == {DAY: 1}


def test_day_without_recordings_has_no_objects(night: Night) -> None:
    assert night.run(DAY) == "success"
    assert night.body("calls", DAY) is None
    assert night.body("phases", DAY) is None


def test_transcribe_is_deferred_while_the_provider_works(night: Night) -> None:
    night.put(f"calls/{DAY}/slow.wav")

    def defer_at_once(dag: Any) -> None:
        transcribe = dag.get_task("calls.transcribe")
        transcribe.poll_in_worker_s, transcribe.poll_interval_s = 0, 1

    assert night.run(DAY, defer_at_once) == "success"
    assert phases_of(night, f"calls/{DAY}/slow.wav") == TRUTH


def test_manual_run_of_a_flat_prefix_takes_only_calls_of_its_date(night: Night) -> None:
    when = {"key_pattern": r"(?P<time>\d{8}T\d{6})", "format": "%Y%m%dT%H%M%S"}
    night.pipeline(recordings={"prefix": "flat/", "call_time": when}, timezone="America/New_York")
    night.put("flat/20261120T233000-late.wav")
    night.put("flat/20261121T003000-next.wav")
    assert night.run(DAY) == "success"
    [call] = night.table("calls", DAY)
    assert call["recording_uri"].endswith("-late.wav")
    assert call["call_started_at"].isoformat() == "2026-11-21T04:30:00+00:00"


def failed_with(capfd: pytest.CaptureFixture[str], message: str) -> bool:
    captured = capfd.readouterr()
    return message in captured.out + captured.err


def test_wrong_key_stops_the_run_with_one_message(night: Night, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    night.put(f"calls/{DAY}/one.wav")
    night.connect(key="wrong")
    assert night.run(DAY) == "failed"
    assert night.states() == {
        "list[-1]": "failed",
        "calls.transcribe[-1]": "upstream_failed",
        "calls.segment[-1]": "upstream_failed",
        "publish[-1]": "failed",
        "verify[-1]": "upstream_failed",
    }
    assert failed_with(capfd, "set the password of the assemblyai connection to a valid API key")
    assert night.submitted() == 0


def test_missing_bucket_is_named_in_the_error(night: Night, capfd: Any) -> None:
    night.pipeline(recordings={"bucket": "not-there"})
    assert night.run(DAY) == "failed"
    assert failed_with(capfd, "There is no bucket 'not-there': check recordings.bucket in the pipeline file.")


def test_unreachable_service_is_named_in_the_error(night: Night, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    night.put(f"calls/{DAY}/one.wav")
    night.connect(speech_url="http://127.0.0.1:9")
    assert night.run(DAY) == "failed"
    assert failed_with(capfd, "The speech service at http://127.0.0.1:9 is not accepting requests")


def test_log_contains_no_secret(night: Night, capfd: Any) -> None:
    night.put(f"calls/{DAY}/one.wav")
    night.put(f"calls/{DAY}/broken.wav")
    night.run(DAY)
    captured = capfd.readouterr()
    for secret in (KEY, "X-Amz-Signature", "invoice"):
        assert secret not in captured.out + captured.err
