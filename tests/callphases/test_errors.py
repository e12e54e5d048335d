"""Error messages: one line, with advice, without secrets."""

from __future__ import annotations

import pytest

from callphases.errors import CallFailure, DownloadRefused, TooShort, without_secrets


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Download error, unable to download https://b.s3.amazonaws.com/a.mp3?X-Amz-Signature=abc&y=1 (403)",
            "Download error, unable to download https://b.s3.amazonaws.com/a.mp3 (403)",
        ),
        ('<a href="http://h/p?sig=1">', '<a href="http://h/p">'),
        ("two http://h/a?x=1 and s3://b/c?y=2", "two http://h/a and s3://b/c"),
        ("several\nlines\r\n\tof  text", "several lines of text"),
        ("is this a question?yes", "is this a question?yes"),
        ("", ""),
    ],
)
def test_url_queries_and_line_breaks_are_removed(said: str, told: str) -> None:
    assert without_secrets(said) == told


def test_long_text_is_truncated() -> None:
    assert len(without_secrets("x" * 1000)) == 300


def test_query_is_removed_before_truncation() -> None:
    assert "Signature" not in without_secrets("x" * 250 + " https://b/a?X-Amz-Signature=abc")


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (TooShort("Audio duration is too short."), "Audio duration is too short."),
        (
            DownloadRefused("unable to download"),
            "unable to download. If the service can't reach the bucket, set recordings.send: upload.",
        ),
    ],
)
def test_failure_message_ends_with_advice(failure: CallFailure, told: str) -> None:
    assert str(failure) == told
