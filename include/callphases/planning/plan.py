"""Plans an archive: what its recordings would cost, what is paid for already, and how long a run of it takes.

Nothing is paid for: no request is sent to the speech service or to a language model.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from callphases.day_range import DayRange
from callphases.errors import CallphasesError
from callphases.inspection.findings import Finding
from callphases.limits import costs
from callphases.limits.backfill import backfill_jobs, backfill_questions
from callphases.pipeline import Pipeline
from callphases.planning import questions
from callphases.planning.actual import actual_costs
from callphases.planning.lengths import HEADERS, PLACE, Measured, measure
from callphases.planning.pace import Pace, pace
from callphases.planning.questions import CallTokens
from callphases.planning.sampling import Estimate, totals
from callphases.planning.saved import MonthCost, SavedPlan, read_plan, write_plan
from callphases.planning.survey import MonthCount, Survey, Told, survey
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import published_days

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

MARGIN_OF_TOKENS, MARGIN_OF_LEARNED_TOKENS = 0.4, 0.1
"""By how much tokens may differ from what is assumed, or learned from earlier calls: how much is said in a minute."""
REQUESTS_A_CALL, REQUESTS_A_CHUNK, REQUESTS_A_DAY = 5, 75, 40
"""S3 requests of a run, with the service's download; see ``docs/performance.md``."""


@dataclass(frozen=True)
class MonthPlan:
    """A month, or all of them.

    Attributes:
        month: like ``2026-11``; ``total`` for all.
        count: by the listing and the ledger.
        audio_s, billed_s: what is to be transcribed, in seconds: as long as it is, and as it is billed.
        speech_usd, llm_usd: what is still to pay.
        tokens_in, tokens_out: of the language model, still to pay.
        calls: recordings to transcribe that are audio.
        questions: to the language model.
        not_audio, not_read: recordings that are expected to fail, and to cost nothing: they are no audio of a known
            format, or S3 refuses them.
        planned: what all of the month's recordings were expected to come to when it was first planned.
        actual: what the published days have come to.
    """

    month: str
    count: MonthCount
    audio_s: Estimate
    billed_s: Estimate
    speech_usd: Estimate
    llm_usd: Estimate
    tokens_in: float
    tokens_out: float
    calls: float
    questions: float
    not_audio: float
    not_read: float
    planned: MonthCost | None = None
    actual: MonthCost | None = None

    @property
    def usd(self) -> Estimate:
        """For both services; the intervals are added, as both follow from the same lengths."""
        return Estimate(*(one + other for one, other in zip(self.speech_usd, self.llm_usd, strict=True)))

    @property
    def paid_usd(self) -> float:
        """What has been paid for the recordings' results."""
        return self.count.paid_speech_usd + self.count.paid_llm_usd


@dataclass(frozen=True)
class Plan:
    """What ``plan`` has found.

    Attributes:
        pipeline: its name.
        days: the range, with ``--all`` from the first to the last day that has recordings.
        planned_at: when.
        is_exact: whether every recording was measured.
        measured: recordings that were.
        months: in order.
        total: of all months.
        paid_again: why calls would be paid for again, in sentences; empty if none would.
        findings: how the times of calls were read.
        keys_without_time: keys that ``recordings.call_time`` finds no time in; the upload's counts.
        without_day: recordings that no day's run would list.
        tokens: what was assumed or learned of the language model's tokens.
        pace: at the pipeline's limits.
        s3_requests: of a run of all of it.
        recordings: of each day that has any.
        options: options that add to the price, in US dollars per hour of audio.
        unpriced: options and models without a price.
        examples: keys of recordings that are no audio, or could not be read.
        first_planned_at: when ``MonthPlan.planned`` was planned; None if now.
        problem: why the plan was not kept; empty if it was.
    """

    pipeline: str
    days: DayRange
    planned_at: dt.datetime
    is_exact: bool
    measured: int
    months: list[MonthPlan]
    total: MonthPlan
    paid_again: str
    findings: list[Finding]
    keys_without_time: int
    without_day: int
    tokens: CallTokens
    pace: Pace
    s3_requests: int
    recordings: dict[dt.date, int]
    options: dict[str, float]
    unpriced: list[str]
    examples: dict[str, list[str]] = field(default_factory=dict)
    first_planned_at: dt.datetime | None = None
    problem: str = ""


def plan(
    pipeline: Pipeline,
    s3: S3Client,
    days: DayRange | None,
    *,
    most_headers: int | None = HEADERS,
    told: Told = lambda *_: None,
) -> Plan:
    """Plan an archive, and keep the plan in ``output.state``.

    Args:
        pipeline: whose recordings.
        s3: reaches its buckets.
        days: of the calls; None plans all that the bucket has.
        most_headers: how many recordings are measured; None measures all.
        told: is told how far it is.

    Raises:
        ConfigurationError, ServiceUnavailable: a bucket can't be listed or read.
    """
    bucket = RecordingBucket(s3, pipeline.recordings.bucket)
    state = ObjectPrefix(s3, pipeline.output.state, "output.state")
    tables = ObjectPrefix(s3, pipeline.output.tables, "output.tables")
    with survey(pipeline, bucket, state, days, told) as found:
        largest_month = max((one.to_transcribe + len(one.ask_s) for one in found.months.values()), default=0)
        tokens = questions.expected(pipeline, largest_month)
        if largest_month:
            tokens = questions.learned(tokens, tables, questions.days_to_read(published_days(tables)))
        measured = measure(
            bucket,
            found.todo,
            tokens,
            is_multichannel=bool(pipeline.speech_options.get("multichannel")),
            most=most_headers,
            told=told,
        )
        to_transcribe = len(found.todo)
    actual = actual_costs(state, tables, found.days)
    earlier = read_plan(state, found.days)
    months = _months(pipeline, found, measured, tokens)
    kept = _kept(pipeline, found, months, earlier, measured.read)
    named = [_with(one, kept.months.get(one.month), actual.get(one.month)) for one in months[:-1]]
    total = _with(months[-1], _sum(kept.months), _sum(actual))
    backfill = pipeline.limits.backfill
    models = len(pipeline.segmentation.models) if pipeline.segmentation.side_by_side else 1
    return Plan(
        pipeline=pipeline.pipeline,
        days=found.days,
        planned_at=dt.datetime.now(dt.UTC),
        is_exact=measured.read == to_transcribe,
        measured=measured.read,
        months=named,
        total=total,
        paid_again=str(found.paid_again),
        findings=list(found.times.findings()),
        keys_without_time=found.times.unmatched.count,
        without_day=found.times.dayless.count,
        tokens=tokens,
        pace=pace(
            jobs=total.calls,
            audio_s=total.billed_s.total,
            questions=total.questions,
            usd=total.usd.total,
            transcriptions_at_once=backfill_jobs(pipeline),
            ramp=pipeline.limits.ramp,
            questions_per_minute=backfill_questions(pipeline) * models,
            night_hours=_hours(backfill.open_hours),
            usd_per_day=backfill.usd_per_day,
        ),
        s3_requests=_s3_requests(total, tokens),
        recordings={day: one.recordings for day, one in found.by_day.items()},
        options=costs.priced_options(pipeline),
        unpriced=costs.unpriced_options(pipeline) + costs.unpriced_models(pipeline),
        examples=measured.examples,
        first_planned_at=kept.planned_at if earlier is not None and kept.months is earlier.months else None,
        problem=_keep(state, kept),
    )


def _hours(open_hours: tuple[dt.time, dt.time] | None) -> float:
    """How many hours of a day backfills run."""
    if open_hours is None:
        return 24.0
    start, end = (one.hour + one.minute / 60 for one in open_hours)
    return (end - start) % 24 or 24.0


def _months(pipeline: Pipeline, found: Survey, measured: Measured, tokens: CallTokens) -> list[MonthPlan]:
    """The months in order, and last all of them."""
    names = sorted(found.months)
    by_value = {name: totals(measured.strata, place, names) for name, place in PLACE.items()}
    margin = MARGIN_OF_LEARNED_TOKENS if tokens.calls else MARGIN_OF_TOKENS
    per_channel = costs.expected_speech_usd(pipeline, 0.0, 3600.0)
    per_hour = costs.expected_speech_usd(pipeline, 3600.0) - per_channel
    plans: list[MonthPlan] = []
    for month in [*names, None]:
        count = found.months[month] if month is not None else _sum_counts(found.months)
        value = {name: by_month[month] for name, by_month in by_value.items()}
        asked = [tokens.of(audio_s) for audio_s in count.ask_s]
        tokens_in = value["tokens_in"].plus(sum(one.input for one in asked))
        tokens_out = value["tokens_out"].plus(sum(one.output for one in asked))
        llm_usd = Estimate(
            *(
                costs.expected_llm_usd(pipeline, of_in, of_out) * factor
                for of_in, of_out, factor in zip(tokens_in, tokens_out, (1.0, 1 - margin, 1 + margin), strict=True)
            )
        )
        speech = (
            one * per_hour / 3600 + other * per_channel / 3600
            for one, other in zip(value["billed_s"], value["channel_s"], strict=True)
        )
        plans.append(
            MonthPlan(
                month=month or "total",
                count=count,
                audio_s=value["audio_s"],
                billed_s=value["billed_s"],
                speech_usd=Estimate(*speech),
                llm_usd=llm_usd,
                tokens_in=tokens_in.total,
                tokens_out=tokens_out.total,
                calls=value["calls"].total,
                questions=value["questions"].total + sum(one.questions for one in asked),
                not_audio=value["not_audio"].total,
                not_read=value["not_read"].total,
            )
        )
    return plans


def _sum_counts(months: Mapping[str, MonthCount]) -> MonthCount:
    total = MonthCount()
    for one in months.values():
        for name in vars(total):
            mine, its = getattr(total, name), getattr(one, name)
            if isinstance(mine, Counter):
                mine.update(its)
            else:
                setattr(total, name, mine + its)
    return total


def _sum(months: Mapping[str, MonthCost]) -> MonthCost | None:
    if not months:
        return None
    return MonthCost(
        sum(one.audio_s for one in months.values()),
        sum(one.speech_usd for one in months.values()),
        sum(one.llm_usd for one in months.values()),
    )


def _with(one: MonthPlan, planned: MonthCost | None, actual: MonthCost | None) -> MonthPlan:
    return MonthPlan(**{**vars(one), "planned": planned, "actual": actual})


def _kept(
    pipeline: Pipeline, found: Survey, months: list[MonthPlan], earlier: SavedPlan | None, measured: int
) -> SavedPlan:
    """The plan to keep: the days of now, and what was first expected, or expected from more measured recordings."""
    planned = {
        one.month: MonthCost(
            round(one.count.paid_audio_s + one.billed_s.total, 3),
            round(one.count.paid_speech_usd + one.speech_usd.total, 6),
            round(one.count.paid_llm_usd + one.llm_usd.total, 6),
        )
        for one in months[:-1]
    }
    now = SavedPlan(found.days, pipeline.pipeline, dt.datetime.now(dt.UTC), planned, found.by_day, measured)
    if earlier is None:
        return now
    is_coarser = measured < earlier.measured and found.by_day == earlier.by_day
    if not is_coarser and not any(one.count.settled or one.paid_usd for one in months):
        return now
    return replace(earlier, by_day=found.by_day)


def _keep(state: ObjectPrefix, kept: SavedPlan) -> str:
    """Write a plan; returns why that was not possible."""
    try:
        write_plan(state, kept)
    except CallphasesError as error:
        log.warning("The plan is not kept, so it can't be compared with the costs later: %s", error)
        return str(error)
    return ""


def _s3_requests(total: MonthPlan, tokens: CallTokens) -> int:
    calls = total.count.to_transcribe + len(total.count.ask_s)
    chunks = math.ceil(calls / tokens.calls_per_chunk) if calls else 0
    listed = math.ceil(total.count.recordings / 1000)
    return (
        REQUESTS_A_CALL * calls
        + REQUESTS_A_CHUNK * chunks
        + (REQUESTS_A_DAY * total.count.days if calls else 0)
        + listed
    )
