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

from benchmarks.processes import Broken, running, wait_for

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
    """Where Airflow keeps its runs. ``pid`` is that of the server, None where there is none."""

    name: str
    settings: dict[str, str]
    connect: Any
    pid: int | None = None
    _connection: Any = field(default=None, repr=False)

    def rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """The rows of a query, whose values are marked by ``?``."""
        if self._connection is None:
            self._connection = self.connect()
        cursor = self._connection.cursor()
        try:
            cursor.execute(query if self.pid is None else query.replace("?", "%s"), values)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found
        finally:
            self._connection.rollback()  # a transaction left open would see the same rows for ever

    def close(self) -> None:
        """Close the bench's own connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def database(folder: Path) -> Iterator[Database]:
    """A database for one Airflow, gone afterwards."""
    programs = _postgres()
    if programs is None:
        yield _sqlite(folder)
    else:
        with _cluster(programs, folder) as cluster:
            yield cluster


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres() -> Path | None:
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
def _cluster(programs: Path, folder: Path) -> Iterator[Database]:
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
        settings = [word for name, value in POSTGRES_SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(port), *settings]

        def connect() -> Any:
            return psycopg2.connect(
                host="127.0.0.1", port=port, user="airflow", password=password, dbname="postgres", connect_timeout=5
            )

        def answers() -> bool:
            try:
                connect().close()
            except psycopg2.OperationalError:
                return False
            return True

        with running(command, log) as (process, _):
            wait_for(answers, 30, "Postgres did not answer", log)
            url = f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/postgres"
            cluster = Database("Postgres", {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}, connect, process.pid)
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
    settings = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{path}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "demo.sqlite.CONNECT_ARGS",
    }
    return Database("SQLite", settings, lambda: sqlite3.connect(path, timeout=60))
