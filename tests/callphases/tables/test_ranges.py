"""Tests that each row is in exactly one range of ids, in the order in which rows were added."""

from __future__ import annotations

import hashlib
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.tables.ranges import Ranges, borders
from doubles import OneThread

ROWS = pa.schema([pa.field("call_id", pa.string()), pa.field("number", pa.int64())])
IDS = st.text("0123456789abcdef", min_size=16, max_size=16)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 61])
def test_ranges_have_about_the_same_number_of_calls(count: int) -> None:
    ends = borders(count)
    assert (len(ends), ends) == (count - 1, sorted(ends))
    ids = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(count * 100)]
    found = [sum(one < end for one in ids) for end in [*ends, "g"]]
    sizes = [high - low for low, high in zip([0, *found], found, strict=False)]
    assert min(sizes) > 50
    assert max(sizes) < 150


def test_border_belongs_to_the_range_that_it_begins(tmp_path: Path) -> None:
    ranges = Ranges(tmp_path, ROWS, borders(2), OneThread())
    ranges.add(pa.table({"call_id": ["7fffffffffffffff", "8000000000000000"], "number": [1, 2]}, schema=ROWS))
    assert [ranges.read(number)["number"].to_pylist() for number in range(2)] == [[1], [2]]


@given(st.lists(st.lists(IDS, max_size=6), max_size=5), st.integers(1, 5), st.sampled_from([0, 100, 1 << 20]))
def test_each_range_returns_its_rows_in_the_order_they_were_added(
    tmp_path_factory: pytest.TempPathFactory, tables: list[list[str]], count: int, held_bytes: int
) -> None:
    folder, ends = tmp_path_factory.mktemp("ranges"), borders(count)
    ranges = Ranges(folder, ROWS, ends, OneThread())
    rows = [(one, number) for number, ids in enumerate(tables) for one in sorted(ids)]
    with patch("callphases.tables.ranges.HELD_BYTES", held_bytes):
        for number, ids in enumerate(tables):
            ranges.add(pa.table({"call_id": sorted(ids), "number": [number] * len(ids)}, schema=ROWS))
    for number, (low, high) in enumerate(zip(["", *ends], [*ends, "g"], strict=True)):
        found = ranges.read(number)
        assert found.schema == ROWS
        assert [tuple(row.values()) for row in found.to_pylist()] == [row for row in rows if low <= row[0] < high]


def test_few_rows_are_not_written_to_disk(tmp_path: Path) -> None:
    ranges = Ranges(tmp_path, ROWS, borders(3), OneThread())
    ranges.add(pa.table({"call_id": ["00", "ff"], "number": [1, 2]}, schema=ROWS))
    assert ranges.read(0).num_rows == 1
    assert list(tmp_path.iterdir()) == []
