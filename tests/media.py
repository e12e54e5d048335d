"""Audio files for tests: encoded by FFmpeg, with several tracks, damaged, and joined."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Waves = npt.NDArray[np.float64]
"""Shape (channels, samples), -1 to 1."""


@dataclass(frozen=True)
class Kind:
    """A container and a codec; ``muxer`` and ``encoder`` are FFmpeg's options."""

    format: str
    codec: str
    rate_hz: int = 16_000
    muxer: Mapping[str, str] = field(default_factory=dict)
    encoder: Mapping[str, str] = field(default_factory=dict)


MP3 = Kind("mp3", "libmp3lame")
OPUS = Kind("ogg", "libopus", 48_000)
FLAC = Kind("flac", "flac")
M4A = Kind("mp4", "aac", 44_100, {"movflags": "faststart"})
FRAGMENTED = Kind(
    "mp4", "aac", 44_100, {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "1000000"}
)
WEBM = Kind("webm", "libopus", 48_000, {"cluster_time_limit": "1000"})
MKV = Kind("matroska", "aac", 44_100, {"cluster_time_limit": "1000"})
WAV = Kind("wav", "pcm_s16le", 8_000)
NOT_PLAYED = [
    Kind("wav", "pcm_mulaw", 8000),
    Kind("wav", "pcm_alaw", 8000),
    Kind("wav", "adpcm_ms", 8000),
    Kind("wav", "adpcm_ima_wav", 8000),
    Kind("wav", "libmp3lame"),
    Kind("wav", "pcm_s16le", 8000, {"rf64": "always"}),
    Kind("w64", "pcm_s16le", 8000),
    Kind("amr", "libopencore_amrnb", 8000),
    Kind("3gp", "libopencore_amrnb", 8000),
    Kind("mov", "aac"),
    Kind("mp4", "alac", 44_100),
    Kind("aiff", "pcm_s16be", 8000),
    Kind("caf", "pcm_s16be", 8000),
    Kind("au", "pcm_mulaw", 8000),
    Kind("asf", "wmav2", 44_100, encoder={"b": "64000"}),
    Kind("ogg", "flac", 8000),
    Kind("adts", "aac"),
    MKV,
]
"""What browsers don't play."""


@dataclass(frozen=True)
class Sound:
    """What a track holds.

    Attributes:
        waves: the channels, all of the same length.
        start_s: when the track starts.
        pause: the timestamps jump: when, and by how much, in seconds.
        language: a tag.
        default: whether players choose the track; None leaves that to FFmpeg.
    """

    waves: Waves
    start_s: float = 0.0
    pause: tuple[float, float] | None = None
    language: str = ""
    default: bool | None = None


def tone(hertz: float, seconds: float, rate_hz: int, level: float = 0.3) -> Waves:
    """One channel with a tone."""
    return level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate_hz)) / rate_hz)[np.newaxis]


def encoded(kind: Kind, *sounds: Sound | Waves, video_s: float = 0) -> bytes:
    """A file with a track for each sound; with ``video_s``, black video comes first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"
        with av.open(str(path), "w", format=kind.format, container_options=dict(kind.muxer)) as container:
            packets = _video(container, kind, video_s) if video_s else []
            tracks = [sound if isinstance(sound, Sound) else Sound(sound) for sound in sounds]
            streams = [_stream(container, kind, track) for track in tracks]
            for stream, track in zip(streams, tracks, strict=True):
                packets += _packets(stream, track, kind.rate_hz)
            for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
                container.mux(packet)
        return path.read_bytes()


def _stream(container: Any, kind: Kind, track: Sound) -> Any:
    layout = {1: "mono", 2: "stereo"}[len(track.waves)]
    stream = container.add_stream(kind.codec, rate=kind.rate_hz, layout=layout, options=dict(kind.encoder))
    if track.language:
        stream.metadata["language"] = track.language
    if track.default is not None:
        stream.disposition = av.stream.Disposition.default if track.default else av.stream.Disposition(0)
    return stream


def _packets(stream: Any, track: Sound, rate_hz: int) -> list[Any]:
    codec = stream.codec_context
    samples = np.ascontiguousarray((track.waves.T.clip(-1, 1) * 32767).astype(np.int16).reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=codec.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
    resampler = av.AudioResampler(
        format=codec.format.name, layout=codec.layout.name, rate=rate_hz, frame_size=codec.frame_size or 1024
    )
    packets: list[Any] = []
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        after_pause = track.pause and piece.pts >= track.pause[0] * rate_hz
        piece.pts += int((track.start_s + (track.pause[1] if track.pause and after_pause else 0)) * rate_hz)
        packets += stream.encode(piece)
    return packets + stream.encode(None)


def _video(container: Any, kind: Kind, seconds: float) -> list[Any]:
    stream = container.add_stream("libvpx" if kind.format == "webm" else "mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    packets: list[Any] = []
    for number in range(int(seconds * 10)):
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
        frame.pts, frame.time_base = number, Fraction(1, 10)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def overwritten(content: bytes, start: float, length: float, make: Callable[[int], bytes] | None = None) -> bytes:
    """The file with other bytes in a stretch, whose start and length are shares of it; random ones by default."""
    first, size = int(len(content) * start), int(len(content) * length)
    return content[:first] + (make or random.Random(0).randbytes)(size) + content[first + size :]


def cut_out(content: bytes, start: float, length: float) -> bytes:
    """The file without a stretch."""
    first, size = int(len(content) * start), int(len(content) * length)
    return content[:first] + content[first + size :]


def wav(samples: Sequence[int] | npt.NDArray[np.int16], size: int | None = None, after: bytes = b"") -> bytes:
    """An 8 kHz mono WAV file whose header states another ``size``, with bytes ``after`` its audio."""
    audio = np.asarray(samples, "<i2").tobytes()
    stated = (len(audio) if size is None else size).to_bytes(4, "little")
    head = b"WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data" + stated
    return b"RIFF" + (len(head) + len(audio) + len(after)).to_bytes(4, "little") + head + audio + after
