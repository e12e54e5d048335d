"""Stores transcripts in SQLite: their options, status and results."""

import json
import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

from speechbox.options import FALLBACK
from speechbox.sentences import Recognition, Sentence

Status = Literal["queued", "processing", "completed", "error"]

DELETED_URL = "http://deleted_by_user"
DELETED_TEXT = "Deleted by user."

_SCHEMA = """
CREATE TABLE IF NOT EXISTS transcripts (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of submission
    id              TEXT NOT NULL UNIQUE,
    status          TEXT NOT NULL,
    created         TEXT NOT NULL,                      -- UTC, ISO 8601 without a zone, as the API gives it
    completed       TEXT,
    audio_url       TEXT NOT NULL,
    options         TEXT NOT NULL,                      -- JSON, the body of POST /v2/transcript
    starts          INTEGER NOT NULL DEFAULT 0,
    error           TEXT,
    duration_s      REAL,
    channels        INTEGER,
    language_code   TEXT,
    sentences       TEXT,                               -- JSON, a list of lists of words
    warnings        TEXT NOT NULL DEFAULT '[]',         -- JSON, a list of sentences about the file
    webhook_status  INTEGER,
    deleted         INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS transcripts_by_status ON transcripts (status, number);
"""


class Record(NamedTuple):
    """A transcript without its words; the fields match the columns."""

    number: int
    id: str
    status: Status
    created: str
    completed: str | None
    audio_url: str
    options_json: str
    error: str | None
    duration_s: float | None
    channels: int | None
    language_code: str | None
    webhook_status: int | None
    deleted: int  # 0 or 1

    @property
    def options(self) -> dict[str, Any]:
        """The body of POST /v2/transcript; parsed on access, because lists of transcripts do not need it."""
        return dict(json.loads(self.options_json))


_COLUMNS = ", ".join(Record._fields).replace("options_json", "options")


@dataclass(frozen=True, slots=True)
class Page:
    """Transcripts, newest first, and whether there are older and newer ones."""

    records: list[Record]
    has_older: bool
    has_newer: bool


class Store:
    """Changes are durable when a method returns. Used from the event loop's thread only."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON;" + _SCHEMA)
        # Databases of an early version lack it.
        if not self._db.execute("SELECT 1 FROM pragma_table_info('transcripts') WHERE name = 'warnings'").fetchone():
            self._db.execute("ALTER TABLE transcripts ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]'")
        #: Recognitions that the engine still holds, by transcript, so that they need not be read from the database.
        self._kept: WeakValueDictionary[str, Recognition] = WeakValueDictionary()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add(self, options: Mapping[str, Any]) -> Record:
        """Add a queued transcript."""
        row = self._db.execute(
            "INSERT INTO transcripts (id, status, created, audio_url, options) VALUES (?, 'queued', ?, ?, ?) "  # noqa: S608
            f"RETURNING {_COLUMNS}",
            (str(uuid.uuid4()), _now(), options["audio_url"], json.dumps(options)),
        ).fetchone()
        return Record._make(row)

    def get(self, transcript_id: str) -> Record | None:
        """Return the transcript, or None."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM transcripts WHERE id = ?", (transcript_id,)).fetchone()  # noqa: S608
        return Record._make(row) if row else None

    def recognition(self, transcript_id: str) -> Recognition | None:
        """Return the recognition of a transcript that is completed and not deleted, or None."""
        kept = self._kept.get(transcript_id)
        if kept is not None:
            return kept
        row = self._db.execute(
            "SELECT sentences, duration_s, channels, language_code, warnings FROM transcripts WHERE id = ?",
            (transcript_id,),
        ).fetchone()
        if not row or row[0] is None:
            return None
        sentences = tuple(Sentence.from_json(words) for words in json.loads(row[0]))
        return Recognition(row[1], sentences, row[2], row[3], tuple(json.loads(row[4])))

    def start(self, transcript_id: str) -> tuple[int, Record] | None:
        """Mark as processing; returns the number of starts and the record, or None if it was deleted."""
        row = self._db.execute(
            "UPDATE transcripts SET status = 'processing', starts = starts + 1 WHERE id = ? AND NOT deleted "  # noqa: S608
            f"RETURNING starts, {_COLUMNS}",
            (transcript_id,),
        ).fetchone()
        return (row[0], Record._make(row[1:])) if row else None

    def fall_back(self, transcript_id: str, model: str) -> None:
        """Record that another model replaces the requested one."""
        self._db.execute(
            "UPDATE transcripts SET options = json_set(options, ?, ?) WHERE id = ? AND NOT deleted",
            (f"$.{FALLBACK}", model, transcript_id),
        )

    def complete(self, transcript_id: str, recognition: Recognition) -> None:
        """Store the recognition, unless the transcript has been deleted."""
        done = self._db.execute(
            "UPDATE transcripts SET status = 'completed', completed = ?, duration_s = ?, channels = ?, "
            "language_code = ?, sentences = ?, warnings = ? WHERE id = ? AND NOT deleted",
            (
                _now(),
                recognition.duration_s,
                recognition.channels,
                recognition.language_code,
                recognition.rendered("stored", lambda: _dump(recognition.sentences)),
                json.dumps(recognition.warnings),
                transcript_id,
            ),
        )
        if done.rowcount:
            self._kept[transcript_id] = recognition

    def fail(self, transcript_id: str, error: str) -> None:
        """Store the error of a transcript."""
        self._db.execute(
            "UPDATE transcripts SET status = 'error', error = ? WHERE id = ? AND NOT deleted", (error, transcript_id)
        )

    def notified(self, transcript_id: str, webhook_status: int) -> None:
        """Store the status of the webhook's response."""
        self._db.execute("UPDATE transcripts SET webhook_status = ? WHERE id = ?", (webhook_status, transcript_id))

    def delete(self, transcript_id: str) -> None:
        """Delete all data of a transcript except its existence."""
        self._db.execute(
            "UPDATE transcripts SET deleted = 1, status = CASE status WHEN 'error' THEN 'error' ELSE 'completed' END, "
            "audio_url = ?, options = '{}', sentences = NULL, warnings = '[]', error = NULL WHERE id = ?",
            (DELETED_URL, transcript_id),
        )
        self._kept.pop(transcript_id, None)
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the write-ahead log still contains the words

    def take_up_again(self) -> list[str]:
        """Queue the unfinished transcripts of an earlier run; returns their IDs in order of submission."""
        self._db.execute("UPDATE transcripts SET status = 'queued' WHERE status = 'processing'")
        rows = self._db.execute("SELECT id FROM transcripts WHERE status = 'queued' ORDER BY number")
        return [row[0] for row in rows]

    def counts(self) -> dict[str, int]:
        """Return the number of transcripts by status."""
        return dict(self._db.execute("SELECT status, count(*) FROM transcripts GROUP BY status").fetchall())

    def page(
        self,
        limit: int,
        status: Status | None = None,
        created_on: date | None = None,
        before: int | None = None,
        after: int | None = None,
    ) -> Page:
        """Return a page of the list; `before` and `after` are the numbers of transcripts just outside of it."""
        where, values = ["1"], list[Any]()
        if status:
            where.append("status = ?")
            values.append(status)
        if created_on:
            where.append("created >= ? AND created < ?")
            values += [created_on.isoformat(), (created_on + timedelta(days=1)).isoformat()]
        everything = " AND ".join(where)
        if before is not None:
            where.append(f"number < {int(before)}")
        if after is not None:
            where.append(f"number > {int(after)}")
        order = "ASC" if after is not None and before is None else "DESC"  # the page closest to `after`
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM transcripts WHERE {' AND '.join(where)} ORDER BY number {order} LIMIT ?",  # noqa: S608
            (*values, limit),
        ).fetchall()
        records = sorted(map(Record._make, rows), reverse=True)

        def exists(condition: str) -> bool:
            sql = f"SELECT EXISTS (SELECT 1 FROM transcripts WHERE {everything} AND {condition})"  # noqa: S608
            return bool(self._db.execute(sql, values).fetchone()[0])

        if not records:
            return Page([], False, False)
        return Page(records, exists(f"number < {records[-1].number}"), exists(f"number > {records[0].number}"))


def _dump(sentences: tuple[Sentence, ...]) -> str:
    return json.dumps([sentence.to_json() for sentence in sentences])


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
