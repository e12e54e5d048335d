"""Manifests and day lists in the form that every version reads."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field

from callphases.state.events import Submitted
from callphases.state.manifests import DayList, Manifest
from doubles import DAY, recording

LISTED_AT = dt.datetime(2026, 11, 21, 1, 0, tzinfo=dt.UTC)
RECORDING = recording("calls/a.mp3")
KNOWN = {
    "event": "submitted",
    "key": "k",
    "recording": RECORDING.key,
    "term": 2,
    "transcript_id": "t-1",
    "at": "2026-11-20T01:00:00+00:00",
}
HEAD = {
    "name": "chunk-0007",
    "day": "2026-11-20",
    "run_id": "run/1",
    "holder": "run_1-abc",
    "term": 3,
    "listed_at": "2026-11-21T01:00:00+00:00",
    "recordings": 1,
    "first": 175,
    "total": 200,
    "replay": True,
    "budget_usd": 0.125,
}
DAY_LIST = {
    "day": "2026-11-20",
    "run_id": "run/1",
    "holder": "run_1-abc",
    "term": 3,
    "listed_at": "2026-11-21T01:00:00+00:00",
    "listed": 7,
    "chunks": 2,
    "rest": 1,
    "replay": True,
}


@dataclass
class MemoryPrefix:
    """An ``ObjectPrefix`` that keeps its objects in a dict."""

    uri: str = "s3://warehouse/state/"
    objects: dict[str, bytes] = field(default_factory=dict)

    def put(self, name: str, body: bytes, content_type: str = "") -> str:
        self.objects[name] = body
        return self.uri + name

    def get(self, name: str) -> bytes | None:
        return self.objects.get(name)


def test_manifest_of_an_earlier_version_is_read_and_written_unchanged() -> None:
    state = MemoryPrefix()
    body = "".join(json.dumps(line) + "\n" for line in (HEAD, RECORDING.as_json(), KNOWN)).encode()
    uri = state.put("runs/dt=2026-11-20/run_1-abc/chunk-0007.jsonl", body)
    manifest = Manifest.load(state, uri)  # type: ignore[arg-type]
    moment = dt.datetime(2026, 11, 20, 1, tzinfo=dt.UTC)
    submitted = Submitted(key="k", recording=RECORDING.key, fencing_token=2, transcript_id="t-1", at=moment)
    assert manifest == Manifest(
        name="chunk-0007",
        day=DAY,
        run_id="run/1",
        run_token="run_1-abc",
        fencing_token=3,
        listed_at=LISTED_AT,
        recordings=[RECORDING],
        known=[submitted],
        first=175,
        total=200,
        replay=True,
        budget_usd=0.125,
    )
    assert manifest.save(state) == uri  # type: ignore[arg-type]
    assert state.objects == {"runs/dt=2026-11-20/run_1-abc/chunk-0007.jsonl": body}


def test_day_list_of_an_earlier_version_is_read_and_written_unchanged() -> None:
    state = MemoryPrefix()
    body = json.dumps(DAY_LIST).encode()
    uri = state.put("runs/dt=2026-11-20/run_1-abc/day.json", body)
    day = DayList.load(state, uri)  # type: ignore[arg-type]
    assert day == DayList(DAY, "run/1", "run_1-abc", 3, LISTED_AT, listed=7, chunks=2, rest=1, replay=True)
    assert (day.run_token, day.fencing_token) == ("run_1-abc", 3)
    assert day.save(state) == uri  # type: ignore[arg-type]
    assert state.objects == {"runs/dt=2026-11-20/run_1-abc/day.json": body}
