"""The Airflow connection: service URLs, errors, and its form in the UI."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callphases.airflow.hook import AssemblyAIHook
from callphases.errors import ConfigurationError


def connect(monkeypatch: pytest.MonkeyPatch, connection: str | dict[str, Any]) -> AssemblyAIHook:
    value = connection if isinstance(connection, str) else json.dumps({"conn_type": "assemblyai", **connection})
    monkeypatch.setenv("AIRFLOW_CONN_ASSEMBLYAI_DEFAULT", value)
    return AssemblyAIHook()


@pytest.mark.parametrize(
    ("connection", "speech", "gateway"),
    [
        ({"password": "k"}, "https://api.assemblyai.com", "https://llm-gateway.assemblyai.com"),
        (
            {"password": "k", "host": "https://api.eu.assemblyai.com"},
            "https://api.eu.assemblyai.com",
            "https://llm-gateway.eu.assemblyai.com",
        ),
        ({"password": "k", "host": "http://box:8008/"}, "http://box:8008", "http://box:8008"),
        (
            {"password": "k", "host": "http://box:8008", "extra": {"llm_gateway_url": "http://llm:9000/v1/"}},
            "http://box:8008",
            "http://llm:9000",
        ),
        ({"password": "k", "host": "box", "port": 8008}, "http://box:8008", "http://box:8008"),
        ("assemblyai://:k@http%3A%2F%2Fbox%3A8008", "http://box:8008", "http://box:8008"),
        ("assemblyai://:k@box:8008/https", "https://box:8008", "https://box:8008"),
        (
            "assemblyai://:k@box:8008?llm_gateway_url=http%3A%2F%2Fllm%3A9000",
            "http://box:8008",
            "http://llm:9000",
        ),
    ],
)
def test_connection_has_the_urls_of_both_services(
    connection: Any, speech: str, gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(monkeypatch, connection)
    assert hook.get_conn().url == speech
    assert [client.url for client in hook.get_clients()] == [speech, gateway]


@pytest.mark.parametrize("password", [None, "", "  ", "kéy"])
def test_invalid_key_is_an_error_that_does_not_show_the_key(
    password: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(monkeypatch, {"password": password})
    with pytest.raises(ConfigurationError, match="assemblyai_default") as error:
        hook.get_conn()
    assert "kéy" not in str(error.value)


def test_missing_connection_is_named_in_the_error() -> None:
    with pytest.raises(ConfigurationError, match="AIRFLOW_CONN_NOT_THERE"):
        AssemblyAIHook("not_there").get_conn()


def test_test_connection_explains_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    ok, message = connect(monkeypatch, {"password": "k", "host": "http://127.0.0.1:9"}).test_connection()
    assert not ok
    assert "http://127.0.0.1:9" in message


def test_airflow_finds_the_connection_type_and_its_form() -> None:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    info = manager.hooks["assemblyai"]
    assert info is not None
    assert info.hook_class_name == "callphases.airflow.hook.AssemblyAIHook"
    assert manager.field_behaviours["assemblyai"]["relabeling"]["password"] == "API key"
    assert any(name.endswith("llm_gateway_url") for name in manager.connection_form_widgets)
