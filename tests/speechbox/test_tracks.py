"""Tests of the decoder: damaged files of all common kinds, changes of the format, pauses, and what files state."""

from __future__ import annotations

import functools
import io
import random
import re
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from media import (
    FLAC,
    FRAGMENTED,
    M4A,
    MKV,
    MP3,
    OPUS,
    WAV,
    WEBM,
    Kind,
    Sound,
    Waves,
    cut_out,
    encoded,
    overwritten,
    tone,
)
from speechbox.audio import Audio, decode
from speechbox.engines import JobError

LENGTH_S = 12.0
BEEP_S = 10.0
KINDS = {
    "mp3": MP3,
    "mp3 of varying rate": Kind("mp3", "libmp3lame", 44_100, encoder={"q": "4"}),
    "mp3 that states nothing": Kind("mp3", "libmp3lame", 44_100, {"write_xing": "0", "id3v2_version": "0"}),
    "opus": OPUS,
    "ogg flac": Kind("ogg", "flac"),
    "flac": FLAC,
    "m4a": M4A,
    "fragmented mp4": FRAGMENTED,
    "alac": Kind("mp4", "alac"),
    "webm": WEBM,
    "mkv": MKV,
    "pcm mkv": Kind("matroska", "pcm_s16le", 8_000, {"cluster_time_limit": "1000"}),
    "adpcm wav": Kind("wav", "adpcm_ms", 8_000),
    "ima adpcm wav": Kind("wav", "adpcm_ima_wav", 8_000),
    "pcm wav": WAV,
    "µ-law wav": Kind("wav", "pcm_mulaw", 8_000),
    "g722 wav": Kind("wav", "g722"),
    "w64": Kind("w64", "pcm_s16le", 8_000),
    "aiff": Kind("aiff", "pcm_s16be", 8_000),
    "caf": Kind("caf", "pcm_s16le", 8_000),
    "au": Kind("au", "pcm_mulaw", 8_000),
    "aac": Kind("adts", "aac", 44_100),
    "ac3": Kind("ac3", "ac3", 44_100),
    "amr": Kind("amr", "libopencore_amrnb", 8_000),
    "3gp": Kind("3gp", "libopencore_amrnb", 8_000, {"movflags": "faststart"}),
    "transport stream": Kind("mpegts", "aac", 44_100),
    "wma": Kind("asf", "wmav2", 44_100, encoder={"b": "64000"}),
}
UNCOMPRESSED = ("pcm wav", "µ-law wav", "g722 wav", "w64", "aiff", "caf", "au")
#: Kinds in which the length of a damaged stretch is not known: FFmpeg drops it, or takes it for other frames.
UNTIMED = ("aac", "amr", "3gp")


def with_beep(rate_hz: int) -> Waves:
    """Quiet noise with a loud second at the end, which shows whether the times are right."""
    samples = np.random.default_rng(0).normal(0, 0.01, (1, int(LENGTH_S * rate_hz)))
    beep = tone(700, 1, rate_hz, level=0.6)
    start = int(BEEP_S * rate_hz)
    samples[:, start : start + beep.shape[1]] += beep
    return samples


@functools.cache
def whole(name: str) -> bytes:
    return encoded(KINDS[name], with_beep(KINDS[name].rate_hz))


def beep_at_s(audio: Audio) -> float:
    """When the last loud stretch starts; random bytes may be loud too."""
    levels = np.sqrt(np.square(audio.samples[0, : audio.samples.shape[1] // 160 * 160].reshape(-1, 160)).mean(axis=1))
    loud = np.convolve(levels > 0.2, np.ones(80), "valid") > 70
    return float(np.flatnonzero(loud)[-1] - 20) / 100


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[[bytes], Audio]:
    def decode_bytes(content: bytes) -> Audio:
        path = tmp_path / "recording"
        path.write_bytes(content)
        return decode(path)

    return decode_bytes


# Whole and damaged files


@pytest.mark.parametrize("name", KINDS)
def test_whole_file_is_decoded_without_a_warning(decoded, name: str) -> None:
    audio = decoded(whole(name))
    assert audio.duration_s == pytest.approx(LENGTH_S, abs=0.25), "codecs fill their last block"
    assert beep_at_s(audio) == pytest.approx(BEEP_S, abs=0.15)
    assert (audio.channels, audio.warnings) == (1, ())


@pytest.mark.parametrize("fill", [random.Random(1).randbytes, bytes, lambda size: b"\xff" * size])
@pytest.mark.parametrize("name", [name for name in KINDS if name not in UNTIMED])
def test_damaged_stretch_is_skipped_and_the_rest_keeps_its_time(decoded, name: str, fill) -> None:
    for start, length in ((0.3, 300 / len(whole(name))), (0.25, 0.1)):
        audio = decoded(overwritten(whole(name), start, length, fill))
        assert audio.duration_s == pytest.approx(LENGTH_S, abs=0.25)
        assert beep_at_s(audio) == pytest.approx(BEEP_S, abs=0.2)
        if length == 0.1 and name in UNCOMPRESSED:
            assert audio.warnings == ()  # it is noise


@pytest.mark.parametrize("name", [name for name in KINDS if name not in (*UNTIMED, *UNCOMPRESSED)])
def test_warning_says_how_much_could_be_decoded(decoded, name: str) -> None:
    (warning,) = decoded(overwritten(whole(name), 0.25, 0.1, lambda size: b"\xff" * size)).warnings
    said = re.fullmatch(
        r"decoded ([\d.]+) s of (?:([\d.]+) s stated|about ([\d.]+) s): the recording is damaged or incomplete", warning
    )
    stated_s = float(said[2] or said[3])
    assert stated_s == pytest.approx(LENGTH_S, abs=0.25)
    assert 0.6 * stated_s < float(said[1]) < 0.95 * stated_s


@pytest.mark.parametrize("name", UNTIMED)
def test_damage_of_unknown_length_is_skipped(decoded, name: str) -> None:
    audio = decoded(overwritten(whole(name), 0.25, 0.1))
    assert audio.duration_s == pytest.approx(LENGTH_S, rel=0.12)
    assert beep_at_s(audio) == pytest.approx(BEEP_S, rel=0.12)


@pytest.mark.parametrize("name", ["mp3", "flac", "webm", "mkv", "adpcm wav", "pcm wav", "µ-law wav", "aiff", "au"])
def test_truncated_file_is_decoded_to_its_end_with_a_warning(decoded, name: str) -> None:
    audio = decoded(whole(name)[: len(whole(name)) * 6 // 10])
    assert audio.duration_s == pytest.approx(0.6 * LENGTH_S, abs=0.6), "no silence at the end"
    (warning,) = audio.warnings
    assert warning.startswith(f"decoded {audio.duration_s:.1f} s of 12.")


@pytest.mark.parametrize("name", ["opus", "mp3 that states nothing", "aac", "ac3", "transport stream"])
def test_truncated_file_that_states_no_length_has_no_warning(decoded, name: str) -> None:
    audio = decoded(whole(name)[: len(whole(name)) * 6 // 10])
    assert audio.duration_s == pytest.approx(0.6 * LENGTH_S, abs=0.6)
    assert audio.warnings == ()


@pytest.mark.parametrize("name", ["mp3", "opus", "webm", "flac", "transport stream", "fragmented mp4"])
def test_file_that_lacks_a_stretch_is_decoded_to_its_end(decoded, name: str) -> None:
    audio = decoded(cut_out(whole(name), 0.25, 0.1))
    assert 0.85 * LENGTH_S < audio.duration_s < 1.02 * LENGTH_S
    assert audio.duration_s - beep_at_s(audio) == pytest.approx(LENGTH_S - BEEP_S, abs=0.2)
    assert len(audio.warnings) == 1


@pytest.mark.parametrize("stretches", [2, 5])
def test_several_damaged_stretches_are_skipped(decoded, stretches: int) -> None:
    content = whole("mp3")
    for number in range(stretches):
        content = overwritten(content, 0.1 + 0.12 * number, 0.05, random.Random(number).randbytes)
    audio = decoded(content)
    assert audio.duration_s == pytest.approx(LENGTH_S, abs=0.2)
    assert beep_at_s(audio) == pytest.approx(BEEP_S, abs=0.2)


def test_one_bad_packet_of_many_gives_no_warning(decoded) -> None:
    long = encoded(MP3, np.concatenate([with_beep(MP3.rate_hz)] * 5, axis=1))
    audio = decoded(overwritten(long, 0.25, 300 / len(long)))
    assert audio.duration_s == pytest.approx(5 * LENGTH_S, abs=0.1)
    assert audio.warnings == ()


def test_file_of_which_nothing_can_be_decoded_is_an_error(decoded) -> None:
    with pytest.raises(JobError, match=r"Transcoding failed\. File type application/octet-stream"):
        decoded(overwritten(whole("m4a"), (whole("m4a").index(b"mdat") + 4) / len(whole("m4a")), 1))


def test_lost_part_never_becomes_more_silence_than_there_is_sound(decoded) -> None:
    audio = decoded(overwritten(whole("webm"), 0.1, 0.8))
    assert audio.duration_s < 0.5 * LENGTH_S
    assert len(audio.warnings) == 1


# Changes of the format


def joined(first: Kind, second: Kind, channels: tuple[int, int] = (1, 1)) -> bytes:
    """Two files in a row: 4 s, then 3 s that end with a beep of a second."""
    noise = np.random.default_rng(0).normal(0, 0.01, (1, 4 * max(first.rate_hz, second.rate_hz)))
    one = noise[:, : 4 * first.rate_hz]
    two = np.concatenate([noise[:, : 2 * second.rate_hz], tone(700, 1, second.rate_hz, level=0.6)], axis=1)
    return b"".join(
        encoded(kind, np.repeat(waves, count, axis=0))
        for kind, waves, count in zip((first, second), (one, two), channels, strict=True)
    )


BARE = {"write_xing": "0", "id3v2_version": "0"}


@pytest.mark.parametrize("channels", [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (MP3, MP3),
        (Kind("mp3", "libmp3lame", 44_100, BARE), Kind("mp3", "libmp3lame", 8_000, BARE)),
        (Kind("mp3", "libmp3lame", 8_000), Kind("mp3", "libmp3lame", 48_000)),
        (OPUS, OPUS),
        (Kind("ogg", "flac"), Kind("ogg", "flac", 8_000)),
        (OPUS, Kind("ogg", "flac", 8_000)),
        (FLAC, Kind("flac", "flac", 44_100)),
        (M4A, Kind("mp4", "aac", 16_000)),
        (FRAGMENTED, FRAGMENTED),
        (WEBM, WEBM),
        (MKV, Kind("matroska", "aac", 16_000)),
        (WAV, Kind("wav", "pcm_s16le", 44_100)),
        (WAV, Kind("wav", "pcm_mulaw", 8_000)),
        (Kind("adts", "aac", 44_100), Kind("adts", "aac", 16_000)),
        (Kind("mpegts", "aac", 44_100), Kind("mpegts", "aac", 16_000)),
        (Kind("ac3", "ac3", 44_100), Kind("ac3", "ac3", 48_000)),
    ],
    ids=lambda kind: f"{kind.codec} {kind.rate_hz} {kind.format}",
)
def test_files_in_a_row_are_one_recording(decoded, first: Kind, second: Kind, channels: tuple[int, int]) -> None:
    audio = decoded(joined(first, second, channels))
    assert audio.duration_s == pytest.approx(7, abs=0.3)
    assert beep_at_s(audio) == pytest.approx(6, abs=0.3)
    assert (audio.channels, audio.warnings) == (max(channels), ())


def test_mono_part_of_a_stereo_recording_is_in_both_channels(decoded) -> None:
    mono, stereo = tone(440, 4, 8_000), np.concatenate([tone(440, 4, 8_000), np.zeros((1, 32_000))])
    audio = decoded(encoded(WAV, mono) + encoded(WAV, stereo))
    levels = np.sqrt(np.square(audio.samples.reshape(2, 2, -1)).mean(axis=2))
    assert levels == pytest.approx(np.array([[0.212, 0.212], [0.212, 0]]), abs=0.01)


def test_tag_with_a_picture_between_two_mp3s_is_no_audio(decoded) -> None:
    picture = b"APIC\0\1\x86\xa0\0\0" + random.Random(0).randbytes(100_000)
    size = len(picture)
    tag = b"ID3\3\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + picture
    bare = encoded(Kind("mp3", "libmp3lame", 16_000, BARE), with_beep(16_000))
    for content in (bare + tag + bare, tag + bare + tag + bare, tag + tag + bare + bare):
        audio = decoded(content)
        assert audio.duration_s == pytest.approx(2 * LENGTH_S, abs=0.3)
        assert beep_at_s(audio) == pytest.approx(LENGTH_S + BEEP_S, abs=0.3)
        assert audio.warnings == ()


def test_frames_that_look_like_many_channels_add_none(decoded) -> None:
    # Without the first file's header FFmpeg takes AAC of another rate for frames of up to 64 channels.
    other = encoded(Kind("matroska", "aac", 16_000), with_beep(16_000))
    headless = other[other.index(b"\x1f\x43\xb6\x75") :]  # from its first cluster
    audio = decoded(encoded(MKV, with_beep(44_100)) + headless)
    assert audio.channels == 1
    assert audio.duration_s >= LENGTH_S - 0.1


def test_recording_with_many_channels_is_decoded(decoded) -> None:
    samples = np.stack([tone(300 + 50 * channel, 2, 8_000)[0] for channel in range(20)])
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes((samples.T * 32767).astype("<i2").tobytes())
    audio = decoded(buffer.getvalue())
    spectra = np.abs(np.fft.rfft(audio.samples[:, :16_000]))
    assert np.argmax(spectra, axis=1).tolist() == [300 + 50 * channel for channel in range(20)]


# Pauses, and lengths that files state


@pytest.mark.parametrize("kind", [M4A, MKV, WEBM, Kind("matroska", "pcm_s16le", 8_000)])
def test_pause_that_the_file_states_becomes_silence(decoded, kind: Kind) -> None:
    audio = decoded(encoded(kind, Sound(with_beep(kind.rate_hz), pause=(5, 3))))
    assert audio.duration_s == pytest.approx(LENGTH_S + 3, abs=0.15)
    assert beep_at_s(audio) == pytest.approx(BEEP_S + 3, abs=0.15)
    assert audio.warnings == ()


@pytest.mark.parametrize("kind", [M4A, MKV, WEBM])
def test_jump_of_the_clock_does_not_become_silence(decoded, kind: Kind) -> None:
    audio = decoded(encoded(kind, Sound(with_beep(kind.rate_hz), pause=(5, 36_000))))
    assert audio.duration_s == pytest.approx(LENGTH_S, abs=0.15)
    assert beep_at_s(audio) == pytest.approx(BEEP_S, abs=0.15)
    assert audio.warnings == ()


def test_pause_in_a_live_recording_that_states_no_length_does_not_become_silence(decoded) -> None:
    live = Kind("webm", "libopus", 48_000, {"live": "1"})
    assert decoded(encoded(live, Sound(with_beep(48_000), pause=(5, 3)))).duration_s == pytest.approx(LENGTH_S, abs=0.1)


def test_damage_in_a_live_recording_that_states_no_length_becomes_silence(decoded) -> None:
    live = Kind("webm", "libopus", 48_000, {"live": "1", "cluster_time_limit": "1000"})
    audio = decoded(overwritten(encoded(live, with_beep(48_000)), 0.25, 0.1))
    assert audio.duration_s == pytest.approx(LENGTH_S, abs=0.2)
    (warning,) = audio.warnings
    assert "of about 12" in warning


@pytest.mark.parametrize("kind", [M4A, MKV, WEBM])
def test_recording_that_starts_late_has_no_warning(decoded, kind: Kind) -> None:
    audio = decoded(encoded(kind, Sound(with_beep(kind.rate_hz), start_s=5)))
    assert audio.duration_s == pytest.approx(LENGTH_S, abs=0.15)
    assert audio.warnings == ()


@pytest.mark.parametrize("kind", [M4A, MKV, WEBM])
def test_sound_of_a_longer_video_has_no_warning(decoded, kind: Kind) -> None:
    audio = decoded(encoded(kind, with_beep(kind.rate_hz), video_s=20))
    assert audio.duration_s == pytest.approx(LENGTH_S, abs=0.15)
    assert audio.warnings == ()


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100])
@pytest.mark.parametrize("options", [{"q": "0"}, {"q": "9"}, {"b": "32000"}, {"abr": "1", "b": "64000"}])
@pytest.mark.parametrize("muxer", [{}, BARE])
def test_mp3_of_any_bit_rate_has_no_warning(decoded, rate_hz: int, options: dict[str, str], muxer) -> None:
    quiet, noisy = (np.random.default_rng(0).normal(0, level, (1, 5 * rate_hz)) for level in (0.0001, 0.2))
    kind = Kind("mp3", "libmp3lame", rate_hz, muxer, options)
    for sound in (noisy, np.concatenate([noisy, quiet], axis=1), np.concatenate([quiet, noisy], axis=1)):
        audio = decoded(encoded(kind, sound))
        assert audio.duration_s == pytest.approx(sound.shape[1] / rate_hz, abs=0.2)
        assert audio.warnings == ()


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100])
@pytest.mark.parametrize(
    ("format_", "codec"),
    [
        *(("matroska", "aac"), ("matroska", "libmp3lame"), ("asf", "wmav2"), ("mp4", "aac"), ("mp3", "libmp3lame")),
        *(("flac", "flac"), ("mpegts", "mp2"), ("matroska", "pcm_s16le"), ("mov", "pcm_s16le"), ("mp4", "alac")),
    ],
)
def test_short_recording_has_no_warning(decoded, format_: str, codec: str, rate_hz: int) -> None:
    encoder = {"b": "32000"} if codec == "wmav2" else {}
    if codec == "mp2":
        rate_hz = max(rate_hz, 16_000)
    for seconds in (0.25, 0.6, 1.3, 2.7, 7.3):  # of which what the encoder adds is more than 1 %
        noise = np.random.default_rng(0).normal(0, 0.1, (1, int(seconds * rate_hz)))
        assert decoded(encoded(Kind(format_, codec, rate_hz, encoder=encoder), noise)).warnings == ()


def test_samples_have_no_warning() -> None:
    folder = Path(__file__).parents[2] / "include" / "samples" / "audio"
    recordings = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(recordings) > 10
    assert [path.name for path in recordings if decode(path).warnings] == []
