"""A pipeline for tests of whole runs: buckets, a scripted speech service, the run, and the published rows."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from servers import KEY, Box
from versions import parsed

CHAT = {
    "phases": [
        {"match": "(?i)thank you for calling", "name": "Introduction"},
        {"match": "(?i)wrong|broken", "name": "Complaint"},
        {"match": "(?i)refund", "name": "Resolution"},
        {"match": "(?i)bye", "name": "Goodbye"},
    ]
}
CALL = [
    {"speaker": "A", "start_s": 0.4, "end_s": 2.6, "text": "Thank you for calling."},
    {"speaker": "B", "start_s": 3.0, "end_s": 5.2, "text": "My invoice is wrong."},
    {"speaker": "A", "start_s": 5.5, "end_s": 9.0, "text": "I will refund it."},
    {"speaker": "B", "start_s": 9.5, "end_s": 10.0, "text": "Thanks, bye."},
]
GUARDED_WORDS, LONG_WORDS = "I will sue you.", "And so on."
"""What is said last in recordings named guarded and endless."""
TRUTH = [("Introduction", 0.0, 3.0), ("Complaint", 3.0, 5.5), ("Resolution", 5.5, 9.5), ("Goodbye", 9.5, 12.0)]


@dataclass
class Night:
    """Buckets, a speech service and a pipeline; ``run`` runs a day and ``table`` reads what was published."""

    s3: Any
    s3_url: str
    box: Box
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def put(self, key: str, body: bytes = b"RIFF") -> None:
        self.s3.put_object(Bucket="recordings", Key=key, Body=body)

    def connect(self, speech_url: str | None = None, key: str | None = KEY) -> None:
        speech = {"conn_type": "assemblyai", "host": speech_url or self.box.url, "password": key}
        aws = {
            "conn_type": "aws",
            "login": "x",
            "password": "x",
            "extra": {"endpoint_url": self.s3_url, "region_name": "us-east-1"},
        }
        self.monkeypatch.setenv("AIRFLOW_CONN_ASSEMBLYAI_DEFAULT", json.dumps(speech))
        self.monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(aws))

    def pipeline(self, **changes: Any) -> None:
        document: dict[str, Any] = {
            "pipeline": "night",
            "recordings": {"bucket": "recordings", "prefix": "calls/{date:%Y-%m-%d}/"},
            "output": {"tables": "s3://warehouse/tables/", "state": "s3://warehouse/state/"},
            "limits": {"max_failed_ratio": 1.0, "llm_requests_per_minute": 6000},
        }
        for section, values in changes.items():
            document[section] = {**document.get(section, {}), **values} if isinstance(values, dict) else values
        (self.folder / "night.yaml").write_text(yaml.safe_dump(document))

    def run(
        self,
        day: str | None,
        prepare: Callable[[Any], None] = lambda dag: None,
        logical_date: Any = None,
        **conf: Any,
    ) -> str:
        """Run the Dag for a day, or for that of the logical date; returns the state of the run."""
        bag = parsed(str(Path(__file__).parents[1] / "dags" / "call_phases.py"))
        assert not bag.import_errors
        dag = bag.dags["call_phases_night"]
        for task in dag.tasks:
            task.retries = 0
        prepare(dag)
        moment = {} if logical_date is None else {"logical_date": logical_date}
        self.last = dag.test(run_conf={"date": day, **conf}, **moment)
        return str(self.last.state)

    def states(self) -> dict[str, str]:
        """The state of each task of the last run."""
        return {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in self.last.get_task_instances()}

    def table(self, name: str, day: str) -> list[dict[str, Any]]:
        body = self.body(name, day)
        return pq.read_table(io.BytesIO(body)).to_pylist() if body else []

    def body(self, name: str, day: str) -> bytes | None:
        try:
            return self.s3.get_object(Bucket="warehouse", Key=f"tables/{name}/dt={day}/{name}.parquet")["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return None

    def submitted(self) -> int:
        """The number of transcriptions ever submitted to the service."""
        return int(self.box.get("/v2/transcript", params={"limit": 200}).json()["page_details"]["result_count"])

    def paid(self) -> Counter[str]:
        """How often each recording was billed, by name; jobs that end in an error are not billed."""
        billed = (job["audio_url"] for job in self.box.jobs() if job["status"] != "error")
        return Counter(url.partition("?")[0].rsplit("/", 1)[-1] for url in billed)
