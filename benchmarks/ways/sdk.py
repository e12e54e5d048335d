"""The vendor's Python SDK: ``transcribe_group`` for all recordings, then one question per call in threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import assemblyai
import requests

from benchmarks.ways.command import Task, run
from benchmarks.ways.question import answer, question

THREADS = 8
"""The number of threads that ``transcribe_group`` uses."""


def process(task: Task) -> list[str]:
    """Transcribe all calls, then segment all; returns the answers."""
    assemblyai.settings.api_key, assemblyai.settings.base_url = task.key, task.speech_url
    config = assemblyai.TranscriptionConfig(speaker_labels=True)
    group = assemblyai.Transcriber().transcribe_group(task.urls, config)

    def ask(transcript: assemblyai.Transcript) -> str:
        if transcript.error:
            raise RuntimeError(transcript.error)
        body = question(transcript.export_subtitles_vtt())
        headers = {"Authorization": task.key}
        url = f"{task.speech_url}/v1/chat/completions"
        return answer(requests.post(url, json=body, headers=headers, timeout=120).json())

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(ask, group))


if __name__ == "__main__":
    run(process)
