"""Makes the sample calls: scripts/*.yaml -> audio/ (what a bucket would contain) and truth/ (what is said when).

One synthetic voice speaks every line of a script (the caller's is resampled to sound lower). The lines are placed on a
timeline with natural pauses and sent through a simulated telephone line. All randomness is seeded with the name of the
call, so the same library versions produce the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import yaml

Signal = npt.NDArray[np.float64]

HERE = Path(__file__).resolve().parent
LINE_RATE_HZ = 8000
VOICE_RATE_HZ = 24000
CALLER_PITCH = 0.82  # of the agent's
PACE = 1.06  # of the voice's own: people on the phone talk faster than it reads
SPEECH_RMS = {"agent": 0.08, "caller": 0.07}
NOISE_RMS = 0.0015
CROSSTALK = 10 ** (-30 / 20)
SPEAKERS = ("agent", "caller")
PHASES = ("Introduction", "Complaint", "Resolution", "Goodbye", "Other")
# container: (codec, bits per second and channel; None if the codec has a fixed rate)
CODECS: dict[str, tuple[str, int | None]] = {
    "wav": ("pcm_mulaw", None),
    "flac": ("flac", None),
    "mp3": ("libmp3lame", 16000),
    "m4a": ("aac", 16000),
    "ogg": ("libopus", 14000),
    "webm": ("libopus", 14000),
}


@dataclass
class Recording:
    """A call on its timeline: one signal per speaker at the line's rate, and what is said when."""

    sides: dict[str, Signal]
    cues: list[dict[str, Any]]
    phases: list[dict[str, Any]]


class Voice:
    """The two speakers of all calls: one synthetic voice at two pitches."""

    def __init__(self) -> None:
        from hibari import Hibari  # type: ignore[import-untyped]

        self._tts = Hibari()

    def say(self, speaker: str, text: str, seed: int) -> Signal:
        """The text as spoken by the speaker, at the line's rate, without silence around it."""
        pitch = CALLER_PITCH if speaker == "caller" else 1.0
        # Playing at a lower rate makes the voice lower and slower, so synthesis is sped up to compensate.
        spoken = np.asarray(self._tts(text, speed=PACE / pitch, seed=seed), dtype=np.float64)
        heard = through_telephone(trim(spoken), VOICE_RATE_HZ * pitch)
        loudness = float(np.sqrt(np.mean(heard**2)))
        return heard * (SPEECH_RMS[speaker] / loudness)


def trim(signal: Signal) -> Signal:
    """The signal without the silence at both ends."""
    loud = np.flatnonzero(np.abs(signal) > 0.02 * np.max(np.abs(signal)))
    return signal[loud[0] : loud[-1] + 1]


def through_telephone(signal: Signal, rate_hz: float) -> Signal:
    """Resample to the line's rate and keep 300-3400 Hz, with soft edges."""
    length = round(len(signal) * LINE_RATE_HZ / rate_hz)
    spectrum = np.fft.rfft(signal)[: length // 2 + 1]
    hertz = np.arange(len(spectrum)) * rate_hz / len(signal)
    gain = np.interp(hertz, [200, 300, 3400, 3700], [0, 1, 1, 0])
    return np.fft.irfft(spectrum * gain, length) * (length / len(signal))


def mu_law(signal: Signal) -> Signal:
    """The signal after a round trip through 8-bit mu-law, as on every digital line."""
    mu = 255
    pressed = np.sign(signal) * np.log1p(mu * np.minimum(np.abs(signal), 1)) / np.log1p(mu)
    pressed = np.round(pressed * 127) / 127
    heard: Signal = np.sign(pressed) * np.expm1(np.abs(pressed) * np.log1p(mu)) / mu
    return heard


def hold_music(seconds: float) -> Signal:
    """A calm arpeggio over four chords."""
    chords = [(60, 64, 67, 71), (57, 60, 64, 67), (53, 57, 60, 64), (55, 59, 62, 65)]  # MIDI notes
    beat_s = 0.25
    time = np.arange(round(seconds * LINE_RATE_HZ)) / LINE_RATE_HZ
    music = np.zeros_like(time)
    for beat in range(int(seconds / beat_s)):
        note = chords[beat // 8 % len(chords)][(0, 1, 2, 3, 2, 3, 1, 2)[beat % 8]]
        since = time - beat * beat_s
        tone = np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * since)
        music += np.where(since >= 0, tone * np.exp(-2.5 * np.maximum(since, 0)), 0)
    fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.5)
    return through_telephone(0.06 * music * fade, LINE_RATE_HZ)


def beep(seconds: float) -> Signal:
    """An answering machine's tone."""
    time = np.arange(round(seconds * LINE_RATE_HZ)) / LINE_RATE_HZ
    return 0.1 * np.sin(2 * np.pi * 1000 * time)


def perform(script: dict[str, Any], voice: Voice) -> Recording:
    """Place the lines of a script on a timeline."""
    seed = zlib.crc32(script["name"].encode())
    rng = np.random.default_rng(seed)
    events: list[tuple[int, str, Signal]] = []  # (first sample, side, signal)
    cues: list[dict[str, Any]] = []
    phases: list[dict[str, Any]] = []
    now = 0.6 if "text" in script["lines"][0] else 0.0
    previous = ""
    for line in script["lines"]:
        if "text" not in line:
            previous = ""
            if "silence_s" in line:
                now += line["silence_s"]
                continue
            sound = hold_music(line["music_s"]) if "music_s" in line else beep(line["tone_s"])
            events.append((round(now * LINE_RATE_HZ), "agent", sound))
            now += len(sound) / LINE_RATE_HZ + 0.4
            continue
        speaker = line["speaker"]
        if speaker not in SPEAKERS or line.get("phase", "Other") not in PHASES:
            raise ValueError(f"{script['name']}: unknown speaker or phase in {line}")
        if cues:
            now += rng.uniform(0.3, 0.5) if speaker == previous else rng.uniform(0.35, 0.9)
        signal = voice.say(speaker, line["text"], seed + len(cues))
        events.append((round(now * LINE_RATE_HZ), speaker, signal))
        end = now + len(signal) / LINE_RATE_HZ
        cues.append(
            {
                "cue": len(cues) + 1,
                "speaker": speaker,
                "start_s": round(now, 3),
                "end_s": round(end, 3),
                "text": line["text"],
            }
        )
        if "phase" in line:
            phases.append({"name": line["phase"], "start_cue": len(cues)})
        now, previous = end, speaker

    length = round((now + (0.8 if cues else 0)) * LINE_RATE_HZ)
    sides = {side: through_telephone(rng.normal(0, NOISE_RMS, length), LINE_RATE_HZ) for side in SPEAKERS}
    for start, side, signal in events:
        sides[side][start : start + len(signal)] += signal
    return Recording(sides, cues, phases)


def mix(recording: Recording, channels: int) -> Signal:
    """The recording as (channels, samples): one channel, or agent left and caller right with some crosstalk."""
    agent, caller = recording.sides["agent"], recording.sides["caller"]
    if channels == 1:
        return mu_law((agent + caller)[None, :])
    return mu_law(np.stack([agent + CROSSTALK * caller, caller + CROSSTALK * agent]))


def encode(signal: Signal, path: Path) -> None:
    """Write the signal in the container given by the file's suffix."""
    codec, bit_rate = CODECS[path.suffix[1:]]
    channels = len(signal)
    samples = np.round(np.clip(signal, -1, 1) * 32767).astype(np.int16)
    # bitexact omits random serial numbers and library versions.
    with av.open(str(path), "w", options={"fflags": "bitexact"}) as out:
        stream = out.add_stream(codec, rate=LINE_RATE_HZ, layout="mono" if channels == 1 else "stereo")
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.options = {"flags": "bitexact"}
        if bit_rate is not None:
            stream.bit_rate = bit_rate * channels
        interleaved = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout=stream.layout)
        frame.sample_rate = LINE_RATE_HZ
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def duration_s(path: Path) -> float:
    """The length of the decoded audio, in seconds: codecs may add a little at both ends."""
    with av.open(str(path)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def make(script: dict[str, Any], voice: Voice, out: Path) -> tuple[Path, float]:
    """Make one call below `out`; returns the path of its audio and its length in seconds."""
    called_at: datetime = script["called_at"]
    call_id = f"{called_at:%H%M%S}-{script['name']}"
    relative = Path(f"{called_at:%Y/%m/%d}") / f"{call_id}.{script['container']}"
    audio = out / "audio" / relative
    audio.parent.mkdir(parents=True, exist_ok=True)
    recording = perform(script, voice)
    encode(mix(recording, script["channels"]), audio)
    seconds = round(duration_s(audio), 3)
    truth = {
        "call_id": call_id,
        "recording": relative.as_posix(),
        "source": "written for callphases, spoken by hibari-tts",
        "duration_s": seconds,
        "channels": script["channels"],
        "cues": recording.cues,
        "phases": recording.phases,
    }
    (out / "truth").mkdir(exist_ok=True)
    (out / "truth" / f"{call_id}.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return audio, seconds


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Makes the sample calls and their truth files from scripts/*.yaml.")
    parser.add_argument("names", nargs="*", help="make only these calls, e.g. late-parcel (default: all)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of audio/ and truth/ (default: this file's)")
    args = parser.parse_args()

    scripts = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((HERE / "scripts").glob("*.yaml"))]
    if unknown := set(args.names) - {script["name"] for script in scripts}:
        parser.error(f"no script named {', '.join(sorted(unknown))} in {HERE / 'scripts'}")
    wanted = [script for script in scripts if not args.names or script["name"] in args.names]
    voice = Voice()
    total_s, total_bytes = 0.0, 0
    for number, script in enumerate(sorted(wanted, key=lambda script: script["called_at"]), 1):
        audio, seconds = make(script, voice, args.out)
        total_s, total_bytes = total_s + seconds, total_bytes + audio.stat().st_size
        sys.stdout.write(
            f"[{number}/{len(wanted)}] {audio.relative_to(args.out)}"
            f"  {seconds:.1f} s, {audio.stat().st_size / 1000:.0f} kB\n"
        )
    sys.stdout.write(f"wrote {len(wanted)} calls, {total_s:.0f} s, {total_bytes / 1e6:.2f} MB of audio to {args.out}\n")


if __name__ == "__main__":
    main()
