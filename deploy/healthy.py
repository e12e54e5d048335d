"""``python healthy.py ROLE``: checks whether this container works; exits with 0, or with 1 and the reason.

Airflow's own checks (``airflow jobs check``, ``celery inspect``) import all of Airflow and take some core-seconds. This
script checks the same things in a tenth to half of one: the heartbeat in the database, or a ping through the broker.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.request

STALE_S = 60
"""A heartbeat is due every five seconds; if it is older than this, the process hangs."""
PATIENCE_S = 10.0
JOBS = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag-processor": "DagProcessorJob"}


def heartbeat(job_type: str) -> str:
    """Why this container's Airflow job is unhealthy; empty if it is healthy."""
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
    """Why this container's Celery worker is unhealthy; empty if it answers a ping through the broker."""
    from celery import Celery

    name = f"celery@{socket.gethostname()}"
    with Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"], set_as_current=False) as app:
        answers = app.control.ping(destination=[name], timeout=PATIENCE_S, limit=1)
    return "" if answers else f"{name} does not answer"


def answer(url: str) -> str:
    """Why a server is unhealthy; empty if it answers ``url`` with 200."""
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:  # noqa: S310  # of the compose file
        return "" if response.status == 200 else f"status {response.status}"


def trouble(role: str) -> str:
    """Why this container, with that role or URL, is unhealthy; empty if it is healthy."""
    if role in JOBS:
        return heartbeat(JOBS[role])
    return pong() if role == "worker" else answer(role)


if __name__ == "__main__":
    try:
        problem = trouble(sys.argv[1])
    except Exception as error:
        # Only the type: the message may contain a URL with a password.
        problem = type(error).__name__
    if problem:
        raise SystemExit(problem)
