"""Whether Airflow has a connection: in a variable, in a secrets backend, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("airflow")

from callphases.airflow.lookup import has_connection


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW_CONN_THEIRS", "AIRFLOW_CONN_OURS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_connection_of_a_variable_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_connection("ours")
    monkeypatch.setenv("AIRFLOW_CONN_OURS", "aws://")
    assert has_connection("ours")


def test_connection_of_a_secrets_backend_is_made_known_to_hooks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from airflow.configuration import initialize_secrets_backends
    from airflow.sdk import BaseHook

    (tmp_path / "connections.json").write_text(json.dumps({"theirs": {"conn_type": "aws", "password": "long-enough"}}))
    backend = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", backend)
    arguments = {"connections_file_path": str(tmp_path / "connections.json")}
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", json.dumps(arguments))
    monkeypatch.setattr("airflow.configuration.secrets_backend_list", initialize_secrets_backends())
    assert has_connection("theirs")
    assert "AIRFLOW_CONN_THEIRS" in os.environ
    assert BaseHook.get_connection("theirs").password == "long-enough"
