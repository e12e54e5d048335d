"""The one configuration of S3 clients, for the Dag, the command line and the doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from callphases.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
ATTEMPTS = 6


def client_config(*, someone_waits: bool = False) -> Config:
    """Signatures, checksums, retries and timeouts of every client.

    SigV4 presigns for every region and is what every server checks. Checksums are sent only where S3 wants them, as not
    every S3 server knows the newer ones.

    Args:
        someone_waits: a person waits for the answer, and rather reads after 20 seconds that S3 does not answer.
    """
    return Config(
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 2 if someone_waits else ATTEMPTS},
        connect_timeout=3 if someone_waits else CONNECT_TIMEOUT_S,
        read_timeout=10 if someone_waits else READ_TIMEOUT_S,
    )


def client_from_environment() -> S3Client:
    """A client set up as boto3 is (AWS_PROFILE, AWS_ENDPOINT_URL, …).

    Raises:
        ConfigurationError: the environment does not make a client.
    """
    try:
        return boto3.client("s3", config=client_config())
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"S3 can't be set up: {error}") from None
