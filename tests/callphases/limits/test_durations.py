"""Durations from headers, or else from sizes, with few requests."""

from __future__ import annotations

import io
import json
import struct
import wave
from pathlib import Path

import pytest

from callphases.limits.durations import BYTES_PER_SECOND, FALLBACK_BYTES_PER_SECOND, PIECE_BYTES, audio_s
from callphases.recordings import Recording
from callphases.state.bucket import RecordingBucket
from doubles import Store

pytestmark = pytest.mark.integration

SAMPLES = Path(__file__).resolve().parents[3] / "include" / "samples"


def wav(seconds: float, rate: int = 8000, width: int = 2, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(b"\0" * round(seconds * rate) * width * channels)
    return file.getvalue()


def measured(s3: Store, recording: Recording) -> tuple[float, int]:
    """The duration of a recording in seconds, and the number of requests it took."""
    before = s3.counted()["GetObject"]
    return audio_s(RecordingBucket(s3.client, s3.recordings), recording), s3.counted()["GetObject"] - before


@pytest.mark.parametrize(
    ("seconds", "rate", "width", "channels"),
    [(12.5, 8000, 2, 1), (90, 16000, 2, 2), (600, 8000, 1, 1), (0.1, 8000, 2, 1)],
)
def test_wav_duration_is_read_from_its_header(s3: Store, seconds: float, rate: int, width: int, channels: int) -> None:
    recording = s3.put("calls/a.wav", wav(seconds, rate, width, channels))
    found, requests = measured(s3, recording)
    assert found == pytest.approx(seconds, abs=0.01)
    assert requests <= 2


def test_long_wav_takes_at_most_two_pieces(s3: Store) -> None:
    recording = s3.put("calls/a.wav", wav(600))
    read: list[int] = []
    s3.client.meta.events.register("after-call.s3.GetObject", lambda parsed, **_: read.append(parsed["ContentLength"]))
    audio_s(RecordingBucket(s3.client, s3.recordings), recording)
    assert sum(read) <= 2 * PIECE_BYTES < recording.size


@pytest.mark.parametrize(
    "name", sorted(path.relative_to(SAMPLES / "audio").as_posix() for path in SAMPLES.glob("audio/**/*.*"))
)
def test_duration_of_each_sample_is_within_ten_percent(s3: Store, name: str) -> None:
    truth = json.loads((SAMPLES / "truth" / f"{Path(name).stem}.json").read_text())
    recording = s3.put(f"calls/{name}", (SAMPLES / "audio" / name).read_bytes())
    found, requests = measured(s3, recording)
    assert truth["duration_s"] * 0.9 <= found <= truth["duration_s"] * 1.1
    assert requests <= 6


def test_number_of_requests_for_a_long_recording_is_bounded(s3: Store) -> None:
    sample = next(SAMPLES.glob("audio/**/*.ogg")).read_bytes()
    _, requests = measured(s3, s3.put("calls/a.ogg", sample * 20))
    assert requests <= 12


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".ogg", ".flac", ".m4a", ".webm", ".bin"])
@pytest.mark.parametrize(
    "body", [b"not audio " * 4000, b"RIFF", b"\0" * 40_000, b"\xff" * 40_000, b"ID3" + b"\xff" * 99]
)
def test_duration_without_a_valid_header_is_estimated_from_size(s3: Store, suffix: str, body: bytes) -> None:
    recording = s3.put(f"calls/a{suffix}", body)
    found, requests = measured(s3, recording)
    assert found == pytest.approx(len(body) / BYTES_PER_SECOND.get(suffix, FALLBACK_BYTES_PER_SECOND))
    assert requests <= 6


@pytest.mark.parametrize(
    "size",
    [
        0,
        0xFFFFFFFF,
        0x7FFFFFFF,
    ],
    ids=["0", "unknown", "2 GiB"],
)
def test_streamed_wav_with_a_bogus_length_is_estimated_from_size(s3: Store, size: int) -> None:
    body = wav(30)
    body = body[:4] + struct.pack("<I", size) + body[8:40] + struct.pack("<I", size) + body[44:]
    found, _ = measured(s3, s3.put("calls/a.wav", body))
    assert 15 <= found <= 240


def test_empty_object_has_duration_zero(s3: Store) -> None:
    assert measured(s3, s3.put("calls/a.wav", b"")) == (0, 0)


def test_duration_of_a_deleted_object_is_estimated_from_size(s3: Store) -> None:
    recording = s3.put("calls/a.wav", wav(60))
    s3.client.delete_object(Bucket=recording.bucket, Key=recording.key)
    assert audio_s(RecordingBucket(s3.client, s3.recordings), recording) == pytest.approx(
        recording.size / BYTES_PER_SECOND[".wav"]
    )
