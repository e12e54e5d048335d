"""Recordings that browsers don't play: converted into WAV at their own rate, as far as they decode, within limits."""

from __future__ import annotations

import io
import random
import struct
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import media
from callphases.pages import conversion
from callphases.pages.audio import Asked, Stream, Unavailable, audio_of
from callphases.pages.conversion import NotConvertible, convert, write_wav
from callphases.pages.wav_cache import WavCache
from callphases.state.bucket import RecordingBucket
from doubles import Store, Web
from media import Kind

MULAW = Kind("wav", "pcm_mulaw", 8000)


def encoded(kind: Kind, seconds: float = 2, channels: int = 1) -> bytes:
    tones = [media.tone(300 * (number + 1), seconds, kind.rate_hz) for number in range(channels)]
    return media.encoded(kind, np.concatenate(tones))


def loudest_hz(content: bytes) -> list[int]:
    """The loudest tone of each channel of a WAV file of 16 bits."""
    with wave.open(io.BytesIO(content)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").reshape(-1, sound.getnchannels())
        rate_hz = sound.getframerate()
    return [round(np.abs(np.fft.rfft(one)).argmax() * rate_hz / len(one)) for one in samples.T]


def gsm_wav(blocks: int) -> bytes:
    """GSM 6.10 as Windows and telephone exchanges write it: blocks of 65 bytes, 320 samples each, at 8 kHz."""
    audio = random.Random(0).randbytes(65 * blocks)
    form = struct.pack("<HHIIHHHH", 0x31, 1, 8000, 1625, 65, 0, 2, 320)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"fact" + struct.pack("<II", 4, 320 * blocks)
    body += b"data" + struct.pack("<I", len(audio)) + audio + bytes(len(audio) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def converted(content: bytes, folder: Path, demuxer: str | None = None, **options: str) -> bytes:
    source, target = folder / "source", folder / "target.wav"
    source.write_bytes(content)
    write_wav(source, target, demuxer, options)
    return target.read_bytes()


def shape(content: bytes) -> tuple[int, int, int, float]:
    """Channels, bytes of a sample, samples per second, seconds."""
    with wave.open(io.BytesIO(content)) as sound:
        return *sound.getparams()[:3], sound.getnframes() / sound.getframerate()


@pytest.mark.parametrize(
    "kind",
    [
        *media.NOT_PLAYED,
        Kind("wav", "pcm_f32le", 48_000),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_rate_channels_and_sound_are_kept(kind: Kind, channels: int, tmp_path: Path) -> None:
    if kind.codec == "libopencore_amrnb" and channels == 2:
        pytest.skip("AMR has one channel")
    content = converted(encoded(kind, channels=channels), tmp_path)
    assert shape(content) == (channels, 2, kind.rate_hz, pytest.approx(2, abs=0.15))
    assert loudest_hz(content) == pytest.approx([300, 600][:channels], abs=2)


def test_gsm_in_wav_has_all_its_blocks(tmp_path: Path) -> None:
    assert shape(converted(gsm_wav(100), tmp_path)) == (1, 2, 8000, 4.0)


def test_bare_mulaw_is_read_as_what_it_is(tmp_path: Path) -> None:
    content = converted(encoded(Kind("mulaw", "pcm_mulaw", 8000)), tmp_path, "mulaw", sample_rate="8000")
    assert shape(content) == (1, 2, 8000, 2.0)
    assert loudest_hz(content) == [300]


def test_length_that_a_header_understates_is_ignored(tmp_path: Path) -> None:
    content = media.wav(np.arange(16_000, dtype=np.int16), size=2000)
    assert shape(converted(content, tmp_path, "wav", ignore_length="1"))[3] == 2.0
    assert shape(converted(content, tmp_path, "wav"))[3] == 0.125


@pytest.mark.parametrize("kind", [MULAW, Kind("amr", "libopencore_amrnb", 8000), media.MKV, Kind("adts", "aac")])
def test_damaged_recording_plays_as_far_as_it_decodes(kind: Kind, tmp_path: Path) -> None:
    whole = encoded(kind, 20)
    assert shape(converted(whole[: len(whole) // 2], tmp_path))[3] == pytest.approx(10, abs=1)
    seconds = shape(converted(media.overwritten(whole, 0.5, 0.05), tmp_path))[3]
    assert 15 < seconds <= 20.1


@pytest.mark.parametrize(
    "content",
    [
        b"not audio at all" * 500,
        random.Random(1).randbytes(5000),
        bytes(3000),
        b"x",
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x07\0\x01\0",
        encoded(Kind("mp4", "aac", 44_100))[:2000],  # without the header at its end
    ],
)
def test_what_is_no_audio_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(NotConvertible):
        converted(content, tmp_path)


def test_picture_is_refused(tmp_path: Path) -> None:
    content = media.encoded(media.WEBM, video_s=1)
    with pytest.raises(NotConvertible, match="no audio"):
        converted(content, tmp_path)


@pytest.mark.parametrize("playlist", ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
                                      "ffconcat version 1.0\nfile '{}'\n"])  # fmt: skip
def test_list_of_other_files_opens_none_of_them(playlist: str, web: Web, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(encoded(MULAW))
    for place in (f"{web.url}/a.ts", str(tmp_path / "secret.wav"), "secret.wav"):
        with pytest.raises(NotConvertible):
            converted(playlist.format(place).encode(), tmp_path)
    assert not web.requests


@pytest.mark.parametrize(("limit", "value"), [("MOST_S", 1), ("MOST_WAV_BYTES", 20_000)])
def test_recording_over_a_limit_is_refused(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, limit, value)
    with pytest.raises(NotConvertible, match="longer than what is converted"):
        converted(encoded(MULAW), tmp_path)


def test_process_of_its_own_does_the_same_and_knows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (tmp_path / "source").write_bytes(encoded(MULAW, channels=2))
    convert(tmp_path / "source", tmp_path / "target.wav", None, {})
    assert shape((tmp_path / "target.wav").read_bytes()) == (2, 2, 8000, 2.0)
    seen: dict[str, str] = {}
    real = conversion.subprocess.run

    def run(*arguments: object, env: dict[str, str], **more: object) -> object:
        seen.update(env)
        return real(*arguments, env=env, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(conversion.subprocess, "run", run)
    (tmp_path / "source").write_bytes(b"no audio")
    with pytest.raises(NotConvertible, match="FFmpeg"):
        convert(tmp_path / "source", tmp_path / "target.wav", None, {})
    assert "secret" not in seen.values()
    with pytest.raises(OSError, match="directory"):
        convert(tmp_path / "source", tmp_path / "gone" / "target.wav", "mulaw", {"sample_rate": "8000"})


def test_process_that_dies_or_takes_too_long_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(encoded(MULAW))
    monkeypatch.setattr(conversion, "TIMEOUT_S", 0)
    with pytest.raises(NotConvertible, match="takes longer"):
        convert(tmp_path / "source", tmp_path / "target.wav", None, {})
    monkeypatch.setattr(conversion, "TIMEOUT_S", 60)
    monkeypatch.setattr(conversion.sys, "executable", "/bin/false")
    with pytest.raises(NotConvertible, match="without a result"):
        convert(tmp_path / "source", tmp_path / "target.wav", None, {})


@pytest.fixture
def bucket(s3: Store) -> RecordingBucket:
    return RecordingBucket(s3.client, s3.recordings)


@pytest.fixture
def cache(tmp_path: Path) -> WavCache:
    return WavCache(tmp_path / "kept")


@pytest.mark.integration
@pytest.mark.parametrize("how", ["redirect", "stream"])
def test_converted_recording_is_served_in_ranges(s3: Store, bucket: RecordingBucket, cache: WavCache, how: str) -> None:
    recording = s3.put("a.mp3", encoded(MULAW))
    answer = audio_of(bucket, recording.key, recording.etag, how, Asked(), cache=cache)  # type: ignore[arg-type]
    assert isinstance(answer, Stream)
    whole = b"".join(answer.body)
    assert shape(whole) == (1, 2, 8000, 2.0)
    assert answer.headers["Content-Type"] == "audio/wav"
    assert answer.headers["ETag"] == f'"{recording.etag}-wav"'
    s3.asked.clear()
    asked = Asked("bytes=16000-16099", answer.headers["ETag"])
    part = audio_of(bucket, recording.key, recording.etag, how, asked, cache=cache)  # type: ignore[arg-type]
    assert isinstance(part, Stream)
    assert (part.status, b"".join(part.body)) == (206, whole[16_000:16_100])
    assert part.headers["Content-Range"] == f"bytes 16000-16099/{len(whole)}"
    assert len(s3.asked) == 1, "its head, which says that it is still there"


@pytest.mark.integration
def test_listeners_at_once_read_the_recording_once(s3: Store, bucket: RecordingBucket, cache: WavCache) -> None:
    recording = s3.put("a.wav", encoded(MULAW))

    s3.asked.clear()

    def listen(_: int) -> bytes:
        answer = audio_of(bucket, recording.key, recording.etag, "stream", Asked(), cache=cache)
        assert isinstance(answer, Stream)
        return b"".join(answer.body)

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(listen, range(6)))) == 1
    assert len(s3.asked) == 6 + 1, "each looks at its head, and one reads it"


@pytest.mark.integration
def test_replaced_recording_is_converted_again(s3: Store, bucket: RecordingBucket, cache: WavCache) -> None:
    first = s3.put("a.wav", encoded(MULAW, 1))
    lengths = []
    for content in (encoded(MULAW, 1), encoded(MULAW, 3)):
        s3.put("a.wav", content)
        answer = audio_of(bucket, "a.wav", first.etag, "stream", Asked(), cache=cache)
        assert isinstance(answer, Stream)
        lengths.append((shape(b"".join(answer.body))[3], answer.is_other_version))
    assert lengths == [(1.0, False), (3.0, True)]


@pytest.mark.integration
def test_recording_that_cannot_be_converted_says_why(
    s3: Store, bucket: RecordingBucket, cache: WavCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = s3.put("a.wav", b"no audio" * 100)

    def told() -> Unavailable:
        answer = audio_of(bucket, recording.key, recording.etag, "redirect", Asked(), cache=cache)
        assert isinstance(answer, Unavailable)
        return answer

    assert told().status == 415
    assert "can't be converted" in told().message
    monkeypatch.setattr(conversion, "MOST_SOURCE_BYTES", 100)
    assert told().status == 413
    monkeypatch.setattr(conversion, "is_possible", lambda: False)
    assert told().status == 501
    assert "callphases[audio]" in told().message


@pytest.mark.integration
def test_full_disk_and_a_busy_server_are_said(
    s3: Store, bucket: RecordingBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = s3.put("a.wav", encoded(MULAW))
    (tmp_path / "kept").write_bytes(b"")
    answer = audio_of(bucket, recording.key, recording.etag, "stream", Asked(), cache=WavCache(tmp_path / "kept"))
    assert isinstance(answer, Unavailable)
    assert (answer.status, "TMPDIR" in answer.message) == (503, True)
    busy = WavCache(tmp_path / "other", at_once=0, wait_s=0.01)
    answer = audio_of(bucket, recording.key, recording.etag, "stream", Asked(), cache=busy)
    assert isinstance(answer, Unavailable)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "10")


@pytest.mark.integration
def test_recording_that_goes_while_it_is_converted_is_said_to_be_gone(
    s3: Store, bucket: RecordingBucket, cache: WavCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = s3.put("a.wav", encoded(MULAW, 20))
    real = RecordingBucket.opening

    def opening(self: RecordingBucket, key: str, most_bytes: int) -> object:
        found = real(self, key, most_bytes)
        s3.client.delete_object(Bucket=s3.recordings, Key=key)
        return found

    monkeypatch.setattr(RecordingBucket, "opening", opening)
    answer = audio_of(bucket, recording.key, recording.etag, "stream", Asked(), cache=cache)
    assert isinstance(answer, Unavailable)
    assert answer.status == 404
