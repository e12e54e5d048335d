"""Arrow's values, without pandas: ``pa.scalar`` and ``pa.array`` import it where it is installed.

That takes a second and 60 MB, which the API server has better uses for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa


def int32s(values: Iterable[int]) -> pa.Array[Any]:
    """An array of int32."""
    return _numbers("i", pa.int32(), values)


def float64s(values: Iterable[float]) -> pa.Array[Any]:
    """An array of float64."""
    return _numbers("d", pa.float64(), values)


def strings(values: Sequence[str]) -> pa.Array[Any]:
    """An array of string."""
    encoded = [value.encode() for value in values]
    ends = array("i", accumulate(map(len, encoded), initial=0))
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def string(value: str) -> Any:
    """A scalar."""
    return strings([value])[0]


def int32(value: int) -> Any:
    """A scalar."""
    return int32s([value])[0]


def float64(value: float) -> Any:
    """A scalar."""
    return float64s([value])[0]


def null(kind: Any) -> Any:
    """A null scalar."""
    return pa.nulls(1, kind)[0]


def _numbers(code: str, kind: pa.DataType, values: Iterable[float]) -> pa.Array[Any]:
    numbers = array(code, values)
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])
