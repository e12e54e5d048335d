"""Tests of files in a row, WAV headers with wrong sizes, and sections of files."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media import FRAGMENTED, MKV, MP3, OPUS, WAV, WEBM, encoded, overwritten, tone, wav
from speechbox.audio import decode
from speechbox.containers import Part, _Section, parts

SPEECH = (np.random.default_rng(0).normal(0, 3000, 6 * 8_000)).astype(np.int16)
"""6 s."""
BYTES = 2 * len(SPEECH)
LIST = b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf59.27.100\0"


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "recording"
    path.write_bytes(content)
    return path


# WAV headers


@pytest.mark.parametrize(
    "size",
    [0, 2, 320, 321, 4_096, BYTES // 2, 0xFFFF_FFFF, 0xFFFF_FFDB, 0x7FFF_FFFF, 0x7FFF_FFDB, 0x8000_0000],
)
def test_wav_whose_header_does_not_know_the_length_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    audio = decode(write(tmp_path, wav(SPEECH, size)))
    assert audio.duration_s == pytest.approx(6, abs=0.01)
    assert audio.warnings == ()


@pytest.mark.parametrize(
    "after", [LIST, b"\0" + LIST, LIST + b"id3 \x08\0\0\0ID3\3\0\0\0\0", b"bext" + b"\0" * 604, b"\0"]
)
def test_chunks_after_the_audio_are_no_audio(tmp_path: Path, after: bytes) -> None:
    audio = decode(write(tmp_path, wav(SPEECH, after=after)))
    assert audio.duration_s == pytest.approx(6, abs=0.001)
    assert audio.warnings == ()


def test_long_chunk_after_short_audio_is_no_audio(tmp_path: Path) -> None:
    after = b"iXML" + (100_000).to_bytes(4, "little") + b"<BWFXML>".ljust(100_000)
    assert decode(write(tmp_path, wav(SPEECH[:8_000], after=after))).duration_s == pytest.approx(1, abs=0.001)


def test_wav_that_is_shorter_than_its_header_says_has_a_warning(tmp_path: Path) -> None:
    audio = decode(write(tmp_path, wav(SPEECH, 2 * BYTES)))
    assert audio.duration_s == pytest.approx(6, abs=0.01)
    assert audio.warnings == ("decoded 6.0 s of 12.0 s stated: the recording is damaged or incomplete",)


@pytest.mark.parametrize("missing", [0.009, 0.011])
def test_warning_begins_at_one_percent(tmp_path: Path, missing: float) -> None:
    audio = decode(write(tmp_path, wav(SPEECH, round(BYTES / (1 - missing)))))
    assert bool(audio.warnings) == (missing > 0.01)


def test_wav_with_chunks_before_its_audio_is_checked_too(tmp_path: Path) -> None:
    content = wav(SPEECH, 320).replace(b"fmt ", LIST + b"fmt ")
    assert decode(write(tmp_path, content)).duration_s == pytest.approx(6, abs=0.01)


@pytest.mark.parametrize("length", [12, 20, 30, 43])
def test_cut_off_wav_header_is_one_part(tmp_path: Path, length: int) -> None:
    path = write(tmp_path, wav(SPEECH)[:length])
    assert parts(path) == [Part(path, 0, length)]


# Files in a row


@pytest.mark.parametrize("kind", [WAV, OPUS, WEBM, MKV, FRAGMENTED, MP3], ids=lambda kind: kind.format)
def test_files_in_a_row_are_found_where_they_begin(tmp_path: Path, kind) -> None:
    one, two = (encoded(kind, tone(440, seconds, kind.rate_hz)) for seconds in (1, 2))
    ends = np.cumsum([0, len(one), len(two), len(one)]).tolist()
    found = parts(write(tmp_path, one + two + one))
    assert [(part.start, part.end) for part in found] == list(itertools.pairwise(ends))


def test_short_header_of_a_wav_before_another_counts_up_to_that(tmp_path: Path) -> None:
    audio = decode(write(tmp_path, wav(SPEECH, 320) + wav(SPEECH[:16_000])))
    assert audio.duration_s == pytest.approx(8, abs=0.01)
    assert audio.warnings == ()


def test_several_streams_of_one_ogg_file_are_one_part(tmp_path: Path) -> None:
    content = encoded(OPUS, tone(440, 2, 48_000), tone(700, 2, 48_000))
    assert len(parts(write(tmp_path, content))) == 1
    assert len(parts(write(tmp_path, content + content))) == 2


def test_many_fragments_with_headers_are_one_recording(tmp_path: Path) -> None:
    audio = decode(write(tmp_path, encoded(MKV, tone(440, 1, 44_100)) * 60))
    assert audio.duration_s == pytest.approx(60, abs=1.5), "AAC fills its last frame"
    assert audio.warnings == ()


@pytest.mark.parametrize("content", [b"", b"RIFF", b"ID3", b"OggS", b"\x1a\x45\xdf\xa3", b"\0\0\0\x18ftyp", b"hello"])
def test_other_files_are_one_part(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    assert [(part.start, part.end, part.repairs) for part in parts(path)] == [(0, len(content), {})]


# Damaged MP4s


def test_damage_between_fragments_costs_only_these(tmp_path: Path) -> None:
    whole = encoded(FRAGMENTED, tone(440, 12, 44_100))
    damaged = overwritten(whole, 0.3, 0.1, bytes)
    (part,) = parts(write(tmp_path, damaged))
    ((at, box),) = part.repairs.items()
    assert box[4:] == b"free"
    assert damaged[at + int.from_bytes(box[:4]) :][4:8] == b"moof"
    assert decode(tmp_path / "recording").duration_s == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("end", [0.2, 0.5, 0.999])
def test_end_of_a_truncated_mp4_needs_no_repair(tmp_path: Path, end: float) -> None:
    whole = encoded(FRAGMENTED, tone(440, 3, 44_100))
    assert parts(write(tmp_path, whole[: int(end * len(whole))]))[0].repairs == {}


# Sections


@given(st.data())
def test_section_reads_as_a_file_of_its_own(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = data.draw(st.binary(min_size=1, max_size=60))
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, len(content)))
    right = bytearray(content[start:end])
    repairs = {}
    if len(right) >= 8:
        repairs = {data.draw(st.integers(0, len(right) - 8)): b"repaired"}
        for at, box in repairs.items():
            right[at : at + 8] = box
    model = io.BytesIO(right)
    path = tmp_path_factory.mktemp("section") / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        section = _Section(file, Part(path, start, end, repairs=repairs))
        for _ in range(data.draw(st.integers(1, 8))):
            size, place = data.draw(st.integers(-1, 70)), data.draw(st.integers(0, 70))
            assert section.read(size) == model.read(size)
            assert section.tell() == model.tell()
            assert section.seek(place) == model.seek(place)
            assert section.seek(0, io.SEEK_END) == model.seek(0, io.SEEK_END) == end - start
            back = data.draw(st.integers(-len(right), 0))
            assert section.seek(back, io.SEEK_CUR) == model.seek(back, io.SEEK_CUR)
