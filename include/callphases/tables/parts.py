"""Parts: rows of some recordings, written by the last task that works on them, for publishing to merge.

A part is one object, an Arrow file with a row a call in the order of ``call_id``; the call's rows of ``phases`` are in
a list. Reads are atomic.
"""

from __future__ import annotations

import datetime as dt
import io
import logging
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from callphases.limits import costs
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.state import layout
from callphases.state.ledger import LedgerView
from callphases.state.manifests import DayList, Manifest
from callphases.state.storage import ObjectPrefix, split_uri
from callphases.tables.rows import RowMaker
from callphases.tables.schema import schema_of, shared

log = logging.getLogger(__name__)

RECORDING_COLUMNS = ["recording_uri", "recording_etag", "recording_bytes", "call_started_at"]
# Arrow's own threads stay out of it: a process that ends while they start is aborted.
_READ = ipc.IpcReadOptions(use_threads=False)
_WRITE = ipc.IpcWriteOptions(use_threads=False, compression="lz4")


def part_schema(pipeline: Pipeline) -> pa.Schema:
    """The columns of a part: those of ``calls``, whether the call is finished, the run's costs (of which
    ``_estimated_usd`` is estimated), and the phases."""
    of_call = shared(pipeline)
    own_of_phases = [column for column in schema_of("phases", pipeline) if column.name not in of_call]
    more: list[pa.Field[Any]] = [
        pa.field("finished", pa.bool_()),
        pa.field("run_speech_usd", pa.float64()),
        pa.field("run_llm_usd", pa.float64()),
        pa.field("_estimated_usd", pa.float64()),
        pa.field("phases", pa.list_(pa.struct(own_of_phases))),
    ]
    return pa.schema([*schema_of("calls", pipeline), *more])


class PartWriter:
    """Writes parts with the rows of recordings that the run is done with.

    Args:
        state: ``output.state``.
        pipeline: the pipeline.
        listed: the day as it was listed, or a chunk.
        day: of the recordings.
    """

    def __init__(self, state: ObjectPrefix, pipeline: Pipeline, listed: DayList | Manifest, day: dt.date) -> None:
        self._state, self._pipeline, self._day = state, pipeline, day
        self._run_token, self._run_id, self._since = listed.run_token, listed.run_id, listed.listed_at
        self._maker = RowMaker(pipeline, listed.run_id)
        self._rows: list[dict[str, Any]] = []

    def add(self, recording: Recording, view: LedgerView) -> None:
        """Add the rows of a recording, by what the ledger knows of it now."""
        made = self._maker.rows(recording, view)
        events = view.of([recording])
        speech_usd, llm_usd = costs.spent_usd(events, self._run_id, self._since)
        estimates = (0.0, 0.0)
        if self._pipeline.budget.usd_per_run is not None:  # without one, nothing depends on what has no price
            estimates = costs.unpriced_usd(self._pipeline, events, self._run_id, self._since)
        self._rows.append(
            {
                **made.call,
                "finished": made.is_finished,
                "run_speech_usd": speech_usd + estimates[0],
                "run_llm_usd": llm_usd + estimates[1],
                "_estimated_usd": sum(estimates),
                "phases": made.phases,
            }
        )

    def __len__(self) -> int:
        """The number of calls in the next part."""
        return len(self._rows)

    def take(self) -> pa.Table:
        """The rows that were added since the last part; starts the next part."""
        added, self._rows = sorted(self._rows, key=itemgetter("call_id")), []
        for name, column in self._pipeline.recordings.columns.items():
            if without := [call["recording_uri"] for call in added if call[name] is None]:
                have = "recordings have" if len(added) > 1 else "recording has"
                counts = name, len(without), len(added), have, column.type
                log.info("%s: %d of %d %s no %s for it: %s%s", *counts, without[0], ", …" if without[1:] else "")
        return pa.Table.from_pylist(added, schema=part_schema(self._pipeline))

    def write(self, name: str) -> None:
        """Write what was added as the part ``name``, in place of one of that name; starts the next part.

        Raises:
            ConfigurationError, ServiceUnavailable: the store does not take it.
        """
        buffer = io.BytesIO()
        rows = self.take()
        with ipc.new_file(buffer, rows.schema, options=_WRITE) as file:
            file.write_table(rows)
        name = layout.part(self._day, self._run_token, name)
        self._state.put(name, buffer.getvalue(), "application/vnd.apache.arrow.file")


def read_part(state: ObjectPrefix, day: DayList, name: str) -> pa.Table | None:
    """The rows of a part; None if it was not written."""
    body = state.get(layout.part(day.day, day.run_token, name))
    return None if body is None else ipc.open_file(pa.py_buffer(body), options=_READ).read_all()


def recordings_of(calls: pa.Table) -> Iterator[Recording]:
    """The recordings that a part, or rows of ``calls``, are of."""
    for row in calls.select(RECORDING_COLUMNS).to_pylist():
        bucket, key = split_uri(row["recording_uri"])
        yield Recording(bucket, key, row["recording_etag"], row["recording_bytes"], row["call_started_at"])
