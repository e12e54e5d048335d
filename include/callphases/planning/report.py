"""Shows a plan: as a table with remarks, as JSON, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from callphases.inspection import showing, strips
from callphases.planning.plan import MonthPlan, Plan
from callphases.planning.sampling import Estimate
from callphases.planning.saved import MonthCost
from callphases.recordings import counted

_COLUMNS = ("month", "recordings", "done", "to do", "hours", "speech", "LLM", "to pay", "paid", "unreadable")
_COLORS = {"paid": "#0072B2", "speech, to pay": "#56B4E9", "language model, to pay": "#E69F00"}


def print_plan(plan: Plan, console: Console) -> None:
    """Print a plan for people."""
    console.print(f"{plan.pipeline}: {plan.days}", soft_wrap=True)
    compared = any(month.actual is not None for month in plan.months)
    table = Table(box=None, pad_edge=False)
    for name in (*_COLUMNS, *(("planned", "actual") if compared else ())):
        table.add_column(name, justify="left" if name == "month" else "right")
    for month in [*plan.months, *([plan.total] if len(plan.months) != 1 else [])]:
        table.add_row(*_row(month), *(_compared(month) if compared else ()))
    console.print(table)
    for line in remarks(plan):
        console.print(showing.printable(line), soft_wrap=True)


def _row(month: MonthPlan) -> Iterator[str]:
    count = month.count
    yield month.month
    yield f"{count.recordings:,}"
    yield f"{count.settled:,}"
    yield f"{count.to_transcribe + len(count.ask_s):,}"
    yield _with_margin(month.billed_s.times(1 / 3600), "{:,.1f}")
    yield f"${month.speech_usd.total:,.2f}"
    yield f"${month.llm_usd.total:,.2f}"
    yield _with_margin(month.usd, "${:,.2f}")
    yield f"${month.paid_usd:,.2f}"
    yield f"{count.archived.total():,}"


def _compared(month: MonthPlan) -> Iterator[str]:
    for one in (month.planned, month.actual):
        yield "" if one is None else f"${one.usd:,.2f}"


def _with_margin(estimate: Estimate, form: str) -> str:
    margin = (estimate.high - estimate.low) / 2
    text = form.format(estimate.total)
    return text if margin < 0.005 * max(estimate.total, 1e-9) else f"{text} ± {form.replace('$', '').format(margin)}"


def remarks(plan: Plan) -> Iterator[str]:
    """What a table does not hold, in sentences."""
    total, count = plan.total, plan.total.count
    todo = count.to_transcribe
    if plan.is_exact:
        yield f"Measured: all {counted(todo)} to transcribe." if todo else "Nothing is to be transcribed."
    else:
        yield (
            f"Measured: {plan.measured:,} of {todo:,} recordings to transcribe, chosen by size, suffix and month; "
            "the margins have the total with a confidence of 95 %. --exact measures all."
        )
    if plan.tokens.calls:
        days = f"{plan.tokens.days[0]} to {plan.tokens.days[-1]}"
        yield f"The language model's tokens are estimated from {plan.tokens.calls:,} published calls ({days})."
    elif todo or count.ask_s:
        yield (
            "The language model's tokens are assumed, as there are too few published calls to learn from: run a day or "
            "two, and plan again."
        )
    if plan.options:
        options = ", ".join(f"{name} ${usd:g}" for name, usd in sorted(plan.options.items()))
        yield f"Options in the price of an hour: {options}."
    if plan.unpriced:
        yield (
            f"Without a known price: {', '.join(plan.unpriced)}. Options count nothing, models as much as the dearest: "
            "set prices.options_usd_per_hour, prices.speech_usd_per_hour or prices.llm_usd_per_million."
        )
    if plan.paid_again:
        yield f"Paid for again: {plan.paid_again}"
    for storage, number in sorted(count.archived.items()):
        size = count.archived_bytes[storage] / 1e9
        yield (
            f"Unreadable: {counted(number)} in {storage} ({size:,.1f} GB), which are not in the estimate. To have them "
            f"transcribed, restore them: {counted(number, 'RestoreObject request')} (or one S3 Batch Operations job)."
        )
    if count.empty:
        yield f"Empty: {counted(count.empty)}, which will fail and cost nothing."
    for name, failing, why in (
        ("not_audio", total.not_audio, "that are no audio of a known format, taken to fail and to cost nothing"),
        ("not_read", total.not_read, "that could not be read: check s3:GetObject and kms:Decrypt. They are left out"),
    ):
        if failing:
            about = "" if plan.is_exact else "about "
            keys = ", ".join(map(repr, plan.examples.get(name, [])))
            yield f"Recordings {why}: {about}{round(failing):,}, such as {keys}."
    for finding in plan.findings:
        yield f"{finding.health.value} {finding.what}: {finding.detail}"
    if todo or count.ask_s:
        nights = counted(plan.pace.nights, "night")
        slower = "speech service" if plan.pace.speech_hours >= plan.pace.question_hours else "language model"
        yield (
            f"At the pipeline's limits: {_hours(plan.pace.hours)}, by the {slower}; {nights} of "
            f"{plan.pace.night_hours:g} hours. S3 requests: about {plan.s3_requests:,}."
        )
    if plan.first_planned_at is not None:
        yield f"planned: what was expected on {plan.first_planned_at:%Y-%m-%d}. actual: the published days."
    if plan.problem:
        yield f"This plan is not kept, so it can't be compared with the costs later: {plan.problem}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{max(round(hours * 60), 1)} minutes"


def as_json(plan: Plan) -> str:
    """A plan as JSON, with what the table has and more.

    Names end with their units. An estimate is an object of ``total``, ``low`` and ``high``, which are the same where
    everything was measured. ``total`` has the keys of a month. Keys are only ever added.
    """
    document = {
        "pipeline": plan.pipeline,
        "from": str(plan.days.first),
        "to": str(plan.days.last),
        "planned_at": plan.planned_at.isoformat(),
        "exact": plan.is_exact,
        "measured": plan.measured,
        "total": _month(plan.total),
        "months": [_month(month) for month in plan.months],
        "paid_again": plan.paid_again,
        "keys_without_time": plan.keys_without_time,
        "recordings_without_day": plan.without_day,
        "first_planned_at": None if plan.first_planned_at is None else plan.first_planned_at.isoformat(),
        "tokens_learned_from_calls": plan.tokens.calls,
        "options_usd_per_hour": plan.options,
        "unpriced": plan.unpriced,
        "hours_at_limits": plan.pace.hours,
        "speech_hours_at_limits": plan.pace.speech_hours,
        "question_hours_at_limits": plan.pace.question_hours,
        "nights": plan.pace.nights,
        "night_hours": plan.pace.night_hours,
        "s3_requests": plan.s3_requests,
        "remarks": list(remarks(plan)),
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _month(month: MonthPlan) -> dict[str, Any]:
    count = month.count
    return {
        "month": month.month,
        "days": count.days,
        "recordings": count.recordings,
        "bytes": count.bytes,
        "done": count.settled,
        "to_transcribe": count.to_transcribe,
        "to_ask": len(count.ask_s),
        "paid_again": count.paid_again,
        "empty": count.empty,
        "not_audio": month.not_audio,
        "not_read": month.not_read,
        "unreadable": {
            storage: {"recordings": number, "bytes": count.archived_bytes[storage]}
            for storage, number in sorted(count.archived.items())
        },
        "audio_s": month.audio_s._asdict(),
        "billed_s": month.billed_s._asdict(),
        "speech_usd": month.speech_usd._asdict(),
        "llm_usd": month.llm_usd._asdict(),
        "usd": month.usd._asdict(),
        "llm_input_tokens": month.tokens_in,
        "llm_output_tokens": month.tokens_out,
        "questions": month.questions,
        "paid_speech_usd": count.paid_speech_usd,
        "paid_llm_usd": count.paid_llm_usd,
        "planned": _cost(month.planned),
        "actual": _cost(month.actual),
    }


def _cost(cost: MonthCost | None) -> dict[str, float] | None:
    return None if cost is None else {"audio_s": cost.audio_s, "speech_usd": cost.speech_usd, "llm_usd": cost.llm_usd}


def draw(plan: Plan, path: Path) -> None:
    """Draw what is paid and what is to pay by month, as a PNG file, with the interval of each month.

    Raises:
        ConfigurationError: matplotlib is not installed, or the file can't be written.
    """
    figure, axes = strips.canvas([month.month for month in plan.months], row_inches=0.35)
    for row, month in enumerate(plan.months):
        left = 0.0
        for color, usd in zip(_COLORS.values(), _amounts(month), strict=True):
            axes.barh(row, usd, left=left, color=color, edgecolor="white", linewidth=0.5, height=0.7)
            left += usd
        paid = month.paid_usd
        axes.plot([paid + month.usd.low, paid + month.usd.high], [row, row], color="#333333", linewidth=1)
        if month.actual is not None:
            axes.plot([month.actual.usd] * 2, [row - 0.4, row + 0.4], color="black", linewidth=2)
    axes.set_xlabel("US dollars" + (" (black: actual)" if any(month.actual for month in plan.months) else ""))
    axes.set_xlim(left=0)
    strips.save(figure, axes, _COLORS, path)


def _amounts(month: MonthPlan) -> Iterable[float]:
    return month.paid_usd, month.speech_usd.total, month.llm_usd.total
