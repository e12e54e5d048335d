"""The loop of a beginner's guide: transcribe a call, fetch its captions, ask one question, take the next call."""

from __future__ import annotations

import time

import requests

from benchmarks.ways.command import Task, run
from benchmarks.ways.question import answer, question

POLL_S = 3.0


def process(task: Task) -> list[str]:
    """Transcribe and segment one call after the other; returns the answers."""
    answers: list[str] = []
    headers = {"Authorization": task.key}
    for url in task.urls:
        wanted = {"audio_url": url, "speech_models": ["assemblyai-stt-3-7"], "speaker_labels": True}
        posted = requests.post(f"{task.speech_url}/v2/transcript", json=wanted, headers=headers, timeout=60)
        place = f"{task.speech_url}/v2/transcript/{posted.json()['id']}"
        while (seen := requests.get(place, headers=headers, timeout=60).json())["status"] != "completed":
            if seen["status"] == "error":
                raise RuntimeError(seen["error"])
            time.sleep(POLL_S)
        captions = requests.get(f"{place}/vtt", headers=headers, timeout=60).text
        asked = requests.post(
            f"{task.speech_url}/v1/chat/completions", json=question(captions), headers=headers, timeout=120
        )
        answers.append(answer(asked.json()))
    return answers


if __name__ == "__main__":
    run(process)
