"""The Params of a pipeline's Dag, as the form to trigger it shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from callphases.errors import ALL_FAILED, REMEDIES
from callphases.pipeline import Pipeline


def params(pipeline: Pipeline) -> dict[str, Param]:
    """``date`` and ``replay``."""
    choices = {ALL_FAILED: "all failed calls", **{name: f"{name}: {remedy}" for name, remedy in REMEDIES.items()}}
    return {
        "date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day of the calls",
            description=f"In the pipeline's time zone, {pipeline.timezone}. Empty: the last day that is over there.",
        ),
        "replay": Param(
            None,
            # The form of Airflow takes the first type, which makes it a list to choose from.
            type=["null", "array", "string"],
            items={"type": "string"},
            examples=list(choices),
            values_display=choices,
            title="Only failed calls, of these classes",
            description="Tries these calls again, permanent failures too, and nothing else. Empty: processes whatever "
            'of the day is not done. In JSON a string will do, too: "bad_audio,too_short".',
        ),
    }


def replay_classes(values: Mapping[str, Any]) -> str | None:
    """The failure classes to replay, with commas between; None for a run that is no replay."""
    replay = values.get("replay")
    if replay is None or isinstance(replay, str):
        return replay
    return ",".join(replay) or None
