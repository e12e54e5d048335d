"""SQLite under a busy Airflow: a transaction that begins with a savepoint waits for the write lock, and takes it.

Python's driver opens a transaction at the first write. A savepoint opens one earlier, for reading; when another process
has written since, SQLite refuses the first write in it with "database is locked", however long the time-out is.
Creating a backfill while the scheduler works runs into that.
"""

from __future__ import annotations

import sqlite3
from typing import Any


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith("SAVEPOINT") and not self.connection.in_transaction:
            super().execute("BEGIN IMMEDIATE")
        return super().execute(sql, parameters)


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


CONNECT_ARGS = {"timeout": 60, "factory": _Connection}
"""For Airflow's ``[database] sql_alchemy_connect_args``; the time-out is in seconds."""
