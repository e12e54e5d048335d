"""One Dag per pipeline file: turns a day's recordings into one row per phase of each call.

| task | what it does | when it fails |
|---|---|---|
| `list` | waits for other runs of the day, lists recordings, makes chunks | bucket, key or models: see its log |
| `calls.transcribe` | has a chunk transcribed, waits, saves transcripts | a service is down: the task is retried |
| `calls.segment` | asks the language model for each call's phases | as above |
| `publish` | replaces the day's object of both tables | as above; until then the day's old objects stay |
| `verify` | checks that listed = completed + no speech + failed; few failed | its message counts failures by class |

A run processes the last day that is over when the run is due, or the day in the Param `date`.
A recording that fails is a row of the table `calls` with `failure_class` and `failure_message`; it stops nothing else.
An account error (key, balance, models) fails the chunk that encounters it; the other chunks are skipped, and `verify`
has the reason. To run a day again, clear its run, or trigger a run with the Param `date`: nothing is paid for twice.
With the Param `replay` (failure classes, or all) or `calls` only failed calls are run, including permanent failures.
Airflow names runs by when they are due, so the note of each run begins with the day of its calls.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, TriggerRule, task_group

from callphases.airflow.compat import BACKOFF, TestableDag
from callphases.airflow.deadline import deadline_alert
from callphases.airflow.failing_dag import failing_dag, failing_dags
from callphases.airflow.notify import failed_night
from callphases.airflow.operators import ListRecordings, PublishDay, SegmentCalls, TranscribeRecordings, VerifyDay
from callphases.airflow.params import params
from callphases.airflow.priority import weight_rule
from callphases.airflow.schedule import timetable
from callphases.pipeline import Pipeline, load_all, pipeline_folder

MAX_ACTIVE_RUNS = 16
"""Nights, days by hand, and the few runs that ``callphases backfill`` keeps going. Airflow leaves the runs of its own
backfills waiting while 20 others are running."""


def call_phases(pipeline: Pipeline) -> DAG:
    """The Dag of one pipeline."""
    with TestableDag(
        dag_id=pipeline.dag_id,
        description=_description(pipeline),
        schedule=timetable(pipeline),
        start_date=dt.datetime(2000, 1, 1, tzinfo=dt.UTC),
        catchup=False,
        max_active_runs=MAX_ACTIVE_RUNS,
        default_args={
            "owner": "callphases",
            "retries": 2,
            "retry_delay": dt.timedelta(seconds=20),
            "retry_exponential_backoff": BACKOFF,
            "max_retry_delay": dt.timedelta(minutes=10),
            "weight_rule": weight_rule(),
        },
        params=params(pipeline),
        on_failure_callback=failed_night(pipeline, pipeline.notify),
        deadline=deadline_alert(pipeline),
        tags=["callphases", pipeline.pipeline],
        doc_md=__doc__,
        auto_register=False,  # one that could not be completed is no Dag
    ) as dag:

        @task_group(group_id="calls")
        def calls(manifest: str) -> None:
            chunk: dict[str, Any] = {"pipeline": pipeline, "manifest": manifest, "map_index_template": "{{ chunk }}"}
            TranscribeRecordings(task_id="transcribe", **chunk) >> SegmentCalls(task_id="segment", **chunk)

        listed = ListRecordings(task_id="list", pipeline=pipeline)
        published = PublishDay(
            task_id="publish",
            pipeline=pipeline,
            listed=listed.task_id,
            # A failed chunk must not keep back other rows (`verify` fails the run); a day may have no chunk.
            trigger_rule=TriggerRule.ALL_DONE,
            # Without an s3:// URI, because that would import boto3 whenever the file is parsed.
            outlets=[Asset(name=f"{pipeline.dag_id}.{table}") for table in ("calls", "phases")],
        )
        listed >> calls.expand(manifest=listed.output) >> published
        listed >> published >> VerifyDay(task_id="verify", pipeline=pipeline, published=published.output)
    return dag


def _description(pipeline: Pipeline) -> str:
    source = pipeline.recordings
    when = f"{pipeline.schedule}, {pipeline.timezone}" if pipeline.schedule else "no schedule"
    return f"s3://{source.bucket}/{source.prefix} → {pipeline.output.tables} ({when})"


def call_phases_dags(dag_file: str | None = None) -> dict[str, DAG]:
    """The Dags of all pipeline files, by id, for a Dag file that adds them to its globals.

    A mistake in a file makes a Dag that fails with it: an import error would stop all pipelines.

    Args:
        dag_file: ``__file__`` of the Dag file. Pipeline files are read from the folder in ``CALLPHASES_PIPELINES``,
            else from the folder ``pipelines`` beside the Dag file.

    Raises:
        ConfigurationError: there is no such folder.
    """
    pipelines, mistakes = load_all(pipeline_folder(Path(dag_file).parent if dag_file else None))
    dags: list[DAG] = []
    for pipeline in pipelines:
        try:
            dag = call_phases(pipeline)
            dag.validate()
        except Exception as error:
            message = f"The Dag of the pipeline {pipeline.pipeline} can't be built: {type(error).__name__}: {error}"
            dag = failing_dag(pipeline, message, notify=pipeline.notify)
        dags.append(dag)
    dags += failing_dags(mistakes, [pipeline.pipeline for pipeline in pipelines])
    return {dag.dag_id: dag for dag in dags}
