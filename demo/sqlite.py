"""SQLite for a busy Airflow: a transaction that starts with a savepoint takes the write lock at its start.

Python's driver starts a transaction at the first write. A savepoint starts one earlier, for reading. If another process
has written since, SQLite rejects the transaction's first write with "database is locked", however long the timeout is.
This happens when a backfill is created while the scheduler is running.
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
"""For Airflow's ``[database] sql_alchemy_connect_args``; the timeout is in seconds."""
