"""A day or a call as one file for a browser, complete without a server; Airflow is not needed to make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

from callphases.pages.call_page import Audio, Heard, heard_in, page_of_call
from callphases.pages.day_page import whole_day
from callphases.pages.day_tables import tables_of_rows
from callphases.pages.rendering import render_file
from callphases.pipeline import Pipeline
from callphases.state.storage import ObjectPrefix

Row = Mapping[str, Any]


def day_file(calls: Sequence[Row], pipeline: Pipeline | None) -> str:
    """The calls of a day as HTML.

    Args:
        calls: the day's rows of ``calls``, each with ``dt`` and its ``phases``, as ``showing.calls_of_days`` has them.
        pipeline: None if it is not known: times are then in UTC.
    """
    day = calls[0]["dt"]
    page = whole_day(tables_of_rows(calls, pipeline.timezone if pipeline else "UTC"), day, pipeline)
    summaries = {call["call_id"]: [phase["summary"] for phase in call["phases"]] for call in calls}
    shown = [
        replace(
            call,
            phases=[
                replace(phase, summary=summary)
                for phase, summary in zip(call.phases, summaries[call.call_id], strict=True)
            ],
        )
        for call in page.calls
    ]
    return render_file("day", page=replace(page, calls=shown), run=None, day=day, problem=None)


def call_file(call: Row, pipeline: Pipeline | None, state: ObjectPrefix | None) -> str:
    """A call as HTML.

    Args:
        call: its row of ``calls``, with ``dt`` and its ``phases``.
        pipeline: None if it is not known.
        state: the pipeline's, where the transcript is; None if it is not known.
    """
    row = {name: value for name, value in call.items() if name not in ("dt", "phases")}
    page = page_of_call(
        call["dt"],
        row,
        call["phases"],
        _heard(call, state),
        pipeline.zone if pipeline else ZoneInfo("UTC"),
        [phase.name for phase in pipeline.phases] if pipeline else [],
        audio=Audio(plays=False),
        command=f"callphases replay {pipeline.pipeline if pipeline else 'pipeline'}.yaml --date {call['dt']} "
        f"--call {call['call_id']}",
        may_read=True,
        may_replay=False,
    )
    return render_file("call", page=page, replaying=None, origin=None)


def _heard(call: Row, state: ObjectPrefix | None) -> Heard:
    if state is None:
        return Heard(note="The transcript is not shown: that needs the pipeline file, which says where it is.")
    return heard_in(state, call, call["phases"])
