"""Runs of the transcription, on the servers of the core's tests."""

from __future__ import annotations

import pytest

from callphases.state import workers
from doubles import OneThread, Speech, Store
from transcribing import Runner


@pytest.fixture(autouse=True)
def one_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send requests one after the other, except in tests marked ``threads``."""
    if "threads" not in request.keywords:
        monkeypatch.setattr(workers, "ThreadPoolExecutor", OneThread)


@pytest.fixture
def runner(s3: Store, speech: Speech) -> Runner:
    return Runner(s3, speech)
