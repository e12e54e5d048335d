"""The expected answers to the questions of include/sql/questions, computed from the rows in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import groupby
from math import fsum
from operator import itemgetter
from typing import Any

from month import Month

Row = dict[str, Any]
Answer = tuple[list[str], list[tuple[Any, ...]]]
"""Names of the columns, and rows in the question's order."""


def _by(rows: Iterable[Row], *columns: str) -> list[tuple[Any, list[Row]]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[column] for column in columns)].append(row)
    return sorted(groups.items(), key=itemgetter(0))


def _calls_with_move(month: Month) -> Iterable[tuple[Any, list[Row], int]]:
    for key, phases in _by(month.phases, "dt", "call_id"):
        moves = [phase["phase_index"] for phase in phases if phase["phase_name"] == "Resolution"]
        if moves:
            yield key, phases, min(moves)


def time_to_first_move(month: Month) -> Answer:
    waits = [
        (
            day,
            fsum(
                phase["duration_s"]
                for phase in phases
                if phase["phase_index"] < move and phase["phase_name"] in ("Introduction", "Complaint")
            ),
        )
        for (day, _), phases, move in _calls_with_move(month)
    ]
    rows: list[tuple[Any, ...]] = []
    for day, group in groupby(waits, itemgetter(0)):
        seconds = [wait_s for _, wait_s in group]
        rows.append((day, len(seconds), fsum(seconds) / len(seconds), min(seconds), max(seconds)))
    return ["dt", "calls", "mean_wait_s", "shortest_wait_s", "longest_wait_s"], rows


def share_of_complaint(month: Month) -> Answer:
    rows: list[tuple[Any, ...]] = []
    for (day,), phases in _by(month.phases, "dt"):
        complaint_s = fsum(phase["duration_s"] for phase in phases if phase["phase_name"] == "Complaint")
        rows.append((day, complaint_s / 3600, complaint_s / fsum(phase["duration_s"] for phase in phases)))
    return ["dt", "complaint_hours", "share_of_complaint"], rows


def reopened_complaints(month: Month) -> Answer:
    rows: list[tuple[Any, ...]] = []
    for key, phases, move in _calls_with_move(month):
        again = [phase for phase in phases if phase["phase_name"] == "Complaint" and phase["phase_index"] > move]
        if again:
            seconds = fsum(phase["duration_s"] for phase in again)
            rows.append((*key, len(again), min(phase["start_s"] for phase in again), seconds))
    return ["dt", "call_id", "times_reopened", "first_reopened_at_s", "reopened_s"], rows


def silence_in_resolution(month: Month) -> Answer:
    known = [row for row in month.phases if row["phase_name"] == "Resolution" and row["silence_s"] is not None]
    rows: list[tuple[Any, ...]] = []
    for (day,), phases in _by(known, "dt"):
        silent_s = fsum(phase["silence_s"] for phase in phases)
        all_s = fsum(phase["duration_s"] for phase in phases)
        rows.append((day, len(phases), silent_s / len(phases), silent_s / all_s))
    return ["dt", "resolutions", "mean_silence_s", "share_of_silence"], rows


def longest_introductions(month: Month) -> Answer:
    columns = ["dt", "call_id", "phase_index", "duration_s", "share_of_call", "summary"]
    found = [row for row in month.phases if row["phase_name"] == "Introduction"]
    found.sort(key=lambda row: (-row["duration_s"], row["dt"], row["call_id"], row["phase_index"]))
    return columns, [tuple(row[column] for column in columns) for row in found[:10]]


def coverage_of_the_night(month: Month) -> Answer:
    rows: list[tuple[Any, ...]] = []
    for (day,), calls in _by(month.calls, "dt"):
        named = [{"status": call["status"], "failure": call["failure_class"] or ""} for call in calls]
        for (status, failure), some in _by(named, "status", "failure"):
            rows.append((day, status, failure, len(some), len(calls), len(some) / len(calls)))
    return ["dt", "status", "failure", "recordings", "listed", "share_of_listed"], rows


def cost_per_day(month: Month) -> Answer:
    rows: list[tuple[Any, ...]] = []
    for (day,), calls in _by(month.calls, "dt"):
        finished = sum(call["status"] == "completed" for call in calls)
        speech, llm = (fsum(call[column] or 0 for call in calls) for column in ("speech_usd", "llm_usd"))
        rows.append((day, finished, speech, llm, speech + llm, (speech + llm) / finished if finished else None))
    return ["dt", "finished", "day_speech_usd", "day_llm_usd", "day_usd", "usd_per_call"], rows


def audio_by_model(month: Month) -> Answer:
    columns = ["dt", "speech_model", "llm_model", "prompt_version"]
    completed = [call for call in month.calls if call["status"] == "completed"]
    rows: list[tuple[Any, ...]] = []
    for key, calls in _by(completed, *columns):
        hours = fsum(call["duration_s"] for call in calls) / 3600
        rows.append((*key, len(calls), hours, sum(call["phase_count"] for call in calls)))
    return [*columns, "calls", "audio_hours", "phases"], rows


def calls_without_goodbye(month: Month) -> Answer:
    rows: list[tuple[Any, ...]] = []
    for (day,), phases in _by(month.phases, "dt"):
        calls = {phase["call_id"] for phase in phases}
        abandoned = len(calls - {phase["call_id"] for phase in phases if phase["phase_name"] == "Goodbye"})
        rows.append((day, len(calls), abandoned, abandoned / len(calls)))
    return ["dt", "calls", "abandoned", "share_abandoned"], rows


def busiest_hours(month: Month) -> Answer:
    hours = _by([{**call, "hour": call["call_started_at"].hour} for call in month.calls], "hour")
    rows = [
        (
            hour,
            len(calls),
            fsum(call["duration_s"] or 0 for call in calls) / 3600,
            1 + sum(len(others) > len(calls) for _, others in hours),
        )
        for (hour,), calls in hours
    ]
    return ["hour_of_day", "calls", "audio_hours", "busiest"], rows


ANSWERS: dict[str, Callable[[Month], Answer]] = {
    "01_time_to_first_move": time_to_first_move,
    "02_share_of_complaint": share_of_complaint,
    "03_reopened_complaints": reopened_complaints,
    "04_silence_in_resolution": silence_in_resolution,
    "05_longest_introductions": longest_introductions,
    "06_coverage_of_the_night": coverage_of_the_night,
    "07_cost_per_day": cost_per_day,
    "08_audio_by_model": audio_by_model,
    "09_calls_without_goodbye": calls_without_goodbye,
    "10_busiest_hours": busiest_hours,
}
