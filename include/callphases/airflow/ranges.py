"""Runs over several days: their Params, and the run that comes after one in a backfill.

``callphases backfill`` creates a few runs, each over a step of its range (a month, a week, a day), and says in the
Param ``then`` what is left. A run creates the next one when it is over: so only a few are there at a time, and nights
never wait in Airflow's queue behind an archive of years.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from callphases.day_range import Again, By, DayRange, cut
from callphases.errors import ConfigurationError
from callphases.local_days import DAY

RUN_ID_PREFIX = "archive__"
"""What the ids of runs over several days begin with. Their tasks have a lower priority than those of nights."""
BACKFILLS = ("backfill__", RUN_ID_PREFIX)
"""What the ids of backfills' runs begin with: Airflow's own, and those of ranges of days."""


@dataclass(frozen=True)
class Then:
    """What is left of a backfill after a run.

    Attributes:
        rest: the days.
        by: how it is cut into steps.
        backwards: whether the last step comes first.
    """

    rest: DayRange
    by: By
    backwards: bool = False

    def steps(self) -> Iterator[tuple[DayRange, Then | None]]:
        """The steps, and what is left after each."""
        steps = cut(self.rest, self.by)
        for step in reversed(steps) if self.backwards else steps:
            first, last = (self.rest.first, step.first - DAY) if self.backwards else (step.last + DAY, self.rest.last)
            yield step, replace(self, rest=DayRange(first, last)) if first <= last else None


@dataclass(frozen=True)
class RangeRun:
    """The Params of a run over several days.

    Attributes:
        days: those that the run is over.
        again: which published days are run again; see ``day_range.Again``.
        then: what is left of the backfill that it is part of.
    """

    days: DayRange
    again: Again = "none"
    then: Then | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> RangeRun | None:
        """From a run's Params; None for a run of one day.

        Raises:
            ConfigurationError: they contradict each other.
        """
        first, last, then = (params.get(name) for name in ("from", "to", "then"))
        if not first and not last:
            if then is not None or params.get("again") not in (None, "none"):
                raise ConfigurationError("The Params again and then are for several days: give from and to, too.")
            return None
        if not first or not last:
            raise ConfigurationError("The Params from and to belong together: give both, or date for one day.")
        if params.get("date"):
            raise ConfigurationError("The Param date is for one day, from and to for several: give one or the other.")
        days = _range(first, last, "from", "to")
        if then is not None:
            if not isinstance(then, dict) or then.get("by") not in get_args(By):
                raise ConfigurationError("The Param then is set by callphases backfill: leave it empty.")
            then = Then(
                _range(then.get("from"), then.get("to"), "then.from", "then.to"),
                then["by"],
                bool(then.get("backwards")),
            )
        again: Again = params.get("again") or "none"
        if again not in get_args(Again):
            raise ConfigurationError(f"The Param again is {again!r}: expected one of {', '.join(get_args(Again))}.")
        return cls(days, again, then)

    def conf(self) -> dict[str, Any]:
        """The Params: the inverse of ``of``."""
        conf: dict[str, Any] = {"from": str(self.days.first), "to": str(self.days.last)}
        if self.again != "none":
            conf["again"] = self.again
        if (then := self.then) is not None:
            rest = {"from": str(then.rest.first), "to": str(then.rest.last)}
            conf["then"] = {**rest, "by": then.by, "backwards": then.backwards}
        return conf

    def run_id(self, backfill: str) -> str:
        """The run's id; ``backfill`` names the backfill that it is part of."""
        return f"{RUN_ID_PREFIX}{self.days.first}_{self.days.last}__{backfill}"

    def following(self) -> Iterator[RangeRun]:
        """Runs over the steps that are left, in order."""
        for step, after in self.then.steps() if self.then is not None else ():
            yield replace(self, days=step, then=after)


def backfill_of(run_id: str) -> str:
    """The name of the backfill that a run is part of: the inverse of ``RangeRun.run_id``."""
    return run_id.rpartition("__")[2]


def create(
    runs: Iterable[RangeRun],
    backfill: str,
    is_to_do: Callable[[DayRange], bool],
    trigger: Callable[[str, dict[str, Any]], bool],
    at_most: int = 1,
) -> list[RangeRun]:
    """Create the first of some runs that there is something to do for.

    A step has one run in a backfill, whichever of its runs creates it: Airflow takes an id only once.

    Args:
        runs: in their order.
        backfill: its name.
        is_to_do: whether there is something to do for any of the days.
        trigger: creates a run with an id and Params; False if there is one with that id.
        at_most: how many to create.

    Returns:
        Those that were created.
    """
    created: list[RangeRun] = []
    for run in runs:
        if is_to_do(run.days) and trigger(run.run_id(backfill), run.conf()):
            created.append(run)
            if len(created) == at_most:
                break
    return created


def _range(first: Any, last: Any, *names: str) -> DayRange:
    days: list[dt.date] = []
    for value, name in zip((first, last), names, strict=True):
        try:
            days.append(dt.date.fromisoformat(str(value)[:10]))
        except ValueError:
            raise ConfigurationError(f"The Param {name} is no date: {value!r}.") from None
    if days[0] > days[1]:
        raise ConfigurationError(f"The Param {names[0]} ({days[0]}) is after {names[1]} ({days[1]}).")
    return DayRange(*days)
