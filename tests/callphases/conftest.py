"""Servers on this machine for the core's tests: HTTP to script, S3, a speech service. Nothing is mocked but time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from hypothesis import settings

from doubles import KEY, Clock, Speech, Store, Web, serving

# Where dependencies are at their oldest there is no FFmpeg, which makes the files of these tests.
collect_ignore = (
    []
    if find_spec("av")
    else [
        "cli/test_plan.py",
        "limits/test_audio_files.py",
        "pages/test_audio_formats.py",
        "pages/test_conversion.py",
        "planning/test_plan.py",
        "sources/test_audio_tags.py",
    ]
)

# A busy machine is slow, which is no reason to fail; and what was found once belongs in a test, not in a folder.
settings.register_profile("callphases", deadline=None, database=None)
settings.register_profile("few", settings.get_profile("callphases"), max_examples=10)
settings.load_profile("callphases")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The core's clock, and the store's. Servers in threads keep theirs, and so do timeouts of requests."""
    clock = Clock()
    monkeypatch.setattr("callphases.clock.time", clock)
    return clock


@pytest.fixture(autouse=True)
def waits(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that back-off has slept; they pass on the clock too."""
    seconds: list[float] = []

    def back_off(wait_s: float) -> None:
        seconds.append(wait_s)
        clock.wait(wait_s)

    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=back_off))
    monkeypatch.setattr("tenacity.time", clock)
    return seconds


@pytest.fixture
def web() -> Iterator[Web]:
    """An HTTP server that answers what the test says."""
    with serving() as server:
        yield server


@pytest.fixture
def models() -> Iterator[Web]:
    """Another one, to stand for the language model gateway beside a speech service."""
    with serving() as server:
        yield server


@pytest.fixture
def speech(web: Web) -> Speech:
    """A speech service with a life of its own."""
    return Speech(web)


@pytest.fixture
def s3(s3_url: str, clock: Clock) -> Store:
    """Empty buckets, with names of their own for each test."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key=KEY,
        config=Config(signature_version="s3v4", max_pool_connections=20),
    )
    client.meta.events.register("before-sign.s3.PutObject", _without_a_question_first)
    name = uuid.uuid4().hex[:12]
    return Store(client, s3_url, f"recordings-{name}", f"warehouse-{name}", clock)


def _without_a_question_first(request: Any, **_: object) -> None:
    """Expect: 100-continue makes every PUT wait for the server of the tests, which answers that late."""
    if "Expect" in request.headers:
        del request.headers["Expect"]
