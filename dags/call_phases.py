"""One Dag for each pipeline file: the day's recordings in, a row for each phase of each call out.

| task | what it does | when it fails |
|---|---|---|
| `list` | waits for another run of the day, lists it, cuts it into chunks | bucket, key, models: the log names which |
| `calls.transcribe` | has a chunk transcribed, waits, saves transcripts | a service is down: it is tried again |
| `calls.segment` | asks the language model for each call's phases | as above |
| `publish` | replaces the day's object of both tables | as above; until then the day's old objects stay |
| `verify` | listed = completed + no speech + failed; few failed | the message counts the failures by class |

A recording that fails is a row of the table `calls` with `failure_class` and `failure_message`; it stops nothing else.
What concerns the account (key, balance, models) fails the chunk that meets it; the others are skipped, `verify` says
why. To run a day again clear its run, or trigger one with the Param `date`: what is paid for is not paid for again.
With the Param `replay` (failure classes, or all) only failed calls are run, also those that failed for good.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, Param, TriggerRule, WeightRule, task_group

from callphases.airflow.deadline import deadline_alert
from callphases.airflow.operators import ListRecordings, PublishDay, SegmentCalls, TranscribeRecordings, VerifyDay
from callphases.airflow.unreadable import unreadable_dag
from callphases.pipeline import Pipeline, load_all


def call_phases(pipeline: Pipeline) -> DAG:
    """The Dag of one pipeline."""
    with DAG(
        dag_id=pipeline.dag_id,
        schedule=CronDataIntervalTimetable(pipeline.schedule, timezone=pipeline.timezone)
        if pipeline.schedule
        else None,
        start_date=dt.datetime(2000, 1, 1, tzinfo=dt.UTC),
        catchup=False,
        max_active_runs=4,
        default_args={
            "owner": "callphases",
            "retries": 2,
            "retry_delay": dt.timedelta(seconds=20),
            "retry_exponential_backoff": 2,
            "max_retry_delay": dt.timedelta(minutes=10),
            # Depth first: what a chunk has to do next goes before what another has to do first.
            "weight_rule": WeightRule.UPSTREAM,
        },
        params={
            "date": Param(None, type=["null", "string"], format="date", description="The day to process."),
            "replay": Param(
                None,
                type=["null", "string"],
                description="Run only failed calls again: failure classes with commas between, or all.",
            ),
        },
        deadline=deadline_alert(pipeline),
        tags=["callphases", pipeline.pipeline],
        doc_md=__doc__,
    ) as dag:

        @task_group(group_id="calls")
        def calls(manifest: str) -> None:
            chunk = {"pipeline": pipeline, "manifest": manifest, "map_index_template": "{{ chunk }}"}
            TranscribeRecordings(task_id="transcribe", **chunk) >> SegmentCalls(task_id="segment", **chunk)

        listed = ListRecordings(task_id="list", pipeline=pipeline)
        published = PublishDay(
            task_id="publish",
            pipeline=pipeline,
            listed=listed.task_id,
            # A chunk that failed keeps nobody's rows back (`verify` fails the run for it); a day may have no chunk.
            trigger_rule=TriggerRule.ALL_DONE,
            # An s3:// URI would load boto3 at each parse.
            outlets=[Asset(name=f"{pipeline.dag_id}.{table}") for table in ("calls", "phases")],
        )
        listed >> calls.expand(manifest=listed.output) >> published
        listed >> published >> VerifyDay(task_id="verify", pipeline=pipeline, published=published.output)
    return dag


pipelines, mistakes = load_all()
for pipeline in pipelines:
    globals()[pipeline.dag_id] = call_phases(pipeline)
# One bad file must not take the other pipelines away for a night, as an import error would.
for path, mistake in mistakes.items():
    dag = unreadable_dag(path, mistake)
    globals()[dag.dag_id] = dag
