"""The OpenLineage events of a run, as Airflow's provider writes them, against the published JSON schemas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from callphases.pipeline import Pipeline
from callphases.tables.schema import schema_of
from night import Night

pytest.importorskip("airflow.providers.openlineage")
pytestmark = pytest.mark.integration

DAY = "2026-11-20"
SCHEMAS = {
    path.stem: json.loads(path.read_text())
    for path in (Path(__file__).parents[1] / "fixtures/openlineage").glob("*.json")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)
OWN = {"agent": {"key_pattern": "(?P<agent>agent-[^/]+)\\.wav"}, "priority": {"metadata": "priority", "type": "int64"}}


def check(value: Any, schema: dict[str, Any]) -> None:
    checker = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator(schema, registry=REGISTRY, format_checker=checker).validate(value)


def facets_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    places = [event["run"], event["job"], *event.get("inputs", []), *event.get("outputs", [])]
    kinds = ("facets", "inputFacets", "outputFacets")
    return [facet for place in places for kind in kinds for facet in (place.get(kind) or {}).values()]


def check_facet(facet: dict[str, Any]) -> str:
    """Validate a facet by the schema that it names; returns the schema's name."""
    url, _, pointer = facet["_schemaURL"].partition("#/$defs/")
    name = url.rsplit("/", 1)[-1].removesuffix(".json")
    if name in SCHEMAS and pointer in SCHEMAS[name].get("$defs", {}):
        check(facet, {"$ref": f"{SCHEMAS[name]['$id']}#/$defs/{pointer}"})
    return name


def run(night: Night, events: Path) -> list[dict[str, Any]]:
    """Run the day as ``airflow dags test`` does, in a process of its own; returns the events."""
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    command = [
        sys.executable,
        "-m",
        "airflow",
        "dags",
        "test",
        "call_phases_night",
        "--conf",
        json.dumps({"date": DAY}),
    ]
    environment = {**os.environ, "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in events.read_text().splitlines()]


def test_events_are_valid_and_name_recordings_tables_columns_and_rows(night: Night, tmp_path: Path) -> None:
    night.pipeline(recordings={"columns": OWN})
    for name in ("agent-1.wav", "agent-2.wav", "silent.wav"):
        night.put(f"calls/{DAY}/{name}")
    events = run(night, tmp_path / "events.jsonl")
    used = set()
    for event in events:
        check(event, SCHEMAS["OpenLineage"])
        used |= {check_facet(facet) for facet in facets_of(event)}
    assert used >= {"SchemaDatasetFacet", "OutputStatisticsOutputDatasetFacet", "DatasetVersionDatasetFacet"}

    completed = {event["job"]["name"]: event for event in events if event["eventType"] == "COMPLETE"}
    recordings = ("s3://recordings", "calls")
    for task in ("list", "calls.transcribe", "publish"):
        inputs = completed[f"call_phases_night.{task}"]["inputs"]
        assert [(one["namespace"], one["name"]) for one in inputs] == [recordings]
    outputs = {one["name"]: one for one in completed["call_phases_night.publish"]["outputs"]}
    assert set(outputs) == {"tables/calls", "tables/phases"}
    pipeline = Pipeline.model_validate(
        {
            "pipeline": "night",
            "recordings": {"bucket": "recordings", "prefix": "calls/", "columns": OWN},
            "output": {"tables": "s3://w/t/", "state": "s3://w/s/"},
        }
    )
    for table, rows in (("calls", 3), ("phases", 8)):
        output = outputs[f"tables/{table}"]
        body = night.body(table, DAY)
        assert body is not None
        assert output["namespace"] == "s3://warehouse"
        statistics = output["outputFacets"]["outputStatistics"]
        assert (statistics["rowCount"], statistics["size"], statistics["fileCount"]) == (rows, len(body), 1)
        assert output["facets"]["version"]["datasetVersion"] == f"dt={DAY}"
        columns = [(column["name"], column["type"]) for column in output["facets"]["schema"]["fields"]]
        assert columns == [(column.name, str(column.type)) for column in schema_of(table, pipeline)]
        assert columns[-2:] == [("agent", "string"), ("priority", "int64")]


def test_day_without_recordings_has_tables_without_rows(night: Night, tmp_path: Path) -> None:
    events = run(night, tmp_path / "events.jsonl")
    [publish] = [one for one in events if one["job"]["name"].endswith(".publish") and one["eventType"] == "COMPLETE"]
    check(publish, SCHEMAS["OpenLineage"])
    assert [one["outputFacets"]["outputStatistics"]["rowCount"] for one in publish["outputs"]] == [0, 0]
