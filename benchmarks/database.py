"""Airflow's database: a private Postgres where this machine has one, else SQLite; and what the bench reads from it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import Broken, Program, running, wait_for

# What makes a crash of the machine harmless costs time on disks that differ from machine to machine; a bench's database
# is thrown away.
POSTGRES_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # paths of sockets may be 107 characters long, and folders are longer
}


@dataclass
class Database:
    """Where Airflow keeps its runs. ``server`` is None where there is none, ``url`` is SQLAlchemy's."""

    name: str
    url: str
    settings: dict[str, str]
    connect: Any
    server: Program | None = None
    _connection: Any = field(default=None, repr=False)

    def rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """The rows of a query, whose values are marked by ``?``."""
        try:
            return self._ask(query, values)
        except Exception:
            self.close()
            return self._ask(query, values)  # the server may have been restarted

    def answers(self) -> bool:
        """Whether it can be connected to."""
        try:
            self.connect().close()
        except Exception:
            return False
        return True

    def _ask(self, query: str, values: tuple[str, ...]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = self.connect()
        cursor = self._connection.cursor()
        cursor.execute(query if self.server is None else query.replace("?", "%s"), values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        self._connection.rollback()  # a transaction left open would see the same rows for ever
        return found

    def close(self) -> None:
        """Close the bench's own connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def database(folder: Path) -> Iterator[Database]:
    """A database for one Airflow, gone afterwards."""
    programs = postgres_programs()
    if programs is None:
        yield _sqlite(folder)
    else:
        with postgres(programs, folder) as cluster:
            yield cluster


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_programs() -> Path | None:
    """The folder of Postgres's programs, of the newest version there is; None where it or its driver is missing."""
    try:
        import asyncpg  # noqa: F401
        import psycopg2  # noqa: F401
    except ImportError:
        return None
    found = sorted(
        map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), key=lambda path: float(path.split("/")[4])
    )
    if not found and shutil.which("pg_config"):
        asked = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)  # noqa: S607
        found = [f"{asked.stdout.strip()}/initdb"]
    if not found and (named := shutil.which("initdb")):
        found = [str(Path(named).resolve())]
    return Path(found[-1]).parent if found and Path(found[-1]).exists() else None


@contextlib.contextmanager
def postgres(programs: Path, folder: Path, **more_settings: str) -> Iterator[Database]:
    """A private Postgres, gone afterwards.

    Args:
        programs: the folder of its programs.
        folder: of its log.
        more_settings: in place of ``POSTGRES_SETTINGS``.

    Raises:
        Broken: it did not start.
    """
    import psycopg2

    log = folder / "postgres.log"
    password = secrets.token_urlsafe(16)
    home = Path(tempfile.mkdtemp(prefix="callphases-bench-"))  # another user must reach it
    try:
        data, as_user = home / "data", []
        secret = home / "password"
        secret.write_text(password)
        if os.geteuid() == 0:  # Postgres refuses to run as root
            user = _some_user()
            as_user = ["runuser", "-u", user, "--"]
            for path in (home, secret):
                shutil.chown(path, user)
        made = subprocess.run(  # noqa: S603
            [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "airflow", "-A", "scram-sha-256",
             f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync"],
            stdout=log.open("w"), stderr=subprocess.STDOUT, cwd=home, check=False,
        )  # fmt: skip
        if made.returncode:
            raise Broken(f"Postgres could not be set up; see {log}")
        port = free_port()
        settings = [
            word for name, value in {**POSTGRES_SETTINGS, **more_settings}.items() for word in ("-c", f"{name}={value}")
        ]
        command = [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(port), *settings]

        def connect() -> Any:
            return psycopg2.connect(
                host="127.0.0.1", port=port, user="airflow", password=password, dbname="postgres", connect_timeout=5
            )

        with running(command, log) as (server, _):
            url = f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/postgres"
            cluster = Database("Postgres", url, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}, connect, server)
            wait_for(cluster.answers, 30, "Postgres did not answer", log)
            try:
                yield cluster
            finally:
                cluster.close()  # the server waits for its clients before it ends
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _some_user() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _sqlite(folder: Path) -> Database:
    path = folder / "airflow.db"
    url = f"sqlite:///{path}"
    settings = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "demo.sqlite.CONNECT_ARGS",
    }
    return Database("SQLite", url, settings, lambda: sqlite3.connect(path, timeout=60))
