"""The bucket that holds the recordings: lists, reads and presigns its objects."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from callphases.errors import CallphasesError, RecordingGone
from callphases.recordings import Recording
from callphases.state.storage import code_of, explain, response_time, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PIECE_BYTES = 1 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class ListedObject:
    """One entry of a LIST response: ``size`` in bytes, ``etag`` without quotes."""

    key: str
    etag: str
    size: int
    last_modified: dt.datetime


@dataclass(frozen=True)
class Page:
    """One LIST response; ``answered_at`` is the store's clock, or None if the response has no Date header."""

    objects: list[ListedObject]
    answered_at: dt.datetime | None


@dataclass(frozen=True)
class RecordingBucket:
    """``recordings.bucket`` of a pipeline. Thread-safe.

    Unless a method says otherwise it raises ConfigurationError (no such bucket, no rights) or ServiceUnavailable.
    """

    client: S3Client
    name: str

    def pages(self, prefix: str) -> Iterator[Page]:
        """The objects whose keys start with ``prefix``, in key order, one page for each LIST request."""
        try:
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                objects = [
                    ListedObject(item["Key"], item["ETag"].strip('"'), item["Size"], item["LastModified"])
                    for item in page.get("Contents", [])
                ]
                yield Page(objects, response_time(page))
        except (ClientError, BotoCoreError) as error:
            raise self._explained(error) from None

    def presigned_url(self, key: str, life_s: int) -> str:
        """A URL that lets anybody fetch the object for ``life_s`` seconds. Signing sends no request."""
        try:
            return self.client.generate_presigned_url(
                "get_object", Params={"Bucket": self.name, "Key": key}, ExpiresIn=life_s
            )
        except (ClientError, BotoCoreError) as error:
            raise self._explained(error) from None

    def pieces(self, recording: Recording) -> Iterator[bytes]:
        """The bytes of a recording, one mebibyte at a time.

        Raises:
            RecordingGone: it was deleted or replaced after it was listed.
        """
        try:
            body = self.client.get_object(Bucket=self.name, Key=recording.key, IfMatch=f'"{recording.etag}"')["Body"]
            yield from body.iter_chunks(PIECE_BYTES)
        except (ClientError, BotoCoreError) as error:
            if code_of(error) in ("NoSuchKey", "PreconditionFailed", "404", "412"):
                raise RecordingGone("The recording was deleted or replaced after it was listed.") from None
            raise self._explained(error) from None

    def byte_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes from ``start`` up to, but not including, ``end``.

        Raises:
            OSError: S3 did not return them, for whatever reason.
        """
        try:
            return self.client.get_object(Bucket=self.name, Key=key, Range=f"bytes={start}-{end - 1}")["Body"].read()
        except (ClientError, BotoCoreError) as error:
            raise OSError(type(error).__name__) from None

    def metadata(self, key: str) -> dict[str, str] | None:
        """The metadata of an object, by lower-case names; None if there is no such object.

        Raises:
            AccessDenied: the connection lacks s3:GetObject for it.
        """
        found = self._unless_gone(key, "s3:GetObject", lambda: self.client.head_object(Bucket=self.name, Key=key))
        return None if found is None else {name.lower(): text for name, text in found["Metadata"].items()}

    def tags(self, key: str) -> dict[str, str] | None:
        """The tags of an object; None if there is no such object.

        Raises:
            AccessDenied: the connection lacks s3:GetObjectTagging for it.
        """
        found = self._unless_gone(
            key, "s3:GetObjectTagging", lambda: self.client.get_object_tagging(Bucket=self.name, Key=key)
        )
        return None if found is None else {tag["Key"]: tag["Value"] for tag in found["TagSet"]}

    def _unless_gone(self, key: str, right: str, request: Callable[[], _T]) -> _T | None:
        try:
            return request()
        except (ClientError, BotoCoreError) as error:
            status = status_of(error)
            if status == 404:
                return None
            if status == 403:
                raise AccessDenied(f"s3://{self.name}/{key}", right) from None
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> Exception:
        return explain(error, self.name, "recordings.bucket")


class AccessDenied(CallphasesError):
    """The AWS connection lacks ``right`` for the object ``uri``."""

    def __init__(self, uri: str, right: str) -> None:
        super().__init__(f"{uri}: the AWS connection lacks the right {right}.")
        self.uri, self.right = uri, right
