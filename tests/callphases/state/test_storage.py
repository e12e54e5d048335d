"""Object storage: reads, conditional writes, repeated requests and error messages."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from callphases.errors import ConfigurationError, ServiceUnavailable
from callphases.state.storage import TRIES, ObjectPrefix, split_uri
from doubles import KEY, LOST, NOON, Answer, Clock, Request, Store, Web


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
def test_uri_is_split_into_bucket_and_unquoted_key(uri: str, parts: tuple[str, str]) -> None:
    assert split_uri(uri) == parts


@pytest.mark.integration
def test_object_that_was_put_is_returned_by_get(s3: Store) -> None:
    uri = s3.state.put("a/b.json", b"{}", "application/json")
    assert uri == f"s3://{s3.warehouse}/state/a/b.json"
    assert s3.state.get("a/b.json") == b"{}"


@pytest.mark.integration
def test_get_of_a_missing_object_returns_none(s3: Store) -> None:
    assert s3.state.get("nothing") is None


@pytest.mark.integration
def test_file_that_was_put_can_be_fetched(s3: Store, tmp_path: Path) -> None:
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(bytes(range(256)) * 5000)
    assert s3.state.put_file("a", sent, "text/plain") == f"s3://{s3.warehouse}/state/a"
    assert s3.state.fetch("a", got)
    assert got.read_bytes() == sent.read_bytes()


@pytest.mark.integration
def test_fetch_of_a_missing_object_writes_no_file(s3: Store, tmp_path: Path) -> None:
    assert not s3.state.fetch("nothing", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_second_delete_is_no_error(s3: Store) -> None:
    s3.state.put("a", b"1")
    s3.state.delete("a")
    s3.state.delete("a")
    assert s3.state.get("a") is None


@pytest.mark.integration
def test_names_are_listed_below_the_prefix_in_order(s3: Store) -> None:
    for name in ("b/2", "b/1", "c", "b"):
        s3.state.put(name, b"")
    assert list(s3.state.names("b/")) == ["b/1", "b/2"]


@pytest.mark.integration
def test_prefix_can_be_a_whole_bucket(s3: Store) -> None:
    folder = ObjectPrefix(s3.client, f"s3://{s3.warehouse}/", "output.state")
    folder.put("ledger/a", b"1")
    assert s3.keys() == ["ledger/a"]
    assert list(folder.names("ledger/")) == ["ledger/a"]


ACTIONS = {
    "put": lambda folder: folder.put("a", b""),
    "put_file": lambda folder: folder.put_file("a", Path(__file__)),
    "fetch": lambda folder: folder.fetch("a", Path(os.devnull)),
    "put_if_match": lambda folder: folder.put_if_match("a", b"", None),
    "get": lambda folder: folder.get("a"),
    "delete": lambda folder: folder.delete("a"),
    "names": lambda folder: list(folder.names("")),
}


@pytest.mark.integration
@pytest.mark.parametrize("action", ACTIONS)
def test_missing_bucket_is_reported_with_its_setting(s3: Store, action: str) -> None:
    folder = ObjectPrefix(s3.client, "s3://nowhere/state/", "output.state")
    with pytest.raises(ConfigurationError, match=r"no bucket 'nowhere': check output\.state"):
        ACTIONS[action](folder)


def folder_at(url: str, bucket: str = "warehouse") -> ObjectPrefix:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key=KEY,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2),
    )
    return ObjectPrefix(client, f"s3://{bucket}/state/", "output.state")


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
def test_s3_error_is_explained(
    web: Web, action: str, status: int, code: str, error: type[Exception], words: str
) -> None:
    web.respond = lambda request: s3_error(status, code)
    with pytest.raises(error, match=words):
        ACTIONS[action](folder_at(web.url))


def test_unreachable_store_is_reported_with_the_connection() -> None:
    with pytest.raises(ServiceUnavailable, match=r"can't be reached.*endpoint_url") as error:
        folder_at("http://127.0.0.1:9").get("a")
    assert "127.0.0.1" not in str(error.value)


def test_invalid_bucket_name_is_reported_with_its_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"output\.state"):
        folder_at("http://127.0.0.1:9", bucket="call recordings").get("a")


def test_write_that_is_refused_once_is_repeated(web: Web, waits: list[float]) -> None:
    web.answers = [s3_error(403, "AccessDenied"), (200, {"etag": '"e1"'}, b"")]
    folder_at(web.url).put("a", b"1")
    assert [request.method for request in web.requests] == ["PUT", "PUT"]
    assert len(waits) == 1


def test_file_whose_write_is_refused_once_is_sent_again_from_the_start(web: Web, tmp_path: Path) -> None:
    web.answers = [s3_error(403, "AccessDenied"), (200, {"etag": '"e1"'}, b"")]
    path = tmp_path / "file"
    path.write_bytes(b"body")
    folder_at(web.url).put_file("a", path)
    first, second = web.requests
    assert first.body == second.body
    assert b"body" in second.body


def test_write_that_stays_refused_is_reported_as_missing_rights(web: Web) -> None:
    web.respond = lambda request: s3_error(403, "AccessDenied")
    with pytest.raises(ConfigurationError, match="refuses access"):
        folder_at(web.url).put("a", b"1")
    assert len(web.requests) == TRIES


def test_refused_read_is_not_repeated(web: Web) -> None:
    web.respond = lambda request: s3_error(403, "AccessDenied")
    with pytest.raises(ConfigurationError):
        folder_at(web.url).get("a")
    assert len(web.requests) == 1


def object_answer(body: bytes = b"body", etag: str = '"e1"', **headers: str) -> Answer:
    written = {"last-modified": "Fri, 20 Nov 2026 12:00:00 GMT", "etag": etag}
    return 200, {**written, **{name.replace("_", "-"): value for name, value in headers.items()}}, body


def test_truncated_body_is_read_again(web: Web) -> None:
    web.answers = [object_answer(b"bo", content_length="4"), object_answer()]
    assert folder_at(web.url).get("a") == b"body"


def test_truncated_download_is_repeated(web: Web, tmp_path: Path) -> None:
    web.answers = [object_answer(b"bo", content_length="4"), object_answer()]
    assert folder_at(web.url).fetch("a", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"body"


def test_body_that_is_always_truncated_is_reported_as_unavailable_store(web: Web) -> None:
    web.respond = lambda request: object_answer(b"bo", content_length="4")
    with pytest.raises(ServiceUnavailable, match="can't be reached"):
        folder_at(web.url).get("a")
    assert len(web.requests) == TRIES


@pytest.mark.parametrize("body", [b"", b"<Error><Code>NoSuchKey</Code></Error>"], ids=["no words", "words"])
def test_404_means_that_the_object_is_missing(web: Web, body: bytes) -> None:
    web.answers = [(404, {}, body)]
    assert folder_at(web.url).look("a") is None


# What changes only where nobody else has changed it


@pytest.mark.integration
def test_only_one_of_two_writers_creates_an_object(s3: Store) -> None:
    etag = s3.state.put_if_match("lease", b"mine", None)
    assert etag is not None
    assert s3.state.put_if_match("lease", b"theirs", None) is None
    stored = s3.state.look("lease")
    assert stored is not None
    assert (stored.body, stored.etag) == (b"mine", etag)


@pytest.mark.integration
def test_object_is_replaced_only_with_its_current_etag(s3: Store) -> None:
    first = s3.state.put_if_match("lease", b"1", None)
    second = s3.state.put_if_match("lease", b"2", first)
    assert second not in (None, first)
    assert s3.state.put_if_match("lease", b"3", first) is None
    assert s3.state.get("lease") == b"2"


@pytest.mark.integration
def test_deleted_object_is_not_replaced(s3: Store) -> None:
    etag = s3.state.put_if_match("lease", b"1", None)
    s3.state.delete("lease")
    assert s3.state.put_if_match("lease", b"2", etag) is None
    assert s3.state.get("lease") is None


def conditions(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name in ("if-match", "if-none-match")}


def test_condition_is_sent_to_the_store(web: Web) -> None:
    web.answers = [(200, {"etag": '"e1"'}, b""), (200, {"etag": '"e2"'}, b"")]
    folder = folder_at(web.url)
    assert [folder.put_if_match("a", b"1", None), folder.put_if_match("a", b"2", '"e1"')] == ['"e1"', '"e2"']
    assert [conditions(request) for request in web.requests] == [{"if-none-match": "*"}, {"if-match": '"e1"'}]


@pytest.mark.parametrize("status", [404, 412])
@pytest.mark.parametrize(("there", "etag"), [(b"mine", '"e7"'), (b"theirs", None)], ids=["ours", "another's"])
def test_refused_write_counts_as_written_only_if_its_bytes_are_stored(
    web: Web, waits: list[float], status: int, there: bytes, etag: str | None
) -> None:
    web.answers = [s3_error(status, "PreconditionFailed"), object_answer(there, '"e7"')]
    assert folder_at(web.url).put_if_match("a", b"mine", '"e1"') == etag
    assert waits == []


def test_write_that_conflicts_with_another_is_repeated(web: Web) -> None:
    conflict = s3_error(409, "ConditionalRequestConflict")
    web.answers = [conflict, conflict, (200, {"etag": '"e2"'}, b"")]
    assert folder_at(web.url).put_if_match("a", b"mine", '"e1"') == '"e2"'
    web.answers = [conflict, s3_error(412, "PreconditionFailed"), object_answer(b"theirs")]
    assert folder_at(web.url).put_if_match("a", b"mine", '"e1"') is None


def test_store_without_conditional_writes_is_detected(web: Web) -> None:
    web.respond = lambda request: s3_error(501, "NotImplemented")
    with pytest.raises(ConfigurationError, match=r"does not do conditional writes.*output\.state"):
        folder_at(web.url).put_if_match("a", b"1", None)


@pytest.mark.integration
def test_write_whose_answer_was_lost_counts_as_written(s3: Store) -> None:
    """The answer to the first PUT is lost, so botocore sends it again and finds its own bytes in the store."""
    statuses: list[int] = []

    def lose(response: Any, **_: object) -> int | None:
        statuses.append(response[0].status_code)
        return 0 if len(statuses) == 1 else None

    s3.client.meta.events.register("needs-retry.s3.PutObject", lose)
    etag = s3.state.put_if_match("lease", b"mine", None)
    assert statuses == [200, 412]
    stored = s3.state.look("lease")
    assert stored is not None
    assert stored.etag == etag


def test_write_without_any_answer_is_reported_as_unavailable_store(web: Web) -> None:
    web.respond = lambda request: LOST
    with pytest.raises(ServiceUnavailable, match="can't be reached"):
        folder_at(web.url).put_if_match("a", b"1", None)


def test_conditional_write_that_is_refused_once_is_repeated(web: Web) -> None:
    web.answers = [s3_error(403, "AccessDenied"), (200, {"etag": '"e1"'}, b"")]
    assert folder_at(web.url).put_if_match("a", b"1", None) == '"e1"'


# How old something is


@pytest.mark.parametrize(
    ("date", "age_s"),
    [
        ("Fri, 20 Nov 2026 12:01:30 GMT", 90),
        ("Fri, 20 Nov 2026 12:00:00 GMT", 0),
        ("Fri, 20 Nov 2026 11:59:59 GMT", 0),
    ],
)
def test_object_age_is_measured_by_the_clock_of_the_store(web: Web, date: str, age_s: float) -> None:
    web.answers = [object_answer(date=date)]
    stored = folder_at(web.url).look("a")
    assert stored is not None
    assert stored.age_s == age_s


def test_object_age_without_a_date_header_uses_the_local_clock(web: Web) -> None:
    web.answers = [object_answer(date="")]
    stored = folder_at(web.url).look("a")
    assert stored is not None
    assert stored.age_s == pytest.approx(max((dt.datetime.now(dt.UTC) - NOON).total_seconds(), 0), abs=60)


@pytest.mark.integration
def test_object_age_grows_with_time(s3: Store, clock: Clock) -> None:
    s3.state.put("a", b"1")
    clock.now += 61
    stored = s3.state.look("a")
    assert stored is not None
    assert stored.age_s == 61


def test_tail_has_the_end_the_size_and_the_etag(s3: Store) -> None:
    s3.state.put("a", b"0123456789")
    tail = s3.state.tail("a", 4)
    assert tail is not None
    assert (tail.body, tail.size) == (b"6789", 10)
    assert s3.state.part("a", 2, 5, tail.etag) == b"234"
    whole = s3.state.tail("a", 100)
    assert whole is not None
    assert (whole.body, whole.size) == (b"0123456789", 10)
    s3.state.put("a", b"")
    assert s3.state.part("a", 2, 5, tail.etag) is None
    empty = s3.state.tail("a", 4)
    assert empty is not None
    assert (empty.body, empty.size) == (b"", 0)
    s3.state.delete("a")
    assert s3.state.tail("a", 4) is None
    assert s3.state.part("a", 2, 5, tail.etag) is None
