"""Which recordings browsers play as they are, told from their bytes, never from their names.

Played is what Chromium, Firefox and Safari play: WAV with PCM of 8, 16 or 24 bits, MP3, FLAC, AAC and MP3 in MP4, Opus
and Vorbis in Ogg and in WebM. The source is MDN's "Media container formats" and "Web audio codec guide". Safari plays
Opus and Vorbis in Ogg from 18.4 on (March 2025, macOS 15.4; Apple's release notes), and in WebM from 17.5 on. Whatever
else a file is, it is converted: A-law and µ-law (Chromium and Firefox play them, Safari's notes do not name them), GSM
and ADPCM in WAV, RF64, AIFF, AU, CAF, AMR, bare AAC, QuickTime, Matroska, Speex and FLAC in Ogg, Windows Media. So is a
WAV file whose header does not fit its bytes, of which players play too little.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from callphases.limits.audio_files import audio_in
from callphases.limits.audio_files.stretches import HEAD_BYTES, File

_CHUNKS, _BOXES = 40, 40
"""The most chunks of a WAV file, and boxes of an MP4, that are looked at."""
_PCM, _EXTENSIBLE = 1, 0xFFFE
_PLAYED_BITS = (8, 16, 24)
_OF_FIXED_SIZE = (1, 3, 6, 7, _EXTENSIBLE)
"""Encodings of which a second always has the bytes that the header says: PCM, float, A-law, µ-law, extensible."""
_PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
_SIZE_TOLERANCE_S = 0.5
"""By which the length of a WAV file may differ from what its header states."""
_MP3_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xeb]", re.DOTALL)
_PLAYED_IN_MP4 = (b"mp4a",)
_FIRST_OF_MOOV_BYTES, _MOOV_BYTES = 1 << 18, 1 << 23
"""What is read of an MP4's header: the second where a long video track comes before the sound."""
_SOUND_TRACK = re.compile(rb"hdlr.{8}soun.*?stsd.{12}(.{4})", re.DOTALL)
_BARE = {
    ".ulaw": "mulaw", ".ul": "mulaw", ".mulaw": "mulaw", ".pcmu": "mulaw", ".alaw": "alaw", ".al": "alaw",
    ".pcma": "alaw", ".gsm": "gsm", ".g722": "g722", ".g729": "g729", ".sln": "s16le",
}  # fmt: skip
"""FFmpeg's names of formats that have no header, by the suffix that telephony software gives them."""
_BARE_RATE_HZ = {"mulaw": 8000, "alaw": 8000, "s16le": 8000}


@dataclass(frozen=True)
class Format:
    """How a recording gets to a browser.

    Attributes:
        plays_as: the media type that browsers play it as; None if it has to be converted.
        demuxer: FFmpeg's name of the format, where its bytes do not tell.
        options: for FFmpeg's demuxer.
    """

    plays_as: str | None = None
    demuxer: str | None = None
    options: dict[str, str] = field(default_factory=dict)


def format_of(file: File, key: str) -> Format:
    """The format of a recording; ``key`` tells only what a file without a header is.

    Raises:
        OSError: a stretch can't be read.
    """
    head = file.read(0, HEAD_BYTES)
    try:
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return _wav(file)
        if head[:3] == b"ID3":
            return Format("audio/mpeg" if _MP3_FRAME.match(_after_tags(file)) else None)
        if head[4:8] == b"ftyp" and head[8:10] != b"qt":
            return Format("audio/mp4" if _sound_in_mp4(file) in _PLAYED_IN_MP4 else None)
    except struct.error:  # it ends where a header should be
        return Format()
    if head[:4] == b"fLaC":
        return Format("audio/flac")
    if head[:4] == b"OggS":
        # Its first page says what its first stream is.
        return Format("audio/ogg" if re.match(rb"OggS.{24,279}?(?:OpusHead|\x01vorbis)", head, re.DOTALL) else None)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        is_played = b"webm" in head[:64] and re.search(rb"A_(?:OPUS|VORBIS)", head)
        return Format("audio/webm" if is_played else None)
    bare = _BARE.get(key[key.rfind(".") :].lower()) if "." in key else None
    if bare is not None and not head.startswith((b".snd", b"FORM", b"caff", b"#!AMR")):
        rate_hz = _BARE_RATE_HZ.get(bare)
        return Format(None, bare, {"sample_rate": str(rate_hz)} if rate_hz else {})
    return Format("audio/mpeg" if _MP3_FRAME.match(head.lstrip(b"\0")) else None)


def _wav(file: File) -> Format:
    place, encoding, bits, byte_rate = 12, 0, 0, 0
    for _ in range(_CHUNKS):
        name, size = struct.unpack("<4sI", file.read(place, 8))
        if name == b"fmt ":
            body = file.read(place + 8, 40)
            encoding, _channels, _rate, byte_rate, _block, bits = struct.unpack_from("<HHIIHH", body)
            if encoding == _EXTENSIBLE and body[24:40] == _PCM_GUID:
                encoding = _PCM
        elif name == b"data":
            break
        place += 8 + size + size % 2
    else:
        return Format()
    measured = audio_in(file)
    if encoding in _OF_FIXED_SIZE and measured is not None and byte_rate:
        missing_s = measured.seconds - size / byte_rate
        if abs(missing_s) > _SIZE_TOLERANCE_S:
            return Format(None, "wav", {"ignore_length": "1"} if missing_s > 0 else {})
    return Format("audio/wav" if encoding == _PCM and bits in _PLAYED_BITS else None)


def _after_tags(file: File) -> bytes:
    """The bytes after the ID3 tags at the start of a file, without their padding."""
    place = 0
    while (tag := file.read(place, 10))[:3] == b"ID3" and len(tag) == 10:
        size = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
        place += 10 + size + (10 if tag[5] & 0x10 else 0)
    return file.read(place, HEAD_BYTES // 8).lstrip(b"\0")


def _sound_in_mp4(file: File) -> bytes | None:
    """The code of the first sound track's samples, such as ``mp4a``; None if there is none."""
    place = 0
    for _ in range(_BOXES):
        head = file.read(place, 16)
        size, name = struct.unpack_from(">I4s", head)
        if size == 1:
            (size,) = struct.unpack_from(">Q", head, 8)
        if name == b"moov":
            for most in (_FIRST_OF_MOOV_BYTES, _MOOV_BYTES):
                if found := _SOUND_TRACK.search(file.read(place, min(size or most, most))):
                    return found[1]
            return None
        if size < 8:
            return None
        place += size
    return None
