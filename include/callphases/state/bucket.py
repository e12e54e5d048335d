"""The bucket that holds the recordings: lists, reads and presigns its objects."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from callphases import date_prefixes
from callphases.errors import AccessDenied, Archived, RecordingGone, without_secrets
from callphases.recordings import Recording
from callphases.state.storage import code_of, details_of, explain, response_time, status_of

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef

PIECE_BYTES = 1 << 20
MOST_LISTED = 1000
"""Entries of a LIST response."""
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects have to be restored. That Intelligent-Tiering has archived one shows on reading it."""
_CONNECTION_CODES = frozenset(
    {
        "AccountProblem",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NotSignedUp",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""403s that are about the credentials or the clock, and so about every object. From the list of S3's error codes."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class ListedObject:
    """One entry of a LIST response: ``size`` in bytes, ``etag`` without quotes.

    ``archived_in`` is the storage class that it has to be restored from; empty if it can be read.
    """

    key: str
    etag: str
    size: int
    last_modified: dt.datetime
    archived_in: str = ""


@dataclass(frozen=True)
class Page:
    """One LIST response; ``answered_at`` is the store's clock, or None if the response has no Date header."""

    objects: list[ListedObject]
    answered_at: dt.datetime | None


@dataclass(frozen=True)
class Opening:
    """How an object begins: its first bytes, with the ``etag`` (without quotes) and the ``size`` of the whole."""

    etag: str
    size: int
    head: bytes


@dataclass(frozen=True)
class RecordingBucket:
    """``recordings.bucket`` of a pipeline. Thread-safe. ``page_size``: objects of a LIST response.

    Unless a method says otherwise it raises ConfigurationError (no such bucket, no rights) or ServiceUnavailable. What
    is wrong with one object alone is a CallFailure: RecordingGone, Archived or AccessDenied.
    """

    client: S3Client
    name: str
    page_size: int = MOST_LISTED

    def pages(self, prefix: str) -> Iterator[Page]:
        """The objects whose keys start with ``prefix``, in key order, one page for each LIST request.

        There is one page at least. The prefix may have the placeholders of ``date_prefixes``.
        """
        try:
            for one in self.expanded(prefix):
                for page in self._list(one):
                    yield Page([_listed(item) for item in page.get("Contents", [])], response_time(page))
        except (ClientError, BotoCoreError) as error:
            raise self._explained(error) from None

    def expanded(self, prefix: str) -> list[str]:
        """The prefixes that one with placeholders stands for, in order; if there are none, the one as it is.

        Takes a LIST request for each thousand folders where any folder will do.
        """
        if not date_prefixes.is_pattern(prefix):
            return [prefix]
        head, any_folder, tail = prefix.partition(date_prefixes.ANY_FOLDER)
        if not any_folder:
            return date_prefixes.spellings(prefix)
        folders = (folder for spelling in date_prefixes.spellings(head) for folder in self._folders(spelling))
        return sorted(one for folder in folders for one in self.expanded(folder.removesuffix("/") + tail)) or [prefix]

    def _folders(self, prefix: str) -> Iterator[str]:
        """The prefixes of a folder more, such as ``connect/one/`` for ``connect/``."""
        after = ""
        while True:
            objects, folders = self.look(prefix, after=after)
            yield from folders
            names = [*(one.key for one in objects), *folders]
            if len(names) < MOST_LISTED:
                return
            # After a folder come the keys that are in it; no key comes before the last sign of all.
            after = max(names) + ("\U0010ffff" if max(names).endswith("/") else "")

    def look(self, prefix: str, *, after: str = "", most: int = 1000) -> tuple[list[ListedObject], list[str]]:
        """What is directly below a prefix, by one LIST request: objects, and what keys have up to their next slash.

        Args:
            prefix: of the keys.
            after: only keys that come after it in key order.
            most: at most this many, of both in all; a thousand is the most that S3 returns.
        """
        return self._look(prefix, after, most, "/")

    def look_below(self, prefix: str, *, after: str = "", most: int = 1000) -> list[ListedObject]:
        """Objects below a prefix, at any depth, by one LIST request; the arguments are those of ``look``."""
        return self._look(prefix, after, most, "")[0]

    def _look(self, prefix: str, after: str, most: int, delimiter: str) -> tuple[list[ListedObject], list[str]]:
        more: dict[str, Any] = {
            name: value for name, value in (("StartAfter", after), ("Delimiter", delimiter)) if value
        }
        try:
            page = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=most, **more)
        except (ClientError, BotoCoreError) as error:
            raise self._explained(error) from None
        objects = [_listed(item) for item in page.get("Contents", [])]
        return objects, [item["Prefix"] for item in page.get("CommonPrefixes", [])]

    def _list(self, prefix: str) -> Iterator[ListObjectsV2OutputTypeDef]:
        """LIST responses that say of archived objects whether they are restored, where the store knows that option."""
        paginator = self.client.get_paginator("list_objects_v2")
        what: Any = {"Bucket": self.name, "Prefix": prefix, "PaginationConfig": {"PageSize": self.page_size}}
        pages = iter(paginator.paginate(**what, OptionalObjectAttributes=["RestoreStatus"]))
        try:
            first = next(pages)
        except ClientError as error:
            if status_of(error) not in (400, 501) or code_of(error) in ("NoSuchBucket", "InvalidBucketName"):
                raise
            pages = iter(paginator.paginate(**what))
            first = next(pages)
        yield first
        yield from pages

    def presigned_url(self, key: str, life_s: int, *, content_type: str | None = None) -> str:
        """A URL that lets anybody fetch the object for ``life_s`` seconds. Signing sends no request.

        With ``content_type``, S3 answers with it in place of the object's own, and tells a browser to show the object
        and not to save it.
        """
        answered: dict[str, Any] = (
            {}
            if content_type is None
            else {"ResponseContentType": content_type, "ResponseContentDisposition": "inline"}
        )
        try:
            return self.client.generate_presigned_url(
                "get_object", Params={"Bucket": self.name, "Key": key, **answered}, ExpiresIn=life_s
            )
        except (ClientError, BotoCoreError) as error:
            raise self._explained(error) from None

    def check_readable(self, recording: Recording) -> None:
        """Read the first byte of a recording, which must not be empty.

        That needs all rights that reading the whole needs, such as those on its encryption key.

        Raises:
            RecordingGone, Archived, AccessDenied: the recording can't be read, as ``pieces``.
        """
        try:
            self._open(recording, Range="bytes=0-0").read()
        except (ClientError, BotoCoreError) as error:
            raise self._explained_object(error, "s3:GetObject") from None

    def pieces(self, recording: Recording) -> Iterator[bytes]:
        """The bytes of a recording, one mebibyte at a time.

        Raises:
            RecordingGone: it was deleted or replaced after it was listed.
            Archived: it has to be restored.
            AccessDenied: the connection may not read it, or not use its encryption key.
        """
        try:
            yield from self._open(recording).iter_chunks(PIECE_BYTES)
        except (ClientError, BotoCoreError) as error:
            raise self._explained_object(error, "s3:GetObject") from None

    def _open(self, recording: Recording, **more: Any) -> StreamingBody:
        etag = f'"{recording.etag}"'
        return self.client.get_object(Bucket=self.name, Key=recording.key, IfMatch=etag, **more)["Body"]

    def opening(self, key: str, most_bytes: int) -> Opening:
        """How an object begins now, whichever version was listed.

        Raises:
            RecordingGone, Archived, AccessDenied: it can't be read, as ``pieces``.
        """
        try:
            answer = self.client.get_object(Bucket=self.name, Key=key, Range=f"bytes=0-{most_bytes - 1}")
            whole = answer.get("ContentRange", "").rpartition("/")[2]
            head = answer["Body"].read(most_bytes)
            return Opening(answer["ETag"].strip('"'), int(whole or answer["ContentLength"]), head)
        except (ClientError, BotoCoreError) as error:
            if status_of(error) == 416:  # it has no first byte
                return Opening("", 0, b"")
            raise self._explained_object(error, "s3:GetObject") from None

    def part(self, key: str, etag: str, start: int, end: int) -> bytes:
        """The bytes from ``start`` up to, but not including, ``end`` of the version with this ETag.

        Raises:
            RecordingGone, Archived, AccessDenied: it can't be read, as ``pieces``.
        """
        try:
            answer = self.client.get_object(
                Bucket=self.name, Key=key, IfMatch=f'"{etag}"', Range=f"bytes={start}-{end - 1}"
            )
            return answer["Body"].read()
        except (ClientError, BotoCoreError) as error:
            raise self._explained_object(error, "s3:GetObject") from None

    def byte_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes from ``start`` up to, but not including, ``end``.

        Raises:
            OSError: S3 did not return them, for whatever reason.
        """
        try:
            return self.client.get_object(Bucket=self.name, Key=key, Range=f"bytes={start}-{end - 1}")["Body"].read()
        except (ClientError, BotoCoreError) as error:
            raise OSError(type(error).__name__) from None

    def document(self, key: str, most_bytes: int) -> bytes | None:
        """The bytes of an object, or one more than ``most_bytes`` if it is larger; None if there is no such object.

        Raises:
            AccessDenied, Archived: it can't be read.
        """

        def read() -> bytes:
            return self.client.get_object(Bucket=self.name, Key=key)["Body"].read(most_bytes + 1)

        return self._unless_gone("s3:GetObject", read)

    def metadata(self, key: str) -> dict[str, str] | None:
        """The metadata of an object, by lower-case names; None if there is no such object.

        Raises:
            AccessDenied: the connection lacks s3:GetObject for it.
        """
        found = self._unless_gone("s3:GetObject", lambda: self.client.head_object(Bucket=self.name, Key=key))
        return None if found is None else {name.lower(): text for name, text in found["Metadata"].items()}

    def tags(self, key: str) -> dict[str, str] | None:
        """The tags of an object; None if there is no such object.

        Raises:
            AccessDenied: the connection lacks s3:GetObjectTagging for it.
        """
        found = self._unless_gone(
            "s3:GetObjectTagging", lambda: self.client.get_object_tagging(Bucket=self.name, Key=key)
        )
        return None if found is None else {tag["Key"]: tag["Value"] for tag in found["TagSet"]}

    def _unless_gone(self, right: str, request: Callable[[], _T]) -> _T | None:
        try:
            return request()
        except (ClientError, BotoCoreError) as error:
            explained = self._explained_object(error, right)
            if isinstance(explained, RecordingGone):
                return None
            raise explained from None

    def _explained(self, error: Exception) -> Exception:
        return explain(error, self.name, "recordings.bucket")

    def _explained_object(self, error: ClientError | BotoCoreError, right: str) -> Exception:
        """What an error of a request for one object means; ``right`` is what the request needs."""
        code, status = code_of(error), status_of(error)
        if code == "NoSuchBucket" or code in _CONNECTION_CODES:
            return self._explained(error)
        said = without_secrets(str(details_of(error).get("Message") or ""))
        if code == "InvalidObjectState":
            storage = details_of(error).get("StorageClass") or "an archive"
            return Archived(f"S3 has the recording in {storage}: {said}")
        if status in (404, 405, 412):  # 405: its newest version is a delete marker
            return RecordingGone("The recording was deleted or replaced after it was listed.")
        if code.startswith("KMS.") or (status == 403 and "kms" in said.lower()):
            return AccessDenied(
                f"The AWS connection may not use the key that encrypts it (kms:Decrypt; {code}): {said}"
            )
        if status == 403:
            return AccessDenied(f"S3 refuses {right} ({code}): {said}")
        if status == 400 and "encrypt" in said.lower():
            return AccessDenied(f"It is encrypted with a key of its owner's, which S3 does not keep ({code}): {said}")
        return self._explained(error)


class RangeReader(io.RawIOBase):
    """An object as a file: each read is a range request, up to ``most_requests``."""

    def __init__(self, bucket: RecordingBucket, key: str, size: int, most_requests: int) -> None:
        self._bucket, self._key, self._size = bucket, key, size
        self._position = 0
        self._left = most_requests

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; returns it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        """The place."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read as much as fits; returns how much.

        Raises:
            OSError: S3 does not return it, or it would be one request too many.
        """
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        self._left -= 1
        if self._left < 0:
            raise OSError("reading the header takes too many requests")
        body = self._bucket.byte_range(self._key, self._position, end)
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)


def _listed(item: ObjectTypeDef) -> ListedObject:
    return ListedObject(item["Key"], item["ETag"].strip('"'), item["Size"], item["LastModified"], _archived_in(item))


def _archived_in(item: ObjectTypeDef) -> str:
    """The storage class of a listed object if it has to be restored; a restored one has a date until it is kept."""
    storage = str(item.get("StorageClass") or "")
    return storage if storage in ARCHIVES and "RestoreExpiryDate" not in item.get("RestoreStatus", {}) else ""
