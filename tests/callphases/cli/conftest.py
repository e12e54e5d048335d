"""Runs commands within this process, against servers on this machine."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from callphases.tables.schema import CALLS, PHASES, object_name
from commands import Run, parquet, runner
from doubles import DAY, KEY, Speech, Store, Web, answer, phases_answer


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``callphases …`` and returns its exit code, output and errors."""
    return runner(monkeypatch, capsys)


@pytest.fixture
def aws(s3: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The buckets, configured in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return s3


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """Writes a day to a local folder, as a copy of ``output.tables``."""

    def copy(calls: list[dict[str, Any]], phases: list[dict[str, Any]], day: dt.date = DAY) -> Path:
        for table, schema, rows in (("calls", CALLS, calls), ("phases", PHASES, phases)):
            path = tmp_path / "tables" / object_name(table, day)
            path.parent.mkdir(parents=True)
            path.write_bytes(parquet(schema, *rows))
        return tmp_path / "tables"

    return copy


@pytest.fixture
def pipeline_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "support.yaml"
    aws: Store = request.getfixturevalue("aws")
    pipeline = aws.pipeline(phases=[{"name": "Hello"}], limits={"ramp": False})
    path.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    return path


@pytest.fixture
def services(speech: Speech, models: Web, monkeypatch: pytest.MonkeyPatch) -> Speech:
    """The speech service and the gateway, configured in the environment."""
    good = phases_answer(("Hello", 1))
    models.respond = lambda request: (
        good if request.body and request.json["messages"] else answer({"error": "no messages"}, 400)
    )
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", KEY)
    monkeypatch.setenv("ASSEMBLYAI_BASE_URL", speech.web.url)
    monkeypatch.setenv("LLM_GATEWAY_URL", models.url)
    return speech
