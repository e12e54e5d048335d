"""The Dag of a pipeline whose file has an error: it keeps id and schedule, and each of its runs fails with the error.

Airflow knows a Dag's history, and whether it is paused, by its id. So a live pipeline whose file breaks fails visibly
every night, instead of disappearing; once the file is valid again, it goes on.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator

from callphases.airflow.compat import AirflowFailException, CronDataIntervalTimetable
from callphases.airflow.notify import failed_night
from callphases.airflow.report import PROBLEM, push
from callphases.airflow.schedule import timetable
from callphases.pipeline import DagSettings, Notify, readable_notify, readable_settings

log = logging.getLogger(__name__)

_DOC = """\
**Every run of this Dag fails, because its pipeline file has an error:**

    {message}

Correct the file. Then clear the failed runs to process their days.
"""


class _Fail(BaseOperator):
    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    def execute(self, context: Any) -> None:
        push(context, PROBLEM, self.message)
        raise AirflowFailException(self.message)


def failing_dag(
    settings: DagSettings,
    message: str,
    *,
    notify: Notify | None = None,
    is_paused_upon_creation: bool | None = None,
) -> DAG:
    """A Dag whose one task, ``list`` like the first one of a valid pipeline's Dag, fails with ``message``.

    ``notify`` says who is told.
    """
    log.error("%s", message)
    with DAG(
        dag_id=settings.dag_id,
        schedule=_timetable(settings),
        start_date=dt.datetime(2000, 1, 1, tzinfo=dt.UTC),
        catchup=False,
        max_active_runs=4,
        is_paused_upon_creation=is_paused_upon_creation,
        default_args={"owner": "callphases"},
        on_failure_callback=None if notify is None else failed_night(settings, notify),
        tags=["callphases", "invalid file", settings.pipeline],
        doc_md=_DOC.format(message=message),
        auto_register=False,
    ) as dag:
        _Fail(task_id="list", message=message)
    return dag


def failing_dags(mistakes: Mapping[Path, str], taken: Collection[str]) -> list[DAG]:
    """The failing Dags of invalid pipeline files.

    Each has the name, the schedule and the time zone of its file, as far as these are valid. Without a name, or if the
    name belongs to another pipeline, the Dag is named after the file. Without a name it starts unpaused, because it may
    stand for a live pipeline that has disappeared.

    Args:
        mistakes: the files, and what is wrong with each.
        taken: names of other pipelines.
    """
    names, dags = set(taken), []
    others: list[tuple[Path, dict[str, str | None], bool | None]] = []
    for path, message in mistakes.items():
        settings = readable_settings(path)
        name = settings.pop("pipeline", None)
        if name is None or name in names:
            others.append((path, settings, False if name is None else None))
            continue
        names.add(name)
        named = DagSettings.model_validate({"pipeline": name, **settings})
        dags.append(failing_dag(named, message, notify=readable_notify(path)))
    for path, settings, is_paused in others:
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:90]
        candidates = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        name = next(name for name in candidates if name not in names)
        names.add(name)
        named = DagSettings.model_validate({"pipeline": name, **settings})
        notify = readable_notify(path)
        dags.append(failing_dag(named, mistakes[path], notify=notify, is_paused_upon_creation=is_paused))
    return dags


def _timetable(settings: DagSettings) -> CronDataIntervalTimetable | None:
    """That of the pipeline; what Airflow rejects is replaced by every midnight, so that the Dag does fail."""
    try:
        if (schedule := timetable(settings)) is not None:
            schedule.validate()
    except Exception:
        return timetable(DagSettings(pipeline=settings.pipeline))
    return schedule
