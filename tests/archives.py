"""An archive as runs leave it: summaries of days, leases of runs, and years of objects without a year of requests."""

from __future__ import annotations

import datetime as dt
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import escape

import boto3

from callphases.state.summaries import DaySummary, record
from doubles import KEY, Answer, Request, Store, Web, text_answer

LEASE = '{"holder": "run-1", "term": 1, "released": true, "stopped": null, "began": null, "index": null}'
"""As a run leaves it at its end."""
PUBLISHED_AT = dt.datetime(2026, 11, 21, 2, tzinfo=dt.UTC)


def days(first: str, last: str) -> list[dt.date]:
    """The days from ``first`` to ``last``, both included."""
    start, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    return [start + dt.timedelta(days=number) for number in range((end - start).days + 1)]


def summary(day: dt.date | str, **changes: Any) -> DaySummary:
    """The publication of a day with two recordings, both done, for $0.40."""
    of_day = dt.date.fromisoformat(day) if isinstance(day, str) else day
    values = {
        "published_at": PUBLISHED_AT,
        "run_id": f"backfill__{of_day}",
        "listed": 2,
        "kept": 0,
        "statuses": {"completed": 2},
        "failures": {},
        "unfinished": 0,
        "audio_s": 120.0,
        "speech_usd": 0.3,
        "llm_usd": 0.1,
    }
    return DaySummary(day=of_day, **{**values, **changes})


def publish(store: Store, *published: DaySummary) -> None:
    """Leave what a run leaves of each day: its lease, the day's object in the tables, and its summary."""
    put_all(store.warehouse, (f"state/ledger/dt={one.day}/lease.json" for one in published), LEASE.encode())
    put_all(store.warehouse, (f"tables/calls/dt={one.day}/calls.parquet" for one in published))
    record(store.state, published)


def lease(store: Store, folder: str, **changes: Any) -> None:
    """Leave a lease, as a run writes it that has just taken it, in a folder below the ledger."""
    document = {**json.loads(LEASE), "released": False, **changes}
    store.state.put(f"ledger/{folder}/lease.json", json.dumps(document).encode())


def put_all(bucket: str, keys: Iterable[str], body: bytes = b"RIFF", storage: str = "STANDARD") -> None:
    """Put many objects by the way that the server's requests take within it, without the requests."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for key in keys:
        backend.put_object(bucket, key, body, storage=storage)


def s3_of(web: Web, keys: Sequence[str]) -> Any:
    """A client whose buckets list any number of keys, the same in each; none of the objects can be read."""
    keys = sorted(keys)

    def respond(request: Request) -> Answer:
        if "list-type" not in request.query:
            return text_answer("<Error><Code>NoSuchKey</Code></Error>", 404, "application/xml")
        prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
        most = 1000
        place = bisect_left(keys, request.query.get("continuation-token", prefix))
        found: list[str] = []
        while place < len(keys) and keys[place].startswith(prefix) and len(found) < most:
            key = keys[place]
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end < 0:
                found.append(
                    f"<Contents><Key>{escape(key)}</Key><ETag>&quot;e&quot;</ETag><Size>9</Size>"
                    "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
                )
                place += 1
            else:
                found.append(f"<CommonPrefixes><Prefix>{escape(key[: end + 1])}</Prefix></CommonPrefixes>")
                place = bisect_right(keys, key[: end + 1] + "\U0010ffff")
        more = place < len(keys) and keys[place].startswith(prefix)
        rest = f"<NextContinuationToken>{escape(keys[place])}</NextContinuationToken>" if more else ""
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        body = f"<ListBucketResult>{truncated}{rest}{''.join(found)}</ListBucketResult>"
        return text_answer(body, kind="application/xml")

    web.respond = respond
    return boto3.client(
        "s3", endpoint_url=web.url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key=KEY
    )
