"""Decodes any file that FFmpeg can read into one 16 kHz waveform per channel."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from speechbox.engines import JobError
from speechbox.tracks import SAMPLE_RATE_HZ, NoAudio, Samples, Track, read_tracks

SHORTEST_S = 0.160
#: A recording that is shorter than stated by more than this share has a warning.
SHORTFALL = 0.01
#: A track without a louder sample is silent: -60 dB.
SILENCE = 0.001
#: A channel whose level (root mean square) is this many times higher than another's contains the speaker.
CROSSTALK_RATIO = 3.0
#: Channels whose difference is below this share of their common signal are the same recording twice.
SAME_SOUND_RATIO = 0.1
_FRAME = SAMPLE_RATE_HZ // 50
_SMOOTHED_FRAMES = 11  # 220 ms: longer than the gaps inside words
_KEPT_AROUND_FRAMES = 17  # 170 ms on each side: words start and end quietly
_SNIFFED_BYTES = 64 * 1024
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Audio:
    """A decoded file: shape (channels, samples), 16 kHz, -1 to 1; and what was wrong with the file."""

    samples: Samples
    warnings: tuple[str, ...] = ()

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
    """Decode the audio of a file, or raise `JobError` with the API's message.

    Several audio tracks become one recording by these rules, in this order:

    1. A track that is silent, or has the same sound as an earlier one, does not count.
    2. If the tracks are tagged with different languages, they are translations: the default track counts.
    3. If each track has one channel, or the same sound in all channels, they are the channels of the recording, as in
       recordings of Amazon Connect and OBS: one track for each person.
    4. Otherwise the default track counts, or the one with the most channels, which is FFmpeg's rule.

    `Audio.warnings` says which tracks were left out, and whether less was decoded than the file states.
    """
    try:
        tracks = read_tracks(path)
    except NoAudio as error:
        raise JobError(f"File does not appear to contain audio. File type is {_text_type(path) or error}") from error
    except (av.FFmpegError, ValueError) as error:
        text_type = _text_type(path)
        if text_type is None or text_type == _JSON:
            raise JobError(f"Transcoding failed. File type {text_type or 'application/octet-stream'}") from error
        raise JobError(f"File does not appear to contain audio. File type is {text_type}") from error
    audio = _one_recording(tracks)
    if audio.duration_s < SHORTEST_S:
        raise JobError("Audio duration is too short.")
    return audio


def _one_recording(tracks: list[Track]) -> Audio:
    if len(tracks) == 1:
        return Audio(tracks[0].take_samples(), tuple(_shortfall(tracks)))
    audios = [Audio(track.take_samples()) for track in tracks]
    counting = _different(audios)
    chosen = counting
    languages = {tracks[index].language for index in counting} - {"", "und"}
    if len(languages) > 1 or any(audios[index].channels_differ() for index in counting):
        chosen = [max(counting, key=lambda index: (tracks[index].is_default, audios[index].channels, -index))]
    # A track that seems silent may be one of which nothing could be decoded.
    warnings = list(
        _shortfall([tracks[index] for index in range(len(tracks)) if index in chosen or index not in counting])
    )
    if len(chosen) < len(counting):
        left_out = ", ".join(str(index + 1) for index in counting if index not in chosen)
        warnings.append(f"audio tracks that were not transcribed: {left_out} of {len(tracks)}")
    if len(chosen) == 1:
        return Audio(audios[chosen[0]].samples, tuple(warnings))
    first_s = min(tracks[index].start_s for index in chosen)
    longest = max(audios[index].samples.shape[1] for index in chosen)
    starts = [min(round((tracks[index].start_s - first_s) * SAMPLE_RATE_HZ), longest) for index in chosen]
    ends = [start + audios[index].samples.shape[1] for start, index in zip(starts, chosen, strict=True)]
    samples = np.zeros((len(chosen), max(ends)), np.float32)
    for channel, (start, end, index) in enumerate(zip(starts, ends, chosen, strict=True)):
        samples[channel, start:end] = audios[index].samples[0]
    return Audio(samples, tuple(warnings))


def _different(audios: list[Audio]) -> list[int]:
    """Return the indexes of the tracks that are not silent and not a copy of an earlier one; at least one."""
    found: list[int] = []
    for index, audio in enumerate(audios):
        mixed = audio.mixed_down()
        if np.abs(mixed).max(initial=0) < SILENCE:
            continue
        if not any(_same_sound(mixed, audios[other].mixed_down()) for other in found):
            found.append(index)
    return found or [0]


def _same_sound(one: Samples, other: Samples) -> bool:
    length = min(len(one), len(other))
    return length > 0 and not Audio(np.stack([one[:length], other[:length]])).channels_differ()


def _shortfall(tracks: list[Track]) -> Iterator[str]:
    """Yield a warning if clearly less was decoded than the file states."""
    short = [track for track in tracks if track.decoded_s < (1 - SHORTFALL) * track.expected_s]
    if short:
        worst = min(short, key=lambda track: track.decoded_s / track.expected_s)
        stated = f"{worst.expected_s:.1f} s stated" if worst.is_stated else f"about {worst.expected_s:.1f} s"
        yield f"decoded {worst.decoded_s:.1f} s of {stated}: the recording is damaged or incomplete"


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
