"""One object's error, and the bucket's: archived, denied, gone; with and without the store's word on restored ones."""

from __future__ import annotations

import pytest
import requests

from callphases.errors import AccessDenied, Archived, CallFailure, ConfigurationError, RecordingGone, ServiceUnavailable
from callphases.recordings import Recording
from callphases.state.bucket import Opening, RecordingBucket
from callphases.state.s3 import client_from_environment
from doubles import Answer, Request, Store, Web, recording

pytestmark = pytest.mark.integration

ONE = recording("calls/a.mp3")


def s3_error(status: int, code: str, message: str = "", more: str = "") -> Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'
    return status, {"content-type": "application/xml"}, body.encode()


@pytest.fixture
def bucket(web: Web, monkeypatch: pytest.MonkeyPatch) -> RecordingBucket:
    """A bucket whose server answers from a script."""
    for name, value in {
        "AWS_ENDPOINT_URL": web.url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("callphases.state.s3.ATTEMPTS", 1)
    return RecordingBucket(client_from_environment(), "recordings")


@pytest.mark.parametrize(
    ("answer", "failure", "told"),
    [
        (s3_error(403, "InvalidObjectState", "Not valid for its class", "<StorageClass>DEEP_ARCHIVE</StorageClass>"),
         Archived, "DEEP_ARCHIVE"),
        (s3_error(403, "InvalidObjectState", "Not valid for its tier", "<AccessTier>ARCHIVE_ACCESS</AccessTier>"),
         Archived, "restore"),
        (s3_error(403, "AccessDenied", "Access Denied"), AccessDenied, "s3:GetObject"),
        (s3_error(403, "AccessDenied", "User: x is not authorized to perform: kms:Decrypt on the resource"),
         AccessDenied, "kms:Decrypt"),
        (s3_error(400, "KMS.DisabledException", "arn:aws:kms:x is disabled."), AccessDenied, "KMS.DisabledException"),
        (s3_error(400, "KMS.NotFoundException", "Key 'x' does not exist"), AccessDenied, "KMS.NotFoundException"),
        (s3_error(400, "InvalidRequest", "The object was stored using a form of Server Side Encryption."),
         AccessDenied, "key of its owner"),
        (s3_error(404, "NoSuchKey", "The specified key does not exist."), RecordingGone, "deleted or replaced"),
        (s3_error(405, "MethodNotAllowed", "The method is not allowed"), RecordingGone, "deleted or replaced"),
        (s3_error(412, "PreconditionFailed", "A condition does not hold"), RecordingGone, "deleted or replaced"),
        ((403, {}, b""), AccessDenied, "s3:GetObject"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reads", ["check", "pieces", "opening", "part"])
def test_error_of_one_object_is_its_failure(
    bucket: RecordingBucket, web: Web, answer: Answer, failure: type[CallFailure], told: str, reads: str
) -> None:
    web.respond = lambda request: answer
    with pytest.raises(failure, match=f"(?i){told}") as raised:
        {
            "check": lambda: bucket.check_readable(ONE),
            "pieces": lambda: list(bucket.pieces(ONE)),
            "opening": lambda: bucket.opening(ONE.key, 100),
            "part": lambda: bucket.part(ONE.key, ONE.etag, 0, 100),
        }[reads]()
    assert not raised.value.permanent, "the next run of the day looks again"
    assert raised.value.advice in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (s3_error(404, "NoSuchBucket", "The specified bucket does not exist"), ConfigurationError),
        *(
            (s3_error(status, code, "x"), ConfigurationError)
            for status, code in [
                (403, "InvalidAccessKeyId"),
                (403, "SignatureDoesNotMatch"),
                (400, "ExpiredToken"),
                (400, "InvalidToken"),
                (403, "RequestTimeTooSkewed"),
                (400, "AuthorizationHeaderMalformed"),
            ]
        ),
        (s3_error(503, "SlowDown", "Please reduce your request rate."), ServiceUnavailable),
        (s3_error(500, "InternalError", "We encountered an internal error."), ServiceUnavailable),
    ],
)
def test_error_of_credentials_bucket_or_store_ends_the_task(
    bucket: RecordingBucket, web: Web, answer: Answer, error: type[Exception]
) -> None:
    web.respond = lambda request: answer
    with pytest.raises(error):
        bucket.check_readable(ONE)


def test_check_reads_one_byte_of_the_listed_version(bucket: RecordingBucket, web: Web) -> None:
    web.answers = [(206, {"content-range": "bytes 0-0/4"}, b"R")]
    bucket.check_readable(ONE)
    [request] = web.requests
    assert (request.headers["range"], request.headers["if-match"]) == ("bytes=0-0", '"e1"')


def test_signatures_in_a_message_are_left_out(bucket: RecordingBucket, web: Web) -> None:
    web.respond = lambda request: s3_error(403, "AccessDenied", "no: https://s3/a?X-Amz-Signature=abc")
    with pytest.raises(AccessDenied) as raised:
        bucket.check_readable(ONE)
    assert "abc" not in str(raised.value)


# LIST


def listing(*contents: str) -> Answer:
    items = "".join(
        f"<Contents><Key>{number}.mp3</Key><Size>4</Size><ETag>e</ETag>"
        f"<LastModified>2026-11-20T12:00:00.000Z</LastModified>{more}</Contents>"
        for number, more in enumerate(contents)
    )
    body = f'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>'
    return 200, {"content-type": "application/xml"}, body.encode()


def test_storage_class_and_restored_copies_are_in_the_listing(bucket: RecordingBucket, web: Web) -> None:
    restoring = "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"
    restored = (
        "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
        "<RestoreExpiryDate>2026-12-20T00:00:00.000Z</RestoreExpiryDate></RestoreStatus>"
    )
    web.answers = [
        listing(
            "",
            "<StorageClass>STANDARD_IA</StorageClass>",
            "<StorageClass>GLACIER_IR</StorageClass>",
            "<StorageClass>INTELLIGENT_TIERING</StorageClass>",
            "<StorageClass>GLACIER</StorageClass>",
            "<StorageClass>DEEP_ARCHIVE</StorageClass>",
            f"<StorageClass>GLACIER</StorageClass>{restoring}",
            f"<StorageClass>GLACIER</StorageClass>{restored}",
        )
    ]
    [page] = bucket.pages("calls/")
    assert [one.archived_in for one in page.objects] == ["", "", "", "", "GLACIER", "DEEP_ARCHIVE", "GLACIER", ""]
    assert web.requests[0].headers["x-amz-optional-object-attributes"] == "RestoreStatus"


@pytest.mark.parametrize("refusal", [s3_error(501, "NotImplemented"), s3_error(400, "InvalidArgument")])
def test_store_that_does_not_know_the_option_is_listed_without(
    bucket: RecordingBucket, web: Web, refusal: Answer
) -> None:
    def respond(request: Request) -> Answer:
        return refusal if "x-amz-optional-object-attributes" in request.headers else listing("", "")

    web.respond = respond
    [page] = bucket.pages("calls/")
    assert len(page.objects) == 2


def test_archived_recordings_keep_their_class_in_every_form() -> None:
    one = recording(archived_in="GLACIER")
    assert Recording.from_json(one.as_json()) == one
    assert Recording.from_line(one.bucket, one.as_line()) == one
    other = recording()
    assert Recording.from_line(other.bucket, other.as_line()) == other
    assert "archived_in" not in other.as_json(), "as versions before this one read it"


@pytest.mark.integration
def test_any_folder_and_any_zero_are_found_by_listing(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        "org-a/month=03/day=05/x",
        "org-b/month=3/day=5/x",
        "org-b/month=3/day=05/y",
        "org-b/month=3/day=55/z",
        "org-b/month=03/day=5/y/z",
        "x",
    ]
    for key in keys:
        s3.put(key)
    for number in range(7):
        s3.put(f"other-{number}/deep/x")
    bucket = RecordingBucket(s3.client, s3.recordings)
    prefix = "{any}/month={zero}3/day={zero}5/"
    for most in (1000, 3):  # so few that they take several requests
        monkeypatch.setattr("callphases.state.bucket.MOST_LISTED", most)
        monkeypatch.setattr(RecordingBucket.look, "__kwdefaults__", {"after": "", "most": most})
        found = [one.key for page in bucket.pages(prefix) for one in page.objects]
        assert found == sorted([*keys[:3], keys[4]])
    assert bucket.expanded("org-b/month={zero}12/") == ["org-b/month=12/"]
    assert bucket.expanded("none/{any}/x/") == ["none/{any}/x/"]
    assert [page.objects for page in bucket.pages("none/{any}/x/")] == [[]]


def test_opening_is_the_first_bytes_with_the_size_of_the_whole(s3: Store) -> None:
    recording = s3.put("a.wav", bytes(range(250)))
    bucket = RecordingBucket(s3.client, s3.recordings)
    assert bucket.opening("a.wav", 10) == Opening(recording.etag, 250, bytes(range(10)))
    assert bucket.opening("a.wav", 1000) == Opening(recording.etag, 250, bytes(range(250)))
    s3.put("empty.wav", b"")
    assert bucket.opening("empty.wav", 10).size == 0


def test_opening_of_a_store_without_ranges_is_the_same(bucket: RecordingBucket, web: Web) -> None:
    web.respond = lambda request: (200, {"etag": '"e1"'}, bytes(100))
    assert bucket.opening("a.wav", 10) == Opening("e1", 100, bytes(10))


def test_part_is_of_the_version_with_the_etag(s3: Store) -> None:
    recording = s3.put("a.wav", bytes(range(250)))
    bucket = RecordingBucket(s3.client, s3.recordings)
    assert bucket.part("a.wav", recording.etag, 5, 8) == b"\5\6\7"
    s3.put("a.wav", bytes(300))
    with pytest.raises(RecordingGone):
        bucket.part("a.wav", recording.etag, 5, 8)


def test_presigned_url_answers_with_the_media_type_that_it_is_given(s3: Store) -> None:
    s3.put("a.wav", b"RIFF")
    bucket = RecordingBucket(s3.client, s3.recordings)
    shown = requests.get(bucket.presigned_url("a.wav", 60, content_type="audio/wav"), timeout=10)
    assert (shown.headers["Content-Type"], shown.headers["Content-Disposition"]) == ("audio/wav", "inline")
    assert "response-content" not in bucket.presigned_url("a.wav", 60)
