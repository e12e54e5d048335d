"""Ends a run with one row of the table in docs/deployment.md: what works on the Airflow of this environment."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

COLUMNS = {
    "parse": "test_dag_file_parses_without_error",
    "dags test": "test_dags_test_runs_a_day",
    "deferral": "test_deferred_chunk_is_resumed_and_published",
    "backfill": "test_backfill_command_runs_its_days",
    "Assets": "test_asset_starts_its_consumer",
    "deadline": "test_missed_deadline_is_reported",
    "notes, notify": "test_failed_night_is_noted_and_told_once_with_its_remedy",
    "pages": "test_pages_show_the_night_to_a_viewer",
    "tabs": "test_tabs_are_in_the_list_of_plugins_that_the_ui_reads",
    "replay": "test_replay_is_for_who_may_trigger_and_in_their_name",
}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the row."""
    outcomes: dict[str, str] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            if "tests/airflows/" in getattr(report, "nodeid", ""):
                outcomes[report.nodeid.rpartition("::")[2]] = "✓" if outcome == "passed" else "✗"
    if outcomes:
        row = [f"Airflow {version('apache-airflow')}", f"Python {platform.python_version()}"]
        row += [f"{column} {outcomes.get(test, '–')}" for column, test in COLUMNS.items()]
        terminalreporter.write_line(" | ".join(row))
