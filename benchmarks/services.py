"""Runs the services: an S3 server, and speechbox with its scripted engine and fixed latencies and limits."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import requests
import yaml
from botocore.config import Config

from benchmarks.bound import Service
from benchmarks.call import PHASES, sentences
from benchmarks.database import free_port
from benchmarks.processes import Broken, clean_environment, running

KEY = "bench-key"  # not a secret: both servers listen on 127.0.0.1 only
RECORDINGS, WAREHOUSE = "recordings", "warehouse"
DAY = dt.date(2026, 11, 20)
RECORDING_BYTES = 4096  # small, because there is no network whose bandwidth would matter


@dataclass(frozen=True)
class Ports:
    """Ports of the services; fixed for all nights, because Airflow's connections contain them."""

    s3: int = field(default_factory=free_port)
    speech: int = field(default_factory=free_port)

    @property
    def s3_url(self) -> str:
        """URL of the S3 server."""
        return f"http://127.0.0.1:{self.s3}"

    @property
    def speech_url(self) -> str:
        """URL of the speech API and the gateway."""
        return f"http://127.0.0.1:{self.speech}"

    @property
    def environment(self) -> dict[str, str]:
        """Airflow's connections to the services, as environment variables."""
        aws = {
            "conn_type": "aws",
            "login": KEY,
            "password": KEY,
            "extra": {"endpoint_url": self.s3_url, "region_name": "us-east-1"},
        }
        speech = {"conn_type": "assemblyai", "host": self.speech_url, "password": KEY}
        return {
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
            "AIRFLOW_CONN_ASSEMBLYAI_DEFAULT": json.dumps(speech),
        }


@dataclass
class Services:
    """Both services while they run; ``pids`` are their process IDs by name."""

    ports: Ports
    pids: dict[str, int]
    session: requests.Session = field(default_factory=requests.Session)

    def fill(
        self, prefix: str, count: int, pattern: str = "", spacing_s: float = 0.01, first_day: dt.date = DAY
    ) -> None:
        """Add recordings to the bucket, the first at midnight of ``first_day``."""
        document = {
            "bucket": RECORDINGS,
            "prefix": prefix,
            "pattern": pattern,
            "count": count,
            "start": dt.datetime.combine(first_day, dt.time(), dt.UTC).isoformat(),
            "spacing_s": spacing_s,
            "size": RECORDING_BYTES,
        }
        self._asked("POST", f"{self.ports.s3_url}/_recordings", document)

    def reset(self) -> None:
        """Reset the counters of S3 requests."""
        self._asked("DELETE", f"{self.ports.s3_url}/_counts")

    def s3_requests(self) -> dict[str, dict[str, int]]:
        """Return the number of S3 requests by method and kind."""
        counts: dict[str, dict[str, int]] = self._asked("GET", f"{self.ports.s3_url}/_counts")
        return counts

    def health(self) -> dict[str, Any]:
        """Return speechbox's counters of requests."""
        about: dict[str, Any] = self._asked("GET", f"{self.ports.speech_url}/health")
        return about

    def misbehave(self, seed: int, rules: list[dict[str, Any]]) -> None:
        """Set speechbox's fault rules; an empty list removes them."""
        self._asked("PUT", f"{self.ports.speech_url}/faults", {"seed": seed, "rules": rules})

    def paid(self) -> Counter[str]:
        """Return how often each recording was billed; jobs that end in an error are free."""
        jobs: Counter[str] = Counter()
        query = "limit=200"
        while True:
            page = self._asked("GET", f"{self.ports.speech_url}/v2/transcript?{query}")
            jobs.update(job["audio_url"].partition("?")[0] for job in page["transcripts"] if job["status"] != "error")
            if not page["page_details"]["prev_url"]:
                return jobs
            query = f"limit=200&before_id={page['transcripts'][-1]['id']}"

    def s3(self) -> Any:
        """Create a client for the S3 server."""
        return s3_client(self.ports.s3_url)

    def _asked(self, method: str, url: str, document: dict[str, Any] | None = None) -> Any:
        response = self.session.request(method, url, json=document, headers={"Authorization": KEY}, timeout=60)
        if not response.ok:
            raise Broken(f"{method} {url}: {response.status_code} {response.text[:500]}")
        return response.json() if response.content else None


def s3_client(url: str) -> Any:
    """Create a client for an S3 server, configured as by callphases' hook."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEY,
        aws_secret_access_key=KEY,
        region_name="us-east-1",
        config=Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextlib.contextmanager
def services(folder: Path, ports: Ports, service: Service) -> Iterator[Services]:
    """Run both services inside the block, with empty buckets and no transcripts."""
    with contextlib.ExitStack() as stack:
        s3, _ = stack.enter_context(
            running(
                [sys.executable, "-m", "benchmarks.s3", "--port", str(ports.s3)],
                folder / "logs" / "s3.log",
                announced_by="s3 listening",
            )
        )
        script, data = folder / "script.yaml", folder / "speechbox"
        script.write_text(yaml.safe_dump(script_of(service)))
        data.mkdir(exist_ok=True)
        for path in data.glob("speechbox.sqlite*"):
            path.unlink()
        speech, _ = stack.enter_context(
            running(
                [sys.executable, "-m", "speechbox", "--engine", "scripted", "--script", str(script),
                 "--jobs", str(service.jobs), "--port", str(ports.speech), "--data", str(data),
                 "--log-level", "warning"],
                folder / "logs" / "speechbox.log",
                {**clean_environment(), "SPEECHBOX_API_KEY": KEY},
                announced_by="speechbox listening",
            )
        )  # fmt: skip
        both = Services(ports, {"S3 server": s3.pid, "speechbox": speech.pid})
        client = both.s3()
        for bucket in (RECORDINGS, WAREHOUSE):
            client.create_bucket(Bucket=bucket)
        yield both


def script_of(service: Service) -> dict[str, Any]:
    """Return the script for speechbox with these latencies and limits; it downloads the recordings."""
    said = sentences()
    chat: dict[str, Any] = {
        "latency_s": service.question_s,
        "phases": PHASES,
        "at_once": service.questions_at_once,
        "requests_per_minute": service.questions_per_minute,
    }
    return {
        "fetch": True,
        "latency_s": service.speech_s,
        "default": {"sentences": said, "audio_duration_s": said[-1]["end_s"] + 1.0},
        "chat": {name: value for name, value in chat.items() if value},
    }
