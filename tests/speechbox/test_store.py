"""Tests of the database: warnings of a recognition, and databases of an early version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from speechbox.sentences import Recognition
from speechbox.store import Store

URL = "https://recordings.example/a.wav"
WARNING = "decoded 61.5 s of 90.0 s stated"


def completed(path: Path, *warnings: str) -> str:
    store = Store(path)
    record = store.add({"audio_url": URL})
    store.start(record.id)
    store.complete(record.id, Recognition(61.5, (), warnings=warnings))
    store.close()
    return record.id


def test_warnings_are_read_back(tmp_path: Path) -> None:
    first, second = (completed(tmp_path / "db", *warnings) for warnings in ([], [WARNING, "audio tracks: 2"]))
    store = Store(tmp_path / "db")
    assert [store.recognition(one).warnings for one in (first, second)] == [(), (WARNING, "audio tracks: 2")]
    store.delete(second)
    assert store.recognition(second) is None
    assert b"audio tracks" not in (tmp_path / "db").read_bytes()


def test_database_without_warnings_is_continued(tmp_path: Path) -> None:
    old = completed(tmp_path / "db")
    with sqlite3.connect(tmp_path / "db") as database:
        database.execute("ALTER TABLE transcripts DROP COLUMN warnings")
    new = completed(tmp_path / "db", WARNING)
    store = Store(tmp_path / "db")
    assert [store.recognition(one).warnings for one in (old, new)] == [(), (WARNING,)]
