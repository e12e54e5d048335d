"""The gateway client with a real OpenAI-compatible server: llama.cpp's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import requests

import llama
from callphases.airflow.hook import AssemblyAIHook
from callphases.cues import Cue
from callphases.errors import RequestRefused, WrongKey
from callphases.segmentation.gateway import Gateway
from callphases.segmentation.segmenter import Segmenter
from callphases.segmentation.timeline import Label
from callphases.segmentation.windows import label_call
from doubles import KEY, cue, pipeline

pytestmark = pytest.mark.integration
CUES = [cue(number, number, number + 1, "Hello, this is Northline.") for number in range(1, 4)]
FIRST = Label("Introduction", 1, "")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with llama.running(tmp_path_factory.mktemp("llama")) as url:
        yield url


def segmenter(url: str, key: str = llama.KEY) -> Segmenter:
    return Segmenter(Gateway(key, url, bearer=True), pipeline(segmentation={"models": ["tiny"]}))


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_call_is_divided_by_a_real_model(url: str, end: str) -> None:
    found = segmenter(url + end).segment(CUES)
    assert found.labels == [FIRST]
    assert found.input_tokens > 1000
    assert 0 < found.output_tokens < 200


def test_model_is_checked_with_the_key(url: str) -> None:
    assert segmenter(url).gateway.check(["tiny"])


@pytest.mark.parametrize("key", ["wrong", ""])
def test_wrong_key_is_an_account_error(url: str, key: str) -> None:
    asking = segmenter(url, key)
    with pytest.raises(WrongKey, match="Invalid API Key"):
        asking.gateway.check(["tiny"])
    with pytest.raises(WrongKey):
        asking.segment(CUES)


def test_answer_without_a_schema_runs_into_the_token_limit(url: str) -> None:
    answer = segmenter(url).gateway.chat("tiny", [{"role": "user", "content": "Hi."}], max_tokens=20)
    assert answer.cut
    assert answer.output_tokens == 20


def test_call_beyond_the_context_is_divided_until_it_fits(url: str) -> None:
    cues = [cue(number, number, number + 1, "word " * 40) for number in range(1, 23)]
    asking = segmenter(url)
    with pytest.raises(RequestRefused, match="exceeds the available context size") as told:
        asking.segment(cues)
    assert told.value.too_long
    parts: list[int] = []

    def ask(part: Sequence[Cue]) -> list[Label]:
        # The model always names cue 1, which later windows don't have.
        found = asking.segment([replace(one, number=number) for number, one in enumerate(part, start=1)])
        parts.append(len(part))
        return [replace(label, start_cue=part[0].number) for label in found.labels]

    assert label_call(cues, ask) == [FIRST]
    assert len(parts) > 1


def test_airflow_connection_of_its_own_is_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = url.removeprefix("http://").split(":")
    connection = {"conn_type": "http", "host": host, "port": int(port), "password": llama.KEY}
    monkeypatch.setenv("AIRFLOW_CONN_MY_LLM", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_ASSEMBLYAI_DEFAULT", json.dumps({"conn_type": "assemblyai", "password": KEY}))
    service, gateway = AssemblyAIHook().get_clients("my_llm")
    assert service.url == "https://api.assemblyai.com"
    assert Segmenter(gateway, pipeline(segmentation={"models": ["tiny"]})).segment(CUES).labels == [FIRST]


def test_server_refuses_what_has_no_key(url: str) -> None:
    assert requests.post(f"{url}/v1/chat/completions", json={}, timeout=30).status_code == 401
