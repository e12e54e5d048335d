"""Decodes any file that FFmpeg can read into one 16 kHz waveform per channel."""

import codecs
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from speechbox.engines import JobError

SAMPLE_RATE_HZ = 16_000
SHORTEST_S = 0.160
#: A channel whose level (root mean square) is this many times higher than another's contains the speaker.
CROSSTALK_RATIO = 3.0
#: Channels whose difference is below this share of their common signal are the same recording twice.
SAME_SOUND_RATIO = 0.1
_FRAME = SAMPLE_RATE_HZ // 50
_SMOOTHED_FRAMES = 11  # 220 ms: longer than the gaps inside words
_KEPT_AROUND_FRAMES = 17  # 170 ms on each side: words start and end quietly
_SNIFFED_BYTES = 64 * 1024
_JSON = "application/json"
#: Formats that reference other files, which clients must not be able to read.
_PLAYLISTS = ("concat", "dash", "hls", "imf")

Samples: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Audio:
    """A decoded file: shape (channels, samples), 16 kHz, -1 to 1."""

    samples: Samples

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.samples.shape[1] / SAMPLE_RATE_HZ)

    @property
    def channels(self) -> int:
        """Number of channels: 1 for mono, 2 for stereo."""
        return int(self.samples.shape[0])

    def mixed_down(self) -> Samples:
        """Return the mean of all channels."""
        mixed: Samples = self.samples.mean(axis=0, dtype=np.float32)
        return mixed

    def channels_differ(self) -> bool:
        """Whether the channels differ; many stereo files contain the same mono recording twice."""
        common = self.mixed_down()
        own_power = max(float(np.square(channel - common).sum()) for channel in self.samples)
        return own_power > SAME_SOUND_RATIO**2 * float(np.square(common).sum())

    def without_crosstalk(self) -> "Audio":
        """Silence each channel where another one is much louder, because there it contains crosstalk."""
        frames = self.samples.shape[1] // _FRAME
        if self.channels == 1 or frames < _SMOOTHED_FRAMES:
            return self
        framed = self.samples[:, : frames * _FRAME].reshape(self.channels, frames, _FRAME)
        power = np.einsum("cfs,cfs->cf", framed, framed) / _FRAME
        window = np.ones(_SMOOTHED_FRAMES) / _SMOOTHED_FRAMES
        levels = np.sqrt([np.convolve(channel, window, "same") for channel in power]) + 1e-5
        cleaned = self.samples.copy()
        for index, level in enumerate(levels):
            others = np.delete(levels, index, axis=0).max(axis=0)
            kept = np.convolve(level * CROSSTALK_RATIO > others, np.ones(_KEPT_AROUND_FRAMES), "same") > 0
            cleaned[index, : frames * _FRAME] *= np.repeat(kept, _FRAME)
        return Audio(cleaned)

    def between(self, start_ms: int | None, end_ms: int | None) -> "Audio":
        """Return a section of the audio."""
        start, end = (None if ms is None else ms * SAMPLE_RATE_HZ // 1000 for ms in (start_ms, end_ms))
        return Audio(self.samples[:, start:end])


def decode(path: Path) -> Audio:
    """Decode the first audio stream, or raise `JobError` with the API's message."""
    try:
        with av.open(str(path)) as container:
            if container.format.name in _PLAYLISTS or not container.streams.audio:
                file_type = _text_type(path) or f"video/{container.format.name} ({container.format.long_name})"
                raise JobError(f"File does not appear to contain audio. File type is {file_type}")
            samples = _decode_stream(container)
    except (av.FFmpegError, ValueError) as error:
        text_type = _text_type(path)
        if text_type is None or text_type == _JSON:
            raise JobError(f"Transcoding failed. File type {text_type or 'application/octet-stream'}") from error
        raise JobError(f"File does not appear to contain audio. File type is {text_type}") from error
    audio = Audio(samples)
    if audio.duration_s < SHORTEST_S:
        raise JobError("Audio duration is too short.")
    return audio


def _decode_stream(container: Any) -> Samples:
    stream = container.streams.audio[0]
    stream.thread_type = "NONE"  # jobs already run in parallel
    blocks: list[NDArray[Any]] = []
    resampler = None
    decoded_any = False
    try:
        for frame in container.decode(stream):
            frame.pts = None  # gaps and jumps in the timestamps must not become silence
            if resampler is None:
                resampler = av.AudioResampler(format="fltp", layout=frame.layout.name, rate=SAMPLE_RATE_HZ)
            blocks.extend(resampled.to_ndarray() for resampled in resampler.resample(frame))
            decoded_any = True
    except av.FFmpegError:
        # Transcribe a truncated recording up to its end.
        if not decoded_any:
            raise
    if resampler is not None:
        blocks.extend(resampled.to_ndarray() for resampled in resampler.resample(None))
    if not blocks:
        return np.zeros((1, 0), np.float32)
    return np.concatenate(blocks, axis=1).astype(np.float32, copy=False)


def _text_type(path: Path) -> str | None:
    """Return the type of a text file in the words of `file`, or None for other files."""
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    if not head:
        return "text/plain (empty)"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be incomplete
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    start = text.lstrip().lower()
    if _is_json(text):
        return _JSON
    if start.startswith(("<!doctype html", "<html")):
        return "text/html (HTML document)"
    if start.startswith("<?xml"):
        return "text/xml (XML document)"
    return f"text/plain ({'ASCII' if text.isascii() else 'UTF-8'} text)"


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False
