"""The gateway that the command line talks to, from environment variables and the pipeline file."""

from __future__ import annotations

import json

import pytest

from callphases.connections import gateway_to_score, services_of
from callphases.errors import ConfigurationError
from callphases.segmentation.gateway import Gateway
from doubles import KEY, Web, chat_answer, pipeline

OWN_KEY = "own-key-5678"
OWN = pipeline(connections={"gateway": "my_llm"})


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, web: Web) -> None:
    for name in ("ASSEMBLYAI_BASE_URL", "CALLPHASES_LLM_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", KEY)
    monkeypatch.setenv("LLM_GATEWAY_URL", web.url)
    web.respond = lambda _: chat_answer("hello")


def sent_key(gateway: Gateway, web: Web) -> str | None:
    gateway.chat("m", [{"role": "user", "content": "Hi."}], max_tokens=10)
    return web.requests[-1].headers.get("authorization")


def test_key_of_the_account_is_sent_as_it_is(web: Web) -> None:
    _, gateway = services_of(pipeline())
    assert sent_key(gateway, web) == KEY
    assert gateway.settings == ("ASSEMBLYAI_API_KEY", "LLM_GATEWAY_URL")
    assert sent_key(gateway_to_score(None), web) == KEY


def test_own_key_is_a_bearer_token(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLPHASES_LLM_KEY", OWN_KEY)
    for own in (pipeline(), OWN):
        speech, gateway = services_of(own)
        assert speech.url == "https://api.assemblyai.com"
        assert sent_key(gateway, web) == f"Bearer {OWN_KEY}"
        assert gateway.settings.key == "CALLPHASES_LLM_KEY"
    monkeypatch.setenv("CALLPHASES_LLM_KEY", f"Bearer {OWN_KEY}")
    assert sent_key(gateway_to_score(f"{web.url}/v1"), web) == f"Bearer {OWN_KEY}"


def test_own_key_for_the_vendors_gateway_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASSEMBLYAI_API_KEY")
    monkeypatch.delenv("LLM_GATEWAY_URL")
    monkeypatch.setenv("CALLPHASES_LLM_KEY", OWN_KEY)
    for url in (None, "https://llm-gateway.eu.assemblyai.com/v1"):
        gateway = gateway_to_score(url)
        assert gateway._session.headers["authorization"] == OWN_KEY


def test_account_key_is_not_sent_to_a_gateway_of_its_own(web: Web) -> None:
    gateway = services_of(OWN)[1]
    assert sent_key(gateway, web) is None
    assert gateway.settings.key == "CALLPHASES_LLM_KEY"


def test_gateway_of_its_own_needs_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_GATEWAY_URL")
    with pytest.raises(ConfigurationError, match="'my_llm': set LLM_GATEWAY_URL and CALLPHASES_LLM_KEY beside"):
        services_of(OWN)


def test_airflow_connections_are_used_without_the_key(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow")
    monkeypatch.delenv("ASSEMBLYAI_API_KEY")
    for name, connection in {
        "ASSEMBLYAI_DEFAULT": {"conn_type": "assemblyai", "password": KEY},
        "MY_LLM": {"conn_type": "generic", "host": web.url, "password": OWN_KEY},
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))
    assert sent_key(services_of(OWN)[1], web) == f"Bearer {OWN_KEY}"


def test_scoring_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASSEMBLYAI_API_KEY")
    with pytest.raises(ConfigurationError, match="Set CALLPHASES_LLM_KEY"):
        gateway_to_score("http://127.0.0.1:9")
