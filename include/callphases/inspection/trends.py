"""How a pipeline's days change over time: calls, failures, costs, shares of phases, and where prompt or model changed.

Read from the summaries of days, with one GET a month: no table is read, and nothing is listed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from callphases.state.storage import ObjectPrefix
from callphases.state.summaries import DaySummary, read_summaries

CLEARLY_MORE = 2
"""Another model takes the place of the former one with this many times its calls. With ``segmentation.side_by_side``,
models have about the same number of calls each, and now one has the most, now another."""


@dataclass(frozen=True)
class DayFigures:
    """What the last publication of a day came to.

    Attributes:
        day: of the calls.
        statuses, failures: calls by ``status`` and by ``failure_class``.
        kept: further calls, whose recordings were deleted; only the shares include them.
        speech_usd, llm_usd: what the day's calls cost.
        phase_shares: share of each phase in the seconds of all phases, 0 to 1, by name; empty if the day has none, or
            if an earlier version has published it.
    """

    day: dt.date
    statuses: dict[str, int]
    failures: dict[str, int]
    kept: int
    speech_usd: float
    llm_usd: float
    phase_shares: dict[str, float]


@dataclass(frozen=True)
class Change:
    """From a day on, most calls have another value than before.

    Attributes:
        day: the first with it.
        column: ``prompt_version``, ``speech_model`` or ``llm_model``.
        before: the value of the last day before that has such calls.
        after: the value of ``day``.
    """

    day: dt.date
    column: str
    before: str
    after: str


@dataclass(frozen=True)
class Trends:
    """Days that are published, in order, and the changes on them. Days without a publication are left out."""

    days: list[DayFigures]
    changes: list[Change]


def read_trends(state: ObjectPrefix, last: dt.date, days: int) -> Trends:
    """The trends of the last ``days`` days, up to ``last``.

    Raises:
        ServiceUnavailable: the store does not answer.
    """
    found = read_summaries(state, last - dt.timedelta(days=days - 1), last).values()
    return Trends([_figures(one) for one in found], _changes(found))


def _figures(one: DaySummary) -> DayFigures:
    whole_s = sum(one.phase_s.values())
    shares = {name: seconds / whole_s for name, seconds in one.phase_s.items()} if whole_s else {}
    return DayFigures(one.day, one.statuses, one.failures, one.kept, one.speech_usd, one.llm_usd, shares)


def _changes(summaries: Iterable[DaySummary]) -> list[Change]:
    changes: list[Change] = []
    former: dict[str, str] = {}
    for one in summaries:
        for column, counts in one.lineage.items():
            if not counts:
                continue
            value = _main(counts, former.get(column))
            if column in former and value != former[column]:
                changes.append(Change(one.day, column, former[column], value))
            former[column] = value
    return changes


def _main(counts: Mapping[str, int], former: str | None) -> str:
    """The value of most calls; ``former``, unless another has clearly more."""
    most = max(sorted(counts), key=counts.__getitem__)
    return former if former is not None and counts[most] < CLEARLY_MORE * counts.get(former, 0) else most
