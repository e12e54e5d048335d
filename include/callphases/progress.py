"""How far along a recording is, by its keys and the ledger: the one place that says so.

Listing, transcription, segmentation, tables, budgets and deletion all ask here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from callphases.errors import OverBudget, Unfinished
from callphases.pipeline import UPGRADE
from callphases.recordings import Recording
from callphases.state.events import (
    Answered,
    Deleted,
    Described,
    Event,
    Failed,
    Intended,
    ModelUsage,
    Stopped,
    Submitted,
    Transcribed,
    Withdrawn,
    failed,
)
from callphases.state.keys import RecordingKeys, deletion_key, stop_key, version
from callphases.state.ledger import LedgerView
from callphases.state.manifests import Manifest

Status = Literal["completed", "no_speech", "failed"]


@dataclass(frozen=True)
class DayPass:
    """A pass over a day: what it takes for settled.

    Attributes:
        began_at: what failed before and may pass is tried again; what failed since is not.
        replay: whether failures that are permanent are tried again too.
    """

    began_at: dt.datetime
    replay: bool = False

    @classmethod
    def of(cls, chunk: Manifest) -> DayPass:
        """The pass that a chunk is part of."""
        return cls(chunk.listed_at, chunk.replay)

    def has_settled(self, event: Event | None) -> bool:
        """Whether nothing is to be done in this pass about the key whose last event is ``event``."""
        if event is None or isinstance(event, Intended | Withdrawn):
            return False
        if not isinstance(event, Failed):
            return True
        if event.permanent and not self.replay:
            return True
        return event.at >= self.began_at and not event.again


@dataclass(frozen=True)
class Outcome:
    """What the tables say of a recording.

    Attributes:
        status: the column of that name.
        failure: why it failed; None where it did not.
        at: when that was known.
        run_id: the run that it is from.
        is_finished: whether a run has come to the end of it, be it a failure.
    """

    status: Status
    failure: Failed | Stopped | None
    at: dt.datetime
    run_id: str
    is_finished: bool


class Progress:
    """What the ledger knows of one recording with the settings of today.

    A transcript by other speech models counts, unless ``transcription.upgrade`` is set.

    Attributes:
        key: the transcript's.
        speech: the last event of the transcription.
        due_key: what is submitted, where that is to be done. It differs from ``key`` until then, if an upgrade replaces
            a transcript that is kept so long, or if other models have failed.
    """

    def __init__(self, recording: Recording, keys: RecordingKeys, view: LedgerView) -> None:
        self.recording = recording
        self.key, self.due_key = _keys_in_use(recording, keys, view)
        self.speech = view.find(self.key)
        self._due = self.speech if self.due_key == self.key else view.find(self.due_key)
        self._keys, self._view = keys, view

    # Digests over the whole question: a listing of a million recordings needs few of them.
    @cached_property
    def answer_key(self) -> str:
        """The answer's key."""
        return self._keys.answer(self.key)

    @cached_property
    def answer(self) -> Event | None:
        """The last event of the segmentation; None unless there is a transcript with speech."""
        return self._view.find(self.answer_key) if self._has_speech else None

    @property
    def is_described(self) -> bool:
        """Whether the metadata and tags that the pipeline's columns need are there."""
        key = self._keys.description(self.recording)
        return key is None or isinstance(self._view.find(key), Described)

    @property
    def transcribed(self) -> Transcribed | None:
        """The transcript, where there is one; it may have no speech."""
        return self.speech if isinstance(self.speech, Transcribed) else None

    @property
    def answered(self) -> Answered | None:
        """The phases, where there are any."""
        return self.answer if isinstance(self.answer, Answered) else None

    @property
    def stopped(self) -> Stopped | None:
        """Why a run ended before the recording was done."""
        event = self._view.find(stop_key(self.key))
        return event if isinstance(event, Stopped) else None

    @property
    def may_be_at_provider(self) -> bool:
        """Whether a job of an earlier submission may have to be looked for, or fetched."""
        return isinstance(self._due, Intended) or (isinstance(self._due, Failed) and self._due.paid)

    @property
    def has_transcript(self) -> bool:
        """Whether the speech service does not have to be paid for it any more."""
        return isinstance(self._due, Transcribed)

    @property
    def is_paid(self) -> bool:
        """Whether neither service has to be paid for it any more."""
        return self.has_transcript and (not self._has_speech or self.answered is not None)

    @property
    def changed_settings(self) -> list[str] | None:
        """Why it is paid for again though it was transcribed: settings of the pipeline file, sorted.

        None if it is not paid for again, or only because it was replaced. Empty if the ledger does not tell: an earlier
        version wrote it, and the recording may have been replaced.
        """
        if self.has_transcript or isinstance(self._due, Submitted) or self.may_be_at_provider:
            return None
        events = self._view.of([self.recording])
        former = max((event for event in events if isinstance(event, Transcribed)), key=_rank, default=None)
        if former is None or not former.recording:
            return None
        if self._keys.upgrades and former.key in self._keys.of_other_models(self.recording, events):
            return [f"transcription.{UPGRADE}"]
        intents = [
            event for event in events if isinstance(event, Intended) and event.key == former.key and event.version
        ]
        if not intents:
            return []
        intent = max(intents, key=_rank)
        if intent.version != version(self.recording):
            return None
        return [f"transcription.{name}" for name in self._keys.changed_options(intent)]

    @property
    def former_answer(self) -> Answered | None:
        """The last answer to another question, where the model has to be asked again about the same transcript."""
        if not self._has_speech or self.answer is not None:
            return None
        events = self._view.of([self.recording])
        return max(
            (event for event in events if isinstance(event, Answered) and event.recording), key=_rank, default=None
        )

    def has_failed(self, classes: Collection[str] | None = None) -> bool:
        """Whether its row says that it failed: with one of ``classes``, or with any where these are None."""
        if not self._view.of([self.recording]):
            return False  # no run has had it
        failure = self.outcome("").failure
        return failure is not None and (classes is None or failure.failure_class in classes)

    def needs_transcript(self, day_pass: DayPass) -> bool:
        """Whether it has to be submitted."""
        return not day_pass.has_settled(self._due)

    def needs_answer(self, day_pass: DayPass) -> bool:
        """Whether its transcript has to be divided into phases."""
        return self._has_speech and not day_pass.has_settled(self.answer)

    def is_settled(self, day_pass: DayPass) -> bool:
        """Whether nothing is to be done for it."""
        description_key = self._keys.description(self.recording)
        return (
            (description_key is None or day_pass.has_settled(self._view.find(description_key)))
            and not isinstance(self._due, Submitted)
            and not self.needs_transcript(day_pass)
            and not self.needs_answer(day_pass)
        )

    def outcome(self, run_id: str) -> Outcome:
        """What the tables say of it when the run ``run_id`` writes its row now."""
        last = self.answer if self.answer is not None else self.speech
        stopped = self.stopped
        if last is not None and self._is_end(last):
            failure = last if isinstance(last, Failed) else None
            status: Status = "failed" if failure else "completed" if self.answered else "no_speech"
            return Outcome(status, failure, last.at, last.run_id, is_finished=True)
        # A later run may have begun it since the stop.
        if stopped is not None and (last is None or last.rank[1:] <= stopped.rank[1:]):
            is_finished = stopped.failure_class == OverBudget.failure_class
            return Outcome("failed", stopped, stopped.at, stopped.run_id, is_finished)
        reason = Unfinished("Not done.")
        failure = failed(self.key, reason, self.recording.key)
        return Outcome("failed", failure, dt.datetime.now(dt.UTC), run_id, is_finished=False)

    def usages(self) -> list[ModelUsage]:
        """What each of the questions took whose answer counts, failed ones included; empty before the first."""
        if self.answer is None:
            return []
        return [
            event.usage
            for event in self._view.of([self.recording])
            if isinstance(event, Answered | Failed) and event.key == self.answer_key and event.usage is not None
        ]

    @property
    def _has_speech(self) -> bool:
        return self.transcribed is not None and self.transcribed.status == "completed"

    def _is_end(self, last: Event) -> bool:
        if isinstance(last, Intended | Withdrawn | Submitted) or (isinstance(last, Failed) and last.again):
            return False
        return last is self.answer or not self._has_speech


def _keys_in_use(recording: Recording, keys: RecordingKeys, view: LedgerView) -> tuple[str, str]:
    """``Progress.key`` and ``Progress.due_key``."""
    today = keys.transcript(recording)
    event = view.find(today)
    if isinstance(event, Transcribed) or (_is_uncollected(event) and not keys.upgrades):
        return today, today
    if not (events := view.of([recording])) or not (others := keys.of_other_models(recording, events)):
        return today, today
    found = sorted((one for key in others if (one := view.find(key)) is not None), key=_rank)
    if transcribed := [one.key for one in found if isinstance(one, Transcribed)]:
        return transcribed[-1], today if keys.upgrades else transcribed[-1]
    failed_before = [one for one in found if isinstance(one, Failed)]
    if not keys.upgrades:
        # What was sent with other models is looked for, and collected, before it is sent with those of today.
        under_way = [one.key for one in found if _is_uncollected(one)]
        if not under_way and not isinstance(event, Intended):
            under_way = [one.key for one in found if isinstance(one, Intended)]
        # And a recording that can't be decoded can't be by another model either.
        if not under_way and event is None:
            under_way = [one.key for one in failed_before if one.permanent]
        if under_way:
            return under_way[-1], under_way[-1]
    if event is None:  # until it is sent again, its row says why it was not done
        return failed_before[-1].key if failed_before else min(others), today
    return today, today


def _is_uncollected(event: Event | None) -> bool:
    """Whether a job is at the provider, as far as the ledger knows, whose transcript is not fetched."""
    return isinstance(event, Submitted) or (isinstance(event, Failed) and event.paid)


def _rank(event: Event) -> tuple[bool, int, dt.datetime]:
    return event.rank


def unsettled(
    recordings: Iterable[Recording], keys: RecordingKeys, view: LedgerView, day_pass: DayPass
) -> Iterator[Progress]:
    """The recordings that there is something to do for."""
    for recording in recordings:
        progress = Progress(recording, keys, view)
        if not progress.is_settled(day_pass):
            yield progress


def deletable_transcripts(view: LedgerView) -> dict[str, str]:
    """Transcripts to delete at the provider: id → the recording's key in its bucket.

    Not those that a later run still has to fetch, nor those that are deleted.
    """
    events = [event for event in view.all() if isinstance(event, Submitted | Transcribed | Failed)]
    wanted = {event.transcript_id for event in events if _is_uncollected(view.find(event.key))}
    return {
        event.transcript_id: event.recording
        for event in events
        if event.transcript_id is not None
        and event.transcript_id not in wanted
        and not isinstance(view.find(deletion_key(event.transcript_id)), Deleted)
    }
