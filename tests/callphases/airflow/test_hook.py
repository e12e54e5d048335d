"""The Airflow connection: service URLs, errors, and its form in the UI."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callphases.airflow.hook import AssemblyAIHook
from callphases.errors import ConfigurationError
from doubles import Web, chat_answer


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


OWN: dict[str, Any] = {"conn_type": "generic", "password": "own-key"}


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        ({**OWN, "host": "https://openrouter.ai/api/v1"}, "https://openrouter.ai/api"),
        ({**OWN, "host": "http://box:8000"}, "http://box:8000"),
        ({**OWN, "host": "http://box", "port": 8000}, "http://box:8000"),
        ({**OWN, "host": "box", "port": 8000}, "http://box:8000"),
        ({**OWN, "host": "box/v1", "port": 8000, "schema": "https"}, "https://box:8000"),
        ({**OWN, "host": "llm.example.com"}, "https://llm.example.com"),
        ({**OWN, "host": "llm.example.com", "conn_type": "http", "schema": "http"}, "http://llm.example.com"),
        ("https://:own-key@openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("https://:own-key@box:8443", "https://box:8443"),
        ("http://:own-key@box:8000/v1", "http://box:8000"),
        ("openai://:own-key@https%3A%2F%2Fopenrouter.ai%2Fapi%2Fv1", "https://openrouter.ai/api"),
        ("assemblyai://:own-key@box:8000", "http://box:8000"),
    ],
)
def test_gateway_may_have_a_connection_of_its_own(connection: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = connection if isinstance(connection, str) else json.dumps(connection)
    monkeypatch.setenv("AIRFLOW_CONN_MY_LLM", value)
    hook = connect(monkeypatch, {"password": "k", "host": "http://speech", "extra": {"llm_gateway_url": "http://no"}})
    speech, gateway = hook.get_clients("my_llm")
    assert (speech.url, gateway.url) == ("http://speech", url)
    assert gateway.settings == ("the password of the connection 'my_llm'", "the host of the connection 'my_llm'")


@pytest.mark.parametrize(
    ("connection", "headers"),
    [
        ({}, {"authorization": "Bearer own-key"}),
        ({"password": ""}, {"authorization": None}),
        ({"password": None}, {"authorization": None}),
        ({"extra": {"key_header": "api-key"}}, {"authorization": None, "api-key": "own-key"}),
        ({"extra": {"key_header": "Authorization"}}, {"authorization": "own-key"}),
        ({"extra": {"headers": {"X-Team": "calls"}}}, {"authorization": "Bearer own-key", "x-team": "calls"}),
    ],
)
def test_key_of_an_own_gateway_is_a_bearer_token_unless_told_otherwise(
    connection: dict[str, Any], headers: dict[str, str | None], web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_LLM", json.dumps({**OWN, "host": web.url, **connection}))
    web.answers = [chat_answer("hello")]
    gateway = connect(monkeypatch, {"password": "k"}).get_clients("my_llm")[1]
    gateway.chat("m", [{"role": "user", "content": "Hi."}], max_tokens=10)
    assert {name: web.requests[0].headers.get(name) for name in headers} == headers


def test_account_of_its_own_at_the_vendors_gateway_has_its_key_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_LLM", json.dumps({**OWN, "host": "https://llm-gateway.eu.assemblyai.com"}))
    gateway = connect(monkeypatch, {"password": "k"}).get_clients("my_llm")[1]
    assert gateway._session.headers["authorization"] == "own-key"


def test_key_of_the_account_is_sent_as_it_is(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.answers = [chat_answer("hello")]
    gateway = connect(monkeypatch, {"password": "k", "host": web.url}).get_clients()[1]
    gateway.chat("m", [{"role": "user", "content": "Hi."}], max_tokens=10)
    assert web.requests[0].headers["authorization"] == "k"
    assert gateway.settings.key == "the password of the connection 'assemblyai_default'"


@pytest.mark.parametrize(
    ("connection", "problem"),
    [
        ({"host": ""}, "'my_llm' has no host"),
        ({"host": None}, "'my_llm' has no host"),
        ({"host": "http://[box"}, "check the host of the connection 'my_llm'"),
        ({"host": "http://box", "password": "kéy"}, "password of the connection 'my_llm' holds characters"),
        ({"host": "http://box", "extra": {"headers": "X-Team: calls"}}, "extra of the connection 'my_llm' is invalid"),
        ({"host": "http://box", "extra": {"headers": {"X-Team": 7}}}, "extra of the connection 'my_llm' is invalid"),
        (
            {"host": "http://box", "extra": {"headers": {"X": "a\r\nY: b"}}},
            "extra of the connection 'my_llm' is invalid",
        ),
        ({"host": "http://box", "extra": {"key_header": "api key"}}, "extra of the connection 'my_llm' is invalid"),
        ({"host": "http://box", "extra": {"key_header": ["x"]}}, "extra of the connection 'my_llm' is invalid"),
    ],
)
def test_invalid_connection_of_the_gateway_is_named(
    connection: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_LLM", json.dumps({**OWN, **connection}))
    with pytest.raises(ConfigurationError, match=problem) as told:
        connect(monkeypatch, {"password": "k"}).get_clients("my_llm")
    assert "kéy" not in str(told.value)
    assert "own-key" not in str(told.value)


def test_missing_connection_of_the_gateway_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"'my_llm'.* gateway's URL as its host.* AIRFLOW_CONN_MY_LLM"):
        connect(monkeypatch, {"password": "k"}).get_clients("my_llm")


def test_test_connection_explains_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    ok, message = connect(monkeypatch, {"password": "k", "host": "http://127.0.0.1:9"}).test_connection()
    assert not ok
    assert "http://127.0.0.1:9" in message


def test_airflow_shows_the_connection_type_and_its_form() -> None:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    [form] = [form for form in HookMetaService.hook_meta_data() if form.connection_type == "assemblyai"]
    assert form.hook_class_name == "callphases.airflow.hook.AssemblyAIHook"
    fields = {name: form.standard_fields.model_dump()[name] for name in ("password", "login")}
    assert (fields["password"]["title"], fields["login"]["hidden"]) == ("API key", True)
    assert form.extra_fields["llm_gateway_url"]["schema"]["title"] == "LLM Gateway"
