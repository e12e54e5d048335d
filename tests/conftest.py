"""Airflow's settings for all tests, which must be there before its first import; and the S3 server."""

from __future__ import annotations

import functools
import logging
import os
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.parsers
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = ROOT / ".callphases"
SCRATCH.mkdir(exist_ok=True)
AIRFLOW_HOME = tempfile.mkdtemp(prefix="test-airflow-", dir=SCRATCH)

for name in [name for name in os.environ if name.startswith(("AIRFLOW", "AWS_", "CALLPHASES_"))]:
    # What the shell is set up for (a bucket, a key, a running demo) is none of the tests' business.
    if name != "AWS_CA_BUNDLE":
        del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=AIRFLOW_HOME,
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
    ORT_DISABLE_TELEMETRY="1",  # for the voice that speaks in tests
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    AWS_EC2_METADATA_DISABLED="true",
)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of the property tests, so that a failure on another machine can be repeated here."""
    if config.getoption("--hypothesis-seed", None) is None:
        config.option.hypothesis_seed = str(random.getrandbits(32))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how to repeat the property tests of a run that failed."""
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"To repeat the property tests: --hypothesis-seed={config.option.hypothesis_seed}")


def pytest_unconfigure() -> None:
    """Remove Airflow's home."""
    import shutil

    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _botocore_caches() -> Iterator[None]:
    """Each of boto3's sessions reads 1 MB of JSON for its first client, and most tests have a session of their own.

    Most objects of a long list have the time of the one before, which is slow to parse.
    """
    parse = botocore.parsers.DEFAULT_TIMESTAMP_PARSER
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.loaders, "create_loader", functools.cache(botocore.loaders.create_loader))
        patch.setattr(botocore.parsers, "DEFAULT_TIMESTAMP_PARSER", functools.lru_cache(parse))
        yield


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """An S3 server: that part of moto alone, because moto's own server looks for the service with each request."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()
