"""External sort: the rows of many sorted tables, by ranges of ``call_id``."""

from __future__ import annotations

from bisect import bisect_left
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import ipc

HELD_BYTES = 320 << 20
"""Rows in memory before they go to disk. Days of up to some 250,000 calls never do: writing and reading them again took
a fifth of the time of publishing."""

_READ = ipc.IpcReadOptions(use_threads=False)
_WRITE = ipc.IpcWriteOptions(use_threads=False)


def borders(count: int) -> list[str]:
    """The ids that split calls into ``count`` ranges of about the same size: ids are digits of a hash."""
    return [f"{(number << 64) // count:016x}" for number in range(1, count)]


class Ranges:
    """Collects tables and returns their rows range by range.

    What is too much for memory goes to ``folder``, on a thread of ``disk``.
    """

    def __init__(self, folder: Path, schema: pa.Schema, borders: list[str], disk: Executor) -> None:
        self._folder, self._schema, self._borders, self._disk = folder, schema, borders, disk
        self._held: list[list[pa.RecordBatch]] = [[] for _ in range(len(borders) + 1)]
        self._held_bytes = 0
        self._files: list[Path] = []
        self._writing: Future[None] | None = None
        self._no_rows = pa.RecordBatch.from_arrays([pa.nulls(0, one.type) for one in schema], schema=schema)

    def add(self, table: pa.Table) -> None:
        """Add a table that is sorted by ``call_id``."""
        for batch in table.to_batches():
            ids: Any = batch["call_id"]
            edges = [0, *(bisect_left(ids, border, key=lambda one: one.as_py()) for border in self._borders), len(ids)]
            for held, start, end in zip(self._held, edges, edges[1:], strict=False):
                if end > start:
                    held.append(batch.slice(start, end - start))
            self._held_bytes += batch.nbytes
        if self._held_bytes > HELD_BYTES:
            self._put_away()

    def read(self, number: int) -> pa.Table:
        """The rows of a range, in the order they were added."""
        self._written()
        batches: list[pa.RecordBatch] = []
        for path in self._files:
            batches.append(ipc.open_file(pa.memory_map(str(path)), options=_READ).get_batch(number))
        batches += self._held[number]
        self._held[number] = []
        return pa.Table.from_batches(batches, self._schema)

    def _put_away(self) -> None:
        """Write the rows in memory to a file with one batch per range, in the background."""
        self._written()
        path = self._folder / f"{len(self._files)}.arrow"
        self._writing = self._disk.submit(self._write, path, self._held)
        self._files.append(path)
        self._held = [[] for _ in self._held]
        self._held_bytes = 0

    def _write(self, path: Path, ranges: list[list[pa.RecordBatch]]) -> None:
        with ipc.new_file(str(path), self._schema, options=_WRITE) as file:
            for held in ranges:
                whole = pa.Table.from_batches(held, self._schema).combine_chunks().to_batches()
                file.write_batch(whole[0] if whole else self._no_rows)
                held.clear()

    def _written(self) -> None:
        if self._writing is not None:
            self._writing.result()
