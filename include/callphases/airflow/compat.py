"""The differences between Airflow 3.1, 3.2 and 3.3, each in one name; nothing else in the package looks at versions."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from packaging.version import Version

AIRFLOW = Version(version("apache-airflow-core")).release[:2]
"""The minor version, such as ``(3, 2)``."""

if TYPE_CHECKING or AIRFLOW >= (3, 2):
    from airflow.sdk import CronDataIntervalTimetable
    from airflow.sdk.definitions.callback import AsyncCallback
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
else:
    from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException
    from airflow.sdk.definitions.deadline import AsyncCallback
    from airflow.timetables.interval import CronDataIntervalTimetable

__all__ = [
    "AIRFLOW",
    "BACKOFF",
    "HAS_DEADLINES",
    "AirflowException",
    "AirflowFailException",
    "AirflowSkipException",
    "AsyncCallback",
    "CronDataIntervalTimetable",
    "DeadlineAlert",
    "DeadlineReference",
    "TestableDag",
    "named_deadline",
    "show_label",
    "trigger_as_user",
    "trigger_run",
]

BACKOFF: float | bool = 2 if AIRFLOW >= (3, 2) else True
"""``retry_exponential_backoff`` that doubles the delay: a factor since 3.2, before that a flag."""

HAS_DEADLINES = AIRFLOW >= (3, 2)
"""3.1.8 has them, but rejects a run without a logical date, such as one of ``airflow dags trigger``, of such a Dag."""


def named_deadline(name: str, **arguments: Any) -> DeadlineAlert:
    """A ``DeadlineAlert``, with its name where Airflow takes one (3.3)."""
    if AIRFLOW >= (3, 3):
        arguments["name"] = name
    return DeadlineAlert(**arguments)


class TestableDag(DAG):
    """A Dag whose ``test`` leaves its deadline out, with which 3.2.2 and 3.3.2 fail at the end of the tested run."""

    def test(self, *arguments: Any, **named: Any) -> Any:
        """See ``DAG.test``, which ``airflow dags test`` calls."""
        self.deadline = None
        return super().test(*arguments, **named)


def trigger_run(dag_id: str, run_id: str, conf: dict[str, Any]) -> bool:
    """Create a run from a task, as ``TriggerDagRunOperator`` does; False if there is one with this id."""
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun

    answer = task_runner.SUPERVISOR_COMMS.send(TriggerDagRun(dag_id=dag_id, run_id=run_id, conf=conf))
    if not isinstance(answer, ErrorResponse):
        return True
    if answer.error is ErrorType.DAGRUN_ALREADY_EXISTS:
        return False
    raise AirflowException(f"The run {run_id} can't be created: {answer.error}: {answer.detail}")


def trigger_as_user(request: Any, user: Any, dag_id: str, run_id: str, conf: dict[str, Any], session: Any) -> None:
    """Create a run within the API server, by the function behind its UI, which is the same in 3.1 to 3.3.

    Raises:
        fastapi.HTTPException: there is no such Dag, or it can't be run with these Params.
        sqlalchemy.exc.IntegrityError: there is a run with this id.
    """
    from airflow.api_fastapi.common.dagbag import create_dag_bag
    from airflow.api_fastapi.core_api.datamodels.dag_run import TriggerDAGRunPostBody
    from airflow.api_fastapi.core_api.routes.public.dag_run import trigger_dag_run
    from fastapi import Request

    # Airflow takes a request with a referrer for one of its UI; ours have none, as they are told not to.
    of_ui = Request({**request.scope, "headers": [(b"referer", b"callphases")]})
    body = TriggerDAGRunPostBody(dag_run_id=run_id, logical_date=None, conf=conf)
    trigger_dag_run(dag_id, body, create_dag_bag(), user, session, of_ui)
    session.flush()


def show_label(text: str) -> None:
    """Show a text in the grid in place of the running task's map index, where Airflow can (3.2)."""
    if AIRFLOW < (3, 2):
        return
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import SetRenderedMapIndex

    if hasattr(task_runner, "SUPERVISOR_COMMS"):
        task_runner.SUPERVISOR_COMMS.send(SetRenderedMapIndex(rendered_map_index=text))
