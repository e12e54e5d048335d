"""How long a recording is: from its header where it has one, else from its size, with few requests."""

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
    """The length of a recording, and how many requests that took."""
    before = s3.counted()["GetObject"]
    return audio_s(RecordingBucket(s3.client, s3.recordings), recording), s3.counted()["GetObject"] - before


@pytest.mark.parametrize(
    ("seconds", "rate", "width", "channels"),
    [(12.5, 8000, 2, 1), (90, 16000, 2, 2), (600, 8000, 1, 1), (0.1, 8000, 2, 1)],
)
def test_a_wav_says_how_long_it_is_at_its_beginning(
    s3: Store, seconds: float, rate: int, width: int, channels: int
) -> None:
    recording = s3.put("calls/a.wav", wav(seconds, rate, width, channels))
    found, requests = measured(s3, recording)
    assert found == pytest.approx(seconds, abs=0.01)
    assert requests <= 2


def test_no_more_than_a_piece_of_a_long_wav_is_read(s3: Store) -> None:
    recording = s3.put("calls/a.wav", wav(600))
    read: list[int] = []
    s3.client.meta.events.register("after-call.s3.GetObject", lambda parsed, **_: read.append(parsed["ContentLength"]))
    audio_s(RecordingBucket(s3.client, s3.recordings), recording)
    assert sum(read) <= 2 * PIECE_BYTES < recording.size


@pytest.mark.parametrize(
    "name", sorted(path.relative_to(SAMPLES / "audio").as_posix() for path in SAMPLES.glob("audio/**/*.*"))
)
def test_the_samples_are_about_as_long_as_they_are(s3: Store, name: str) -> None:
    truth = json.loads((SAMPLES / "truth" / f"{Path(name).stem}.json").read_text())
    recording = s3.put(f"calls/{name}", (SAMPLES / "audio" / name).read_bytes())
    found, requests = measured(s3, recording)
    assert truth["duration_s"] * 0.9 <= found <= truth["duration_s"] * 1.1
    assert requests <= 6


def test_no_more_than_some_pieces_of_a_long_recording_are_read(s3: Store) -> None:
    sample = next(SAMPLES.glob("audio/**/*.ogg")).read_bytes()
    _, requests = measured(s3, s3.put("calls/a.ogg", sample * 20))
    assert requests <= 12


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".ogg", ".flac", ".m4a", ".webm", ".bin"])
@pytest.mark.parametrize(
    "body", [b"not audio " * 4000, b"RIFF", b"\0" * 40_000, b"\xff" * 40_000, b"ID3" + b"\xff" * 99]
)
def test_what_has_no_header_is_measured_by_its_size(s3: Store, suffix: str, body: bytes) -> None:
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
def test_a_wav_that_was_written_as_a_stream_is_not_a_call_of_days(s3: Store, size: int) -> None:
    body = wav(30)
    body = body[:4] + struct.pack("<I", size) + body[8:40] + struct.pack("<I", size) + body[44:]
    found, _ = measured(s3, s3.put("calls/a.wav", body))
    assert 15 <= found <= 240


def test_an_empty_object_lasts_no_time(s3: Store) -> None:
    assert measured(s3, s3.put("calls/a.wav", b"")) == (0, 0)


def test_an_object_that_is_gone_is_measured_by_its_size(s3: Store) -> None:
    recording = s3.put("calls/a.wav", wav(60))
    s3.client.delete_object(Bucket=recording.bucket, Key=recording.key)
    assert audio_s(RecordingBucket(s3.client, s3.recordings), recording) == pytest.approx(
        recording.size / BYTES_PER_SECOND[".wav"]
    )
