"""Tests of the Whisper engine and the decoder with real audio and invalid files."""

from pathlib import Path

import av
import numpy as np
import pytest

from media import Kind, encoded, overwritten
from speechbox.audio import Audio, decode
from speechbox.engines import JobError
from speechbox.engines.whisper import CUT_WITHIN_S, PIECE_S, pieces, without_crosstalk
from speechbox.sentences import Word

pytestmark = pytest.mark.integration

RATE_HZ = 16_000


def test_two_channels_give_two_speakers(whisper, wav, conversation) -> None:
    agent, caller = conversation
    faint = 10 ** (-30 / 20)
    recording = wav(agent + faint * caller, caller + faint * agent)
    done = whisper.transcribe(whisper.upload(recording), speaker_labels=True)
    assert done["status"] == "completed"
    turns = [(u["speaker"], u["text"].lower()) for u in done["utterances"]]
    assert [
        speaker for index, (speaker, _) in enumerate(turns) if index == 0 or turns[index - 1][0] != speaker
    ] == list("ABAB")
    assert "how can i help you" in " ".join(text for speaker, text in turns if speaker == "A")
    assert "charged twice" in " ".join(text for speaker, text in turns if speaker == "B")
    assert "charged" not in " ".join(text for speaker, text in turns if speaker == "A")
    length_s = len(agent) / RATE_HZ
    assert done["audio_duration"] - 1 < length_s <= done["audio_duration"]
    assert all(0 <= w["start"] <= w["end"] <= done["audio_duration"] * 1000 for w in done["words"])
    assert all(a["start"] <= b["start"] for a, b in zip(done["words"], done["words"][1:], strict=False))
    vtt = whisper.get(f"/v2/transcript/{done['id']}/vtt").text
    assert vtt.count("-->") == len(done["utterances"])


def test_mono_recording_in_two_channels_is_transcribed_once(whisper, wav, conversation) -> None:
    mono = sum(conversation)
    hiss = np.random.default_rng(0).normal(0, 0.001, (2, len(mono)))
    done = whisper.transcribe(whisper.upload(wav(mono + hiss[0], mono + hiss[1])), speaker_labels=True)
    assert done["text"].lower().count("charged twice") == 1
    assert {word["speaker"] for word in done["words"]} == {"A"}
    assert done["audio_channels"] == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own
def test_one_channel_has_one_speaker_through_the_sdk(whisper, wav, conversation, tmp_path: Path) -> None:
    import assemblyai

    path = tmp_path / "call.wav"
    path.write_bytes(wav(sum(conversation)))
    client = assemblyai.Client(
        settings=assemblyai.Settings(api_key=whisper.key, base_url=whisper.url, polling_interval=0.1)
    )
    transcript = assemblyai.Transcriber(client=client).transcribe(
        str(path), assemblyai.TranscriptionConfig(speaker_labels=True)
    )
    assert transcript.status == assemblyai.TranscriptStatus.completed
    assert "charged twice" in transcript.text.lower()
    assert {utterance.speaker for utterance in transcript.utterances} == {"A"}
    assert transcript.export_subtitles_vtt().startswith("WEBVTT")


def test_only_the_requested_section_is_transcribed(whisper, wav, conversation) -> None:
    url = whisper.upload(wav(sum(conversation)))
    whole = whisper.transcribe(url, multichannel=True)
    assert {word["channel"] for word in whole["words"]} == {"1"}
    first = whole["utterances"][0]["end"]
    part = whisper.transcribe(url, audio_start_from=first)
    assert part["words"][0]["start"] >= first
    assert "charged" in part["text"]
    assert "calling" not in part["text"]
    behind = whisper.transcribe(url, audio_start_from=3_600_000, speaker_labels=True)
    assert (behind["status"], behind["words"]) == ("completed", [])


@pytest.mark.parametrize("sound", ["silence", "noise", "ringing", "music"])
def test_audio_without_speech_has_no_words(whisper, wav, sound: str) -> None:
    times = np.arange(12 * RATE_HZ) / RATE_HZ
    samples = {
        "silence": np.zeros_like(times),
        "noise": np.random.default_rng(0).normal(0, 0.05, len(times)),
        "ringing": 0.3 * np.sin(2 * np.pi * 425 * times) * (times % 5 < 1),
        "music": 0.1 * sum(np.sin(2 * np.pi * hertz * times) * (times % 0.5 < 0.4) for hertz in (220, 277, 330)),
    }[sound]
    done = whisper.transcribe(whisper.upload(wav(samples, samples)), speaker_labels=True)
    assert (done["status"], done["text"], done["words"], done["utterances"]) == ("completed", "", [], [])
    assert done["audio_duration"] == 12


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "File does not appear to contain audio. File type is text/plain (empty)"),
        (b"This is not audio.\n" * 50, "File does not appear to contain audio. File type is text/plain (ASCII text)"),
        (b"<!DOCTYPE html><html>Sign in</html>", "File does not appear to contain audio. File type is text/html"),
        (b'<?xml version="1.0"?><Error/>', "File does not appear to contain audio. File type is text/xml"),
        (b'{"audio": "none"}', "Transcoding failed. File type application/json"),
        (b"ffconcat version 1.0\nfile other.wav\n", "File does not appear to contain audio. File type is text/plain"),
        (
            b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n",
            "File does not appear to contain audio. File type is text/plain",
        ),
        (bytes(range(256)) * 100, "Transcoding failed."),
    ],
    ids=["empty", "text", "html", "xml", "json", "playlist", "subtitles", "binary"],
)
def test_file_without_audio_is_an_error(whisper, files, content: bytes, error: str) -> None:
    files.content["/call.wav"] = content
    done = whisper.transcribe(files.url + "/call.wav")
    assert done["status"] == "error"
    assert done["error"].startswith(error)


def test_too_short_recording_is_an_error(whisper, wav) -> None:
    done = whisper.transcribe(whisper.upload(wav(np.zeros(RATE_HZ // 20))))
    assert (done["status"], done["error"]) == ("error", "Audio duration is too short.")


def test_unsupported_language_is_an_error(whisper, wav) -> None:
    done = whisper.transcribe(whisper.upload(wav(np.zeros(RATE_HZ))), language_code="fr")
    assert done["status"] == "error"
    assert "fr" in done["error"]
    assert "--model" in done["error"]


def test_telephone_audio_is_resampled(tmp_path: Path, wav) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(wav(np.zeros(8_000), np.ones(8_000) / 2, rate_hz=8_000))
    audio = decode(path)
    assert (audio.channels, audio.duration_s) == (2, pytest.approx(1.0, abs=0.01))
    assert np.abs(audio.samples[0]).max() < 0.01
    assert np.median(audio.samples[1]) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp3", "libmp3lame"), ("a.ogg", "libopus"), ("a.flac", "flac"), ("a.m4a", "aac"), ("a.wav", "pcm_mulaw")],
)
def test_common_containers_and_codecs_are_decoded(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8_000 if codec == "pcm_mulaw" else 48_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 96_000), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    audio = decode(path)
    assert audio.channels == 2
    assert audio.duration_s == pytest.approx(1.0, abs=0.15)


def test_playlist_cannot_reference_other_files(tmp_path: Path, wav) -> None:
    (tmp_path / "other.wav").write_bytes(wav(np.zeros(RATE_HZ)))
    (tmp_path / "list").write_text("ffconcat version 1.0\nfile other.wav\n")
    with pytest.raises(JobError, match="does not appear to contain audio"):
        decode(tmp_path / "list")


def test_video_without_sound_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(JobError, match=r"does not appear to contain audio\. File type is video/"):
        decode(path)


def test_damaged_stereo_call_that_begins_in_mono_is_transcribed_with_a_warning(whisper, conversation) -> None:
    agent, caller = (channel[np.newaxis] for channel in conversation)
    middle = agent.shape[1] // 2
    mono = encoded(Kind("mp3", "libmp3lame"), (agent + caller)[:, :middle])
    stereo = encoded(Kind("mp3", "libmp3lame"), np.concatenate([agent, caller])[:, middle:])
    whole = whisper.transcribe(whisper.upload(mono + stereo), speaker_labels=True)
    damaged = whisper.transcribe(whisper.upload(overwritten(mono, 0.1, 0.05) + stereo), speaker_labels=True)
    assert "metadata" not in whole
    assert whole["text"].lower().count("charged twice") == 1
    assert (whole["audio_channels"], damaged["audio_channels"]) == (2, 2)
    length_s = agent.shape[1] / RATE_HZ
    assert damaged["audio_duration"] == whole["audio_duration"] == pytest.approx(length_s, abs=1)
    (warning,) = damaged["metadata"]["warnings"]
    assert warning["message"].startswith("decoded ")
    ends = [next(w["start"] for w in done["words"] if w["text"].lower() == "refunded") for done in (whole, damaged)]
    assert ends[0] == pytest.approx(ends[1], abs=300), "later words keep their time"


def test_strong_crosstalk_is_removed_from_both_channels(whisper, wav, conversation) -> None:
    agent, caller = conversation
    strong = 10 ** (-8 / 20)
    done = whisper.transcribe(whisper.upload(wav(agent + strong * caller, caller + strong * agent)), multichannel=True)
    said = [" ".join(w["text"].lower() for w in done["words"] if w["channel"] == channel) for channel in "12"]
    assert "charged twice" in said[1]
    assert "charged" not in said[0]
    assert "refunded" not in said[1]


def test_truncated_recording_is_decoded_up_to_its_end(tmp_path: Path, wav) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(wav(np.zeros(RATE_HZ))[:-RATE_HZ])
    assert decode(path).duration_s == pytest.approx(0.5, abs=0.01)


def test_file_with_a_header_only_is_an_error(tmp_path: Path, wav) -> None:
    path = tmp_path / "header.wav"
    path.write_bytes(wav(np.zeros(0)))
    with pytest.raises(JobError):
        decode(path)


def heard(levels: tuple[float, float], *words: list[Word]) -> list[list[str]]:
    samples = np.ones((2, RATE_HZ), np.float32) * np.array([levels], np.float32).T
    return [[word.text for word in kept] for kept in without_crosstalk(list(words), Audio(samples))]


def test_crosstalk_is_dropped_and_overlapping_speech_is_kept() -> None:
    yes, no = Word("Yes.", 100, 300, 0.9), Word("no", 100, 300, 0.9)
    assert heard((0.3, 0.01), [yes], [yes]) == [["Yes."], []]
    assert heard((0.01, 0.3), [yes], [yes]) == [[], ["Yes."]]
    assert heard((0.2, 0.3), [yes], [no]) == [["Yes."], ["no"]]
    assert heard((0.2, 0.3), [yes], [yes]) == [[], ["Yes."]]
    assert heard((0.3, 0.3), [yes], [yes]) == [["Yes."], []], "a mono part of a stereo recording"
    assert heard((0.3, 0.3), [yes], [no]) == [["Yes."], ["no"]]


@pytest.mark.parametrize("length_s", [0, 1, PIECE_S, PIECE_S + 1, 3 * PIECE_S + 7])
def test_long_recording_is_split_where_it_is_quiet(length_s: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, length_s * RATE_HZ).astype(np.float32)
    quiet = (PIECE_S - 10) * RATE_HZ
    samples[quiet : quiet + RATE_HZ] = 0
    cut = list(pieces(samples))
    assert np.array_equal(np.concatenate([piece for _, piece in cut]), samples)
    assert [first for first, _ in cut] == [sum(len(piece) for _, piece in cut[:i]) for i in range(len(cut))]
    assert all(len(piece) <= PIECE_S * RATE_HZ for _, piece in cut)
    assert all(len(piece) >= (PIECE_S - CUT_WITHIN_S) * RATE_HZ for _, piece in cut[:-1])
    if len(cut) > 1:
        assert quiet <= cut[1][0] <= quiet + RATE_HZ
