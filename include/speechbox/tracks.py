"""Decodes the audio tracks of a file into waveforms, past damaged stretches and changes of the format.

A packet that can't be decoded is skipped, and decoding continues with the next one. Silence takes the place of lost
audio, as far as its length is known, so that what follows keeps its time:

- FFmpeg counts the packets of bare audio streams (MP3, AAC, …), so their timestamps do not show a loss. A skipped
  packet then stands for as many seconds as other packets with the same number of bytes.
- In other files a gap in the timestamps shows it. A gap without missing bytes is not a loss, but a pause of the
  recorder; it becomes silence only if the file states a length that includes it. Jumps of the clock must not become
  hours of silence.

Silence never makes a recording longer than the file states, or more than twice as long as what was decoded.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from speechbox.containers import Part, parts

SAMPLE_RATE_HZ = 16_000
#: Tracks that are decoded; each takes memory for the whole recording.
MOST_TRACKS = 8
#: Errors in a row after which the rest of a file counts as unreadable.
MOST_ERRORS = 100
#: Formats that reference other files, which clients must not be able to read.
_PLAYLISTS = ("concat", "dash", "hls", "imf")
#: Bare audio streams: FFmpeg counts their packets, and guesses their length from the bit rate.
_COUNTED = ("aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "gsm", "loas", "mp3")
#: Containers in which the position of each packet is known exactly, so that missing bytes are noticed.
_EXACT_POSITIONS = ("matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")
#: A frame of MP3 that holds the number of frames instead of sound.
_FRAME_COUNT = re.compile(rb"\xff[\xe2-\xff].{11,38}?(?:Xing|Info|VBRI)", re.DOTALL)
_FRAME_COUNT_BYTES = 2048
#: Smaller gaps are inaccuracies of the timestamps.
_GAP_S = 0.1
#: Containers that also count what an encoder adds at the ends of a recording.
_COUNTING_PADDING = ("asf", "matroska,webm", "ogg")
#: Three frames of MP3 at 8 kHz, the longest.
_PADDING_S = 0.22
#: A gap is a pause if fewer bytes than this share of the usual number are between its ends.
_PAUSE_BYTES = 0.1
#: Channels that hold less than this share of a track are decoding errors.
_LEAST_SHARE = 0.05

Samples = NDArray[np.float32]


class NoAudio(Exception):
    """A file without audio tracks; the message is its type."""


@dataclass(slots=True)
class Track:
    """An audio track.

    Attributes:
        blocks: waveforms of shape (channels, samples), 16 kHz, -1 to 1; a number is that many samples of silence.
        decoded_s: length of what was decoded.
        expected_s: length of the track by what the file states, or if it states none, `decoded_s` and about what was
            lost.
        is_stated: whether the file states the length.
        start_s: time of the first frame in the file.
        language: as tagged in the file, or an empty string.
        is_default: whether players choose this track.
    """

    start_s: float
    language: str
    is_default: bool
    blocks: list[Samples | int] = field(default_factory=list)
    decoded_s: float = 0.0
    expected_s: float = 0.0
    is_stated: bool = True

    def append(self, other: "Track") -> None:
        """Add the track of a file that follows this one."""
        self.blocks += other.blocks
        self.decoded_s += other.decoded_s
        self.expected_s += other.expected_s
        self.is_stated &= other.is_stated

    def take_samples(self) -> Samples:
        """Return the waveform, shape (channels, samples); empties the track to save memory.

        Where the number of channels changes, the larger one counts: mono is then the same in all channels.
        """
        lengths = Counter[int]()
        silence = 0
        for block in self.blocks:
            if isinstance(block, int):
                silence += block
            else:
                lengths[len(block)] += block.shape[1]
        total = lengths.total()
        channels = max((count for count, length in lengths.items() if length >= _LEAST_SHARE * total), default=1)
        samples = np.zeros((channels, total + silence), np.float32)
        at = 0
        self.blocks.reverse()
        while self.blocks:
            block = self.blocks.pop()
            if isinstance(block, int):
                at += block
                continue
            end = at + block.shape[1]
            if len(block) == 1 or len(block) > channels:
                samples[:, at:end] = block.mean(axis=0)
            else:
                samples[: len(block), at:end] = block
            at = end
        return samples


def read_tracks(path: Path) -> list[Track]:
    """Decode all audio tracks; files in a row are joined.

    Raises:
        NoAudio: the file has no audio tracks.
        av.FFmpegError, ValueError: nothing could be decoded.
    """
    tracks: list[Track] = []
    failure: Exception | None = None
    for part in parts(path):
        try:
            with part.open() as container:
                found = _read(container, part)
        except (av.FFmpegError, ValueError, NoAudio) as error:
            failure = failure or error
            continue
        length = max((_length(track) for track in tracks), default=0)
        for index, track in enumerate(found):
            if index == len(tracks):
                tracks.append(Track(track.start_s, track.language, track.is_default, [length] if length else []))
            tracks[index].append(track)
    if failure and not tracks:
        raise failure
    return tracks


def _length(track: Track) -> int:
    return sum(block if isinstance(block, int) else block.shape[1] for block in track.blocks)


def _read(container: Any, part: Part) -> list[Track]:
    name = container.format.name
    if name in _PLAYLISTS or not container.streams.audio:
        raise NoAudio(f"video/{name} ({container.format.long_name})")
    streams = [stream for stream in container.streams.audio if stream.codec_context is not None][:MOST_TRACKS]
    if not streams:
        raise ValueError("FFmpeg has no decoder for the audio")
    decoders = {stream.index: _Decoder(stream, name) for stream in streams}
    first_byte = last_byte = None
    for packet in _packets(container):
        missing_bytes = 0
        if packet.pos is not None and packet.pos >= 0:
            first_byte = packet.pos if first_byte is None else first_byte
            missing_bytes = max(packet.pos - last_byte, 0) if last_byte is not None else 0
            last_byte = packet.pos + packet.size
        for index, decoder in decoders.items():
            decoder.missing_bytes += missing_bytes
            if index == packet.stream.index:
                decoder.add(packet)
    failure = next((decoder.failure for decoder in decoders.values() if decoder.failure), None)
    tracks = [
        decoder.finish(_stated_s(container, decoder.stream, part, first_byte or 0)) for decoder in decoders.values()
    ]
    if failure and not any(track.blocks for track in tracks):
        raise failure
    return tracks


def _packets(container: Any) -> Iterator[Any]:
    """Yield all packets, also those after an error."""
    errors, any_packet = 0, False
    while True:
        try:
            for packet in container.demux():
                if packet.size:  # an empty one would end the decoding
                    errors, any_packet = 0, True
                    yield packet
            return
        except (av.FFmpegError, IndexError):  # IndexError: PyAV does not know streams that begin later
            errors += 1
            if errors > MOST_ERRORS:
                if not any_packet:
                    raise
                return


def _stated_s(container: Any, stream: Any, part: Part, first_byte: int) -> float | None:
    """Return the length of a track that the file states, in seconds, or None if it states none or FFmpeg guesses it."""
    if part.stated_s is not None:
        return part.stated_s
    name = container.format.name
    if name in _COUNTED and not (name == "mp3" and _has_frame_count(part, first_byte)):
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    playable = [one for one in container.streams if one.type in ("audio", "video") and not _is_picture(one)]
    if container.duration and len(playable) == 1:
        # Matroska counts from 0, whenever its first frame is.
        before_s = max(container.start_time or 0, 0) if name == "matroska,webm" else 0
        return float((container.duration - before_s) / av.time_base)
    return None


def _is_picture(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _has_frame_count(part: Part, first_byte: int) -> bool:
    """Whether the frame before the first packet of an MP3 holds the number of frames."""
    size = min(first_byte, _FRAME_COUNT_BYTES)
    with part.path.open("rb") as file:
        file.seek(part.start + first_byte - size)
        return bool(_FRAME_COUNT.search(file.read(size)))


class _Hole(NamedTuple):
    """Missing audio before the block with the index `before`: its length, or if that is not known, its bytes."""

    before: int
    length_s: float
    lost_bytes: int
    is_lost: bool


class _Decoder:
    """Decodes one track of one file."""

    def __init__(self, stream: Any, format_name: str) -> None:
        stream.thread_type = "NONE"  # jobs already run in parallel
        self.stream = stream
        #: The first error of a packet.
        self.failure: Exception | None = None
        #: Bytes that belong to no packet since the last frame.
        self.missing_bytes = 0
        self._counted = format_name in _COUNTED
        self._exact_positions = format_name in _EXACT_POSITIONS
        self._counts_padding = format_name in _COUNTING_PADDING
        self._blocks: list[Samples] = []
        self._holes: list[_Hole] = []
        self._resampler: Any = None
        self._input: tuple[Any, ...] | None = None
        self._decoded_s = 0.0
        self._decoded_bytes = 0
        self._failed_bytes = 0
        self._position_s = 0.0  # decoded audio and gaps so far
        self._start_s: float | None = None
        self._origin_s = 0.0  # what the timestamps count from
        self._next_s: float | None = None  # the timestamp that should come next

    def add(self, packet: Any) -> None:
        """Decode a packet, or skip it."""
        try:
            for frame in packet.decode():
                self._add_frame(frame)
        except (av.FFmpegError, ValueError) as error:
            self.failure = self.failure or error
            self._failed_bytes += packet.size
        else:
            self._decoded_bytes += packet.size

    def finish(self, stated_s: float | None) -> Track:
        """Return the track; `stated_s` is its length by what the file says, or None."""
        with contextlib.suppress(av.FFmpegError, ValueError):
            for frame in self.stream.codec_context.decode(None):
                self._add_frame(frame)
        self._blocks += self._drain()
        metadata, disposition = self.stream.metadata, self.stream.disposition
        track = Track(
            self._start_s or 0.0,
            metadata.get("language", ""),
            bool(disposition & av.stream.Disposition.default),
            decoded_s=self._decoded_s,
            is_stated=stated_s is not None,
        )
        s_per_byte = self._decoded_s / self._decoded_bytes if self._decoded_bytes else 0.0
        left_s = self._decoded_s if stated_s is None else min(max(stated_s - self._decoded_s, 0.0), self._decoded_s)
        silence, lost_s, paused_s = Counter[int](), 0.0, 0.0
        for hole in self._holes:
            length_s = hole.length_s or hole.lost_bytes * s_per_byte
            if hole.is_lost:
                length_s = min(length_s, left_s)
                lost_s += length_s
            else:
                paused_s += length_s
                if stated_s is None or length_s > left_s + _GAP_S:
                    continue
                length_s = min(length_s, left_s)
            left_s -= length_s
            silence[hole.before] += round(length_s * SAMPLE_RATE_HZ)
        track.expected_s = self._decoded_s + lost_s if stated_s is None else stated_s - paused_s
        if self._counts_padding and not lost_s and track.expected_s - self._decoded_s < _PADDING_S:
            track.expected_s = self._decoded_s
        for index, block in enumerate(self._blocks):
            if silence[index]:
                track.blocks.append(silence[index])
            track.blocks.append(block)
        return track

    def _add_frame(self, frame: Any) -> None:
        if not frame.samples or not frame.sample_rate:
            return
        time_s, length_s = frame.time, frame.samples / frame.sample_rate
        blocks = self._resample(frame)
        self._add_hole(time_s)
        if time_s is None:
            time_s = self._next_s
        self._next_s = None if time_s is None else time_s + length_s
        self._failed_bytes = self.missing_bytes = 0
        self._decoded_s += length_s
        self._position_s += length_s
        self._blocks += blocks

    def _add_hole(self, time_s: float | None) -> None:
        """Note what is missing before a frame with this timestamp."""
        at = len(self._blocks)
        if self._counted:
            if self._blocks and self._failed_bytes:
                self._holes.append(_Hole(at, 0.0, self._failed_bytes, True))
            return
        if time_s is None:
            return
        if self._next_s is None or time_s < self._next_s - _GAP_S:  # the clock was set back
            self._start_s = time_s if self._start_s is None else self._start_s
            self._origin_s = time_s - self._position_s
            return
        gap_s = min(time_s - self._next_s, time_s - self._origin_s - self._position_s)
        if gap_s > (0 if self._failed_bytes else _GAP_S):
            self._holes.append(_Hole(at, gap_s, 0, self._is_loss(gap_s)))
            self._position_s += gap_s

    def _is_loss(self, gap_s: float) -> bool:
        """Whether a gap is a loss, and not a pause of the recorder."""
        if self._failed_bytes or not self._exact_positions:
            return True
        usual_bytes = self._decoded_bytes / self._decoded_s * gap_s if self._decoded_s else 0.0
        return self.missing_bytes > _PAUSE_BYTES * usual_bytes

    def _resample(self, frame: Any) -> list[Samples]:
        frame.pts = None  # the resampler must not see gaps
        blocks: list[Samples] = []
        format_ = frame.format.name, frame.layout.name, frame.sample_rate
        if format_ != self._input:
            blocks += self._drain()
            self._input = format_
            # Interleaved samples: with one buffer per channel, PyAV reads past the end for more than eight channels.
            self._resampler = av.AudioResampler(format="flt", layout=frame.layout.name, rate=SAMPLE_RATE_HZ)
        return blocks + [_by_channel(resampled) for resampled in self._resampler.resample(frame)]

    def _drain(self) -> list[Samples]:
        """End the current format, and return what the resampler still holds."""
        resampler, self._resampler = self._resampler, None
        return [_by_channel(resampled) for resampled in resampler.resample(None)] if resampler else []


def _by_channel(frame: Any) -> Samples:
    samples: Samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T
    return samples
