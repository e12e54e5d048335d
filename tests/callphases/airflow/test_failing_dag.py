"""Dags of invalid pipeline files: their names, schedules and messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callphases.airflow.compat import AirflowFailException
from callphases.airflow.failing_dag import failing_dags
from callphases.pipeline import load_all
from versions import serialized

MINIMAL = "pipeline: {name}\nrecordings: {{bucket: b, prefix: p/}}\noutput: {{tables: s3://w/t/, state: s3://w/s/}}\n"


def dags_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The Dags of the invalid files in a folder."""
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(folder))
    pipelines, mistakes = load_all()
    return failing_dags(mistakes, [one.pipeline for one in pipelines])


def timetable_of(dag: Any) -> tuple[str, str] | None:
    if dag.schedule is None:
        return None
    schedule = serialized(dag).timetable.serialize()
    return schedule["expression"], schedule["timezone"]


def test_task_fails_with_the_message_that_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.yaml").write_text(MINIMAL.format(name="bad") + "schedule: 0 25 * * *\n")
    [dag] = dags_of(tmp_path, monkeypatch)
    message = f"{tmp_path / 'bad.yaml'}: schedule: expected a cron expression whose hour is 0 to 23, not '25'"
    assert message in dag.doc_md
    [task] = dag.tasks
    with pytest.raises(AirflowFailException) as error:
        task.execute({})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("content", "dag_id", "schedule", "starts_paused"),
    [
        # what the file says, as far as it is valid
        (
            "pipeline: live\nschedule: 0 3 * * *\ntimezone: Europe/Berlin\nrecording: {}\n",
            *("call_phases_live", ("0 3 * * *", "Europe/Berlin"), None),
        ),
        (
            "pipeline: live\nschedule: 0 3 * * *\ntimezone: Berlin\n",
            *("call_phases_live", ("0 3 * * *", "UTC"), None),
        ),
        (
            "pipeline: live\nschedule: 0 3 * *\ntimezone: Europe/Berlin\n",
            *("call_phases_live", ("0 0 * * *", "Europe/Berlin"), None),
        ),
        (
            "pipeline: live\nschedule: 0 3 * * *\ntimezone:\tEurope/Berlin\n",
            *("call_phases_live", ("0 3 * * *", "Europe/Berlin"), None),
        ),
        ("pipeline: live\nschedule: null\n", "call_phases_live", None, None),
        # the file's name, and loud
        ("", "call_phases_the_file", ("0 0 * * *", "UTC"), False),
        ("timezone: Europe/Berlin\n", "call_phases_the_file", ("0 0 * * *", "Europe/Berlin"), False),
        ("pipeline: our calls\n", "call_phases_the_file", ("0 0 * * *", "UTC"), False),
        # the name of another pipeline, as in a copy
        ("pipeline: good\n", "call_phases_the_file", ("0 0 * * *", "UTC"), None),
        (MINIMAL.format(name="good"), "call_phases_the_file", ("0 0 * * *", "UTC"), None),
    ],
)
def test_dag_of_an_invalid_file_keeps_name_and_schedule(
    content: str,
    dag_id: str,
    schedule: tuple[str, str] | None,
    starts_paused: bool | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "good.yaml").write_text(MINIMAL.format(name="good"))
    (tmp_path / "the file.yaml").write_text(content)
    [dag] = dags_of(tmp_path, monkeypatch)
    assert dag.dag_id == dag_id
    assert timetable_of(dag) == schedule
    assert dag.is_paused_upon_creation is starts_paused


def test_invalid_files_get_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("# without a name\n")
    (tmp_path / "a.yml").write_text("# without a name\n")
    (tmp_path / "b.yaml").write_text("pipeline: a\n")
    (tmp_path / "c.yaml").write_text("pipeline: a\n")
    (tmp_path / "d.yaml").mkdir()
    (tmp_path / f"{'long' * 50}.yaml").write_text("")
    dags = {dag.dag_id: dag for dag in dags_of(tmp_path, monkeypatch)}
    names = ["a", "a_2", "a_3", "c", "d", ("long" * 50)[:90]]
    assert sorted(dags) == [f"call_phases_{name}" for name in names]
    assert "b.yaml: " in str(dags["call_phases_a"].doc_md)
