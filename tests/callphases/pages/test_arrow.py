"""Arrow's values that are made without pandas are those that Arrow makes with it."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from callphases.pages import arrow


@given(st.lists(st.text()))
def test_strings(values: list[str]) -> None:
    assert arrow.strings(values).equals(pa.array(values, pa.string()))


@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1)))
def test_integers(values: list[int]) -> None:
    assert arrow.int32s(values).equals(pa.array(values, pa.int32()))


@given(st.lists(st.floats(allow_nan=False)))
def test_numbers(values: list[float]) -> None:
    assert arrow.float64s(values).equals(pa.array(values, pa.float64()))


def test_scalars() -> None:
    assert arrow.string("é").equals(pa.scalar("é"))
    assert arrow.int32(-1).equals(pa.scalar(-1, pa.int32()))
    assert arrow.float64(0.5).equals(pa.scalar(0.5))
    assert arrow.null(pa.float64()).equals(pa.scalar(None, pa.float64()))
