"""Runs a query on each day that `support_calls` publishes.

Copy this file into your Dags folder, next to `call_phases.py`, and set `PIPELINE`. It needs DuckDB on the workers.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, task

PIPELINE = "support_calls"
AWS_CONNECTION = "aws_default"
QUESTION = """
    SELECT call_id, round(duration_s, 1) AS introduction_s, summary
    FROM phases WHERE phase_name = 'Introduction'
    ORDER BY duration_s DESC LIMIT 10
"""

phases = Asset(f"call_phases_{PIPELINE}.phases")

with DAG(dag_id=f"longest_introductions_{PIPELINE}", schedule=[phases], tags=["callphases", PIPELINE]):

    @task
    def ask(triggering_asset_events: Any = None) -> dict[str, int]:
        """Log the result for each day that has new rows; returns its number of rows, by day."""
        import io
        import logging

        import duckdb
        import pyarrow.parquet as pq
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        s3, answers = S3Hook(AWS_CONNECTION), {}
        for event in triggering_asset_events[phases]:
            # Earlier days with late recordings are republished by the run of a later day, in the same event.
            for day in (event.extra, *event.extra["late"]):
                where = f"{event.extra['table']}dt={day['dt']}/phases.parquet"
                if not s3.check_for_key(where):
                    continue  # a day without rows has no object
                body = s3.get_key(where).get()["Body"].read()
                with duckdb.connect() as asked:
                    asked.register("phases", pq.read_table(io.BytesIO(body)))
                    answer = asked.sql(QUESTION)
                    logging.getLogger(__name__).info("%s:\n%s", day["dt"], answer)
                    answers[day["dt"]] = len(answer)
        return answers

    ask()
