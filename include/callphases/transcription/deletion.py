"""Deleting transcripts: at the provider once they are kept, and everywhere where their rows are dropped."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from callphases.errors import RequestRefused, ServiceUnavailable, TranscriptUnknown
from callphases.progress import deletable_transcripts
from callphases.recordings import counted
from callphases.state.events import Deleted
from callphases.state.keys import deletion_key
from callphases.state.ledger import Ledger, read_ledger_day
from callphases.state.storage import ObjectPrefix
from callphases.state.transcripts import delete_transcript

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

DELETIONS_AT_ONCE = 8

Delete = Callable[[str], None]
"""Removes the transcript with an id at the provider; raises RequestRefused or ServiceUnavailable."""


def delete_at_provider(ledger: Ledger, delete: Delete) -> None:
    """Delete the transcripts of the day that are in the state area; the ledger goes on preventing a second payment.

    Raises:
        ServiceUnavailable: some could not be deleted; the next run tries them again.
        DayHeld, RunStopped: as ``Lease.hold``.
    """
    ids = deletable_transcripts(ledger)

    def deleted(transcript_id: str) -> bool:
        ledger.lease.hold()  # another run that has the day by now may still want to fetch it
        return _is_deleted(transcript_id, delete)

    with ThreadPoolExecutor(DELETIONS_AT_ONCE) as pool:
        done = [one for one, gone in zip(ids, pool.map(deleted, ids), strict=True) if gone]
    ledger.write(Deleted(key=deletion_key(one), recording=ids[one], transcript_id=one) for one in done)
    log.info("%s: %s deleted at the provider.", ledger.day, counted(len(done), "transcript"))
    if len(done) < len(ids):
        raise ServiceUnavailable(
            f"{counted(len(ids) - len(done), 'transcript')} could not be deleted at the provider "
            "(privacy.delete_after)."
        )


def forget(state: ObjectPrefix, delete: Delete, day: dt.date, calls: pa.Table) -> None:
    """Delete the transcripts of calls whose rows are dropped, in the state area and at the provider.

    Args:
        state: ``output.state``.
        delete: deletes at the provider.
        day: of the calls.
        calls: their rows of the table ``calls``.
    """
    view = read_ledger_day(state, day)
    for uri in calls["transcript_uri"].to_pylist():
        if uri is not None:
            delete_transcript(state, uri, view)
    ids = [one for one in calls["transcript_id"].to_pylist() if one is not None]
    with ThreadPoolExecutor(DELETIONS_AT_ONCE) as pool:
        deleted = sum(pool.map(lambda one: _is_deleted(one, delete), ids))
    log.info(
        "%s: %s dropped, %s deleted at the provider.",
        day,
        counted(calls.num_rows, "call"),
        counted(deleted, "transcript"),
    )


def _is_deleted(transcript_id: str, delete: Delete) -> bool:
    try:
        delete(transcript_id)
    except TranscriptUnknown:
        return True  # it is gone
    except (RequestRefused, ServiceUnavailable) as error:
        log.warning("transcript %s: %s", transcript_id, error)
        return False
    return True
