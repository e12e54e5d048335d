"""Parts: the rows of some recordings, written by whoever knows them last, for publishing to merge.

A part is one object, an Arrow file with a row a call in the order of ``call_id``; the call's rows of ``phases`` are in
a list. Who reads it sees all of it or nothing.
"""

from __future__ import annotations

import datetime as dt
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from callphases.limits import costs
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.state.ledger import LedgerView
from callphases.state.storage import ObjectPrefix, split_uri
from callphases.tables.rows import rows
from callphases.tables.schema import schema_of, shared

log = logging.getLogger(__name__)

# Arrow's own threads stay out of it: a process that ends while they start is aborted.
_READ = ipc.IpcReadOptions(use_threads=False)
_WRITE = ipc.IpcWriteOptions(use_threads=False, compression="lz4")


def part_schema(pipeline: Pipeline) -> pa.Schema:
    """Columns of a part: those of ``calls``, whether the run has finished the call, what it spent on it, its phases."""
    of_call = shared(pipeline)
    own_of_phases = [column for column in schema_of("phases", pipeline) if column.name not in of_call]
    more: list[pa.Field[Any]] = [
        pa.field("finished", pa.bool_()),
        pa.field("run_speech_usd", pa.float64()),
        pa.field("run_llm_usd", pa.float64()),
        pa.field("phases", pa.list_(pa.struct(own_of_phases))),
    ]
    return pa.schema([*schema_of("calls", pipeline), *more])


@dataclass
class PartWriter:
    """Makes parts of recordings whose turn in a run is over.

    Args:
        state: ``output.state``.
        pipeline: the pipeline.
        run_id: of the run.
        folder: of the run's parts, below ``output.state``; ends with ``/``.
        since: when the run's pass over the day began; what it has spent is counted from then on.
    """

    state: ObjectPrefix
    pipeline: Pipeline
    run_id: str
    folder: str
    since: dt.datetime
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, recording: Recording, known: LedgerView) -> None:
        """Take the rows of a recording from what is known of it now."""
        call, phases, finished = rows(recording, self.pipeline, known, self.run_id)
        speech_usd, llm_usd = costs.spent_usd(known.of([recording]), self.run_id, self.since)
        self._rows.append(
            {
                **call,
                "finished": finished,
                "run_speech_usd": speech_usd,
                "run_llm_usd": llm_usd,
                "phases": phases,
            }
        )

    def __len__(self) -> int:
        """How many calls the next part will hold."""
        return len(self._rows)

    def take(self) -> pa.Table:
        """What was added since the last part, as its rows; the next part begins."""
        added, self._rows = sorted(self._rows, key=itemgetter("call_id")), []
        for name, column in self.pipeline.recordings.columns.items():
            if without := sum(call[name] is None for call in added):
                log.info("%s: %d of %d recordings have no %s for it.", name, without, len(added), column.type)
        return pa.Table.from_pylist(added, schema=part_schema(self.pipeline))

    def write(self, name: str) -> None:
        """Put what was added as the part ``name``, which replaces one of that name; the next part begins.

        Raises:
            ConfigurationError, ServiceUnavailable: the store does not take it.
        """
        buffer = io.BytesIO()
        rows = self.take()
        with ipc.new_file(buffer, rows.schema, options=_WRITE) as file:
            file.write_table(rows)
        self.state.put(_object(self.folder, name), buffer.getvalue(), "application/vnd.apache.arrow.file")


def folder_of(day: dt.date, run_token: str) -> str:
    """Where the parts of a run lie below ``output.state``."""
    return f"runs/dt={day}/{run_token}/rows/"


def read_part(state: ObjectPrefix, folder: str, name: str) -> pa.Table | None:
    """The rows of a part, or None where it was not written."""
    body = state.get(_object(folder, name))
    return None if body is None else ipc.open_file(pa.py_buffer(body), options=_READ).read_all()


def recordings_of(part: pa.Table) -> Iterator[Recording]:
    """The recordings that a part has rows of."""
    columns = ["recording_uri", "recording_etag", "recording_bytes", "call_started_at"]
    for row in part.select(columns).to_pylist():
        bucket, key = split_uri(row["recording_uri"])
        yield Recording(bucket, key, row["recording_etag"], row["recording_bytes"], row["call_started_at"])


def _object(folder: str, name: str) -> str:
    return f"{folder}{name}.arrow"
