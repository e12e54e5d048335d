"""Durations from headers, or else from sizes, with few requests."""

from __future__ import annotations

import io
import json
import struct
import wave
from pathlib import Path

import pytest

from callphases.limits.durations import (
    BYTES_PER_SECOND,
    DENSEST_BYTES_PER_SECOND,
    FALLBACK_BYTES_PER_SECOND,
    PIECE_BYTES,
    Length,
    audio_length,
)
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
    return audio_length(RecordingBucket(s3.client, s3.recordings), recording).expected_s, s3.counted()[
        "GetObject"
    ] - before


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
    audio_length(RecordingBucket(s3.client, s3.recordings), recording)
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
    assert requests <= 20


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
    assert audio_length(RecordingBucket(s3.client, s3.recordings), recording).expected_s == pytest.approx(
        recording.size / BYTES_PER_SECOND[".wav"]
    )


def length_of(s3: Store, key: str, body: bytes) -> Length:
    return audio_length(RecordingBucket(s3.client, s3.recordings), s3.put(key, body))


@pytest.mark.parametrize("stated_s", [0.02, 1, 15, 25, 29])
@pytest.mark.parametrize(("rate", "width", "channels"), [(8000, 2, 1), (16000, 2, 2), (8000, 1, 1)])
def test_wav_header_that_states_too_little_is_overruled_by_the_size(
    s3: Store, stated_s: float, rate: int, width: int, channels: int
) -> None:
    """As written by recorders that crash, or that write the header first and update it now and then."""
    size = round(stated_s * rate) * width * channels
    body = wav(300, rate, width, channels)
    body = body[:4] + struct.pack("<I", size + 36) + body[8:40] + struct.pack("<I", size) + body[44:]
    found = length_of(s3, "calls/a.wav", body)
    assert (found.expected_s, found.most_s) == pytest.approx((300, 300), rel=0.001)


def test_long_metadata_of_a_wav_do_not_make_it_longer_than_by_their_size(s3: Store) -> None:
    body = wav(60)
    body += b"LIST" + struct.pack("<I", 30_000) + b"x" * 30_000
    found = length_of(s3, "calls/a.wav", body)
    assert found.expected_s == pytest.approx(60)
    assert found.most_s == pytest.approx(60 + 30_000 / 16_000, rel=0.001)


def test_length_of_a_wav_with_compressed_samples_follows_its_average_rate(s3: Store) -> None:
    """G.729 at 8 kbit/s, as some recorders write it: block of 10 bytes for 10 ms."""
    data = bytes(60_000)
    form = struct.pack("<HHIIHHH", 0x83, 1, 8000, 1000, 10, 0, 0)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 100) + data
    found = length_of(s3, "calls/a.wav", b"RIFF" + struct.pack("<I", len(body)) + body)
    assert found.expected_s == pytest.approx(60, rel=0.01)


@pytest.mark.parametrize("part", [300, 30, 10])
def test_flac_header_that_states_too_little_is_not_believed(s3: Store, part: int) -> None:
    sample = next(SAMPLES.glob("audio/**/*.flac"))
    truth_s = json.loads((SAMPLES / "truth" / f"{sample.stem}.json").read_text())["duration_s"]
    body = bytearray(sample.read_bytes())
    assert body[:4] == b"fLaC"
    packed = int.from_bytes(body[18:26], "big")  # the last 36 bits count the samples
    samples = packed & (1 << 36) - 1
    body[18:26] = (packed - samples + samples // part).to_bytes(8, "big")
    found = length_of(s3, "calls/a.flac", bytes(body))
    assert found.expected_s >= truth_s * 0.3
    assert found.most_s >= truth_s


@pytest.mark.parametrize("part", [300, 30])
def test_m4a_header_that_states_too_little_is_not_believed(s3: Store, part: int) -> None:
    sample = next(SAMPLES.glob("audio/**/*.m4a"))
    truth_s = json.loads((SAMPLES / "truth" / f"{sample.stem}.json").read_text())["duration_s"]
    body = bytearray(sample.read_bytes())
    for box in (b"mvhd", b"mdhd"):
        place = body.index(box) + 20
        (duration,) = struct.unpack_from(">I", body, place)
        struct.pack_into(">I", body, place, duration // part)
    found = length_of(s3, "calls/a.m4a", bytes(body))
    assert found.expected_s >= truth_s * 0.3
    assert found.most_s >= truth_s


def test_mp3_whose_header_is_of_its_first_part_is_not_believed(s3: Store) -> None:
    """Two files, one after the other: a Xing header counts the frames of the first."""
    sample = next(SAMPLES.glob("audio/**/*.mp3"))
    truth_s = json.loads((SAMPLES / "truth" / f"{sample.stem}.json").read_text())["duration_s"]
    found = length_of(s3, "calls/a.mp3", sample.read_bytes() * 8)
    assert found.expected_s >= 8 * truth_s * 0.9
    assert found.most_s >= 8 * truth_s


def test_most_that_a_recording_can_last_follows_from_its_size(s3: Store) -> None:
    found = length_of(s3, "calls/a.ogg", b"no header " * 1000)
    assert found == Length(10_000 / FALLBACK_BYTES_PER_SECOND, 10_000 / DENSEST_BYTES_PER_SECOND)
    sample = next(SAMPLES.glob("audio/**/*.mp3")).read_bytes()
    assert length_of(s3, "calls/a.mp3", sample).most_s == len(sample) / DENSEST_BYTES_PER_SECOND
