"""What a run has come to, in sentences: for the log of ``verify``, the Dag run's note and notifications."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callphases.errors import REMEDIES
from callphases.pipeline import Pipeline
from callphases.recordings import counted

DAY, NOTE, PROBLEM = "day", "note", "problem"
"""XCom keys: the day, of the task ``list``; the sentences, of ``verify``; why the task failed, of any."""
LONGEST_NOTE = 1000
"""Characters that Airflow stores."""

_DATE = r"\d{4}-\d{2}-\d{2}"
_OWN_LINE = re.compile(rf"{_DATE}( to {_DATE})?(: (\d+ listed = |not published\. |nothing to do).*)?")

Pull = Callable[[str, str], Any]
"""The XCom of a task by its key, None if there is none."""


def push(context: Any, key: str, value: str) -> None:
    """Push an XCom for the report; a context without a task instance has none."""
    if (ti := context.get("ti")) is not None:
        ti.xcom_push(key, value)


def counts(day: Mapping[str, Any]) -> str:
    """``2026-11-19: 5 listed = 4 completed + 1 failed (1 bad_audio)``.

    Args:
        day: what ``publish`` returned for a day.
    """
    order = {"completed": 0, "no_speech": 1, "failed": 2}
    statuses = sorted(day["statuses"].items(), key=lambda item: order.get(item[0], len(order)))
    classes = ", ".join(f"{count} {name}" for name, count in sorted(day["failures"].items()))
    summed = " + ".join(f"{count} {status}" for status, count in statuses) or "none"
    return f"{day['dt']}: {day['listed']} listed = {summed}" + (f" ({classes})" if classes else "")


def sentence(day: Mapping[str, Any]) -> str:
    """The counts of a day, and what it cost."""
    speech, llm = day["run_speech_usd"], day["run_llm_usd"]
    estimated = f", ${day['run_estimated_usd']:.4f} of it estimated" if day.get("run_estimated_usd") else ""
    kept = f" {day['kept']} more, of deleted recordings, are kept." if day["kept"] else ""
    return (
        f"{counts(day)}.{kept} {_usd(speech + llm)} spent by this run ({_usd(speech)} on speech, {_usd(llm)} on "
        f"language models{estimated}); the day's calls cost {_usd(day['speech_usd'] + day['llm_usd'])}."
    )


def total(name: str, days: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums of what ``publish`` knows of some days; ``dt`` is ``name``, and ``stopped`` says why the run was."""
    found: dict[str, Any] = {"dt": name, "listed": 0, "kept": 0, "statuses": {}, "failures": {}, "unfinished": 0}
    found |= {"run_speech_usd": 0.0, "run_llm_usd": 0.0, "speech_usd": 0.0, "llm_usd": 0.0, "stopped": None}
    for day in days:
        for field, value in day.items():
            if isinstance(value, dict):
                found[field] = _added(found.get(field, {}), value)
            elif isinstance(value, int | float):
                found[field] = found.get(field, 0) + value
        found["stopped"] = found["stopped"] or day["stopped"]
    return found


def _added(sums: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers added up by name; they may be in dicts themselves."""
    added = dict(sums)
    for name, value in more.items():
        added[name] = _added(sums.get(name, {}), value) if isinstance(value, Mapping) else sums.get(name, 0) + value
    return added


def _usd(amount: float) -> str:
    return f"${amount:.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"


def remedies(failures: Mapping[str, int]) -> list[str]:
    """What to do about failed recordings, a line for each class."""
    return [f"{count} {name}: {REMEDIES.get(name, 'see failure_message')}." for name, count in sorted(failures.items())]


def again(dag_id: str, day: str) -> str:
    """How to run a day again, or several as ``2026-11-01 to 2026-11-30``."""
    first, _, last = day.partition(" to ")
    conf = json.dumps({"from": first, "to": last, "again": "failed"} if last else {"date": day})
    return f"To run the day again, which pays for nothing twice: airflow dags trigger {dag_id} --conf '{conf}'"


def fallbacks(pipeline: Pipeline, day: Mapping[str, Any]) -> list[str]:
    """The models that a run has used instead of the first of a list, a line for each list.

    With ``side_by_side`` every language model is used as the first is.
    """
    lists = [("transcription.speech_models", pipeline.speech_models, day.get("run_speech_models", {}))]
    if not pipeline.segmentation.side_by_side:
        lists.append(("segmentation.models", pipeline.segmentation.models, day.get("run_llm_models", {})))
    return [
        f"{day['dt']}: {counted(count, 'call')} by {model} instead of {models[0]}: check that {models[0]} is still "
        f"served, or put another first in {setting}."
        for setting, models, used in lists
        for model, count in sorted(used.items())
        if model != models[0]
    ]


@dataclass(frozen=True)
class Report:
    """What is known of a run that has ended.

    Attributes:
        day: the day of its calls, None if the run did not get to know it.
        text: what ``verify`` said, or why nothing was published.
        failures: recordings of the day by failure class.
    """

    day: str | None
    text: str
    failures: Mapping[str, int]

    @classmethod
    def of(cls, pull: Pull, due: Callable[[], str | None]) -> Report:
        """The report of a run, from its XComs; ``due`` is asked for the day if no task got as far as that."""
        published = pull("publish", "return_value")
        published = published if isinstance(published, dict) else {}
        day = published.get("dt") or pull("list", DAY) or due()
        note = pull("verify", NOTE)
        if not isinstance(note, str) or not _OWN_LINE.match(note):
            problem = next((text for task in ("list", "publish", "verify") if (text := pull(task, PROBLEM))), None)
            if published:
                note = f"{sentence(published)} The task verify did not run to its end: see its log."
            else:
                note = f"{day or 'The day'}: not published. {problem or 'See the log of the task that failed first.'}"
        return cls(day, note, published.get("failures", {}))


def noted(report: str, before: str | None) -> str:
    """The note of a Dag run: the report, then what people have written there."""
    others = [line for line in (before or "").splitlines() if line.strip() and not _OWN_LINE.fullmatch(line.strip())]
    text = "\n\n".join([report, *others])
    return text if len(text) <= LONGEST_NOTE else text[: LONGEST_NOTE - 1] + "…"
