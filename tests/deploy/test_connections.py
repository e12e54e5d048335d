"""Tests that callphases reads connections through LocalFilesystemBackend, as configured in docker-compose.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]["worker"]["environment"]
LOOK = """
import json, os
from callphases.airflow.hook import AssemblyAIHook, s3_client
speech, gateway = AssemblyAIHook().get_clients()
s3 = s3_client("aws_default")
credentials = s3._request_signer._credentials
assert not [value for value in os.environ.values() if "the-provider-key" in value or "the-s3-secret" in value]
key = AssemblyAIHook().get_connection("assemblyai_default").password
print(json.dumps([speech.url, key, credentials.secret_key, s3.meta.region_name, s3.meta.endpoint_url]))
"""


def seen(path: Path, home: Path) -> list[str]:
    """What a callphases process reads from the connections file: URL, key, S3 secret, region, endpoint."""
    kwargs = ROLE["AIRFLOW__SECRETS__BACKEND_KWARGS"].replace("/run/secrets/connections.yaml", str(path))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_CONN", "AWS_"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__SECRETS__BACKEND": ROLE["AIRFLOW__SECRETS__BACKEND"],
        "AIRFLOW__SECRETS__BACKEND_KWARGS": kwargs,
    }
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: list[str] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture
def example(tmp_path: Path) -> Path:
    text = (ROOT / "deploy" / "connections.example.yaml").read_text()
    path = tmp_path / "connections.yaml"
    path.write_text(text.replace("<API key>", "the-provider-key").replace("<secret>", "the-s3-secret"))
    return path


def test_example_connections_are_read_as_shipped(example: Path, tmp_path: Path) -> None:
    speech, key, secret, region, endpoint = seen(example, tmp_path)
    assert (key, secret, region) == ("the-provider-key", "the-s3-secret", "eu-central-1")
    assert speech == "https://api.assemblyai.com"
    assert endpoint == "https://s3.eu-central-1.amazonaws.com"


def test_optional_values_of_the_example_are_read(example: Path, tmp_path: Path) -> None:
    example.write_text(
        example.read_text()
        .replace("# host:", "host:")
        .replace('{"region_name"', '{"endpoint_url": "http://s3:5000", "region_name"')
    )
    speech, key, _, _, endpoint = seen(example, tmp_path)
    assert (speech, key) == ("https://api.eu.assemblyai.com", "the-provider-key")
    assert endpoint == "http://s3:5000"
