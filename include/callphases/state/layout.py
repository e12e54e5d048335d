"""Names of the objects in the state area: this module alone formats and parses them.

::

    ledger/dt=<day>/lease.json                        who may pay for the day
    ledger/dt=<day>/<run token>/<task>[.<n>].jsonl    what a task of a run recorded
    runs/dt=<day>/<run token>/day.json                a day as a run listed it
    runs/dt=<day>/<run token>/<chunk>.jsonl           a chunk's manifest
    runs/dt=<day>/<run token>/slots.json              jobs at once, shared by the run's tasks
    runs/dt=<day>/<run token>/rows/<part>.arrow       rows on their way to the tables
    transcripts/dt=<day>/<transcript key>.json, .vtt  a transcript and its captions
    transcripts/dt=<day>/cues-<hex>.jsonl             the cues of transcripts that were collected together
    limits/llm-<digest>.json                          requests a minute to a model
    index/<digest>/…                                  the listing of an archive
    summaries/<year>-<month>.json                     what each day of a month has come to
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid

CHUNK, REST = "chunk", "rest"
"""Kinds of parts: rows of a chunk, and of recordings that are in no chunk."""
_TRANSCRIPT, _CAPTIONS = ".json", ".vtt"


def lease(day: dt.date) -> str:
    """The lease of a day."""
    return f"ledger/dt={day}/lease.json"


def ledger_of_day(day: dt.date) -> str:
    """What the names of all of a day's ledger objects begin with."""
    return f"ledger/dt={day}/"


def ledger_segment(day: dt.date, run_token: str, task: str, number: int = 0) -> str:
    """An object of a task's ledger, the first of which has number 0."""
    return f"{ledger_of_day(day)}{run_token}/{task}{f'.{number}' if number else ''}.jsonl"


def is_ledger_segment(name: str) -> bool:
    """Whether an object below ``ledger_of_day`` holds events."""
    return name.endswith(".jsonl")


def day_list(day: dt.date, run_token: str) -> str:
    """A day as a run listed it."""
    return f"{_run(day, run_token)}day.json"


def manifest(day: dt.date, run_token: str, chunk: str) -> str:
    """The manifest of a chunk."""
    return f"{_run(day, run_token)}{chunk}.jsonl"


def slots(day: dt.date, run_token: str) -> str:
    """The jobs that a run's tasks have at the speech service."""
    return f"{_run(day, run_token)}slots.json"


def part(day: dt.date, run_token: str, name: str) -> str:
    """A part: rows that publishing merges."""
    return f"{_run(day, run_token)}rows/{name}.arrow"


def part_name(kind: str, number: int) -> str:
    """The name of a part, and of a chunk; see ``CHUNK`` and ``REST``."""
    return f"{kind}-{number:04d}"


def is_chunk(name: str) -> bool:
    """Whether a part is a chunk's."""
    return name.startswith(f"{CHUNK}-")


def transcript(day: dt.date, key: str) -> str:
    """The transcript document of a transcript key."""
    return f"{_transcripts(day)}{key}{_TRANSCRIPT}"


def captions(transcript_name: str) -> str:
    """The captions that lie beside a transcript document, by its name or URI."""
    return transcript_name.removesuffix(_TRANSCRIPT) + _CAPTIONS


def transcript_key(transcript_name: str) -> str:
    """The transcript key that a document belongs to, by its name or URI: the inverse of ``transcript``."""
    return transcript_name.rpartition("/")[2].removesuffix(_TRANSCRIPT)


def new_cue_bundle(day: dt.date) -> str:
    """A new object for the cues of transcripts that are collected together."""
    return f"{_transcripts(day)}cues-{uuid.uuid4().hex}.jsonl"


def llm_limit(model: str) -> str:
    """The requests a minute to a language model."""
    return f"limits/llm-{hashlib.sha256(model.encode()).hexdigest()[:16]}.json"


def summaries(month: str) -> str:
    """What the days of a month have come to; ``month`` is like ``2026-11``."""
    return f"summaries/{month}.json"


def archive_index(digest: str) -> str:
    """The index of an archive: its days, and the object of each."""
    return f"{_archive(digest)}index.json"


def archive_lease(digest: str) -> str:
    """The lease of the run that lists an archive."""
    return f"{_archive(digest)}lease.json"


def archive_day(digest: str, day_object: str) -> str:
    """The object of a day in an archive's index; ``day_object`` is what the index calls it."""
    return f"{_archive(digest)}{day_object}"


def daily_times(digest: str, day: dt.date) -> str:
    """The times of a day's recordings, where they are not in the keys of its own prefix."""
    return f"{_archive(digest)}{day}.jsonl.gz"


def archive_day_object(day: dt.date, content_digest: str) -> str:
    """What an index calls the object of a day; it follows from what the day holds."""
    return f"{day}-{content_digest}.jsonl.gz"


def _run(day: dt.date, run_token: str) -> str:
    return f"runs/dt={day}/{run_token}/"


def _transcripts(day: dt.date) -> str:
    return f"transcripts/dt={day}/"


def _archive(digest: str) -> str:
    return f"index/{digest}/"
