"""Tests with the vendor's Python SDK."""

from pathlib import Path

import assemblyai
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # the SDK's own

URL = "https://recordings.example/a.wav"


@pytest.fixture
def transcriber(scripted, monkeypatch: pytest.MonkeyPatch) -> assemblyai.Transcriber:
    monkeypatch.setattr(assemblyai.settings, "api_key", scripted.key)
    monkeypatch.setattr(assemblyai.settings, "base_url", scripted.url)
    monkeypatch.setattr(assemblyai.settings, "polling_interval", 0.05)
    return assemblyai.Transcriber(client=assemblyai.Client(settings=assemblyai.settings))


def test_url_is_transcribed_with_speakers_and_every_export(transcriber) -> None:
    config = assemblyai.TranscriptionConfig(speaker_labels=True)
    transcript = transcriber.transcribe(URL, config)
    assert transcript.status == assemblyai.TranscriptStatus.completed
    assert [utterance.speaker for utterance in transcript.utterances] == ["A", "B", "A", "B"]
    assert transcript.audio_duration == 10
    assert transcript.export_subtitles_vtt().startswith("WEBVTT")
    assert transcript.export_subtitles_srt(chars_per_caption=40).startswith("1\n00:00:00,400")
    assert len(transcript.get_sentences()) == 4
    assert len(transcript.get_paragraphs()) == 4
    assert transcript.word_search(["invoice"])[0].count == 1


def test_local_file_is_uploaded_and_transcribed(transcriber, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"anything, the script answers")
    assert "charged twice" in transcriber.transcribe(str(path)).text


def test_transcript_is_submitted_awaited_listed_and_deleted(transcriber) -> None:
    submitted = transcriber.submit(URL)
    assert submitted.status == assemblyai.TranscriptStatus.queued
    submitted.wait_for_completion()
    assert assemblyai.Transcript.get_by_id(submitted.id).text == submitted.text
    page = transcriber.list_transcripts(assemblyai.ListTranscriptParameters(limit=1))
    assert page.transcripts[0].id == submitted.id
    assert page.page_details.before_id_of_prev_url == submitted.id
    deleted = assemblyai.Transcript.delete_by_id(submitted.id)
    assert deleted.audio_url == "http://deleted_by_user"


def test_failed_transcript_reports_its_error(transcriber) -> None:
    transcript = transcriber.transcribe("https://recordings.example/broken.wav")
    assert transcript.status == assemblyai.TranscriptStatus.error
    assert transcript.error.startswith("Transcoding failed")
