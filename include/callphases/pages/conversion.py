"""Converts a recording that browsers don't play into WAV, with FFmpeg (PyAV), in a process of its own.

A file that crashes FFmpeg, or takes all memory, ends that process and not the server; and the process has none of the
server's environment, so no credentials.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import wave
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MOST_SOURCE_BYTES = 1 << 29
"""Of a recording that is converted: 4 h of µ-law in stereo are 230 MB."""
MOST_S = 4 * 3600
"""Of audio in a recording that is converted."""
MOST_WAV_BYTES = 1 << 30
"""Of what it becomes: 4 h in stereo at 32 kHz, or 90 min at 48 kHz."""
TIMEOUT_S = 600
"""Of a conversion. An hour of µ-law in stereo takes 3 s on one core, an hour of AMR 16 s."""
_MEMORY_BYTES = 2 << 30
_MOST_ERRORS = 100
"""After so many errors of the container in a row there is nothing more to come."""
_DEMUXERS = (
    "aac,ac3,aiff,alaw,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,g722,g729,gsm,matroska,mov,mp3,mpeg,mpegts,"
    "mulaw,ogg,qcp,s16le,tta,voc,w64,wav,wv"
)
"""FFmpeg's demuxers of recordings. Others read what a file refers to, which may be a file of this machine's."""


class NotConvertible(Exception):
    """Why a recording can't be converted, in a sentence."""


def is_possible() -> bool:
    """Whether PyAV is installed, which is the extra ``audio``."""
    return find_spec("av") is not None


def convert(source: Path, target: Path, demuxer: str | None, options: Mapping[str, str]) -> None:
    """Write a recording as a WAV file of 16 bits, at its own rate, mono or stereo.

    What can't be decoded is left out, so a damaged recording is as long as what is left of it.

    Args:
        source: the recording, which is a file to read.
        target: the file to write.
        demuxer: FFmpeg's name of its format; without it, FFmpeg finds out.
        options: for the demuxer.

    Raises:
        NotConvertible: it has no audio that FFmpeg decodes, or too much of it.
        OSError: the file can't be written.
    """
    given = json.dumps([str(source), str(target), demuxer, dict(options)])
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH") if name in os.environ}
    try:
        done = subprocess.run(  # noqa: S603 - this module
            [sys.executable, "-P", "-m", __name__],
            input=given.encode(),
            capture_output=True,
            env={**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotConvertible(f"Converting it takes longer than {TIMEOUT_S // 60} minutes.") from None
    try:
        said = json.loads(done.stdout)
    except ValueError:
        raise NotConvertible(f"FFmpeg ended without a result (exit code {done.returncode}).") from None
    if "error" in said:
        raise OSError(said["error"])
    if "problem" in said:
        raise NotConvertible(said["problem"])


def write_wav(source: Path, target: Path, demuxer: str | None, options: Mapping[str, str]) -> None:
    """What ``convert`` does, in this process."""
    import av

    try:
        # A file object has no name that FFmpeg could take a hint from, or for a URL.
        with (
            source.open("rb") as file,
            av.open(file, format=demuxer, options={"format_whitelist": _DEMUXERS, **options}) as container,
        ):
            stream: Any = next((one for one in container.streams.audio if one.codec_context is not None), None)
            if stream is None:
                raise NotConvertible("The file holds no audio that FFmpeg knows.")
            stream.thread_type = "NONE"
            if not _write(_frames(container, stream), target):
                raise NotConvertible("Nothing of its audio can be decoded: the file is damaged.")
    except (av.FFmpegError, ValueError) as error:
        raise NotConvertible(f"FFmpeg can't read the file ({type(error).__name__}).") from None


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """The decoded frames of a stream, without what can't be decoded."""
    import av

    errors = 0
    while errors < _MOST_ERRORS:
        try:
            for packet in container.demux(stream):
                errors = 0
                if not packet.size:  # it would end the decoding
                    continue
                with contextlib.suppress(av.FFmpegError, ValueError):
                    yield from packet.decode()
            break
        except (av.FFmpegError, IndexError):  # IndexError: a stream that begins later
            errors += 1
    with contextlib.suppress(av.FFmpegError, ValueError):
        yield from stream.codec_context.decode(None)


def _write(frames: Iterator[Any], target: Path) -> bool:
    """Write frames as WAV; returns whether there were any."""
    import av

    resampler: Any = None
    shape: tuple[object, ...] = ()
    layout, rate_hz, written = "", 0, 0
    with target.open("wb") as file, wave.open(file, "wb") as sound:
        sound.setsampwidth(2)
        for frame in frames:
            if not frame.samples or not frame.sample_rate:
                continue
            if not rate_hz:
                layout, rate_hz = "mono" if frame.layout.nb_channels == 1 else "stereo", frame.sample_rate
                sound.setnchannels(1 if layout == "mono" else 2)
                sound.setframerate(rate_hz)
            if shape != (shape := (frame.format.name, frame.layout.name, frame.sample_rate)):
                resampler = av.AudioResampler(format="s16", layout=layout, rate=rate_hz)
            frame.pts = None  # gaps are none of the resampler's business
            for piece in resampler.resample(frame):
                length = piece.samples * 2 * sound.getnchannels()
                written += length
                if written > MOST_WAV_BYTES or written > MOST_S * rate_hz * 2 * sound.getnchannels():
                    raise NotConvertible(
                        f"It is longer than what is converted: {MOST_S // 3600} hours, and "
                        f"{MOST_WAV_BYTES >> 30} GiB as WAV."
                    )
                sound.writeframesraw(bytes(piece.planes[0])[:length])  # planes are padded
        if not rate_hz:
            sound.setnchannels(1)
            sound.setframerate(8000)
    return written > 0


def main() -> None:
    """Convert what standard input names; standard output says how it went."""
    os.nice(10)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT_S, TIMEOUT_S))  # the server may be gone by then
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    source, target, demuxer, options = json.load(sys.stdin)
    said: dict[str, str] = {}
    try:
        write_wav(Path(source), Path(target), demuxer, options)
    except NotConvertible as problem:
        said["problem"] = str(problem)
    except OSError as error:
        said["error"] = error.strerror or type(error).__name__
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
