"""Opens audio files that FFmpeg would read only in part: files in a row, WAV headers with wrong sizes, damaged MP4s."""

import contextlib
import io
import itertools
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

#: Sizes that a recorder writes when it does not know the length yet: 0, 2 GiB or 4 GiB, less a header.
_UNKNOWN_SIZE = 0x7FFF_0000
#: Formats of WAV files whose samples all have the same number of bytes: PCM, floating point, A-law, µ-law, extensible.
_SAMPLES_OF_EQUAL_SIZE = (1, 3, 6, 7, 0xFFFE)
#: A WAV header is wrong if more than this share of its size follows its audio and is no chunk.
_UNEXPLAINED = 0.01
_BOX_NAME = re.compile(rb"[ -~\xa9]{4}")
_LARGEST_BOX = 0xFFFF_FFFF
_CHUNK = re.compile(rb"[A-Za-z0-9_ -]{4}")


@dataclass(frozen=True, slots=True)
class Part:
    """A complete file within a file, from the byte `start` to the byte before `end`.

    Attributes:
        options: for FFmpeg's demuxer.
        stated_s: the length that the header states, where FFmpeg does not report it; else None.
        repairs: bytes to replace, by their position in the part.
    """

    path: Path
    start: int
    end: int
    options: dict[str, str] = field(default_factory=dict)
    stated_s: float | None = None
    repairs: dict[int, bytes] = field(default_factory=dict)

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        """Open the part with FFmpeg; raises `av.FFmpegError` if it is not a media file."""
        if (self.start, self.end) == (0, self.path.stat().st_size) and not self.repairs:
            with av.open(str(self.path), options=self.options) as container:
                yield container
        else:
            with self.path.open("rb") as file, av.open(_Section(file, self), options=self.options) as container:
                yield container


class _Section(io.RawIOBase):
    """A part as a file."""

    def __init__(self, file: io.BufferedReader, part: Part) -> None:
        self._file, self._part, self._at = file, part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        length = self._part.end - self._part.start
        self._at = max({io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: length}[whence] + offset, 0)
        return self._at

    def read(self, size: int = -1) -> bytes:
        first, left = self._at, max(self._part.end - self._part.start - self._at, 0)
        self._file.seek(self._part.start + first)
        content = bytearray(self._file.read(left if size < 0 else min(size, left)))
        for at, right in self._part.repairs.items():
            for place, byte in enumerate(right, at - first):
                if 0 <= place < len(content):
                    content[place] = byte
        self._at += len(content)
        return bytes(content)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How files of a kind begin: `first` at the start of a file, `next` at the start of another one in the same file.

    `mark` is a constant string `offset` bytes after the start, to search for.
    """

    first: re.Pattern[bytes]
    next: re.Pattern[bytes]
    mark: bytes
    offset: int = 0


def _kind(mark: bytes, next_: bytes, first: bytes = b"", offset: int = 0) -> _Kind:
    return _Kind(re.compile(first or next_, re.DOTALL), re.compile(next_, re.DOTALL), mark, offset)


_WAV = _kind(b"RIFF", rb"RIFF.{4}WAVE[ -~]{4}")
_OGG = _kind(b"OggS", rb"OggS\0[\2\6]")  # a page that begins a stream
_MP4 = _kind(b"ftyp", rb"\0\0\0.ftyp[ -~]{4}", offset=4)
_KINDS = (
    _WAV,
    _OGG,
    _MP4,
    _kind(b"\x1a\x45\xdf\xa3", rb"\x1a\x45\xdf\xa3.{1,64}?(?:webm|matroska)"),
    _kind(b"fLaC", rb"fLaC[\0\x80]\0\0\x22"),
    # MPEG audio has no header. FFmpeg reads across a change of its format, but takes a tag in the middle for audio.
    _kind(b"ID3", rb"ID3[\2-\4]\0.[\0-\x7f]{4}", first=rb"ID3|\xff[\xe2-\xff]"),
)


def parts(path: Path) -> list[Part]:
    """Return the complete files that a file consists of, in order; nearly always one.

    Recorders that continue a recording append a file to it, and Amazon Kinesis Video Streams, for example, gives a call
    as Matroska fragments with a header each. FFmpeg ends with the first file, or decodes the others as if they had its
    format.
    """
    size = path.stat().st_size
    if size == 0:
        return [Part(path, 0, 0)]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        kind = next((kind for kind in _KINDS if kind.first.match(content)), None)
        starts = [0, *(_other_starts(content, kind) if kind else ())]
        return [_part(path, content, kind, *piece) for piece in itertools.pairwise([*starts, size])]


def _part(path: Path, content: mmap.mmap, kind: _Kind | None, start: int, end: int) -> Part:
    if kind is _WAV:
        options, stated_s = _wav_sizes(content, start, end)
        return Part(path, start, end, options, stated_s)
    return Part(path, start, end, repairs=_box_repairs(content, start, end) if kind is _MP4 else {})


def _other_starts(content: mmap.mmap, kind: _Kind) -> Iterator[int]:
    """Find where other files begin."""
    at, after_first = 0, False
    while (found := content.find(kind.mark, at)) != -1:
        start = found - kind.offset
        begins = bool(kind.next.match(content, max(start, 0)))
        # The first pages of an Ogg file begin one stream each.
        if start > 0 and begins and (kind is not _OGG or after_first):
            yield start
        after_first = not begins
        at = found + len(kind.mark)


def _wav_sizes(content: mmap.mmap, start: int, end: int) -> tuple[dict[str, str], float | None]:
    """Return FFmpeg's options for a WAV file, and the length that its header states.

    A recorder that is killed leaves the size that it has written at the start, often 0 or that of its first buffer.
    FFmpeg knows sizes that mean "unknown" and reads to the end; with others it stops early. For a file that is too
    short, FFmpeg reports the length of what is there.
    """
    at, bytes_per_s = start + 12, 0
    while at + 8 <= end:
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if name == b"fmt " and size >= 16 and at + 24 <= end:
            encoding, _, rate_hz, _, frame_bytes = struct.unpack("<HHIIH", content[at + 8 : at + 22])
            bytes_per_s = rate_hz * frame_bytes if encoding in _SAMPLES_OF_EQUAL_SIZE else 0
        if name == b"data":
            audio_end = at + 8 + size
            if size == 0 or size > _UNKNOWN_SIZE:
                return {}, None
            if end - audio_end > size * _UNEXPLAINED and not _is_chunk(content, audio_end, end):
                return {"ignore_length": "1"}, None
            return {}, size / bytes_per_s if bytes_per_s else None
        at += 8 + size + size % 2
    return {}, None


def _is_chunk(content: mmap.mmap, at: int, end: int) -> bool:
    """Whether a chunk follows, with or without the byte that makes the one before even."""
    return any(
        _CHUNK.match(content, start) and int.from_bytes(content[start + 4 : start + 8], "little") <= end - start - 8
        for start in (at, at + 1)
    )


def _box_repairs(content: mmap.mmap, start: int, end: int) -> dict[int, bytes]:
    """Return boxes that let FFmpeg skip damaged stretches between the fragments of an MP4.

    Where it finds no box, FFmpeg stops. It skips boxes named `free`, so one takes the place of whatever is there, up
    to the next fragment.
    """
    repairs = {}
    at = start
    while at + 8 <= end:
        size, name = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        if size == 1:  # the size is in the next 8 bytes
            size = int.from_bytes(content[at + 8 : at + 16])
        if size == 0 and name == b"mdat":  # up to the end
            break
        if size < 8 or at + size > end or not _BOX_NAME.match(name):
            fragment = content.find(b"moof", at + 12, end) - 4
            if fragment < 0 or fragment - at > _LARGEST_BOX:
                break
            repairs[at - start] = (fragment - at).to_bytes(4) + b"free"
            size = fragment - at
        at += size
    return repairs
