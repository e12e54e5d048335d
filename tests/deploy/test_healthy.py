"""deploy/healthy.py, where there is something to be healthy and where there is not."""

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


def test_a_server_that_answers_is_well(url: str) -> None:
    assert healthy(f"{url}/well").returncode == 0


def test_a_server_that_refuses_is_not(url: str) -> None:
    done = healthy(f"{url}/ill")
    assert (done.returncode, done.stderr.strip()) == (1, "HTTPError")


def test_no_server_at_all_is_not_well() -> None:
    assert healthy("http://127.0.0.1:9/").returncode == 1


@pytest.mark.parametrize("role", ["scheduler", "triggerer", "dag-processor"])
def test_without_a_database_no_role_is_well_and_no_password_is_said(role: str) -> None:
    database = f"postgresql+psycopg2://airflow:{PASSWORD}@127.0.0.1:9/airflow"
    done = healthy(role, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database)
    assert (done.returncode, done.stderr.strip()) == (1, "OperationalError")


def test_without_a_broker_no_worker_is_well_and_no_password_is_said() -> None:
    done = healthy("worker", AIRFLOW__CELERY__BROKER_URL=f"redis://:{PASSWORD}@127.0.0.1:9/0")
    assert (done.returncode, done.stderr.strip()) == (1, "OperationalError")
