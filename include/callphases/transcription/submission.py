"""A batch of submissions: paced one after the other, sent on threads, and each confirmed right before it is sent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from callphases.errors import AnswerLost, CallFailure
from callphases.recordings import Recording
from callphases.state.events import Submitted
from callphases.state.ledger import Ledger
from callphases.state.workers import Done, Ended, Task
from callphases.transcription.delivery import Delivery, failure_event
from callphases.transcription.pacing import Pacing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submission:
    """A recording that is about to be submitted.

    Attributes:
        key: the transcript's.
        number: the recording's place in the run, from 0, for the ramp.
        tries: submissions of this pass over the day, with this one.
    """

    key: str
    recording: Recording
    url: str
    number: int
    tries: int


class Batch:
    """Sends submissions whose intents are in the ledger.

    Args:
        delivery: sends them.
        ledger: of the task.
        pacing: says when each is due.
        was_answered: is set once the service has answered any submission of the task. Until then nothing follows the
            first: it shows whether the others have a chance.

    Attributes:
        sent: keys of the submissions that were sent, whatever became of them.
        late: keys of those that the service may yet take: their answers took too long.
        problems: of those whose answers have no id: what is wrong with them, by key.
        stop: is set where every other submission would fail the same way.
    """

    def __init__(self, delivery: Delivery, ledger: Ledger, pacing: Pacing, was_answered: threading.Event) -> None:
        self._delivery, self._ledger, self._pacing, self._was_answered = delivery, ledger, pacing, was_answered
        self.sent = set[str]()
        self.late = set[str]()
        self.problems = dict[str, str]()
        self.stop = threading.Event()

    def tasks(self, submissions: Mapping[str, Submission]) -> Iterator[Task]:
        """A task for each submission, when it is due."""
        for one in submissions.values():
            self._ledger.lease.sleep(self._pacing.due_in_s(one.number))
            if self.stop.is_set():
                return
            self._pacing.sends()
            yield partial(self._send, one)
            self._was_answered.wait()

    def _send(self, one: Submission) -> Done:
        try:
            job = self._delivery.submit(one.url, lambda: self._confirm(one.key))
        except AnswerLost as lost:
            log.warning("%s: %s It is looked for before it is sent again.", one.recording.key, lost)
            if lost.may_still_arrive:
                self.late.add(one.key)
            if lost.problem is not None:
                self.problems[one.key] = lost.problem
            return Done()
        except CallFailure as failure:
            return Done([failure_event(one.key, one.recording, failure)])
        except BaseException:
            self.stop.set()
            raise
        finally:
            self._was_answered.set()
        model = self._delivery.models.left[0]
        return Done(
            [Submitted(key=one.key, recording=one.recording.key, transcript_id=job.id, tries=one.tries, model=model)]
        )

    def _confirm(self, key: str) -> None:
        if self.stop.is_set():
            raise Ended
        self._ledger.hold()
        self.sent.add(key)
