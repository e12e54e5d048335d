"""Tags of audio files of every container that has them, as other programs write them."""

from __future__ import annotations

import io

import av
import pytest

from callphases.sources.audio_tags import audio_tag
from callphases.state.bucket import RecordingBucket
from doubles import Store

AT = "2026-11-20T08:30:00Z"
FORMATS = {"a.mp3": ("mp3", "mp3"), "a.flac": ("flac", "flac"), "a.ogg": ("ogg", "libopus"), "a.m4a": ("ipod", "aac")}
FORMATS |= {"a.wav": ("wav", "pcm_s16le")}


def encoded(name: str, seconds: int = 1, **tags: str) -> bytes:
    """Silence with tags, by FFmpeg."""
    format_, codec = FORMATS[name]
    body = io.BytesIO()
    with av.open(body, "w", format=format_) as container:
        container.metadata.update(tags)
        stream = container.add_stream(codec, rate=48_000 if codec == "libopus" else 16_000, layout="mono")
        frame = av.AudioFrame(format="s16", layout="mono", samples=stream.rate * seconds)
        frame.sample_rate = stream.rate
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return body.getvalue()


def read(s3: Store, body: bytes, name: str) -> str | None:
    s3.put("calls/a", body)
    return audio_tag(RecordingBucket(s3.client, s3.recordings), "calls/a", len(body), name)


@pytest.mark.integration
@pytest.mark.parametrize("name", FORMATS)
def test_date_is_read_with_its_time_from_every_container(s3: Store, name: str) -> None:
    body = encoded(name, date=AT, comment="queue=sales")
    assert read(s3, body, "date") == AT
    assert read(s3, body, "Comment") == "queue=sales"
    assert read(s3, body, "bext") is None
    assert read(s3, encoded(name), "date") is None


@pytest.mark.integration
@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg"])
def test_tag_of_ones_own_is_read_by_its_name(s3: Store, name: str) -> None:
    assert read(s3, encoded(name, call_start=AT), "Call_Start") == AT


def bext(date: bytes, time: bytes) -> bytes:
    """A Broadcast WAV's chunk: EBU Tech 3285."""
    content = (
        b"call".ljust(256, b"\0") + b"PBX".ljust(32, b"\0") + b"1".ljust(32, b"\0") + date + time + bytes(8 + 2 + 254)
    )
    return b"bext" + len(content).to_bytes(4, "little") + content


@pytest.mark.integration
@pytest.mark.parametrize(
    ("date", "time", "read_as"),
    [
        (b"2026-11-20", b"08:30:05", "2026-11-20T08:30:05"),
        (b"2026:11:20", b"08-30-05", "2026-11-20T08:30:05"),
        (b"\0" * 10, b"\0" * 8, None),
        (b"20.11.2026", b"08:30:05", None),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_origination_of_a_broadcast_wav_is_read(
    s3: Store, date: bytes, time: bytes, read_as: str | None, is_first: bool
) -> None:
    plain = encoded("a.wav", seconds=30)
    chunk = bext(date, time)
    body = plain[:12] + chunk + plain[12:] if is_first else plain + chunk
    assert read(s3, body, "bext") == read_as
    assert s3.counted()["GetObject"] <= 2


@pytest.mark.integration
@pytest.mark.parametrize("body", [b"no audio at all", b"RIFF\x04\0\0\0AVI "])
def test_file_that_is_no_audio_is_told_from_one_without_the_tag(s3: Store, body: bytes) -> None:
    assert read(s3, body, "bext") is None
    with pytest.raises(OSError, match="its tags can't be read"):
        read(s3, body, "date")
