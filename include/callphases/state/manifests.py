"""What a run has listed: the manifests of its chunks, and its list of the day. Both are kept in the state area."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from callphases.day_range import DayRange, Span, parse_span
from callphases.errors import ConfigurationError
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.events import Event, from_document, serialize
from callphases.state.storage import ObjectPrefix


@dataclass(frozen=True)
class Manifest:
    """A chunk of the recordings of a day, or of several.

    Attributes:
        name: the chunk's, unique in its run.
        day: the day of the calls, or the days that the run is over.
        run_id: the run that listed it.
        run_token: names the run in the lease of the day and in the state area; no other run has the same.
        fencing_token: the lease's when the day was listed.
        listed_at: when the pass over the day began. What failed before may be tried again, what failed since not.
        recordings: in key order; of several days, day by day.
        counts: of several days, those of the chunk and how many recordings each has in it.
        known: the ledger's events about them.
        first: how many recordings of the run's other chunks come before this one's, to pace them all by one clock.
        total: how many recordings the run's chunks have.
        replay: whether permanent failures are tried again too.
        is_archive: whether the run is one of a backfill, and so comes after nights.
        budget_usd: what may be spent on them; None means no limit.
        lengths: with a budget, or with ``limits.backfill.usd_per_day``, how long each is expected to be, and at most,
            in seconds; see ``limits.durations``.
    """

    name: str
    day: Span
    run_id: str
    run_token: str
    fencing_token: int
    listed_at: dt.datetime
    recordings: list[Recording]
    counts: list[tuple[dt.date, int]] = field(default_factory=list)
    known: list[Event] = field(default_factory=list)
    first: int = 0
    total: int = 0
    replay: bool = False
    is_archive: bool = False
    budget_usd: float | None = None
    lengths: list[tuple[float, float]] = field(default_factory=list)

    def by_day(self) -> Iterator[tuple[dt.date, list[Recording]]]:
        """The recordings of each day."""
        if not isinstance(self.day, DayRange):
            yield self.day, self.recordings
            return
        left = iter(self.recordings)
        for day, count in self.counts:
            yield day, list(itertools.islice(left, count))

    def days_by_key(self) -> dict[str, dt.date]:
        """The day of each recording, by its key."""
        return {recording.key: day for day, recordings in self.by_day() for recording in recordings}

    def save(self, state: ObjectPrefix) -> str:
        """Write the manifest below ``runs/`` in the state area; returns its URI."""
        head = {
            "name": self.name,
            "day": self.day.isoformat(),
            "run_id": self.run_id,
            "holder": self.run_token,
            "term": self.fencing_token,
            "listed_at": self.listed_at.isoformat(),
            "recordings": len(self.recordings),
            "first": self.first,
            "total": self.total,
            "replay": self.replay,
            "budget_usd": self.budget_usd,
            **({"is_archive": True} if self.is_archive else {}),
            **({"counts": [(str(day), count) for day, count in self.counts]} if self.counts else {}),
            **({"lengths": self.lengths} if self.lengths else {}),
        }
        lines = [head, *(item.as_json() for item in self.recordings)]
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode() + serialize(self.known)
        return state.put(layout.manifest(self.day, self.run_token, self.name), body, "application/x-ndjson")

    @classmethod
    def load(cls, state: ObjectPrefix, uri: str) -> Manifest:
        """Read a manifest by its URI.

        Raises:
            ConfigurationError: it is gone, or lies in another state area.
        """
        body = _body(state, uri)
        head, *items = (json.loads(line) for line in body.splitlines())
        count = head.pop("recordings")
        return cls(
            **{
                **_field_names(head),
                "day": parse_span(head["day"]),
                "counts": [(dt.date.fromisoformat(day), count) for day, count in head.get("counts", [])],
                "listed_at": dt.datetime.fromisoformat(head["listed_at"]),
                "lengths": [(expected_s, most_s) for expected_s, most_s in head.get("lengths", [])],
            },
            recordings=[Recording.from_json(item) for item in items[:count]],
            known=[from_document(item) for item in items[count:]],
        )


@dataclass(frozen=True)
class DayList:
    """A day as a run listed it: what publishing has to know of it.

    Attributes:
        day: the day of the calls.
        run_id: the run that listed it.
        run_token: names the run in the lease of the day and in the state area; no other run has the same.
        fencing_token: the lease's when the day was listed.
        listed_at: when the pass over the day began.
        listed: how many recordings the day has.
        chunks: how many chunks were made of what is to do.
        rest: how many parts hold the rows of recordings that are in no chunk.
        replay: whether the run only tries failures again.
        is_archive: whether the run is one of a backfill, and so comes after nights.
        days: the range of a run over several days, of which this is one; None if the run is of this day alone.
        first_chunk: the number of the first chunk that has recordings of the day.
        index: in a run over several days, the listing of an archive that the recordings were taken from.
    """

    day: dt.date
    run_id: str
    run_token: str
    fencing_token: int
    listed_at: dt.datetime
    listed: int
    chunks: int
    rest: int
    replay: bool = False
    is_archive: bool = False
    days: DayRange | None = None
    first_chunk: int = 0
    index: str | None = None

    @property
    def span(self) -> Span:
        """What the run is over."""
        return self.days or self.day

    def save(self, state: ObjectPrefix) -> str:
        """Write it below ``runs/`` in the state area; returns its URI."""
        body = json.dumps(self._document()).encode()
        return state.put(layout.day_list(self.day, self.run_token), body, "application/json")

    @classmethod
    def load(cls, state: ObjectPrefix, uri: str) -> DayList:
        """Read it by its URI; raises as ``Manifest.load``."""
        return cls._of(json.loads(_body(state, uri)))

    def _document(self) -> dict[str, Any]:
        document = {**_json_names(asdict(self)), "day": self.day.isoformat(), "listed_at": self.listed_at.isoformat()}
        document["days"] = self.days and self.days.isoformat()
        for name in ("is_archive", "days", "first_chunk", "index"):
            if not document[name]:  # versions before this one don't know it
                del document[name]
        return document

    @classmethod
    def _of(cls, document: dict[str, Any]) -> DayList:
        values = {
            "day": dt.date.fromisoformat(document["day"]),
            "listed_at": dt.datetime.fromisoformat(document["listed_at"]),
            "days": parse_span(document["days"]) if "days" in document else None,
        }
        return cls(**{**_field_names(document), **values})


def save_days(state: ObjectPrefix, days: DayRange, run_token: str, lists: Sequence[DayList]) -> str:
    """Write the days of a run over several to one object; returns its URI."""
    body = json.dumps([one._document() for one in lists]).encode()
    return state.put(layout.day_list(days, run_token), body, "application/json")


def load_days(state: ObjectPrefix, uri: str) -> list[DayList]:
    """Read the days of a run over several; raises as ``Manifest.load``."""
    return [DayList._of(one) for one in json.loads(_body(state, uri))]


def save_published(state: ObjectPrefix, one: DayList, days: Sequence[dict[str, Any]]) -> str:
    """Write what each day of a run over several has come to, of which ``one`` is any; returns the object's URI."""
    assert one.days is not None
    name = layout.published(one.days, one.run_token)
    return state.put(name, json.dumps(days).encode(), "application/json")


def load_published(state: ObjectPrefix, uri: str) -> list[dict[str, Any]]:
    """Read it; raises as ``Manifest.load``."""
    return list(json.loads(_body(state, uri)))


def _body(state: ObjectPrefix, uri: str) -> bytes:
    body = state.get(uri.removeprefix(state.uri)) if uri.startswith(state.uri) else None
    if body is None:
        raise ConfigurationError(f"{uri}: this run's list is gone from output.state; clear the run's first task.")
    return body


def new_run_token(run_id: str) -> str:
    """A name for one execution of a run that can be part of an object's name.

    A run's id is not unique: the run may be cleared and run again, or two Airflows may have the same.
    """
    return f"{re.sub(r'[^A-Za-z0-9_.+-]', '_', run_id)}-{uuid.uuid4().hex[:8]}"


_JSON_NAMES = {"run_token": "holder", "fencing_token": "term"}
"""What these fields are called in the state area, where versions before and after this one read them."""


def _json_names(fields: dict[str, Any]) -> dict[str, Any]:
    return {_JSON_NAMES.get(name, name): value for name, value in fields.items()}


def _field_names(document: dict[str, Any]) -> dict[str, Any]:
    fields = {name: field_name for field_name, name in _JSON_NAMES.items()}
    return {fields.get(name, name): value for name, value in document.items()}
