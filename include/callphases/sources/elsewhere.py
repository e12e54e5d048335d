"""Reads values of recordings from where the pipeline file says: each object, document and list once per recording.

An inventory is read once, when the first of its values is asked for.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from types import TracebackType
from typing import Any, Protocol, Self

from callphases.errors import Archived
from callphases.pipeline import Elsewhere
from callphases.sidecars import ANY, as_text, name_of, pick
from callphases.sources.audio_tags import audio_tag
from callphases.sources.inventory import Inventory, Wanted
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import split_uri

MOST_DOCUMENT_BYTES = 32 << 20
"""A larger document is no sidecar. Contact Lens' analysis of a call of hours takes a few megabytes."""


class Item(Protocol):
    """A recording, listed or not."""

    @property
    def key(self) -> str:
        """Its key."""

    @property
    def size(self) -> int:
        """In bytes."""


@dataclass
class Found:
    """What was found of a recording.

    Attributes:
        texts: the values, by rule.
        reasons: why a rule has no value.
    """

    texts: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


class Reader:
    """Reads the values that some rules ask for. Thread-safe.

    Args:
        bucket: of the recordings.
        rules: all that are asked for, so that an inventory is read once for all of them.
    """

    def __init__(self, bucket: RecordingBucket, rules: Iterable[Elsewhere]) -> None:
        self._bucket = bucket
        self._rules = list(rules)
        self._inventories: dict[Wanted, Inventory] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for inventory in self._inventories.values():
            inventory.close()

    def read(self, item: Item, rules: Sequence[Elsewhere]) -> Found:
        """The values of a recording.

        Raises:
            AccessDenied, Archived: what they are in can't be read.
            ConfigurationError, ServiceUnavailable: S3 can't be used or does not answer, or an inventory can't be read.
        """
        return _OfRecording(self, self._bucket, item).read(rules)

    def inventory(self, rule: Elsewhere, heartbeat: Callable[[], object] = lambda: None) -> Inventory:
        """The inventory of a rule; ``heartbeat`` is called while it is read."""
        wanted = _wanted(rule)
        with self._lock:
            if wanted not in self._inventories:
                fields = [one.field for one in self._rules if one.inventory is not None and _wanted(one) == wanted]
                self._inventories[wanted] = Inventory(self._bucket.client, wanted, fields, heartbeat)
            return self._inventories[wanted]


def _wanted(rule: Elsewhere) -> Wanted:
    assert rule.inventory is not None
    return Wanted(rule.inventory, rule.id_field or rule.key_field, rule.id_field is None)


class _OfRecording:
    """The values of one recording; keeps what it has read."""

    def __init__(self, reader: Reader, bucket: RecordingBucket, item: Item) -> None:
        self._reader, self._bucket, self._item = reader, bucket, item
        self._metadata: dict[str, str] | None = None
        self._tags: dict[str, str] | None = None
        self._documents: dict[str, Any] = {}

    def read(self, rules: Sequence[Elsewhere]) -> Found:
        found = Found()
        for rule in rules:
            text: str | None = None
            name = name_of_rule(rule)
            try:
                text = self._text(rule)
            except _NoValue as why:
                found.reasons[name] = str(why)
            if text is not None:
                found.texts[name] = text
            else:
                found.reasons.setdefault(name, "it has none")
        return found

    def _text(self, rule: Elsewhere) -> str | None:
        key = self._item.key
        if rule.metadata is not None:
            if self._metadata is None:
                self._metadata = self._bucket.metadata(key) or {}
            text = self._metadata.get(rule.metadata.lower())
            return None if text is None else decoded(text)
        if rule.tag is not None:
            if self._tags is None:
                self._tags = self._bucket.tags(key) or {}
            return self._tags.get(rule.tag)
        if rule.audio_tag is not None:
            try:
                return audio_tag(self._bucket, key, self._item.size, rule.audio_tag)
            except OSError as error:
                raise _NoValue(str(error)) from None
        if rule.sidecar is not None:
            assert rule.path is not None
            return as_text(pick(self._document(rule.sidecar, rule.id_pattern), rule.path))
        if rule.inventory is not None:
            joined = key if rule.id_pattern is None else _id_of(key, rule.id_pattern)
            if joined is None:
                raise _NoValue("id_pattern does not match its key")
            return self._reader.inventory(rule).find(self._bucket.name, joined, rule.field)
        return None

    def _document(self, template: str, id_pattern: str | None) -> Any:
        name = name_of(template, self._item.key, id_pattern)
        if name is None:
            raise _NoValue("id_pattern does not match its key")
        if name not in self._documents:
            self._documents[name] = self._fetched(name)
        if isinstance(self._documents[name], _NoValue):
            raise self._documents[name]
        return self._documents[name]

    def _fetched(self, name: str) -> Any:
        """The document of a name, or why there is none."""
        bucket, key = self._bucket, name
        if name.startswith("s3://"):
            other, key = split_uri(name)
            bucket = RecordingBucket(bucket.client, other)
        if ANY in key:
            before, _, after = key.partition(ANY)
            listed = [one for one in bucket.look_below(before) if one.key.endswith(after)]
            if not listed:
                return _NoValue(f"there is no {name}")
            key = max(listed, key=lambda one: (one.last_modified, one.key)).key
        try:
            body = bucket.document(key, MOST_DOCUMENT_BYTES)
        except Archived as error:
            return _NoValue(f"{key} can't be read: {error}")
        if body is None:
            return _NoValue(f"there is no {key}")
        if len(body) > MOST_DOCUMENT_BYTES:
            return _NoValue(f"{key} is larger than {MOST_DOCUMENT_BYTES >> 20} MiB")
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return _NoValue(f"{key} is no JSON")


class _NoValue(Exception):
    """Why a recording has no value."""


def name_of_rule(rule: Elsewhere) -> str:
    """What a value is found by."""
    if rule.metadata is not None:
        return f"metadata {rule.metadata.lower()}"
    return f"tag {rule.tag}" if rule.tag is not None else rule.source or ""


def _id_of(key: str, pattern: str) -> str | None:
    match = re.search(pattern, key)
    if match is None:
        return None
    groups = match.re.groupindex
    return match["id" if "id" in groups else next(iter(groups))]


def decoded(text: str) -> str:
    """Metadata as text: S3 returns non-ASCII values encoded as in mail headers (RFC 2047)."""
    try:
        return str(make_header(decode_header(text))) if "=?" in text else text
    except (HeaderParseError, LookupError, ValueError):
        return text
