"""Names of the objects in the state area: this module alone formats and parses them.

::

    ledger/dt=<day>/lease.json                        who may pay for the day
    ledger/dt=<day>/<run token>/<task>[.<n>].jsonl    what a task of a run recorded
    runs/dt=<day>/<run token>/day.json                a day as a run listed it
    runs/dt=<day>/<run token>/<chunk>.jsonl           a chunk's manifest
    runs/dt=<day>/<run token>/rows/<part>.arrow       rows on their way to the tables
    transcripts/dt=<day>/<transcript key>.json, .vtt  a transcript and its captions
    transcripts/dt=<day>/cues-<hex>.jsonl             the cues of transcripts that were collected together
    limits/jobs.json                                  jobs at once, shared by the tasks of all runs
    limits/llm-<digest>.json                          requests a minute to a model
    limits/backfill-usd.json                          what backfills spend on a calendar day
    index/<digest>/…                                  the listing of an archive
    summaries/<year>-<month>.json                     what each day of a month has come to
    plans/<first>_<last>.json                         what these days were expected to cost; see planning/saved.py

A run over several days has ``days=<first>_<last>`` where that of one day has ``dt=<day>``, for its lease, ledger and
manifests; its list is ``days.json``. The rows of each day, and the transcripts, lie where those of a day's run do.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import uuid

from callphases.day_range import DayRange, Span

CHUNK, REST = "chunk", "rest"
"""Kinds of parts: rows of a chunk, and of recordings that are in no chunk."""
LEDGERS = "ledger/"
"""What the names of all ledgers, and of their leases, begin with."""
_TRANSCRIPT, _CAPTIONS = ".json", ".vtt"
_DAY = r"\d{4}-\d{2}-\d{2}"


def lease(span: Span) -> str:
    """The lease of a day, or of a run over several."""
    return f"{ledger_of(span)}lease.json"


def ledger_of(span: Span, run_token: str = "") -> str:
    """What the names of all ledger objects of a day begin with, or of a run over several; or of one run alone."""
    return f"{LEDGERS}{_folder(span)}/{f'{run_token}/' if run_token else ''}"


def ledger_segment(span: Span, run_token: str, task: str, number: int = 0) -> str:
    """An object of a task's ledger, the first of which has number 0."""
    return f"{ledger_of(span, run_token)}{task}{f'.{number}' if number else ''}.jsonl"


def is_ledger_segment(name: str) -> bool:
    """Whether an object below ``ledger_of`` holds events."""
    return name.endswith(".jsonl")


def span_of(folder: str) -> Span | None:
    """The day or the days that a folder directly below ``LEDGERS`` is of: the inverse of ``ledger_of``."""
    found = re.fullmatch(rf"{LEDGERS}(?:dt=({_DAY})|days=({_DAY})_({_DAY}))/", folder)
    if found is None:
        return None
    try:
        days = [dt.date.fromisoformat(day) for day in found.groups() if day is not None]
    except ValueError:
        return None
    return days[0] if len(days) == 1 else DayRange(days[0], days[1])


def day_list(span: Span, run_token: str) -> str:
    """A day as a run listed it, or several."""
    return f"{_run(span, run_token)}{'days' if isinstance(span, DayRange) else 'day'}.json"


def manifest(span: Span, run_token: str, chunk: str) -> str:
    """The manifest of a chunk."""
    return f"{_run(span, run_token)}{chunk}.jsonl"


def published(days: DayRange, run_token: str) -> str:
    """What each day of a run over several has come to."""
    return f"{_run(days, run_token)}published.json"


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


def new_cue_bundle(span: Span) -> str:
    """A new object for the cues of transcripts that are collected together."""
    return f"{_transcripts(span)}cues-{uuid.uuid4().hex}.jsonl"


def jobs_limit() -> str:
    """The jobs that the tasks of all runs have at the speech service."""
    return "limits/jobs.json"


def backfill_spending() -> str:
    """What the runs of backfills spend on a calendar day."""
    return "limits/backfill-usd.json"


def llm_limit(model: str) -> str:
    """The requests a minute to a language model."""
    return f"limits/llm-{hashlib.sha256(model.encode()).hexdigest()[:16]}.json"


def summaries(month: str) -> str:
    """What the days of a month have come to; ``month`` is like ``2026-11``."""
    return f"summaries/{month}.json"


PLANS = "plans/"
"""What the names of all saved plans begin with."""


def plan(days: DayRange) -> str:
    """What days were expected to cost."""
    return f"{PLANS}{days.first}_{days.last}.json"


def ledger_day(name: str) -> dt.date | None:
    """The day whose ledger or lease an object is; None for other objects."""
    found = re.match(r"ledger/dt=(\d{4}-\d\d-\d\d)/", name)
    return dt.date.fromisoformat(found[1]) if found else None


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


def _run(span: Span, run_token: str) -> str:
    return f"runs/{_folder(span)}/{run_token}/"


def _transcripts(span: Span) -> str:
    return f"transcripts/{_folder(span)}/"


def _folder(span: Span) -> str:
    return f"days={span.first}_{span.last}" if isinstance(span, DayRange) else f"dt={span}"


def _archive(digest: str) -> str:
    return f"index/{digest}/"
