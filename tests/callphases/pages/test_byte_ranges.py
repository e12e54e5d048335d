"""Range and If-Range: RFC 9110's examples, other clients' spellings, and any numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.pages.byte_ranges import NotSatisfiable, Span, asked_span

ETAG = '"e1"'


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-499", Span(0, 500)),
        ("bytes=500-999", Span(500, 1000)),
        ("bytes=-500", Span(9500, 10_000)),
        ("bytes=9500-", Span(9500, 10_000)),
        ("bytes=0-", Span(0, 10_000)),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=-1", Span(9999, 10_000)),
        ("bytes=-20000", Span(0, 10_000)),
        ("bytes=9999-99999999", Span(9999, 10_000)),
        ("Bytes= 5-9 ", Span(5, 10)),
        (None, None),
        ("", None),
        ("bytes=0-0,-1", None),
        ("bytes=500-600,601-999", None),
        ("bytes=9-5", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=٣-٤", None),
        ("bytes=1-" + "9" * 5000, None),
        ("seconds=0-5", None),
        ("bytes 0-5", None),
    ],
)
def test_range_is_a_span_or_the_whole(header: str | None, span: Span | None) -> None:
    assert asked_span(header, None, ETAG, 10_000) == span


@pytest.mark.parametrize("header", ["bytes=10000-", "bytes=10000-20000", "bytes=-0", "bytes=99999999999-"])
def test_range_behind_the_end_is_not_satisfiable(header: str) -> None:
    with pytest.raises(NotSatisfiable):
        asked_span(header, None, ETAG, 10_000)


@pytest.mark.parametrize(
    ("if_range", "is_part"),
    [(ETAG, True), (f" {ETAG} ", True), ('"e2"', False), ('W/"e1"', False), ("Sat, 29 Nov 2026 10:00:00 GMT", False)],
)
def test_if_range_of_another_version_gets_the_whole(if_range: str, is_part: bool) -> None:
    assert asked_span("bytes=5-", if_range, ETAG, 10) == (Span(5, 10) if is_part else None)
    assert asked_span("bytes=99-", '"e2"', ETAG, 10) is None


@given(st.one_of(st.none(), st.integers(0, 50)), st.one_of(st.none(), st.integers(0, 50)), st.integers(1, 40))
def test_any_span_is_within_the_file(first: int | None, last: int | None, size: int) -> None:
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    content = bytes(range(size))
    try:
        span = asked_span(header, None, ETAG, size)
    except NotSatisfiable:
        assert (first is None and last == 0) or (first is not None and first >= size)
        return
    if span is None:
        assert last is None if first is None else last is not None and last < first
    elif first is None:
        assert last is not None
        assert content[span.start : span.end] == content[-last:]
    else:
        assert content[span.start : span.end] == content[first : size if last is None else last + 1]
        assert span.length > 0
