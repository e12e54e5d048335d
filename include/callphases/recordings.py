"""A recording, its JSON forms, and how many there are in words."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import dataclass
from typing import Any


def counted(count: int, noun: str = "recording") -> str:
    """``1 recording``, ``2 recordings``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def names_of(call_id: str, uri: str) -> set[str]:
    """What a user may name a call by: its ID, its recording's URI, the end of its key (``a.mp3``, ``b/a.mp3``)."""
    parts = uri.split("/")
    return {call_id, uri, *("/".join(parts[number:]) for number in range(1, len(parts)))}


@dataclass(frozen=True)
class Recording:
    """One object of the bucket.

    Attributes:
        size: in bytes.
        call_time: the start of the call, in UTC.
        archived_in: the storage class that it has to be restored from before it can be read; empty if it can be read.
    """

    bucket: str
    key: str
    etag: str
    size: int
    call_time: dt.datetime
    archived_in: str = ""

    @property
    def uri(self) -> str:
        """``s3://bucket/key``; the key is not quoted."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def call_id(self) -> str:
        """16 hex digits of a hash of the URI: the same recording has the same id in every run."""
        return hashlib.sha256(self.uri.encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """The form that manifests use."""
        return {
            "bucket": self.bucket,
            "key": self.key,
            "etag": self.etag,
            "size": self.size,
            "call_time": self.call_time.isoformat(),
            **({"archived_in": self.archived_in} if self.archived_in else {}),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Recording:
        """The inverse of ``as_json``."""
        return cls(**{**document, "call_time": dt.datetime.fromisoformat(document["call_time"])})

    def as_line(self) -> bytes:
        """A compact form for long lists of one bucket: a JSON array without the bucket, and a line feed."""
        row = [self.key, self.etag, self.size, self.call_time.isoformat(), *filter(None, [self.archived_in])]
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_line(cls, bucket: str, line: bytes) -> Recording:
        """The inverse of ``as_line``."""
        key, etag, size, call_time, *archived_in = json.loads(line)
        return cls(bucket, key, etag, size, dt.datetime.fromisoformat(call_time), *archived_in)
