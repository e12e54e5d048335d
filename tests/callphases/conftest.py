"""Servers on this machine for the core's tests: HTTP to script, S3, a speech service. Nothing is mocked but sleep."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from types import SimpleNamespace

import boto3
import pytest
from botocore.config import Config
from hypothesis import settings

from doubles import KEY, Speech, Store, Web, serving

# A busy machine is slow, which is no reason to fail; and what was found once belongs in a test, not in a folder.
settings.register_profile("callphases", deadline=None, database=None)
settings.load_profile("callphases")


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that back-off would have slept. Waiting for real would make a test of five attempts last half a
    minute; only tenacity's own view of the clock is replaced, as servers in threads need theirs."""
    seconds: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=seconds.append))
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
def s3(s3_url: str) -> Store:
    """Empty buckets, with names of their own for each test."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key=KEY,
        config=Config(signature_version="s3v4"),
    )
    name = uuid.uuid4().hex[:12]
    return Store(client, s3_url, f"recordings-{name}", f"warehouse-{name}")
