"""``callphases replay`` with Airflow's connections."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from callphases.cli import main
from callphases.errors import BadAudio
from callphases.state.events import failed
from callphases.state.keys import transcript_key
from callphases.tables.reading import read_rows
from doubles import DAY, KEY, Speech, Store, Web, answer, phases_answer

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("logging_as_before")]


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Restore logging: Airflow sets it up on its first import, with the streams of that test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def replay(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """Replays a day without a key in the environment; returns what it prints to stderr."""
    path = tmp_path / "support.yaml"
    path.write_text(yaml.safe_dump(s3.pipeline(limits={"ramp": False}).model_dump(mode="json", exclude_unset=True)))
    monkeypatch.setattr(sys, "argv", ["callphases", "replay", str(path), "--date", str(DAY)])

    def replay() -> str:
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().err

    return replay


def test_replay_without_key_and_connection_says_what_to_set(replay: Callable[[], str]) -> None:
    error = replay()
    assert error.startswith("error: There is no connection 'assemblyai_default'")
    assert "AIRFLOW_CONN_ASSEMBLYAI_DEFAULT" in error
    assert error.count("\n") == 1


def test_replay_without_key_uses_the_pipelines_connections(
    replay: Callable[[], str], s3: Store, speech: Speech, models: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = phases_answer(("Introduction", 1))
    models.respond = lambda request: good if request.json["messages"] else answer({"error": "no messages"}, 400)
    recording = s3.put(f"calls/{DAY}/a.mp3")
    key = transcript_key(recording, s3.pipeline().transcription)
    s3.knows(failed(key, BadAudio("No audio."), recording.key))
    extra = {"endpoint_url": s3.url, "region_name": "us-east-1"}
    connections = {
        "ASSEMBLYAI": {"conn_type": "assemblyai", "host": speech.web.url, "extra": {"llm_gateway_url": models.url}},
        "AWS": {"conn_type": "aws", "login": "x", "extra": extra},
    }
    for name, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}_DEFAULT", json.dumps(connection | {"password": KEY}))
    replay()
    assert [row["status"] for row in read_rows(s3.tables, "calls", DAY)] == ["completed"]
