"""Runs speechbox as a process, and makes clients of the S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import requests
from botocore.config import Config

KEY = "test-key"


@dataclass
class Box:
    """A running speechbox, and the requests that most tests make."""

    url: str
    process: subprocess.Popen[str]
    key: str = KEY
    session: requests.Session = field(default_factory=requests.Session)

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        more.setdefault("headers", {"Authorization": self.key})
        return self.session.request(method, self.url + path, timeout=30, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> requests.Response:
        return self.request("POST", path, **more)

    def upload(self, content: bytes) -> str:
        return str(self.post("/v2/upload", data=content).json()["upload_url"])

    def submit(self, audio_url: str, **options: Any) -> dict[str, Any]:
        response = self.post("/v2/transcript", json={"audio_url": audio_url, **options})
        assert response.status_code == 200, response.text
        return response.json()

    def wait(self, transcript_id: str, timeout_s: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            transcript = self.get(f"/v2/transcript/{transcript_id}").json()
            if transcript["status"] in ("completed", "error"):
                return transcript
            time.sleep(0.05)
        raise AssertionError(f"transcript {transcript_id} is still {transcript['status']}")

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs ever submitted to the server, newest first."""
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 200}
        while True:
            page = self.get("/v2/transcript", params=query).json()
            found += page["transcripts"]
            if not page["page_details"]["prev_url"]:
                return found
            query["before_id"] = page["transcripts"][-1]["id"]

    def transcribe(self, audio_url: str, **options: Any) -> dict[str, Any]:
        return self.wait(self.submit(audio_url, **options)["id"])


def s3_client(url: str) -> Any:
    """A client of the S3 server on this machine."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="x",
        aws_secret_access_key="x",
        region_name="us-east-1",
        config=Config(signature_version="s3v4"),
    )


def remove(s3: Any, bucket: str) -> None:
    """Delete a bucket and its objects."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        if found := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
            s3.delete_objects(Bucket=bucket, Delete={"Objects": found})
    s3.delete_bucket(Bucket=bucket)


@contextmanager
def running(data: Path, *arguments: str, **environment: str) -> Iterator[Box]:
    command = [sys.executable, "-m", "speechbox", "--port", "0", "--data", str(data), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "SPEECHBOX_API_KEY": KEY, **environment}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("speechbox listening on "), line
        yield Box(line.split()[-1], process)
    finally:
        process.terminate()
        process.wait(20)
