"""How many seconds of audio a file holds, found from its structure, of which only some stretches are read.

What a header states is compared with what the file shows: where its audio ends, the time that its last packets have,
the frames in some places of it. So files that were cut, continued, or written without knowing their length are measured
too. A file is recognized by its content, never by its name.

The formats are those of recorders and of FFmpeg's common containers, by their public specifications: RIFF and its
registered encodings, ISO 11172-3 and 13818-3 (MP3), 13818-7 (ADTS), RFC 3533 (Ogg), RFC 7845 (Opus), RFC 9639 (FLAC),
ISO 14496-12 (MP4), RFC 8794 and 9559 (Matroska), RFC 4867 (AMR), AIFF and Sun's AU.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from callphases.limits.audio_files.flac import flac
from callphases.limits.audio_files.frames import amr, framed
from callphases.limits.audio_files.matroska import matroska
from callphases.limits.audio_files.mp4 import mp4
from callphases.limits.audio_files.ogg import ogg
from callphases.limits.audio_files.stretches import HEAD_BYTES, Audio, File
from callphases.limits.audio_files.uncompressed import aiff, au, caf, w64, wav

_KINDS: tuple[tuple[re.Pattern[bytes], Callable[[File, bytes], Audio | None]], ...] = tuple(
    (re.compile(begins, re.DOTALL), measure)
    for begins, measure in (
        (rb"(?:RIFF|RF64).{4}WAVE", wav),
        (rb"FORM.{4}AIF[FC]", aiff),
        (rb"\.snd", au),
        (rb"caff", caf),
        (rb"riff\x2e\x91\xcf\x11", w64),
        (rb"#!AMR(?:-WB)?\n", amr),
        (rb"OggS", ogg),
        (rb"fLaC", flac),
        (rb".{4}(?:ftyp|moov|mdat|free|skip|wide|moof)", mp4),
        (rb"\x1a\x45\xdf\xa3", matroska),
    )
)


def audio_in(file: File) -> Audio | None:
    """What a file holds; None if it is not of a known format.

    Raises:
        OSError: a stretch can't be read.
    """
    head = file.read(0, HEAD_BYTES)
    measure = next((measure for begins, measure in _KINDS if begins.match(head)), framed)
    try:
        return measure(file, head)
    except (struct.error, IndexError, ZeroDivisionError, OverflowError):  # nonsense where numbers should be
        return None
