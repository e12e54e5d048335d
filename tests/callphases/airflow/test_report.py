"""The sentences of a run, and the note that is made of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from callphases.airflow.report import DAY, LONGEST_NOTE, NOTE, PROBLEM, Report, again, fallbacks, noted, sentence
from callphases.errors import REMEDIES, failure_classes
from doubles import pipeline

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"


def day(**changes: Any) -> dict[str, Any]:
    values = {
        "dt": "2026-11-19",
        "listed": 5,
        "kept": 0,
        "statuses": {"failed": 1, "completed": 3, "no_speech": 1},
        "failures": {"bad_audio": 1},
        "speech_usd": 0.1,
        "llm_usd": 0.02,
        "run_speech_usd": 0.004,
        "run_llm_usd": 0.0,
        "run_speech_models": {},
        "run_llm_models": {},
    }
    return {**values, **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "2026-11-19: 5 listed = 3 completed + 1 no_speech + 1 failed (1 bad_audio). $0.0040 spent by this run "
            "($0.0040 on speech, $0.00 on language models); the day's calls cost $0.12.",
        ),
        (
            {"listed": 0, "statuses": {}, "failures": {}, "speech_usd": 0, "llm_usd": 0, "run_speech_usd": 0},
            "2026-11-19: 0 listed = none. $0.00 spent by this run ($0.00 on speech, $0.00 on language models); the "
            "day's calls cost $0.00.",
        ),
        (
            {"kept": 2, "run_estimated_usd": 0.003},
            "2026-11-19: 5 listed = 3 completed + 1 no_speech + 1 failed (1 bad_audio). 2 more, of deleted recordings, "
            "are kept. $0.0040 spent by this run ($0.0040 on speech, $0.00 on language models, $0.0030 of it "
            "estimated); the day's calls cost $0.12.",
        ),
    ],
)
def test_sentence_counts_recordings_and_costs(changes: dict[str, Any], said: str) -> None:
    assert sentence(day(**changes)) == said


def report(**xcoms: Any) -> Report:
    values = {("publish", "return_value"): xcoms.get("published")}
    values |= {("list", DAY): xcoms.get("day"), ("verify", NOTE): xcoms.get("note")}
    values |= {(task, PROBLEM): xcoms.get(task) for task in ("list", "publish")}
    return Report.of(lambda task, key: values.get((task, key)), lambda: "2026-11-18")


def test_report_of_a_verified_run_is_what_verify_said() -> None:
    found = report(published=day(), day="2026-11-19", note=sentence(day()))
    assert (found.day, found.text, found.failures) == ("2026-11-19", sentence(day()), {"bad_audio": 1})


@pytest.mark.parametrize(
    ("xcoms", "text"),
    [
        ({"list": "Wrong key."}, "2026-11-18: not published. Wrong key."),
        ({"day": "2026-11-19", "publish": "No S3."}, "2026-11-19: not published. No S3."),
        ({"day": "2026-11-19"}, "2026-11-19: not published. See the log of the task that failed first."),
        # A custom XCom backend gives its own reference.
        ({"day": "2026-11-19", "note": "s3://xcoms/note"}, "2026-11-19: not published. See the log of the task that"),
        ({"published": day()}, f"{sentence(day())} The task verify did not run to its end: see its log."),
    ],
)
def test_report_of_a_run_without_verify_says_why(xcoms: dict[str, Any], text: str) -> None:
    assert report(**xcoms).text.startswith(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "{report}"),
        ("2026-11-19", "{report}"),
        ("2026-11-19: 4 listed = 4 completed. $1.00 spent.", "{report}"),
        ("2026-11-18: not published. Wrong key.", "{report}"),
        ("2026-11-19: rerun for Ada.", "{report}\n\n2026-11-19: rerun for Ada."),
        ("Ada looks into it.\n\n2026-11-19: not published. x", "{report}\n\nAda looks into it."),
    ],
)
def test_note_keeps_what_people_wrote(before: str | None, after: str) -> None:
    said = sentence(day())
    assert noted(said, before) == after.format(report=said)
    assert noted(said, noted(said, before)) == noted(said, before)


def test_note_is_no_longer_than_airflow_stores() -> None:
    assert len(noted("2026-11-19: not published. " + "x" * 2000, "y")) == LONGEST_NOTE


def test_command_runs_the_day_again() -> None:
    assert again("call_phases_support", "2026-11-19").endswith(
        """airflow dags trigger call_phases_support --conf '{"date": "2026-11-19"}'"""
    )


def test_fallbacks_name_models_and_settings() -> None:
    of = pipeline(transcription={"speech_models": ["a", "b"]}, segmentation={"models": ["x", "y"]})
    used = day(run_speech_models={"a": 3, "b": 1}, run_llm_models={"y": 2})
    assert fallbacks(of, used) == [
        "2026-11-19: 1 call by b instead of a: check that a is still served, or put another first in "
        "transcription.speech_models.",
        "2026-11-19: 2 calls by y instead of x: check that x is still served, or put another first in "
        "segmentation.models.",
    ]
    side_by_side = pipeline(segmentation={"models": ["x", "y"], "side_by_side": True})
    assert fallbacks(side_by_side, day(run_llm_models={"x": 1, "y": 2})) == []


def test_each_failure_class_has_a_remedy_here_and_a_row_in_the_runbook() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    described = {name for names in rows for name in re.findall(r"\w+", names)}
    assert set(REMEDIES) == failure_classes()
    assert failure_classes() <= described
