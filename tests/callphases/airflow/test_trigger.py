"""The trigger: its serialization, and its event for each outcome."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from callphases.airflow import trigger
from callphases.airflow.hook import AssemblyAIHook
from callphases.airflow.trigger import TranscriptsTrigger
from callphases.errors import AccountError
from callphases.transcription.assemblyai import Job


class Service:
    """Answers each lookup with the next of ``rounds``, or raises it."""

    def __init__(self, *rounds: Any) -> None:
        self.rounds = list(rounds)
        self.asked: list[list[str]] = []

    def jobs(self, ids: list[str]) -> dict[str, Job]:
        self.asked.append(list(ids))
        answer = self.rounds.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {id_: Job(id_, status) for id_, status in zip(ids, answer, strict=True)}


def fire(service: Service, monkeypatch: pytest.MonkeyPatch, *ids: str, **more: Any) -> list[dict[str, Any]]:
    async def aget_conn(self: AssemblyAIHook) -> Service:
        return service

    monkeypatch.setattr(AssemblyAIHook, "aget_conn", aget_conn)

    async def events() -> list[dict[str, Any]]:
        return [event.payload async for event in TranscriptsTrigger("conn", list(ids), 0, **more).run()]

    return asyncio.run(events())


def test_serialization_has_only_ids_and_numbers_and_round_trips() -> None:
    path, kwargs = TranscriptsTrigger("conn", ["a", "b"], 20).serialize()
    assert path == "callphases.airflow.trigger.TranscriptsTrigger"
    assert json.loads(json.dumps(kwargs)) == {
        "conn_id": "conn",
        "transcript_ids": ["a", "b"],
        "poll_interval_s": 20,
        "enough": 2,
        "first_look_s": 20,
    }
    assert TranscriptsTrigger(**kwargs).serialize() == (path, kwargs)


def test_trigger_fires_once_when_all_jobs_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(["completed", "processing"], ["error"])
    assert fire(service, monkeypatch, "a", "b") == [{"status": "ended"}]
    assert service.asked == [["a", "b"], ["b"]], "ended jobs are not looked up again"


def test_trigger_fires_when_enough_jobs_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(["completed", "processing", "queued"], ["error", "queued"])
    assert fire(service, monkeypatch, "a", "b", "c", enough=2) == [{"status": "ended"}]
    assert service.asked == [["a", "b", "c"], ["b", "c"]]


def test_lookups_start_when_expected_and_become_less_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(trigger, "asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    service = Service(*[["processing"]] * 20, ["completed"])

    async def aget_conn(self: AssemblyAIHook) -> Service:
        return service

    monkeypatch.setattr(AssemblyAIHook, "aget_conn", aget_conn)

    async def wait() -> None:
        async for _ in TranscriptsTrigger("conn", ["a"], 20, first_look_s=300).run():
            pass

    asyncio.run(wait())
    assert 300 <= slept[0] <= 360
    assert 25 <= slept[1] <= 30
    assert all(60 <= pause_s <= 72 for pause_s in slept[6:])
    assert len(set(slept)) == len(slept), "with jitter"


def test_known_error_becomes_an_event_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fire(Service(AccountError("the key")), monkeypatch, "a") == [{"status": "error", "message": "the key"}]


def test_unknown_error_becomes_an_event_without_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    [event] = fire(Service(RuntimeError("https://bucket/key?X-Amz-Signature=secret")), monkeypatch, "a")
    assert event == {"status": "error", "message": "The lookup failed: RuntimeError."}
