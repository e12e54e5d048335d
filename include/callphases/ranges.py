"""Sorting what does not fit into memory: the rows of many sorted tables, by ranges of their ``call_id``."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import ipc

HELD_BYTES = 64 << 20
"""What is held in memory before it goes to disk: small days never do."""

_READ = ipc.IpcReadOptions(use_threads=False)
_WRITE = ipc.IpcWriteOptions(use_threads=False)


def borders(count: int) -> list[str]:
    """The ids at which ``count`` ranges of calls end that have about as many each: ids are digits of a hash."""
    return [f"{(number << 64) // count:016x}" for number in range(1, count)]


class Ranges:
    """Takes tables as they come and gives back, range by range, what they hold; ``folder`` is for what is too much."""

    def __init__(self, folder: Path, schema: pa.Schema, borders: list[str]) -> None:
        self._folder, self._schema, self._borders = folder, schema, borders
        self._held: list[list[pa.RecordBatch]] = [[] for _ in range(len(borders) + 1)]
        self._held_bytes = 0
        self._files: list[Path] = []

    def add(self, table: pa.Table) -> None:
        """Take a table that is in the order of ``call_id``."""
        for batch in table.to_batches():
            ids: list[Any] = batch["call_id"].to_pylist()
            edges = [0, *(bisect_left(ids, border) for border in self._borders), len(ids)]
            for held, start, end in zip(self._held, edges, edges[1:], strict=False):
                if end > start:
                    held.append(batch.slice(start, end - start))
            self._held_bytes += batch.nbytes
        if self._held_bytes > HELD_BYTES:
            self._put_away()

    def read(self, number: int) -> pa.Table:
        """The rows of a range, in the order in which they were added."""
        batches: list[pa.RecordBatch] = []
        for path in self._files:
            batches.append(ipc.open_file(pa.memory_map(str(path)), options=_READ).get_batch(number))
        batches += self._held[number]
        self._held[number] = []
        return pa.Table.from_batches(batches, self._schema)

    def _put_away(self) -> None:
        """Move what is held to a file with one batch for each range."""
        path = self._folder / f"{len(self._files)}.arrow"
        with ipc.new_file(str(path), self._schema, options=_WRITE) as file:
            for held in self._held:
                whole = pa.Table.from_batches(held, self._schema).combine_chunks().to_batches()
                file.write_batch(whole[0] if whole else _no_rows(self._schema))
                held.clear()
        self._files.append(path)
        self._held_bytes = 0


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)
