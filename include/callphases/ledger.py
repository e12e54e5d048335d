"""What has been paid for, and how to find it again: a day's log of events in the state area.

Every event is written once, in an object of its own or with others of its task, and never changed; the ledger of a
day is what its objects say in the order of their names. The key of a transcript follows from the recording's bucket,
key and ETag and from the options of the transcription; the key of an answer from the transcript and everything that
the model is asked. So a changed prompt asks the model again and transcribes nothing, and a changed option transcribes
again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from callphases.errors import CallFailure
from callphases.recordings import Recording
from callphases.storage import Folder

Event = dict[str, Any]


def failed(key: str, failure: CallFailure, **more: Any) -> Event:
    """The event of a failure."""
    return {
        "event": "failed",
        "key": key,
        "failure_class": failure.failure_class,
        "failure_message": str(failure),
        "permanent": failure.permanent,
        **more,
    }


def digest(*parts: object) -> str:
    """32 hex digits over the parts' JSON."""
    document = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(document.encode()).hexdigest()[:32]


def transcript_key(recording: Recording, options: dict[str, Any]) -> str:
    """The key of what is paid for when ``recording`` is transcribed with ``options``."""
    return digest(recording.bucket, recording.key, recording.etag, options)


def answer_key(transcript: str, question: object) -> str:
    """The key of a model's answer: the transcript's key and everything that the question holds besides it."""
    return digest(transcript, question)


@dataclass
class Ledger:
    """The events of one day, the last of each key winning.

    An event is a dict with ``event`` (``intended``, ``submitted``, ``transcribed``, ``answered`` or ``failed``),
    ``key``, ``at``, ``run_id`` and what belongs to it. Safe to use from the threads of a task.
    """

    state: Folder
    day: dt.date
    run_id: str
    _events: dict[str, Event] = field(default_factory=dict)
    _transcript_ids: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, state: Folder, day: dt.date, run_id: str) -> Ledger:
        """Read all that is known of ``day``, to write for ``run_id``: one LIST, and one GET for each object written."""
        ledger = cls(state, day, run_id)
        for name in state.names(ledger._folder):
            ledger._remember(json.loads(line) for line in (state.get(name) or b"").splitlines())
        return ledger

    @property
    def _folder(self) -> str:
        return f"ledger/dt={self.day}/"

    def write(self, events: Iterable[Event]) -> None:
        """Make events durable with one PUT; they are known here once they are."""
        now = dt.datetime.now(dt.UTC).isoformat()
        stamped = [{**event, "at": now, "run_id": self.run_id} for event in events]
        if not stamped:
            return
        body = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in stamped)
        # Nanoseconds order the objects of a task, the random part keeps tasks of the same moment apart.
        name = f"{self._folder}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
        self.state.put(name, body.encode(), "application/x-ndjson")
        self._remember(stamped)

    def settled(self, key: str, since: dt.datetime) -> bool:
        """Whether nothing is to be done for ``key`` by a pass over the day that began at ``since``.

        What failed for good is settled, and so is what failed in this very pass; an older failure that may pass is not,
        nor is a failure that is worth another try at once (``again``).
        """
        event = self.find(key)
        if event is None or event["event"] == "intended":
            return False
        if event["event"] != "failed":
            return True
        if event["permanent"]:
            return True
        return dt.datetime.fromisoformat(event["at"]) >= since and not event.get("again")

    def transcript_ids(self) -> set[str]:
        """The ids of all jobs of the day that were ever known."""
        with self._lock:
            return set(self._transcript_ids)

    def find(self, key: str) -> Event | None:
        """The last event of ``key``."""
        with self._lock:
            return self._events.get(key)

    def _remember(self, events: Iterable[Event]) -> None:
        with self._lock:
            for event in events:
                self._events[event["key"]] = event
                if event.get("transcript_id"):
                    self._transcript_ids.add(event["transcript_id"])
