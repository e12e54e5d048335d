"""A recording on its way to a browser: redirected, streamed in ranges, gone, archived, replaced, converted."""

from __future__ import annotations

import io
import logging
import wave
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from callphases.pages.audio import (
    PIECE_BYTES,
    URL_LIFE_S,
    Asked,
    Redirect,
    Stream,
    Unavailable,
    audio_of,
    origin_of,
)
from callphases.state.bucket import RecordingBucket
from doubles import KEY, Store, Web

pytestmark = pytest.mark.integration


def pcm(seconds: float = 1.0, rate_hz: int = 8000, bits: int = 16) -> bytes:
    """A WAV file in which no two stretches are alike."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(bits // 8)
        sound.setframerate(rate_hz)
        count = int(seconds * rate_hz)
        sound.writeframes(b"".join((number * 7919 % 2**bits).to_bytes(bits // 8, "little") for number in range(count)))
    return file.getvalue()


@pytest.fixture
def bucket(s3: Store) -> RecordingBucket:
    return RecordingBucket(s3.client, s3.recordings)


def streamed(answer: object) -> tuple[Stream, bytes]:
    assert isinstance(answer, Stream)
    return answer, b"".join(answer.body)


def test_redirect_lasts_five_minutes_and_plays_whatever_the_object_says(s3: Store, bucket: RecordingBucket) -> None:
    recording = s3.put("calls/Ünlü call & more.mp3", pcm())
    answer = audio_of(bucket, recording.key, recording.etag, "redirect", Asked(range="bytes=0-"))
    assert isinstance(answer, Redirect)
    assert (answer.status, answer.is_other_version) == (302, False)
    assert answer.headers["Cache-Control"] == "private, no-store"
    query = parse_qs(urlsplit(answer.url).query)
    assert query["X-Amz-Expires"] == [str(URL_LIFE_S)]
    assert answer.url.startswith(origin_of(bucket) + "/")
    fetched = requests.get(answer.url, headers={"Range": "bytes=4-11"}, timeout=10)
    assert (fetched.status_code, fetched.content) == (206, pcm()[4:12])
    assert fetched.headers["Content-Type"] == "audio/wav"
    assert fetched.headers["Content-Disposition"] == "inline"
    assert "http" not in repr(answer)


def test_origin_names_host_and_port_only(bucket: RecordingBucket, s3: Store) -> None:
    assert origin_of(bucket) == s3.url


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-", 0, -1), ("bytes=100-199", 100, 199), ("bytes=-7", -7, -1), ("bytes=40000-", 40_000, -1)],
)
def test_stream_answers_a_range_with_its_bytes(
    s3: Store, bucket: RecordingBucket, header: str, first: int, last: int
) -> None:
    content = pcm(5)
    recording = s3.put("a.wav", content)
    size = len(content)
    answer, body = streamed(audio_of(bucket, recording.key, recording.etag, "stream", Asked(header)))
    first, last = first % size, last % size
    assert (answer.status, body) == (206, content[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    assert answer.headers["Content-Length"] == str(len(body))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] == f'"{recording.etag}"'
    assert answer.headers["Content-Type"] == "audio/wav"


@pytest.mark.parametrize("asked", [Asked(), Asked("bytes=0-1,5-6"), Asked("bytes=5-", '"other"')])
def test_stream_answers_anything_else_with_the_whole(s3: Store, bucket: RecordingBucket, asked: Asked) -> None:
    recording = s3.put("a.wav", pcm())
    answer, body = streamed(audio_of(bucket, recording.key, recording.etag, "stream", asked))
    assert (answer.status, body) == (200, pcm())
    assert "Content-Range" not in answer.headers


def test_range_behind_the_end_is_416(s3: Store, bucket: RecordingBucket) -> None:
    recording = s3.put("a.wav", pcm())
    answer, body = streamed(audio_of(bucket, recording.key, recording.etag, "stream", Asked("bytes=99999-")))
    assert (answer.status, body) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{recording.size}"


@pytest.mark.parametrize("how", ["stream", "redirect"])
def test_head_gets_the_headers_alone(s3: Store, bucket: RecordingBucket, how: str) -> None:
    recording = s3.put("a.wav", pcm())
    answer, body = streamed(audio_of(bucket, recording.key, recording.etag, how, Asked(is_head=True)))  # type: ignore[arg-type]
    assert (answer.status, body, answer.headers["Content-Length"]) == (200, b"", str(recording.size))


def test_stream_holds_one_piece_and_asks_for_no_more_than_is_read(s3: Store, bucket: RecordingBucket) -> None:
    content = pcm(200)
    recording = s3.put("a.wav", content)
    answer = audio_of(bucket, recording.key, recording.etag, "stream", Asked())
    assert isinstance(answer, Stream)
    s3.asked.clear()
    assert next(answer.body) == content[:PIECE_BYTES]
    assert len(s3.asked) == 1
    answer.body.close()
    assert list(answer.body) == []
    assert len(s3.asked) == 1, "the browser has gone"


def test_recording_replaced_while_it_plays_is_not_mixed(s3: Store, bucket: RecordingBucket) -> None:
    recording = s3.put("a.wav", pcm(200))
    answer = audio_of(bucket, recording.key, recording.etag, "stream", Asked())
    assert isinstance(answer, Stream)
    next(answer.body)
    s3.put("a.wav", pcm(201))
    with pytest.raises(Exception, match="deleted or replaced"):
        next(answer.body)


@pytest.mark.parametrize("how", ["redirect", "stream"])
def test_replaced_recording_plays_and_says_so(s3: Store, bucket: RecordingBucket, how: str) -> None:
    s3.put("a.wav", pcm())
    answer = audio_of(bucket, "a.wav", "of-the-row", how, Asked())  # type: ignore[arg-type]
    assert isinstance(answer, Redirect | Stream)
    assert answer.is_other_version


@pytest.mark.parametrize("how", ["redirect", "stream"])
def test_recording_that_is_gone_is_said_to_be(bucket: RecordingBucket, how: str) -> None:
    answer = audio_of(bucket, "gone.wav", "e1", how, Asked())  # type: ignore[arg-type]
    assert isinstance(answer, Unavailable)
    assert answer.status == 404
    assert "no longer in the bucket" in answer.message


def test_empty_recording_is_said_to_be(s3: Store, bucket: RecordingBucket) -> None:
    recording = s3.put("a.wav", b"")
    answer = audio_of(bucket, recording.key, recording.etag, "redirect", Asked())
    assert isinstance(answer, Unavailable)
    assert "empty" in answer.message


def test_off_asks_nothing(s3: Store, bucket: RecordingBucket) -> None:
    answer = audio_of(bucket, "a.wav", "e1", "off", Asked())
    assert isinstance(answer, Unavailable)
    assert "pages.audio" in answer.message
    assert not s3.asked


def test_archived_recording_is_said_to_be(s3: Store, bucket: RecordingBucket) -> None:
    s3.client.put_object(Bucket=s3.recordings, Key="a.wav", Body=pcm(), StorageClass="GLACIER")
    answer = audio_of(bucket, "a.wav", "e1", "redirect", Asked())
    assert isinstance(answer, Unavailable)
    assert answer.status == 409
    assert "s3:RestoreObject" in answer.message


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [("AccessDenied", 403, "s3:GetObject"), ("KMS.DisabledException", 400, "kms:Decrypt"),
     ("NoSuchBucket", 404, "recordings.bucket"), ("ExpiredToken", 400, "AWS connection")],
)  # fmt: skip
def test_bucket_that_refuses_is_said_to(
    web: Web, monkeypatch: pytest.MonkeyPatch, code: str, status: int, told: str
) -> None:
    from callphases.state.s3 import client_from_environment

    for name, value in {
        "AWS_ENDPOINT_URL": web.url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    body = f"<Error><Code>{code}</Code><Message>x</Message></Error>".encode()
    web.respond = lambda request: (status, {"content-type": "application/xml"}, body)
    bucket = RecordingBucket(client_from_environment(), "recordings")
    answer = audio_of(bucket, "a.wav", "e1", "stream", Asked())
    assert isinstance(answer, Unavailable)
    assert answer.status == 502
    assert told in answer.message


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, logger="callphases"):
        yield caplog


def test_no_url_is_logged(s3: Store, bucket: RecordingBucket, logged: pytest.LogCaptureFixture) -> None:
    recording = s3.put("a.wav", pcm())
    audio_of(bucket, recording.key, recording.etag, "redirect", Asked())
    audio_of(bucket, "gone.wav", recording.etag, "redirect", Asked())
    assert "Signature" not in logged.text
    assert KEY not in logged.text
