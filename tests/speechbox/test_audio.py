"""Tests of recordings with several audio tracks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from media import M4A, MKV, WEBM, Kind, Sound, Waves, encoded, overwritten, tone
from speechbox.audio import Audio, decode

KINDS = pytest.mark.parametrize(
    "kind",
    [M4A, MKV, WEBM, Kind("matroska", "pcm_s16le", 8_000), Kind("mpegts", "aac", 44_100)],
    ids=lambda k: k.format,
)
LEFT_OUT = "audio tracks that were not transcribed: "


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[..., Audio]:
    def encode_and_decode(kind: Kind, *sounds: Sound | Waves, **more: float) -> Audio:
        path = tmp_path / "recording"
        path.write_bytes(encoded(kind, *sounds, **more))
        return decode(path)

    return encode_and_decode


def agent(kind: Kind) -> Waves:
    return tone(440, 6, kind.rate_hz) * (np.arange(6 * kind.rate_hz) < 3 * kind.rate_hz)


def caller(kind: Kind) -> Waves:
    return tone(700, 6, kind.rate_hz) * (np.arange(6 * kind.rate_hz) >= 3 * kind.rate_hz)


def loud(audio: Audio) -> list[list[bool]]:
    """Whether each channel is loud in each second."""
    seconds = audio.samples[:, : audio.samples.shape[1] // 16_000 * 16_000].reshape(audio.channels, -1, 16_000)
    return (np.sqrt(np.square(seconds[:, :, 1_600:-1_600]).mean(axis=2)) > 0.1).tolist()


@KINDS
def test_tracks_with_one_channel_each_are_the_channels_of_the_call(decoded, kind: Kind) -> None:
    for copies in (1, 2):  # recorders write a microphone to both channels of a track
        audio = decoded(kind, *(np.repeat(waves, copies, axis=0) for waves in (agent(kind), caller(kind))))
        assert loud(audio)[0][:6] == [True] * 3 + [False] * 3
        assert loud(audio)[1][:6] == [False] * 3 + [True] * 3
        assert (audio.channels, audio.warnings) == (2, ())


@KINDS
def test_identical_tracks_are_one(decoded, kind: Kind) -> None:
    audio = decoded(kind, agent(kind), agent(kind))
    assert (audio.channels, audio.warnings) == (1, ())
    assert audio.duration_s == pytest.approx(6, abs=0.15)


@KINDS
def test_silent_track_does_not_count(decoded, kind: Kind) -> None:
    for sounds in ([0 * agent(kind), caller(kind)], [caller(kind), 0 * agent(kind)]):
        audio = decoded(kind, *sounds)
        assert loud(audio) == [[False] * 3 + [True] * 3]
        assert audio.warnings == ()


def test_recording_of_which_all_tracks_are_silent_is_decoded(decoded) -> None:
    audio = decoded(M4A, 0 * agent(M4A), 0 * agent(M4A))
    assert (audio.channels, round(audio.duration_s)) == (1, 6)


@KINDS
def test_tracks_of_different_lengths_are_aligned_by_their_start(decoded, kind: Kind) -> None:
    audio = decoded(kind, agent(kind), Sound(tone(700, 2, kind.rate_hz), start_s=4))
    assert [channel[:6] for channel in loud(audio)] == [[True] * 3 + [False] * 3, [False] * 4 + [True] * 2]


@pytest.mark.parametrize(
    ("default", "chosen", "left_out"), [(0, 440, "2 of 2"), (1, 700, "1 of 2"), (None, 440, "2 of 2")]
)
def test_of_translations_the_default_track_counts(decoded, default: int | None, chosen: int, left_out: str) -> None:
    sounds = [
        Sound(tone(hertz, 4, MKV.rate_hz), language=language, default=None if default is None else default == index)
        for index, (hertz, language) in enumerate([(440, "eng"), (700, "fra")])
    ]
    audio = decoded(MKV, *sounds)
    spectrum = np.abs(np.fft.rfft(audio.samples[0][: 2 * 16_000]))
    assert np.argmax(spectrum) / 2 == pytest.approx(chosen, abs=2)
    assert (audio.channels, audio.warnings) == (1, (LEFT_OUT + left_out,))


def test_tracks_of_the_same_language_are_channels(decoded) -> None:
    sounds = [Sound(waves, language="eng") for waves in (agent(MKV), caller(MKV))]
    assert decoded(MKV, *sounds).channels == 2


@pytest.mark.parametrize("first_is_stereo", [True, False])
def test_of_a_stereo_track_and_others_one_counts(decoded, first_is_stereo: bool) -> None:
    stereo = Sound(np.concatenate([agent(WEBM), caller(WEBM)]))
    mono = Sound(agent(WEBM) + 0.5 * tone(900, 6, WEBM.rate_hz))
    audio = decoded(WEBM, *([stereo, mono] if first_is_stereo else [mono, stereo]))
    assert audio.channels == 2
    assert audio.warnings == (LEFT_OUT + ("2 of 2" if first_is_stereo else "1 of 2"),)


def test_damage_of_one_track_has_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    content = encoded(M4A, agent(M4A) + tone(300, 6, 44_100), caller(M4A) + tone(300, 6, 44_100))
    path.write_bytes(overwritten(content, 0.4, 0.2))
    audio = decode(path)
    assert audio.channels == 2
    (warning,) = audio.warnings
    assert warning.startswith("decoded ")


def test_track_of_which_nothing_can_be_decoded_has_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(encoded(M4A, agent(M4A), caller(M4A)))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio[1]):
            if packet.size:
                content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    audio = decode(path)
    assert audio.channels == 1
    assert audio.warnings == ("decoded 0.0 s of 6.0 s stated: the recording is damaged or incomplete",)


@pytest.mark.parametrize("kind", [M4A, MKV, WEBM], ids=lambda kind: kind.format)
def test_tracks_of_a_video_are_the_channels_of_the_call(decoded, kind: Kind) -> None:
    audio = decoded(kind, agent(kind), caller(kind), video_s=8)
    assert (audio.channels, audio.warnings) == (2, ())


def test_tracks_of_files_in_a_row_are_joined_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(encoded(MKV, agent(MKV)) + encoded(MKV, agent(MKV), caller(MKV)))
    assert loud(decode(path)) == [
        [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3,
        [False] * 9 + [True] * 3,
    ]
