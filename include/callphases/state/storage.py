"""Objects below a prefix of an S3 bucket: reads, atomic writes and conditional writes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ParamValidationError,
    ResponseStreamingError,
)
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from callphases.errors import ConfigurationError, ServiceUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

TRIES = 4
"""On top of botocore's own retries: for bodies that break off and single refused PUTs, which it does not retry."""
PIECE_BYTES = 1 << 20
_T = TypeVar("_T")


def split_uri(uri: str) -> tuple[str, str]:
    """``s3://bucket/key`` → ``(bucket, key)``; the key is never unquoted."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def code_of(error: BaseException) -> str:
    """The error code of S3, such as NoSuchKey; empty where S3 did not answer."""
    return str(details_of(error).get("Code", ""))


def details_of(error: BaseException) -> Mapping[str, Any]:
    """What S3 says of an error, by the names of its XML elements; empty where S3 did not answer."""
    return error.response.get("Error", {}) if isinstance(error, ClientError) else {}


def status_of(error: BaseException) -> int:
    """The HTTP status of an error of S3; 0 where S3 did not answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def response_time(response: Any) -> dt.datetime | None:
    """The store's clock when it sent a response, in whole seconds; None if the response has no valid Date header."""
    try:
        return parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, ValueError, TypeError):
        return None


def explain(error: Exception, bucket: str, setting: str) -> Exception:
    """Translate an error of S3 into one that names the bucket and the ``setting`` to change.

    A setting with a dot, such as output.tables, is the pipeline file's; others are the command line's.
    """
    where = f"{setting} in the pipeline file" if "." in setting else setting
    if isinstance(error, ClientError):
        code, status = code_of(error), status_of(error)
        if code in ("NoSuchBucket", "InvalidBucketName"):
            return ConfigurationError(f"There is no bucket {bucket!r}: check {where}.")
        if status in (301, 400, 401, 403):
            return ConfigurationError(
                f"S3 refuses access to bucket {bucket!r} ({code}): check the AWS connection's key, region and rights, "
                f"and {where}."
            )
        if status == 501:
            return ConfigurationError(
                f"The store of bucket {bucket!r} does not do conditional writes (If-Match, If-None-Match): "
                f"choose another for {setting}."
            )
        return ServiceUnavailable(f"S3 answered {status} {code} for bucket {bucket!r}.")
    if isinstance(error, ParamValidationError):
        return ConfigurationError(f"{bucket!r} can't be a bucket's name: check {where}.")
    # botocore's own texts may hold a URL with its query; the kind of the error says enough.
    return ServiceUnavailable(
        f"S3 can't be reached for bucket {bucket!r} ({type(error).__name__}): check endpoint_url and credentials of "
        "the AWS connection (for the command line: AWS_PROFILE, AWS_ENDPOINT_URL, …)."
    )


@dataclass(frozen=True)
class StoredObject:
    """An object as it was read. ``age_s``: seconds since it was written, by the store's clock.

    ``read_at`` is the store's clock when it answered, in whole seconds since 1970; None where it does not tell.
    """

    body: bytes
    etag: str
    age_s: float
    read_at: float | None = None


@dataclass(frozen=True)
class Tail:
    """The end of an object: its last bytes, and the ``size`` and ``etag`` of the whole."""

    body: bytes
    size: int
    etag: str


@dataclass(frozen=True)
class ObjectVersion:
    """Which bytes an object has at the moment, and how many."""

    etag: str
    size: int


@dataclass(frozen=True)
class ObjectPrefix:
    """A prefix of a bucket; names are relative to it. ``setting`` names the pipeline file's key in errors.

    Every method raises ConfigurationError (no such bucket, no rights) or ServiceUnavailable.
    """

    client: S3Client
    uri: str
    setting: str

    @property
    def _place(self) -> tuple[str, str]:
        return split_uri(self.uri)

    def uri_of(self, name: str) -> str:
        """The whole URI of ``name``."""
        return self.uri + name

    def put(self, name: str, body: bytes, content_type: str = "application/octet-stream") -> str:
        """Write one object with one PUT and return its URI."""
        bucket, prefix = self._place
        self._tried(
            lambda: self.client.put_object(Bucket=bucket, Key=prefix + name, Body=body, ContentType=content_type),
            writing=True,
        )
        return self.uri_of(name)

    def put_file(self, name: str, path: Path, content_type: str = "application/octet-stream") -> str:
        """Write one object from a file (up to 5 GB, as S3 has it) with one PUT and return its URI."""
        bucket, prefix = self._place

        def send() -> None:
            with path.open("rb") as body:
                self.client.put_object(Bucket=bucket, Key=prefix + name, Body=body, ContentType=content_type)

        self._tried(send, writing=True)
        return self.uri_of(name)

    def put_if_match(
        self, name: str, body: bytes, etag: str | None, content_type: str = "application/json"
    ) -> str | None:
        """Write an object if its ETag is still ``etag`` (None: if it does not exist); returns the new ETag.

        Returns None where it is another by now, and nothing was written. A PUT that succeeded and whose answer was lost
        counts as written, so a body had better be unlike those of other writers.
        """
        bucket, prefix = self._place
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            done = self._tried(
                lambda: self.client.put_object(
                    Bucket=bucket, Key=prefix + name, Body=body, ContentType=content_type, **condition
                ),
                writing=True,
                expected=(404, 412),
            )
        except ClientError:
            stored = self.look(name)
            return stored.etag if stored is not None and stored.body == body else None
        return done["ETag"]

    def get(self, name: str) -> bytes | None:
        """The object's bytes; None if it does not exist."""
        stored = self.look(name)
        return None if stored is None else stored.body

    def version(self, name: str) -> ObjectVersion | None:
        """The object's ETag and size, without its bytes; None if it does not exist."""
        bucket, prefix = self._place

        def ask() -> ObjectVersion:
            answer = self.client.head_object(Bucket=bucket, Key=prefix + name)
            return ObjectVersion(answer["ETag"], answer["ContentLength"])

        return self._found(ask)

    def look(self, name: str) -> StoredObject | None:
        """The object with its ETag and age; None if it does not exist."""
        bucket, prefix = self._place

        def read() -> StoredObject:
            answer = self.client.get_object(Bucket=bucket, Key=prefix + name)
            return StoredObject(answer["Body"].read(), answer["ETag"], _age_s(answer), _read_at(answer))

        return self._found(read)

    def tail(self, name: str, count: int) -> Tail | None:
        """The last ``count`` bytes of an object, or all of them if it is shorter; None if it does not exist."""
        bucket, prefix = self._place

        def read() -> Tail:
            try:
                answer = self.client.get_object(Bucket=bucket, Key=prefix + name, Range=f"bytes=-{count}")
            except ClientError as error:
                if code_of(error) == "InvalidRange":  # the object is empty
                    return Tail(b"", 0, "")
                raise
            body = answer["Body"].read()
            whole = answer.get("ContentRange", "").rpartition("/")[2]
            return Tail(body, int(whole) if whole.isdecimal() else len(body), answer["ETag"])

        return self._found(read)

    def part(self, name: str, start: int, end: int, etag: str) -> bytes | None:
        """The bytes from ``start`` up to, but not including, ``end``; None if the object is another by now, or gone."""
        bucket, prefix = self._place

        def read() -> bytes:
            what: Any = {"Bucket": bucket, "Key": prefix + name, "Range": f"bytes={start}-{end - 1}", "IfMatch": etag}
            return self.client.get_object(**what)["Body"].read()

        try:
            return self._tried(read, expected=(404, 412))
        except ClientError as error:
            if status_of(error) == 412 or code_of(error) in ("NoSuchKey", "404"):
                return None
            raise explain(error, bucket, self.setting) from None

    def fetch(self, name: str, path: Path) -> bool:
        """Stream the object to a file; returns whether it exists."""
        bucket, prefix = self._place

        def copy() -> bool:
            body = self.client.get_object(Bucket=bucket, Key=prefix + name)["Body"]
            with path.open("wb") as file:
                file.writelines(body.iter_chunks(PIECE_BYTES))
            return True

        return self._found(copy) is not None

    def _found(self, read: Callable[[], _T]) -> _T | None:
        try:
            return self._tried(read, expected=(404,))
        except ClientError as error:
            if code_of(error) in ("NoSuchKey", "404"):
                return None
            raise explain(error, self._place[0], self.setting) from None

    def delete(self, name: str) -> None:
        """Delete the object, if it exists."""
        bucket, prefix = self._place
        self._tried(lambda: self.client.delete_object(Bucket=bucket, Key=prefix + name), writing=True)

    def names(self, below: str) -> Iterator[str]:
        """The names that begin with ``below``, in key order."""
        bucket, prefix = self._place
        try:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + below)
            for page in pages:
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(prefix)
        except (ClientError, BotoCoreError) as error:
            raise explain(error, bucket, self.setting) from None

    def children(self, below: str) -> Iterator[list[str]]:
        """What is directly below ``below``: names up to their next slash, and objects; a list for each LIST request."""
        bucket, prefix = self._place
        try:
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix + below, Delimiter="/"
            )
            for page in pages:
                found = [one["Prefix"] for one in page.get("CommonPrefixes", [])]
                found += [one["Key"] for one in page.get("Contents", [])]
                yield [name.removeprefix(prefix) for name in found]
        except (ClientError, BotoCoreError) as error:
            raise explain(error, bucket, self.setting) from None

    def folders(self) -> list[str]:
        """What names begin with, up to their first slash, such as ``calls/``, and names without one.

        In key order, the first thousand; empty if there is no object below the prefix.
        """
        bucket, prefix = self._place
        try:
            page = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
        except (ClientError, BotoCoreError) as error:
            raise explain(error, bucket, self.setting) from None
        keys = [one["Prefix"] for one in page.get("CommonPrefixes", [])] + [
            one["Key"] for one in page.get("Contents", [])
        ]
        return sorted(key.removeprefix(prefix) for key in keys)

    def _tried(self, request: Callable[[], _T], *, writing: bool = False, expected: tuple[int, ...] = ()) -> _T:
        """Send a request, with retries; an error with an ``expected`` status is raised unchanged."""
        retrying = Retrying(
            retry=retry_if_exception(lambda error: _may_pass(error, writing) and status_of(error) not in expected),
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential(multiplier=0.5, max=4) + wait_random(0, 1),
            reraise=True,
        )
        try:
            return retrying(request)
        except (ClientError, BotoCoreError) as error:
            if status_of(error) in expected:
                raise
            raise explain(error, self._place[0], self.setting) from None


def _may_pass(error: BaseException, writing: bool) -> bool:
    if isinstance(error, ClientError):
        # A PUT that is refused once may be the store's mood; a GET is a matter of rights.
        return writing and status_of(error) < 500 and code_of(error) != "NoSuchBucket"
    return isinstance(error, ResponseStreamingError | IncompleteReadError)


def _age_s(answer: Any) -> float:
    written: dt.datetime = answer["LastModified"]
    now = _read_at(answer)
    return max((dt.datetime.now(dt.UTC).timestamp() if now is None else now) - written.timestamp(), 0.0)


def _read_at(answer: Any) -> float | None:
    moment = response_time(answer)
    return None if moment is None else moment.timestamp()
