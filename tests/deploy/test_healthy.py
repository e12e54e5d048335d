"""Tests of deploy/healthy.py with healthy, failing and missing servers."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "healthy.py"
PASSWORD = "the-password-of-the-database"


def healthy(role: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, role], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def url() -> Iterator[str]:
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"/well": 200, "/ill": 503}.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_server_that_answers_is_healthy(url: str) -> None:
    assert healthy(f"{url}/well").returncode == 0


def test_server_that_answers_503_is_unhealthy(url: str) -> None:
    done = healthy(f"{url}/ill")
    assert (done.returncode, done.stderr.strip()) == (1, "HTTPError")


def test_missing_server_is_unhealthy() -> None:
    assert healthy("http://127.0.0.1:9/").returncode == 1


@pytest.mark.parametrize("role", ["scheduler", "triggerer", "dag-processor"])
def test_role_without_database_is_unhealthy_and_prints_no_password(role: str) -> None:
    database = f"postgresql+psycopg2://airflow:{PASSWORD}@127.0.0.1:9/airflow"
    done = healthy(role, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database)
    assert (done.returncode, done.stderr.strip()) == (1, "OperationalError")


def test_worker_without_broker_is_unhealthy_and_prints_no_password() -> None:
    done = healthy("worker", AIRFLOW__CELERY__BROKER_URL=f"redis://:{PASSWORD}@127.0.0.1:9/0")
    assert (done.returncode, done.stderr.strip()) == (1, "OperationalError")
