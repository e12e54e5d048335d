"""Transcript → phases: asks the model for each call that the ledger has no answer for."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field

from callphases import costs
from callphases.cues import Cue
from callphases.errors import (
    AnswerCut,
    AnswerInvalid,
    CallFailure,
    CallphasesError,
    ModelRefused,
    OverBudget,
    RequestRefused,
)
from callphases.gateway import Answer
from callphases.ledger import Event, Known, Ledger, answer_key, failed, transcript_key
from callphases.pipeline import Pipeline
from callphases.recordings import Manifest, Recording
from callphases.segmentation import Segmenter, prompt_version, question
from callphases.timeline import call_end_s, timeline
from callphases.transcripts import Transcripts

log = logging.getLogger(__name__)

QUESTIONS_AT_ONCE = 8
TURNS = 12
"""How often a call is given to the models at most, each time with one chance to mend the answer."""
ALIKE = 5
"""So many turns that end alike mean that all will."""
WRITE_EVERY_S = 8.0
"""How long an answer may wait for others to share a PUT with: a kill loses it, and it is asked for again."""
KEEP_DAY_EVERY_S = 5.0
_WORTH_ANOTHER_TURN = (AnswerInvalid, AnswerCut, ModelRefused, RequestRefused)


@dataclass
class Divider:
    """Divides the calls of a chunk into phases; its answers are in the ledger."""

    segmenter: Segmenter
    pipeline: Pipeline
    transcripts: Transcripts
    ledger: Ledger
    chunk: Manifest
    _spent_usd: float = 0.0
    _purse: threading.Lock = field(default_factory=threading.Lock)

    def divide(self) -> None:
        """Ask for each transcribed recording whose answer is not known.

        A call without a valid answer becomes a failure in the ledger and stops nothing.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: none of the others would fare better. What was
                answered until then is in the ledger.
            DayHeld, RunStopped: as ``Lease.hold``.
        """
        problem: BaseException | None = None
        self._spent_usd = sum(costs.spent_usd(self.ledger.own, self.ledger.run_id, self.chunk.listed_at))
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
            running: set[Future[Event]] = {pool.submit(self._divide_one, *one) for one in self._todo()}
            while running:
                done, running = wait(running, KEEP_DAY_EVERY_S, FIRST_COMPLETED)
                answered = [future for future in done if not future.cancelled()]
                errors = [error for future in answered if (error := future.exception()) is not None]
                good = (future.result() for future in answered if future.exception() is None)
                self.ledger.note(good, WRITE_EVERY_S)
                try:
                    self.ledger.lease.hold()
                except CallphasesError as error:
                    errors.append(error)
                if errors:
                    problem = problem or errors[0]
                    for future in running:
                        future.cancel()
        self.ledger.write()
        if problem is not None:
            raise problem

    def _todo(self) -> list[tuple[Recording, str, Event]]:
        todo: list[tuple[Recording, str, Event]] = []
        for recording in self.chunk.recordings:
            transcript = transcript_key(recording, self.pipeline.transcription)
            transcribed = self.ledger.find(transcript)
            if transcribed is None or transcribed["event"] != "transcribed" or transcribed["status"] == "no_speech":
                continue
            key = answer_key(transcript, question(self.pipeline))
            if not self.ledger.settled(key, self.chunk.listed_at, replay=self.chunk.replay):
                todo.append((recording, key, transcribed))
        return todo

    def _divide_one(self, recording: Recording, key: str, transcribed: Event) -> Event:
        cost: Event = {"llm_model": None, "llm_input_tokens": 0, "llm_output_tokens": 0, "llm_usd": 0.0}
        alike, before = 0, ""
        for turn in range(TURNS):
            answer, failure = None, None
            try:
                cues = self.transcripts.cues(transcribed)
                answer = self.segmenter.segment(cues, turn, self._payer(transcribed["audio_s"], cues))
            except CallFailure as error:
                failure = error
            took = answer or failure
            assert took is not None
            self._add(cost, took.model, took.input_tokens, took.output_tokens)
            if answer is not None or not isinstance(failure, _WORTH_ANOTHER_TURN):
                break
            alike = alike + 1 if str(failure) == before else 1
            before = str(failure)
            if alike == ALIKE:
                break
        if failure is not None:
            log.warning("%s: %s", recording.key, failure)
            return failed(key, failure, recording=recording.key) | cost
        assert answer is not None
        end_s = call_end_s(transcribed["audio_s"], cues)
        phases = timeline(cues, answer.labels, end_s)
        log.info("%s: %d phases", recording.key, len(phases))
        return {
            "event": "answered",
            "key": key,
            "recording": recording.key,
            "duration_s": end_s,
            "phases": [asdict(phase) for phase in phases],
            "prompt_version": prompt_version(self.pipeline),
            **cost,
        }

    def _add(self, cost: Event, model: str | None, tokens_in: int, tokens_out: int) -> None:
        """Add a turn to what a call costs."""
        if model is None:
            return
        usd = costs.llm_usd(self.pipeline, model, tokens_in, tokens_out)
        cost["llm_model"] = model
        cost["llm_input_tokens"] += tokens_in
        cost["llm_output_tokens"] += tokens_out
        cost["llm_usd"] = None if usd is None or cost["llm_usd"] is None else cost["llm_usd"] + usd

    def _payer(self, audio_s: float, cues: Sequence[Cue]) -> Callable[[Callable[[], Answer]], Answer]:
        """What sends a request about a call where the chunk's budget holds it, and raises OverBudget else."""
        budget_usd = self.chunk.budget_usd
        if budget_usd is None:
            return lambda ask: ask()
        estimate = costs.estimated_question_usd(self.pipeline, audio_s, len(cues), sum(len(cue.text) for cue in cues))

        def pay(ask: Callable[[], Answer]) -> Answer:
            with self._purse:
                if self._spent_usd + estimate > budget_usd:
                    raise OverBudget(f"A question of some ${estimate:.4f} does not fit into what is left.")
                self._spent_usd += estimate
            used_usd = 0.0
            try:
                answer = ask()
                used_usd = costs.llm_usd(self.pipeline, answer.model, answer.input_tokens, answer.output_tokens) or 0.0
                return answer
            finally:
                with self._purse:
                    self._spent_usd += used_usd - estimate

        return pay


def unsettled(
    recordings: Sequence[Recording], pipeline: Pipeline, known: Known, since: dt.datetime, *, replay: bool = False
) -> list[Recording]:
    """The recordings that there is something to do for, in a pass over the day that began at ``since``."""
    return [recording for recording in recordings if not _settled(recording, pipeline, known, since, replay)]


def _settled(recording: Recording, pipeline: Pipeline, known: Known, since: dt.datetime, replay: bool) -> bool:
    key = transcript_key(recording, pipeline.transcription)
    event = known.find(key)
    if event is None or event["event"] == "submitted" or not known.settled(key, since, replay=replay):
        return False
    if event["event"] == "transcribed" and event["status"] == "completed":
        return known.settled(answer_key(key, question(pipeline)), since, replay=replay)
    return True
