"""A minimal in-memory S3 server whose own cost does not distort the measurements: ``python -m benchmarks.s3``.

moto, which the tests and the demo use, needs several milliseconds of CPU time per request, so a night against it would
measure moto; this server needs about 0.1 ms. No maintained S3 server on PyPI covers the rest of what the benchmark
needs: conditional writes, counts of requests by kind, and a million listed recordings without a million uploads.

The server supports what callphases uses through boto3 (GET, HEAD, PUT, DELETE and LIST, with conditions and ranges). It
does not check signatures. ``GET /_counts`` reports the requests, and ``POST /_recordings`` adds virtual recordings,
whose keys, times and content are computed from their number.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import datetime as dt
import functools
import hashlib
import heapq
import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import chain, islice
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree.ElementTree import fromstring
from xml.sax.saxutils import escape

import httptools
import uvloop

MAX_KEYS = 1000
KINDS = ("ledger", "runs", "transcripts", "limits", "index", "tables")
"""Folders of callphases; each is a kind of object."""
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_REASONS = {
    200: "OK", 204: "No Content", 206: "Partial Content", 304: "Not Modified", 400: "Bad Request", 404: "Not Found",
    412: "Precondition Failed", 416: "Range Not Satisfiable", 501: "Not Implemented",
}  # fmt: skip


@dataclass(frozen=True)
class Recordings:
    """Virtual recordings in key order.

    Args:
        prefix: of all keys.
        pattern: strftime format of the key's middle part: ``%Y-%m-%d/`` puts each day in a folder.
        count: number of recordings.
        start: UTC time of the first recording, and its LastModified.
        spacing_s: seconds between recordings.
        size: bytes per recording.
    """

    prefix: str
    pattern: str
    count: int
    start: dt.datetime
    spacing_s: float
    size: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return f"{self.prefix}{self.time_of(index):{self.pattern}}{index:07}.wav"

    def time_of(self, index: int) -> dt.datetime:
        """Return the upload time of a recording."""
        return self.start + dt.timedelta(seconds=index * self.spacing_s)

    def find(self, key: str) -> Stored | None:
        """Return the object of a key, or None if no recording has this key."""
        index = bisect.bisect_left(self, key)
        return self.stored(index) if index < self.count and self[index] == key else None

    def stored(self, index: int) -> Stored:
        """Return the object of a recording: ``size`` zero bytes, with a unique ETag."""
        return Stored(_zeros(self.size), _md5(self[index].encode()), self.time_of(index).timestamp())


@dataclass(frozen=True)
class Stored:
    """An object; ``written`` is in seconds since 1970."""

    body: bytes
    etag: str
    written: float


@dataclass
class Bucket:
    """A bucket: uploaded objects, their sorted keys, and virtual recordings."""

    objects: dict[str, Stored] = field(default_factory=dict)
    recordings: list[Recordings] = field(default_factory=list)
    _sorted: list[str] = field(default_factory=list)

    def get(self, key: str) -> Stored | None:
        found = self.objects.get(key)
        return found or next(filter(None, (group.find(key) for group in self.recordings)), None)

    def put(self, key: str, stored: Stored) -> None:
        if key not in self.objects:
            bisect.insort(self._sorted, key)
        self.objects[key] = stored

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            del self._sorted[bisect.bisect_left(self._sorted, key)]

    def after(self, prefix: str, marker: str) -> Iterator[tuple[str, Stored]]:
        """Yield objects whose keys start with ``prefix`` and sort after ``marker``, in key order."""

        def of(keys: Recordings | list[str], stored: Callable[[int], Stored]) -> Iterator[tuple[str, Stored]]:
            first = max(bisect.bisect_left(keys, prefix), bisect.bisect_right(keys, marker) if marker else 0)
            for index in range(first, len(keys)):
                key = keys[index]
                if not key.startswith(prefix):
                    return
                yield key, stored(index)

        own = of(self._sorted, lambda index: self.objects[self._sorted[index]])
        return heapq.merge(own, *(of(group, group.stored) for group in self.recordings), key=lambda item: item[0])


@dataclass(frozen=True)
class Request:
    """A request; the names of its headers are in lower case."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    """A response; ``length`` overrides Content-Length for HEAD, which sends no body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


class Refused(Exception):
    """An S3 error with its status and code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class Store:
    """All buckets, and the number of requests by method and kind."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.counts: Counter[tuple[str, str]] = Counter()

    def answer(self, request: Request) -> Response:
        """Handle a request."""
        try:
            if request.bucket.startswith("_"):
                return self._control(request)
            return self._s3(request)
        except Refused as refused:
            # The response to HEAD has no body, so clients see the status only.
            body = b"" if request.method == "HEAD" else _xml(f"<Error><Code>{refused.code}</Code></Error>")
            return Response(refused.status, body, {"Content-Type": "application/xml"})

    def _control(self, request: Request) -> Response:
        match request.method, request.bucket:
            case "GET", "_counts":
                counts: dict[str, dict[str, int]] = {}
                for (method, kind), count in sorted(self.counts.items()):
                    counts.setdefault(method, {})[kind] = count
                return Response(200, json.dumps(counts).encode())
            case "DELETE", "_counts":
                self.counts.clear()
                return Response(204)
            case "POST", "_recordings":
                document = json.loads(request.body)
                bucket = self.buckets.setdefault(document.pop("bucket"), Bucket())
                start = dt.datetime.fromisoformat(document.pop("start"))
                bucket.recordings.append(Recordings(start=start, **document))
                return Response(204)
        raise Refused(404, "NoSuchKey")

    def _s3(self, request: Request) -> Response:
        method, key, query = request.method, request.key, request.query
        listing = method == "GET" and not key
        self.counts["LIST" if listing else method, kind_of(request.bucket, key or query.get("prefix", ""))] += 1
        if not key and method == "PUT":
            self.buckets.setdefault(request.bucket, Bucket())
            return Response(200)
        bucket = self.buckets.get(request.bucket)
        if bucket is None:
            raise Refused(404, "NoSuchBucket")
        if listing:
            return _listed(request.bucket, bucket, query)
        if not key and method == "HEAD":
            return Response(200)
        if not key and method == "POST" and "delete" in query:
            for element in fromstring(request.body).iter():  # noqa: S314 (local clients only)
                if element.tag.endswith("Key"):
                    bucket.delete(element.text or "")
            return Response(200, _xml(f'<DeleteResult xmlns="{_NAMESPACE}"></DeleteResult>'))
        if method in ("GET", "HEAD"):
            return _got(bucket, request)
        if method == "PUT" and "x-amz-copy-source" not in request.headers and "uploadId" not in query:
            return _put(bucket, request)
        if method == "DELETE":
            bucket.delete(key)
            return Response(204)
        raise Refused(501, "NotImplemented")


def kind_of(bucket: str, key: str) -> str:
    """Return an object's kind by its bucket and key."""
    if bucket == "recordings":
        return "audio"
    if key.endswith("lease.json"):
        return "lease"
    folders = key.split("/")
    return next((name for name in KINDS if name in folders), "other")


def _put(bucket: Bucket, request: Request) -> Response:
    there = bucket.get(request.key)
    if request.headers.get("if-none-match") == "*" and there is not None:
        raise Refused(412, "PreconditionFailed")
    if expected := request.headers.get("if-match"):
        if there is None:
            raise Refused(404, "NoSuchKey")
        if expected.strip('"') != there.etag:
            raise Refused(412, "PreconditionFailed")
    body = request.body
    if request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
        body = _unframed(body)
    etag = _md5(body)
    bucket.put(request.key, Stored(body, etag, time.time()))
    return Response(200, headers={"ETag": f'"{etag}"'})


def _got(bucket: Bucket, request: Request) -> Response:
    stored = bucket.get(request.key)
    if stored is None:
        raise Refused(404, "NoSuchKey")
    expected, known = request.headers.get("if-match"), request.headers.get("if-none-match")
    if expected and expected.strip('"') != stored.etag:
        raise Refused(412, "PreconditionFailed")
    if known and known.strip('"') == stored.etag:
        return Response(304)
    headers = {
        "ETag": f'"{stored.etag}"',
        "Last-Modified": formatdate(stored.written, usegmt=True),
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    body, status = stored.body, 200
    if asked := re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "")):
        first, last = _range(asked[1], asked[2], len(body))
        headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        body, status = body[first : last + 1], 206
    if request.method == "HEAD":
        return Response(status, b"", headers, len(body))
    return Response(status, body, headers)


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        start, end = max(size - int(last or 0), 0), size - 1
    else:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
    if start > end:
        raise Refused(416, "InvalidRange")
    return start, end


def _listed(name: str, bucket: Bucket, query: dict[str, str]) -> Response:
    prefix = query.get("prefix", "")
    limit = min(int(query.get("max-keys", MAX_KEYS)), MAX_KEYS)
    marker = query.get("continuation-token") or query.get("start-after", "")
    found = list(islice(bucket.after(prefix, marker), limit + 1))
    page, more = found[:limit], len(found) > limit

    def text(key: str) -> str:
        return escape(quote(key, safe="/") if "encoding-type" in query else key)

    contents = (
        f"<Contents><Key>{text(key)}</Key><LastModified>{_iso(stored.written)}</LastModified>"
        f"<ETag>&quot;{stored.etag}&quot;</ETag><Size>{len(stored.body)}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key, stored in page
    )
    head = [
        f'<ListBucketResult xmlns="{_NAMESPACE}"><Name>{name}</Name><Prefix>{text(prefix)}</Prefix>',
        f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{limit}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>",
        "<EncodingType>url</EncodingType>" if "encoding-type" in query else "",
        f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else "",
    ]
    body = _xml("".join(chain(head, contents, ["</ListBucketResult>"])))
    return Response(200, body, {"Content-Type": "application/xml"})


def _unframed(body: bytes) -> bytes:
    """Extract the content of a body in ``aws-chunked`` encoding."""
    parts, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def _xml(text: str) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(moment))


@functools.cache
def _zeros(size: int) -> bytes:
    return bytes(size)


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class Protocol(asyncio.Protocol):
    """HTTP/1.1 with persistent connections; requests of a connection are handled one after the other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        # Without this response botocore delays the body of a PUT by a second.
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        parts = urlsplit(self._url.decode("latin-1"))
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        request = Request(
            self._parser.get_method().decode(),
            bucket,
            key,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            self._headers,
            b"".join(self._body),
        )
        response = self._store.answer(request)
        kept = self._parser.should_keep_alive()
        lines = [
            f"HTTP/1.1 {response.status} {_REASONS[response.status]}",
            f"Date: {formatdate(usegmt=True)}",
            f"Content-Length: {len(response.body) if response.length is None else response.length}",
            f"Connection: {'keep-alive' if kept else 'close'}",
            *(f"{name}: {value}" for name, value in response.headers.items()),
        ]
        self._transport.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + response.body)
        if not kept:
            self._transport.close()


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until SIGTERM, and print the URL."""
    loop = asyncio.get_running_loop()
    store, stopped = Store(), asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stopped.set)
    server = await loop.create_server(lambda: Protocol(store), "127.0.0.1", port, backlog=1024)
    sys.stdout.write(f"s3 listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stopped.wait()
    server.close()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3", description="An in-memory S3 server.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, picks a free port")
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
