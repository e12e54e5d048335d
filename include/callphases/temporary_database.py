"""A database for what need not fit into memory. Its file has no name: nothing stays on disk, however a process ends."""

from __future__ import annotations

import sqlite3

_CACHE_KIB = 16_000


def temporary_database() -> sqlite3.Connection:
    """An empty database, for one thread at a time; ``close`` frees the disk space."""
    database = sqlite3.connect("", check_same_thread=False)  # "" is a temporary file without a name
    database.execute("PRAGMA journal_mode = OFF")
    database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return database
