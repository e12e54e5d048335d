"""The pipeline behind a Dag, and its stores, as the API server can reach them."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from callphases.pipeline import PIPELINES_VARIABLE, Pipeline, load_all, pipeline_folder, readable_settings
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import ObjectPrefix

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

DAG_PREFIX = "call_phases_"
"""What the ids of pipelines' Dags begin with."""
READ_AGAIN_S = 30
"""After how long a changed pipeline file is noticed."""
NEW_CLIENT_S = 300
"""After how long a changed AWS connection is. A client takes 80 ms to make; it renews credentials of roles itself."""


@dataclass(frozen=True)
class Stores:
    """A pipeline with its stores."""

    pipeline: Pipeline
    s3: S3Client

    @property
    def tables(self) -> ObjectPrefix:
        """The tables."""
        return ObjectPrefix(self.s3, self.pipeline.output.tables, "output.tables")

    @property
    def state(self) -> ObjectPrefix:
        """The state area."""
        return ObjectPrefix(self.s3, self.pipeline.output.state, "output.state")

    @property
    def bucket(self) -> RecordingBucket:
        """The recordings."""
        return RecordingBucket(self.s3, self.pipeline.recordings.bucket)


def stores_of(dag_id: str) -> Stores | None:
    """The stores of the Dag's pipeline; None if no pipeline file here makes this Dag.

    Raises:
        ConfigurationError: the folder of the pipeline files does not exist.
    """
    return _stores(dag_id, int(time.monotonic() / READ_AGAIN_S))


@functools.lru_cache(maxsize=64)
def _stores(dag_id: str, _: int) -> Stores | None:
    pipelines, _mistakes = load_all(_folder())
    for pipeline in pipelines:
        if pipeline.dag_id == dag_id:
            return Stores(pipeline, _client(pipeline.connections.aws, int(time.monotonic() / NEW_CLIENT_S)))
    return None


@functools.lru_cache(maxsize=16)
def _client(conn_id: str, _: int) -> S3Client:
    from callphases.airflow.hook import s3_client

    return s3_client(conn_id, someone_waits=True)


def why_missing(dag_id: str) -> str:
    """Why there are no stores of a Dag, and what to set.

    Raises:
        ConfigurationError: the folder of the pipeline files does not exist.
    """
    name = dag_id.removeprefix(DAG_PREFIX)
    _, mistakes = load_all(_folder())
    for path, mistake in mistakes.items():
        if name in (path.stem, readable_settings(path).get("pipeline")):
            return f"The pipeline file can't be used: {mistake}"
    return (
        f"The API server finds no file of the pipeline {name} in {_folder()}. Pages read the files that the Dag is "
        f"made of: put them there in the API server too, or set {PIPELINES_VARIABLE} in its environment."
    )


def _folder() -> Path:
    from airflow.configuration import conf

    return pipeline_folder(Path(conf.get("core", "dags_folder")))
