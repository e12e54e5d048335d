"""Which bytes of a file a request asks for: the headers Range and If-Range, RFC 9110 sections 13.1.5 and 14."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """The bytes of a file from ``start`` up to, but not including, ``end``."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """In bytes."""
        return self.end - self.start


class NotSatisfiable(Exception):
    """The range begins behind the end of the file, or is empty."""


# More digits than a file has bytes are no number that anybody means.
_ONE_RANGE = re.compile(r"(?i:bytes)=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII)


def asked_span(range_header: str | None, if_range: str | None, etag: str, size: int) -> Span | None:
    """The bytes that a request asks for; None if it gets the whole file.

    It gets the whole if it asks for several ranges, which a server may answer so, if its Range is none of bytes or no
    valid one, and if its If-Range is not the ETag of this file.

    Args:
        range_header: the value of Range.
        if_range: the value of If-Range.
        etag: that of the file, with its quotes.
        size: the file's, in bytes.

    Raises:
        NotSatisfiable: the answer is 416.
    """
    found = _ONE_RANGE.fullmatch(range_header.strip()) if range_header else None
    if found is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = found.groups()
    if not first:
        if not last:
            return None
        if not int(last) or not size:
            raise NotSatisfiable
        return Span(max(size - int(last), 0), size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise NotSatisfiable
    return Span(int(first), min(int(last) + 1, size) if last else size)
