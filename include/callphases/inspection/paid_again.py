"""Which calls a run would pay for again, because settings of the pipeline file have changed since they were done."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Generator, Iterator

import pyarrow as pa

from callphases.inspection.findings import Finding, Health
from callphases.pipeline import UPGRADE, Pipeline
from callphases.progress import Progress
from callphases.recordings import Recording
from callphases.segmentation.segmenter import prompt_version
from callphases.state import layout
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import read_ledger_day
from callphases.state.storage import ObjectPrefix
from callphases.tables.parts import RECORDING_COLUMNS, recordings_of
from callphases.tables.reading import published_days, read_table_day

LATEST_DAYS = 3
LEDGER_OBJECTS = 300
"""Objects of ledgers that are read at most: one request each, and a large night has some 400."""


class PaidAgain:
    """Counts calls that were done before and are paid for again."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.calls = 0
        self._prompt_version = prompt_version(pipeline)
        self._transcribed: Counter[tuple[str, ...]] = Counter()
        self._asked: Counter[str] = Counter()

    def see(self, progress: Progress) -> None:
        """Count a recording."""
        self.calls += 1
        if (settings := progress.changed_settings) is not None:
            self._transcribed[tuple(settings)] += 1
        elif (former := progress.former_answer) is not None:
            self._asked[self._why_asked(former.prompt_version or "")] += 1

    def _why_asked(self, former: str) -> str:
        if former == self._prompt_version:
            return "segmentation.models changed"
        is_same_question = former.partition("-")[0] == self._prompt_version.partition("-")[0]
        return "phases changed" if is_same_question else "this version of callphases asks another question"

    def __str__(self) -> str:
        """Sentences about those that are paid for again; empty if there are none."""
        sentences = [
            f"{count} were transcribed before and are paid for again, {_why(settings)}."
            for settings, count in sorted(self._transcribed.items())
        ]
        sentences += [
            f"For {count} that are transcribed, the model is asked again, because {why}."
            for why, count in sorted(self._asked.items())
        ]
        return " ".join(sentences)


def _why(settings: tuple[str, ...]) -> str:
    if not settings:
        return "because options of transcription, or the recordings, changed (an older ledger does not tell)"
    if settings == (f"transcription.{UPGRADE}",):
        return f"because transcription.{UPGRADE} is true and other speech models transcribed them"
    return f"because {' and '.join(settings)} changed"


def paid_again_findings(
    state: ObjectPrefix, tables: ObjectPrefix, pipeline: Pipeline
) -> Generator[Finding, None, None]:
    """Check the latest published days, as far as their ledgers are small; lists no recordings.

    Raises:
        ConfigurationError, ServiceUnavailable: a bucket can't be listed or read.
    """
    what, keys, paid_again = "published calls", RecordingKeys(pipeline), PaidAgain(pipeline)
    days: list[dt.date] = []
    left = LEDGER_OBJECTS
    for day in reversed(published_days(tables)[-LATEST_DAYS:]):
        objects = sum(layout.is_ledger_segment(name) for name in state.names(layout.ledger_of(day)))
        left -= objects
        if left < 0:
            break
        if objects:
            view = read_ledger_day(state, day)
            for recording in _published_recordings(tables, day):
                paid_again.see(Progress(recording, keys, view))
            days.append(day)
    if not paid_again.calls:
        return
    looked_at = f"Looked at {paid_again.calls} calls of {', '.join(map(str, days))}."
    if said := str(paid_again):
        detail = f"{said} That is if these days are run again; change the settings back to avoid it. {looked_at}"
        yield Finding(Health.UNSURE, what, detail)
    else:
        yield Finding(Health.GOOD, what, f"With today's settings, none would be paid for again. {looked_at}")


def _published_recordings(tables: ObjectPrefix, day: dt.date) -> Iterator[Recording]:
    """The recordings that a day's rows are of; none if its object is not one of callphases'."""
    try:
        calls = read_table_day(tables, "calls", day, RECORDING_COLUMNS)
    except (pa.ArrowException, OSError, ValueError):
        return  # which the check of the tables reports
    if calls is not None:
        yield from recordings_of(calls.drop_null())
