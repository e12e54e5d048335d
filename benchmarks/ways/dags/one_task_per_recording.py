"""The Dag that Airflow's tutorials suggest: two mapped tasks per recording, and one task that publishes.

| task | what it does |
|---|---|
| `list_recordings` | lists a prefix |
| `calls.transcribe` | submits one recording and polls until it is transcribed |
| `calls.segment` | asks one question about one call |
| `publish` | writes one object for all calls |
"""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any

from airflow.sdk import Param, dag, task, task_group

POLL_S = 3.0
BUCKET = "recordings"


def _speech() -> tuple[str, dict[str, str]]:
    from airflow.sdk import BaseHook

    connection = BaseHook.get_connection("assemblyai_default")
    return str(connection.host), {"Authorization": str(connection.password)}


@dag(
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    params={"prefix": Param("", type="string")},
    default_args={"retries": 2},
    doc_md=__doc__,
)
def one_task_per_recording() -> None:
    """The Dag described above."""

    @task
    def list_recordings(params: dict[str, Any]) -> list[str]:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        return S3Hook().list_keys(BUCKET, params["prefix"])

    @task
    def transcribe(key: str) -> str:
        import requests
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        url, headers = _speech()
        signed = S3Hook().generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": key})
        wanted = {"audio_url": signed, "speech_models": ["assemblyai-stt-3-7"], "speaker_labels": True}
        posted = requests.post(f"{url}/v2/transcript", json=wanted, headers=headers, timeout=60)
        place = f"{url}/v2/transcript/{posted.json()['id']}"
        while (seen := requests.get(place, headers=headers, timeout=60).json())["status"] != "completed":
            if seen["status"] == "error":
                raise RuntimeError(seen["error"])
            time.sleep(POLL_S)
        return place

    @task
    def segment(place: str) -> str:
        import requests

        from benchmarks.ways.question import answer, question

        url, headers = _speech()
        captions = requests.get(f"{place}/vtt", headers=headers, timeout=60).text
        asked = requests.post(f"{url}/v1/chat/completions", json=question(captions), headers=headers, timeout=120)
        return answer(asked.json())

    @task
    def publish(answers: list[str], params: dict[str, Any]) -> None:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        S3Hook().load_string(
            json.dumps(list(answers)), f"ways/{params['prefix']}phases.json", "warehouse", replace=True
        )

    @task_group
    def calls(key: str) -> Any:
        return segment(transcribe(key))

    publish(calls.expand(key=list_recordings()))


one_task_per_recording()
