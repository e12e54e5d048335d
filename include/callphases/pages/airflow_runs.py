"""What Airflow knows of a run: the days of its calls."""

from __future__ import annotations

import datetime as dt


def days_of_run(dag_id: str, run_id: str) -> list[dt.date]:
    """The days whose calls a run is of; empty if it has not listed them, or if there is no such run."""
    from airflow.utils.session import create_session

    from callphases.airflow.listener import stored_xcoms
    from callphases.airflow.report import DAY
    from callphases.day_range import DayRange

    with create_session() as session:
        found = stored_xcoms(session, dag_id, run_id)
    published = found.get(("publish", "return_value"))
    text = published.get("dt") if isinstance(published, dict) else found.get(("list", DAY))
    if not text:
        return []
    first, _, last = str(text).partition(" to ")
    return list(DayRange(dt.date.fromisoformat(first), dt.date.fromisoformat(last or first)))
