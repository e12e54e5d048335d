"""Starts Airflow's metadata database (a private Postgres if installed, else SQLite) and queries it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.processes import Broken, Program, running, wait_for

# Durability costs time that depends on the disk of the machine, and the benchmark deletes its database anyway.
POSTGRES_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # socket paths are limited to 107 characters, and some folders exceed that
}


@dataclass
class Database:
    """A metadata database.

    Attributes:
        name: of the product.
        url: for SQLAlchemy.
        settings: Airflow's settings for it, as environment variables.
        server: its process; None for SQLite.
    """

    name: str
    url: str
    settings: dict[str, str]
    server: Program | None = None
    _engine: Engine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        timeout = {"timeout": 60} if self.server is None else {"connect_timeout": 5}
        # An open transaction would never see new rows, and a connection may be older than the server's last restart.
        self._engine = create_engine(self.url, isolation_level="AUTOCOMMIT", pool_pre_ping=True, connect_args=timeout)

    def rows(self, query: str, **values: str) -> list[tuple[Any, ...]]:
        """Run a query with named parameters such as ``:run_id``."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]

    def answers(self) -> bool:
        """Whether the database accepts connections."""
        try:
            self.rows("select 1")
        except SQLAlchemyError:
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


@contextlib.contextmanager
def database(folder: Path) -> Iterator[Database]:
    """Run a database for one Airflow and delete it afterwards."""
    programs = postgres_programs()
    if programs is None:
        yield _sqlite(folder)
    else:
        with postgres(programs, folder) as cluster:
            yield cluster


def free_port() -> int:
    """Return an unused port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_programs() -> Path | None:
    """Return the folder with the newest Postgres programs, or None without Postgres or its Python drivers."""
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
    """Run a private Postgres and delete it afterwards.

    Args:
        programs: folder with the programs of Postgres.
        folder: for the log.
        more_settings: override ``POSTGRES_SETTINGS``.

    Raises:
        Broken: Postgres did not start.
    """
    log = folder / "postgres.log"
    password = secrets.token_urlsafe(16)
    home = Path(tempfile.mkdtemp(prefix="callphases-bench-"))  # the user that runs Postgres must have access
    try:
        data, as_user = home / "data", []
        secret = home / "password"
        secret.write_text(password)
        if os.geteuid() == 0:  # Postgres refuses to run as root
            user = _unprivileged_user()
            as_user = ["runuser", "-u", user, "--"]
            for path in (home, secret):
                shutil.chown(path, user)
        made = subprocess.run(  # noqa: S603
            [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "airflow", "-A", "scram-sha-256",
             f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync"],
            stdout=log.open("w"), stderr=subprocess.STDOUT, cwd=home, check=False,
        )  # fmt: skip
        if made.returncode:
            raise Broken(f"initdb failed; see {log}")
        port = free_port()
        settings = [
            word for name, value in {**POSTGRES_SETTINGS, **more_settings}.items() for word in ("-c", f"{name}={value}")
        ]
        command = [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(port), *settings]
        url = f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/postgres"
        with running(command, log) as (server, _):
            cluster = Database("Postgres", url, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}, server)
            wait_for(cluster.answers, 30, "Postgres did not answer", log)
            try:
                yield cluster
            finally:
                cluster.close()  # Postgres waits for its clients before it stops
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _unprivileged_user() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _sqlite(folder: Path) -> Database:
    url = f"sqlite:///{folder / 'airflow.db'}"
    settings = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "demo.sqlite.CONNECT_ARGS",
    }
    return Database("SQLite", url, settings)
