"""Recordings to transcribe are kept on disk, by what they are like."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from typing import Any

import pytest

from callphases.date_prefixes import has_date
from callphases.pipeline import Pipeline
from callphases.planning.survey import CERTAIN, ToTranscribe, _days_with_prefixes
from callphases.state.bucket import RecordingBucket
from doubles import Store, recording


def test_recordings_are_found_again_by_cell_and_number() -> None:
    with closing(ToTranscribe("recordings")) as todo:
        ours = [recording(f"calls/{number}.MP3", bucket="recordings", size=1000 + number) for number in range(12_000)]
        for one in ours:
            todo.add(one, "2026-11")
        todo.add(recording("calls/a", bucket="recordings", size=1000), "2026-12")
        assert len(todo) == 12_001
        found = [
            one
            for (suffix, _, month), cell in todo.cells.items()
            if (suffix, month) == (".mp3", "2026-11")
            for _, one in todo.get(cell)
        ]
        assert found == ours
        cell = next(iter(todo.cells.values()))
        assert [number for number, _ in todo.get(cell, [3, 1])] == [1, 3]


def test_largest_recordings_are_known() -> None:
    with closing(ToTranscribe("recordings")) as todo:
        for number in range(1000):
            todo.add(recording(f"{number}.mp3", size=10_000 + number), "2026-11")
        cells = {cell.number: cell for cell in todo.cells.values()}
        sizes = [one.size for of, number in todo.largest() for _, one in todo.get(cells[of], [number])]
        assert sorted(sizes) == list(range(11_000 - CERTAIN, 11_000))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("prefix", "keys", "days"),
    [
        ("calls/{date:%Y-%m-%d}/", ["2024-02-29/a", "2024-02-29/b", "2026-11-20/a"], ["2024-02-29", "2026-11-20"]),
        ("calls/{date:%d.%m.%Y}/", ["29.02.2024/a", "20.11.2023/a", "31.02.2024/a"], ["2023-11-20", "2024-02-29"]),
        ("calls/{date:%Y/%m/%d}", ["2024/01/01/a", "2024/01/02.mp3", "9999/x", "0000/y"], ["2024-01-01", "2024-01-02"]),
        ("calls/{date:%Y-%m}/", ["2024-02/a", "2024-03/b"], ["2024-02-01", "2024-03-01"]),
        ("calls/", [], ["today"]),
    ],
)
def test_days_of_a_bucket_are_found_by_its_prefixes(s3: Store, prefix: str, keys: list[str], days: list[str]) -> None:
    for key in ["a", "zzz", *keys]:
        s3.put(f"calls/{key}")
    source: dict[str, Any] = {"prefix": prefix}
    if "%d" not in prefix:
        source["call_time"] = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}
    ours: Pipeline = s3.pipeline(recordings=source)
    s3.listed.clear()
    found = _days_with_prefixes(ours, RecordingBucket(s3.client, s3.recordings))
    today = dt.datetime.now(dt.UTC).date()
    assert list(map(str, found)) == ([str(today)] if not has_date(prefix) else days)
    assert len(s3.listed) <= 2 * len(keys) + 4
