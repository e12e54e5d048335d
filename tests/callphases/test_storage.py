"""The little that is asked of object storage, and what its errors say."""

from __future__ import annotations

import boto3
import pytest
from botocore.config import Config

from callphases.errors import ConfigurationError, ServiceUnavailable
from callphases.storage import Folder, split_uri
from doubles import KEY, Store, Web


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket/a/b.mp3", ("bucket", "a/b.mp3")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://bucket//a", ("bucket", "/a")),
        ("s3://bucket/a%20b+c", ("bucket", "a%20b+c")),
        ("s3://bucket/s3://other", ("bucket", "s3://other")),
    ],
)
def test_a_uri_is_a_bucket_and_a_key_as_it_is(uri: str, parts: tuple[str, str]) -> None:
    assert split_uri(uri) == parts


@pytest.mark.integration
def test_what_is_put_can_be_got(s3: Store) -> None:
    uri = s3.state.put("a/b.json", b"{}", "application/json")
    assert uri == f"s3://{s3.warehouse}/state/a/b.json"
    assert s3.state.get("a/b.json") == b"{}"


@pytest.mark.integration
def test_what_is_not_there_is_none(s3: Store) -> None:
    assert s3.state.get("nothing") is None


@pytest.mark.integration
def test_deleting_twice_is_no_error(s3: Store) -> None:
    s3.state.put("a", b"1")
    s3.state.delete("a")
    s3.state.delete("a")
    assert s3.state.get("a") is None


@pytest.mark.integration
def test_names_are_those_below_in_order(s3: Store) -> None:
    for name in ("b/2", "b/1", "c", "b"):
        s3.state.put(name, b"")
    assert list(s3.state.names("b/")) == ["b/1", "b/2"]


@pytest.mark.integration
def test_a_whole_bucket_can_be_a_folder(s3: Store) -> None:
    folder = Folder(s3.client, f"s3://{s3.warehouse}/", "output.state")
    folder.put("ledger/a", b"1")
    assert s3.keys() == ["ledger/a"]
    assert list(folder.names("ledger/")) == ["ledger/a"]


ACTIONS = {
    "put": lambda folder: folder.put("a", b""),
    "get": lambda folder: folder.get("a"),
    "delete": lambda folder: folder.delete("a"),
    "names": lambda folder: list(folder.names("")),
}


@pytest.mark.integration
@pytest.mark.parametrize("action", ACTIONS)
def test_a_bucket_that_is_not_there_names_the_setting(s3: Store, action: str) -> None:
    folder = Folder(s3.client, "s3://nowhere/state/", "output.state")
    with pytest.raises(ConfigurationError, match=r"no bucket 'nowhere': check output\.state"):
        ACTIONS[action](folder)


def folder_at(url: str, bucket: str = "warehouse") -> Folder:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key=KEY,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2),
    )
    return Folder(client, f"s3://{bucket}/state/", "output.state")


def s3_error(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
    return status, {"content-type": "application/xml"}, body.encode()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (403, "AccessDenied", ConfigurationError, r"refuses access.*AccessDenied.*key, region and rights"),
        (403, "SignatureDoesNotMatch", ConfigurationError, "refuses access"),
        (400, "ExpiredToken", ConfigurationError, "refuses access"),
        (503, "SlowDown", ServiceUnavailable, "answered 503 SlowDown"),
        (500, "InternalError", ServiceUnavailable, "answered 500 InternalError"),
    ],
)
def test_an_error_of_s3_says_what_it_means(
    web: Web, action: str, status: int, code: str, error: type[Exception], words: str
) -> None:
    web.answers = [s3_error(status, code)]
    with pytest.raises(error, match=words):
        ACTIONS[action](folder_at(web.url))


def test_a_store_that_cannot_be_reached_names_the_connection() -> None:
    with pytest.raises(ServiceUnavailable, match=r"can't be reached.*endpoint_url") as error:
        folder_at("http://127.0.0.1:9").get("a")
    assert "127.0.0.1" not in str(error.value)


def test_a_name_that_no_bucket_can_have_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"output\.state"):
        folder_at("http://127.0.0.1:9", bucket="call recordings").get("a")
