"""An archive of many kinds of recordings is priced as a service then counts them, and nothing is paid for."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from typing import Any

import numpy as np
import pytest

from callphases.day_range import DayRange
from callphases.limits import costs
from callphases.planning import saved as kept_plans
from callphases.planning.plan import Plan, plan
from callphases.planning.report import as_json, remarks
from callphases.recordings import Recording
from callphases.segmentation.segmenter import prompt_version
from callphases.state.events import Answered, Intended, ModelUsage, Transcribed
from callphases.state.keys import RecordingKeys
from callphases.state.summaries import DaySummary, record
from callphases.tables.schema import CALLS, object_name
from commands import call, parquet
from doubles import NOON, Store
from media import FLAC, FRAGMENTED, M4A, MP3, OPUS, WAV, WEBM, Kind, encoded, tone

pytestmark = pytest.mark.integration

AUTUMN = DayRange(dt.date(2026, 9, 1), dt.date(2026, 11, 30))
KINDS = {
    ".wav": WAV,
    "-mulaw.wav": Kind("wav", "pcm_mulaw", 8_000),
    "-adpcm.wav": Kind("wav", "adpcm_ima_wav", 8_000),
    ".mp3": MP3,
    "-bare.mp3": Kind("mp3", "libmp3lame", 16_000, {"write_xing": "0"}),
    ".m4a": M4A,
    "-moov-last.m4a": Kind("mp4", "aac", 44_100),
    "-fragments.mp4": FRAGMENTED,
    ".opus": OPUS,
    ".flac": FLAC,
    ".webm": WEBM,
    "-live.webm": Kind("webm", "libopus", 48_000, {"live": "1"}),
    "-in-truth-flac.mp3": FLAC,
}


def short_header(body: bytes) -> bytes:
    place = body.index(b"data") + 4
    return body[:place] + struct.pack("<I", 320) + body[place + 4 :]


def wild(s3: Store) -> float:
    """Fill three months with recordings of all kinds; returns what a service bills, in whole seconds."""
    billed = 0
    for number, (suffix, kind) in enumerate(KINDS.items()):
        for month, seconds in ((9, 2.0), (10, 7.3 + 20 * number), (11, 61.7)):
            body = encoded(kind, tone(440, seconds, kind.rate_hz))
            if suffix == ".wav":
                body = short_header(body)
            s3.put(f"calls/2026-{month:02}-{number + 1:02}/{number}{suffix}", body)
            billed += math.ceil(seconds)
    long = np.zeros(8000 * 3600 * 3, np.int8).tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 7, 1, 8000, 8000, 1, 8, b"data", 0)
    s3.put("calls/2026-11-29/three-hours.wav", head + long)
    s3.put("calls/2026-11-29/denied.mp3", b"<html><body>Access denied</body></html>" * 20)
    s3.put("calls/2026-11-29/empty.mp3", b"")
    s3.put("calls/2026-11-29/click.wav", encoded(WAV, tone(440, 0.1, 8_000)))
    return billed + 3 * 3600


def planned(s3: Store, days: DayRange | None = AUTUMN, most: int | None = 3000, **settings: Any) -> Plan:
    return plan(s3.pipeline(**settings), s3.client, days, most_headers=most)


def test_wild_mix_is_priced_within_three_percent(s3: Store) -> None:
    billed_s = wild(s3)
    found = planned(s3)
    total = found.total
    assert found.is_exact
    assert total.count.recordings == 3 * len(KINDS) + 4
    assert total.billed_s.total == pytest.approx(billed_s, rel=0.03)
    assert total.audio_s.total == pytest.approx(billed_s, rel=0.03)
    assert total.speech_usd.total == pytest.approx(costs.expected_speech_usd(s3.pipeline(), billed_s), rel=0.03)
    assert (total.not_audio, total.count.empty, total.calls) == (1, 1, 3 * len(KINDS) + 1)
    assert found.examples["not_audio"] == ["calls/2026-11-29/denied.mp3"]
    assert [month.month for month in found.months] == ["2026-09", "2026-10", "2026-11"]
    assert sum(month.usd.total for month in found.months) == pytest.approx(total.usd.total)
    assert total.llm_usd.low < total.llm_usd.total < total.llm_usd.high


def test_of_many_recordings_only_some_are_read(s3: Store) -> None:
    body = {seconds: encoded(WAV, tone(440, seconds, 8_000)) for seconds in (1.0, 2.0, 5.0)}
    for number in range(600):
        seconds = (1.0, 2.0, 5.0)[number % 3]
        s3.put(f"calls/2026-11-{number % 28 + 1:02}/{number}.wav", body[seconds])
    before = s3.counted()["GetObject"]
    found = planned(s3, most=250)
    assert found.measured == 250
    assert s3.counted()["GetObject"] - before <= 250 + 12
    assert not found.is_exact
    assert found.total.billed_s.low <= 1600 <= found.total.billed_s.high
    assert found.total.billed_s.total == pytest.approx(1600, rel=0.01), "bytes tell it, in one format"


def test_all_plans_from_the_first_to_the_last_day_of_the_bucket(s3: Store) -> None:
    body = encoded(WAV, tone(440, 2, 8_000))
    for day in ("2024-02-29", "2025-07-01", "2026-11-20"):
        s3.put(f"calls/{day}/a.wav", body)
    s3.put("calls/readme.txt")
    s3.put("calls/2025-13-40/a.wav", body)
    found = planned(s3, None)
    assert str(found.days) == "2024-02-29 to 2026-11-20"
    assert found.total.count.recordings == 3
    rule = {"key_pattern": r"(?P<time>\d{4}-\d\d-\d\d)", "format": "%Y-%m-%d"}
    months = ["2024-02", "2025-07", "2026-11"]
    assert [month.month for month in found.months] == months
    monthly = planned(s3, None, recordings={"prefix": "calls/{date:%Y-%m}", "call_time": rule})
    assert [(month.month, month.count.recordings) for month in monthly.months] == [(month, 1) for month in months]
    s3.client.delete_object(Bucket=s3.recordings, Key="calls/2025-13-40/a.wav")
    flat = planned(s3, None, recordings={"prefix": "calls/", "call_time": rule})
    assert [(month.month, month.count.recordings) for month in flat.months] == [(month, 1) for month in months]
    assert flat.days == found.days


def transcribe(aws: Store, recording: Recording, day: dt.date, **options: Any) -> None:
    """Let the ledger say that a recording is done; with ``options``, it was with these."""
    ours = aws.pipeline(**({"transcription": options} if options else {}))
    keys = RecordingKeys(ours)
    key = keys.transcript(recording)
    usage = ModelUsage(llm_model="claude-sonnet-4-6", llm_input_tokens=500, llm_output_tokens=100, llm_usd=0.003)
    aws.knows(
        Intended(key=key, recording=recording.key, **keys.intended(recording)),
        Transcribed(
            key=key, recording=recording.key, status="completed", transcript_id="t", audio_s=60.0, speech_usd=0.004
        ),
        Answered(
            key=keys.answer(key),
            recording=recording.key,
            duration_s=60.0,
            phases=[],
            prompt_version=prompt_version(ours),
            usage=usage,
        ),
        day=day,
    )


def test_what_is_paid_for_is_told_from_what_is_not(s3: Store) -> None:
    body = encoded(WAV, tone(440, 60, 8_000))
    done, changed, new = (s3.put(f"calls/2026-11-20/{name}.wav", body) for name in ("done", "changed", "new"))
    transcribe(s3, done, dt.date(2026, 11, 20))
    transcribe(s3, changed, dt.date(2026, 11, 20), speech_models=["universal-2"], speaker_labels=False)
    s3.client.put_object(Bucket=s3.recordings, Key="calls/2026-11-21/cold.wav", Body=body, StorageClass="DEEP_ARCHIVE")
    found = planned(s3)
    month = found.total
    assert (month.count.settled, month.count.to_transcribe, month.count.paid_again) == (1, 2, 1)
    assert month.billed_s.total == pytest.approx(2 * 60, abs=2)
    assert (month.count.paid_speech_usd, month.count.paid_llm_usd) == pytest.approx((0.004, 0.003))
    assert "1 were transcribed before and are paid for again, because transcription.speaker_labels" in found.paid_again
    assert month.count.archived == {"DEEP_ARCHIVE": 1}
    assert month.count.archived_bytes == {"DEEP_ARCHIVE": len(body)}
    asked = planned(s3, segmentation={"models": ["claude-sonnet-4-6"]})
    assert len(asked.total.count.ask_s) == 1
    assert "segmentation.models changed" in asked.paid_again
    assert asked.total.tokens_in > month.tokens_in
    assert new.size == len(body)


def test_days_without_a_ledger_take_no_requests_of_their_own(s3: Store) -> None:
    for day in range(1, 21):
        s3.put(f"calls/2026-11-{day:02}/a.wav", encoded(WAV, tone(440, 1, 8_000)))
    s3.listed.clear()
    planned(s3, DayRange(dt.date(2026, 11, 1), dt.date(2026, 11, 20)))
    assert [prefix for prefix in s3.listed if prefix.startswith("state/ledger/")] == ["state/ledger/dt=2026-11-"]


def test_planned_and_actual_costs_are_compared_once_days_are_published(s3: Store) -> None:
    body = encoded(WAV, tone(440, 60, 8_000))
    recording = s3.put("calls/2026-11-20/a.wav", body)
    s3.put("calls/2026-10-01/b.wav", body)
    first = planned(s3)
    assert first.first_planned_at is None
    assert first.total.actual is None
    saved = kept_plans.read_plan(s3.state, AUTUMN)
    assert saved is not None
    assert saved.months["2026-11"].speech_usd == pytest.approx(first.months[-1].speech_usd.total, abs=1e-6)
    kept = kept_plans.planned(s3.state)
    assert kept is not None
    counts = {str(day): one.recordings for day, one in kept.days.items() if one.recordings}
    assert counts == {"2026-10-01": 1, "2026-11-20": 1}
    transcribe(s3, recording, dt.date(2026, 11, 20))
    summary = DaySummary(
        dt.date(2026, 11, 20), NOON, "run", 1, 0, {"completed": 1}, {}, 0, audio_s=60.0, speech_usd=0.004, llm_usd=0.003
    )
    record(s3.state, [summary])
    body = parquet(CALLS, call("b", duration_s=70.0, speech_usd=0.005, llm_usd=0.002))
    s3.tables.put(object_name("calls", dt.date(2026, 10, 1)), body)
    again = planned(s3)
    assert again.first_planned_at == saved.planned_at
    october, november = again.months
    assert november.actual is not None
    assert november.planned == saved.months["2026-11"]
    assert (november.actual.speech_usd, november.actual.llm_usd) == (0.004, 0.003)
    assert october.actual is not None
    assert october.actual.usd == pytest.approx(0.007), "published without a summary"
    assert again.total.actual is not None
    assert again.total.actual.usd == pytest.approx(0.014)


def test_tokens_follow_from_published_calls(s3: Store) -> None:
    s3.put("calls/2026-11-20/a.wav", encoded(WAV, tone(440, 60, 8_000)))
    assumed = planned(s3)
    rows = [
        call(f"{number}", duration_s=10.0 * number, llm_input_tokens=100 + 80 * number, llm_output_tokens=50 + number)
        for number in range(1, 41)
    ]
    s3.tables.put(object_name("calls", dt.date(2026, 11, 19)), parquet(CALLS, *rows))
    found = planned(s3)
    assert found.tokens.calls == 40
    assert (found.total.tokens_in, found.total.tokens_out) == pytest.approx((100 + 8 * 60, 50 + 6), rel=0.03)
    assert found.total.llm_usd.high - found.total.llm_usd.low < assumed.total.llm_usd.high - assumed.total.llm_usd.low


def test_channels_are_billed_one_by_one_if_the_pipeline_asks_for_them(s3: Store) -> None:
    stereo = np.repeat(tone(440, 60, 8_000), 2, axis=0)
    s3.put("calls/2026-11-20/a.wav", encoded(WAV, stereo))
    options = {"speech_models": ["universal-2"]}
    one = planned(s3, transcription=options).total.speech_usd.total
    two = planned(s3, transcription={**options, "multichannel": True}).total.speech_usd.total
    assert two == pytest.approx(2 * one)


def test_plan_goes_on_where_the_state_area_can_not_be_written(s3: Store, caplog: pytest.LogCaptureFixture) -> None:
    s3.put("calls/2026-11-20/a.wav", encoded(WAV, tone(440, 1, 8_000)))

    def refuse(**_: object) -> None:
        raise s3.client.exceptions.ClientError({"Error": {"Code": "NoSuchBucket"}}, "PutObject")

    s3.client.meta.events.register("before-call.s3.PutObject", refuse)
    found = planned(s3)
    assert "no bucket" in found.problem
    assert found.total.calls == 1
    assert "not kept" in caplog.text


def test_json_has_amounts_with_units_in_their_names(s3: Store) -> None:
    s3.put("calls/2026-11-20/a.wav", encoded(WAV, tone(440, 60, 8_000)))
    document = json.loads(as_json(planned(s3)))
    assert document["total"]["billed_s"] == {"total": 60.0, "low": 60.0, "high": 60.0}
    assert document["months"][0]["month"] == "2026-11"
    assert document["exact"] is True
    assert document["keys_without_time"] == document["recordings_without_day"] == 0


def test_keys_without_a_time_are_counted(s3: Store) -> None:
    body = encoded(WAV, tone(440, 1, 8_000))
    for name in ("20261120-a", "voicemail"):
        s3.put(f"calls/{name}.wav", body)
    rule = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}
    found = planned(s3, None, recordings={"prefix": "calls/", "call_time": rule})
    assert (found.total.count.recordings, found.keys_without_time) == (2, 1)
    assert any("voicemail" in line for line in remarks(found))


def test_window_of_a_backfill_decides_the_nights(s3: Store) -> None:
    s3.put("calls/2026-11-20/a.wav", encoded(WAV, tone(440, 600, 8_000)))
    free = plan(s3.pipeline(), s3.client, AUTUMN)
    assert free.pace.nights == 1
    limits = {"backfill": {"usd_per_day": free.total.usd.total / 10}}
    tight = plan(s3.pipeline(limits=limits), s3.client, AUTUMN)
    assert tight.pace.nights == 10
