"""What browsers play as it is, by its bytes: FFmpeg's files, headers as recorders write them, names that mislead."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import media
from callphases.pages.audio_formats import Format, format_of
from media import Kind

PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")


class Bytes:
    """A file in memory, which counts what is read of it beyond its head."""

    def __init__(self, content: bytes) -> None:
        self.content, self.size, self.read_bytes = content, len(content), 0

    def read(self, start: int, length: int) -> bytes:
        self.read_bytes += length
        return self.content[start : start + length]


def format_in(content: bytes, key: str = "calls/a.wav") -> Format:
    return format_of(Bytes(content), key)


def encoded(kind: Kind, seconds: float = 2) -> bytes:
    return media.encoded(kind, media.tone(440, seconds, kind.rate_hz))


def wav(encoding: int, bits: int, audio: bytes, *, before: bytes = b"", after: bytes = b"", stated: int | None = None,
        more: bytes = b"", riff: bytes = b"RIFF") -> bytes:  # fmt: skip
    """An 8 kHz mono WAV file; ``before`` are chunks before ``fmt``."""
    block = bits // 8
    form = struct.pack("<HHIIHH", encoding, 1, 8000, 8000 * block, block, bits) + more
    body = b"WAVE" + before + chunk(b"fmt ", form)
    body += b"data" + struct.pack("<I", len(audio) if stated is None else stated) + audio + after
    return riff + struct.pack("<I", len(body)) + body


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [
        (media.WAV, "audio/wav"),
        (Kind("wav", "pcm_u8", 8000), "audio/wav"),
        (Kind("wav", "pcm_s24le", 8000), "audio/wav"),
        (media.MP3, "audio/mpeg"),
        (Kind("mp3", "libmp3lame", 8000), "audio/mpeg"),
        (media.FLAC, "audio/flac"),
        (media.M4A, "audio/mp4"),
        (Kind("mp4", "aac", 44_100), "audio/mp4"),
        (media.FRAGMENTED, "audio/mp4"),
        (Kind("3gp", "aac", 16_000), "audio/mp4"),
        (media.OPUS, "audio/ogg"),
        (media.WEBM, "audio/webm"),
    ],
)
@pytest.mark.parametrize("key", ["a.wav", "a.ulaw", "a"])
def test_played_format_is_played_whatever_its_name(kind: Kind, media_type: str, key: str) -> None:
    assert format_in(encoded(kind), key) == Format(media_type)


def test_end_of_an_mp4_is_read_for_its_header() -> None:
    file = Bytes(encoded(Kind("mp4", "aac", 44_100), 30))
    assert format_of(file, "a").plays_as == "audio/mp4"
    assert file.read_bytes < file.size


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


@pytest.mark.parametrize("before", [0, 300_000, 2_000_000])
@pytest.mark.parametrize(("code", "media_type"), [(b"mp4a", "audio/mp4"), (b"alac", None), (b"samr", None)])
def test_sound_behind_a_long_video_track_is_found(before: int, code: bytes, media_type: str | None) -> None:
    def track(handler: bytes, code: bytes, samples: int = 0) -> bytes:
        kind = box(b"hdlr", bytes(8) + handler + bytes(13))
        entry = box(b"stsd", bytes(4) + struct.pack(">I", 1) + box(code, bytes(28)))
        return box(b"trak", box(b"mdia", kind + box(b"minf", box(b"stbl", entry + box(b"stsz", bytes(samples))))))

    tracks = track(b"vide", b"avc1", before) + track(b"soun", code)
    content = box(b"ftyp", b"isom" + bytes(4)) + box(b"mdat", bytes(100_000)) + box(b"moov", tracks)
    assert format_in(content).plays_as == media_type


@pytest.mark.parametrize(
    "kind",
    [
        *media.NOT_PLAYED,
        Kind("wav", "pcm_f32le", 8000),
        Kind("wav", "pcm_s32le", 8000),
        Kind("mp2", "mp2"),
    ],
)
@pytest.mark.parametrize("key", ["a.wav", "a.mp3"])
def test_other_formats_are_converted_whatever_their_names(kind: Kind, key: str) -> None:
    assert format_in(encoded(kind), key) == Format()


def test_chunks_before_the_format_and_odd_ones_are_passed() -> None:
    before = chunk(b"bext", bytes(603)) + chunk(b"LIST", b"INFOISFT" + bytes(31)) + chunk(b"JUNK", bytes(28))
    after = chunk(b"LIST", b"INFO" + bytes(4000))
    assert format_in(wav(1, 16, bytes(16_000), before=before, after=after)).plays_as == "audio/wav"
    assert format_in(wav(7, 8, bytes(8_000), before=before, after=after)) == Format()
    # An iXML or cover picture that is longer than what is read of the head.
    assert format_in(wav(1, 16, bytes(16_000), before=chunk(b"iXML", bytes(200_001)))).plays_as == "audio/wav"


@pytest.mark.parametrize(("guid", "is_played"), [(PCM_GUID, True), (b"\x07" + PCM_GUID[1:], False), (b"", False)])
def test_extensible_format_is_what_its_guid_says(guid: bytes, is_played: bool) -> None:
    more = struct.pack("<HHI", 22, 16, 4) + guid
    assert (format_in(wav(0xFFFE, 16, bytes(16_000), more=more)).plays_as is not None) == is_played


@pytest.mark.parametrize("encoding", [1, 6, 7])
@pytest.mark.parametrize("stated", [0, 2000, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_wav_with_a_wrong_length_is_converted_as_a_whole(encoding: int, stated: int) -> None:
    form = format_in(wav(encoding, 16 if encoding == 1 else 8, bytes(range(256)) * 200, stated=stated))
    assert form == Format(None, "wav", {"ignore_length": "1"} if stated < 51_200 else {})


@pytest.mark.parametrize(
    "tags",
    [
        b"ID3\x04\0\0\0\0\x01\0" + bytes(128),
        b"ID3\x03\0\0\0\x0f\x7f\x7f" + bytes(262_143),  # a cover picture
        b"ID3\x03\0\0\0\0\0\x05" + bytes(5) + bytes(500),
        bytes(300),
    ],
)
def test_mp3_is_found_behind_tags_and_padding(tags: bytes) -> None:
    assert format_in(tags + encoded(Kind("mp3", "libmp3lame", 16_000, {"id3v2_version": "0"}))).plays_as == "audio/mpeg"
    assert format_in(tags + encoded(Kind("adts", "aac"))) == Format()


@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("calls/a.ulaw", Format(None, "mulaw", {"sample_rate": "8000"})),
        ("calls/a.AL", Format(None, "alaw", {"sample_rate": "8000"})),
        ("calls/a.sln", Format(None, "s16le", {"sample_rate": "8000"})),
        ("calls/a.gsm", Format(None, "gsm", {})),
        ("calls/a.b/a", Format()),
        ("calls/a.wav", Format()),
    ],
)
def test_file_without_a_header_is_what_its_suffix_says(key: str, form: Format) -> None:
    assert format_in(bytes([0xFF, 0xFB, 0xFD, 0x7F] * 3000), key) == form


def test_header_is_believed_and_not_the_suffix_of_bare_audio() -> None:
    assert format_in(encoded(Kind("au", "pcm_mulaw", 8000)), "a.ulaw") == Format()


@pytest.mark.parametrize("kind", [media.WAV, media.M4A, media.MP3, media.OPUS, media.WEBM, media.FLAC])
def test_file_that_ends_early_is_no_error(kind: Kind) -> None:
    content = encoded(kind)
    for size in range(1, 120):
        assert isinstance(format_in(content[:size]), Format)


@given(st.sampled_from([b"RIFF\0\0\0\0WAVE", b"ID3", b"\0\0\0\x1cftypisom", b"OggS\0\2", b"\x1a\x45\xdf\xa3", b""]),
       st.binary(max_size=400))  # fmt: skip
def test_no_bytes_are_an_error(start: bytes, rest: bytes) -> None:
    assert isinstance(format_in(start + rest, "a.mp3"), Format)
