"""The Params of a pipeline's Dag, as the form to trigger it shows them."""

from __future__ import annotations

from typing import get_args

from airflow.sdk import Param

from callphases.day_range import Again
from callphases.errors import ALL_FAILED, REMEDIES
from callphases.pipeline import Pipeline


def params(pipeline: Pipeline) -> dict[str, Param]:
    """``date``, or ``from`` and ``to``; ``replay``, ``calls``; what ``callphases backfill`` sets, see ``ranges``."""
    choices = {ALL_FAILED: "all failed calls", **{name: f"{name}: {remedy}" for name, remedy in REMEDIES.items()}}
    return {
        "date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day of the calls",
            description=f"In the pipeline's time zone, {pipeline.timezone}. Empty: the last day that is over there.",
        ),
        "from": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Several days: the first",
            description="In place of a day: the run lists all days up to the last one, and publishes each. For a long "
            "archive use callphases backfill, which makes several runs.",
        ),
        "to": Param(
            None, type=["null", "string"], format="date", title="Several days: the last", description="Included."
        ),
        "again": Param(
            "none",
            type="string",
            enum=list(get_args(Again)),
            values_display={
                "none": "none",
                "failed": "those with failed calls",
                "completed": "all",
            },
            title="Several days: which published ones to run again",
            description="Of days that are run again, calls that are done are not paid for again.",
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
        "calls": Param(
            None,
            type=["null", "array", "string"],
            items={"type": "string"},
            title="Only these failed calls",
            description="Their call_id in the tables, or their recordings' names or URIs, one a line. Tries those "
            "again that have failed, permanent failures too, and nothing else. In JSON a string with commas will do.",
        ),
        "then": Param(
            None,
            type=["null", "object"],
            title="What comes after",
            description="Set by callphases backfill: days of which the run creates the next run when it is over.",
        ),
    }
