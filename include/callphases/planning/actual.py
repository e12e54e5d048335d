"""What the published days of a range have cost, by month."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pyarrow as pa

from callphases.day_range import DayRange
from callphases.planning.saved import MonthCost
from callphases.state.storage import ObjectPrefix
from callphases.state.summaries import read_summaries
from callphases.tables.reading import published_days, read_table_day

_COLUMNS = ["duration_s", "speech_usd", "llm_usd"]


def actual_costs(state: ObjectPrefix, tables: ObjectPrefix, days: DayRange) -> dict[str, MonthCost]:
    """What the published rows of each month come to, by the summaries of days; months without such days have none.

    One request for each month, one LIST request for each thousand published days, and one for each day that an earlier
    version has published, which has no summary.

    Raises:
        ConfigurationError, ServiceUnavailable: a bucket can't be read.
    """
    found: dict[str, list[MonthCost]] = defaultdict(list)
    summaries = read_summaries(state, days.first, days.last)
    for day, one in summaries.items():
        found[f"{day:%Y-%m}"].append(MonthCost(one.audio_s, one.speech_usd, one.llm_usd))
    for day in published_days(tables):
        if days.first <= day <= days.last and day not in summaries:
            try:
                table = read_table_day(tables, "calls", day, _COLUMNS)
            except (pa.ArrowException, OSError, ValueError):
                continue
            if table is not None:
                found[f"{day:%Y-%m}"].append(MonthCost(*_sums(table)))
    return {
        month: MonthCost(
            sum(one.audio_s for one in costs), sum(one.speech_usd for one in costs), sum(one.llm_usd for one in costs)
        )
        for month, costs in sorted(found.items())
    }


def _sums(table: pa.Table) -> Iterator[float]:
    return (sum(value or 0.0 for value in table[name].to_pylist()) for name in _COLUMNS)
