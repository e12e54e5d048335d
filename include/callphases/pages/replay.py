"""A replay as a page's form asks for it: checked against the day's table, and as the Params and the id of a Dag run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from callphases.errors import ALL_FAILED, failure_classes
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import read_table_day

MOST_BYTES = 16 * 1024
"""Of a form."""


class WrongForm(ValueError):
    """What a form asks for can't be done. Its text is for the user."""


@dataclass(frozen=True)
class Asked:
    """What a form asks for: a call that has failed, or all of a class, of a day."""

    day: dt.date
    call_id: str | None
    failure_class: str | None

    @property
    def params(self) -> dict[str, Any]:
        """The Params of the Dag run."""
        if self.call_id is not None:
            return {"date": str(self.day), "calls": [self.call_id]}
        return {"date": str(self.day), "replay": [self.failure_class]}

    @property
    def beginning(self) -> str:
        """What the ids of its Dag runs begin with."""
        return f"replay__{self.day}__{self.call_id or self.failure_class}__"

    def run_id(self, at_s: float) -> str:
        """The id of the Dag run, the same for each click on a page that was loaded then."""
        return self.beginning + dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def asked(form: Mapping[str, str]) -> Asked:
    """What a form's fields ``day``, and ``call`` or ``class``, ask for.

    Raises:
        WrongForm: they are not that.
    """
    try:
        day = dt.date.fromisoformat(form.get("day", ""))
    except ValueError:
        raise WrongForm(f"The form's day is {form.get('day')!r}; expected a date, such as 2026-11-20.") from None
    call, failure_class = form.get("call"), form.get("class")
    if bool(call) == bool(failure_class):
        raise WrongForm("The form names no call and no failure class, or both; expected one of them.")
    if failure_class and failure_class not in failure_classes() | {ALL_FAILED}:
        raise WrongForm(f"There is no failure class {failure_class!r}.")
    return Asked(day, call or None, failure_class or None)


def check(asked: Asked, tables: ObjectPrefix) -> None:
    """See in the day's table that there is something to try again.

    Raises:
        WrongForm: there is not.
        ConfigurationError, ServiceUnavailable: the table can't be read.
    """
    calls = read_table_day(tables, "calls", asked.day, ["call_id", "status", "failure_class"])
    if calls is None:
        raise WrongForm(f"{asked.day} is not published, so nothing of it can be tried again.")
    of_call = {row["call_id"]: row for row in calls.to_pylist()}
    if asked.call_id is not None:
        row = of_call.get(asked.call_id)
        if row is None:
            raise WrongForm(f"{asked.day} has no call {asked.call_id!r}.")
        if row["status"] != "failed":
            raise WrongForm(f"The call {asked.call_id} has not failed: its status is {row['status']}.")
    elif not any(
        row["status"] == "failed" and asked.failure_class in (ALL_FAILED, row["failure_class"])
        for row in of_call.values()
    ):
        raise WrongForm(f"No call of {asked.day} has failed with {asked.failure_class} (any more).")
