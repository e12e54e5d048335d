"""Fixtures: Airflow's database, and for each test empty buckets, a scripted speech service and a pipeline."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from night import CALL, CHAT, GUARDED_WORDS, LONG_WORDS, Night
from servers import remove, running, s3_client


@pytest.fixture(scope="session")
def airflow_database() -> None:
    from airflow.utils.db import initdb

    logging.getLogger("alembic").setLevel(logging.WARNING)
    initdb()


def _script(folder: Path) -> Path:
    path = folder / "script.yaml"
    answers = {
        "fetch": True,
        "files": [
            {"match": "*/silent*", "no_speech": True, "audio_duration_s": 8},
            {
                "match": "*/cut*",
                "sentences": CALL,
                "audio_duration_s": 12,
                "warnings": ["decoded 12.0 s of 20.0 s stated"],
            },
            {"match": "*/broken*", "error": "Transcoding failed. File type application/octet-stream"},
            {"match": "*/wordless*", "error": "language_detection cannot be performed on files with no spoken audio."},
            {
                "match": "*/guarded*",
                "sentences": [*CALL[:3], {**CALL[3], "text": GUARDED_WORDS}],
                "audio_duration_s": 12,
            },
            {"match": "*/endless*", "sentences": [*CALL[:3], {**CALL[3], "text": LONG_WORDS}], "audio_duration_s": 12},
            {"match": "*/slow*", "latency_s": 4, "sentences": CALL, "audio_duration_s": 12},
        ],
        "default": {"sentences": CALL, "audio_duration_s": 12},
        "chat": CHAT,
    }
    path.write_text(yaml.safe_dump(answers))
    return path


@pytest.fixture
def night(airflow_database: None, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    """A pipeline with empty buckets and a scripted speech service."""
    s3 = s3_client(s3_url)
    for bucket in ("recordings", "warehouse"):
        s3.create_bucket(Bucket=bucket)
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(pipelines))
    with running(tmp_path / "box", "--engine", "scripted", "--script", str(_script(tmp_path))) as box:
        night = Night(s3, s3_url, box, pipelines, monkeypatch)
        night.connect()
        night.pipeline()
        yield night
    for bucket in ("recordings", "warehouse"):
        remove(s3, bucket)
