"""Lengths of files of many formats, whole, cut, joined and with wrong headers, against what FFmpeg decodes."""

from __future__ import annotations

import io
import random
import struct
from dataclasses import dataclass
from functools import cache

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callphases.limits.audio_files import audio_in
from media import FLAC, FRAGMENTED, M4A, MKV, MP3, OPUS, WAV, WEBM, Kind, Waves, encoded, wav

VBR = {"global_quality": str(5 * 118), "flags": "+qscale"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "10000000"}
KINDS = {
    "wav": WAV,
    "wav-mulaw": Kind("wav", "pcm_mulaw", 8_000),
    "wav-alaw": Kind("wav", "pcm_alaw", 8_000),
    "wav-ima": Kind("wav", "adpcm_ima_wav", 8_000),
    "wav-ms": Kind("wav", "adpcm_ms", 8_000),
    "wav-g726": Kind("wav", "g726", 8_000),
    "wav-mp3": Kind("wav", "libmp3lame", 16_000),
    "w64": Kind("w64", "pcm_s16le", 8_000),
    "aiff": Kind("aiff", "pcm_s16be", 8_000),
    "au": Kind("au", "pcm_s16be", 8_000),
    "caf": Kind("caf", "pcm_s16le", 8_000),
    "mp3": MP3,
    "mp3-bare": Kind("mp3", "libmp3lame", 16_000, {"write_xing": "0"}),
    "mp3-8k": Kind("mp3", "libmp3lame", 8_000, {"write_xing": "0"}),
    "mp3-vbr": Kind("mp3", "libmp3lame", 44_100, {}, VBR),
    "mp3-vbr-bare": Kind("mp3", "libmp3lame", 44_100, {"write_xing": "0"}, VBR),
    "mp2": Kind("mp2", "mp2", 44_100),
    "adts": Kind("adts", "aac", 44_100),
    "opus": OPUS,
    "opus-dtx": Kind("ogg", "libopus", 48_000, {}, {"dtx": "1", "application": "voip"}),
    "ogg-flac": Kind("ogg", "flac", 16_000),
    "flac": FLAC,
    "m4a": M4A,
    "m4a-moov-last": Kind("mp4", "aac", 44_100),
    "m4a-alac": Kind("mp4", "alac", 44_100),
    "3gp": Kind("3gp", "aac", 44_100),
    "mp4-fragments": FRAGMENTED,
    "mp4-long-fragments": Kind("mp4", "aac", 44_100, FRAGMENTS),
    "webm": WEBM,
    "webm-live": Kind("webm", "libopus", 48_000, {"live": "1"}),
    "mkv": MKV,
}
JOINED_ARE_MEASURED = ("wav", "mp3", "mp3-bare", "mp3-vbr", "opus", "m4a", "webm", "mkv", "adts")


@dataclass
class File:
    body: bytes
    reads: int = 0

    @property
    def size(self) -> int:
        return len(self.body)

    def read(self, start: int, length: int) -> bytes:
        self.reads += 1
        return self.body[start : start + length]


def seconds_of(body: bytes) -> float:
    found = audio_in(File(body))
    assert found is not None
    return found.seconds


def decoded_s(body: bytes) -> float:
    total = 0.0
    with av.open(io.BytesIO(body)) as container:
        try:
            for frame in container.decode(audio=0):
                total += frame.samples / frame.sample_rate
        except av.FFmpegError:
            pass  # the last packet is cut
    return total


def speech(seconds: float, rate_hz: int) -> Waves:
    """Sound and silence in turns, so that variable bit rates vary."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(1).standard_normal(len(time_s))
    waves = (np.sin(0.8 * time_s) > 0.2) * (0.3 * np.sin(2 * np.pi * 220 * time_s) + 0.02 * noise)
    return waves[np.newaxis]


@cache
def file_of(kind: str, seconds: float) -> bytes:
    return encoded(KINDS[kind], speech(seconds, KINDS[kind].rate_hz))


def close(seconds: float) -> object:
    return pytest.approx(seconds, rel=0.01, abs=0.15)


@pytest.mark.parametrize("seconds", [0.1, 2.0, 61.7])
@pytest.mark.parametrize("kind", KINDS)
def test_length_is_that_of_the_decoded_audio(kind: str, seconds: float) -> None:
    body = file_of(kind, seconds)
    assert seconds_of(body) == close(decoded_s(body))


@pytest.mark.parametrize("kind", KINDS)
def test_length_of_a_cut_file_is_what_is_left(kind: str) -> None:
    body = file_of(kind, 61.7)
    body = body[: len(body) * 6 // 10]
    try:
        left_s = decoded_s(body)
    except av.FFmpegError:
        left_s = 0.0
    assert seconds_of(body) == pytest.approx(left_s, rel=0.03, abs=3)


@pytest.mark.parametrize("times", [2, 5])
@pytest.mark.parametrize("kind", JOINED_ARE_MEASURED)
def test_files_one_after_the_other_are_measured_together(kind: str, times: int) -> None:
    body = file_of(kind, 61.7)
    assert seconds_of(body * times) == pytest.approx(61.7 * times, rel=0.03)


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_video_counts_as_its_sound(kind: str) -> None:
    rate_hz, codec = {"mp4": (44_100, "aac"), "webm": (48_000, "libopus")}[kind]
    body = encoded(Kind(kind, codec, rate_hz), speech(20, rate_hz), video_s=20)
    assert seconds_of(body) == close(20)


@pytest.mark.parametrize("stated", [0, 160, 160_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_header_with_a_wrong_size_is_not_believed(stated: int) -> None:
    assert seconds_of(wav([1] * 480_000, stated)) == close(60)


def test_chunks_after_the_audio_are_none() -> None:
    body = wav([1] * 480_000, after=b"LIST" + struct.pack("<I", 90_000) + b"x" * 90_000)
    assert seconds_of(body) == close(60)


@pytest.mark.parametrize("size", [0, 65_536, 500_000])
def test_tags_around_an_mp3_are_not_counted(size: int) -> None:
    body = file_of("mp3-bare", 30)
    sign = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    assert seconds_of(b"ID3\x04\0\0" + sign + bytes(size) + body + b"TAG" + bytes(125)) == close(30)


@pytest.mark.parametrize(
    "body",
    [b"", b"RIFF", b"not audio " * 400, bytes(50_000), b"\xff" * 50_000, random.Random(1).randbytes(50_000)],
    ids=["empty", "magic", "text", "zeros", "ones", "random"],
)
def test_what_is_no_audio_is_not_measured(body: bytes) -> None:
    assert audio_in(File(body)) is None


def test_mp4_without_its_index_can_not_be_decoded() -> None:
    body = file_of("m4a-moov-last", 10)
    found = audio_in(File(body[: len(body) // 2]))
    assert found is not None
    assert found.seconds == 0


def test_channels_are_counted() -> None:
    for kind in ("wav", "mp3", "opus", "flac", "m4a", "webm"):
        waves = np.repeat(speech(5, KINDS[kind].rate_hz), 2, axis=0)
        found = audio_in(File(encoded(KINDS[kind], waves)))
        assert found is not None
        assert found.channels == 2, kind


@pytest.mark.parametrize("kind", KINDS)
def test_few_stretches_of_a_file_are_read(kind: str) -> None:
    body = file_of(kind, 61.7)
    file = File(body)
    audio_in(file)
    assert file.reads <= 80, "boxes of a few bytes each, which a cache of stretches holds"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["wav", "mp3", "opus", "flac", "m4a", "mp4-fragments", "webm", "caf", "aiff"]), st.randoms())
def test_damaged_files_raise_nothing(kind: str, chance: random.Random) -> None:
    body = bytearray(file_of(kind, 2))
    for _ in range(chance.randrange(1, 40)):
        body[chance.randrange(len(body))] = chance.randrange(256)
    found = audio_in(File(bytes(body[: chance.randrange(len(body))])))
    assert found is None or found.seconds >= 0
