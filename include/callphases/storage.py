"""A folder of an S3 bucket: the little that ledger, tables and transcripts ask of object storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from callphases.errors import ConfigurationError, ServiceUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def split_uri(uri: str) -> tuple[str, str]:
    """``s3://bucket/key`` → ``(bucket, key)``; the key is taken as it is, never unquoted."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def explain(error: Exception, bucket: str, setting: str) -> Exception:
    """The error of ours that says what an error of S3 means for ``bucket``, which ``setting`` names."""
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in ("NoSuchBucket", "InvalidBucketName"):
            return ConfigurationError(f"There is no bucket {bucket!r}: check {setting} in the pipeline file.")
        if status in (301, 400, 401, 403):
            return ConfigurationError(
                f"S3 refuses access to bucket {bucket!r} ({code}): check the AWS connection's key, region and rights, "
                f"and {setting} in the pipeline file."
            )
        return ServiceUnavailable(f"S3 answered {status} {code} for bucket {bucket!r}.")
    if isinstance(error, ParamValidationError):
        return ConfigurationError(f"{bucket!r} can't be a bucket's name: check {setting} in the pipeline file.")
    # botocore's own texts may hold a URL with its query; the kind of the error says enough.
    return ServiceUnavailable(
        f"S3 can't be reached for bucket {bucket!r} ({type(error).__name__}): check endpoint_url and credentials of "
        "the AWS connection (for the command line: AWS_PROFILE, AWS_ENDPOINT_URL, …)."
    )


@dataclass(frozen=True)
class Folder:
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
        try:
            self.client.put_object(Bucket=bucket, Key=prefix + name, Body=body, ContentType=content_type)
        except (ClientError, BotoCoreError) as error:
            raise explain(error, bucket, self.setting) from None
        return self.uri_of(name)

    def get(self, name: str) -> bytes | None:
        """The object's bytes, or None where there is none."""
        bucket, prefix = self._place
        try:
            return self.client.get_object(Bucket=bucket, Key=prefix + name)["Body"].read()
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                return None
            raise explain(error, bucket, self.setting) from None

    def delete(self, name: str) -> None:
        """Remove the object if it is there."""
        bucket, prefix = self._place
        try:
            self.client.delete_object(Bucket=bucket, Key=prefix + name)
        except (ClientError, BotoCoreError) as error:
            raise explain(error, bucket, self.setting) from None

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
