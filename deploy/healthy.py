"""``python healthy.py ROLE``: whether this container does its work; ends with 0, or with 1 and the reason.

Airflow's own ways (``airflow jobs check``, ``celery inspect``) import all of Airflow, some core-seconds each time. This
asks the same of the same places for a tenth of one, or half: the heartbeat in the database, or a ping by the broker.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.request

STALE_S = 60
"""A heartbeat is due every five seconds; one that is older than this is a process that hangs."""
PATIENCE_S = 10.0
JOBS = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag-processor": "DagProcessorJob"}


def heartbeat(job_type: str) -> str:
    """Why this container's job of Airflow is not well, or nothing."""
    import psycopg2

    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2:", "postgresql:")
    query = """
        select extract(epoch from now() - max(latest_heartbeat)) from job
        where job_type = %s and hostname = %s and state = 'running'
    """
    with psycopg2.connect(url, connect_timeout=int(PATIENCE_S)) as connection, connection.cursor() as cursor:
        cursor.execute(query, (job_type, socket.getfqdn()))
        (age_s,) = cursor.fetchone() or (None,)
    if age_s is None:
        return f"no {job_type} of this container is running"
    return f"the last heartbeat is {age_s:.0f} s old" if age_s > STALE_S else ""


def pong() -> str:
    """Why this container's Celery worker is not well, or nothing: it answers a ping through the broker."""
    from celery import Celery

    name = f"celery@{socket.gethostname()}"
    with Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"], set_as_current=False) as app:
        answers = app.control.ping(destination=[name], timeout=PATIENCE_S, limit=1)
    return "" if answers else f"{name} does not answer"


def answer(url: str) -> str:
    """Why a server is not well, or nothing: it answers ``url`` with 200."""
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:  # noqa: S310  # of the compose file
        return "" if response.status == 200 else f"status {response.status}"


def trouble(role: str) -> str:
    """Why this container, of that role (or with that URL), is not well, or nothing."""
    if role in JOBS:
        return heartbeat(JOBS[role])
    return pong() if role == "worker" else answer(role)


if __name__ == "__main__":
    try:
        problem = trouble(sys.argv[1])
    except (
        Exception
    ) as error:  # whatever it is, it is the answer; the kind alone, a text may hold a URL with a password
        problem = type(error).__name__
    if problem:
        raise SystemExit(problem)
