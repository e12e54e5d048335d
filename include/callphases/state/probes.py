"""Probes of the object store for ``callphases doctor``: its clock, access rights and conditional writes.

Each probe returns what it observed; the doctor decides what that means. A probe leaves no object behind.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from botocore.exceptions import BotoCoreError, ClientError

from callphases.state.bucket import RecordingBucket
from callphases.state.storage import ObjectPrefix, explain, response_time

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 15.0
"""Of the request that tries a presigned URL."""


@dataclass(frozen=True)
class UrlProbe:
    """The response to a GET of a presigned URL: its status, or why there was none (the name of an exception).

    ``uses_session_token`` means that temporary credentials signed the URL, so it expires with them.
    """

    status: int | None
    failure: str = ""
    uses_session_token: bool = False


@dataclass(frozen=True)
class WriteProbe:
    """Whether a store honors If-Match and If-None-Match, and whether reads see the latest write or delete."""

    honors_conditions: bool
    is_consistent: bool = False


def clock_skew_s(bucket: RecordingBucket) -> float | None:
    """How many seconds this machine's clock is ahead of the store's; None if the store does not send its time.

    Raises:
        ConfigurationError, ServiceUnavailable: the store does not answer.
    """
    sent_at = dt.datetime.now(dt.UTC)
    try:
        response: Any = bucket.client.head_bucket(Bucket=bucket.name)
    except ClientError as error:  # an error response carries a Date header too
        response = error.response
    except BotoCoreError as error:
        raise explain(error, bucket.name, "recordings.bucket") from None
    stores = response_time(response)
    if stores is None:
        return None
    # Half of the round trip is not skew, and neither is, on average, half of the second that the header truncates.
    ours = sent_at + (dt.datetime.now(dt.UTC) - sent_at) / 2
    return (ours - stores).total_seconds() - 0.5


def read_first_byte(bucket: RecordingBucket, key: str) -> None:
    """Read one byte of an object.

    Raises:
        ConfigurationError, ServiceUnavailable: it can't be read.
    """
    try:
        bucket.client.get_object(Bucket=bucket.name, Key=key, Range="bytes=0-0")["Body"].close()
    except (ClientError, BotoCoreError) as error:
        raise explain(error, bucket.name, "recordings.bucket") from None


def endpoint_host(bucket: RecordingBucket) -> str:
    """The host that presigned URLs point to."""
    return urlsplit(bucket.client.meta.endpoint_url).hostname or ""


def try_presigned_url(bucket: RecordingBucket, key: str, life_s: int) -> UrlProbe:
    """Fetch one byte of an object by a presigned URL, from this machine.

    Raises:
        ConfigurationError, ServiceUnavailable: the URL can't be signed.
    """
    url = bucket.presigned_url(key, life_s)
    uses_session_token = "X-Amz-Security-Token=" in url
    timeouts_s = CONNECT_TIMEOUT_S, READ_TIMEOUT_S
    try:
        with requests.get(url, headers={"Range": "bytes=0-0"}, timeout=timeouts_s, stream=True) as response:
            return UrlProbe(response.status_code, uses_session_token=uses_session_token)
    except requests.RequestException as error:  # its message contains the URL, so only its type is kept
        return UrlProbe(None, type(error).__name__, uses_session_token)


def try_conditional_writes(state: ObjectPrefix) -> WriteProbe:
    """Write, overwrite, read and delete an object below ``doctor/``, and list that prefix.

    Raises:
        ConfigurationError, ServiceUnavailable: the store refuses one of these, or does not answer.
    """
    name = f"doctor/{uuid.uuid4().hex}.json"
    first = state.put_if_match(name, b'{"version": 1}', None)
    honors = first is not None
    try:
        honors = honors and state.put_if_match(name, b'{"version": 2}', None) is None
        second = state.put_if_match(name, b'{"version": 3}', first) if honors else None
        honors = second is not None and state.put_if_match(name, b'{"version": 4}', first) is None
        body = state.get(name)
    finally:
        state.delete(name)
    if not honors:
        return WriteProbe(honors_conditions=False)
    if body != b'{"version": 3}' or state.get(name) is not None:
        return WriteProbe(honors_conditions=True, is_consistent=False)
    next(state.names("doctor/"), None)
    return WriteProbe(honors_conditions=True, is_consistent=True)


def try_writes(tables: ObjectPrefix, folders: Iterable[str]) -> None:
    """Check the right to write below each folder without writing: a PUT whose If-Match can't hold needs that right too.

    Raises:
        ConfigurationError, ServiceUnavailable: objects can't be written.
    """
    for folder in folders:
        name = f"{folder}/.doctor-{uuid.uuid4().hex}"
        if tables.put_if_match(name, b"", f'"{uuid.uuid4().hex}"') is not None:
            tables.delete(name)
