"""OpenLineage's facets of the tasks: recordings as inputs, the two tables as outputs. Needs Airflow's provider for it.

Datasets have the same names every day, so that they are one node each: ``s3://bucket`` is the namespace, and the name
is the prefix up to its date, or the table's folder. The day is the dataset's version.
https://openlineage.io/docs/spec/naming
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from callphases.pipeline import Pipeline

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset


def read_recordings(pipeline: Pipeline) -> OperatorLineage[Any, Any]:
    """The lineage of a task that reads the recordings."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(inputs=[_recordings(pipeline)])


def published(pipeline: Pipeline, days: Sequence[Mapping[str, Any]]) -> OperatorLineage[Any, Any]:
    """The lineage of the task that publishes.

    Args:
        pipeline: the pipeline.
        days: what ``publish`` returned for each day, the run's own day first; none if it published nothing.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    tables = [_table(pipeline, table, days) for table in ("calls", "phases")] if days else []
    return OperatorLineage(inputs=[_recordings(pipeline)], outputs=tables)


def _recordings(pipeline: Pipeline) -> InputDataset:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import storage_dataset

    source = pipeline.recordings
    return InputDataset(
        namespace=f"s3://{source.bucket}",
        name=source.prefix.partition("{")[0].strip("/") or "/",
        facets={"storage": storage_dataset.StorageDatasetFacet(storageLayer="s3", fileFormat="audio")},
    )


def _table(pipeline: Pipeline, table: str, days: Sequence[Mapping[str, Any]]) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import (
        dataset_version_dataset,
        output_statistics_output_dataset,
        schema_dataset,
        storage_dataset,
    )

    from callphases.tables.schema import schema_of

    bucket, _, prefix = pipeline.output.tables.removeprefix("s3://").partition("/")
    columns = [
        schema_dataset.SchemaDatasetFacetFields(name=column.name, type=str(column.type))
        for column in schema_of(table, pipeline)
    ]
    objects = [day["objects"][table] for day in days if table in day["objects"]]
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=sum(one["rows"] for one in objects),
        size=sum(one["bytes"] for one in objects),
        fileCount=len(objects),
    )
    return OutputDataset(
        namespace=f"s3://{bucket}",
        name=f"{prefix}{table}",
        facets={
            "schema": schema_dataset.SchemaDatasetFacet(fields=columns),
            "storage": storage_dataset.StorageDatasetFacet(storageLayer="s3", fileFormat="parquet"),
            "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=f"dt={days[0]['dt']}"),
        },
        outputFacets={"outputStatistics": statistics},
    )
