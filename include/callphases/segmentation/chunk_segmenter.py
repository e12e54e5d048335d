"""Transcript → phases: asks the model for each call that the ledger has no answer for, many calls a question."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

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
from callphases.limits import costs
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.segmentation.gateway import Answer
from callphases.segmentation.segmenter import Segmenter, Sender, packed, prompt_version, question, split
from callphases.segmentation.talk import talk_statistics
from callphases.segmentation.timeline import Label, call_end_s, timeline
from callphases.segmentation.tokens import estimated_question_usd, expected_tokens, shares
from callphases.segmentation.windows import divisible, label_call
from callphases.state.ledger import Event, Ledger, LedgerView, answer_key, failed, transcript_key
from callphases.state.manifests import Manifest
from callphases.state.transcripts import Transcripts
from callphases.tables.columns import is_described

log = logging.getLogger(__name__)

QUESTIONS_AT_ONCE = 32
"""The answer to a full question takes a model a minute or more: 30 requests a minute are then some 30 under way. A
thread that waits for one costs next to nothing."""
TURNS = 12
"""How often a call is given to the models at most, each time with one chance to mend the answer."""
ALIKE = 5
"""So many turns that end alike mean that all will."""
WRITE_EVERY_S = 8.0
"""How long an answer may wait for others to share a PUT with: a kill loses it, and it is asked for again."""
KEEP_DAY_EVERY_S = 5.0
_WORTH_ANOTHER_TURN = (AnswerInvalid, AnswerCut, ModelRefused, RequestRefused)


class _Ended(Exception):
    """What a question is kept from being sent with, where the chunk has met what concerns all."""


def _nothing() -> Event:
    return {"llm_model": None, "llm_input_tokens": 0, "llm_output_tokens": 0, "llm_usd": 0.0}


@dataclass(frozen=True)
class _Call:
    """A call to ask about; ``key`` is that of its answer, ``cost`` what its questions have taken until now."""

    recording: Recording
    key: str
    audio_s: float
    cues: Sequence[Cue]
    tokens_in: int
    tokens_out: int
    cost: Event = field(default_factory=_nothing)


@dataclass(frozen=True)
class _Step:
    """What a thread has come to: events, and what to ask about next."""

    events: list[Event]
    packs: list[list[_Call]]


@dataclass
class ChunkSegmenter:
    """Divides the calls of a chunk into phases; its answers are in the ledger."""

    segmenter: Segmenter
    pipeline: Pipeline
    transcripts: Transcripts
    ledger: Ledger
    chunk: Manifest
    _spent_usd: float = 0.0
    _budget_lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask for each transcribed recording whose answer is not known.

        A call without a valid answer becomes a failure in the ledger and stops nothing.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: none of the others would fare better. What was
                answered until then is in the ledger.
            DayHeld, RunStopped: as ``Lease.hold``.
        """
        problem: BaseException | None = None
        self.ledger.replace_earlier_process()
        self._spent_usd = sum(costs.spent_usd(self.ledger.own, self.ledger.run_id, self.chunk.listed_at))
        packs, steps = deque[list[_Call]](), self._read()
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE + 1) as pool:
            reading = pool.submit(_next, steps)
            running = {reading}
            while running:
                done, running = wait(running, KEEP_DAY_EVERY_S, FIRST_COMPLETED)
                errors = [error for future in done if (error := future.exception()) is not None]
                good = [step for future in done if future.exception() is None and (step := future.result()) is not None]
                self.ledger.note([event for step in good for event in step.events], WRITE_EVERY_S)
                packs.extend(pack for step in good for pack in step.packs)
                try:
                    self.ledger.lease.hold()
                except CallphasesError as error:
                    errors.append(error)
                if errors:
                    problem = problem or errors[0]
                    self._ended.set()
                if problem is not None:
                    continue  # what was sent is waited for, as it is paid for
                while packs and len(running) < QUESTIONS_AT_ONCE + (reading in running):
                    running.add(pool.submit(self._divide, packs.popleft()))
                # One pack is read ahead, and what is left of others goes first.
                if not packs and reading not in running and reading.result() is not None:
                    reading = pool.submit(_next, steps)
                    running.add(reading)
        self.ledger.write()
        if problem is not None:
            raise problem

    def _read(self) -> Iterator[_Step]:
        """The chunk's calls that need an answer, in packs, each read when it is asked for."""
        unreadable: list[Event] = []
        for pack in packed(self._calls(unreadable), self.pipeline.segmentation.calls_per_question):
            yield _Step(unreadable.copy(), [pack])
            unreadable.clear()
        yield _Step(unreadable, [])

    def _calls(self, unreadable: list[Event]) -> Iterator[_Call]:
        for recording, key, transcribed in self._todo():
            self._unless_ended()
            try:
                cues = self.transcripts.cues(transcribed)
            except CallFailure as failure:
                unreadable.append(self._failed(recording, key, failure, _nothing()))
                continue
            audio_s = float(transcribed["audio_s"])
            tokens = expected_tokens(self.pipeline, audio_s, cues)
            yield _Call(recording, key, audio_s, cues, *tokens)

    def _todo(self) -> Iterator[tuple[Recording, str, Event]]:
        asked = question(self.pipeline)
        for recording in self.chunk.recordings:
            transcript = transcript_key(recording, self.pipeline.transcription)
            transcribed = self.ledger.find(transcript)
            if transcribed is None or transcribed["event"] != "transcribed" or transcribed["status"] == "no_speech":
                continue
            key = answer_key(transcript, asked)
            if not self.ledger.settled(key, self.chunk.listed_at, replay=self.chunk.replay):
                yield recording, key, transcribed

    def _divide(self, pack: list[_Call]) -> _Step:
        """Ask about some calls; of several, those without a valid answer are left for smaller questions.

        That is not held against them: a call fails when it is asked about alone.
        """
        if len(pack) == 1:
            return _Step([self._divide_one(pack[0])], [])
        together = self.segmenter.segment_pack(
            [call.cues for call in pack], self.segmenter.first_model(), self._payer(pack)
        )
        tokens_in = shares(together.input_tokens, [call.tokens_in for call in pack])
        tokens_out = shares(together.output_tokens, [call.tokens_out for call in pack])
        events: list[Event] = []
        left: list[_Call] = []
        problem: CallFailure | None = None
        for call, found, *tokens in zip(pack, together.results, tokens_in, tokens_out, strict=True):
            self._add(call.cost, together.model, *tokens)
            if isinstance(found, CallFailure):
                left.append(call)
                problem = problem or found
            else:
                events.append(self._answered(call, found))
        if events:
            log.info(
                "%d calls divided into %d phases by %s, %d to be asked about again%s",
                len(events),
                sum(len(event["phases"]) for event in events),
                together.model,
                len(left),
                f": {problem.args[0]}" if problem is not None else ".",
            )
        elif problem is not None and not isinstance(problem, OverBudget):
            log.warning("%d calls are asked about again in smaller questions: %s", len(left), problem.args[0])
        return _Step(events, split(left, len(pack)))

    def _divide_one(self, call: _Call) -> Event:
        try:
            labels = label_call(call.cues, lambda cues: self._labels(_window(call, cues)))
        except CallFailure as failure:
            return self._failed(call.recording, call.key, failure, call.cost)
        event = self._answered(call, labels)
        log.info("%s: %d phases", call.recording.key, len(event["phases"]))
        return event

    def _labels(self, call: _Call) -> list[Label]:
        """Ask about a call, or a window of one, in as many turns as it takes."""
        pay, first = self._payer([call]), self.segmenter.first_model()
        # What may be too long for every model is soon asked about in smaller windows.
        alike_at_most = min(ALIKE, len(self.pipeline.segmentation.models)) if divisible(call.cues) else ALIKE
        alike, before = 0, ""
        turn = first
        while True:
            try:
                answer = self.segmenter.segment(call.cues, turn, pay)
                self._add(call.cost, answer.model, answer.input_tokens, answer.output_tokens)
                return answer.labels
            except CallFailure as failure:
                self._add(call.cost, failure.model, failure.input_tokens, failure.output_tokens)
                alike, before, turn = (alike + 1 if str(failure) == before else 1), str(failure), turn + 1
                if not isinstance(failure, _WORTH_ANOTHER_TURN) or alike == alike_at_most or turn == first + TURNS:
                    raise

    def _answered(self, call: _Call, labels: Sequence[Label]) -> Event:
        end_s = call_end_s(call.audio_s, call.cues)
        phases = timeline(call.cues, labels, end_s)
        talk = talk_statistics(call.cues, phases, end_s)
        return {
            "event": "answered",
            "key": call.key,
            "recording": call.recording.key,
            "duration_s": end_s,
            "phases": [{**asdict(phase), "talk": of} for phase, of in zip(phases, talk.phases, strict=True)],
            "talk": talk.call,
            "prompt_version": self._prompt_version,
            **call.cost,
        }

    def _failed(self, recording: Recording, key: str, failure: CallFailure, cost: Event) -> Event:
        log.warning("%s: %s", recording.key, failure)
        return failed(key, failure, recording=recording.key) | cost

    @cached_property
    def _prompt_version(self) -> str:
        return prompt_version(self.pipeline)

    def _add(self, cost: Event, model: str | None, tokens_in: int, tokens_out: int) -> None:
        """Add what a question took to what a call costs."""
        if model is None:
            return
        usd = costs.llm_usd(self.pipeline, model, tokens_in, tokens_out)
        cost["llm_model"] = model
        cost["llm_input_tokens"] += tokens_in
        cost["llm_output_tokens"] += tokens_out
        cost["llm_usd"] = None if usd is None or cost["llm_usd"] is None else cost["llm_usd"] + usd

    def _payer(self, pack: Sequence[_Call]) -> Sender:
        """What sends a request about some calls where the chunk's budget holds it, and raises OverBudget else."""
        budget_usd = self.chunk.budget_usd
        if budget_usd is None:
            return lambda ask: ask(may_send=self._may_send)
        cues = [cue for call in pack for cue in call.cues]
        estimate = estimated_question_usd(self.pipeline, sum(call.audio_s for call in pack), cues, len(pack))

        def pay(ask: Callable[..., Answer]) -> Answer:
            with self._budget_lock:
                if self._spent_usd + estimate > budget_usd:
                    raise OverBudget(f"A question of some ${estimate:.4f} does not fit into what is left.")
                self._spent_usd += estimate
            used_usd = 0.0
            try:
                answer = ask(may_send=self._may_send)
                used_usd = costs.llm_usd(self.pipeline, answer.model, answer.input_tokens, answer.output_tokens) or 0.0
                return answer
            finally:
                with self._budget_lock:
                    self._spent_usd += used_usd - estimate

        return pay

    def _may_send(self) -> None:
        """Called right before each attempt of a question is sent."""
        self._unless_ended()
        self.ledger.hold()

    def _unless_ended(self) -> None:
        if self._ended.is_set():
            raise _Ended


def _window(call: _Call, cues: Sequence[Cue]) -> _Call:
    return replace(call, cues=cues, audio_s=call.audio_s * len(cues) / len(call.cues))


def _next(steps: Iterator[_Step]) -> _Step | None:
    return next(steps, None)


def unsettled(
    recordings: Sequence[Recording], pipeline: Pipeline, known: LedgerView, since: dt.datetime, *, replay: bool = False
) -> list[Recording]:
    """The recordings that there is something to do for, in a pass over the day that began at ``since``."""
    asked = question(pipeline)
    return [one for one in recordings if not _settled(one, pipeline, asked, known, since, replay)]


def _settled(
    recording: Recording, pipeline: Pipeline, asked: object, known: LedgerView, since: dt.datetime, replay: bool
) -> bool:
    if not is_described(recording, pipeline, known):
        return False
    key = transcript_key(recording, pipeline.transcription)
    event = known.find(key)
    if event is None or event["event"] == "submitted" or not known.settled(key, since, replay=replay):
        return False
    if event["event"] == "transcribed" and event["status"] == "completed":
        return known.settled(answer_key(key, asked), since, replay=replay)
    return True
