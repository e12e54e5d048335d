"""A chunk's transcripts → phases: asks the model for each call that has no answer yet, many calls a question."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial

from callphases.cues import Cue
from callphases.errors import (
    AnswerCut,
    AnswerInvalid,
    BackfillWaits,
    CallFailure,
    ModelRefused,
    OverBudget,
    RequestRefused,
)
from callphases.limits import costs
from callphases.limits.backfill import Backfill
from callphases.limits.chunk_budget import ChunkBudget
from callphases.pipeline import Pipeline
from callphases.progress import DayPass, Progress
from callphases.recordings import Recording, counted
from callphases.segmentation.gateway import Answer
from callphases.segmentation.segmenter import Segmenter, Sender, packed, prompt_version, split
from callphases.segmentation.talk import talk_statistics
from callphases.segmentation.timeline import Label, call_end_s, timeline
from callphases.segmentation.tokens import estimated_question_usd, expected_tokens, shares
from callphases.segmentation.windows import divisible, label_call
from callphases.state.events import Answered, Event, Failed, ModelUsage, failed
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import Ledger
from callphases.state.manifests import Manifest
from callphases.state.transcripts import TranscriptReader
from callphases.state.workers import Done, Ended, Task, work_off

log = logging.getLogger(__name__)

QUESTIONS_AT_ONCE = 32
"""The answer to a full question takes a model a minute or more: 30 requests a minute are then some 30 under way. A
thread that waits for one costs next to nothing."""
TURNS = 12
"""How often a call is given to the models at most, each time with one chance to correct the answer."""
ALIKE = 5
"""After this many turns with the same failure, further turns are expected to fail the same way."""
WRITE_EVERY_S = 8.0
"""How long an answer may wait for others to share a PUT with: a kill loses it, and the call is asked about again."""
_WORTH_ANOTHER_TURN = (AnswerInvalid, AnswerCut, ModelRefused, RequestRefused)


class _Usage:
    """Adds up what the questions about a call take; its windows, which are asked about in turn, share it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.total = ModelUsage()

    def add(self, model: str | None, input_tokens: int, output_tokens: int) -> None:
        """Add a question; nothing was paid where ``model`` is None."""
        usd = costs.llm_usd(self._pipeline, model, input_tokens, output_tokens)
        self.total = self.total.plus(model, input_tokens, output_tokens, usd)


@dataclass(frozen=True)
class _Call:
    """A call to ask about; ``key`` is its answer's."""

    recording: Recording
    key: str
    audio_s: float
    cues: Sequence[Cue]
    tokens_in: int
    tokens_out: int
    usage: _Usage


class ChunkSegmenter:
    """Divides the calls of a chunk into phases; its answers are in the ledger.

    Args:
        segmenter: asks the models.
        pipeline: the pipeline.
        transcripts: reads the cues.
        ledger: of the task, open.
        chunk: its recordings.
        backfill: what ``limits.backfill`` allows, if the run is one of a backfill.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        pipeline: Pipeline,
        transcripts: TranscriptReader,
        ledger: Ledger,
        chunk: Manifest,
        backfill: Backfill | None = None,
    ) -> None:
        self._segmenter, self._pipeline, self._transcripts = segmenter, pipeline, transcripts
        self._ledger, self._chunk, self._backfill = ledger, chunk, backfill
        self._spent_usd = 0.0
        self._budget_lock = threading.Lock()
        self._stop = threading.Event()
        self._waits: BackfillWaits | None = None

    def run(self) -> None:
        """Ask for each transcribed recording that has no answer.

        A call without a valid answer becomes a failure in the ledger and stops nothing.

        Raises:
            AccountError, ServiceUnavailable, ConfigurationError: every other call would fail the same way. What was
                answered until then is in the ledger.
            DayHeld, RunStopped: as ``Lease.hold``.
            BackfillWaits: ``limits.backfill`` does not let others be asked now.
        """
        self._ledger.replace_earlier_process()
        if self._chunk.budget_usd is not None:
            self._spent_usd = ChunkBudget(self._pipeline, self._chunk, self._ledger).spent_usd()
        worked = work_off(
            self._ledger, self._tasks(), threads=QUESTIONS_AT_ONCE, write_every_s=WRITE_EVERY_S, stop=self._stop
        )
        self._ledger.write()
        if self._backfill is not None:
            self._backfill.settle()
        if (problem := worked.problem or self._waits) is not None:
            raise problem

    def _tasks(self) -> Iterator[Task]:
        """A question for each pack of the calls that need an answer; transcripts are read as packs are asked for."""
        unreadable: list[Failed] = []

        def readable() -> Iterator[_Call]:
            for progress in self._todo():
                if self._waits is not None:
                    return
                read = self._read(progress)
                if isinstance(read, Failed):
                    unreadable.append(read)
                else:
                    yield read

        for pack in packed(readable(), self._pipeline.segmentation.calls_per_question):
            yield partial(self._ask, pack)
        if unreadable:
            yield lambda: Done(unreadable)

    def _read(self, progress: Progress) -> _Call | Failed:
        """A call to ask about, or the failure to read its transcript."""
        self._unless_ended()
        assert progress.transcribed is not None
        usage = _Usage(self._pipeline)
        try:
            cues = self._transcripts.cues(progress.transcribed)
        except CallFailure as failure:
            return self._failed(progress.recording, progress.answer_key, failure, usage)
        audio_s = float(progress.transcribed.audio_s)
        tokens = expected_tokens(self._pipeline, audio_s, cues)
        return _Call(progress.recording, progress.answer_key, audio_s, cues, *tokens, usage)

    def _todo(self) -> Iterator[Progress]:
        keys, day_pass = RecordingKeys(self._pipeline), DayPass.of(self._chunk)
        for recording in self._chunk.recordings:
            progress = Progress(recording, keys, self._ledger)
            if progress.needs_answer(day_pass):
                yield progress

    def _ask(self, pack: list[_Call]) -> Done:
        """Ask about some calls; of several, those without a valid answer go into smaller questions.

        A call fails only when it is asked about alone. Where a backfill has to wait, the questions that it has paid
        for are asked, and no others.
        """
        try:
            return self._ask_now(pack)
        except BackfillWaits as waits:
            self._waits = waits
            return Done()

    def _ask_now(self, pack: list[_Call]) -> Done:
        if len(pack) == 1:
            return Done([self._ask_one(pack[0])])
        together = self._segmenter.segment_pack(
            [call.cues for call in pack], self._segmenter.first_model(), self._payer(pack)
        )
        tokens_in = shares(together.input_tokens, [call.tokens_in for call in pack])
        tokens_out = shares(together.output_tokens, [call.tokens_out for call in pack])
        events: list[Answered] = []
        left: list[_Call] = []
        problem: CallFailure | None = None
        for call, found, *tokens in zip(pack, together.results, tokens_in, tokens_out, strict=True):
            call.usage.add(together.model, *tokens)
            if isinstance(found, CallFailure):
                left.append(call)
                problem = problem or found
            else:
                events.append(self._answered(call, found))
        if events:
            log.info(
                "%s divided into %s by %s, %d to be asked about again%s",
                counted(len(events), "call"),
                counted(sum(len(event.phases) for event in events), "phase"),
                together.model,
                len(left),
                f": {problem.args[0]}" if problem is not None else ".",
            )
        elif problem is not None and not isinstance(problem, OverBudget):
            first, others = left[0].recording.key, len(left) - 1
            and_others = f" and {counted(others, 'other')}" if others else ""
            log.warning("%s%s: asked about again in smaller questions: %s", first, and_others, problem.args[0])
        return Done(events, [partial(self._ask, smaller) for smaller in split(left, len(pack))])

    def _ask_one(self, call: _Call) -> Event:
        try:
            labels = label_call(call.cues, lambda cues: self._labels(_window(call, cues)))
        except CallFailure as failure:
            return self._failed(call.recording, call.key, failure, call.usage)
        event = self._answered(call, labels)
        log.info("%s: %s.", call.recording.key, counted(len(event.phases), "phase"))
        return event

    def _labels(self, call: _Call) -> list[Label]:
        """Ask about a call, or a window of one, in as many turns as it takes."""
        pay, first = self._payer([call]), self._segmenter.first_model()
        served = len(self._pipeline.segmentation.models)
        # A call that may be too long for every model is soon asked about in smaller windows.
        alike_at_most = min(ALIKE, served) if divisible(call.cues) else ALIKE
        alike, before = 0, ""
        turn = first
        while True:
            try:
                answer = self._segmenter.segment(call.cues, turn, pay)
                call.usage.add(answer.model, answer.input_tokens, answer.output_tokens)
                return answer.labels
            except CallFailure as failure:
                call.usage.add(failure.model, failure.input_tokens, failure.output_tokens)
                alike, before, turn = (alike + 1 if str(failure) == before else 1), str(failure), turn + 1
                if isinstance(failure, RequestRefused) and failure.too_long and turn - first >= served:
                    alike_at_most = alike if divisible(call.cues, failure) else alike_at_most
                if not isinstance(failure, _WORTH_ANOTHER_TURN) or alike == alike_at_most or turn == first + TURNS:
                    raise

    def _answered(self, call: _Call, labels: Sequence[Label]) -> Answered:
        end_s = call_end_s(call.audio_s, call.cues)
        phases = timeline(call.cues, labels, end_s)
        talk = talk_statistics(call.cues, phases, end_s)
        return Answered(
            key=call.key,
            recording=call.recording.key,
            duration_s=end_s,
            phases=[{**asdict(phase), "talk": of} for phase, of in zip(phases, talk.phases, strict=True)],
            talk=talk.call,
            prompt_version=self._prompt_version,
            usage=call.usage.total,
        )

    def _failed(self, recording: Recording, key: str, failure: CallFailure, usage: _Usage) -> Failed:
        log.warning("%s: %s", recording.key, failure)
        return failed(key, failure, recording.key, usage=usage.total)

    @cached_property
    def _prompt_version(self) -> str:
        return prompt_version(self._pipeline)

    def _payer(self, pack: Sequence[_Call]) -> Sender:
        """Sends a request about some calls if the limits of spending allow it, and raises OverBudget otherwise."""
        budget_usd, backfill = self._chunk.budget_usd, self._backfill
        if budget_usd is None and backfill is None:
            return lambda ask: ask(may_send=self._may_send)
        cues = [cue for call in pack for cue in call.cues]
        estimate = estimated_question_usd(self._pipeline, sum(call.audio_s for call in pack), cues, len(pack))

        def pay(ask: Callable[..., Answer]) -> Answer:
            if backfill is not None:
                backfill.pay(estimate, self._left_usd)
            used_usd = reserved_usd = 0.0
            try:
                with self._budget_lock:
                    if budget_usd is not None and self._spent_usd + estimate > budget_usd:
                        raise OverBudget(f"A question of some ${estimate:.4f} does not fit into what is left.")
                    reserved_usd = estimate
                    self._spent_usd += reserved_usd
                answer = ask(may_send=self._may_send)
                tokens = answer.input_tokens, answer.output_tokens
                known_usd = costs.llm_usd(self._pipeline, answer.model, *tokens)
                used_usd = costs.highest_llm_usd(self._pipeline, *tokens) if known_usd is None else known_usd
                return answer
            finally:
                with self._budget_lock:
                    self._spent_usd += used_usd - reserved_usd
                if backfill is not None:
                    backfill.paid(estimate, used_usd)

        return pay

    def _left_usd(self) -> float:
        """What the questions that are left are expected to cost in all."""
        return sum(
            costs.estimated_llm_usd(self._pipeline, float(progress.transcribed.audio_s))
            for progress in self._todo()
            if progress.transcribed is not None
        )

    def _may_send(self) -> None:
        """Called right before each attempt of a question is sent."""
        self._unless_ended()
        if self._backfill is not None:
            self._backfill.hold()
        self._ledger.hold()

    def _unless_ended(self) -> None:
        if self._stop.is_set():
            raise Ended


def _window(call: _Call, cues: Sequence[Cue]) -> _Call:
    return replace(call, cues=cues, audio_s=call.audio_s * len(cues) / len(call.cues))
