"""Airflow's settings for all tests; they must be there before its first import."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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
    AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
    ORT_DISABLE_TELEMETRY="1",  # for the voice that speaks in tests
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    AWS_EC2_METADATA_DISABLED="true",
)


def pytest_unconfigure() -> None:
    """Remove Airflow's home."""
    import shutil

    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)
