"""A placeholder Dag for an invalid pipeline file: it shows the error, and its run fails with it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException

log = logging.getLogger(__name__)


class _Fail(BaseOperator):
    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    def execute(self, context: Any) -> None:  # noqa: ARG002
        raise AirflowFailException(self.message)


def unreadable_dag(path: Path, message: str) -> DAG:
    """A Dag ``call_phases_<file's name>_unreadable`` whose one task fails with ``message``."""
    log.error("%s", message)
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)
    with DAG(
        dag_id=f"call_phases_{stem}_unreadable",
        schedule=None,
        tags=["callphases", "unreadable"],
        default_args={"owner": "callphases"},
        doc_md=f"The pipeline file can't be read:\n\n    {message}",
    ) as dag:
        _Fail(task_id="unreadable", message=message)
    return dag
