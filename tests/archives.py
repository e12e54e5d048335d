"""An archive as runs leave it: summaries of days, leases of runs, and years of objects without a year of requests."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import Any

from callphases.state.summaries import DaySummary, record
from doubles import Store

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
